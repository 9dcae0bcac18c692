//! Reads `ROLLCALL_FUNCTIONS`, a TOML file of the functions over HTTP (PROTOCOL 10).
//!
//! Invariant: reading goes on after a fault, so one start reports every fault of the file. An unknown key is a fault,
//! because a limit with a misspelt name would not limit.
use std::{collections::BTreeSet, path::PathBuf, time::Duration};

use hyper::Uri;
use rollcall_base::file;
use rollcall_schema::heartbeat;
use rollcall_socketio::event;
use toml::{Table, Value};

use super::{lines, names, source::Source, value};
use crate::{
    functions::{BreakerOptions, FunctionOptions, FunctionsConfig},
    http_client::signature::SigningKey,
};

const TIMEOUT: Duration = Duration::from_secs(2);
/// The longest timeout. A connection handles no other event while it waits for a function.
const MAX_TIMEOUT: Duration = Duration::from_secs(60);
const CONCURRENCY: usize = 64;
const QUEUE: usize = 1024;
const MAX_ANSWER: usize = 128 << 10;
const MAX_EVENTS: usize = 100;
const BREAKER: BreakerOptions = BreakerOptions { failures: 10, pause: Duration::from_secs(1) };

/// Reads the file if one is named. `events` are the events of the table of handlers.
pub(super) fn read(source: &mut Source<'_>, events: &BTreeSet<&'static str>) -> Option<FunctionsConfig> {
    let secret = source.secret(&names::FUNCTIONS_SECRET);
    let path = source.optional(&names::FUNCTIONS, |text| Ok(PathBuf::from(text)))?;
    let (functions, problems) = match file::read_text(&path) {
        Ok(text) => parse(&text, events),
        Err(error) => (Vec::new(), vec![format!("cannot read it: {error}")]),
    };
    for problem in problems {
        source.fault(&names::FUNCTIONS, format!("{}: {problem}", path.display()));
    }
    let key = match secret.map(|secret| SigningKey::parse(secret.reveal())) {
        Some(Ok(key)) => key,
        Some(Err(error)) => {
            source.fault(&names::FUNCTIONS_SECRET, error.to_string());
            return None;
        }
        None => {
            source.fault(&names::FUNCTIONS_SECRET, format!("is needed with {}", names::FUNCTIONS.name));
            return None;
        }
    };
    Some(FunctionsConfig { functions, key })
}

/// Returns the functions without faults, and all faults.
fn parse(text: &str, events: &BTreeSet<&'static str>) -> (Vec<FunctionOptions>, Vec<String>) {
    let mut file: Table = match text.parse() {
        Ok(file) => file,
        Err(error) => {
            let (line, problem) = lines::syntax(text, &error);
            return (Vec::new(), vec![format!("line {line}: {problem}")]);
        }
    };
    let mut problems = Vec::new();
    let tables = match file.remove("function") {
        Some(Value::Array(tables)) if !tables.is_empty() => tables,
        _ => {
            problems.push("has no [[function]]".to_owned());
            Vec::new()
        }
    };
    problems.extend(file.keys().map(|key| format!("{key}: is not known")));
    let (mut functions, mut taken) = (Vec::new(), BTreeSet::new());
    for (index, table) in tables.into_iter().enumerate() {
        let Value::Table(table) = table else {
            problems.push(format!("function {}: is not a table", index + 1));
            continue;
        };
        let mut entry = Entry { number: index + 1, table, problems: &mut problems };
        let event = entry.required("event", |text| event_name(text, events));
        if let Some(event) = &event
            && !taken.insert(event.clone())
        {
            entry.problem("event", &format!("{event} is another function's, too"));
        }
        functions.push(entry.options(event));
    }
    (functions, problems)
}

fn event_name(text: &str, events: &BTreeSet<&'static str>) -> Result<String, String> {
    let is_word = |byte: u8| byte.is_ascii_alphanumeric() || b"_-".contains(&byte);
    if text.is_empty() || text.len() > 64 || !text.bytes().all(is_word) {
        return Err("is 1 to 64 of A-Z a-z 0-9 _ -".into());
    }
    if events.contains(text) {
        return Err(format!("{text} has a handler already"));
    }
    if text == heartbeat::PONG || event::RESERVED.contains(&text) {
        return Err(format!("{text} means something else to clients: choose another name"));
    }
    Ok(text.to_owned())
}

/// One `[[function]]` table. Each key is removed when it is read, so the remaining keys are unknown.
struct Entry<'a> {
    number: usize,
    table: Table,
    problems: &'a mut Vec<String>,
}

