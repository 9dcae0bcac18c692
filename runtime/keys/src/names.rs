//! The names of the keys of a join and its end, and the commands on them.
use std::collections::{BTreeMap, HashMap};

use rollcall_schema::{LessonId, Role, UserId, key};

use super::{EarlierField, KeyEntry, StaleField, commands::KeyCommand, marker::Mark, scripts::Script};

/// The beginning of the names of a ping's keys. No user's id begins with it.
const PING: &str = "rollcall:ping";
/// One role for each of the two hashes that may have a connection's field.
pub(super) const FIELD_ROLES: [Role; 2] = [Role::Teacher, Role::Participant];
/// The TTL of a ping's keys in seconds.
const PING_SECONDS: &str = "10";

/// The names of keys, with the prefix.
pub(super) struct Names(String);

impl Names {
    pub(super) fn new(prefix: &str) -> Self {
        Self(prefix.to_owned())
    }

    /// Returns a key of this process, such as the marker.
    pub(super) fn key(&self, name: &str) -> String {
        format!("{}{name}", self.0)
    }

    pub(super) fn seats(&self, lesson: &LessonId) -> String {
        self.key(&key::lesson_seat(lesson))
    }

    /// Returns the hash of a lesson's fields for a role.
    pub(super) fn fields(&self, role: Role, lesson: &LessonId) -> String {
        self.key(&match role {
            Role::Teacher => key::lesson_teacher(lesson),
            Role::Participant | Role::Hub => key::lesson_student(lesson),
        })
    }

    /// Returns the hash from which a join removes the connection's field, if it leaves another lesson.
    pub(super) fn left(&self, entry: &KeyEntry, before: Option<&EarlierField>) -> Option<String> {
        entry.user.as_ref()?;
        let left = before.filter(|before| entry.removes(before))?;
        Some(self.fields(left.role, &left.lesson))
    }

    pub(super) fn user(&self, user: &UserId) -> String {
        self.key(&key::user(user))
    }

    /// Returns a join in one script. Without a user it only concerns the seat map.
    pub(super) fn join(&self, entry: &KeyEntry, before: Option<&EarlierField>) -> KeyCommand {
        let mut keys = self.of(entry);
        keys.extend(self.left(entry, before));
        let mut arguments = arguments(entry);
        arguments.push(u8::from(before.is_none()).to_string());
        KeyCommand::timed(Script::Join, keys, arguments)
    }

    /// Adds what is missing of a join, in one script.
    pub(super) fn repair(&self, entry: &KeyEntry) -> KeyCommand {
        KeyCommand::timed(Script::Repair, self.of(entry), arguments(entry))
    }

    /// Returns only the seat map's part of a join or its repair.
    pub(super) fn seat_map(&self, script: Script, entry: &KeyEntry) -> KeyCommand {
        KeyCommand::timed(script, vec![self.seats(&entry.lesson)], arguments(entry))
    }

    /// Adds what is missing of a join, with a script for each key.
    pub(super) fn repair_each(&self, entry: &KeyEntry) -> Vec<KeyCommand> {
        let mut commands = vec![self.seat_map(Script::Repair, entry)];
        if let Some((user, role)) = &entry.user {
            let sid = entry.sid.to_string();
            let own: &[&str] = match role {
                Role::Teacher => &["lesson_id", entry.lesson.as_str()],
                _ => &["sid", &sid, "client_id", user.as_str(), "role", role.as_str()],
            };
            let mut add = |hash, pairs: &[&str]| {
                let pairs = pairs.iter().map(|text| (*text).to_owned()).collect();
                commands.push(KeyCommand::timed(Script::Add, vec![hash], pairs));
            };
            add(self.user(user), own);
            add(self.fields(*role, &entry.lesson), &[user.as_str(), &sid]);
        }
        commands
    }

    fn of(&self, entry: &KeyEntry) -> Vec<String> {
        let mut keys = vec![self.seats(&entry.lesson)];
        if let Some((user, role)) = &entry.user {
            keys.extend([self.fields(*role, &entry.lesson), self.user(user)]);
        }
        keys
    }

