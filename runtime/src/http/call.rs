//! A request as its endpoint gets it.
use bytes::Bytes;
use hyper::HeaderMap;
use serde::{Deserialize, de::DeserializeOwned};

use super::{audit::AuditLine, reply::HttpError, url_parameters::UrlParameters};

/// A request.
pub(super) struct Call<'a> {
    pub(super) url: UrlParameters<'a>,
    pub(super) headers: &'a HeaderMap,
    pub(super) body: Bytes,
    /// The line that the request writes to the log if it changes something.
    pub(super) audit: AuditLine,
}

impl Call<'_> {
    /// Reads the body. `form` shows the required form in the error.
    pub(super) fn json<T: DeserializeOwned>(&self, form: &str) -> Result<T, HttpError> {
        object(&self.body, form)
    }
}

/// Reads a JSON object. `form` shows the required form in the error. Serde alone would also accept an array of the
/// fields' values.
pub(super) fn object<'a, T: Deserialize<'a>>(text: &'a [u8], form: &str) -> Result<T, HttpError> {
    if text.trim_ascii_start().first().is_some_and(|first| *first != b'{') {
        return Err(HttpError::bad(format!("not {form}")));
    }
    serde_json::from_slice(text).map_err(|error| HttpError::bad(format!("not {form}: {error}")))
}
