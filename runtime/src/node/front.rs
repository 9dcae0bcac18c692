//! What the listener for clients asks the gateway before a connection is a WebSocket.
use std::{net::SocketAddr, sync::Arc};

use bytes::Bytes;
use http_body_util::Full as Body;
use hyper::{
    Request, Response,
    body::Incoming,
    http::{Extensions, request::Parts},
};

use crate::{
    gateway::WorkerCommand,
    http::public::{self, Public},
    limits::admission::{Admission, AdmissionError, Connections},
};
use rollcall_base::names;
use rollcall_websocket::{HttpHooks, ReservedConnection, SocketId, Workers};

/// Admits connections, and answers requests that are not for the WebSocket.
pub struct PublicFront {
    /// The limits of connections.
    pub admission: Arc<Admission>,
    /// The workers, which count the connections.
    pub workers: Workers<WorkerCommand>,
    /// The answers.
    pub public: Public,
}

impl Connections for Workers<WorkerCommand> {
    fn count(&self) -> usize {
        self.admitted()
    }

    fn reserve(&self) -> ReservedConnection {
        Workers::reserve(self)
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

    async fn other(&self, remote: SocketAddr, request: Request<Incoming>) -> Response<Body<Bytes>> {
        // No request here has a body that matters.
        let (head, _) = request.into_parts();
        self.public.answer(self.admission.client(remote, &head.headers), &head).await
    }
}