    /// Asks whether every part of a join exists, and renews the TTLs. For an existing part the answer is 1.
    pub(super) fn look(&self, KeyEntry { lesson, seats, user, .. }: &KeyEntry) -> Vec<KeyCommand> {
        let ttl = key::TTL_SECONDS.to_string();
        let mut commands = Vec::with_capacity(8);
        let mut ask = |key: &String, fields: &[&str]| {
            commands.push(KeyCommand::plain("EXPIRE", key.clone(), &[&ttl]));
            commands.extend(fields.iter().map(|field| KeyCommand::plain("HEXISTS", key.clone(), &[field])));
        };
        if *seats > 0 {
            ask(&self.seats(lesson), &[&seats.to_string()]);
        }
        if let Some((user, role)) = user {
            ask(&self.fields(*role, lesson), &[user.as_str()]);
            let known: &[&str] = if *role == Role::Teacher { &["lesson_id"] } else { &["sid", "client_id", "role"] };
            ask(&self.user(user), known);
        }
        commands
    }

    /// Removes a field from the hashes of these roles, or sets it to its successor there.
    pub(super) fn remove(&self, roles: &[Role], StaleField { field, successors }: &StaleField) -> KeyCommand {
        let hashes = roles.iter().map(|role| self.fields(*role, &field.lesson)).collect();
        let next = roles.iter().map(|role| successors.of(*role).map(|sid| sid.to_string()).unwrap_or_default());
        let arguments = [field.user.to_string(), field.sid.to_string()].into_iter().chain(next).collect();
        KeyCommand::script(Script::Remove, hashes, arguments)
    }

    /// Reads the whole seat map; [`seat_numbers`] parses the answer.
    pub(super) fn read_seats(&self, lesson: &LessonId) -> KeyCommand {
        KeyCommand::plain("HGETALL", self.seats(lesson), &[])
    }

    /// Removes the user's own key, and its field in these lessons.
    pub(super) fn erase(&self, user: &UserId, lessons: &[LessonId]) -> Vec<KeyCommand> {
        let fields = lessons.iter().flat_map(|lesson| FIELD_ROLES.map(|role| self.fields(role, lesson)));
        let fields = fields.map(|hash| KeyCommand::plain("HDEL", hash, &[user.as_str()]));
        std::iter::once(KeyCommand::plain("DEL", self.user(user), &[])).chain(fields).collect()
    }

    /// Writes the marker, and with `replication` asks for the replication's id.
    pub(super) fn mark(&self, Mark { key, number, least }: &Mark, replication: bool) -> KeyCommand {
        mark(key.clone(), &key::TTL_SECONDS.to_string(), (*number, least.unwrap_or(0)), replication)
    }

    /// Does what joins and removals do, on keys of its own. On a cluster `tag` puts these keys on one node.
    pub(super) fn ping(&self, tag: &str) -> Vec<KeyCommand> {
        let key = |name: &str| self.key(&format!("{PING}:{name}{tag}"));
        let [seats, field, user] = ["seats", "field", "user"].map(key);
        let join = ["1", "participant", PING, PING, PING, "1"].map(str::to_owned).to_vec();
        let remove = [PING, PING, ""].map(str::to_owned).to_vec();
        let ends = [&seats, &user].map(|key| KeyCommand::plain("EXPIRE", key.clone(), &[PING_SECONDS]));
        let commands = [
            KeyCommand::timed(Script::Join, vec![seats.clone(), field.clone(), user], join),
            KeyCommand::plain("HEXISTS", seats.clone(), &["1"]),
            // A join runs this command only if the seat map is new.
            KeyCommand::plain("HSETNX", seats, &["1", ""]),
            KeyCommand::script(Script::Remove, vec![field], remove),
            mark(key("marker"), PING_SECONDS, (1, 0), false),
        ];
        commands.into_iter().chain(ends).collect()
    }
}

/// Returns the seats of a seat map. Other services write to it, too, so a field that is not a seat's number is ignored.
pub(super) fn seat_numbers(fields: HashMap<String, String>) -> BTreeMap<u32, String> {
    fields.into_iter().filter_map(|(number, value)| Some((number.parse().ok()?, value))).collect()
}

fn mark(key: String, ttl: &str, (number, least): (u64, u64), replication: bool) -> KeyCommand {
    let arguments = vec![ttl.to_owned(), number.to_string(), least.to_string(), u8::from(replication).to_string()];
    KeyCommand::script(Script::Mark, vec![key], arguments)
}

/// Returns the arguments of `entry.lua`, from the third.
fn arguments(KeyEntry { lesson, seats, sid, user }: &KeyEntry) -> Vec<String> {
    let (user, role) = user.as_ref().map_or(("", ""), |(user, role)| (user.as_str(), role.as_str()));
    vec![seats.to_string(), role.to_owned(), user.to_owned(), sid.to_string(), lesson.to_string()]
}
