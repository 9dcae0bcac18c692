//! One connection to one server, from the first INFO on.
//!
//! It replaces the client library, which costs 5.9 KB for each subscription, and keeps messages that are published
//! while there is no connection.
//!
//! Invariant: every wait for the server has a timeout, except [`NatsConnection::read`], which is safe to cancel.
use std::{collections::BTreeSet, io, net::SocketAddr, sync::Arc, time::Duration};

use bytes::{Buf, BytesMut};
use rustls::pki_types::ServerName;
use serde::{Deserialize, Serialize};
use socket2::SockRef;
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    net::TcpStream,
    task::spawn_blocking,
    time::timeout,
};
use tokio_rustls::TlsConnector;

use super::{
    credentials::{Credentials, Login},
    options::NatsOptions,
    wire::{Malformed, Op, Parser},
};
use rollcall_base::{tls::ClientTls, tls_failure};

/// The time from the first packet to the answer to CONNECT.
pub(super) const CONNECT_TIMEOUT: Duration = Duration::from_secs(1);
/// How long a server may take to send its INFO.
const GREETING_TIMEOUT: Duration = Duration::from_millis(800);
/// A server that takes no bytes for this long is given up.
const WRITE_TIMEOUT: Duration = Duration::from_secs(3);
/// The maximum number of bytes of one read.
const READ: usize = 64 * 1024;

/// The address of a server, and how it is reached.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Endpoint {
    pub(super) socket: SocketAddr,
    /// The name that the server's certificate must have.
    pub(super) name: String,
    /// Whether the connection must use TLS. Otherwise the server's INFO decides.
    pub(super) tls: bool,
}

/// Why a connection failed or ended.
#[derive(Debug, thiserror::Error)]
pub(super) enum ConnectionError {
    #[error("{0}")]
    Io(#[from] io::Error),
    #[error("no answer in time")]
    Silent,
    #[error(
        "it accepts connections and says nothing: it hangs, or it begins with TLS (then set ROLLCALL_NATS_TLS_FIRST=true)"
    )]
    NoGreeting,
    #[error(transparent)]
    Malformed(#[from] Malformed),
    #[error("the credentials are refused")]
    Refused,
    #[error("the credentials cannot be used")]
    Credentials,
    /// The TLS handshake failed. The text says what to change.
    #[error("TLS: {0}")]
    Tls(String),
    #[error("the server said {0}")]
    Said(String),
}

/// The fields of a server's INFO.
#[derive(Clone, Default, Deserialize)]
pub(super) struct Info {
    #[serde(default)]
    tls_required: bool,
    /// The largest message, including its headers, that the server takes.
    #[serde(default)]
    pub(super) max_payload: usize,
    #[serde(default)]
    nonce: String,
    #[serde(default)]
    pub(super) server_name: String,
    /// The addresses `HOST:PORT` of all members of the server's cluster.
    #[serde(default)]
    pub(super) connect_urls: Vec<String>,
}

impl Info {
    /// Returns the members of the cluster that the server reaches, including itself.
    pub(super) fn members(&self) -> BTreeSet<&str> {
        self.connect_urls.iter().map(String::as_str).collect()
    }
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
    protocol: u8,
}

trait Stream: AsyncRead + AsyncWrite + Send + Sync + Unpin {}
impl<S: AsyncRead + AsyncWrite + Send + Sync + Unpin> Stream for S {}

/// A connection to a NATS server.
pub(super) struct NatsConnection {
    stream: Box<dyn Stream>,
    input: BytesMut,
    /// How many bytes of the input are consumed.
    used: usize,
    parser: Parser,
    /// The server.
    pub(super) endpoint: Endpoint,
    /// The server's first INFO.
    pub(super) info: Info,
    /// Whether the connection uses TLS.
    pub(super) secured: bool,
}

impl NatsConnection {
    /// Connects, and returns when the server has accepted the credentials.
    pub(super) async fn open(
        endpoint: &Endpoint,
        credentials: &Credentials,
        options: &NatsOptions,
        name: &str,
    ) -> Result<Self, ConnectionError> {
        let opened = timeout(CONNECT_TIMEOUT, Self::handshake(endpoint, credentials, options, name)).await;
        opened.unwrap_or(Err(ConnectionError::Silent)).map_err(|error| match error {
            ConnectionError::Io(error) => explained(error, options),
            error => error,
        })
    }

