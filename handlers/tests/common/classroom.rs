//! Classrooms with lessons and users of their own.

use std::fmt::Write;
use std::fs;
use std::path::Path;

use rollcall_loadtest::{GatewayOptions, token};
use serde_json::{Value, json};
use uuid::Uuid;

/// A classroom with two lessons, `algebra` and `biology`, of [`SEATS`](Self::SEATS) seats each.
#[derive(Debug)]
pub(crate) struct Classroom {
    pub(crate) id: String,
    pub(crate) algebra: String,
    pub(crate) biology: String,
    tag: String,
}

impl Classroom {
    /// How many seats each lesson has.
    pub(crate) const SEATS: u32 = 3;
    /// The seat that `seated` and `tess` have in each lesson; no other user has one.
    pub(crate) const SEAT: u32 = 2;

    pub(crate) fn new() -> Self {
        let id = Uuid::new_v4().to_string();
        let (tag, _) = id.split_once('-').unwrap();
        let (algebra, biology) = (format!("algebra-{tag}"), format!("biology-{tag}"));
        Self { algebra, biology, tag: tag.to_owned(), id }
    }

    /// Returns the id of a user that no other classroom has.
    pub(crate) fn user(&self, name: &str) -> String {
        format!("{name}-{}", self.tag)
    }

    /// Returns the agent id of a user under a label.
    pub(crate) fn agent(&self, label: &str, name: &str) -> String {
        format!("{label}.{}.{}", self.user(name), token::AUDIENCE)
    }

    /// Returns a participant's token.
    pub(crate) fn participant(&self, name: &str) -> String {
        token::participant(&self.user(name))
    }

    /// Returns a teacher's token.
    pub(crate) fn teacher(&self, name: &str) -> String {
        token::teacher(&self.user(name))
    }

    /// Returns a participant's token with added or changed claims.
    pub(crate) fn token_with(&self, name: &str, changes: &Value) -> String {
        let mut claims = token::claims(&self.user(name), "participant");
        for (claim, value) in changes.as_object().unwrap() {
            claims[claim] = value.clone();
        }
        token::hs256(token::SECRET, &claims)
    }

    /// Returns the payload of a connect_request.
    pub(crate) fn connect_request(&self, token: &str, label: &str) -> Value {
        json!({"token": token, "classroom_id": self.id, "agent_label": label})
    }

    /// Returns a NATS subject of this classroom.
    pub(crate) fn subject(&self, entity: &str) -> String {
        format!("classroom.{}.{entity}", self.id)
    }
}

/// Loads the lessons with `rollcall load`.
pub(crate) fn load(options: &GatewayOptions, folder: &Path, classrooms: &[Classroom]) {
    let mut lessons = "lesson_id,classroom_id,seats\n".to_owned();
    let mut attendees = "lesson_id,user_id,seat\n".to_owned();
    for room in classrooms {
        for lesson in [&room.algebra, &room.biology] {
            writeln!(lessons, "{lesson},{},{}", room.id, Classroom::SEATS).unwrap();
            for name in ["seated", "tess"] {
                writeln!(attendees, "{lesson},{},{}", room.user(name), Classroom::SEAT).unwrap();
            }
        }
    }
    fs::write(folder.join("lessons.csv"), lessons).unwrap();
    fs::write(folder.join("attendees.csv"), attendees).unwrap();
    let options = options.clone().arg("load");
    let options = options.arg("--lessons").arg("lessons.csv").arg("--attendees").arg("attendees.csv");
    let loaded = options.command().current_dir(folder).output().unwrap();
    assert!(loaded.status.success(), "{loaded:?}");
}
