//! The address of a backend. It may contain a password, and may come from a file that is replaced while the process
//! runs.
//!
//! Invariant: an address is never shown with its password.
use std::{fmt, path::PathBuf};

use super::{
    Secret, redacted,
    rotating_secret::{Check, RotatingSecret},
};

/// A backend's address. It is displayed without user and password. Clones share the last text that was read.
#[derive(Clone, PartialEq, Eq)]
pub struct BackendUrl(RotatingSecret);

impl BackendUrl {
    /// Creates an address that does not change.
    #[must_use]
    pub fn new(text: impl Into<Box<str>>) -> Self {
        Self(RotatingSecret::new(text))
    }

    /// Creates an address in a file that is read again for each connection; `text` is what the file contained at the
    /// start.
    #[must_use]
    pub fn in_file(text: &str, variable: &'static str, path: PathBuf, check: Check) -> Self {
        Self(RotatingSecret::in_file(text, variable, path, check))
    }

    /// Returns the whole address as it was at the start. Its password may have changed since, so use [`Self::current`]
    /// to connect.
    #[must_use]
    pub fn reveal(&self) -> &str {
        self.0.initial().reveal()
    }

    /// Returns the whole address as it is now, to connect with. Reading the file takes a quarter of a second at most.
    pub async fn current(&self) -> Secret {
        self.0.current().await
    }
}

impl<T: Into<Box<str>>> From<T> for BackendUrl {
    fn from(text: T) -> Self {
        Self::new(text)
    }
}

impl fmt::Display for BackendUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&redacted(self.reveal()))
    }
}

impl fmt::Debug for BackendUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", self.to_string())
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn an_address_is_shown_without_its_password() {
        let url = BackendUrl::new("redis://:hunter2@h/0");
        assert_eq!(format!("{url} {url:?}"), "redis://h/0 \"redis://h/0\"");
    }

    #[tokio::test]
    async fn an_address_in_a_file_is_read_again_and_the_last_good_one_stays_in_use() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("url");
        let check: Check = |text| if text.contains("://") { Ok(()) } else { Err("not an address".into()) };
        fs::write(&path, "redis://:old@h\n").unwrap();
        let url = BackendUrl::in_file("redis://:old@h", "REDIS_URL", path.clone(), check);
        assert_eq!(url.current().await.reveal(), "redis://:old@h");

        // The file is replaced by a rename, as in a volume of secrets.
        let next = folder.path().join("next");
        fs::write(&next, "redis://:new@h\n").unwrap();
        fs::rename(&next, &path).unwrap();
        assert_eq!(url.clone().current().await.reveal(), "redis://:new@h");

        fs::write(&path, "redis:").unwrap();
        assert_eq!(url.current().await.reveal(), "redis://:new@h", "half written");
        fs::write(&path, " \n").unwrap();
        assert_eq!(url.current().await.reveal(), "redis://:new@h", "empty");
        fs::remove_file(&path).unwrap();
        assert_eq!(url.current().await.reveal(), "redis://:new@h", "gone");

        fs::write(&path, "redis://:newest@h").unwrap();
        assert_eq!(url.current().await.reveal(), "redis://:newest@h");
        assert!(!format!("{url} {url:?}").contains("new"));
        assert_eq!(BackendUrl::new("redis://h").current().await.reveal(), "redis://h");
    }
}
