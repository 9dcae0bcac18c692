//! Makes connections to the servers of REDIS_URL, with or without TLS.
//!
//! Invariant: the URL and the files are read again for each connection, so the next connection uses a replaced password
//! or certificate.
use std::{error::Error, io, sync::Arc};

use bb8_redis::redis::{
    AsyncConnectionConfig, Client, ConnectionAddr, IntoConnectionInfo, RedisConnectionInfo, RedisError,
    aio::MultiplexedConnection, io::tcp::TcpSettings,
};
use rollcall_base::{
    BackendUrl,
    reloaded::Reloaded,
    tls::{ClientTls, FileVersion},
    tls_failure,
};
use tokio::{net::TcpStream, task::JoinSet};
use tokio_rustls::{
    TlsConnector,
    rustls::{ClientConfig, pki_types::ServerName},
};

use super::{
    address::{Endpoint, RedisUrl},
    state,
};

/// How many commands may wait in one connection's queue. Further callers wait.
const PIPELINED: usize = 1024;

/// Why no connection could be made, and what to change if that is known.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{0}")]
pub(super) struct ConnectError(pub(super) String);

/// A connection, and the task that serves it. The task ends with the last clone.
#[derive(Clone, Debug)]
pub(super) struct Line {
    pub(super) connection: MultiplexedConnection,
    _driver: Option<Arc<JoinSet<()>>>,
}

/// Makes connections.
pub(super) struct Dialer {
    url: BackendUrl,
    /// The URL as it was at the start. A URL of another kind is used only after a restart.
    first: RedisUrl,
    files: ClientTls,
    /// `None` until a URL asks for TLS.
    tls: Reloaded<Option<Tls>>,
}

impl Dialer {
    pub(super) fn new(url: BackendUrl, files: ClientTls) -> Result<Self, String> {
        let first = RedisUrl::parse(url.reveal())?;
        let read = first.tls.then(|| Tls::read(&files)).transpose()?;
        Ok(Self { url, first, files, tls: Reloaded::new("the certificates for REDIS_URL", read) })
    }

    /// Returns the URL as it was at the start.
    pub(super) fn first(&self) -> &RedisUrl {
        &self.first
    }

    /// Returns the URL as it is now.
    pub(super) async fn url(&self) -> Result<RedisUrl, ConnectError> {
        let url = RedisUrl::parse(self.url.current().await.reveal()).map_err(ConnectError)?;
        if !url.is_like(&self.first) {
            return Err(ConnectError("REDIS_URL leads to another kind of servers now: restart this node".into()));
        }
        url.check_certificates(&self.files).map_err(|problem| ConnectError(format!("REDIS_URL {problem}")))?;
        Ok(url)
    }

    /// Returns the TLS configuration for a new connection. The files are read again if one of them has changed.
    async fn tls(&self) -> Result<Arc<ClientConfig>, ConnectError> {
        let files = self.files.clone();
        let read = move |last: &Option<Tls>| match last {
            Some(last) if last.versions == files.versions() => Ok(None),
            _ => Tls::read(&files).map(|tls| Some(Some(tls))),
        };
        let tls = self.tls.current_if(Option::is_some, read).await.map_err(ConnectError)?;
        tls.map(|tls| tls.config).ok_or_else(|| ConnectError("the certificates were not read".into()))
    }

    /// Connects to one of the URL's servers. The caller limits the time.
    pub(super) async fn dial(
        &self,
        endpoint: &Endpoint,
        access: &RedisConnectionInfo,
        tls: bool,
    ) -> Result<Line, ConnectError> {
        let config = AsyncConnectionConfig::new()
            .set_connection_timeout(None)
            .set_response_timeout(None)
            .set_pipeline_buffer_size(PIPELINED);
        match (endpoint, tls) {
            (Endpoint::Tcp(host, port), true) => self.dial_tls((host, *port), access, config).await,
            (Endpoint::Tcp(host, port), false) => {
                plain(ConnectionAddr::Tcp(host.clone(), *port), access, &config).await
            }
            (Endpoint::Unix(path), _) => plain(ConnectionAddr::Unix(path.clone()), access, &config).await,
        }
    }