impl Entry<'_> {
    fn options(mut self, event: Option<String>) -> FunctionOptions {
        let url: Option<Uri> = self.required("url", value::http);
        let options = FunctionOptions {
            event: event.unwrap_or_default(),
            timeout: self.text("timeout", timeout).unwrap_or(TIMEOUT),
            concurrency: self.count("concurrency", 1).unwrap_or(CONCURRENCY),
            queue: self.count("queue", 0).unwrap_or(QUEUE),
            max_answer: self.text("max_answer", value::size).unwrap_or(MAX_ANSWER),
            max_events: self.count("max_events", 0).unwrap_or(MAX_EVENTS),
            breaker: BreakerOptions {
                failures: self
                    .count("open_after", 1)
                    .map_or(BREAKER.failures, |count| u32::try_from(count).unwrap_or(u32::MAX)),
                pause: self.text("open_for", timeout).unwrap_or(BREAKER.pause),
            },
            url: url.unwrap_or_default(),
        };
        let unknown: Vec<String> = self.table.keys().cloned().collect();
        for key in unknown {
            self.problem(&key, "is not known");
        }
        options
    }

    fn problem(&mut self, key: &str, problem: &str) {
        self.problems.push(format!("function {}: {key}: {problem}", self.number));
    }

    fn required<T>(&mut self, key: &str, read: impl Fn(&str) -> Result<T, String>) -> Option<T> {
        if self.table.contains_key(key) {
            return self.text(key, read);
        }
        self.problem(key, "is required");
        None
    }

    fn text<T>(&mut self, key: &str, read: impl Fn(&str) -> Result<T, String>) -> Option<T> {
        let result = match self.table.remove(key)? {
            Value::String(text) => read(&text),
            _ => Err("is a text".to_owned()),
        };
        result.map_err(|problem| self.problem(key, &problem)).ok()
    }

    fn count(&mut self, key: &str, min: usize) -> Option<usize> {
        let number = match self.table.remove(key)? {
            Value::Integer(number) => usize::try_from(number).ok().filter(|number| *number >= min),
            _ => None,
        };
        if number.is_none() {
            self.problem(key, &format!("is a whole number from {min}"));
        }
        number
    }
}

fn timeout(text: &str) -> Result<Duration, String> {
    match value::time_limit(text)? {
        limit if limit > MAX_TIMEOUT => Err(format!("is at most {MAX_TIMEOUT:?}")),
        limit => Ok(limit),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn events() -> BTreeSet<&'static str> {
        BTreeSet::from(["join_lesson"])
    }

    #[test]
    fn a_function_needs_an_event_and_a_url() {
        let (functions, problems) =
            parse("[[function]]\nevent = \"vote\"\nurl = \"http://127.0.0.1:1/vote\"", &events());
        assert_eq!(problems, [""; 0]);
        let expected = FunctionOptions {
            event: "vote".into(),
            url: "http://127.0.0.1:1/vote".parse().unwrap(),
            timeout: TIMEOUT,
            concurrency: CONCURRENCY,
            queue: QUEUE,
            max_answer: MAX_ANSWER,
            max_events: MAX_EVENTS,
            breaker: BREAKER,
        };
        assert_eq!(functions, [expected]);
    }

    #[test]
    fn every_limit_can_be_given() {
        let text = "function = [{ event = \"vote\", url = \"https://a.example/\", timeout = \"500ms\", concurrency = 7, \
                    queue = 0, max_answer = \"1KiB\", max_events = 3, open_after = 2, open_for = \"5s\" }]";
        let (functions, problems) = parse(text, &events());
        assert_eq!(problems, [""; 0]);
        let function = &functions[0];
        assert_eq!((function.timeout.as_millis(), function.concurrency, function.queue), (500, 7, 0));
        assert_eq!((function.max_answer, function.max_events), (1024, 3));
        assert_eq!(function.breaker, BreakerOptions { failures: 2, pause: Duration::from_secs(5) });
    }

    #[test]
    fn all_faults_are_found_at_once() {
        let text = r#"
            secret = "x"
            [[function]]
            url = "ftp://x"
            timeout = 2
            concurrency = 0
            [[function]]
            event = "join_lesson"
            url = "http://me:hunter2@host/"
            timeout = "2h"
            quue = 7
            [[function]]
            event = "vote"
            url = "http://host/"
            [[function]]
            event = "vote"
            url = "http://host/"
            queue = "7"
            [[function]]
            event = "a vote"
            url = 7
            [[function]]
            event = "pong"
            url = "http://host/"
            [[function]]
            event = "disconnecting"
            url = "http://host/"
        "#;
        let (_, problems) = parse(text, &events());
        let expected = [
            "secret: is not known",
            "function 1: event: is required",
            "function 1: url: write http://HOST/PATH or https://HOST/PATH, without a user or password",
            "function 1: timeout: is a text",
            "function 1: concurrency: is a whole number from 1",
            "function 2: event: join_lesson has a handler already",
            "function 2: url: write http://HOST/PATH or https://HOST/PATH, without a user or password",
            "function 2: timeout: is at most 60s",
            "function 2: quue: is not known",
            "function 4: event: vote is another function's, too",
            "function 4: queue: is a whole number from 0",
            "function 5: event: is 1 to 64 of A-Z a-z 0-9 _ -",
            "function 5: url: is a text",
            "function 6: event: pong means something else to clients: choose another name",
            "function 7: event: disconnecting means something else to clients: choose another name",
        ];
        assert_eq!(problems, expected);
    }

    #[test]
    fn what_is_no_toml_is_named_by_its_line() {
        let (_, problems) = parse("[[function]]\nevent = vote\n", &events());
        assert!(problems[0].starts_with("line 2: ") && !problems[0].contains('\n'), "{problems:?}");
        for empty in ["", "function = 7", "function = []"] {
            assert_eq!(parse(empty, &events()).1, ["has no [[function]]"], "{empty}");
        }
    }
}
