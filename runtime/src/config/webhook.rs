//! Settings of the webhook.
use super::{BackendsConfig, Database, names, source::Source, value};
use crate::{http_client::signature::SigningKey, webhook::WebhookOptions};

/// Reads the settings of the webhook. Returns `None` if no events are posted.
pub(super) fn webhook(source: &mut Source<'_>, backends: &BackendsConfig) -> Option<WebhookOptions> {
    let timeout = source.value(&names::WEBHOOK_TIMEOUT, value::time_limit);
    let concurrency = source.value(&names::WEBHOOK_CONCURRENCY, value::count(1));
    let max_pause = source.value(&names::WEBHOOK_MAX_PAUSE, value::time_limit);
    let hold = source.value(&names::WEBHOOK_HOLD, value::duration);
    let max_parked = source.value(&names::WEBHOOK_MAX_PARKED, value::count(0));
    let max_age = source.value(&names::WEBHOOK_MAX_AGE, value::time_limit);
    let secret = source.secret(&names::WEBHOOK_SECRET);
    let url = source.optional(&names::WEBHOOK_URL, value::http)?;
    if matches!(backends.database, Database::Postgres(_)) && backends.nats.is_none() {
        let needs = format!("needs {} beside PostgreSQL: the events are read from its stream", names::NATS_URL.name);
        source.fault(&names::WEBHOOK_URL, needs);
    }
    let Some(secret) = secret else {
        source.fault(&names::WEBHOOK_SECRET, format!("is needed with {}", names::WEBHOOK_URL.name));
        return None;
    };
    match SigningKey::parse(secret.reveal()) {
        Ok(key) => Some(WebhookOptions { url, key, timeout, concurrency, max_pause, hold, max_parked, max_age }),
        Err(error) => {
            source.fault(&names::WEBHOOK_SECRET, error.to_string());
            None
        }
    }
}
