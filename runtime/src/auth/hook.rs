//! The authorization hook: another service is asked whether an agent may enter a classroom, or one of its lessons
//! (`ROLLCALL_AUTHZ_URL`).
//!
//! Invariant: it fails closed. Only an answer of 200 lets somebody in; no answer, a late one and any other keep them out.
use std::{
    collections::HashMap,
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use bytes::Bytes;
use hyper::{StatusCode, Uri};
use rollcall_schema::{AckError, ClassroomId, LessonId};
use serde::Serialize;
use tokio::{
    sync::Semaphore,
    time::{Instant, timeout},
};

use super::Claims;
use crate::{http::client::Client, names};

/// Answers kept.
const ANSWERS: usize = 20_000;
/// Questions under way at once; more wait for their turn, within their own time.
const AT_ONCE: usize = 64;
/// Its body is not looked at.
const BODY: usize = 16 * 1024;
/// When a client may ask for a lesson again that nobody could be asked about.
const RETRY_AFTER: Duration = Duration::from_secs(1);

/// Where the hook is, and what to make of it.
#[derive(Clone, Debug)]
pub struct HookOptions {
    /// Its address.
    pub url: Uri,
    /// For one question. Connect has 5 s in all.
    pub timeout: Duration,
    /// How long a yes is believed. A no is not kept: it may be mended by then.
    pub believed: Duration,
    /// Where the classrooms are; none: in the token's audience, as the user is.
    pub namespace: Option<String>,
}

/// Asks, or lets everybody in where no hook is configured.
#[derive(Debug, Default)]
pub struct Hook(Option<Asking>);

#[derive(Debug)]
struct Asking {
    options: HookOptions,
    client: Client,
    turns: Semaphore,
    answers: Mutex<Answers>,
}

/// Nobody could be asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Away;

impl Hook {
    /// This hook; none: everybody whom the token admits.
    #[must_use]
    pub fn new(options: Option<HookOptions>) -> Self {
        Self(options.map(|options| Asking {
            client: Client::new().patience(options.timeout),
            options,
            turns: Semaphore::new(AT_ONCE),
            answers: Mutex::default(),
        }))
    }

    /// Whether the agent may connect to the classroom: `["classrooms", ID]`.
    pub async fn admits(&self, claims: &Claims, classroom: ClassroomId) -> bool {
        let Some(asking) = &self.0 else { return true };
        asking.ask(claims, &["classrooms", &classroom.to_string()]).await == Ok(true)
    }

    /// Whether the agent may join the classroom's lesson: `["classrooms", ID, "lessons", LESSON]`.
    ///
    /// # Errors
    /// What the client is told. Whether there is such a lesson is nothing for somebody who may not join it.
    pub async fn lesson(&self, claims: &Claims, classroom: ClassroomId, lesson: &LessonId) -> Result<(), AckError> {
        let Some(asking) = &self.0 else { return Ok(()) };
        match asking.ask(claims, &["classrooms", &classroom.to_string(), "lessons", lesson.as_str()]).await {
            Ok(true) => Ok(()),
            Ok(false) => Err(AckError::LessonNotFound),
            Err(Away) => Err(AckError::TryAgainLater(RETRY_AFTER)),
        }
    }
}

impl Asking {
    async fn ask(&self, claims: &Claims, object: &[&str]) -> Result<bool, Away> {
        let question = self.question(claims, object);
        if self.answers().believes(&question) {
            return Ok(true);
        }
        // Boxed: most gateways have no hook, and every connect would carry the request's state.
        let call = Box::pin(async {
            // Never closed.
            let _turn = self.turns.acquire().await;
            self.client.post(self.options.url.clone(), question.clone(), BODY).await
        });
        match timeout(self.options.timeout, call).await {
            Ok(Ok((StatusCode::OK, _))) => {
                self.answers().keep(question, Instant::now() + self.options.believed);
                Ok(true)
            }
            Ok(Ok((status, _))) if !status.is_server_error() => {
                tracing::debug!(%status, "the authorization hook refused");
                Ok(false)
            }
            Ok(Ok((status, _))) => Err(away(&status)),
            Ok(Err(error)) => Err(away(&error)),
            Err(late) => Err(away(&late)),
        }
    }

    fn answers(&self) -> MutexGuard<'_, Answers> {
        self.answers.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The question, in the form of seed 000's family.
    fn question(&self, claims: &Claims, object: &[&str]) -> Bytes {
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
            action: "connect",
        };
        serde_json::to_vec(&question).expect("texts are JSON").into()
    }
}

fn away(why: &dyn std::fmt::Display) -> Away {
    metrics::counter!(names::BACKEND_ERRORS, "backend" => "authz", "operation" => "ask").increment(1);
    tracing::warn!(%why, "the authorization hook is away; nobody is let in");
    Away
}

