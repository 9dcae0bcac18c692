//! The listener for clients calls this file before a connection is a WebSocket.
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
    limits::admission::Admission,
};
use rollcall_base::names;
use rollcall_websocket::{HttpHooks, Workers};

/// Admits connections, and answers requests that are not for the WebSocket.
pub struct PublicFront {
    /// The limits of connections.
    pub admission: Arc<Admission>,
    /// The workers, which count the connections.
    pub workers: Workers<WorkerCommand>,
    /// Answers the requests.
    pub public: Public,
}

impl HttpHooks for PublicFront {
    fn admit(&self, remote: SocketAddr, holds: &mut Extensions) -> bool {
        self.admission.admit_connection(remote, holds)
    }

    fn is_proxy(&self, remote: SocketAddr) -> bool {
        self.admission.trusts(remote)
    }

    fn upgrade(&self, remote: SocketAddr, head: &mut Parts) -> Result<(), Box<Response<Body<Bytes>>>> {
        self.admission.admit_upgrade(remote, head, &self.workers).map_err(|error| {
            metrics::counter!(names::DROPPED, "reason" => error.as_str()).increment(1);
            Box::new(public::refusal(error))
        })
    }

    async fn other(&self, remote: SocketAddr, request: Request<Incoming>) -> Response<Body<Bytes>> {
        // No request here has a body that is needed.
        let (head, _) = request.into_parts();
        self.public.answer(self.admission.client(remote, &head.headers), &head).await
    }
}
