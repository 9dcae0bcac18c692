//! What the clients' address answers beside the WebSocket.
use hyper::{Method, StatusCode, header};

use super::reply::{HttpError, Reply, text};
use crate::limits::admission::AdmissionError;

/// Answers a request that is not for the WebSocket.
#[must_use]
pub fn answer(method: &Method, path: &str) -> Reply {
    match (path, method) {
        ("/healthz", &Method::GET | &Method::HEAD) => text(StatusCode::OK, "ok\n"),
        ("/healthz", _) => HttpError::method("GET").reply(),
        _ => HttpError::new(StatusCode::NOT_FOUND, "there is /ws, and /healthz").reply(),
    }
}

/// Answers a request for the WebSocket that is not admitted: it may come again in a second.
#[must_use]
pub fn refusal(error: AdmissionError) -> Reply {
    let (status, detail) = match error {
        AdmissionError::Node | AdmissionError::Memory | AdmissionError::InFlight => {
            (StatusCode::SERVICE_UNAVAILABLE, "this node has as many connections as it takes")
        }
        AdmissionError::Client => (StatusCode::TOO_MANY_REQUESTS, "too many connections from this address"),
        AdmissionError::Unauthenticated => (StatusCode::SERVICE_UNAVAILABLE, "too many connections wait to be let in"),
        AdmissionError::Rate => (StatusCode::SERVICE_UNAVAILABLE, "too many connections at once"),
    };
    HttpError { header: Some((header::RETRY_AFTER, "1")), ..HttpError::new(status, detail) }.reply()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_says_when_to_come_again() {
        let errors = [AdmissionError::Node, AdmissionError::Client, AdmissionError::Unauthenticated];
        for error in errors.into_iter().chain([AdmissionError::InFlight, AdmissionError::Rate]) {
            assert_eq!(refusal(error).headers()["retry-after"], "1");
        }
    }

    #[test]
    fn there_is_healthz_and_nothing_else() {
        assert_eq!(answer(&Method::GET, "/healthz").status(), StatusCode::OK);
        assert_eq!(answer(&Method::POST, "/healthz").status(), StatusCode::METHOD_NOT_ALLOWED);
        for path in ["/", "/metrics", "/api/v1/publish", "/readyz", "//healthz"] {
            assert_eq!(answer(&Method::GET, path).status(), StatusCode::NOT_FOUND, "{path}");
        }
    }
}
