//! The keys at REDIS_URL, for every kind of servers to which it leads.
use std::sync::Arc;

use rollcall_base::{BackendUrl, tls::ClientTls};

use super::{
    KeysError, LessonKeys,
    address::{RedisUrl, Servers},
    cluster::ClusterKeys,
    dial::Dialer,
    redis::RedisKeys,
};

/// The options of the keys in Redis.
#[derive(Clone, Debug)]
pub struct RedisOptions {
    /// REDIS_URL. It is read again for each new connection.
    pub url: BackendUrl,
    /// The beginning of every key's name.
    pub prefix: String,
    /// The authorities and the certificate for servers that use TLS.
    pub tls: ClientTls,
}

/// Checks that a text is a REDIS_URL.
///
/// # Errors
/// Returns an error that says what to write instead. The error repeats no part of the text, because the text may
/// contain a password.
pub fn check_url(text: &str) -> Result<(), String> {
    RedisUrl::parse(text).map(drop)
}

/// Checks that certificates are given only for a REDIS_URL with TLS.
///
/// # Errors
/// Returns an error that says what to write instead, without any part of the URL.
pub fn check_certificates(url: &BackendUrl, files: &ClientTls) -> Result<(), String> {
    RedisUrl::parse(url.reveal())?.check_certificates(files).map_err(str::to_owned)
}

/// Connects, and makes one call.
///
/// # Errors
/// Returns a [`KeysError`] if the URL is invalid or a server does not answer. Its text contains hosts, and no other
/// part of the URL, because the URL may hold a password.
pub async fn connect(options: RedisOptions) -> Result<Arc<dyn LessonKeys>, KeysError> {
    let RedisOptions { url, prefix, tls } = options;
    let dialer = Arc::new(Dialer::new(url, tls).map_err(KeysError)?);
    Ok(match dialer.first().servers {
        Servers::Single | Servers::Sentinel { .. } => Arc::new(RedisKeys::connect(dialer, &prefix).await?),
        Servers::Cluster => Arc::new(ClusterKeys::connect(dialer, &prefix).await?),
    })
}
