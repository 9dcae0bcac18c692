//! What the clients' address answers beside the WebSocket.
use hyper::{Method, StatusCode};

use super::reply::{HttpError, Reply, text};

/// Answers a request that is not for the WebSocket.
#[must_use]
pub fn answer(method: &Method, path: &str) -> Reply {
    match (path, method) {
        ("/healthz", &Method::GET | &Method::HEAD) => text(StatusCode::OK, "ok\n"),
        ("/healthz", _) => HttpError::method("GET").reply(),
        _ => HttpError::new(StatusCode::NOT_FOUND, "there is /ws, and /healthz").reply(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn there_is_healthz_and_nothing_else() {
        assert_eq!(answer(&Method::GET, "/healthz").status(), StatusCode::OK);
        assert_eq!(answer(&Method::POST, "/healthz").status(), StatusCode::METHOD_NOT_ALLOWED);
        for path in ["/", "/metrics", "/api/v1/publish", "/readyz", "//healthz"] {
            assert_eq!(answer(&Method::GET, path).status(), StatusCode::NOT_FOUND, "{path}");
        }
    }
}
