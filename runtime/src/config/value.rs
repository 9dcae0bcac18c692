//! Parsers of settings. An error says what to write instead, and never repeats a text that may be secret.
use std::{net::SocketAddr, str::FromStr, time::Duration};

use hyper::{Uri, header::HeaderName};
use rollcall_schema::Audience;

use crate::auth::Location;
use rollcall_base::redacted;
use rollcall_websocket::Origins;

/// Reads an address to listen on.
pub(super) fn address(text: &str) -> Result<SocketAddr, String> {
    let numeric = text.strip_prefix("localhost:").map(|port| format!("127.0.0.1:{port}"));
    let numeric = numeric.as_deref().unwrap_or(text);
    numeric.parse().map_err(|_| format!("{text:?} is not an address and port, like 127.0.0.1:8080 or [::]:8080"))
}

/// Reads a host's name without a port, and returns it in lower case.
pub(super) fn host_name(text: &str) -> Result<String, String> {
    let known = |byte: u8| byte.is_ascii_alphanumeric() || b".-_".contains(&byte);
    if text.bytes().all(known) && !text.is_empty() {
        Ok(text.to_ascii_lowercase())
    } else {
        Err(format!("{text:?} is not a host's name without a port, like rollcall.example"))
    }
}

/// Reads a node's label. A pod's name is valid.
pub(super) fn node_label(text: &str) -> Result<String, String> {
    let known = |byte: u8| byte.is_ascii_alphanumeric() || b".-_".contains(&byte);
    let valid = !text.is_empty() && text.len() <= 128 && text.bytes().all(known);
    if valid { Ok(text.to_owned()) } else { Err("use 1 to 128 of A-Z a-z 0-9 . - _".into()) }
}

/// The longest duration. A time that is much later is none that a clock can tell.
const LONGEST: Duration = Duration::from_secs(100 * 365 * 24 * 60 * 60);

/// Reads a duration, like `15s`, `500ms` or `5m`.
pub(super) fn duration(text: &str) -> Result<Duration, String> {
    match humantime::parse_duration(text) {
        Ok(duration) if duration > LONGEST => Err(format!("{text:?} is longer than 100 years")),
        Ok(duration) => Ok(duration),
        Err(_) => Err(format!("{text:?} is not a duration, like 15s or 500ms")),
    }
}

/// Reads a duration that must not be zero.
pub(super) fn time_limit(text: &str) -> Result<Duration, String> {
    match duration(text)? {
        Duration::ZERO => Err("must be longer than 0s".into()),
        limit => Ok(limit),
    }
}

/// Reads a number of bytes, like `65536`, `64KiB` or `1MiB`.
pub(super) fn size(text: &str) -> Result<usize, String> {
    let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let unit: usize = match unit.trim() {
        "" | "B" => 1,
        "KiB" | "K" => 1 << 10,
        "MiB" | "M" => 1 << 20,
        "GiB" | "G" => 1 << 30,
        _ => 0,
    };
    let bytes = number.parse::<usize>().ok().and_then(|number| number.checked_mul(unit));
    bytes.filter(|bytes| *bytes > 0).ok_or_else(|| format!("{text:?} is not a number of bytes, like 65536 or 64KiB"))
}

/// Reads a whole number of at least `min`.
pub(super) fn count<T: FromStr + PartialOrd + std::fmt::Display>(min: T) -> impl Fn(&str) -> Result<T, String> {
    move |text| {
        let number = text.parse().ok().filter(|number| *number >= min);
        number.ok_or_else(|| format!("{text:?} is not a whole number from {min}"))
    }
}

/// Reads a number of threads.
pub(super) fn threads(text: &str) -> Result<usize, String> {
    count(0)(text).and_then(|threads| if threads <= 1024 { Ok(threads) } else { Err("is at most 1024".into()) })
}

/// Reads a rate per second.
pub(super) fn rate(text: &str) -> Result<u32, String> {
    count(1)(text).and_then(|rate: u32| if rate <= 1_000_000 { Ok(rate) } else { Err("is at most 1000000".into()) })
}

/// Reads a number from 0 to 1.
pub(super) fn fraction(text: &str) -> Result<f64, String> {
    let number = text.parse().ok().filter(|number| (0.0..=1.0).contains(number));
    number.ok_or_else(|| format!("{text:?} is not a number from 0 to 1"))
}

/// Reads `true` or `false`.
pub(super) fn switch(text: &str) -> Result<bool, String> {
    match text {
        "true" | "1" | "yes" | "on" => Ok(true),
        "false" | "0" | "no" | "off" => Ok(false),
        _ => Err(format!("{text:?} is neither true nor false")),
    }
}

/// Reads texts separated by commas.
pub(super) fn list<T>(text: &str, item: impl Fn(&str) -> Result<T, String>) -> Result<Vec<T>, String> {
    text.split(',').map(str::trim).filter(|part| !part.is_empty()).map(item).collect()
}

/// Reads an audience.
pub(super) fn audience(text: &str) -> Result<Audience, String> {
    Audience::parse(text).map_err(|_| format!("{text:?} is not a DNS name"))
}

