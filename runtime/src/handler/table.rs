//! The table of functions: each named event is one async handler with explicit dependencies.
//!
//! Invariant: whatever a handler does (fail, panic, run too long), its session comes back and the outcome is counted.
use std::{collections::HashMap, panic::AssertUnwindSafe, sync::Arc, time::Duration};

use futures_util::{FutureExt, future::BoxFuture};
use rollcall_schema::{
    AckError, ConnectRequest, LeftReason, Offset, Request, SessionError,
    ack::{self, Reply},
    request::PayloadError,
};
use serde::de::DeserializeOwned;
use tokio::time::Instant;
use tracing::error;

use crate::handler::{
    connect_context::ConnectContext,
    connected::Connected,
    error::{ConnectError, HandlerError, Interrupted, Refused},
    session::Session,
};
use rollcall_base::names;

/// How long a handler may run, unless [`Table::handler_timeout`] says otherwise.
const HANDLER_TIMEOUT: Duration = Duration::from_secs(5);

/// The longest value of a URL's parameter that is kept, in bytes: clients that have not said who they are can make the
/// node keep that much.
const MAX_URL_PARAMETER: usize = 256;

/// A handler of an event: `async fn(&Deps, &mut Session, Request) -> Result<Answer, HandlerError>`.
pub trait Handler<'a, D: 'a, R, A>: Send + Sync {
    /// What it returns.
    type Future: Future<Output = Result<A, HandlerError>> + Send + 'a;
    /// Calls it.
    fn call(&self, deps: &'a D, session: &'a mut Session, request: R) -> Self::Future;
}

impl<'a, D: 'a, R, A, F, Fut> Handler<'a, D, R, A> for F
where
    F: Fn(&'a D, &'a mut Session, R) -> Fut + Send + Sync,
    Fut: Future<Output = Result<A, HandlerError>> + Send + 'a,
{
    type Future = Fut;
    fn call(&self, deps: &'a D, session: &'a mut Session, request: R) -> Fut {
        self(deps, session, request)
    }
}

