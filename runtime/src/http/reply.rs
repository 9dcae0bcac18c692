//! Answers in JSON, and the form of every error.
use bytes::Bytes;
use http_body_util::{BodyExt, Full, combinators::UnsyncBoxBody};
use hyper::{Response, StatusCode, header};
use serde::Serialize;

/// A complete answer.
pub type Reply = Response<Full<Bytes>>;

/// Why a body was not completed.
pub type BodyError = Box<dyn std::error::Error + Send + Sync>;

/// An answer that may be created while it is sent.
pub type Streamed = Response<UnsyncBoxBody<Bytes, BodyError>>;

/// Converts a complete answer to the type of streamed answers.
pub(crate) fn streamed(reply: Reply) -> Streamed {
    reply.map(|body| body.map_err(|never| match never {}).boxed_unsync())
}

/// Why a request is refused: the status, and a sentence for the caller.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct HttpError {
    pub(crate) status: StatusCode,
    pub(crate) detail: String,
    /// A header to add to the answer.
    pub(crate) header: Option<(header::HeaderName, &'static str)>,
}

/// The form of every error.
#[derive(Serialize)]
pub(crate) struct ErrorBody {
    title: &'static str,
    status: u16,
    detail: String,
}

impl HttpError {
    pub(crate) fn new(status: StatusCode, detail: impl Into<String>) -> Self {
        Self { status, detail: detail.into(), header: None }
    }

    pub(crate) fn bad(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, detail)
    }

    pub(crate) fn method(allowed: &'static str) -> Self {
        let detail = format!("use {allowed}");
        Self { header: Some((header::ALLOW, allowed)), ..Self::new(StatusCode::METHOD_NOT_ALLOWED, detail) }
    }

    /// Returns the error for a backend that does not answer now.
    pub(crate) fn away(backend: &str) -> Self {
        let detail = format!("{backend} is away; try again later");
        Self { header: Some((header::RETRY_AFTER, "1")), ..Self::new(StatusCode::SERVICE_UNAVAILABLE, detail) }
    }

    /// Returns the body of the error.
    pub(crate) fn body(&self) -> ErrorBody {
        let title = self.status.canonical_reason().unwrap_or("Error");
        ErrorBody { title, status: self.status.as_u16(), detail: self.detail.clone() }
    }

    pub(crate) fn reply(&self) -> Reply {
        let mut reply = json(self.status, &self.body());
        if let Some((name, value)) = &self.header {
            reply.headers_mut().insert(name, header::HeaderValue::from_static(value));
        }
        reply
    }
}

pub(crate) fn json(status: StatusCode, body: &impl Serialize) -> Reply {
    let body = serde_json::to_vec(body).expect("texts, numbers and maps of them are JSON");
    with(status, "application/json", body)
}

pub(crate) fn text(status: StatusCode, body: impl Into<Bytes>) -> Reply {
    with(status, "text/plain; charset=utf-8", body)
}

pub(crate) fn with(status: StatusCode, kind: &'static str, body: impl Into<Bytes>) -> Reply {
    let mut reply = Response::new(Full::new(body.into()));
    *reply.status_mut() = status;
    reply.headers_mut().insert(header::CONTENT_TYPE, header::HeaderValue::from_static(kind));
    // The state changes, so an answer must not be cached.
    reply.headers_mut().insert(header::CACHE_CONTROL, header::HeaderValue::from_static("no-store"));
    reply
}