/// Until when a yes to which question is believed. Two halves: when one is full, it takes the place of the other, so that
/// nothing has to be searched for what is old.
#[derive(Debug, Default)]
struct Answers {
    fresh: HashMap<Bytes, Instant>,
    old: HashMap<Bytes, Instant>,
}

impl Answers {
    fn believes(&self, question: &Bytes) -> bool {
        let until = self.fresh.get(question).or_else(|| self.old.get(question));
        until.is_some_and(|until| *until > Instant::now())
    }

    fn keep(&mut self, question: Bytes, until: Instant) {
        if self.fresh.len() >= ANSWERS / 2 {
            self.old = std::mem::take(&mut self.fresh);
        }
        self.fresh.insert(question, until);
    }
}

#[cfg(test)]
mod tests {
    use rollcall_schema::{Audience, Role, UserId};
    use serde_json::{Value, json};

    use super::*;
    use crate::http::fixture::{Fixture, Reply, soon};

    const ROOM: &str = "2b5c0e0c-8f7c-4b0a-9d54-0a8cf9d1c001";

    fn alice() -> Claims {
        let (user, audience) = (UserId::parse("alice").unwrap(), Audience::parse("example.org").unwrap());
        Claims { user, audience, role: Role::Participant, expires: u64::MAX, limits: None }
    }

    fn room() -> ClassroomId {
        ClassroomId::parse(ROOM).unwrap()
    }

    fn hook(url: Uri) -> Hook {
        let (timeout, believed) = (Duration::from_secs(2), Duration::from_secs(60));
        Hook::new(Some(HookOptions { url, timeout, believed, namespace: None }))
    }

    #[tokio::test]
    async fn a_yes_lets_in_and_is_believed_for_a_while() {
        let mut server = Fixture::start(|_| Reply::Answer(StatusCode::OK, "[]".into())).await;
        let hook = hook(server.url("/authz"));
        assert!(soon(hook.admits(&alice(), room())).await);
        assert!(soon(hook.admits(&alice(), room())).await);
        let asked: Value = serde_json::from_slice(&server.next().await.body).unwrap();
        let expected = json!({
            "subject": {"namespace": "example.org", "value": "alice"},
            "object": {"namespace": "example.org", "value": ["classrooms", ROOM]},
            "action": "connect",
        });
        assert_eq!(asked, expected);
        assert!(server.requests.try_recv().is_err(), "asked once");
    }

    #[tokio::test]
    async fn whatever_is_not_a_yes_keeps_out() {
        let elsewhere = Fixture::start(|_| Reply::Answer(StatusCode::OK, String::new())).await;
        let server = Fixture::start({
            let target = elsewhere.url("/");
            move |_| Reply::Moved(target.clone())
        });
        assert!(!soon(hook(server.await.url("/")).admits(&alice(), room())).await);
        assert_eq!(elsewhere.connections(), 0, "nobody else is asked");
        let replies: [fn(usize) -> Reply; 5] = [
            |_| Reply::Answer(StatusCode::FORBIDDEN, String::new()),
            |_| Reply::Answer(StatusCode::NO_CONTENT, String::new()),
            |_| Reply::Answer(StatusCode::INTERNAL_SERVER_ERROR, String::new()),
            |_| Reply::Hang,
            |_| Reply::Close,
        ];
        for reply in replies {
            let server = Fixture::start(reply).await;
            assert!(!soon(hook(server.url("/")).admits(&alice(), room())).await);
        }
        let gone = Fixture::start(|_| Reply::Hang).await.url("/");
        assert!(!soon(hook(gone).admits(&alice(), room())).await);
    }

    #[tokio::test]
    async fn a_no_is_asked_again() {
        let answer = |number| if number == 0 { StatusCode::FORBIDDEN } else { StatusCode::OK };
        let server = Fixture::start(move |number| Reply::Answer(answer(number), String::new())).await;
        let hook = hook(server.url("/"));
        assert!(!soon(hook.admits(&alice(), room())).await);
        assert!(soon(hook.admits(&alice(), room())).await);
    }

    #[tokio::test]
    async fn without_a_hook_the_token_decides() {
        assert!(Hook::default().admits(&alice(), room()).await);
    }

    #[tokio::test(start_paused = true)]
    async fn however_many_are_asked_for_so_many_answers_are_kept() {
        let mut answers = Answers::default();
        let question = |number: usize| Bytes::from(number.to_string());
        let until = Instant::now() + Duration::from_secs(60);
        for number in 0..3 * ANSWERS {
            answers.keep(question(number), until);
            assert!(answers.fresh.len() + answers.old.len() <= ANSWERS && answers.believes(&question(number)));
        }
        assert!(!answers.believes(&question(0)));
        tokio::time::advance(Duration::from_secs(61)).await;
        assert!(!answers.believes(&question(3 * ANSWERS - 1)), "too old");
    }
}
