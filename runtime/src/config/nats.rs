//! Settings of NATS: its address, this process's credentials, and the stream.
use std::{str::FromStr, time::Duration};

use async_nats::ServerAddr;
use rollcall_base::{BackendUrl, RotatingSecret};
use rollcall_bus::nats::{DUPLICATE_WINDOW, NatsOptions, StreamOptions, check_credentials};

use super::{
    address::{backend, client_tls},
    names,
    source::{Given, Source},
    value,
};

/// Reads the settings. Returns `None` if events stay in the process.
pub(super) fn read(source: &mut Source<'_>) -> Option<NatsOptions> {
    let url = source.address(&names::NATS_URL, url);
    let credentials = source.address(&names::NATS_CREDS, credentials);
    let tls = client_tls(source, [&names::NATS_CA_FILE, &names::NATS_CERT, &names::NATS_KEY]);
    let tls_first = source.value(&names::NATS_TLS_FIRST, value::switch);
    let domain = source.optional(&names::NATS_DOMAIN, token);
    let stream = StreamOptions {
        name: source.value(&names::STREAM, token),
        replicas: source.value(&names::STREAM_REPLICAS, replicas),
        max_age: source.value(&names::STREAM_MAX_AGE, max_age),
        max_bytes: source.optional(&names::STREAM_MAX_BYTES, value::size).map(|bytes| bytes as u64),
        in_memory: source.value(&names::STREAM_STORAGE, in_memory),
    };
    Some(NatsOptions { credentials, tls, tls_first, domain, stream, ..NatsOptions::new(url?) })
}

/// Reads `nats://...`, or several such addresses separated by commas.
fn url(given: &Given) -> Result<BackendUrl, String> {
    backend(&names::NATS_URL, given, |text| {
        // The library accepts other schemes, too, but cannot connect with them.
        let known = |part: &str| ["nats://", "tls://"].iter().any(|scheme| part.starts_with(scheme));
        let has_host = |part: &str| ServerAddr::from_str(part).is_ok_and(|address| !address.host().is_empty());
        let is_address = |part: &str| known(part) && has_host(part);
        if text.split(',').all(|part| is_address(part.trim())) {
            Ok(())
        } else {
            Err("write nats://HOST:4222 or tls://HOST:4222, several separated by commas".into())
        }
    })
}

fn credentials(given: &Given) -> Result<RotatingSecret, String> {
    check_credentials(&given.text)?;
    Ok(match &given.file {
        Some(path) => RotatingSecret::in_file(&given.text, names::NATS_CREDS.name, path.clone(), check_credentials),
        None => RotatingSecret::new(given.text.as_str()),
    })
}

/// Reads a name that can be a token in a subject.
fn token(text: &str) -> Result<String, String> {
    let known = |byte: u8| byte.is_ascii_alphanumeric() || b"-_".contains(&byte);
    if (1..=64).contains(&text.len()) && text.bytes().all(known) {
        Ok(text.to_owned())
    } else {
        Err(format!("{text:?} is not a name of 1 to 64 of A-Z a-z 0-9 - _"))
    }
}

fn replicas(text: &str) -> Result<usize, String> {
    match value::count(1)(text)? {
        replicas @ 1..=5 => Ok(replicas),
        _ => Err(format!("{text:?} is too many: JetStream has 5 at most, and 3 are enough")),
    }
}

fn max_age(text: &str) -> Result<Duration, String> {
    match value::duration(text)? {
        age if age < DUPLICATE_WINDOW => {
            Err(format!("{text:?} is too short: message ids are kept for 2m, so 2m at least"))
        }
        age => Ok(age),
    }
}

fn in_memory(text: &str) -> Result<bool, String> {
    match text {
        "file" => Ok(false),
        "memory" => Ok(true),
        _ => Err(format!("{text:?} is neither file nor memory")),
    }
}
