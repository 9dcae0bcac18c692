//! A kind of request that the admin address answers: its method, its path, and its endpoint.
use futures_util::future::BoxFuture;
use hyper::Method;

use super::{
    admin::Admin,
    call::Call,
    reply::{HttpError, Streamed},
};

/// Answers a request.
pub(super) type Endpoint = for<'a> fn(&'a Admin, &'a Call<'a>) -> BoxFuture<'a, Result<Streamed, HttpError>>;

/// The method of a path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verb {
    /// GET, and HEAD.
    Get,
    /// POST.
    Post,
}

impl Verb {
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::Get => "GET",
            Self::Post => "POST",
        }
    }

    fn is(self, method: &Method) -> bool {
        match self {
            Self::Get => matches!(*method, Method::GET | Method::HEAD),
            Self::Post => *method == Method::POST,
        }
    }
}

/// A line of the table.
pub(super) struct Route {
    pub(super) verb: Verb,
    /// The path. A segment in braces stands for any text.
    pub(super) path: &'static str,
    /// Whether the request changes something. Then the read token is not sufficient, and a log line is written.
    pub(super) changes: bool,
    /// The largest body of the request, in bytes.
    pub(super) max_body: fn(&Admin) -> usize,
    pub(super) endpoint: Endpoint,
}

impl Route {
    /// Creates the route of a request that reads and has no body.
    pub(super) const fn get(path: &'static str, endpoint: Endpoint) -> Self {
        Self { verb: Verb::Get, path, changes: false, max_body: |_| 0, endpoint }
    }

    /// Creates the route of a request that reads and has a body.
    pub(super) const fn query(path: &'static str, endpoint: Endpoint) -> Self {
        Self { verb: Verb::Post, path, changes: false, max_body: |admin| admin.max_event, endpoint }
    }

    /// Creates the route of a request that changes something.
    pub(super) const fn post(path: &'static str, endpoint: Endpoint) -> Self {
        Self { verb: Verb::Post, path, changes: true, max_body: |admin| admin.max_event, endpoint }
    }

    /// Sets another limit for the body.
    pub(super) const fn max_body(self, max_body: fn(&Admin) -> usize) -> Self {
        Self { max_body, ..self }
    }

    /// Returns the texts in the places of the braces, in their order, or `None` if the path is a different one.
    pub(super) fn parameters<'a>(&self, path: &'a str) -> Option<Vec<&'a str>> {
        let mut parameters = Vec::new();
        let (mut own, mut given) = (self.path.split('/'), path.split('/'));
        loop {
            match (own.next(), given.next()) {
                (None, None) => return Some(parameters),
                (Some(own), Some(given)) if own.starts_with('{') => parameters.push(given),
                (Some(own), Some(given)) if own == given => {}
                _ => return None,
            }
        }
    }

    /// Returns whether the route answers this method.
    pub(super) fn answers(&self, method: &Method) -> bool {
        self.verb.is(method)
    }
}
