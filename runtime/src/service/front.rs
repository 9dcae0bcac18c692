//! What the public listener says before a connection is a socket.
use std::net::SocketAddr;

use bytes::Bytes;
use http_body_util::Full;
use hyper::{Request, Response, body::Incoming};

use crate::{http::public, socket::Front};

/// `/healthz`; all else but `/ws` is not there.
pub struct PublicFront;

impl Front for PublicFront {
    async fn other(&self, _remote: SocketAddr, request: Request<Incoming>) -> Response<Full<Bytes>> {
        public::answer(request.method(), request.uri().path())
    }
}
