//! The client of the commands for a running gateway's server API (PROTOCOL 7).
//!
//! Invariant: every error says what to change. An answer that is not JSON of the API is always an error. The data that
//! clients wrote (an event, a state) is not parsed but passed on unchanged, because it may be nested to any depth.
use std::{io::Write, time::Duration};

use bytes::Bytes;
use http_body_util::{BodyExt, Limited};
use hyper::{HeaderMap, Method, StatusCode, Uri};
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use tokio::time::timeout;

use super::CommandError;
use crate::{
    config::AdminAddress,
    http_client::{Client, egress::Egress},
    node::StartError,
};
use rollcall_base::redacted;

/// The longest answer, in bytes.
const MAX_ANSWER: usize = 16 << 20;
/// How long the client waits for each part of an answer.
const READ_TIMEOUT: Duration = Duration::from_secs(30);

/// A running gateway.
pub(super) struct AdminClient {
    address: AdminAddress,
    client: Client,
}

impl AdminClient {
    pub(super) fn new(address: &AdminAddress, egress: &Egress) -> Self {
        let client = Client::new(egress).bearer(address.token.as_ref());
        Self { address: address.clone(), client }
    }

    /// Gets the resource at a path with a query below `/api/v1`.
    pub(super) async fn get<T: DeserializeOwned>(&self, path: &str) -> Result<T, StartError> {
        self.call(Method::GET, path, Bytes::new()).await
    }

    /// Sends a body to a path below `/api/v1`.
    pub(super) async fn post<T: DeserializeOwned>(&self, path: &str, body: &impl Serialize) -> Result<T, StartError> {
        let body = serde_json::to_vec(body).expect("texts, numbers and JSON are JSON");
        self.call(Method::POST, path, body.into()).await
    }

    /// Writes the answer of a path to the output while it arrives, so that a long answer needs little memory.
    pub(super) async fn copy(&self, path: &str, out: &mut impl Write) -> Result<(), CommandError> {
        let answer = self.client.open(self.uri(path)?).await.map_err(|error| self.away(error))?;
        let status = answer.status();
        let mut body = answer.into_body();
        if !status.is_success() {
            let text = Limited::new(body, MAX_ANSWER).collect().await.map(|text| text.to_bytes()).unwrap_or_default();
            return Err(self.refused(status, &text).into());
        }
        loop {
            match timeout(READ_TIMEOUT, body.frame()).await {
                Ok(Some(Ok(frame))) => out.write_all(frame.data_ref().map_or(&[], |data| data))?,
                Ok(None) => return Ok(out.flush()?),
                Ok(Some(Err(_))) | Err(_) => return Err(self.away("its answer broke off").into()),
            }
        }
    }

    async fn call<T: DeserializeOwned>(&self, method: Method, path: &str, body: Bytes) -> Result<T, StartError> {
        let answer = self.client.send(method, self.uri(path)?, HeaderMap::new(), body, MAX_ANSWER).await;
        let (status, answer) = answer.map_err(|error| self.away(error))?;
        if !status.is_success() {
            return Err(self.refused(status, &answer));
        }
        serde_json::from_slice(&answer).map_err(|_| self.away(format!("it answered {status} without JSON of the API")))
    }

    fn uri(&self, path: &str) -> Result<Uri, StartError> {
        let url = &self.address.url;
        let hint = "name its admin address, like --admin http://127.0.0.1:9090";
        format!("{url}/api/v1/{path}").parse().map_err(StartError::at(self.place(), hint))
    }

    fn place(&self) -> String {
        format!("the gateway at {}", redacted(&self.address.url))
    }

    fn away(&self, why: impl std::fmt::Display) -> StartError {
        StartError::at(self.place(), "start it, or name its admin address with --admin or ROLLCALL_ADMIN")(why)
    }

    fn refused(&self, status: StatusCode, answer: &[u8]) -> StartError {
        match serde_json::from_slice(answer) {
            Ok(Refusal { detail }) => {
                StartError::at(self.place(), hint(status))(format!("{} ({detail})", status.as_str()))
            }
            Err(_) => self.away(format!("it answered {status} without JSON of the API")),
        }
    }
}

/// The part of an error that is read.
#[derive(Deserialize)]
struct Refusal {
    detail: String,
}

fn hint(status: StatusCode) -> &'static str {
    match status {
        StatusCode::UNAUTHORIZED => "set ROLLCALL_ADMIN_TOKEN or ROLLCALL_ADMIN_READ_TOKEN to the gateway's",
        StatusCode::FORBIDDEN => "set ROLLCALL_ADMIN_TOKEN to the gateway's, and use an address that it answers under",
        StatusCode::SERVICE_UNAVAILABLE | StatusCode::REQUEST_TIMEOUT => "try again later",
        _ => "change what it names, and try again",
    }
}

/// Encodes a value for a query.
pub(super) fn encoded(text: &str) -> String {
    utf8_percent_encode(text, NON_ALPHANUMERIC).to_string()
}
