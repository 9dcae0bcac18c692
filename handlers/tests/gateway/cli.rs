//! PROTOCOL 7, the command line: token, migrate, load, check.

use std::fmt::Write;
use std::fs;
use std::process::Output;
use std::time::Instant;

use crate::common::Backend;
use rollcall_loadtest::servers::{psql, shared};
use rollcall_loadtest::{Client, GatewayOptions};
use uuid::Uuid;

/// Where commands run: a folder and an empty database.
struct Place {
    folder: tempfile::TempDir,
    options: GatewayOptions,
    postgres: Option<String>,
}

impl Place {
    fn embedded() -> Self {
        let options = GatewayOptions::new(env!("CARGO_BIN_EXE_rollcall"));
        Self { folder: tempfile::tempdir().unwrap(), options, postgres: None }
    }

    fn real() -> Self {
        let place = Self::embedded();
        let url = crate::common::postgres().create_database().unwrap();
        let options = place.options.env("DATABASE_URL", &url).env("REDIS_URL", shared::redis().url());
        Self { options: options.env("NATS_URL", shared::nats().url()), postgres: Some(url), ..place }
    }

    fn both() -> [Self; 2] {
        [Self::embedded(), Self::real()]
    }

    fn run(&self, arguments: &[&str]) -> Output {
        let mut command = self.options.command();
        command.args(arguments).current_dir(self.folder.path()).output().unwrap()
    }

    fn count(&self, table: &str) -> i64 {
        let query = format!("select count(*) from {table}");
        match &self.postgres {
            Some(url) => psql(url, &query).unwrap().parse().unwrap(),
            None => {
                let database = rusqlite::Connection::open(self.folder.path().join("rollcall.db")).unwrap();
                database.query_row(&query, [], |row| row.get(0)).unwrap()
            }
        }
    }

    /// Writes both files and loads them.
    fn load(&self, lessons: &str, attendees: &str) -> Output {
        let write = |name, head, rows| fs::write(self.folder.path().join(name), format!("{head}\n{rows}")).unwrap();
        write("lessons.csv", "lesson_id,classroom_id,seats", lessons);
        write("attendees.csv", "lesson_id,user_id,seat", attendees);
        self.run(&["load", "--lessons", "lessons.csv", "--attendees", "attendees.csv"])
    }
}

fn stdout(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).unwrap()
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr)
}

#[tokio::test]
async fn a_token_stands_alone_on_stdout_and_opens_a_classroom() {
    let backend = Backend::embedded();
    let room = backend.classroom();
    let place = Place::embedded();
    for role in ["teacher", "participant"] {
        let sub = room.user(role);
        let output = place.run(&["token", "--sub", &sub, "--role", role]);
        assert!(output.status.success(), "{output:?}");
        let printed = stdout(&output);
        let token = printed.trim_end();
        assert_eq!(printed, format!("{token}\n"), "one line and nothing else");
        let mut client = Client::connect(backend.gateway.address()).await.unwrap();
        let success = client.connect_request(token, &room.id, "web").await.unwrap();
        let agent_id = success["agent_id"].as_str().unwrap();
        assert!(agent_id.starts_with(&format!("web.{sub}.")), "{agent_id}");
        let row = format!("select role from agent_session where id = {}", success["session_id"]);
        assert_eq!(backend.value(&row).await, role);
    }
}

#[test]
fn a_token_for_nobody_is_refused() {
    for arguments in [
        &["token", "--sub", "lesson_teacher_42", "--role", "teacher"][..],
        &["token", "--sub", "a b", "--role", "teacher"],
        &["token", "--sub", "alice", "--role", "headmaster"],
        &["token"],
    ] {
        let output = Place::embedded().run(arguments);
        assert!(!output.status.success() && output.stdout.is_empty(), "{arguments:?}: {output:?}");
    }
}