    async fn handshake(
        endpoint: &Endpoint,
        credentials: &Credentials,
        options: &NatsOptions,
        name: &str,
    ) -> Result<Self, ConnectionError> {
        let stream = TcpStream::connect(endpoint.socket).await?;
        stream.set_nodelay(true)?;
        // When a connection is given up, the kernel must not send bytes afterwards that it has not sent yet.
        SockRef::from(&stream).set_linger(Some(Duration::ZERO))?;
        let mut connection = Self::new(stream, endpoint.clone(), options.max_body);
        if options.tls_first {
            connection = connection.secure(options).await?;
        }
        let greeting = timeout(GREETING_TIMEOUT, connection.greeting()).await;
        let info = greeting.unwrap_or(Err(ConnectionError::NoGreeting))?;
        // If there are certificates in the settings, TLS is used whatever INFO says, because an attacker on the way
        // could have changed INFO.
        let tls = options.tls_first || endpoint.tls || info.tls_required || options.tls != ClientTls::default();
        if tls && !options.tls_first {
            // Before TLS the server sends nothing but INFO.
            connection = connection.secure(options).await?;
        }
        let login = credentials.login(info.nonce.as_bytes()).map_err(|_| ConnectionError::Credentials)?;
        connection.info = info;
        let connect = Connect {
            login: &login,
            name,
            lang: "rust",
            version: env!("CARGO_PKG_VERSION"),
            tls_required: tls,
            verbose: false,
            pedantic: false,
            headers: true,
            no_responders: true,
            protocol: 1,
        };
        let connect = serde_json::to_string(&connect).map_err(io::Error::from)?;
        // A server that refuses the client's certificate says why and closes. That answer is read even if this write
        // fails.
        let _ = connection.write(format!("CONNECT {connect}\r\nPING\r\n").as_bytes()).await;
        loop {
            match connection.next()? {
                Some(Op::Pong) => return Ok(connection),
                Some(Op::Error(error)) => return Err(refusal(error)),
                Some(_) => {}
                None => connection.read().await?,
            }
        }
    }

    /// Reads the server's first INFO.
    async fn greeting(&mut self) -> Result<Info, ConnectionError> {
        loop {
            match self.next()? {
                Some(Op::Info(json)) => return Ok(serde_json::from_slice(json).map_err(io::Error::from)?),
                Some(Op::Error(error)) => return Err(refusal(error)),
                Some(_) => {}
                None => self.read().await?,
            }
        }
    }

    /// Starts TLS on this connection.
    async fn secure(self, options: &NatsOptions) -> Result<Self, ConnectionError> {
        let tls = options.tls.clone();
        // The files are read again for each connection, because certificates are renewed while the process runs.
        let config = spawn_blocking(move || tls.config()).await.map_err(io::Error::other)?;
        let config = config.map_err(|error| ConnectionError::Tls(error.to_string()))?;
        let name = ServerName::try_from(self.endpoint.name.clone()).map_err(io::Error::other)?;
        let stream = TlsConnector::from(Arc::new(config)).connect(name, self.stream).await?;
        Ok(Self { secured: true, ..Self::new(stream, self.endpoint, options.max_body) })
    }

    fn new(stream: impl Stream + 'static, endpoint: Endpoint, max_body: usize) -> Self {
        let (input, parser, info) = (BytesMut::new(), Parser::new(max_body), Info::default());
        Self { stream: Box::new(stream), input, used: 0, parser, endpoint, info, secured: false }
    }

    /// Waits for more bytes.
    pub(super) async fn read(&mut self) -> Result<(), ConnectionError> {
        self.input.advance(std::mem::take(&mut self.used));
        if self.input.is_empty() && self.input.capacity() > 2 * READ {
            // A large message has been consumed, so its buffer is freed.
            self.input = BytesMut::new();
        }
        self.input.reserve(READ);
        match self.stream.read_buf(&mut self.input).await? {
            0 => Err(io::Error::from(io::ErrorKind::UnexpectedEof).into()),
            _ => Ok(()),
        }
    }

    /// Returns the next operation in the bytes that were read.
    pub(super) fn next(&mut self) -> Result<Option<Op<'_>>, Malformed> {
        loop {
            let (used, op) = self.parser.next(&self.input[self.used..])?;
            self.used += used;
            if op.is_some() || used == 0 {
                return Ok(op);
            }
        }
    }

    /// Writes all bytes.
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

/// Explains an error of the connection that is about TLS.
fn explained(error: io::Error, options: &NatsOptions) -> ConnectionError {
    let Some(why) = tls_failure::explain(&error) else { return ConnectionError::Io(error) };
    let shown = options.tls.certificate.is_some();
    ConnectionError::Tls(match why {
        why if why.contains("client") && !shown => {
            "it asks for a client certificate: set ROLLCALL_NATS_CERT and ROLLCALL_NATS_KEY".to_owned()
        }
        why if why.contains("client") => format!("{why} (ROLLCALL_NATS_CERT)"),
        why if why.contains("CA file") => format!("{why} (ROLLCALL_NATS_CA_FILE)"),
        why if why.contains("does not speak TLS") && options.tls_first => {
            format!("{why}, or unset ROLLCALL_NATS_TLS_FIRST")
        }
        why => why,
    })
}
