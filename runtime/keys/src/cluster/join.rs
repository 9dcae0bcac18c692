//! A join on a cluster: a script for each key, run concurrently, and the commands that undo them if one fails.
//!
//! Invariant: only what this join has written is undone, and only while the hash still holds its connection's sid. A
//! teacher's own key holds no sid, so an undo could not tell another connection's join from this one. Therefore it is
//! written last, and never undone. If a hash held the sid before (because the command was sent twice, or an earlier
//! attempt failed), the value before that is unknown. Then the hash stays, and SQL decides whose field it is
//! ([`crate::FailedJoin::unsettled`]). Numbers that were added to the seat map stay, because another join may rely on
//! them.
use bb8_redis::redis::{Value, from_redis_value};
use rollcall_schema::{KeyField, Role, Sid};

use super::router::Answer;
use crate::{
    EarlierField, KeyEntry,
    commands::KeyCommand,
    names::Names,
    scripts::{LATE, Script},
};

/// The error of a script that did nothing, because it ran too late.
pub(super) const TOO_LATE: &str = "it came to Redis too late, or Redis's clock was set";

/// The part of a join that concerns one key.
pub(super) struct Part {
    pub(super) command: KeyCommand,
    kind: Kind,
}

enum Kind {
    Seats,
    /// The user's field in the lesson, which names the connection.
    Field(Written),
    /// A participant's own key.
    Client(Written),
    /// The hash in the lesson that the connection leaves.
    Left(String),
}

/// The fields that are set in one hash.
struct Written {
    hash: String,
    /// The names and values. The first value is the connection's sid.
    fields: Vec<(String, String)>,
    /// Whether an earlier join that succeeded may have written the sid.
    stays: bool,
}

impl Written {
    fn command(&self) -> KeyCommand {
        let pairs = self.fields.iter().flat_map(|(name, value)| [name.clone(), value.clone()]);
        KeyCommand::timed(Script::Write, vec![self.hash.clone()], pairs.collect())
    }

    fn held_sid(&self, before: &[String]) -> bool {
        before[0] == self.fields[0].1
    }

    /// Returns whether the hash held the sid because an earlier attempt failed, or the command was sent twice.
    fn is_own_try(&self, before: &[String]) -> bool {
        self.held_sid(before) && !self.stays
    }

    /// Returns the command that restores the earlier values of a join's fields, or `None` if the sid was there before.
    fn undo(&self, before: Vec<String>) -> Option<KeyCommand> {
        if self.held_sid(&before) {
            return None;
        }
        let pairs = self.fields.iter().zip(before).flat_map(|((name, _), value)| [name.clone(), value]);
        let arguments = std::iter::once(self.fields[0].1.clone()).chain(pairs).collect();
        Some(KeyCommand::timed(Script::Replace, vec![self.hash.clone()], arguments))
    }
}

/// Returns the commands that a join runs concurrently. `before` is the field of the connection's earlier join.
pub(super) fn parts(names: &Names, entry: &KeyEntry, before: Option<&EarlierField>) -> Vec<Part> {
    let KeyEntry { lesson, sid, user, .. } = entry;
    let mut parts = Vec::with_capacity(4);
    if let Some((user, role)) = user {
        let fields = vec![(user.to_string(), sid.to_string())];
        let hash = names.fields(*role, lesson);
        let stays = before.is_some_and(|before| names.fields(before.role, &before.lesson) == hash);
        let field = Written { hash, fields, stays };
        parts.push(Part { command: field.command(), kind: Kind::Field(field) });
        if *role != Role::Teacher {
            let fields = [("sid", sid.to_string()), ("client_id", user.to_string()), ("role", role.to_string())];
            let fields = fields.map(|(name, value)| (name.to_owned(), value)).to_vec();
            let own = Written { hash: names.user(user), fields, stays: before.is_some() };
            parts.push(Part { command: own.command(), kind: Kind::Client(own) });
        }
        if let Some(hash) = names.left(entry, before) {
            let arguments = vec![sid.to_string(), user.to_string(), String::new()];
            let command = KeyCommand::timed(Script::Replace, vec![hash.clone()], arguments);
            parts.push(Part { command, kind: Kind::Left(hash) });
        }
    }
    parts.push(Part { command: names.seat_map(Script::Join, entry), kind: Kind::Seats });
    parts
}

/// Returns the command that a join runs after its parts: it writes a teacher's own key.
pub(super) fn last(names: &Names, KeyEntry { lesson, user, .. }: &KeyEntry) -> Option<KeyCommand> {
    let (user, _) = user.as_ref().filter(|(_, role)| *role == Role::Teacher)?;
    let fields = vec!["lesson_id".to_owned(), lesson.to_string()];
    Some(KeyCommand::timed(Script::Write, vec![names.user(user)], fields))
}

/// Makes an error of the answer of a script that ran too late.
pub(super) fn done(answer: Answer) -> Answer {
    answer.and_then(|answer| if matches!(answer, Value::Int(LATE)) { Err(TOO_LATE.to_owned()) } else { Ok(answer) })
}

/// What follows from the answers of the parts.
#[derive(Default)]
pub(super) struct Outcome {
    /// Whether a participant's key existed before.
    pub(super) known: bool,
    /// Why the join failed, if it did.
    pub(super) failure: Option<String>,
    /// The commands that undo what was written. They are run if the join failed.
    pub(super) undo: Vec<KeyCommand>,
    /// The field whose owner only SQL knows, if the join failed.
    pub(super) unsettled: Option<KeyField>,
}

impl Outcome {
    pub(super) fn new(entry: &KeyEntry, parts: Vec<Part>, answers: Vec<Answer>) -> Self {
        let mut outcome = Self::default();
        for (Part { kind, .. }, answer) in parts.into_iter().zip(answers) {
            if let (Kind::Left(hash), Some((user, _))) = (&kind, &entry.user) {
                // If the command was sent twice, the field was removed although no answer says so. `Add` does not change
                // a field that exists.
                let pair = vec![user.to_string(), entry.sid.to_string()];
                outcome.undo.push(KeyCommand::timed(Script::Add, vec![hash.clone()], pair));
            }
            let read = done(answer).and_then(|answer| match &kind {
                Kind::Field(written) => outcome.add_field(entry, written, answer),
                Kind::Client(written) => outcome.add_client(written, answer),
                Kind::Left(_) | Kind::Seats => Ok(()),
            });
            if let Err(why) = read {
                outcome.failure.get_or_insert(why);
            }
        }
        outcome
    }

    fn add_field(&mut self, entry: &KeyEntry, written: &Written, answer: Value) -> Result<(), String> {
        let (_, before) = read(written, answer)?;
        let holder = Sid::parse(&before[0]).ok().filter(|_| !written.held_sid(&before) || written.is_own_try(&before));
        self.unsettled = holder.zip(entry.field()).map(|(sid, field)| KeyField { sid, ..field });
        self.undo.extend(written.undo(before));
        Ok(())
    }

    fn add_client(&mut self, written: &Written, answer: Value) -> Result<(), String> {
        let (there, before) = read(written, answer)?;
        self.known = there && !written.is_own_try(&before);
        self.undo.extend(written.undo(before));
        Ok(())
    }
}

/// Returns whether the hash existed, and the earlier value of each field.
fn read(written: &Written, answer: Value) -> Result<(bool, Vec<String>), String> {
    let mut before: Vec<String> = from_redis_value(answer).map_err(|error| error.to_string())?;
    if before.len() != written.fields.len() + 1 {
        return Err("Redis answered a script with something else".to_owned());
    }
    let there = before.remove(0) == "1";
    Ok((there, before))
}
