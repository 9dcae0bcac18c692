//! A request as its endpoint gets it.
use bytes::Bytes;
use hyper::HeaderMap;
use rollcall_schema::read_object;
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

/// Reads a JSON object. `form` shows the required form in the error.
pub(super) fn object<'a, T: Deserialize<'a>>(text: &'a [u8], form: &str) -> Result<T, HttpError> {
    let text = std::str::from_utf8(text).map_err(|error| HttpError::bad(format!("not {form}: {error}")))?;
    read_object(text).map_err(|error| HttpError::bad(format!("not {form}: {error}")))
}
