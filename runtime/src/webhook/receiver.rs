//! A request to the receiver: its body, its signature, and the meaning of the answer.
use std::sync::Arc;

use hyper::{StatusCode, Uri};
use rollcall_schema::{ClassroomId, Offset};
use serde::Serialize;
use serde_json::value::RawValue;
use tracing::Instrument;

use super::{WebhookOptions, log::LoggedEvent};
use crate::{
    auth::unix_now,
    http_client::{
        Client, FetchError,
        egress::Egress,
        signature::{RequestId, SigningKey},
    },
    trace,
};
use rollcall_base::names;

/// How much of an answer is read, in bytes. Only the status of an answer counts.
const MAX_ANSWER: usize = 64 << 10;

/// Why events were not accepted.
#[derive(Debug, thiserror::Error)]
pub(super) enum Refusal {
    /// The receiver cannot be reached, or can accept no event now.
    #[error("it is away: {0}")]
    Away(String),
    /// The receiver refused the request, or received it and did not answer.
    #[error("it does not accept the events: {0}")]
    Refused(String),
}

/// Sends requests to the receiver.
pub(super) struct Receiver {
    client: Client,
    url: Uri,
    key: SigningKey,
}

#[derive(Serialize)]
struct Body<'a> {
    epoch: &'a str,
    events: Vec<Event<'a>>,
}

#[derive(Serialize)]
struct Event<'a> {
    offset: Offset,
    classroom_id: ClassroomId,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    traceparent: Option<String>,
    event: &'a RawValue,
}

impl Receiver {
    pub(super) fn new(options: &WebhookOptions, egress: &Egress) -> Self {
        let client = Client::with_idle_connections(egress, options.concurrency).timeout(options.timeout);
        Self { client, url: options.url.clone(), key: options.key.clone() }
    }

    /// Posts events. Ok means that the receiver accepted them.
    pub(super) async fn post(&self, epoch: &str, events: &[Arc<LoggedEvent>]) -> Result<(), Refusal> {
        let body = body(epoch, events);
        // The id is made of the events, so that it is the same even if another node sends them.
        let id = RequestId::of_content(&body);
        let headers = self.key.sign(&id, unix_now(), &body);
        let span = trace::request("webhook", None);
        let post = self.client.post_for_status(self.url.clone(), headers, body.into(), MAX_ANSWER);
        let refusal = match post.instrument(span).await {
            Ok(status) if status.is_success() => return Ok(()),
            Ok(status) if is_away(status) => Refusal::Away(format!("it answered {status}")),
            Ok(status) => Refusal::Refused(format!("it answered {status}")),
            Err(error @ FetchError::Connection(_)) => Refusal::Away(error.to_string()),
            Err(error) => Refusal::Refused(error.to_string()),
        };
        metrics::counter!(names::WEBHOOK_RETRIES).increment(1);
        tracing::debug!(events = events.len(), %refusal, "the webhook's receiver did not take events");
        Err(refusal)
    }
}

fn body(epoch: &str, events: &[Arc<LoggedEvent>]) -> Vec<u8> {
    let events = events.iter().map(|logged| Event {
        offset: logged.offset,
        classroom_id: logged.classroom,
        reason: logged.reason.as_deref(),
        traceparent: logged.trace.map(|trace| trace.to_string()),
        event: &logged.event,
    });
    serde_json::to_vec(&Body { epoch, events: events.collect() }).expect("texts and numbers are JSON")
}

/// Returns whether the answer comes from a proxy without a server, or from a server that accepts no event now.
fn is_away(status: StatusCode) -> bool {
    matches!(
        status,
        StatusCode::BAD_GATEWAY
            | StatusCode::SERVICE_UNAVAILABLE
            | StatusCode::GATEWAY_TIMEOUT
            | StatusCode::TOO_MANY_REQUESTS
    )
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use rollcall_schema::TraceParent;
    use tokio::{
        io::{AsyncReadExt, AsyncWriteExt},
        net::TcpListener,
    };
    use uuid::Uuid;

    use super::*;

    const TRACE: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

    #[test]
    fn the_body_has_the_events_as_the_stream_holds_them() {
        let event = |offset, reason: Option<&str>| {
            Arc::new(LoggedEvent {
                offset: Offset(offset),
                classroom: ClassroomId(Uuid::nil()),
                reason: reason.map(str::to_owned),
                trace: reason.and_then(|_| TraceParent::parse(TRACE)),
                event: RawValue::from_string(r#"{"id": 1.0}"#.to_owned()).unwrap(),
                stored: None,
            })
        };
        let body = String::from_utf8(body("e", &[event(7, None), event(9, Some("closed"))])).unwrap();
        let trace = format!("\"traceparent\":\"{TRACE}\"");
        let room = "\"classroom_id\":\"00000000-0000-0000-0000-000000000000\"";
        assert_eq!(
            body,
            format!(
                r#"{{"epoch":"e","events":[{{"offset":7,{room},"event":{{"id": 1.0}}}},{{"offset":9,{room},"reason":"closed",{trace},"event":{{"id": 1.0}}}}]}}"#
            )
        );
    }

    /// Returns a receiver that answers each request with these bytes, and then keeps or closes the connection and sends
    /// nothing more.
    async fn answering(bytes: Vec<u8>, keeps: bool) -> Receiver {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(async move {
            let mut kept = Vec::new();
            while let Ok((mut stream, _)) = listener.accept().await {
                let mut request = Vec::new();
                while !request.ends_with(br#""events":[]}"#) {
                    assert!(stream.read_buf(&mut request).await.unwrap() > 0);
                }
                // The gateway may close the connection before it has read all bytes.
                let _ = stream.write_all(&bytes).await;
                kept.extend(keeps.then_some(stream));
            }
        });
        let options = WebhookOptions {
            url: format!("http://{address}/").parse().unwrap(),
            key: SigningKey::parse("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw").unwrap(),
            timeout: Duration::from_secs(20),
            concurrency: 1,
            max_pause: Duration::from_secs(1),
            hold: Duration::from_secs(1),
            max_parked: 1,
            max_age: Duration::from_secs(1),
        };
        Receiver::new(&options, &Egress::direct())
    }

    #[tokio::test]
    async fn a_success_counts_whatever_becomes_of_its_body() {
        let head = |length: usize| format!("HTTP/1.1 200 OK\r\ncontent-length: {length}\r\n\r\n").into_bytes();
        let answers = [
            (head(0), true),
            ([head(200_000), vec![b'x'; 200_000]].concat(), true),
            ([head(10), b"abc".to_vec()].concat(), true),
            ([head(10), b"abc".to_vec()].concat(), false),
            (b"HTTP/1.1 204 No Content\r\n\r\n".to_vec(), true),
        ];
        for (bytes, keeps) in answers {
            let answer = String::from_utf8_lossy(&bytes[..bytes.len().min(60)]).into_owned();
            let receiver = answering(bytes, keeps).await;
            assert!(receiver.post("e", &[]).await.is_ok(), "{answer}");
        }
        for status in ["301", "400", "500"] {
            let bytes = format!("HTTP/1.1 {status} X\r\ncontent-length: 0\r\n\r\n").into_bytes();
            assert!(matches!(answering(bytes, true).await.post("e", &[]).await, Err(Refusal::Refused(_))), "{status}");
        }
    }
}
