//! What the public listener says before a connection is a socket.
use std::net::SocketAddr;

use bytes::Bytes;
use http_body_util::Full;
use hyper::{Request, Response, body::Incoming, http::request::Parts};

use crate::{
    gateway::Command,
    http::{admission::Admission, public},
    names,
    socket::{Front, Workers},
};

/// Keeps the limits of connections; `/healthz`; all else but `/ws` is not there.
pub struct PublicFront {
    /// The limits.
    pub admission: Admission,
    /// Who know how many connections there are.
    pub workers: Workers<Command>,
}

impl Front for PublicFront {
    fn upgrade(&self, remote: SocketAddr, head: &mut Parts) -> Result<(), Box<Response<Full<Bytes>>>> {
        match self.admission.enter(remote, &head.headers, || self.workers.connections()) {
            Ok((place, underway)) => {
                head.extensions.insert(place);
                // Gone with the head, once a worker has the connection.
                head.extensions.insert(underway);
                Ok(())
            }
            Err(full) => {
                metrics::counter!(names::DROPPED, "reason" => full.as_str()).increment(1);
                Err(Box::new(full.reply()))
            }
        }
    }

    async fn other(&self, _remote: SocketAddr, request: Request<Incoming>) -> Response<Full<Bytes>> {
        public::answer(request.method(), request.uri().path())
    }
}
