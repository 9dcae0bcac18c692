//! The first run: a demo lesson, tokens for it, and a command that joins it. The console uses the demo for its try
//! page.
use std::{net::SocketAddr, time::Duration};

use rollcall_schema::{Audience, ClassroomId, LessonId, Role, Seat, UserId};
use uuid::Uuid;

use crate::auth::{TokenSpec, mint};
use rollcall_base::Secret;
use rollcall_store::{AttendeeRow, LessonRow, LoadError, Store};

/// The demo's classroom.
pub const CLASSROOM: ClassroomId = ClassroomId(Uuid::from_u128(0xde30_0000_0000_4000_8000_0000_0000_0001));
/// The demo's lesson, which is in the demo's classroom.
pub const LESSON: &str = "demo";
const SEATS: u32 = 12;
/// The users: a teacher without a seat, and participants with the seats from seat 1 on.
pub const USERS: [(&str, Role); 4] =
    [("alice", Role::Teacher), ("bob", Role::Participant), ("carol", Role::Participant), ("dave", Role::Participant)];
const AUDIENCE: &str = "example.org";
/// How long the printed tokens are valid.
const LIFETIME: Duration = Duration::from_secs(24 * 60 * 60);

fn lesson() -> LessonId {
    LessonId::parse(LESSON).expect("the demo's lesson has a valid id")
}

fn user(name: &str) -> UserId {
    UserId::parse(name).expect("the demo's users have valid ids")
}

/// Creates the demo's lesson if the database has no lesson. Returns whether it was created.
///
/// # Errors
/// Returns a [`LoadError`] if the database is away.
pub async fn seed(store: &dyn Store) -> Result<bool, LoadError> {
    if !store.has_no_lesson().await? {
        return Ok(false);
    }
    let mut load = store.begin_load().await?;
    load.lessons(vec![LessonRow { id: lesson(), classroom: CLASSROOM, seats: SEATS }]).await?;
    let participants = USERS.iter().filter(|(_, role)| *role == Role::Participant).zip(1..);
    let attendees =
        participants.map(|((name, _), seat)| AttendeeRow { lesson: lesson(), user: user(name), seat: Seat(seat) });
    load.attendees(attendees.collect()).await?;
    load.commit().await?;
    Ok(true)
}

/// Signs the demo's tokens with a development secret that the gateway created.
#[derive(Clone, Debug)]
pub struct Demo {
    /// The development secret.
    pub secret: Secret,
    /// The audience of the tokens if one is configured.
    pub audience: Option<Audience>,
    /// The origin that clients connect to, like `ws://127.0.0.1:8080`.
    pub origin: String,
}

impl Demo {
    /// Returns a token for one of the demo's users.
    #[must_use]
    pub fn token(&self, name: &str, role: Role) -> String {
        let default = || Audience::parse(AUDIENCE).expect("the demo has a valid audience");
        let spec = TokenSpec {
            issuer: "rollcall".into(),
            user: user(name),
            audience: self.audience.clone().unwrap_or_else(default),
            role,
            lifetime: LIFETIME,
            lesson_id: None,
            classroom_ids: Vec::new(),
            lesson_ids: Vec::new(),
            info: None,
        };
        mint(&self.secret, &spec)
    }
}

/// Returns the origin that clients connect to, as a page writes it.
#[must_use]
pub fn origin(clients: SocketAddr, tls: bool) -> String {
    let scheme = if tls { "wss" } else { "ws" };
    // A content security policy cannot contain an IPv6 address.
    if clients.is_ipv6() { format!("{scheme}://localhost:{}", clients.port()) } else { format!("{scheme}://{clients}") }
}

/// Returns the text that a start with the development secret prints: tokens, and a command to paste.
#[must_use]
pub fn welcome(demo: &Demo) -> String {
    let [(teacher_name, teacher_role), (participant_name, participant_role), ..] = USERS;
    let teacher = demo.token(teacher_name, teacher_role);
    let participant = demo.token(participant_name, participant_role);
    let origin = &demo.origin;
    // The text is written by hand to keep the protocol's order of fields.
    let connect = format!(
        r#"{{"type":"connect_request","payload":{{"token":"{participant}","classroom_id":"{CLASSROOM}","agent_label":"web"}}}}"#
    );
    let join = format!(r#"{{"type":"join_lesson","ref":1,"payload":{{"lesson_id":"{LESSON}"}}}}"#);
    format!(
        "\n\
         No key is configured, so tokens are signed with a development secret that is kept beside the database.\n\
         \n\
         classroom {CLASSROOM}, lesson {LESSON}\n\
         {teacher_name}, a teacher:\n  {teacher}\n\
         {participant_name}, a participant:\n  {participant}\n\
         \n\
         {participant_name} enters and joins, with Node.js (any WebSocket client will do, websocat for one):\n  \
         paste: npx -y wscat -c {origin}/ws -w 5 -x '{connect}' -x '{join}'\n"
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        auth::{Keyring, Sources},
        http_client::egress::Egress,
    };
    use rollcall_store::{Lessons, Schema, sqlite::SqliteStore};

    #[tokio::test]
    async fn only_an_empty_database_gets_a_demo() {
        let folder = tempfile::tempdir().unwrap();
        let store = SqliteStore::open(folder.path().join("x.db")).unwrap();
        store.migrate().await.unwrap();
        assert!(seed(&store).await.unwrap());
        assert!(!store.has_no_lesson().await.unwrap());
        assert!(!seed(&store).await.unwrap());
    }

    #[test]
    fn the_printed_tokens_are_valid_and_the_command_has_one() {
        let secret = Secret::new("a secret for tests alone, long enough for HS256");
        let origin = origin("127.0.0.1:1".parse().unwrap(), false);
        let text = welcome(&Demo { secret: secret.clone(), audience: None, origin });
        let keyring = Keyring::new(Sources::from_secret(secret), &Egress::direct());
        let tokens: Vec<_> = text.lines().map(str::trim).filter(|line| line.starts_with("ey")).collect();
        let roles: Vec<_> = tokens.iter().map(|token| keyring.verify(token).unwrap().role).collect();
        assert_eq!(roles, [Role::Teacher, Role::Participant]);
        let line = text.lines().find_map(|line| line.trim().strip_prefix("paste: ")).unwrap();
        assert!(line.contains("ws://127.0.0.1:1/ws") && line.contains(tokens[1]) && line.contains("join_lesson"));
    }
}
