//! Decides which pages may read answers of the clients' address (CORS): the pages that may open a WebSocket there.
//!
//! Invariant: a page of another origin gets only a refusal, and every answer says for which origin it is.
use hyper::{
    HeaderMap, Method, Response, StatusCode,
    header::{self, HeaderValue},
    http::request::Parts,
};
use rollcall_websocket::ListenerOptions;

use super::reply::{HttpError, Reply};

/// How long a browser may cache the permission, in seconds.
const MAX_AGE: &str = "600";

/// Returns the request's answer: a refusal of its origin, the answer to its preflight, or the result of `answer`.
pub(super) async fn with_cors(pages: &ListenerOptions, head: &Parts, answer: impl Future<Output = Reply>) -> Reply {
    let origin = head.headers.get(header::ORIGIN);
    let mut reply = if !pages.allows_origin(&head.headers) {
        HttpError::new(StatusCode::FORBIDDEN, "ROLLCALL_ORIGINS does not list this page's origin").reply()
    } else if is_preflight(&head.method, &head.headers) {
        preflight()
    } else {
        answer.await
    };
    let headers = reply.headers_mut();
    headers.append(header::VARY, HeaderValue::from_static("Origin"));
    if let Some(origin) = origin.filter(|_| pages.allows_origin(&head.headers)) {
        headers.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, origin.clone());
        headers.insert(header::ACCESS_CONTROL_EXPOSE_HEADERS, HeaderValue::from_static("retry-after"));
    }
    reply
}

fn is_preflight(method: &Method, headers: &HeaderMap) -> bool {
    method == Method::OPTIONS && headers.contains_key(header::ACCESS_CONTROL_REQUEST_METHOD)
}

fn preflight() -> Reply {
    let mut reply = Response::default();
    *reply.status_mut() = StatusCode::NO_CONTENT;
    let headers = reply.headers_mut();
    headers.insert(header::ACCESS_CONTROL_ALLOW_METHODS, HeaderValue::from_static("GET"));
    headers.insert(header::ACCESS_CONTROL_ALLOW_HEADERS, HeaderValue::from_static("authorization"));
    headers.insert(header::ACCESS_CONTROL_MAX_AGE, HeaderValue::from_static(MAX_AGE));
    reply
}
