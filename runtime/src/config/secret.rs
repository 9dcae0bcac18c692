//! Text that must not be seen: keys, tokens, and addresses with a password in them.
//!
//! Invariant: neither type can be printed whole by accident; the text is had by [`Secret::reveal`] only, so that every
//! use can be found.
use std::fmt;

/// A secret. Debug shows that there is one, nothing of it.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(Box<str>);

impl Secret {
    /// Takes the text.
    #[must_use]
    pub fn new(text: impl Into<Box<str>>) -> Self {
        Self(text.into())
    }

    /// The text, for whoever signs, compares or sends it.
    #[must_use]
    pub fn reveal(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(..)")
    }
}

/// A backend's address. It shows without the user and password that it may hold.
#[derive(Clone, PartialEq, Eq)]
pub struct BackendUrl(Secret);

impl BackendUrl {
    /// Takes the text.
    #[must_use]
    pub fn new(text: impl Into<Box<str>>) -> Self {
        Self(Secret::new(text))
    }

    /// The whole address, for whoever connects.
    #[must_use]
    pub fn reveal(&self) -> &str {
        self.0.reveal()
    }
}

impl fmt::Display for BackendUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let url = self.reveal();
        let (scheme, rest) = url.split_once("://").unwrap_or(("", url));
        // A password may hold a `/`, `?` or `@` that should have been escaped: what stands before the last `@` is hidden.
        let rest = rest.rsplit_once('@').map_or(rest, |(_, rest)| rest);
        // Parameters may hold a password too.
        let rest = rest.split_once('?').map_or(rest, |(rest, _)| rest);
        write!(f, "{scheme}{}{rest}", if scheme.is_empty() { "" } else { "://" })
    }
}

impl fmt::Debug for BackendUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", self.to_string())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_of_a_secret_is_shown() {
        assert_eq!(format!("{:?}", Some(Secret::new("hunter2"))), "Some(Secret(..))");
    }

    #[test]
    fn an_address_is_shown_without_what_opens_it() {
        let shown = |url: &str| format!("{} {:?}", BackendUrl::new(url), BackendUrl::new(url));
        assert_eq!(
            shown("postgres://me:p@ss/w@db:5432/x?sslmode=disable&password=p"),
            "postgres://db:5432/x \"postgres://db:5432/x\""
        );
        assert_eq!(shown("redis://:hunter2@h/0"), "redis://h/0 \"redis://h/0\"");
        assert_eq!(shown("nats://127.0.0.1:4222"), "nats://127.0.0.1:4222 \"nats://127.0.0.1:4222\"");
    }
}
