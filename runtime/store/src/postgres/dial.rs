//! One connection to one address, with or without TLS as `sslmode` says.
//!
//! Invariant: as in libpq, prefer and allow make a second attempt with or without TLS if TLS fails or the server
//! refuses the login. The stronger modes never connect without TLS. A Unix socket is never encrypted.
use std::{fmt, net::IpAddr};

use rustls::ProtocolVersion;
use tokio_postgres::{
    Client, Config, Connection, Error, Socket,
    config::{Host, SslMode as Encryption},
};

use super::{
    connect_error::Refusal,
    statement_error::text,
    tls::Tls,
    tls_stream::{BeginTls, Encrypted, HandshakeError},
    url::{RootCertificates, SslMode, TlsParameters},
};

/// One address of a host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Address {
    /// The host's index in the URL.
    pub(super) place: usize,
    pub(super) host: Option<Host>,
    /// The IP address. `None` for a Unix socket.
    pub(super) ip: Option<IpAddr>,
    pub(super) port: u16,
}

/// A connection, and how it is protected.
pub(super) struct Connected {
    pub(super) client: Client,
    pub(super) connection: Connection<Socket, Encrypted<Socket>>,
    pub(super) protection: Protection,
}

/// How a connection is protected.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Protection {
    tls: Option<ProtocolVersion>,
    checked: Checked,
    mode: SslMode,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Checked {
    Nothing,
    Authority,
    AuthorityAndName,
}

/// Connects to the address with the other settings of the configuration.
pub(super) async fn dial(all: &Config, address: &Address, tls: &Tls) -> Result<Connected, Refusal> {
    let mode = match &address.host {
        Some(Host::Unix(_)) => SslMode::Disable,
        _ => tls.parameters.mode,
    };
    let (first, second) = match mode {
        SslMode::Disable => (Encryption::Disable, None),
        SslMode::Allow => (Encryption::Disable, Some(Encryption::Require)),
        SslMode::Prefer => (Encryption::Prefer, Some(Encryption::Disable)),
        SslMode::Require | SslMode::VerifyCa | SslMode::VerifyFull => (Encryption::Require, None),
    };
    let config = only(all, address);
    let failed = match once(config.clone(), first, tls).await {
        Ok(connected) => return Ok(connected),
        Err(error) => error,
    };
    match second {
        Some(second) if may_depend_on_tls(&failed) => match once(config, second, tls).await {
            Ok(connected) => {
                tracing::debug!(%address, mode = mode.name(), error = text(&failed), "postgres: connected the other way");
                Ok(connected)
            }
            Err(error) => Err(Refusal::both(&failed, &error)),
        },
        _ => Err(Refusal::from(&failed)),
    }
}

async fn once(mut config: Config, encryption: Encryption, tls: &Tls) -> Result<Connected, Error> {
    let begin = BeginTls::new(tls.config.clone());
    let (client, connection) = config.ssl_mode(encryption).connect(begin.clone()).await?;
    let protection = Protection::new(begin.version(), &tls.parameters);
    Ok(Connected { client, connection, protection })
}

/// Returns true if another attempt with or without TLS may succeed: TLS did not begin, or the server refused the role.
/// The server may have different rules for roles with and without TLS.
fn may_depend_on_tls(error: &Error) -> bool {
    let handshake = std::error::Error::source(error).is_some_and(|cause| cause.is::<HandshakeError>());
    handshake
        || rollcall_base::tls_failure::explain(error).is_some()
        || error.code().is_some_and(|code| code.code().starts_with("28"))
}

/// Returns the configuration with only this address. The library's type cannot remove hosts, so a new one is made.
fn only(all: &Config, address: &Address) -> Config {
    let mut one = Config::new();
    if let Some(user) = all.get_user() {
        one.user(user);
    }
    if let Some(password) = all.get_password() {
        one.password(password);
    }
    if let Some(database) = all.get_dbname() {
        one.dbname(database);
    }
    if let Some(options) = all.get_options() {
        one.options(options);
    }
    if let Some(name) = all.get_application_name() {
        one.application_name(name);
    }
    // The certificate is compared with this name.
    match (&address.host, address.ip) {
        (Some(Host::Tcp(name)), _) => one.host(name),
        (Some(Host::Unix(path)), _) => one.host_path(path),
        (None, Some(ip)) => one.host(ip.to_string()),
        (None, None) => &mut one,
    };
    if let Some(ip) = address.ip {
        one.hostaddr(ip);
    }
    if let Some(limit) = all.get_tcp_user_timeout() {
        one.tcp_user_timeout(*limit);
    }
    if let Some(interval) = all.get_keepalives_interval() {
        one.keepalives_interval(interval);
    }
    if let Some(retries) = all.get_keepalives_retries() {
        one.keepalives_retries(retries);
    }
    one.port(address.port)
        .keepalives(all.get_keepalives())
        .keepalives_idle(all.get_keepalives_idle())
        .ssl_negotiation(all.get_ssl_negotiation())
        .channel_binding(all.get_channel_binding())
        .target_session_attrs(all.get_target_session_attrs());
    one
}

impl Protection {
    fn new(tls: Option<ProtocolVersion>, parameters: &TlsParameters) -> Self {
        let checked = match (&parameters.roots, parameters.mode) {
            (None, _) => Checked::Nothing,
            (Some(RootCertificates::System), _) | (_, SslMode::VerifyFull) => Checked::AuthorityAndName,
            (Some(RootCertificates::File(_)), _) => Checked::Authority,
        };
        Self { tls, checked, mode: parameters.mode }
    }
}

impl fmt::Display for Protection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Some(version) = self.tls else { return f.write_str("without TLS") };
        let version = match version {
            ProtocolVersion::TLSv1_2 => "TLS 1.2",
            ProtocolVersion::TLSv1_3 => "TLS 1.3",
            _ => "TLS",
        };
        let mode = self.mode.name();
        match self.checked {
            Checked::AuthorityAndName => write!(f, "{version}, certificate and name checked"),
            Checked::Authority => write!(f, "{version}, certificate checked without its name (sslmode={mode})"),
            Checked::Nothing => write!(f, "{version}, certificate not checked (sslmode={mode})"),
        }
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (&self.host, self.ip) {
            (Some(Host::Unix(path)), _) => write!(f, "{}", path.display()),
            (Some(Host::Tcp(name)), Some(ip)) if *name != ip.to_string() => write!(f, "{name} ({ip}) {}", self.port),
            (Some(Host::Tcp(name)), _) => write!(f, "{name}:{}", self.port),
            (None, Some(ip)) => write!(f, "{ip}:{}", self.port),
            (None, None) => write!(f, "no host"),
        }
    }
}
