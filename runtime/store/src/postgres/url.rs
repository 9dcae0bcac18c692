//! `DATABASE_URL` for PostgreSQL: the parts that tokio-postgres reads, and libpq's parameters of TLS, which it does not
//! read.
//!
//! Invariant: an error names the parameter and what to write, and contains no other part of the URL.
use std::path::PathBuf;

use percent_encoding::percent_decode_str;
use rollcall_base::tls::ClientCertificate;
use tokio_postgres::Config;

/// When TLS is used, and how much of the server's certificate is checked, as in libpq.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum SslMode {
    /// TLS is never used.
    Disable,
    /// TLS is used if the server refuses connections without it.
    Allow,
    /// TLS is used if the server has it and accepts it.
    #[default]
    Prefer,
    /// TLS is always used.
    Require,
    /// TLS is always used, and the certificate must be of a trusted authority.
    VerifyCa,
    /// The connection is secured as with [`Self::VerifyCa`], and the certificate must have the host's name.
    VerifyFull,
}

/// The value of `sslrootcert`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum RootCertificates {
    /// `system`: the authorities that this machine trusts.
    System,
    /// A PEM file of authorities.
    File(PathBuf),
}

/// The parameters of TLS.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct TlsParameters {
    pub(super) mode: SslMode,
    /// The trusted authorities. Without them no certificate is checked.
    pub(super) roots: Option<RootCertificates>,
    pub(super) certificate: Option<ClientCertificate>,
}

/// The parsed URL.
pub(super) struct PostgresUrl {
    pub(super) config: Config,
    pub(super) tls: TlsParameters,
}

impl SslMode {
    const NAMES: [(&str, Self); 6] = [
        ("disable", Self::Disable),
        ("allow", Self::Allow),
        ("prefer", Self::Prefer),
        ("require", Self::Require),
        ("verify-ca", Self::VerifyCa),
        ("verify-full", Self::VerifyFull),
    ];

    fn parse(text: &str) -> Result<Self, String> {
        let found = Self::NAMES.into_iter().find(|(name, _)| *name == text);
        found
            .map(|(_, mode)| mode)
            .ok_or_else(|| format!("sslmode must be one of {}", Self::NAMES.map(|(name, _)| name).join(", ")))
    }

    pub(super) fn name(self) -> &'static str {
        Self::NAMES[self as usize].0
    }
}

/// The parameters that are read here, with their given values.
#[derive(Default)]
struct Given {
    mode: Option<SslMode>,
    roots: Option<RootCertificates>,
    certificate: Option<PathBuf>,
    key: Option<PathBuf>,
}

const MALFORMED: &str = "not an address of PostgreSQL; escape special characters of the password as %XX";

/// Parses a URL.
///
/// # Errors
/// Returns a sentence for the operator.
pub(super) fn parse(url: &str) -> Result<PostgresUrl, String> {
    let of_parameter = |(before, _): (&str, &str)| before.split_once('?').is_some_and(|(_, rest)| rest.contains('='));
    if url.matches('@').count() > 1 || url.split_once('@').is_some_and(of_parameter) {
        // The rest may be part of the password or of a parameter, and would be taken for the host.
        return Err(MALFORMED.to_owned());
    }
    let (address, query) = split(url);
    let mut given = Given::default();
    let mut rest = Vec::new();
    for parameter in query.split('&').filter(|parameter| !parameter.is_empty()) {
        let (name, value) = parameter.split_once('=').unwrap_or((parameter, ""));
        let value = percent_decode_str(value).decode_utf8().map_err(|_| format!("{name} is not UTF-8"))?;
        if !given.take(name, &value)? {
            rest.push(parameter);
        }
    }
    let others = if rest.is_empty() { String::new() } else { format!("?{}", rest.join("&")) };
    let config: Config = format!("{address}{others}").parse().map_err(|error| explain(&error))?;
    Ok(PostgresUrl { tls: given.check()?, config })
}

/// Checks that a text is a URL to which [`PostgresStore`](super::PostgresStore) can connect. The files that it names
/// are not read.
///
/// # Errors
/// Returns a sentence for the operator that contains no password.
pub fn check_url(url: &str) -> Result<(), String> {
    parse(url).map(drop)
}

/// Splits a URL into the part before the parameters, and the parameters. User and password come first, and may contain
/// a `?`.
fn split(url: &str) -> (&str, &str) {
    let credentials = url.find('@').unwrap_or(0);
    match url[credentials..].find('?') {
        Some(at) => (&url[..credentials + at], &url[credentials + at + 1..]),
        None => (url, ""),
    }
}

impl Given {
    /// Takes a parameter that tokio-postgres does not know, or only knows in part. Returns false for all others.
    fn take(&mut self, name: &str, value: &str) -> Result<bool, String> {
        match name {
            "sslmode" => self.mode = Some(SslMode::parse(value)?),
            "sslrootcert" if value == "system" => self.roots = Some(RootCertificates::System),
            "sslrootcert" => self.roots = file(name, value)?.map(RootCertificates::File),
            "sslcert" => self.certificate = file(name, value)?,
            "sslkey" => self.key = file(name, value)?,
            // Rollcall always looks for the server that takes writes.
            "target_session_attrs" if ["any", "read-write", "primary"].contains(&value) => {}
            "target_session_attrs" => return Err("target_session_attrs must be read-write, for Rollcall writes".into()),
            "gssencmode" if ["disable", "prefer"].contains(&value) => {}
            "gssencmode" => return Err("gssencmode must be disable: GSSAPI is not supported".into()),
            "passfile" => return Err("passfile is not read: write the password alone into a file, and name it in ROLLCALL_DATABASE_PASSWORD_FILE".into()),
            _ => return Ok(false),
        }
        Ok(true)
    }

