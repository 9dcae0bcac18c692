//! One function over HTTP. Its calls are limited in number, time and size.
//!
//! Invariant: at most `concurrency` requests are in flight, and at most `queue` calls wait until one of them ends. Any
//! further call is refused at once. A request is sent only once, even if it fails.
use bytes::Bytes;
use hyper::Method;
use rollcall_schema::TraceParent;
use tokio::{sync::Semaphore, time::timeout};

use super::{
    FunctionOptions,
    answer::{self, Answer, AnswerError},
    breaker::Breaker,
};
use crate::{
    auth::unix_now,
    http_client::{
        Client, FetchError,
        egress::Egress,
        signature::{RequestId, SigningKey},
    },
    trace,
};
use rollcall_base::{names, trace::call};

/// A call of this function has no answer for the client.
#[derive(Debug, thiserror::Error)]
#[error("function {function}: {why}")]
pub(super) struct FunctionError {
    pub(super) function: &'static str,
    pub(super) why: CallError,
}

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub(super) enum CallError {
    #[error("too many calls wait for an answer")]
    Busy,
    #[error("it gave no answers lately, and is not called for a while")]
    CircuitOpen,
    #[error(transparent)]
    NoAnswer(#[from] FetchError),
    #[error(transparent)]
    Wrong(#[from] AnswerError),
}

pub(super) struct Function {
    name: &'static str,
    options: FunctionOptions,
    key: SigningKey,
    client: Client,
    /// One permit for each call that waits or is in flight.
    calls: Semaphore,
    /// One permit for each call that is in flight.
    requests: Semaphore,
    breaker: Breaker,
}

impl Function {
    pub(super) fn new(name: &'static str, options: FunctionOptions, key: SigningKey, egress: &Egress) -> Self {
        let permits = |count: usize| Semaphore::new(count.min(Semaphore::MAX_PERMITS));
        Self {
            name,
            client: Client::with_single_attempts(egress, options.concurrency).timeout(options.timeout),
            calls: permits(options.concurrency.saturating_add(options.queue)),
            requests: permits(options.concurrency),
            breaker: Breaker::new(name, options.breaker),
            options,
            key,
        }
    }

    pub(super) fn name(&self) -> &'static str {
        self.name
    }

    /// Sends the request with this id and body, and reads the answer. `came_with` is the trace of the connection.
    pub(super) async fn call(
        &self,
        id: &RequestId,
        body: Bytes,
        came_with: Option<TraceParent>,
    ) -> Result<Answer, FunctionError> {
        let result = call("function", "call function", self.request(id, body, came_with)).await;
        let outcome = match &result {
            Ok(Answer::Success { .. }) => "success",
            Ok(Answer::Refused(_)) => "refused",
            Err(CallError::Busy) => "busy",
            Err(CallError::CircuitOpen) => "circuit_open",
            Err(CallError::NoAnswer(_)) => "no_answer",
            Err(CallError::Wrong(_)) => "wrong_answer",
        };
        metrics::counter!(names::FUNCTION_CALLS, "function" => self.name, "outcome" => outcome).increment(1);
        result.map_err(|why| FunctionError { function: self.name, why })
    }

    async fn request(&self, id: &RequestId, body: Bytes, came_with: Option<TraceParent>) -> Result<Answer, CallError> {
        // The circuit is also checked here, so that calls to a function that is away do not wait for calls in flight.
        if !self.breaker.would_admit() {
            return Err(CallError::CircuitOpen);
        }
        let _call = self.calls.try_acquire().map_err(|_| CallError::Busy)?;
        let waiting = timeout(self.options.timeout, self.requests.acquire()).await;
        let _request = waiting.map_err(|_| CallError::Busy)?.map_err(|_| CallError::Busy)?;
        let attempt = self.breaker.admit().ok_or(CallError::CircuitOpen)?;
        let mut headers = self.key.sign(id, unix_now(), &body);
        headers.extend(trace::header(trace::outgoing(came_with)));
        let answered =
            self.client.send(Method::POST, self.options.url.clone(), headers, body, self.options.max_answer).await;
        let (status, body) = answered?;
        if !status.is_server_error() {
            attempt.answered();
        }
        Ok(answer::read(status, &body, self.options.max_events)?)
    }
}
