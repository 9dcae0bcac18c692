//! A join on a cluster: a script for each key, side by side, and what undoes them where one of them fails.
//!
//! Invariant: a part that was answered and is not to stand is undone, unless somebody has written over it since. Numbers
//! that were added to the seat map stay: another join may rely on them, and would have added them.
use bb8_redis::redis::{Value, from_redis_value};
use rollcall_schema::{KeyField, LessonId, Role, Sid, UserId};

use super::router::Answer;
use crate::{
    KeyEntry,
    commands::KeyCommand,
    names::Names,
    scripts::{LATE, Script},
};

/// Why a script did nothing.
pub(super) const TOO_LATE: &str = "it came to Redis too late, or Redis's clock was set";

/// A key's part of a join.
pub(super) struct Part {
    pub(super) command: KeyCommand,
    kind: Kind,
}

enum Kind {
    Seats,
    /// The user's field in the lesson, which names the connection.
    Field(Written),
    /// The user's own key.
    User(Written),
    /// The field in the lesson that is left, of this hash.
    Left(String),
}

/// Fields that are set.
struct Written {
    hash: String,
    /// Names and values. The first tells whether the hash still holds what the join wrote.
    fields: Vec<(String, String)>,
    /// Whether the first may have had that value before, for good reason.
    stays: bool,
}

impl Written {
    fn command(&self) -> KeyCommand {
        let pairs = self.fields.iter().flat_map(|(name, value)| [name.clone(), value.clone()]);
        KeyCommand::timed(Script::Write, vec![self.hash.clone()], pairs.collect())
    }

    /// Whether the hash held this connection's own earlier try.
    fn is_own_try(&self, before: &[String]) -> bool {
        before[0] == self.fields[0].1 && !self.stays
    }

    /// What puts the values back; none where they were the same.
    fn undo(&self, before: &[String]) -> Option<KeyCommand> {
        let own = &self.fields[0].1;
        if before[0] == *own && self.stays {
            return None;
        }
        let nothing = self.is_own_try(before);
        let values = before.iter().map(|value| if nothing { String::new() } else { value.clone() });
        let pairs = self.fields.iter().zip(values).flat_map(|((name, _), value)| [name.clone(), value]);
        let arguments = std::iter::once(own.clone()).chain(pairs).collect();
        Some(KeyCommand::timed(Script::Replace, vec![self.hash.clone()], arguments))
    }
}

/// What a join writes, in parts. The user's field is the first, if there is a user.
pub(super) fn parts(names: &Names, entry: &KeyEntry, before: Option<&LessonId>) -> Vec<Part> {
    let KeyEntry { lesson, sid, user, .. } = entry;
    let mut parts = Vec::with_capacity(5);
    if let Some((user, role)) = user {
        let stays = before == Some(lesson);
        let fields = vec![(user.to_string(), sid.to_string())];
        let field = Written { hash: names.fields(*role, lesson), fields, stays };
        parts.push(Part { command: field.command(), kind: Kind::Field(field) });
        let (fields, stays) = match role {
            // Any connection of a teacher writes the same.
            Role::Teacher => (vec![("lesson_id".to_owned(), lesson.to_string())], true),
            _ => {
                let fields = [("sid", sid.to_string()), ("client_id", user.to_string()), ("role", role.to_string())];
                let fields = fields.map(|(name, value)| (name.to_owned(), value)).to_vec();
                (fields, before.is_some())
            }
        };
        let own = Written { hash: names.user(user), fields, stays };
        parts.push(Part { command: own.command(), kind: Kind::User(own) });
        for hash in before.filter(|left| *left != lesson).into_iter().flat_map(|left| names.both(left)) {
            let arguments = vec![sid.to_string(), user.to_string(), String::new()];
            let command = KeyCommand::timed(Script::Replace, vec![hash.clone()], arguments);
            parts.push(Part { command, kind: Kind::Left(hash) });
        }
    }
    parts.push(Part { command: names.seat_map(Script::Join, entry), kind: Kind::Seats });
    parts
}

/// What follows from the parts' answers.
#[derive(Default)]
pub(super) struct Outcome {
    /// Whether a participant's key was there before.
    pub(super) known: bool,
    /// Why the join failed.
    pub(super) failure: Option<String>,
    /// What is to be undone then.
    pub(super) undo: Vec<KeyCommand>,
    /// Another connection's field, which the first of these puts back.
    pub(super) restores: Option<KeyField>,
}

impl Outcome {
    pub(super) fn of(entry: &KeyEntry, parts: &[Part], answers: Vec<Answer>) -> Self {
        let mut outcome = Self::default();
        for (part, answer) in parts.iter().zip(answers) {
            if let Err(why) = answer.and_then(|answer| outcome.add(entry, &part.kind, answer)) {
                outcome.failure.get_or_insert(why);
            }
        }
        outcome
    }

    fn add(&mut self, entry: &KeyEntry, kind: &Kind, answer: Value) -> Result<(), String> {
        if matches!(answer, Value::Int(LATE)) {
            return Err(TOO_LATE.to_owned());
        }
        match (kind, &entry.user) {
            (Kind::Field(written), Some((user, _))) => {
                let (_, before) = read(written, answer)?;
                let other = Sid::parse(&before[0]).ok().filter(|other| *other != entry.sid);
                self.restores =
                    other.map(|sid| KeyField { lesson: entry.lesson.clone(), user: UserId::clone(user), sid });
                self.undo.extend(written.undo(&before));
            }
            (Kind::User(written), Some((_, role))) => {
                let (there, before) = read(written, answer)?;
                self.known = there && *role != Role::Teacher && !written.is_own_try(&before);
                self.undo.extend(written.undo(&before));
            }
            (Kind::Left(hash), Some((user, _))) if matches!(answer, Value::Int(1)) => {
                let pair = vec![user.to_string(), entry.sid.to_string()];
                self.undo.push(KeyCommand::timed(Script::Add, vec![hash.clone()], pair));
            }
            _ => {}
        }
        Ok(())
    }
}

/// Whether the hash was there, and what each of its fields was.
fn read(written: &Written, answer: Value) -> Result<(bool, Vec<String>), String> {
    let mut before: Vec<String> = from_redis_value(answer).map_err(|error| error.to_string())?;
    if before.len() != written.fields.len() + 1 {
        return Err("Redis answered a script with something else".to_owned());
    }
    let there = before.remove(0) == "1";
    Ok((there, before))
}
