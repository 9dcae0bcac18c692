//! Finds the text of a setting: in its flag, or else its variable, the file that `NAME_FILE` names, the settings file,
//! or its default.
//!
//! Invariant: reading goes on after a fault, so one start reports every fault. A text is read once, even if several
//! options are made from it.
use std::{collections::BTreeMap, ffi::OsString, fmt, path::PathBuf};

use clap::ArgMatches;

use rollcall_base::{Secret, file};

use super::{
    names::{self, Setting},
    origin::{Origin, SettingInUse},
    settings_file::{self, Entries},
};

/// The environment variables of the process or of a test.
pub type Environment<'a> = &'a dyn Fn(&str) -> Option<OsString>;

/// The fault of one setting.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    /// The name of the setting's variable.
    pub name: &'static str,
    /// What is wrong, and what to write instead.
    pub problem: String,
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.name, self.problem)
    }
}

/// A setting's text, its own file if the text was read from there, and where the text comes from.
#[derive(Clone)]
pub(super) struct Given {
    pub(super) text: String,
    pub(super) file: Option<PathBuf>,
    pub(super) origin: Origin,
}

impl From<String> for Given {
    fn from(text: String) -> Self {
        Self { text, file: None, origin: Origin::Default }
    }
}

/// Reads settings and collects faults.
pub(super) struct Source<'a> {
    flags: &'a ArgMatches,
    environment: Environment<'a>,
    /// The settings file's path and its entries.
    file: Option<(PathBuf, Entries)>,
    given: BTreeMap<&'static str, Given>,
    pub(super) faults: Vec<Fault>,
}

impl<'a> Source<'a> {
    /// Finds the text of every setting.
    pub(super) fn new(flags: &'a ArgMatches, environment: Environment<'a>) -> Self {
        let mut source = Self { flags, environment, file: None, given: BTreeMap::new(), faults: Vec::new() };
        // The settings file is found first, because the other settings may be in it.
        let others = names::ALL.iter().filter(|setting| setting.name != names::CONFIG.name);
        for setting in [&names::CONFIG].into_iter().chain(others) {
            if let Some(given) = source.find(setting) {
                source.given.insert(setting.name, given);
            }
            if setting.name == names::CONFIG.name {
                source.file = source.settings_file();
            }
        }
        source
    }

    /// Adds a fault. If the setting is in the settings file, the fault names the line.
    pub(super) fn fault(&mut self, setting: &Setting, problem: impl Into<String>) {
        let place = match self.given.get(setting.name).map(|given| &given.origin) {
            Some(Origin::File { path, line }) => format!("{}, line {line}: ", path.display()),
            _ => String::new(),
        };
        self.faults.push(Fault { name: setting.name, problem: place + &problem.into() });
    }

    /// Returns a setting's value if the setting is given or has a default. Returns `None` after a fault.
    pub(super) fn optional<T>(&mut self, setting: &Setting, read: impl Fn(&str) -> Result<T, String>) -> Option<T> {
        self.address(setting, |given| read(&given.text))
    }

    /// Returns a setting's value, as [`Self::optional`] does, for a value that also keeps the file that it was read
    /// from.
    pub(super) fn address<T>(&mut self, setting: &Setting, read: impl Fn(&Given) -> Result<T, String>) -> Option<T> {
        match read(self.given.get(setting.name)?) {
            Ok(value) => Some(value),
            Err(problem) => {
                self.fault(setting, problem);
                None
            }
        }
    }

    /// Returns the value of a setting that has a default. After a fault, returns the default.
    pub(super) fn value<T>(&mut self, setting: &Setting, read: impl Fn(&str) -> Result<T, String>) -> T {
        self.address_or_default(setting, |given| read(&given.text))
    }

