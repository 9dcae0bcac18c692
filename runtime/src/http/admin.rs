//! The requests of operators and other services (PROTOCOL 7): `/metrics`, `/healthz`, `/readyz` and `/api/v1`.
//!
//! Invariant: every id is checked before it is used in a query or a subject; no body is read beyond its limit.
use std::{collections::BTreeMap, sync::Arc};

use bytes::Bytes;
use http_body_util::{BodyExt, Limited};
use hyper::{Method, Request, StatusCode, body::Body};
use rollcall_schema::{AgentId, ClassroomId, SessionId};
use serde::{Deserialize, Serialize};

use super::{
    access::Access,
    health::Health,
    publish,
    reply::{HttpError, Reply, json, text, with},
};
use crate::metrics::Metrics;
use rollcall_bus::Bus;
use rollcall_store::{Store, StoreError};

/// The maximum of agents in one answer.
const MAX_PAGE: usize = 1000;

/// Answers the operators' address.
pub struct Admin {
    /// Lists and counts agents.
    pub store: Arc<dyn Store>,
    /// Publishes events.
    pub bus: Arc<dyn Bus>,
    /// `/readyz`.
    pub health: Health,
    /// `/metrics`.
    pub metrics: Metrics,
    /// Which requests are answered.
    pub access: Access,
    /// The largest event, in bytes.
    pub max_event: usize,
}

impl Admin {
    /// Answers one request.
    pub async fn answer<B>(&self, request: Request<B>) -> Reply
    where
        B: Body<Data = Bytes>,
        B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    {
        self.route(request).await.unwrap_or_else(|refusal| refusal.reply())
    }

    async fn route<B>(&self, request: Request<B>) -> Result<Reply, HttpError>
    where
        B: Body<Data = Bytes>,
        B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    {
        let (head, body) = request.into_parts();
        let path: Vec<&str> = head.uri.path().split('/').skip(1).collect();
        let readable = matches!(head.method, Method::GET | Method::HEAD);
        let get = || if readable { Ok(()) } else { Err(HttpError::method("GET")) };
        let post = || if head.method == Method::POST { Ok(()) } else { Err(HttpError::method("POST")) };
        // The targets of OPTIONS (`*`) and CONNECT (a host) have no path.
        self.access.admit(&head.headers, path.first() == Some(&"api"))?;
        match path[..] {
            ["healthz"] => get().map(|()| text(StatusCode::OK, "ok\n")),
            ["readyz"] => {
                get()?;
                let readiness = self.health.readiness().await;
                let status = if readiness.ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
                Ok(json(status, &readiness))
            }
            ["metrics"] => get().map(|()| with(StatusCode::OK, "text/plain; version=0.0.4", self.metrics.render())),
            ["api", "v1", "classrooms", classroom, "agents"] => {
                get()?;
                self.agents(classroom, head.uri.query().unwrap_or_default()).await
            }
            ["api", "v1", "counters", "agent"] => {
                post()?;
                self.count(&read(body, self.max_event).await?).await
            }
            ["api", "v1", "publish"] => {
                post()?;
                // 1,024 bytes for the JSON around the event's body.
                let body = read(body, self.max_event + 1024).await?;
                let publication = publish::read(&head.headers, &body, self.max_event)?;
                let result = self.bus.publish(vec![publication]).await.pop();
                match result {
                    Some(Ok(offset)) => Ok(json(StatusCode::ACCEPTED, &publish::Accepted { offset })),
                    _ => Err(HttpError::away(self.bus.name())),
                }
            }
            _ => Err(HttpError::new(StatusCode::NOT_FOUND, "there is nothing at this path")),
        }
    }

    async fn agents(&self, classroom: &str, query: &str) -> Result<Reply, HttpError> {
        #[derive(Serialize)]
        struct Agent {
            id: SessionId,
            agent_id: AgentId,
        }
        let classroom =
            ClassroomId::parse(classroom).map_err(|_| HttpError::bad("the classroom's id must be a UUID"))?;
        let (mut after, mut limit) = (0_i64, MAX_PAGE);
        for (name, value) in query.split('&').filter_map(|pair| pair.split_once('=')) {
            match name {
                "sequence_id" => after = number(name, value)?,
                "limit" => limit = number(name, value)?,
                _ => {}
            }
        }
        let agents = self.store.agents(classroom, SessionId(after), limit.min(MAX_PAGE)).await;
        let agents = agents.map_err(|error| self.refusal(&error))?;
        let agents: Vec<_> = agents.into_iter().map(|(id, agent_id)| Agent { id, agent_id }).collect();
        Ok(json(StatusCode::OK, &agents))
    }

    async fn count(&self, body: &[u8]) -> Result<Reply, HttpError> {
        #[derive(Deserialize)]
        struct Counted {
            classroom_ids: Vec<ClassroomId>,
        }
        let Counted { mut classroom_ids } = serde_json::from_slice(body)
            .map_err(|error| HttpError::bad(format!("not {{\"classroom_ids\": [UUID, ...]}}: {error}")))?;
        classroom_ids.sort_unstable();
        classroom_ids.dedup();
        let counts = self.store.count_agents(&classroom_ids).await.map_err(|error| self.refusal(&error))?;
        let counts: BTreeMap<_, _> = classroom_ids.iter().map(ToString::to_string).zip(counts).collect();
        Ok(json(StatusCode::OK, &counts))
    }

    fn refusal(&self, error: &StoreError) -> HttpError {
        tracing::warn!(%error, "a request to the API failed");
        HttpError::away(self.store.name())
    }
}

fn number<T: std::str::FromStr + Default + PartialOrd>(name: &str, value: &str) -> Result<T, HttpError> {
    let number = value.parse().ok().filter(|number| *number >= T::default());
    number.ok_or_else(|| HttpError::bad(format!("{name} must be a whole number from 0")))
}

async fn read<B>(body: B, max: usize) -> Result<Bytes, HttpError>
where
    B: Body<Data = Bytes>,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    // A body whose Content-Length is too large is refused unread.
    let large = || HttpError::new(StatusCode::PAYLOAD_TOO_LARGE, format!("the body is larger than {max} bytes"));
    if body.size_hint().lower() > max as u64 {
        return Err(large());
    }
    match Limited::new(body, max).collect().await {
        Ok(body) => Ok(body.to_bytes()),
        Err(error) if error.is::<http_body_util::LengthLimitError>() => Err(large()),
        Err(_) => Err(HttpError::bad("the body broke off")),
    }
}
