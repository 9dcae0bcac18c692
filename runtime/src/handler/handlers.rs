//! The handlers of a running gateway. Each named event has one async function with its dependencies.
//!
//! Invariant: even if a handler fails, panics or runs too long, its session comes back and the outcome is counted.
use std::{
    collections::HashMap,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use futures_util::{FutureExt, future::BoxFuture};
use rollcall_schema::{
    AckError, Answer, ConnectRequest, LeftReason, Offset, Request, SessionError,
    ack::Reply,
    request::{PayloadError, Token},
};
use serde::de::DeserializeOwned;

use crate::handler::{
    connect_context::ConnectContext,
    connected::Connected,
    error::Refused,
    invocation::{self, answered, contained, let_in, measured},
    outside::{Entering, Moving, Outside, Visitor},
    session::Session,
    traits::{Connect, Disconnect, Handler},
};
use crate::{auth::Claims, limits::network::Subscriber, url_query};
use rollcall_base::names;

/// How long a handler may run, unless [`Handlers::set_timeout`] says otherwise.
const HANDLER_TIMEOUT: Duration = Duration::from_secs(5);

/// The longest value of a URL's parameter that is kept, in bytes. The limit is needed because the node keeps this value
/// for clients that have not authenticated yet.
const MAX_URL_PARAMETER: usize = 256;

/// The result of a handler: the session, and the answer if there is one.
pub struct Outcome {
    /// The session in the state in which the handler left it.
    pub session: Box<Session>,
    /// The answer for the client.
    pub answer: Answer,
    /// `Some` if a connection that resumes joined a lesson: the offset in the answer, after which the connection gets
    /// the lesson's events.
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

/// The handlers of a gateway. They are cheap to clone.
#[derive(Clone)]
pub struct Handlers {
    first_event: &'static str,
    url_parameter: Option<&'static str>,
    connect: ConnectFn,
    disconnect: DisconnectFn,
    events: HashMap<&'static str, Event>,
    outside: Option<Outside>,
    /// How long a handler may run, in milliseconds.
    timeout: Arc<AtomicU64>,
}

/// A handler, and its own timeout if it has one.
#[derive(Clone)]
struct Event {
    handler: EventFn,
    timeout: Option<Duration>,
}

impl Handlers {
    /// Creates a table with the two handlers that every gateway has.
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
        ["connect", "disconnect"].into_iter().for_each(invocation::begin);
        Self {
            first_event,
            url_parameter: None,
            connect: Arc::new(move |context, request, timeout| {
                let function = Arc::clone(&connect);
                let trace = context.trace;
                let call = async move { function.1.call(&function.0, context, request).await }.boxed();
                let_in(timeout, trace, call).boxed()
            }),
            disconnect: Arc::new(move |session, reason| {
                let function = Arc::clone(&disconnect);
                // This handler has no timeout, because the end of a session must be stored, even if the database is
                // away for long.
                measured("disconnect", async move { function.1.call(&function.0, session, reason).await }).boxed()
            }),
            events: HashMap::new(),
            outside: None,
            timeout: Arc::new(AtomicU64::new(millis(HANDLER_TIMEOUT))),
        }
    }

    /// Adds an event with its name in the protocol, its dependencies, its handler, and the handler's own timeout if it
    /// has one.
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
            let function = Arc::clone(&function);
            Ok(async move {
                let trace = session.trace();
                let call = async { function.1.call(&function.0, &mut session, payload).await }.boxed();
                let (answer, begins) = match answered(contained(name, timeout, trace, call).await) {
                    Ok(reply) => {
                        let reply: Reply = reply.into();
                        let begins = reply.offset();
                        (Answer::Success(reply), begins)
                    }
                    Err(answer) => (answer, None),
                };
                Outcome { session, answer, begins }
            }
            .boxed())
        });
        invocation::begin(name);
        self.events.insert(name, Event { handler, timeout });
        self
    }

    /// Adds the functions for clients without a classroom.
    #[must_use]
    pub(super) fn outside(self, outside: Outside) -> Self {
        Self { outside: Some(outside), ..self }
    }

    /// Sets how long a handler may run that starts from now on. The time applies to all clones of these handlers.
    pub fn set_timeout(&self, timeout: Duration) {
        self.timeout.store(millis(timeout), Ordering::Relaxed);
    }

    fn timeout(&self) -> Duration {
        Duration::from_millis(self.timeout.load(Ordering::Relaxed))
    }

    /// Keeps the value of this parameter of the connection's URL until connect, as [`ConnectContext::url_parameter`].
    #[must_use]
    pub fn url_parameter(self, name: &'static str) -> Self {
        Self { url_parameter: Some(name), ..self }
    }

    /// Returns the name of the event that a connection must send first, and that starts the handler of connect.
    #[must_use]
    pub fn first_event(&self) -> &'static str {
        self.first_event
    }

    /// Returns the value of the parameter in a URL's query, still encoded. Returns `None` if it is longer than
    /// [`MAX_URL_PARAMETER`].
    #[must_use]
    pub fn url_parameter_in(&self, query: &str) -> Option<Box<str>> {
        let value = url_query::first(query, self.url_parameter?)?;
        (value.len() <= MAX_URL_PARAMETER).then(|| value.into())
    }

    /// Starts the handler of connect.
    #[must_use]
    pub fn connect(
        &self,
        context: ConnectContext,
        request: ConnectRequest,
    ) -> BoxFuture<'static, Result<Connected, Refused>> {
        (self.connect)(context, request, self.timeout())
    }

    /// Starts the handler of disconnect.
    #[must_use]
    pub fn disconnect(&self, session: Session, reason: LeftReason) -> BoxFuture<'static, ()> {
        (self.disconnect)(session, reason)
    }

    /// Starts the handler of an event. An error returns the session and the answer at once.
    ///
    /// # Errors
    /// Returns an error if there is no such event, or the payload is invalid.
    pub fn invoke(
        &self,
        request: &Request<'_>,
        session: Box<Session>,
    ) -> Result<BoxFuture<'static, Outcome>, (Box<Session>, Answer)> {
        let Some(event) = self.events.get(&*request.event) else {
            metrics::counter!(names::INVOCATIONS, "function" => "unknown", "outcome" => "refused").increment(1);
            return Err((session, self.unknown(request)));
        };
        (event.handler)(session, request, event.timeout.unwrap_or_else(|| self.timeout()))
            .map_err(|(session, error)| (session, Answer::Error(AckError::InvalidPayload, error.detail)))
    }

    /// Starts the check of the token of a client that names no classroom. If the table has no function for this, no
    /// such client is let in.
    #[must_use]
    pub fn admit(
        &self,
        client: Option<Subscriber>,
        token: Option<Token>,
    ) -> BoxFuture<'static, Result<Option<Claims>, Refused>> {
        match &self.outside {
            Some(outside) => outside.admit(client, token, self.timeout()),
            None => std::future::ready(Err(SessionError::UnsupportedRequest.into())).boxed(),
        }
    }

    /// Starts the handler of the event with which a client without a classroom enters one.
    ///
    /// # Errors
    /// Returns an error if the event is a different one, or the payload is invalid.
    pub fn enter(
        &self,
        context: ConnectContext,
        visitor: Box<Visitor>,
        request: &Request<'_>,
    ) -> Result<Entering, (Box<Visitor>, Answer)> {
        match &self.outside {
            Some(outside) if outside.event() == request.event => {
                outside.enter(context, visitor, request, self.timeout())
            }
            _ if self.events.contains_key(&*request.event) => Err((visitor, AckError::NotInAClassroom.into())),
            _ => {
                metrics::counter!(names::INVOCATIONS, "function" => "unknown", "outcome" => "refused").increment(1);
                Err((visitor, self.unknown(request)))
            }
        }
    }
}

impl Handlers {
    /// Starts the handler of the event with which a client that connected without a classroom may move to another
    /// classroom. Returns an error without an answer if the event is a different one.
    pub fn change(
        &self,
        context: ConnectContext,
        session: Box<Session>,
        request: &Request<'_>,
    ) -> Result<Moving, (Box<Session>, Option<Answer>)> {
        match &self.outside {
            Some(outside) if outside.event() == request.event => outside
                .change(context, session, request, self.timeout())
                .map_err(|(session, answer)| (session, Some(answer))),
            Some(_) | None => Err((session, None)),
        }
    }

    fn unknown(&self, request: &Request<'_>) -> Answer {
        if request.event == self.first_event {
            return AckError::AlreadyConnected.into();
        }
        let mut events: Vec<_> = self.events.keys().copied().collect();
        events.sort_unstable();
        let detail = format!("events: {}", events.join(", "));
        Answer::Error(AckError::UnknownEvent, Some(detail))
    }
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX).max(1)
}
