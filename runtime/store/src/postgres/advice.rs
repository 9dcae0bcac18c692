//! Advice on what an operator must change if the server refuses connections or statements.
use rollcall_base::tls_failure;
use tokio_postgres::error::{Error, SqlState};

use super::statement_error::{GRANT, text};

/// Returns what to change, in one line, or `None` if the server may only be away.
pub(super) fn advice(error: &Error) -> Option<String> {
    if let Some(explained) = tls_failure::explain(error) {
        return Some(of_tls(explained));
    }
    let Some(refused) = error.as_db_error() else { return of_driver(error).map(str::to_owned) };
    let message = refused.message();
    let said = |part: &str| message.contains(part);
    let advice = match *refused.code() {
        SqlState::INVALID_PASSWORD => "correct the password, in DATABASE_URL or ROLLCALL_DATABASE_PASSWORD",
        SqlState::INVALID_AUTHORIZATION_SPECIFICATION if said("no pg_hba.conf entry") && said("no encryption") => {
            "let it in without TLS in pg_hba.conf, or use sslmode=require or verify-full in DATABASE_URL"
        }
        SqlState::INVALID_AUTHORIZATION_SPECIFICATION if said("no pg_hba.conf entry") => {
            "add a line to pg_hba.conf for this role, database and address"
        }
        SqlState::INVALID_AUTHORIZATION_SPECIFICATION if said("valid client certificate") => {
            "give a certificate that the server's authority signed, by sslcert and sslkey in DATABASE_URL"
        }
        SqlState::INVALID_AUTHORIZATION_SPECIFICATION if said("certificate authentication failed") => {
            "use a client certificate whose common name is the role's, or map it in pg_ident.conf"
        }
        SqlState::INVALID_AUTHORIZATION_SPECIFICATION => {
            "create the role with the right to log in, or correct its name in DATABASE_URL"
        }
        SqlState::INVALID_CATALOG_NAME => "create the database, or correct its name in DATABASE_URL",
        SqlState::INSUFFICIENT_PRIVILEGE => GRANT,
        SqlState::PROTOCOL_VIOLATION if said("unsupported startup parameter") => {
            "this is a pooler: set ROLLCALL_POSTGRES_POOLER=true"
        }
        SqlState::TOO_MANY_CONNECTIONS => "raise max_connections on the server, or lower ROLLCALL_POSTGRES_POOL",
        _ => return None,
    };
    Some(advice.to_owned())
}

/// Returns the text of a refused statement, with what to change if that is known.
pub(super) fn text_with_advice(error: &Error) -> String {
    match advice(error) {
        Some(advice) => format!("{}: {advice}", text(error)),
        None => text(error),
    }
}

/// Returns the general text about TLS, with this server's parameters added.
fn of_tls(explained: String) -> String {
    explained
        .replace("to the CA file", "to the file of sslrootcert in DATABASE_URL")
        .replace("give one with its key", "give one by sslcert and sslkey in DATABASE_URL")
        .replace("or issue one for this name", "issue one for this name, or use sslmode=verify-ca")
}

/// Returns the refusals of tokio-postgres itself, which have texts and no types.
fn of_driver(error: &Error) -> Option<&'static str> {
    let cause = std::error::Error::source(error)?.to_string();
    const KNOWN: [(&str, &str); 3] = [
        (
            "server does not support TLS",
            "switch TLS on at the server (ssl = on), or use sslmode=prefer or disable in DATABASE_URL",
        ),
        ("password missing", "give the password, in DATABASE_URL or ROLLCALL_DATABASE_PASSWORD"),
        (
            "did not use channel binding",
            "let the server use scram-sha-256 over TLS, or leave channel_binding out of DATABASE_URL",
        ),
    ];
    KNOWN.into_iter().find(|(part, _)| cause.contains(part)).map(|(_, advice)| advice)
}
