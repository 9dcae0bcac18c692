//! The text of a setting: from its flag, else its variable, else the file that `_FILE` names, else its default.
//!
//! Invariant: reading goes on after a fault, so one start reports all of them.
use std::{ffi::OsString, fmt, fs, path::PathBuf};

use clap::ArgMatches;

use rollcall_base::Secret;

use super::names::{Kind, Setting};

/// The environment variables of the process, or of a test.
pub type Environment<'a> = &'a dyn Fn(&str) -> Option<OsString>;

/// What is wrong with one setting.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    /// The variable.
    pub name: &'static str,
    /// What is wrong, and what to write instead.
    pub problem: String,
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.name, self.problem)
    }
}

/// A setting's text, and the file that it came from.
pub(super) struct Given {
    pub(super) text: String,
    pub(super) file: Option<PathBuf>,
}

impl From<String> for Given {
    fn from(text: String) -> Self {
        Self { text, file: None }
    }
}

/// Reads settings and collects faults.
pub(super) struct Source<'a> {
    flags: &'a ArgMatches,
    environment: Environment<'a>,
    pub(super) faults: Vec<Fault>,
}

impl<'a> Source<'a> {
    pub(super) fn new(flags: &'a ArgMatches, environment: Environment<'a>) -> Self {
        Self { flags, environment, faults: Vec::new() }
    }

    pub(super) fn fault(&mut self, setting: &Setting, problem: impl Into<String>) {
        self.faults.push(Fault { name: setting.name, problem: problem.into() });
    }

    /// A setting's value, where it is given or has a default; `None` after a fault.
    pub(super) fn optional<T>(&mut self, setting: &Setting, read: impl Fn(&str) -> Result<T, String>) -> Option<T> {
        self.address(setting, |given| read(&given.text))
    }

    /// As [`Self::optional`], for a value that keeps the file that it was read from.
    pub(super) fn address<T>(&mut self, setting: &Setting, read: impl Fn(&Given) -> Result<T, String>) -> Option<T> {
        let given = self.given(setting)?;
        match read(&given) {
            Ok(value) => Some(value),
            Err(problem) => {
                self.fault(setting, problem);
                None
            }
        }
    }

    /// The value of a setting that has a default; the default after a fault.
    pub(super) fn value<T>(&mut self, setting: &Setting, read: impl Fn(&str) -> Result<T, String>) -> T {
        self.address_or_default(setting, |given| read(&given.text))
    }

    /// As [`Self::value`], for a value that keeps the file that it was read from.
    pub(super) fn address_or_default<T>(&mut self, setting: &Setting, read: impl Fn(&Given) -> Result<T, String>) -> T {
        let default = || setting.default.and_then(|text| read(&text.to_owned().into()).ok());
        self.address(setting, &read).or_else(default).expect("its default can be read")
    }

    /// A secret.
    pub(super) fn secret(&mut self, setting: &Setting) -> Option<Secret> {
        self.given(setting).map(|given| Secret::new(given.text))
    }

    fn given(&mut self, setting: &Setting) -> Option<Given> {
        let flag = setting.flag().and_then(|flag| self.flags.get_one::<String>(&flag).cloned());
        let text = flag.or_else(|| self.variable(setting, setting.name));
        let given = text.map(Given::from).or_else(|| self.file(setting));
        given.or_else(|| setting.default.map(|text| text.to_owned().into()))
    }

    /// An empty variable is not given: that is how compose files and charts leave it out.
    fn variable(&mut self, setting: &Setting, name: &str) -> Option<String> {
        let text = (self.environment)(name)?.into_string();
        if text.is_err() {
            self.fault(setting, "is not UTF-8");
        }
        text.ok().filter(|text| !text.is_empty())
    }

    fn file(&mut self, setting: &Setting) -> Option<Given> {
        if setting.kind == Kind::Plain {
            return None;
        }
        let path = self.variable(setting, &format!("{}_FILE", setting.name))?;
        match fs::read_to_string(&path) {
            Ok(text) if !text.trim().is_empty() => {
                Some(Given { text: text.trim().to_owned(), file: Some(path.into()) })
            }
            Ok(_) => {
                self.fault(setting, format!("the file {path} is empty"));
                None
            }
            Err(error) => {
                self.fault(setting, format!("cannot read the file {path}: {error}"));
                None
            }
        }
    }
}