#[test]
fn migrate_makes_the_tables_and_may_be_repeated() {
    for place in Place::both() {
        for _ in 0..2 {
            let output = place.run(&["migrate"]);
            assert!(output.status.success(), "{output:?}");
        }
        for table in ["lesson", "lesson_attendee", "agent_session", "agent_session_history", "node"] {
            assert_eq!(place.count(table), 0, "{table}");
        }
    }
}

#[tokio::test]
async fn two_thousand_lessons_and_sixty_thousand_attendees_are_loaded() {
    let _held = crate::common::loads_the_machine().await;
    let (mut lessons, mut attendees) = (String::new(), String::new());
    for lesson in 0..2000 {
        writeln!(lessons, "lesson-{lesson},{},30", Uuid::new_v4()).unwrap();
        for seat in 1..=30 {
            writeln!(attendees, "lesson-{lesson},user-{seat},{seat}").unwrap();
        }
    }
    // The limits are longer than those that the documentation promises, because the binary under test is not optimised
    // and shares two cores.
    for (place, seconds) in Place::both().into_iter().zip([15.0, 30.0]) {
        let start = Instant::now();
        let output = place.load(&lessons, &attendees);
        let took = start.elapsed().as_secs_f64();
        assert!(output.status.success(), "{output:?}");
        assert_eq!((place.count("lesson"), place.count("lesson_attendee")), (2000, 60_000));
        assert!(took < seconds, "{took} s");
        // The same rows are loaded a second time, and no row is doubled.
        assert!(place.load(&lessons, "lesson-7,user-1,2\n").status.success());
        assert_eq!((place.count("lesson"), place.count("lesson_attendee")), (2000, 60_000));
    }
}

#[test]
fn a_bad_row_names_its_line_and_column_and_nothing_is_loaded() {
    let room = Uuid::new_v4();
    let good = format!("algebra,{room},3\n");
    let bad_lessons = [
        (format!("{good}biology,not-a-uuid,3\n"), "3", "classroom_id"),
        (format!("{good}biology,{room},many\n"), "3", "seats"),
        (format!("{good}biology,{room},-1\n"), "3", "seats"),
        (format!("{good}{good}bio logy,{room},3\n"), "4", "lesson_id"),
        (format!("{good}biology,{room},99999999999\n"), "3", "seats"),
    ];
    let bad_attendees = [
        ("algebra,alice,1\nalgebra,bob,none\n", "3", "seat"),
        ("algebra,alice,1\nalgebra,bob,0\n", "3", "seat"),
        ("algebra,alice,1\n\nalgebra,b b,2\n", "4", "user_id"),
        ("algebra,alice,1\nno-such-lesson,bob,2\n", "3", "lesson_id"),
    ];
    for place in Place::both() {
        assert!(place.run(&["migrate"]).status.success());
        for (lessons, line, column) in &bad_lessons {
            refused(&place, lessons, "", "lessons.csv", line, column);
        }
        for (attendees, line, column) in bad_attendees {
            refused(&place, &good, attendees, "attendees.csv", line, column);
        }
        refused(&place, &format!("{good}biology,{room}\n"), "", "lessons.csv", "3", "");
    }
}

fn refused(place: &Place, lessons: &str, attendees: &str, file: &str, line: &str, column: &str) {
    let output = place.load(lessons, attendees);
    let said = said(&output);
    assert!(!output.status.success(), "{said}");
    let line = [format!("line {line}"), format!("{file}:{line}")].iter().any(|place| said.contains(place));
    assert!(line && said.contains(column) && said.contains(file), "{file} {line} {column}: {said}");
    assert_eq!((place.count("lesson"), place.count("lesson_attendee")), (0, 0), "{said}");
}

#[test]
fn check_says_one_line_of_the_configuration_and_each_backend() {
    for (place, names) in Place::both().iter().zip([&["sqlite"][..], &["postgres", "redis", "nats"]]) {
        let output = place.run(&["check"]);
        let said = said(&output).to_lowercase();
        assert!(output.status.success(), "{said}");
        for name in names {
            assert!(said.lines().any(|line| line.contains(name)), "{name}: {said}");
        }
        assert!(said.lines().any(|line| line.contains("127.0.0.1:8080")), "the configuration: {said}");
    }
}

