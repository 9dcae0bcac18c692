//! Who gave a setting, and how it is shown.
use std::{fmt, path::PathBuf};

use rollcall_base::{Secret, redacted};

use super::names::{Kind, Setting};

/// Who gave a setting.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Origin {
    /// The command line.
    Flag,
    /// This variable: the setting's own, or that with `_FILE`.
    Environment(String),
    /// The settings file.
    File {
        /// Its path.
        path: PathBuf,
        /// The line, from 1.
        line: usize,
    },
    /// Nobody: the default counts.
    Default,
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Flag => f.write_str("flag"),
            Self::Environment(name) => write!(f, "environment, {name}"),
            Self::File { path, line } => write!(f, "file, {} line {line}", path.display()),
            Self::Default => f.write_str("default"),
        }
    }
}

/// A setting as the process uses it.
#[derive(Clone, Debug)]
pub struct SettingInUse {
    /// Its name and kind.
    pub setting: &'static Setting,
    /// Its text; none where it is not given and has no default.
    pub text: Option<Secret>,
    /// The file of its own that the text was read from.
    pub file: Option<PathBuf>,
    /// Who gave it.
    pub origin: Origin,
}

impl SettingInUse {
    /// The text without what must not be shown.
    #[must_use]
    pub fn shown(&self) -> String {
        match (&self.text, self.setting.kind) {
            (None, Kind::Secret) => "not set".to_owned(),
            (Some(_), Kind::Secret) => "set".to_owned(),
            (None, _) => "none".to_owned(),
            (Some(text), kind) => match text.reveal() {
                text if kind == Kind::Address || text.contains("://") => redacted(text),
                text => text.to_owned(),
            },
        }
    }
}