/// The handler of connect: makes a session, or says why not.
pub trait Connect<'a, D: 'a>: Send + Sync {
    /// What it returns.
    type Future: Future<Output = Result<Connected, ConnectError>> + Send + 'a;
    /// Calls it.
    fn call(&self, deps: &'a D, greeting: ConnectContext, request: ConnectRequest) -> Self::Future;
}

impl<'a, D: 'a, F, Fut> Connect<'a, D> for F
where
    F: Fn(&'a D, ConnectContext, ConnectRequest) -> Fut + Send + Sync,
    Fut: Future<Output = Result<Connected, ConnectError>> + Send + 'a,
{
    type Future = Fut;
    fn call(&self, deps: &'a D, greeting: ConnectContext, request: ConnectRequest) -> Fut {
        self(deps, greeting, request)
    }
}

/// The handler of disconnect: ends a session.
pub trait Disconnect<'a, D: 'a>: Send + Sync {
    /// What it returns.
    type Future: Future<Output = ()> + Send + 'a;
    /// Calls it.
    fn call(&self, deps: &'a D, session: Session, reason: LeftReason) -> Self::Future;
}

impl<'a, D: 'a, F, Fut> Disconnect<'a, D> for F
where
    F: Fn(&'a D, Session, LeftReason) -> Fut + Send + Sync,
    Fut: Future<Output = ()> + Send + 'a,
{
    type Future = Fut;
    fn call(&self, deps: &'a D, session: Session, reason: LeftReason) -> Fut {
        self(deps, session, reason)
    }
}

/// What comes of an event: the session back, and the ack, where one is due.
pub struct Outcome {
    /// The session, as the handler left it.
    pub session: Box<Session>,
    /// The message.
    pub ack: Option<Vec<u8>>,
    /// The offset that the message names, where a connection that resumes joined a lesson: later events of it come.
    pub begins: Option<Offset>,
}

type ConnectFn = Arc<
    dyn Fn(ConnectContext, ConnectRequest, Duration) -> BoxFuture<'static, Result<Connected, Refused>> + Send + Sync,
>;
type DisconnectFn = Arc<dyn Fn(Session, LeftReason) -> BoxFuture<'static, ()> + Send + Sync>;
type EventFn = Arc<
    dyn Fn(Box<Session>, &Request<'_>, Duration) -> Result<BoxFuture<'static, Outcome>, (Box<Session>, PayloadError)>
        + Send
        + Sync,
>;

/// The functions of a gateway.
#[derive(Clone)]
pub struct Table {
    first_event: &'static str,
    url_parameter: Option<&'static str>,
    connect: ConnectFn,
    disconnect: DisconnectFn,
    events: HashMap<&'static str, EventFn>,
    timeout: Duration,
}

impl Table {
    /// A table with the two functions that every gateway has.
    pub fn new<C, D>(
        (first_event, connect_deps, connect): (&'static str, C, impl for<'a> Connect<'a, C> + 'static),
        (disconnect_deps, disconnect): (D, impl for<'a> Disconnect<'a, D> + 'static),
    ) -> Self
    where
        C: Send + Sync + 'static,
        D: Send + Sync + 'static,
    {
        let connect = Arc::new((connect_deps, connect));
        let disconnect = Arc::new((disconnect_deps, disconnect));
        Self {
            first_event,
            url_parameter: None,
            connect: Arc::new(move |greeting, request, timeout| {
                let function = Arc::clone(&connect);
                let call = async move { function.1.call(&function.0, greeting, request).await }.boxed();
                async move {
                    let result = contained("connect", timeout, call).await;
                    result.map_or_else(
                        |_| Err(SessionError::InternalServerError.into()),
                        |result| result.map_err(Into::into),
                    )
                }
                .boxed()
            }),
            disconnect: Arc::new(move |session, reason| {
                let function = Arc::clone(&disconnect);
                // No timeout: what left must be written down, however long the database is away.
                async move { function.1.call(&function.0, session, reason).await }.boxed()
            }),
            events: HashMap::new(),
            timeout: HANDLER_TIMEOUT,
        }
    }

    /// Adds an event: its name on the wire, its dependencies, its handler.
    #[must_use]
    pub fn on<D, R, A, H>(mut self, name: &'static str, deps: D, handler: H) -> Self
    where
        D: Send + Sync + 'static,
        R: DeserializeOwned + Send + 'static,
        A: Into<Reply> + Send + 'static,
        H: for<'a> Handler<'a, D, R, A> + 'static,
    {
        let function = Arc::new((deps, handler));
        let event: EventFn = Arc::new(move |mut session, request, timeout| {
            let payload = match request.payload::<R>() {
                Ok(payload) => payload,
                Err(error) => return Err((session, error)),
            };
            let (function, reference) = (Arc::clone(&function), request.reference);
            Ok(async move {
                let call = async { function.1.call(&function.0, &mut session, payload).await }.boxed();
                let answer = match contained(name, timeout, call).await {
                    Ok(result) => result.map_err(|error| (error.detail(), error.to_client())),
                    Err(interrupted) => Err((None, interrupted.to_client())),
                };
                let (ack, begins) = match answer.map(Into::into) {
                    Ok(reply) => (ack::success(reference, &reply), reply.offset()),
                    Err((detail, error)) => (Some(ack::error_with(reference, error, detail)), None),
                };
                Outcome { session, ack, begins }
            }
            .boxed())
        });
        self.events.insert(name, event);
        self
    }

    /// How long a handler may run.
    #[must_use]
    pub fn handler_timeout(self, timeout: Duration) -> Self {
        Self { timeout, ..self }
    }

    /// Keeps the value of this parameter of the connection's URL until connect, as [`ConnectContext::url_parameter`].
    #[must_use]
    pub fn url_parameter(self, name: &'static str) -> Self {
        Self { url_parameter: Some(name), ..self }
    }

    /// The event that a connection must send first, which starts connect.
    #[must_use]
    pub fn first_event(&self) -> &'static str {
        self.first_event
    }

    /// The value of the parameter in a URL's query, as it stands there; none where it is longer than
    /// [`MAX_URL_PARAMETER`].
    #[must_use]
    pub fn url_parameter_in(&self, query: &str) -> Option<Box<str>> {
        let name = self.url_parameter?;
        let value = query.split('&').find_map(|pair| pair.strip_prefix(name)?.strip_prefix('='))?;
        (value.len() <= MAX_URL_PARAMETER).then(|| value.into())
    }

    /// The names of its events.
    pub fn events(&self) -> impl Iterator<Item = &'static str> {
        self.events.keys().copied()
    }

    /// Starts connect.
    #[must_use]
    pub fn connect(
        &self,
        greeting: ConnectContext,
        request: ConnectRequest,
    ) -> BoxFuture<'static, Result<Connected, Refused>> {
        (self.connect)(greeting, request, self.timeout)
    }

    /// Starts disconnect.
    #[must_use]
    pub fn disconnect(&self, session: Session, reason: LeftReason) -> BoxFuture<'static, ()> {
        (self.disconnect)(session, reason)
    }

    /// Starts an event; an error brings the session back at once, and the ack.
    ///
    /// # Errors
    /// Where there is no such event, or the payload is not of its form.
    pub fn invoke(
        &self,
        request: &Request<'_>,
        session: Box<Session>,
    ) -> Result<BoxFuture<'static, Outcome>, (Box<Session>, Vec<u8>)> {
        let Some(event) = self.events.get(&*request.event) else {
            metrics::counter!(names::INVOCATIONS, "function" => "unknown", "outcome" => "error").increment(1);
            return Err((session, self.unknown(request)));
        };
        event(session, request, self.timeout).map_err(|(session, error)| {
            let detail = error.detail.as_deref();
            (session, ack::error_with(request.reference, AckError::InvalidPayload, detail))
        })
    }
}

impl Table {
    fn unknown(&self, request: &Request<'_>) -> Vec<u8> {
        if request.event == self.first_event {
            return ack::error(request.reference, AckError::AlreadyConnected);
        }
        let mut events: Vec<_> = self.events().collect();
        events.sort_unstable();
        let detail = format!("events: {}", events.join(", "));
        ack::error_with(request.reference, AckError::UnknownEvent, Some(&detail))
    }
}

/// Runs a handler with its timeout and its metrics, and holds its panics. Boxed, because by value the handler's state
/// would be in each of the futures around it: 8 KiB for a connect instead of 3.
async fn contained<A, E>(
    function: &'static str,
    limit: Duration,
    call: BoxFuture<'_, Result<A, E>>,
) -> Result<Result<A, E>, Interrupted> {
    let started = Instant::now();
    let in_flight = metrics::gauge!(names::IN_FLIGHT, "function" => function);
    in_flight.increment(1.0);
    let result = match tokio::time::timeout(limit, AssertUnwindSafe(call).catch_unwind()).await {
        Ok(Ok(result)) => Ok(result),
        Ok(Err(_)) => Err(Interrupted::Panicked),
        Err(_) => Err(Interrupted::TimedOut),
    };
    in_flight.decrement(1.0);
    let outcome = match &result {
        Ok(Ok(_)) => "success",
        Ok(Err(_)) => "error",
        Err(Interrupted::TimedOut) => "timed_out",
        Err(Interrupted::Panicked) => "panicked",
    };
    if matches!(result, Err(Interrupted::Panicked)) {
        error!(function, "a handler panicked; its connection goes on");
    }
    metrics::counter!(names::INVOCATIONS, "function" => function, "outcome" => outcome).increment(1);
    metrics::histogram!(names::DURATION, "function" => function).record(started.elapsed().as_secs_f64());
    result
}
