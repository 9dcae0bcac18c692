//! A secret that may be in a file which is replaced while the process runs, as Vault and providers of short-lived
//! passwords replace it.
//!
//! Invariant: each new connection asks [`RotatingSecret::current`], so the next connection uses a new text. A file that
//! cannot be used changes nothing, as [`Reloaded`] says.
use std::{
    fmt,
    path::{Path, PathBuf},
    sync::Arc,
};

use super::{Secret, file, reloaded::Reloaded};

/// Checks a text. The error says what is wrong, and repeats no part of the text.
pub type Check = fn(&str) -> Result<(), String>;

/// A secret that may change. Clones share the last text that was read.
#[derive(Clone)]
pub struct RotatingSecret {
    /// The text as it was at the start.
    initial: Secret,
    file: Option<Arc<SecretFile>>,
}

struct SecretFile {
    path: PathBuf,
    check: Check,
    last: Reloaded<Secret>,
}

impl RotatingSecret {
    /// Creates a secret that does not change.
    #[must_use]
    pub fn new(text: impl Into<Box<str>>) -> Self {
        Self { initial: Secret::new(text), file: None }
    }

    /// Creates a secret in a file that is read again for each connection. `text` is what the file contained at the
    /// start, and `variable` the setting's name.
    #[must_use]
    pub fn in_file(text: &str, variable: &'static str, path: PathBuf, check: Check) -> Self {
        let initial = Secret::new(text);
        let last = Reloaded::new(format!("{variable}_FILE={}", path.display()), initial.clone());
        Self { initial, file: Some(Arc::new(SecretFile { path, check, last })) }
    }

    /// Returns the text as it was at the start.
    #[must_use]
    pub fn initial(&self) -> &Secret {
        &self.initial
    }

    /// Returns the text as it is now. Reading the file takes a quarter of a second at most.
    pub async fn current(&self) -> Secret {
        let Some(file) = &self.file else { return self.initial.clone() };
        let (path, check) = (file.path.clone(), file.check);
        file.last.current(move |last| Ok(Some(read(&path, check)?).filter(|text| text != last))).await
    }
}

fn read(path: &Path, check: Check) -> Result<Secret, String> {
    // The error repeats no part of the file.
    let text = file::read_text(path).map_err(|error| error.to_string())?;
    match text.trim() {
        "" => Err("it is empty".to_owned()),
        text => check(text).map(|()| Secret::new(text)),
    }
}

impl PartialEq for RotatingSecret {
    fn eq(&self, other: &Self) -> bool {
        self.initial == other.initial
    }
}

impl Eq for RotatingSecret {}

impl fmt::Debug for RotatingSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.initial.fmt(f)
    }
}