    /// Returns a setting's value, as [`Self::value`] does, for a value that also keeps the file that it was read from.
    pub(super) fn address_or_default<T>(&mut self, setting: &Setting, read: impl Fn(&Given) -> Result<T, String>) -> T {
        let default = || setting.default.and_then(|text| read(&text.to_owned().into()).ok());
        self.address(setting, &read).or_else(default).expect("its default can be read")
    }

    /// Returns a secret if it is given.
    pub(super) fn secret(&self, setting: &Setting) -> Option<Secret> {
        self.given.get(setting.name).map(|given| Secret::new(given.text.as_str()))
    }

    /// Returns every setting with its text and its origin.
    pub(super) fn in_use(&self) -> Vec<SettingInUse> {
        let in_use = |setting: &'static Setting| {
            let given = self.given.get(setting.name);
            SettingInUse {
                setting,
                text: given.map(|given| Secret::new(given.text.as_str())),
                file: given.and_then(|given| given.file.clone()),
                origin: given.map_or(Origin::Default, |given| given.origin.clone()),
            }
        };
        names::ALL.iter().map(in_use).collect()
    }

    fn settings_file(&mut self) -> Option<(PathBuf, Entries)> {
        let path = PathBuf::from(&self.given.get(names::CONFIG.name)?.text);
        let (entries, problems) = match file::read_text(&path) {
            Ok(text) => settings_file::parse(&text),
            Err(error) => (Entries::new(), vec![format!("cannot read it: {error}")]),
        };
        for problem in problems {
            self.fault(&names::CONFIG, format!("{}: {problem}", path.display()));
        }
        Some((path, entries))
    }

    fn find(&mut self, setting: &Setting) -> Option<Given> {
        let flag = setting.flag().and_then(|flag| self.flags.get_one::<String>(&flag).cloned());
        if let Some(text) = flag {
            return Some(Given { text, file: None, origin: Origin::Flag });
        }
        let (name, key) = (setting.name.to_owned(), setting.key());
        if let Some(text) = self.variable(setting, &name) {
            return Some(Given { text, file: None, origin: Origin::Environment(name) });
        }
        // curl reads these variables in lower case.
        let lower_case = name.to_ascii_lowercase();
        if setting.name.ends_with("_PROXY")
            && let Some(text) = self.variable(setting, &lower_case)
        {
            return Some(Given { text, file: None, origin: Origin::Environment(lower_case) });
        }
        let (file_name, file_key) = (name + "_FILE", format!("{key}-file"));
        if setting.may_be_in_file()
            && let Some(path) = self.variable(setting, &file_name)
        {
            return self.read(setting, path, Origin::Environment(file_name));
        }
        if let Some((text, origin)) = self.entry(&key) {
            return Some(Given { text, file: None, origin });
        }
        if let Some((path, origin)) = self.entry(&file_key) {
            return self.read(setting, path, origin);
        }
        setting.default.map(|text| text.to_owned().into())
    }

    /// Returns the text of a variable. An empty variable counts as not given, because compose files and charts leave a
    /// setting out in this way. The exception is a setting for which an empty text has a meaning.
    fn variable(&mut self, setting: &Setting, name: &str) -> Option<String> {
        let text = (self.environment)(name)?.into_string();
        if text.is_err() {
            self.fault(setting, "is not UTF-8");
        }
        text.ok().filter(|text| !text.is_empty() || setting.may_be_empty())
    }

    /// Returns the text that the settings file has under this key.
    fn entry(&self, key: &str) -> Option<(String, Origin)> {
        let (path, entries) = self.file.as_ref()?;
        let entry = entries.get(key)?;
        Some((entry.text.clone(), Origin::File { path: path.clone(), line: entry.line }))
    }

    /// Reads a setting's own file.
    fn read(&mut self, setting: &Setting, path: String, origin: Origin) -> Option<Given> {
        match file::read_text(path.as_ref()) {
            Ok(text) if !text.trim().is_empty() => {
                Some(Given { text: text.trim().to_owned(), file: Some(path.into()), origin })
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
