//! What the listener for clients asks the gateway before a connection is a WebSocket.
use std::net::SocketAddr;

use bytes::Bytes;
use http_body_util::Full as Body;
use hyper::{
    Request, Response,
    body::Incoming,
    http::{Extensions, request::Parts},
};

use crate::{
    gateway::WorkerCommand,
    http::public,
    limits::admission::{Admission, AdmissionError, Connections},
};
use rollcall_base::names;
use rollcall_websocket::{HttpHooks, SocketId, Workers};

/// Admits connections, and answers `/healthz`.
pub struct PublicFront {
    /// The limits of connections.
    pub admission: Admission,
    /// The workers, which count the connections.
    pub workers: Workers<WorkerCommand>,
}

impl Connections for Workers<WorkerCommand> {
    fn count(&self) -> usize {
        self.connections()
    }

    fn close_silent(&self, socket: SocketId) -> bool {
        self.try_send(socket.worker(), WorkerCommand::CloseSilent(socket)).is_ok()
    }
}

impl HttpHooks for PublicFront {
    fn admit(&self, remote: SocketAddr, holds: &mut Extensions) -> bool {
        self.admission.admit_connection(remote, holds)
    }

    fn is_proxy(&self, remote: SocketAddr) -> bool {
        self.admission.trusts(remote)
    }

    fn upgrade(&self, remote: SocketAddr, head: &mut Parts) -> Result<(), Box<Response<Body<Bytes>>>> {
        let admitted = if self.workers.near_limit() {
            Err(AdmissionError::InFlight)
        } else {
            self.admission.admit_upgrade(remote, head, &self.workers)
        };
        admitted.map_err(|error| {
            metrics::counter!(names::DROPPED, "reason" => error.as_str()).increment(1);
            Box::new(public::refusal(error))
        })
    }

    async fn other(&self, _remote: SocketAddr, request: Request<Incoming>) -> Response<Body<Bytes>> {
        public::answer(request.method(), request.uri().path())
    }
}
