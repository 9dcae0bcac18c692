//! `GET classrooms` lists the classrooms with at least one agent.
use std::ops::RangeInclusive;

use hyper::StatusCode;
use rollcall_schema::ClassroomId;
use rollcall_store::LiveClassroom;
use serde::Serialize;
use uuid::Uuid;

use crate::http::{
    admin::Admin,
    call::Call,
    reply::{HttpError, Reply, json},
};

/// How many digits an id has.
const DIGITS: u32 = 32;

#[derive(Serialize)]
struct Classrooms {
    classrooms: Vec<LiveClassroom>,
    /// The `after` of the next page. Null on the last page.
    next: Option<ClassroomId>,
}

/// Lists the classrooms by id. The ids are above `after` and begin with `prefix`.
pub(super) async fn list(admin: &Admin, call: &Call<'_>) -> Result<Reply, HttpError> {
    let (after, limit) = (call.url.parsed("after", "a UUID")?, call.url.limit()?);
    let begins = beginning_with(&call.url.text("prefix")?.unwrap_or_default())?;
    let from = match after {
        None => Some(*begins.start()),
        Some(ClassroomId(after)) => {
            let next = after.as_u128().checked_add(1);
            next.map(|next| ClassroomId(Uuid::from_u128(next)).max(*begins.start()))
        }
    };
    let classrooms = match from.filter(|from| from <= begins.end()) {
        Some(from) => admin.store.live_classrooms(from..=*begins.end(), limit).await,
        None => Ok(Vec::new()),
    };
    let classrooms = classrooms.map_err(|error| admin.refusal(&error))?;
    let next = classrooms.last().filter(|_| classrooms.len() == limit).map(|last| last.classroom_id);
    Ok(json(StatusCode::OK, &Classrooms { classrooms, next }))
}

/// Returns the ids that begin with these digits. `prefix` may have hyphens.
fn beginning_with(prefix: &str) -> Result<RangeInclusive<ClassroomId>, HttpError> {
    let digits: String = prefix.chars().filter(|digit| *digit != '-').collect();
    let wrong = || HttpError::bad("prefix must be the beginning of a UUID");
    let count = u32::try_from(digits.len()).ok().filter(|count| *count <= DIGITS).ok_or_else(wrong)?;
    if !digits.bytes().all(|digit| digit.is_ascii_hexdigit()) {
        return Err(wrong());
    }
    let given = if digits.is_empty() { 0 } else { u128::from_str_radix(&digits, 16).map_err(|_| wrong())? };
    let free = 4 * (DIGITS - count);
    let rest = u128::MAX.checked_shr(128 - free).unwrap_or(0);
    let first = given.checked_shl(free).unwrap_or(0);
    let id = |number| ClassroomId(Uuid::from_u128(number));
    Ok(id(first)..=id(first | rest))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_prefix_is_any_beginning_of_an_id() {
        let ids = |prefix| {
            let ids = beginning_with(prefix).map(|ids| (ids.start().to_string(), ids.end().to_string()));
            ids.map_err(|error| error.status)
        };
        let range = |from: &str, through: &str| Ok((from.to_owned(), through.to_owned()));
        let all = range("00000000-0000-0000-0000-000000000000", "ffffffff-ffff-ffff-ffff-ffffffffffff");
        assert_eq!(ids(""), all);
        let some = range("6f1c9d3e-5000-0000-0000-000000000000", "6f1c9d3e-5fff-ffff-ffff-ffffffffffff");
        assert_eq!((ids("6f1c9d3e-5"), ids("6F1C9D3E5")), (some.clone(), some));
        let whole = "6f1c9d3e-5a40-4a39-9d3b-0d3f7d7c1a01";
        assert_eq!(ids(whole), range(whole, whole));
        for wrong in ["x", "6f1c9d3e-5a40-4a39-9d3b-0d3f7d7c1a010", "+1", " "] {
            assert_eq!(ids(wrong), Err(StatusCode::BAD_REQUEST), "{wrong}");
        }
    }
}