#[test]
fn check_says_which_backend_is_away() {
    let place = Place::real();
    // No server listens on port 1.
    for (variable, url, name) in [
        ("DATABASE_URL", "postgres://postgres@127.0.0.1:1/x", "postgres"),
        ("REDIS_URL", "redis://127.0.0.1:1", "redis"),
        ("NATS_URL", "nats://127.0.0.1:1", "nats"),
    ] {
        for verb in ["check", "serve"] {
            let mut command = place.options.clone().env(variable, url).command();
            command.args([verb]).env("ROLLCALL_LISTEN", "127.0.0.1:0").env("ROLLCALL_ADMIN_LISTEN", "127.0.0.1:0");
            let output = command.current_dir(place.folder.path()).output().unwrap();
            let said = said(&output).to_lowercase();
            assert!(!output.status.success(), "{verb} without {name}: {said}");
            // The message names the backend and says how to fix the fault.
            assert!(said.contains(name) && said.contains(&variable.to_lowercase()), "{verb} without {name}: {said}");
        }
    }
}

#[test]
fn the_help_of_a_command_shows_its_own_settings() {
    let place = Place::embedded();
    let help = |command: &str| String::from_utf8(place.run(&[command, "--help"]).stdout).unwrap();
    for command in ["token", "load", "check", "agents"] {
        let shown = help(command);
        assert!(!shown.contains("--ping-interval") && !shown.contains("ROLLCALL_EVENT_RATE"), "{shown}");
    }
    assert!(help("token").contains("ROLLCALL_HS256_SECRET") && help("token").contains("--audiences"));
    assert!(help("load").contains("--database-url") && help("check").contains("--nats-url"));
    assert!(help("agents").contains("--admin") && help("agents").contains("ROLLCALL_ADMIN_READ_TOKEN"));
    let all = String::from_utf8(place.run(&["--help"]).stdout).unwrap();
    assert!(all.contains("--ping-interval") && help("serve").contains("--ping-interval"));
    // The command accepts settings that its help does not show.
    assert!(place.run(&["migrate", "--ping-interval", "10s"]).status.success());
}

#[test]
fn help_is_a_command_and_a_wrong_id_is_answered_with_its_rule() {
    let place = Place::embedded();
    assert!(said(&place.run(&["help", "kick"])).contains("--session"));
    for (arguments, rule) in [
        (&["token", "--sub", "a b"][..], "1 to 128 printable ASCII characters"),
        (&["token", "--sub", "a", "--lesson-id", "a b"], "1 to 64 of A-Z"),
        (&["token", "--sub", "a", "--aud", "a b"], "is not a DNS name"),
        (&["agents", "7"], "a UUID of 36 characters"),
        (&["kick", "--agent", "bob"], "like web.alice.example.org"),
    ] {
        let output = place.run(arguments);
        assert!(output.status.code() == Some(64) && said(&output).contains(rule), "{arguments:?}: {output:?}");
    }
}

#[test]
fn a_role_that_is_none_is_answered_with_the_roles() {
    let output = Place::embedded().run(&["token", "--sub", "alice", "--role", "boss"]);
    let said = said(&output);
    assert_eq!(output.status.code(), Some(64), "{said}");
    assert!(["teacher", "participant", "hub"].iter().all(|role| said.contains(role)), "{said}");
}

#[test]
fn a_token_says_where_the_development_secret_was_made() {
    let place = Place::embedded();
    let place = Place { options: place.options.clone().without("ROLLCALL_HS256_SECRET"), ..place };
    let first = place.run(&["token", "--sub", "alice"]);
    assert!(first.status.success() && said(&first).contains("rollcall.db.secret"), "{first:?}");
    let second = place.run(&["token", "--sub", "alice"]);
    assert!(second.status.success() && second.stderr.is_empty(), "{second:?}");
}
