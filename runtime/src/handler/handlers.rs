//! The handlers of a running gateway: each named event, as one async function that has its dependencies.
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
    error::{Interrupted, Refused},
    session::Session,
    traits::{Connect, Disconnect, Handler},
};
use rollcall_base::names;

/// How long a handler may run, unless [`Handlers::handler_timeout`] says otherwise.
const HANDLER_TIMEOUT: Duration = Duration::from_secs(5);

/// The longest value of a URL's parameter that is kept, in bytes: clients that have not said who they are can make the
/// node keep that much.
const MAX_URL_PARAMETER: usize = 256;

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

/// The handlers of a gateway. Cheap to clone.
#[derive(Clone)]
pub struct Handlers {
    first_event: &'static str,
    url_parameter: Option<&'static str>,
    connect: ConnectFn,
    disconnect: DisconnectFn,
    events: HashMap<&'static str, Event>,
    timeout: Duration,
}

/// A handler, and how long it may run, if that is not as for the others.
#[derive(Clone)]
struct Event {
    handler: EventFn,
    timeout: Option<Duration>,
}

impl Handlers {
    /// The two that every gateway has.
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

    /// Adds an event: its name on the wire, its dependencies, its handler, and how long that may run, if not as long as the
    /// others.
    #[must_use]
    pub fn on<D, R, A, H>(mut self, name: &'static str, deps: D, handler: H, timeout: Option<Duration>) -> Self
    where
        D: Send + Sync + 'static,
        R: DeserializeOwned + Send + 'static,
        A: Into<Reply> + Send + 'static,
        H: for<'a> Handler<'a, D, R, A> + 'static,
    {
        let function = Arc::new((deps, handler));
        let handler: EventFn = Arc::new(move |mut session, request, timeout| {
            let payload = match request.payload::<R>() {
                Ok(payload) => payload,
                Err(error) => return Err((session, error)),
            };
            let (function, reference) = (Arc::clone(&function), request.reference);
            Ok(async move {
                let call = async { function.1.call(&function.0, &mut session, payload).await }.boxed();
                let (ack, begins) = match contained(name, timeout, call).await {
                    Ok(Ok(answer)) => {
                        let reply: Reply = answer.into();
                        (ack::success(reference, &reply), reply.offset())
                    }
                    Ok(Err(error)) => (Some(error.into_ack(reference)), None),
                    Err(interrupted) => (Some(ack::error(reference, interrupted.to_client())), None),
                };
                Outcome { session, ack, begins }
            }
            .boxed())
        });
        self.events.insert(name, Event { handler, timeout });
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
        (event.handler)(session, request, event.timeout.unwrap_or(self.timeout)).map_err(|(session, error)| {
            let detail = error.detail.as_deref();
            (session, ack::error_with(request.reference, AckError::InvalidPayload, detail))
        })
    }
}

impl Handlers {
    fn unknown(&self, request: &Request<'_>) -> Vec<u8> {
        if request.event == self.first_event {
            return ack::error(request.reference, AckError::AlreadyConnected);
        }
        let mut events: Vec<_> = self.events.keys().copied().collect();
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
