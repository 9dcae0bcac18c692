//! The authorization service (`ROLLCALL_AUTHZ_URL`), which says whether an agent may enter a classroom or one of its
//! lessons.
//!
//! Invariant: without an answer no agent enters. A temporary failure is never read as a no: the client is told to try
//! again later. The service never gets more than `concurrency` requests at the same time.
mod answer;
mod approvals;

use std::{collections::HashMap, sync::Arc, time::Duration};

use bytes::Bytes;
use futures_util::{
    FutureExt,
    future::{BoxFuture, Shared, WeakShared},
};
use hyper::{HeaderMap, Method, Uri};
use parking_lot::Mutex;
use rollcall_schema::{ClassroomId, LessonId};
use serde::Serialize;
use tokio::{
    sync::Semaphore,
    time::{Instant, timeout},
};

pub use self::answer::HookError;
use self::approvals::Approvals;
use super::Claims;
use crate::http_client::{Client, egress::Egress};
use rollcall_base::{Secret, log_limit::LogLimit, names, trace::call};

/// The longest answer that is read, in bytes. An answer lists the actions that one user is allowed on one object.
const MAX_ANSWER: usize = 16 * 1024;
/// What an agent asks to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// The agent enters a classroom or one of its lessons.
    Connect,
    /// The agent reads the list of agents in a classroom.
    Read,
}

impl Action {
    /// Returns the action's name in a question.
    fn as_str(self) -> &'static str {
        match self {
            Self::Connect => "connect",
            Self::Read => "read",
        }
    }
}

/// The address of the service, and the limits of questions.
#[derive(Clone, Debug)]
pub struct HookOptions {
    /// The service's address.
    pub url: Uri,
    /// The bearer token that is sent to the service.
    pub token: Option<Secret>,
    /// How long one request may take. A connect may take 5 s in total.
    pub timeout: Duration,
    /// How long a yes is remembered. A no is not remembered, because the right may be granted soon after.
    pub ttl: Duration,
    /// The namespace of classrooms. If there is none, it is the token's audience, as for the user.
    pub namespace: Option<String>,
    /// The maximum number of requests at the same time.
    pub concurrency: usize,
    /// The maximum number of questions that wait until one of those requests ends.
    pub queue: usize,
    /// How long a question waits for a free request.
    pub queue_timeout: Duration,
}

/// Asks the authorization service. Without a service, every agent may enter.
#[derive(Clone, Debug, Default)]
pub struct Hook(Option<Arc<Service>>);

type Answer = Result<bool, HookError>;
type SharedAnswer = Shared<BoxFuture<'static, Answer>>;

#[derive(Debug)]
struct Service {
    options: HookOptions,
    client: Client,
    /// One permit for each question that waits or is being asked.
    questions: Semaphore,
    /// One permit for each question that is being asked.
    requests: Semaphore,
    approvals: Mutex<Approvals>,
    in_flight: Mutex<InFlight>,
    log: LogLimit,
}

/// The questions that wait or are being asked. Callers with the same question share its answer.
#[derive(Debug, Default)]
struct InFlight {
    next: u64,
    questions: HashMap<Bytes, (u64, WeakShared<BoxFuture<'static, Answer>>)>,
}

impl Hook {
    /// Creates a hook that asks this service. Without options, a valid token is enough.
    #[must_use]
    pub fn new(options: Option<HookOptions>, egress: &Egress) -> Self {
        Self(options.map(|options| {
            let client = Client::with_idle_connections(egress, options.concurrency);
            Arc::new(Service {
                client: client.timeout(options.timeout).bearer(options.token.as_ref()),
                questions: Semaphore::new(
                    options.concurrency.saturating_add(options.queue).min(Semaphore::MAX_PERMITS),
                ),
                requests: Semaphore::new(options.concurrency.min(Semaphore::MAX_PERMITS)),
                options,
                approvals: Mutex::default(),
                in_flight: Mutex::default(),
                log: LogLimit::new(),
            })
        }))
    }

    /// Returns whether the agent may do this in the classroom: `["classrooms", ID]`.
    ///
    /// # Errors
    /// Returns a [`HookError`] if there is no answer.
    pub async fn admits(&self, claims: &Claims, classroom: ClassroomId, action: Action) -> Result<bool, HookError> {
        let Some(service) = &self.0 else { return Ok(true) };
        service.ask(claims, &["classrooms", &classroom.to_string()], action).await
    }

