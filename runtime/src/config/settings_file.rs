//! The settings file (`ROLLCALL_CONFIG`) is TOML whose keys are the names of the flags (PROTOCOL 7).
//!
//! Invariant: reading goes on after a fault, so one start reports every fault with its line. An unknown key is a fault,
//! because a limit with a misspelt name would not limit. The file contains no secret, because such a file is committed,
//! copied and shown. `NAME-file` names the file of a secret.
use std::collections::BTreeMap;

use toml::de::{DeTable, DeValue};

use super::{
    lines,
    names::{self, Kind, Setting},
    spelling::similar,
};

/// A setting in the file.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Entry {
    pub(super) text: String,
    pub(super) line: usize,
}

/// The settings of a file by their keys. `NAME-file` is a separate key.
pub(super) type Entries = BTreeMap<String, Entry>;

/// Returns the settings without faults, and all faults.
pub(super) fn parse(text: &str) -> (Entries, Vec<String>) {
    let (table, errors) = DeTable::parse_recoverable(text);
    // The rest of a line that is not TOML has no meaning, so only the line's first error is reported.
    let mut problems: BTreeMap<usize, String> = BTreeMap::new();
    for error in &errors {
        let (line, problem) = lines::syntax(text, error);
        problems.entry(line).or_insert(problem);
    }
    let mut entries = Entries::new();
    for (key, value) in table.get_ref() {
        let line = lines::line(text, key.span().start);
        match read(key.get_ref(), value.get_ref()) {
            _ if problems.contains_key(&line) => {}
            // An empty text means that the setting is not given, as an empty variable does.
            Ok(text) if text.is_empty() && !of_key(key.get_ref()).is_some_and(Setting::may_be_empty) => {}
            Ok(text) => {
                entries.insert(key.get_ref().to_string(), Entry { text, line });
            }
            Err(problem) => {
                problems.insert(line, format!("{}: {problem}", key.get_ref()));
            }
        }
    }
    (entries, problems.into_iter().map(|(line, problem)| format!("line {line}: {problem}")).collect())
}

/// Returns the setting of this key.
fn of_key(key: &str) -> Option<&'static Setting> {
    names::ALL.iter().find(|setting| setting.key() == key)
}

/// Returns a setting's text in the form that its variable would have.
fn read(key: &str, value: &DeValue<'_>) -> Result<String, String> {
    if let Some(setting) = of_key(key) {
        return text(setting, value);
    }
    if key.strip_suffix("-file").and_then(of_key).is_some_and(Setting::may_be_in_file) {
        return value.as_str().map(str::to_owned).ok_or_else(|| "write a path in quotes".into());
    }
    let meant = key.to_ascii_lowercase().replace('_', "-");
    let meant = meant.strip_prefix("rollcall-").unwrap_or(&meant);
    if of_key(meant).is_some() {
        return Err(format!("write {meant}"));
    }
    Err(match similar(meant, names::ALL.iter().map(Setting::key)) {
        Some(similar) => format!("is not known; a similar one is {similar}"),
        None => "is not known".into(),
    })
}

fn text(setting: &Setting, value: &DeValue<'_>) -> Result<String, String> {
    let texts = || -> Option<Vec<&str>> {
        let texts: Option<Vec<_>> = value.as_array()?.iter().map(|item| item.get_ref().as_str()).collect();
        texts.filter(|texts| texts.iter().all(|text| !text.contains(',')))
    };
    let (text, expected) = match setting.kind {
        _ if setting.name == names::CONFIG.name => return Err("this file names no other".into()),
        Kind::Secret => {
            let (name, key) = (setting.name, setting.key());
            return Err(format!("a secret must not be in this file: set {name}, or name its file with {key}-file"));
        }
        Kind::Plain | Kind::Address => (value.as_str().map(str::to_owned), "write a text in quotes"),
        Kind::Number => (number(value), "write a whole number without quotes"),
        Kind::Fraction => (
            number(value).or_else(|| value.as_float().map(|number| number.as_str().to_owned())),
            "write a number from 0 to 1, without quotes",
        ),
        Kind::Size => (
            number(value).or_else(|| value.as_str().map(str::to_owned)),
            "write a number of bytes, or a text like \"64KiB\"",
        ),
        Kind::Switch => (value.as_bool().map(|on| on.to_string()), "write true or false, without quotes"),
        Kind::List => (
            value.as_str().map(str::to_owned).or_else(|| texts().map(|texts| texts.join(","))),
            "write an array of texts in quotes, none of them with a comma",
        ),
    };
    text.ok_or_else(|| expected.into())
}

fn number(value: &DeValue<'_>) -> Option<String> {
    value.as_integer().filter(|number| number.radix() == 10).map(|number| number.as_str().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_has_its_type() {
        let (entries, problems) = parse(
            "# of a test\nlease = \"7s\"\nmax-fragments = 1_0\nmax-message = 1024\nmax-queue = \"1MiB\"\nguests = true\n\
             origins = [\"https://a.example\", \"https://b.example\"]\naudiences = \"a.example,b.example\"\n\
             database-url = \"sqlite:x.db\"\nhs256-secret-file = \"/run/secrets/x\"\nredis-url = \"\"\n",
        );
        assert_eq!(problems, [""; 0]);
        let read: Vec<_> = entries.iter().map(|(key, entry)| (key.as_str(), entry.text.as_str(), entry.line)).collect();
        let expected = [
            ("audiences", "a.example,b.example", 8),
            ("database-url", "sqlite:x.db", 9),
            ("guests", "true", 6),
            ("hs256-secret-file", "/run/secrets/x", 10),
            ("lease", "7s", 2),
            ("max-fragments", "10", 3),
            ("max-message", "1024", 4),
            ("max-queue", "1MiB", 5),
            ("origins", "https://a.example,https://b.example", 7),
        ];
        assert_eq!(read, expected);
    }

    #[test]
    fn all_faults_are_found_at_once_with_their_lines() {
        let (entries, problems) = parse(
            "lease = 7\nmax-fragments = \"10\"\nguests = \"true\"\norigins = [\"a,b\"]\nmax-mesage = 1\n\
             ROLLCALL_MAX_QUEUE = 1\nhs256-secret = \"hunter2\"\nconfig = \"x\"\nping-interval = ten\nworkers = 0x10\n\
             lease-file = \"x\"\n[limits]\nmax-head = 1\n",
        );
        assert!(entries.is_empty(), "{entries:?}");
        let expected = [
            "line 1: lease: write a text in quotes",
            "line 2: max-fragments: write a whole number without quotes",
            "line 3: guests: write true or false, without quotes",
            "line 4: origins: write an array of texts in quotes, none of them with a comma",
            "line 5: max-mesage: is not known; a similar one is max-message",
            "line 6: ROLLCALL_MAX_QUEUE: write max-queue",
            "line 7: hs256-secret: a secret must not be in this file: set ROLLCALL_HS256_SECRET, or name its file with \
             hs256-secret-file",
            "line 8: config: this file names no other",
            "line 10: workers: write a whole number without quotes",
            "line 11: lease-file: is not known",
            "line 12: limits: is not known",
        ];
        let (syntax, others): (Vec<_>, Vec<_>) = problems.iter().partition(|problem| problem.starts_with("line 9: "));
        assert_eq!(others, expected);
        assert!(matches!(syntax[..], [problem] if !problem.contains('\n')), "{problems:?}");
    }
}