    /// Makes the checks that libpq makes.
    fn check(self) -> Result<TlsParameters, String> {
        let system = self.roots == Some(RootCertificates::System);
        let mode = self.mode.unwrap_or(if system { SslMode::VerifyFull } else { SslMode::default() });
        if system && mode != SslMode::VerifyFull {
            return Err(
                "sslrootcert=system needs sslmode=verify-full: a weaker mode would trust anybody's certificate".into(),
            );
        }
        if mode >= SslMode::VerifyCa && self.roots.is_none() {
            return Err(format!(
                "sslmode={} needs sslrootcert=FILE with the server's authority, or sslrootcert=system",
                mode.name()
            ));
        }
        let certificate = match (self.certificate, self.key) {
            (Some(chain), Some(key)) => Some(ClientCertificate { chain, key }),
            (None, None) => None,
            (Some(_), None) => return Err("sslcert needs sslkey=FILE with its private key".into()),
            (None, Some(_)) => return Err("sslkey needs sslcert=FILE with its certificate".into()),
        };
        Ok(TlsParameters { mode, roots: self.roots, certificate })
    }
}

/// Returns the path of a file. As in libpq, an empty value means no file.
fn file(name: &str, value: &str) -> Result<Option<PathBuf>, String> {
    match value {
        "" => Ok(None),
        "system" => Err(format!("{name} must be a PEM file")),
        path => Ok(Some(path.into())),
    }
}

/// Explains an error of tokio-postgres without its text, which may contain a value and so a password. Only the text
/// about an unknown parameter is used, because it contains the parameter's name and no value.
fn explain(error: &tokio_postgres::Error) -> String {
    let cause = std::error::Error::source(error).map(ToString::to_string).unwrap_or_default();
    match cause.strip_prefix("unknown option `") {
        Some(name) => format!("the parameter `{name} is not known; leave it out"),
        None => MALFORMED.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tls(parameters: &str) -> Result<TlsParameters, String> {
        parse(&format!("postgres://me:p%40ss?word@db.example:6432/x?{parameters}")).map(|url| url.tls)
    }

    fn modes(parameters: &str) -> (SslMode, Option<RootCertificates>) {
        tls(parameters).map(|tls| (tls.mode, tls.roots)).unwrap()
    }

    #[test]
    fn parameters_of_tls_are_those_of_libpq() {
        let file = || Some(RootCertificates::File("/etc/my ca.pem".into()));
        assert_eq!(modes(""), (SslMode::Prefer, None));
        assert_eq!(modes("sslmode=require&sslrootcert="), (SslMode::Require, None));
        assert_eq!(modes("sslmode=allow&sslrootcert=%2Fetc%2Fmy%20ca.pem"), (SslMode::Allow, file()));
        assert_eq!(modes("sslrootcert=/etc/my%20ca.pem&sslmode=verify-ca"), (SslMode::VerifyCa, file()));
        assert_eq!(modes("sslrootcert=system"), (SslMode::VerifyFull, Some(RootCertificates::System)));
        let with = tls("sslcert=a.crt&sslkey=a.key").unwrap();
        assert_eq!(with.certificate, Some(ClientCertificate { chain: "a.crt".into(), key: "a.key".into() }));
        assert!(SslMode::NAMES.iter().all(|(name, mode)| mode.name() == *name));
    }

    #[test]
    fn the_other_parameters_are_left_to_the_driver() {
        let url = parse("postgres://me:p%40ss?word@db/x?application_name=a&sslmode=disable&connect_timeout=7").unwrap();
        assert_eq!(url.config.get_password(), Some(&b"p@ss?word"[..]));
        assert_eq!((url.config.get_dbname(), url.config.get_application_name()), (Some("x"), Some("a")));
        assert_eq!(url.config.get_connect_timeout(), Some(&std::time::Duration::from_secs(7)));
        assert!(tls("target_session_attrs=primary&gssencmode=disable&channel_binding=require").is_ok());
    }

    #[test]
    fn what_cannot_be_done_is_told_with_what_to_write() {
        let cases = [
            ("sslmode=on", "sslmode must be one of disable"),
            ("sslmode=verify-full", "sslmode=verify-full needs sslrootcert=FILE"),
            ("sslmode=require&sslrootcert=system", "needs sslmode=verify-full"),
            ("sslcert=a", "sslkey"),
            ("sslkey=a", "sslcert"),
            ("target_session_attrs=standby", "read-write"),
            ("gssencmode=require", "gssencmode"),
            ("passfile=x", "ROLLCALL_DATABASE_PASSWORD_FILE"),
            ("pgbouncer=true", "`pgbouncer` is not known"),
            ("connect_timeout=p%40ss", "not an address"),
        ];
        for (parameters, told) in cases {
            let error = tls(parameters).unwrap_err();
            assert!(
                error.contains(told) && !error.contains("ss?word") && !error.contains("p@ss"),
                "{parameters}: {error}"
            );
        }
        let error = parse("postgres://me:p@ss?can&ary=1@db/x").map(drop).unwrap_err();
        assert_eq!(error, MALFORMED, "not taken for parameters");
        let error = parse("postgres://db/x?application_name=me@here&password=canary").map(drop).unwrap_err();
        assert_eq!(error, MALFORMED, "not taken for a host");
    }
}
