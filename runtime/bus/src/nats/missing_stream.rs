//! A stream that the server has lost is made again.
use std::time::Duration;

use tokio::time::Instant;

use super::{
    stream::{self, StateError},
    work_client::WorkClient,
};
use crate::BusError;

/// It is made again when it has been missing for this long. A server that deletes a stream says that it is missing before
/// its files are gone, and deletes the files of one that is made meanwhile, too.
const MAX_MISSING: Duration = Duration::from_secs(1);

/// Since when the stream is missing.
#[derive(Default)]
pub(super) struct MissingStream(Option<Instant>);

impl MissingStream {
    /// The stream has answered.
    pub(super) fn found(&mut self) {
        self.0 = None;
    }

    /// Makes the stream if it is missing. All other errors are only retried.
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
