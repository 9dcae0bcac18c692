//! The opening handshake (RFC 6455, 4.2): checks a request's head, and answers it.
//!
//! Invariant: a request that gets a 101 is an HTTP/1.1 GET with a key of 16 bytes and version 13, from an allowed
//! origin. No extension that the request offers is accepted, and a subprotocol is accepted only for Engine.IO.
use base64::{
    Engine, alphabet,
    engine::{GeneralPurpose, GeneralPurposeConfig},
};
use bytes::Bytes;
use http_body_util::Full;
use hyper::{
    Method, Request, Response, StatusCode, Version,
    header::{
        ALLOW, CONNECTION, CONTENT_LENGTH, HOST, HeaderMap, HeaderName, HeaderValue, SEC_WEBSOCKET_PROTOCOL,
        TRANSFER_ENCODING, UPGRADE,
    },
};

use ring::digest::{Context, SHA1_FOR_LEGACY_USE_ONLY};

use crate::origins::Origins;

const KEY: HeaderName = HeaderName::from_static("sec-websocket-key");
const VERSION: HeaderName = HeaderName::from_static("sec-websocket-version");
const ACCEPT: HeaderName = HeaderName::from_static("sec-websocket-accept");
/// The text that is appended to the key before it is hashed (RFC 6455, 1.3).
const GUID: &[u8] = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11";
/// Base64 of 16 bytes has 4 unused bits, and the RFC does not require them to be zero.
const BASE64: GeneralPurpose =
    GeneralPurpose::new(&alphabet::STANDARD, GeneralPurposeConfig::new().with_decode_allow_trailing_bits(true));

/// Why a request is not upgraded.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum UpgradeError {
    /// The request is not a GET: 405.
    #[error("only GET can be upgraded")]
    Method,
    /// The request is HTTP/1.0, which has no upgrade: 400.
    #[error("only HTTP/1.1 can be upgraded")]
    Http,
    /// The request asks for no upgrade: 426.
    #[error("this is a WebSocket: Upgrade: websocket and Connection: Upgrade are required")]
    NotAnUpgrade,
    /// The request asks for another version: 426 with the supported version.
    #[error("only version 13 is spoken")]
    Version,
    /// The key is missing or invalid: 400.
    #[error("Sec-WebSocket-Key must be one header of 16 bytes in base64")]
    Key,
    /// The host is missing: 400.
    #[error("one Host header is required")]
    Host,
    /// The request has a body, whose bytes would be parsed as frames: 400.
    #[error("an upgrade has no body")]
    Body,
    /// The origin is refused: 403.
    #[error("origin not allowed")]
    Origin,
}

impl UpgradeError {
    /// Returns the status of the response.
    #[must_use]
    pub fn status(self) -> StatusCode {
        match self {
            Self::Method => StatusCode::METHOD_NOT_ALLOWED,
            Self::Http | Self::Key | Self::Host | Self::Body => StatusCode::BAD_REQUEST,
            Self::NotAnUpgrade | Self::Version => StatusCode::UPGRADE_REQUIRED,
            Self::Origin => StatusCode::FORBIDDEN,
        }
    }

    /// Returns the label of this outcome in the metric of upgrades.
    #[must_use]
    pub fn outcome(self) -> &'static str {
        match self {
            Self::Method => "method",
            Self::Http => "http_version",
            Self::NotAnUpgrade => "not_an_upgrade",
            Self::Version => "version",
            Self::Key => "key",
            Self::Host => "host",
            Self::Body => "body",
            Self::Origin => "origin",
        }
    }

    /// Returns the response.
    #[must_use]
    pub fn response(self) -> Response<Full<Bytes>> {
        let mut response = Response::new(Full::from(format!("{self}\n")));
        *response.status_mut() = self.status();
        let headers = response.headers_mut();
        if self == Self::Method {
            headers.insert(ALLOW, HeaderValue::from_static("GET"));
        }
        if self == Self::Version {
            headers.insert(VERSION, HeaderValue::from_static("13"));
        }
        if self.status() == StatusCode::UPGRADE_REQUIRED {
            headers.insert(UPGRADE, HeaderValue::from_static("websocket"));
            headers.insert(CONNECTION, HeaderValue::from_static("upgrade"));
        }
        response
    }
}

