//! One connection to one server: its bytes, from the first INFO on.
//!
//! The client library costs 5.9 KB for each subscription, and keeps what is published while there is no connection.
//! This one does neither.
//!
//! Invariant: everything that waits for the server has a timeout, except [`NatsConnection::read`], which is safe to
//! cancel.
use std::{io, sync::Arc, time::Duration};

use bytes::{Buf, BytesMut};
use rustls::{ClientConfig, RootCertStore, pki_types::ServerName};
use serde::{Deserialize, Serialize};
use socket2::SockRef;
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    net::TcpStream,
    time::timeout,
};
use tokio_rustls::TlsConnector;

use super::wire::{Malformed, Op, Parser};

/// From the first packet to the answer to our CONNECT.
pub(super) const CONNECT_TIMEOUT: Duration = Duration::from_secs(1);
/// A server that takes no bytes for this long is given up.
const WRITE_TIMEOUT: Duration = Duration::from_secs(3);
/// How much is read at once.
const READ: usize = 64 * 1024;

/// A server's address.
#[derive(Clone)]
pub(super) struct Address {
    pub(super) host: String,
    pub(super) port: u16,
    pub(super) tls: bool,
}

/// The credentials in CONNECT.
#[derive(Clone, Default, Serialize)]
pub(super) struct Login {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) user: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) pass: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) auth_token: Option<String>,
}

/// Why a connection failed or ended.
#[derive(Debug, thiserror::Error)]
pub(super) enum ConnectionError {
    #[error("{0}")]
    Io(#[from] io::Error),
    #[error("no answer in time")]
    Silent,
    #[error(transparent)]
    Malformed(#[from] Malformed),
    #[error("the credentials are refused")]
    Refused,
    #[error("the server said {0}")]
    Said(String),
}

#[derive(Deserialize)]
struct Info {
    #[serde(default)]
    tls_required: bool,
    #[serde(default)]
    max_payload: usize,
}

#[derive(Serialize)]
struct Connect<'a> {
    #[serde(flatten)]
    login: &'a Login,
    name: &'a str,
    lang: &'a str,
    version: &'a str,
    tls_required: bool,
    verbose: bool,
    pedantic: bool,
    headers: bool,
    no_responders: bool,
    echo: bool,
    protocol: u8,
}

trait Stream: AsyncRead + AsyncWrite + Send + Sync + Unpin {}
impl<S: AsyncRead + AsyncWrite + Send + Sync + Unpin> Stream for S {}

/// See the module.
pub(super) struct NatsConnection {
    stream: Box<dyn Stream>,
    input: BytesMut,
    /// How many bytes of the input are consumed.
    used: usize,
    parser: Parser,
    /// The largest message with its headers that the server takes.
    max_payload: usize,
}

impl NatsConnection {
    /// Connects, and returns when the server has accepted the credentials.
    pub(super) async fn open(
        address: &Address,
        login: &Login,
        name: &str,
        max_body: usize,
    ) -> Result<Self, ConnectionError> {
        timeout(CONNECT_TIMEOUT, Self::handshake(address, login, name, max_body))
            .await
            .unwrap_or(Err(ConnectionError::Silent))
    }

    async fn handshake(address: &Address, login: &Login, name: &str, max_body: usize) -> Result<Self, ConnectionError> {
        let stream = TcpStream::connect((address.host.as_str(), address.port)).await?;
        stream.set_nodelay(true)?;
        // When a connection is given up, bytes that the kernel has not sent yet must not be sent afterwards.
        SockRef::from(&stream).set_linger(Some(Duration::ZERO))?;
        let mut connection = Self::new(stream, max_body);
        let info: Info = loop {
            match connection.next()? {
                Some(Op::Info(json)) => break serde_json::from_slice(json).map_err(io::Error::from)?,
                Some(Op::Error(error)) => return Err(refusal(error)),
                Some(_) => {}
                None => connection.read().await?,
            }
        };
        let tls = address.tls || info.tls_required;
        if tls {
            // The server sends nothing but INFO before TLS.
            let name = ServerName::try_from(address.host.clone()).map_err(io::Error::other)?;
            connection =
                Self::new(TlsConnector::from(tls_config().await?).connect(name, connection.stream).await?, max_body);
        }
        connection.max_payload = info.max_payload;
        let connect = Connect {
            login,
            name,
            lang: "rust",
            version: env!("CARGO_PKG_VERSION"),
            tls_required: tls,
            verbose: false,
            pedantic: false,
            headers: true,
            no_responders: true,
            echo: false,
            protocol: 1,
        };
        let connect = serde_json::to_string(&connect).map_err(io::Error::from)?;
        connection.write(format!("CONNECT {connect}\r\nPING\r\n").as_bytes()).await?;
        loop {
            match connection.next()? {
                Some(Op::Pong) => return Ok(connection),
                Some(Op::Error(error)) => return Err(refusal(error)),
                Some(_) => {}
                None => connection.read().await?,
            }
        }
    }

    fn new(stream: impl Stream + 'static, max_body: usize) -> Self {
        let parser = Parser::new(max_body);
        Self { stream: Box::new(stream), input: BytesMut::new(), used: 0, parser, max_payload: 0 }
    }

    /// The largest message with its headers that the server takes.
    pub(super) fn max_payload(&self) -> usize {
        self.max_payload
    }

    /// Waits for more bytes.
    pub(super) async fn read(&mut self) -> Result<(), ConnectionError> {
        self.input.advance(std::mem::take(&mut self.used));
        if self.input.is_empty() && self.input.capacity() > 2 * READ {
            // A large message has been consumed.
            self.input = BytesMut::new();
        }
        self.input.reserve(READ);
        match self.stream.read_buf(&mut self.input).await? {
            0 => Err(io::Error::from(io::ErrorKind::UnexpectedEof).into()),
            _ => Ok(()),
        }
    }

    /// The next operation of what was read.
    pub(super) fn next(&mut self) -> Result<Option<Op<'_>>, Malformed> {
        loop {
            let (used, op) = self.parser.next(&self.input[self.used..])?;
            self.used += used;
            if op.is_some() || used == 0 {
                return Ok(op);
            }
        }
    }

    /// Writes all of it.
    pub(super) async fn write(&mut self, bytes: &[u8]) -> Result<(), ConnectionError> {
        let written = async {
            self.stream.write_all(bytes).await?;
            self.stream.flush().await
        };
        Ok(timeout(WRITE_TIMEOUT, written).await.map_err(|_| ConnectionError::Silent)??)
    }
}

fn refusal(error: &[u8]) -> ConnectionError {
    let text = String::from_utf8_lossy(error).to_ascii_lowercase();
    if text.contains("authorization") || text.contains("authentication") {
        ConnectionError::Refused
    } else {
        ConnectionError::Said(text)
    }
}

/// Trusts the certificates that this machine trusts, as the client library does.
async fn tls_config() -> io::Result<Arc<ClientConfig>> {
    let certificates = tokio::task::spawn_blocking(rustls_native_certs::load_native_certs).await?.certs;
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(certificates);
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
    let config = config.map_err(io::Error::other)?.with_root_certificates(roots).with_no_client_auth();
    Ok(Arc::new(config))
}
