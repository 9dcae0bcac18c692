//! What the application decides about a connection before it is a socket.
use std::net::SocketAddr;

use bytes::Bytes;
use http_body_util::Full;
use hyper::{
    Request, Response,
    body::Incoming,
    http::{Extensions, request::Parts},
};

/// The application's part in serving HTTP.
pub trait HttpHooks: Send + Sync + 'static {
    /// Returns whether an accepted connection may send a request. If not, it is closed without an answer. Values in
    /// `held` move to the extensions of the head that is upgraded; without an upgrade they live until the connection
    /// has ended.
    fn admit(&self, remote: SocketAddr, held: &mut Extensions) -> bool {
        let _ = (remote, held);
        true
    }

    /// Returns whether `remote` is a balancer that may name the client's address
    /// ([`crate::ListenerOptions::proxy_protocol`]). Other connections are closed.
    fn is_proxy(&self, remote: SocketAddr) -> bool {
        let _ = remote;
        false
    }

    /// Handles a request that has passed all checks and is about to be upgraded. The values in its extensions reach
    /// [`crate::Upgrade::head`]. A returned response refuses the upgrade, and the extensions then live until the
    /// connection has ended.
    fn upgrade(&self, remote: SocketAddr, head: &mut Parts) -> Result<(), Box<Response<Full<Bytes>>>> {
        let _ = (remote, head);
        Ok(())
    }

    /// Answers a request for any other path.
    fn other(
        &self,
        remote: SocketAddr,
        request: Request<Incoming>,
    ) -> impl Future<Output = Response<Full<Bytes>>> + Send;
}
