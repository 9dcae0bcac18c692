//! Where the value of a setting comes from, and how the value is shown.
use std::{fmt, path::PathBuf};

use rollcall_base::{Secret, redacted};

use super::names::{Kind, Setting};

/// Where the value of a setting comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Origin {
    /// The command line.
    Flag,
    /// This environment variable: the setting's own variable, or its variable with `_FILE`.
    Environment(String),
    /// The settings file.
    File {
        /// The file's path.
        path: PathBuf,
        /// The line's number, from 1.
        line: usize,
    },
    /// The default, because the setting is not given.
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
    /// The setting's name and kind.
    pub setting: &'static Setting,
    /// The setting's text. `None` if the setting is not given and has no default.
    pub text: Option<Secret>,
    /// The setting's own file, if the text was read from it.
    pub file: Option<PathBuf>,
    /// Where the text comes from.
    pub origin: Origin,
}

impl SettingInUse {
    /// Returns the text without the parts that must not be shown.
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
