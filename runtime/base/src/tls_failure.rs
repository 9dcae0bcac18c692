//! Explains a failed TLS handshake with a server, and says what to change.
//!
//! Invariant: a text is one line without the server's address, because the caller adds it.
use std::{error::Error, io, time::Duration};

use rustls::{AlertDescription, CertificateError, Error as TlsError};

const DAY: u64 = 24 * 60 * 60;

/// Returns what a failed handshake means, and what to change, in one line, or `None` if the error is of another kind.
/// The function looks through the error's causes.
#[must_use]
pub fn explain(error: &(dyn Error + 'static)) -> Option<String> {
    let mut next = Some(error);
    while let Some(error) = next {
        if let Some(error) = error.downcast_ref::<TlsError>() {
            return Some(of(error));
        }
        // `io::Error::source` skips the error that is inside, and returns that error's cause.
        let inner = error.downcast_ref::<io::Error>().and_then(io::Error::get_ref);
        next = inner.map(|inner| inner as &(dyn Error + 'static)).or_else(|| error.source());
    }
    None
}

fn of(error: &TlsError) -> String {
    match error {
        TlsError::InvalidCertificate(error) => of_certificate(error),
        TlsError::AlertReceived(alert) => of_alert(*alert),
        TlsError::InvalidMessage(_) => {
            "it does not speak TLS here: correct the port, or connect without TLS".to_owned()
        }
        TlsError::PeerIncompatible(why) => {
            format!("it has no version or cipher of TLS that is safe ({why:?}): let it speak TLS 1.2 or later")
        }
        error => format!("the TLS handshake failed: {error}"),
    }
}

fn of_certificate(error: &CertificateError) -> String {
    match error {
        CertificateError::UnknownIssuer => {
            "its certificate is signed by no authority that is trusted here: add that authority's certificate to the CA file"
                .to_owned()
        }
        // This error occurs if an authority was created again under its old name.
        CertificateError::BadSignature => {
            "its certificate is signed by another authority than the trusted one of that name: add that authority's certificate to the CA file"
                .to_owned()
        }
        CertificateError::Expired => "its certificate has expired: renew it on the server".to_owned(),
        CertificateError::ExpiredContext { time, not_after } => {
            let since = Duration::from_secs(time.as_secs().saturating_sub(not_after.as_secs()));
            format!("its certificate expired {} ago: renew it on the server", days(since))
        }
        CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => {
            "its certificate is not valid yet: set the clocks of both machines".to_owned()
        }
        CertificateError::NotValidForNameContext { expected, presented } => {
            let names = match presented.as_slice() {
                [] => "no name (it has no subjectAltName)".to_owned(),
                names => names.iter().map(|name| plain(name)).collect::<Vec<_>>().join(", "),
            };
            format!(
                "its certificate is for {names}, not for {}: connect by a name of the certificate, or issue one for this name",
                expected.to_str()
            )
        }
        CertificateError::Other(_) => {
            let why = TlsError::InvalidCertificate(error.clone());
            format!("{why}: issue a certificate of version 3 that is no authority's own (CA:FALSE)")
        }
        error => format!("its certificate cannot be used ({error}): issue another one"),
    }
}

fn of_alert(alert: AlertDescription) -> String {
    match alert {
        AlertDescription::CertificateRequired => "it asks for a client certificate: give one with its key",
        AlertDescription::UnknownCA => {
            "it does not trust the authority of this client's certificate: add it on the server"
        }
        AlertDescription::CertificateExpired => "this client's certificate has expired: renew it",
        AlertDescription::CertificateRevoked => "this client's certificate was revoked: use another one",
        AlertDescription::BadCertificate | AlertDescription::UnsupportedCertificate => {
            "it refuses this client's certificate: issue one for clients (extendedKeyUsage clientAuth)"
        }
        alert => return format!("it ended the TLS handshake ({alert:?}): its log says why"),
    }
    .to_owned()
}

/// Returns the name in a text such as `DnsName("db.example")`, which is how the library writes a name with its kind.
fn plain(name: &str) -> &str {
    let inner = name.split_once('(').and_then(|(_, rest)| rest.strip_suffix(')'));
    inner.unwrap_or(name).trim_matches('"')
}

fn days(time: Duration) -> String {
    match time.as_secs() / DAY {
        0 => "less than a day".to_owned(),
        1 => "1 day".to_owned(),
        days => format!("{days} days"),
    }
}

#[cfg(test)]
mod tests {
    use rustls::pki_types::{ServerName, UnixTime};

    use super::*;

    fn explained(error: TlsError) -> String {
        explain(&io::Error::other(io::Error::other(error))).unwrap()
    }

    #[test]
    fn a_failed_handshake_says_what_to_change() {
        let expired = CertificateError::ExpiredContext {
            time: UnixTime::since_unix_epoch(Duration::from_secs(10 * DAY)),
            not_after: UnixTime::since_unix_epoch(Duration::from_secs(7 * DAY)),
        };
        assert_eq!(explained(expired.into()), "its certificate expired 3 days ago: renew it on the server");
        let name = CertificateError::NotValidForNameContext {
            expected: ServerName::try_from("localhost").unwrap(),
            presented: vec!["DnsName(\"db.example\")".to_owned()],
        };
        assert!(explained(name.into()).starts_with("its certificate is for db.example, not for localhost:"));
        assert!(explained(CertificateError::UnknownIssuer.into()).contains("CA file"));
        let alert = TlsError::AlertReceived(AlertDescription::CertificateRequired);
        assert!(explained(alert).contains("client certificate"));
    }

    #[test]
    fn another_error_is_not_explained() {
        assert_eq!(explain(&io::Error::other("reset")), None);
        assert_eq!(explain(&io::Error::from(io::ErrorKind::ConnectionReset)), None);
    }
}