    /// Returns whether the agent may join the classroom's lesson: `["classrooms", ID, "lessons", LESSON]`.
    ///
    /// # Errors
    /// Returns a [`HookError`] if there is no answer.
    pub async fn admits_lesson(
        &self,
        claims: &Claims,
        classroom: ClassroomId,
        lesson: &LessonId,
    ) -> Result<bool, HookError> {
        let Some(service) = &self.0 else { return Ok(true) };
        let object = ["classrooms", &classroom.to_string(), "lessons", lesson.as_str()];
        service.ask(claims, &object, Action::Connect).await
    }
}

impl Service {
    async fn ask(self: &Arc<Self>, claims: &Claims, object: &[&str], action: Action) -> Answer {
        let question = self.question(claims, object, action);
        if self.approvals.lock().contains(&question) {
            return Ok(true);
        }
        self.share(question, action).await
    }

    /// Returns the answer to the same question if that question is in flight, or else asks it.
    fn share(self: &Arc<Self>, question: Bytes, action: Action) -> SharedAnswer {
        let mut in_flight = self.in_flight.lock();
        if let Some(answer) = in_flight.questions.get(&question).and_then(|(_, answer)| answer.upgrade()) {
            return answer;
        }
        let number = in_flight.next;
        in_flight.next += 1;
        let entry = Entry { service: Arc::clone(self), number, question: question.clone() };
        // The future is dropped with the last caller that waits for it, so no question is asked that nobody waits for.
        let answer = async move { entry.answer(action).await }.boxed().shared();
        if let Some(weak) = answer.downgrade() {
            in_flight.questions.insert(question, (number, weak));
        }
        answer
    }

    async fn answer(&self, question: &Bytes, action: Action) -> Answer {
        let answer = self.request(question, action).await;
        let outcome = match answer {
            Ok(true) => "yes",
            Ok(false) => "no",
            Err(HookError::Busy) => "busy",
            Err(HookError::Away) => "away",
        };
        metrics::counter!(names::AUTHZ, "outcome" => outcome).increment(1);
        if answer == Ok(true) {
            self.approvals.lock().insert(question.clone(), Instant::now() + self.options.ttl);
        }
        answer
    }

    async fn request(&self, question: &Bytes, action: Action) -> Answer {
        let waits =
            self.questions.try_acquire().map_err(|_| self.fault(HookError::Busy, &"too many questions wait"))?;
        let asks = timeout(self.options.queue_timeout, self.requests.acquire()).await;
        let asks = asks.map_err(|_| self.fault(HookError::Busy, &"a question waited too long"))?;
        let asked =
            self.client.send(Method::POST, self.options.url.clone(), HeaderMap::new(), question.clone(), MAX_ANSWER);
        let answer = call("authz", "ask authorization", asked).await;
        drop((asks, waits));
        let (status, body) = answer.map_err(|error| self.fault(HookError::Away, &error))?;
        answer::read(status, &body, action.as_str()).map_err(|error| self.fault(error, &status))
    }

    fn fault(&self, error: HookError, why: &dyn std::fmt::Display) -> HookError {
        metrics::counter!(names::BACKEND_ERRORS, "backend" => "authz", "operation" => "ask").increment(1);
        if let Some(held_back) = self.log.pass() {
            tracing::warn!(%error, %why, held_back, "clients are told to try again later");
        }
        error
    }

    /// Returns the question in JSON.
    fn question(&self, claims: &Claims, object: &[&str], action: Action) -> Bytes {
        #[derive(Serialize)]
        struct Question<'a> {
            subject: Entity<'a, &'a str>,
            object: Entity<'a, &'a [&'a str]>,
            action: &'static str,
        }
        #[derive(Serialize)]
        struct Entity<'a, V> {
            namespace: &'a str,
            value: V,
        }
        let audience = claims.audience.as_str();
        let question = Question {
            subject: Entity { namespace: audience, value: claims.user.as_str() },
            object: Entity { namespace: self.options.namespace.as_deref().unwrap_or(audience), value: object },
            action: action.as_str(),
        };
        serde_json::to_vec(&question).expect("texts are JSON").into()
    }
}

/// A question in flight. It is removed from the table when it is answered or dropped.
struct Entry {
    service: Arc<Service>,
    number: u64,
    question: Bytes,
}

impl Entry {
    async fn answer(&self, action: Action) -> Answer {
        self.service.answer(&self.question, action).await
    }
}

impl Drop for Entry {
    fn drop(&mut self) {
        let mut in_flight = self.service.in_flight.lock();
        // After the last caller dropped the answer, another caller may have asked the same question again.
        if in_flight.questions.get(&self.question).is_some_and(|(number, _)| *number == self.number) {
            in_flight.questions.remove(&self.question);
        }
    }
}

#[cfg(test)]
mod tests;
