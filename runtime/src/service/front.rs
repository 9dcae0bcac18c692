//! What the public listener says before a connection is a socket.
use std::net::SocketAddr;

use bytes::Bytes;
use http_body_util::Full;
use hyper::{Method, Request, Response, StatusCode, body::Incoming};

use crate::socket::Front;

/// `/healthz`; all else but `/ws` is not there.
pub struct PublicFront;

impl Front for PublicFront {
    async fn other(&self, _remote: SocketAddr, request: Request<Incoming>) -> Response<Full<Bytes>> {
        let (status, text) = match (request.method(), request.uri().path()) {
            (&Method::GET | &Method::HEAD, "/healthz") => (StatusCode::OK, "ok\n"),
            (_, "/healthz") => (StatusCode::METHOD_NOT_ALLOWED, "only GET\n"),
            _ => (StatusCode::NOT_FOUND, "there is /ws for WebSockets, and /healthz\n"),
        };
        let mut response = Response::new(Full::from(text));
        *response.status_mut() = status;
        response
    }
}