/// Reads a prefix of keys, which must not have characters that would change the meaning of a key.
pub(super) fn prefix(text: &str) -> Result<String, String> {
    let fine = |b: u8| b.is_ascii_alphanumeric() || b"_-:./{}".contains(&b);
    let short = text.len() <= 64 && text.bytes().all(fine);
    if short { Ok(text.to_owned()) } else { Err("use at most 64 of A-Z a-z 0-9 _ - : . / { }".into()) }
}

/// Reads an address of `http` or `https` for requests. The address must not contain a user, because the address is
/// logged and a user in it would not be sent.
pub(super) fn http(text: &str) -> Result<Uri, String> {
    let uri = Uri::from_str(text).ok().filter(|uri| uri.host().is_some_and(|host| !host.is_empty()));
    uri.filter(|uri| matches!(uri.scheme_str(), Some("http" | "https")))
        .filter(|uri| uri.authority().is_some_and(|authority| !authority.as_str().contains('@')))
        .ok_or_else(|| "write http://HOST/PATH or https://HOST/PATH, without a user or password".into())
}

/// Reads `*`, or the origins of pages and apps, like `https://school.example` or `capacitor://localhost`.
pub(super) fn origins(text: &str) -> Result<Origins, String> {
    if text == "*" {
        return Ok(Origins::Any);
    }
    list(text, origin).map(Origins::Listed)
}

/// Reads an origin, and returns it as browsers send it: without the default port of its scheme.
fn origin(text: &str) -> Result<String, String> {
    let is_scheme = |scheme: &str| {
        let others = |b: u8| b.is_ascii_alphanumeric() || b"+-.".contains(&b);
        scheme.starts_with(|c: char| c.is_ascii_alphabetic()) && scheme.bytes().all(others)
    };
    let is_host = |host: &str| {
        !host.is_empty() && host.bytes().all(|b| b.is_ascii_graphic()) && !host.contains(['/', '?', '#', '@', '*'])
    };
    match text.split_once("://") {
        Some((scheme, host)) if is_scheme(scheme) && is_host(host) => {
            let usual = [("https", ":443"), ("http", ":80")].into_iter().find(|(known, _)| *known == scheme);
            let host = usual.and_then(|(_, port)| host.strip_suffix(port)).unwrap_or(host);
            Ok(format!("{scheme}://{host}"))
        }
        _ => Err(format!("{text:?} is not an origin, like https://school.example or capacitor://localhost")),
    }
}

/// Reads a path, and returns it without its last slash. Returns `None` if the path is empty or `off`.
pub(super) fn path(text: &str) -> Result<Option<String>, String> {
    let known = |byte: u8| byte.is_ascii_alphanumeric() || b"/.-_~".contains(&byte);
    let path = text.strip_suffix('/').unwrap_or(text);
    match path {
        "off" => Ok(None),
        "" if text.is_empty() => Ok(None),
        "/ws" | "/healthz" => Err("is served already".into()),
        path if path.starts_with('/') && path.bytes().all(known) => Ok(Some(path.to_owned())),
        _ => Err(format!("{text:?} is not a path, like /socket.io/")),
    }
}

/// Reads a namespace of Socket.IO: `/`, or `/` and a name.
pub(super) fn namespace(text: &str) -> Result<Box<str>, String> {
    let known = |byte: u8| byte.is_ascii_alphanumeric() || b"/.-_~".contains(&byte);
    let valid = text.starts_with('/') && text.len() <= 64 && text.bytes().all(known);
    if valid { Ok(text.into()) } else { Err(format!("{text:?} is not a namespace, like / or /teachers")) }
}

/// Reads a header's name.
pub(super) fn header(text: &str) -> Result<HeaderName, String> {
    HeaderName::from_str(text).map_err(|_| format!("{text:?} is not a header's name"))
}

/// Returns whether a text can be a bearer token in a header.
pub(super) fn is_bearer(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|b| b.is_ascii_graphic())
}

/// Returns how many files this process may open. The function raises the limit as far as allowed, because shells set
/// 1,024 for old programs.
pub(super) fn open_files() -> usize {
    use nix::sys::resource::{Resource, getrlimit, setrlimit};
    let limits =
        getrlimit(Resource::RLIMIT_NOFILE).map(|(soft, hard)| match setrlimit(Resource::RLIMIT_NOFILE, hard, hard) {
            Ok(()) => hard,
            Err(_) => soft,
        });
    // If the system does not say, connections are refused when the system's limit is reached.
    limits.map_or(usize::MAX, |limit| usize::try_from(limit).unwrap_or(usize::MAX))
}

/// Reads `ISSUER=FILE-OR-URL`.
pub(super) fn issuer(text: &str) -> Result<(String, Location), String> {
    let (issuer, place) = text.split_once('=').unwrap_or((text, ""));
    let (issuer, place) = (issuer.trim(), place.trim());
    if issuer.is_empty() || place.is_empty() {
        return Err(format!("{:?} is not ISSUER=FILE-OR-URL", redacted(text)));
    }
    let remote = place.starts_with("http://") || place.starts_with("https://");
    let location = if remote { Location::Url(http(place)?) } else { Location::File(place.into()) };
    Ok((issuer.to_owned(), location))
}
