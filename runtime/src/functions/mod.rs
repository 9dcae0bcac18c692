//! Functions over HTTP (PROTOCOL 10). A function is a service of the app that handles an event, in any programming
//! language. The gateway posts each such event to the function, publishes the events of its answer, and answers the
//! client.
//!
//! Invariant: a function that is slow, wrong or away affects only the connections that call it, because each function
//! has its own requests, queue and circuit breaker. The events that an answer publishes are stored before the client
//! gets the ack.
mod answer;
mod breaker;
mod call;
mod function;

#[cfg(test)]
mod tests;

use std::time::Duration;

use hyper::Uri;
use rollcall_schema::MessageId;
use serde_json::value::RawValue;

pub use self::breaker::BreakerOptions;
use self::{answer::Answer, function::Function};
use crate::{
    handler::{
        error::HandlerError,
        publisher::{EventError, Publisher},
        resources::Resources,
        session::Session,
        table::Table,
    },
    http_client::{
        egress::Egress,
        signature::{RequestId, SigningKey},
    },
};

/// The time in which the events of an answer are stored, with a reserve.
const PUBLISH_TIME: Duration = Duration::from_secs(2);

/// An event that a function handles, and the limits of its calls.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FunctionOptions {
    /// The event's name on the wire.
    pub event: String,
    /// The address that the event is posted to.
    pub url: Uri,
    /// How long a request may take, and how long a call may wait before it is sent.
    pub timeout: Duration,
    /// The maximum number of requests at the same time.
    pub concurrency: usize,
    /// The maximum number of calls that wait until one of those requests ends.
    pub queue: usize,
    /// The longest answer, in bytes.
    pub max_answer: usize,
    /// The maximum number of events that an answer may publish.
    pub max_events: usize,
    /// When the function is not called for a while.
    pub breaker: BreakerOptions,
}

/// All functions over HTTP.
#[derive(Clone, Debug)]
pub struct FunctionsConfig {
    /// The functions.
    pub functions: Vec<FunctionOptions>,
    /// Signs the requests to the functions.
    pub key: SigningKey,
}

/// Adds the functions' events to the table. Their requests are sent as `egress` says.
#[must_use]
pub fn add_to(table: Table, FunctionsConfig { functions, key }: FunctionsConfig, egress: &Egress) -> Table {
    functions.into_iter().fold(table, |table, options| {
        // The names of events live as long as the process, because they are labels of metrics.
        let (event, timeout): (&'static str, _) = (options.event.clone().leak(), 2 * options.timeout + PUBLISH_TIME);
        let function = Function::new(event, options, key.clone(), egress);
        let deps = |resources: &Resources| Deps { function, publisher: resources.publisher.clone() };
        table.on_within(event, timeout, deps, handle)
    })
}

struct Deps {
    function: Function,
    publisher: Publisher,
}

async fn handle(deps: &Deps, session: &mut Session, payload: Box<RawValue>) -> Result<Box<RawValue>, HandlerError> {
    let id = RequestId::random();
    let body = call::body(deps.function.name(), session, &payload);
    let answer = deps.function.call(&id, body, session.trace()).await;
    let (data, publish) = match answer.map_err(|error| HandlerError::Unavailable(Box::new(error)))? {
        Answer::Success { data, publish } => (data, publish),
        Answer::Refused(message) => return Err(message.into()),
    };
    let numbered = publish.into_iter().enumerate();
    let events = numbered.map(|(number, (to, event))| (to, event.with_message_id(message_id(&id, number))));
    deps.publisher.publish_all(session, events.collect()).await.map_err(|error| match error {
        EventError::NotInLesson | EventError::NotInClassroom => error.into(),
        // The client did not cause any other error.
        error => HandlerError::Unavailable(Box::new(error)),
    })?;
    Ok(data)
}

/// Returns `{webhook-id}:{i}`, the id of the answer's event number `i`.
fn message_id(id: &RequestId, number: usize) -> MessageId {
    MessageId::parse(&format!("{}:{number}", id.as_str())).expect("a request's id is short and printable")
}