/// Checks a request for the WebSocket's path.
pub(crate) fn check<B>(request: &Request<B>, origins: &Origins) -> Result<(), UpgradeError> {
    let headers = request.headers();
    if request.method() != Method::GET {
        return Err(UpgradeError::Method);
    }
    if request.version() != Version::HTTP_11 {
        return Err(UpgradeError::Http);
    }
    if !lists(headers, &UPGRADE, "websocket") || !lists(headers, &CONNECTION, "upgrade") {
        return Err(UpgradeError::NotAnUpgrade);
    }
    if sole(headers, &VERSION) != Some(b"13") {
        return Err(UpgradeError::Version);
    }
    if !sole(headers, &KEY).is_some_and(|key| BASE64.decode(key).is_ok_and(|key| key.len() == 16)) {
        return Err(UpgradeError::Key);
    }
    if sole(headers, &HOST).is_none_or(<[u8]>::is_empty) {
        return Err(UpgradeError::Host);
    }
    if headers.contains_key(TRANSFER_ENCODING) || sole(headers, &CONTENT_LENGTH).is_some_and(|length| length != b"0") {
        return Err(UpgradeError::Body);
    }
    if !origins.allow(headers) {
        return Err(UpgradeError::Origin);
    }
    Ok(())
}

/// Returns whether a request asks for a WebSocket. Other upgrades, like that to HTTP/2, are ignored.
pub(crate) fn asks_for_websocket(headers: &HeaderMap) -> bool {
    lists(headers, &UPGRADE, "websocket")
}

/// Returns the first subprotocol that a client offers, if it is a valid one. A browser closes a WebSocket whose server
/// accepts none of those that its page offers.
pub(crate) fn first_protocol(headers: &HeaderMap) -> Option<HeaderValue> {
    let first = headers.get(SEC_WEBSOCKET_PROTOCOL)?.to_str().ok()?.split(',').next()?.trim();
    // Subprotocols are tokens (RFC 6455, 4.1), like the names of headers.
    HeaderName::from_bytes(first.as_bytes()).ok()?;
    HeaderValue::from_str(first).ok()
}

/// Returns the 101 response to a request that passed [`check`].
pub(crate) fn accept<B>(request: &Request<B>) -> Response<Full<Bytes>> {
    let mut hash = Context::new(&SHA1_FOR_LEGACY_USE_ONLY);
    hash.update(sole(request.headers(), &KEY).expect("there is one key"));
    hash.update(GUID);
    let accept = HeaderValue::from_str(&BASE64.encode(hash.finish())).expect("base64 is visible ASCII");
    let mut response = Response::new(Full::default());
    *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    let headers = response.headers_mut();
    headers.insert(UPGRADE, HeaderValue::from_static("websocket"));
    headers.insert(CONNECTION, HeaderValue::from_static("upgrade"));
    headers.insert(ACCEPT, accept);
    response
}

/// Returns the value of a header that must not come twice.
fn sole<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Option<&'a [u8]> {
    let mut values = headers.get_all(name).iter();
    let value = values.next()?;
    values.next().is_none().then(|| value.as_bytes().trim_ascii())
}

/// Returns whether a comma-separated header has this member.
fn lists(headers: &HeaderMap, name: &HeaderName, member: &str) -> bool {
    headers
        .get_all(name)
        .iter()
        .flat_map(|value| value.as_bytes().split(|&byte| byte == b','))
        .any(|value| value.trim_ascii().eq_ignore_ascii_case(member.as_bytes()))
}

#[cfg(test)]
mod tests;
