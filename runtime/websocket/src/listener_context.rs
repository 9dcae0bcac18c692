//! What all connections of a listener share, until they are upgraded.
use std::{
    net::SocketAddr,
    sync::{Arc, atomic::AtomicBool},
};

use hyper::{
    Response, StatusCode,
    header::{self, CONNECTION, HeaderMap, HeaderValue},
};
use metrics::counter;

use crate::{
    evicting_semaphore::EvictingSemaphore,
    options::{CurrentOptions, ListenerOptions},
    workers::Workers,
};
use rollcall_base::{log_limit::LogLimit, names};

/// How many characters of a refused origin are logged.
const MAX_LOGGED: usize = 100;

#[derive(Debug)]
pub(crate) struct ListenerContext<C, H> {
    options: CurrentOptions,
    pub(crate) hooks: H,
    pub(crate) workers: Workers<C>,
    /// The slots of connections that have not upgraded.
    pub(crate) half_open: Arc<EvictingSemaphore>,
    /// Whether only requests of sessions by long-polling are still served.
    pub(crate) draining: AtomicBool,
    origin_log: LogLimit,
    proxy_log: LogLimit,
}

impl<C, H> ListenerContext<C, H> {
    pub(crate) fn new(options: CurrentOptions, hooks: H, workers: Workers<C>) -> Self {
        let half_open = EvictingSemaphore::new(options.borrow().max_half_open, "half_open_full");
        Self {
            options,
            hooks,
            workers,
            half_open,
            draining: AtomicBool::new(false),
            origin_log: LogLimit::new(),
            proxy_log: LogLimit::new(),
        }
    }

    /// Returns the options for a connection that begins now.
    pub(crate) fn options(&self) -> Arc<ListenerOptions> {
        Arc::clone(&self.options.borrow())
    }

    /// Lets a connection end with this response if its slot may be needed. Clients of long-polling and browsers would
    /// keep the connection for their next request.
    pub(crate) fn last_if_crowded<B>(&self, mut response: Response<B>) -> Response<B> {
        if response.status() != StatusCode::SWITCHING_PROTOCOLS && self.half_open.is_crowded() {
            response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
        }
        response
    }

    /// Logs a connection that did not come from a balancer.
    pub(crate) fn log_not_a_proxy(&self, remote: SocketAddr) {
        if let Some(held_back) = self.proxy_log.pass() {
            let hint = "a connection that is no balancer's was closed; ROLLCALL_TRUSTED_PROXIES names the balancers";
            tracing::warn!(from = %remote.ip(), held_back, "{hint}");
        }
    }

    /// Logs a refused origin. The text comes from a client, so it is cut, and control characters are escaped.
    pub(crate) fn log_origin(&self, headers: &HeaderMap) {
        if let Some(held_back) = self.origin_log.pass() {
            let origin = headers.get(header::ORIGIN).map(|origin| origin.as_bytes().escape_ascii());
            let origin: String = origin.into_iter().flatten().take(MAX_LOGGED).map(char::from).collect();
            tracing::info!(origin, held_back, "a page was refused; ROLLCALL_ORIGINS would let it in");
        }
    }
}

/// Counts the outcome of a connection.
pub(crate) fn count_upgrade(outcome: &'static str) {
    counter!(names::UPGRADES, "outcome" => outcome).increment(1);
}
