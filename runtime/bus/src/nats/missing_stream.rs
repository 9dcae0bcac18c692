//! Makes a stream again that the server has lost.
use std::time::Duration;

use tokio::time::Instant;

use super::{
    stream::{self, StateError},
    work_client::WorkClient,
};
use crate::BusError;

/// How long a stream must be missing before it is made again. A server that deletes a stream reports it as missing
/// before its files are gone, and would then delete the files of a new stream, too.
const MAX_MISSING: Duration = Duration::from_secs(1);

/// The time since which the stream is missing.
#[derive(Default)]
pub(super) struct MissingStream(Option<Instant>);

impl MissingStream {
    /// Records that the stream has answered.
    pub(super) fn found(&mut self) {
        self.0 = None;
    }

    /// Makes the stream if this error says that it is missing. Other errors are returned unchanged.
    pub(super) async fn recreate(&mut self, client: &WorkClient, error: &StateError) -> BusError {
        if let StateError::Missing = error
            && self.0.get_or_insert_with(Instant::now).elapsed() >= MAX_MISSING
            && let Err(error) = recreate(client).await
        {
            return error;
        }
        BusError(error.to_string())
    }
}

async fn recreate(client: &WorkClient) -> Result<(), BusError> {
    stream::ensure(&client.jetstream().await?).await.map_err(|error| BusError(error.to_string()))
}
