//! The address of a backend. It may contain a password, and may be in a file that is replaced while the process runs.
//!
//! Invariant: it is never shown with its password. Each new connection asks [`BackendUrl::current`], so a password that
//! was rotated in the file is used from the next connection on. A file that cannot be used (missing, empty, or not an
//! address, as may happen while it is replaced) changes nothing: the last good text stays in use, and the problem is
//! logged once.
use std::{
    fmt,
    path::PathBuf,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use tokio::{task::spawn_blocking, time::timeout};
use tracing::{info, warn};

use super::Secret;

/// How long a read of the file may take: a network file system that hangs delays a connection by no more.
const READ: Duration = Duration::from_millis(250);

/// Checks that a text is an address of this backend; the error says what is wrong.
pub type Check = fn(&str) -> Result<(), String>;

/// A backend's address. It is displayed without user and password. Clones share what was read last.
#[derive(Clone)]
pub struct BackendUrl {
    /// The text at the start.
    initial: Secret,
    file: Option<Arc<AddressFile>>,
}

/// The file that the address is read from again.
struct AddressFile {
    /// The setting's name, without `_FILE`.
    variable: &'static str,
    path: PathBuf,
    check: Check,
    last: Mutex<Last>,
    /// Held during a read: on a file system that hangs, one thread waits, not one for each connection.
    reading: Arc<tokio::sync::Mutex<()>>,
}

struct Last {
    good: Secret,
    /// What was wrong with the file at the last read; none: it was good.
    problem: Option<String>,
}

impl BackendUrl {
    /// An address that does not change.
    #[must_use]
    pub fn new(text: impl Into<Box<str>>) -> Self {
        Self { initial: Secret::new(text), file: None }
    }

    /// An address that was read from this file, and is read again for each connection.
    #[must_use]
    pub fn in_file(text: &str, variable: &'static str, path: PathBuf, check: Check) -> Self {
        let initial = Secret::new(text);
        let last = Mutex::new(Last { good: initial.clone(), problem: None });
        let reading = Arc::default();
        Self { initial, file: Some(Arc::new(AddressFile { variable, path, check, last, reading })) }
    }

    /// The whole address at the start. Its password may have been replaced since: to connect, use [`Self::current`].
    #[must_use]
    pub fn reveal(&self) -> &str {
        self.initial.reveal()
    }

    /// The whole address as it is now, to connect with. Waits for the file for a quarter of a second at most.
    pub async fn current(&self) -> Secret {
        let Some(file) = &self.file else { return self.initial.clone() };
        let reader = Arc::clone(file);
        let read = async {
            let alone = Arc::clone(&reader.reading).lock_owned().await;
            let read = move || {
                let _alone = alone;
                reader.read()
            };
            spawn_blocking(read).await
        };
        let text = match timeout(READ, read).await {
            Ok(Ok(text)) => text,
            Ok(Err(_)) => Err("reading it panicked".to_owned()),
            Err(_) => Err(format!("it was not read within {READ:?}")),
        };
        file.keep(text)
    }
}

impl AddressFile {
    fn read(&self) -> Result<Secret, String> {
        // The error's text contains nothing of the file.
        let text = std::fs::read_to_string(&self.path).map_err(|error| error.to_string())?;
        match text.trim() {
            "" => Err("it is empty".to_owned()),
            text => (self.check)(text).map(|()| Secret::new(text)),
        }
    }

    /// Keeps a good text, and logs what has changed.
    fn keep(&self, text: Result<Secret, String>) -> Secret {
        // Its fields are consistent after any panic.
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        let file = self.path.display();
        match text {
            Ok(text) => {
                if last.problem.take().is_some() {
                    info!(setting = self.variable, %file, "the address's file can be read again");
                }
                if text != last.good {
                    info!(setting = self.variable, %file, "the address was replaced; new connections use the new one");
                    last.good = text;
                }
            }
            Err(problem) => {
                if last.problem.as_ref() != Some(&problem) {
                    warn!(setting = self.variable, %file, problem, "the last good address stays in use");
                    last.problem = Some(problem);
                }
            }
        }
        last.good.clone()
    }
}

impl<T: Into<Box<str>>> From<T> for BackendUrl {
    fn from(text: T) -> Self {
        Self::new(text)
    }
}

impl PartialEq for BackendUrl {
    fn eq(&self, other: &Self) -> bool {
        self.initial == other.initial
    }
}

impl Eq for BackendUrl {}

impl fmt::Display for BackendUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let url = self.reveal();
        let (scheme, rest) = url.split_once("://").unwrap_or(("", url));
        // A password may contain a `/`, `?` or `@` that should have been escaped: all text before the last `@` is hidden.
        let rest = rest.rsplit_once('@').map_or(rest, |(_, rest)| rest);
        // Parameters may contain a password too.
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
    use std::fs;

    use super::*;

    #[test]
    fn an_address_is_shown_without_its_password() {
        let shown = |url: &str| format!("{} {:?}", BackendUrl::new(url), BackendUrl::new(url));
        assert_eq!(
            shown("postgres://me:p@ss/w@db:5432/x?sslmode=disable&password=p"),
            "postgres://db:5432/x \"postgres://db:5432/x\""
        );
        assert_eq!(shown("redis://:hunter2@h/0"), "redis://h/0 \"redis://h/0\"");
        assert_eq!(shown("nats://127.0.0.1:4222"), "nats://127.0.0.1:4222 \"nats://127.0.0.1:4222\"");
    }

    #[tokio::test]
    async fn an_address_in_a_file_is_read_again_and_the_last_good_one_stays_in_use() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("url");
        let check: Check = |text| if text.contains("://") { Ok(()) } else { Err("not an address".into()) };
        fs::write(&path, "redis://:old@h\n").unwrap();
        let url = BackendUrl::in_file("redis://:old@h", "REDIS_URL", path.clone(), check);
        assert_eq!(url.current().await.reveal(), "redis://:old@h");

        // As a volume of secrets is updated: another file gets the name.
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