    async fn dial_tls(
        &self,
        (host, port): (&str, u16),
        access: &RedisConnectionInfo,
        config: AsyncConnectionConfig,
    ) -> Result<Line, ConnectError> {
        let connector = TlsConnector::from(self.tls().await?);
        let name = ServerName::try_from(host.to_owned()).map_err(|error| ConnectError(format!("{host}: {error}")))?;
        let stream = async {
            let stream = TcpStream::connect((host, port)).await?;
            stream.set_nodelay(true)?;
            connector.connect(name, stream).await
        };
        let stream = stream
            .await
            .map_err(|error: io::Error| tls_error(&error).unwrap_or_else(|| ConnectError(error.to_string())))?;
        let made = MultiplexedConnection::new_with_config(access, stream, config).await;
        let (connection, driver) = made.map_err(|error| connect_error(&error))?;
        let mut task = JoinSet::new();
        task.spawn(driver);
        Ok(Line { connection, _driver: Some(Arc::new(task)) })
    }
}

async fn plain(
    address: ConnectionAddr,
    access: &RedisConnectionInfo,
    config: &AsyncConnectionConfig,
) -> Result<Line, ConnectError> {
    let settings = TcpSettings::default().set_nodelay(true);
    let info = address.into_connection_info().map_err(|error| connect_error(&error))?;
    let client = Client::open(info.set_redis_settings(access.clone()).set_tcp_settings(settings));
    let client = client.map_err(|error| connect_error(&error))?;
    let connection = client.get_multiplexed_async_connection_with_config(config).await;
    let connection = connection.map_err(|error| connect_error_without_tls(&error))?;
    Ok(Line { connection, _driver: None })
}

/// Explains a server's error, and says what to do. In TLS 1.3 a server refuses the client's certificate only in its
/// first answer.
pub(super) fn connect_error(error: &RedisError) -> ConnectError {
    // The library keeps its cause behind a shared pointer, so `source` alone would skip one error of the chain.
    let cause = error.source().and_then(|cause| cause.downcast_ref::<Arc<dyn Error + Send + Sync>>());
    let of_tls = cause.and_then(|cause| tls_error(&**cause));
    of_tls.unwrap_or_else(|| ConnectError(state::describe(error)))
}

/// Explains an error of a connection without TLS. A server that uses TLS closes such a connection.
pub(super) fn connect_error_without_tls(error: &RedisError) -> ConnectError {
    match error.is_connection_dropped() && !error.is_connection_refusal() {
        true => ConnectError(format!("{error}; if it speaks TLS, let REDIS_URL begin with rediss")),
        false => connect_error(error),
    }
}

/// Returns what to change after a failed TLS handshake, or `None` for other errors.
fn tls_error(error: &(dyn Error + 'static)) -> Option<ConnectError> {
    const SETTINGS: &str = "ROLLCALL_REDIS_CA_FILE, ROLLCALL_REDIS_CERT, ROLLCALL_REDIS_KEY";
    tls_failure::explain(error).map(|why| ConnectError(format!("{why} (settings: {SETTINGS})")))
}

/// The TLS configuration of a connection.
#[derive(Clone)]
struct Tls {
    config: Arc<ClientConfig>,
    /// The versions of the files from which the configuration was made.
    versions: Vec<Option<FileVersion>>,
}

impl Tls {
    fn read(files: &ClientTls) -> Result<Self, String> {
        let versions = files.versions();
        let config = files.config().map_err(|error| error.to_string())?;
        Ok(Self { config: Arc::new(config), versions })
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[tokio::test]
    async fn a_url_that_gives_tls_up_is_refused_where_there_are_certificates() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("url");
        let url = BackendUrl::in_file("rediss://h", "REDIS_URL", file.clone(), |_| Ok(()));
        let tls = ClientTls { system_roots: false, ca_file: None, certificate: None };
        let dialer = Dialer::new(url, tls).unwrap();
        fs::write(&file, "rediss://other").unwrap();
        assert!(dialer.url().await.is_ok_and(|url| url.tls));
        fs::write(&file, "redis://other").unwrap();
        let refused = dialer.url().await.unwrap_err().to_string();
        assert!(refused.contains("has to begin with rediss"), "{refused}");
    }
}
