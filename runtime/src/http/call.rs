//! One request, as its endpoint sees it.
use bytes::Bytes;
use hyper::HeaderMap;
use serde::de::DeserializeOwned;

use super::{audit::AuditLine, reply::HttpError, url_parameters::UrlParameters};

/// A request.
pub(super) struct Call<'a> {
    pub(super) url: UrlParameters<'a>,
    pub(super) headers: &'a HeaderMap,
    pub(super) body: Bytes,
    /// What it leaves in the log where it changes something.
    pub(super) audit: AuditLine,
}

impl Call<'_> {
    /// The body; `form` shows how it must look.
    pub(super) fn json<T: DeserializeOwned>(&self, form: &str) -> Result<T, HttpError> {
        serde_json::from_slice(&self.body).map_err(|error| HttpError::bad(format!("not {form}: {error}")))
    }
}
