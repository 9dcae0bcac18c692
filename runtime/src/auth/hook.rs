//! The authorization hook: another service is asked whether an agent may enter a classroom (`ROLLCALL_AUTHZ_URL`).
//!
//! Invariant: it fails closed. Only an answer of 200 lets somebody in; no answer, a late one and any other keep them out.
use std::{
    collections::HashMap,
    sync::{Mutex, PoisonError},
    time::Duration,
};

use bytes::Bytes;
use hyper::{StatusCode, Uri};
use rollcall_schema::{Audience, ClassroomId, UserId};
use serde::Serialize;
use tokio::time::Instant;

use super::Claims;
use crate::http::client::Client;

/// For one question. Connect has 5 s in all.
const PATIENCE: Duration = Duration::from_secs(2);
/// How long a yes is believed. A no is not kept: it may be mended by then.
const BELIEVED: Duration = Duration::from_secs(60);
/// Answers kept.
const ANSWERS: usize = 10_000;
/// Its body is not looked at.
const BODY: usize = 16 * 1024;

type Question = (UserId, Audience, ClassroomId);

/// Asks, or lets everybody in where no hook is configured.
#[derive(Debug, Default)]
pub struct Hook(Option<Asking>);

#[derive(Debug)]
struct Asking {
    url: Uri,
    client: Client,
    /// Until when a yes is believed.
    answers: Mutex<HashMap<Question, Instant>>,
}

impl Hook {
    /// A hook at this address; none: everybody whom the token admits.
    #[must_use]
    pub fn new(url: Option<Uri>) -> Self {
        Self(url.map(|url| Asking { url, client: Client::new().patience(PATIENCE), answers: Mutex::default() }))
    }

    /// Whether the agent may connect to the classroom.
    pub async fn admits(&self, claims: &Claims, classroom: ClassroomId) -> bool {
        match &self.0 {
            Some(asking) => asking.admits((claims.user.clone(), claims.audience.clone(), classroom)).await,
            None => true,
        }
    }
}

impl Asking {
    async fn admits(&self, question: Question) -> bool {
        if self.known(&question) {
            return true;
        }
        match self.client.post(self.url.clone(), body(&question), BODY).await {
            Ok((StatusCode::OK, _)) => {
                self.keep(question);
                true
            }
            Ok((status, _)) => {
                tracing::debug!(%status, "the authorization hook refused");
                false
            }
            Err(error) => {
                tracing::warn!(%error, "the authorization hook is away; nobody is let in");
                false
            }
        }
    }

    fn known(&self, question: &Question) -> bool {
        let answers = self.answers.lock().unwrap_or_else(PoisonError::into_inner);
        answers.get(question).is_some_and(|until| *until > Instant::now())
    }

    fn keep(&self, question: Question) {
        let mut answers = self.answers.lock().unwrap_or_else(PoisonError::into_inner);
        let now = Instant::now();
        if answers.len() >= ANSWERS {
            answers.retain(|_, until| *until > now);
        }
        // Where all of them are fresh, the new one is asked again next time.
        if answers.len() < ANSWERS {
            answers.insert(question, now + BELIEVED);
        }
    }
}

/// The question, in the form of seed 000's family.
fn body((user, audience, classroom): &Question) -> Bytes {
    #[derive(Serialize)]
    struct Question<'a> {
        subject: Subject<'a>,
        object: Object<'a>,
        action: &'static str,
    }
    #[derive(Serialize)]
    struct Subject<'a> {
        namespace: &'a Audience,
        value: &'a UserId,
    }
    #[derive(Serialize)]
    struct Object<'a> {
        namespace: &'a Audience,
        value: (&'static str, ClassroomId),
    }
    let question = Question {
        subject: Subject { namespace: audience, value: user },
        object: Object { namespace: audience, value: ("classrooms", *classroom) },
        action: "connect",
    };
    serde_json::to_vec(&question).expect("checked ids are JSON").into()
}

#[cfg(test)]
mod tests {
    use rollcall_schema::Role;
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

    #[tokio::test]
    async fn a_yes_lets_in_and_is_believed_for_a_while() {
        let mut server = Fixture::start(|_| Reply::Answer(StatusCode::OK, "[]".into())).await;
        let hook = Hook::new(Some(server.url("/authz")));
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
        let replies: [fn(usize) -> Reply; 5] = [
            |_| Reply::Answer(StatusCode::FORBIDDEN, String::new()),
            |_| Reply::Answer(StatusCode::NO_CONTENT, String::new()),
            |_| Reply::Answer(StatusCode::INTERNAL_SERVER_ERROR, String::new()),
            |_| Reply::Hang,
            |_| Reply::Close,
        ];
        for reply in replies {
            let server = Fixture::start(reply).await;
            assert!(!soon(Hook::new(Some(server.url("/"))).admits(&alice(), room())).await);
        }
        let gone = Fixture::start(|_| Reply::Hang).await.url("/");
        assert!(!soon(Hook::new(Some(gone)).admits(&alice(), room())).await);
    }

    #[tokio::test]
    async fn a_no_is_asked_again() {
        let answer = |number| if number == 0 { StatusCode::FORBIDDEN } else { StatusCode::OK };
        let server = Fixture::start(move |number| Reply::Answer(answer(number), String::new())).await;
        let hook = Hook::new(Some(server.url("/")));
        assert!(!soon(hook.admits(&alice(), room())).await);
        assert!(soon(hook.admits(&alice(), room())).await);
    }

    #[tokio::test]
    async fn without_a_hook_the_token_decides() {
        assert!(Hook::default().admits(&alice(), room()).await);
    }
}
