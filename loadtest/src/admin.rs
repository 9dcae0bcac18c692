//! Requests to a gateway's admin address.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use serde_json::Value;
use ureq::http::Response;
use ureq::{Body, Error};

const LIMIT: Duration = Duration::from_secs(10);

/// Sends a GET. Returns the status and the body.
///
/// # Errors
/// Returns an error if no answer comes.
pub fn get(admin: SocketAddr, path: &str) -> io::Result<(u16, String)> {
    let request = ureq::get(format!("http://{admin}{path}"));
    let request = request.config().http_status_as_error(false);
    answer(request.timeout_global(Some(LIMIT)).build().call())
}

/// Sends a POST with a JSON body. Returns the status and the body.
///
/// # Errors
/// Returns an error if no answer comes.
pub fn post(admin: SocketAddr, path: &str, body: &Value) -> io::Result<(u16, String)> {
    let request = ureq::post(format!("http://{admin}{path}"));
    let request = request.content_type("application/json").config().http_status_as_error(false);
    answer(request.timeout_global(Some(LIMIT)).build().send(body.to_string()))
}

fn answer(result: Result<Response<Body>, Error>) -> io::Result<(u16, String)> {
    let mut response = result.map_err(io::Error::other)?;
    let body = response.body_mut().read_to_string();
    Ok((response.status().as_u16(), body.map_err(io::Error::other)?))
}
