//! The keys of REDIS_URL, whichever kind of servers it leads to.
use std::sync::Arc;

use rollcall_base::{BackendUrl, tls::ClientTls};

use super::{
    KeysError, LessonKeys,
    address::{RedisUrl, Servers},
    cluster::ClusterKeys,
    dial::Dialer,
    redis::RedisKeys,
};

/// Where the keys are.
#[derive(Clone, Debug)]
pub struct RedisOptions {
    /// REDIS_URL. It is read again for each new connection.
    pub url: BackendUrl,
    /// What every key's name begins with.
    pub prefix: String,
    /// Authorities and certificate, for servers that speak TLS.
    pub tls: ClientTls,
}

/// Checks that a text is a REDIS_URL.
///
/// # Errors
/// What to write instead; nothing of the text, which may hold a password.
pub fn check_url(text: &str) -> Result<(), String> {
    RedisUrl::parse(text).map(drop)
}

/// Connects, and asks once.
///
/// # Errors
/// [`KeysError`] where the URL is none or a server does not answer. Its text has no part of the URL, which may hold a
/// password, but hosts.
pub async fn connect(options: RedisOptions) -> Result<Arc<dyn LessonKeys>, KeysError> {
    let RedisOptions { url, prefix, tls } = options;
    let dialer = Arc::new(Dialer::new(url, tls).map_err(KeysError)?);
    Ok(match dialer.first().servers {
        Servers::Single | Servers::Sentinel { .. } => Arc::new(RedisKeys::connect(dialer, &prefix).await?),
        Servers::Cluster => Arc::new(ClusterKeys::connect(dialer, &prefix).await?),
    })
}
