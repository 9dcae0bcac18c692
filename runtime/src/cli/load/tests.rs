//! Valid and invalid files, loaded into SQLite.
use std::path::PathBuf;

use tempfile::TempDir;

use super::*;
use rollcall_schema::Role;
use rollcall_store::{
    Join, Joined, LessonChange, LessonJoins, Lessons, NodeLeases, Registration, Schema, sqlite::SqliteStore,
};

const ROOM: &str = "2b5c0e0c-8f7c-4b0a-9d54-0a8cf9d1c001";

struct Bench {
    store: SqliteStore,
    folder: TempDir,
}

impl Bench {
    async fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let store = SqliteStore::open(folder.path().join("x.db")).unwrap();
        store.migrate().await.unwrap();
        Self { store, folder }
    }

    fn file(&self, name: &str, text: impl AsRef<[u8]>) -> Option<PathBuf> {
        let path = self.folder.path().join(name);
        std::fs::write(&path, text).unwrap();
        Some(path)
    }

    async fn load(&self, lessons: impl AsRef<[u8]>, attendees: impl AsRef<[u8]>) -> Result<Loaded, String> {
        let files =
            LoadArgs { lessons: self.file("lessons.csv", lessons), attendees: self.file("attendees.csv", attendees) };
        load(&self.store, &files).await.map_err(|fault| fault.to_string())
    }

    /// Returns what a join reads: the lesson's seats, and the user's own attendance.
    async fn joined(&self, lesson: &str, user: &str) -> Joined {
        let registration = Registration {
            label: "test".into(),
            lease: std::time::Duration::from_secs(15),
            standalone: true,
            process: None,
        };
        let lease = self.store.register(&registration).await.unwrap();
        let join = Join {
            sid: rollcall_schema::Sid::random(),
            session: None,
            change: LessonChange::default().next(),
            classroom: ClassroomId::parse(ROOM).unwrap(),
            lesson: LessonId::parse(lesson).unwrap(),
            user: Some((UserId::parse(user).unwrap(), Role::Participant)),
            keep: false,
        };
        self.store.join(lease, &[join]).await.unwrap().remove(0)
    }
}

fn lessons(rows: &str) -> String {
    format!("lesson_id,classroom_id,seats\n{rows}")
}

fn attendees(rows: &str) -> String {
    format!("lesson_id,user_id,seat\n{rows}")
}

#[tokio::test]
async fn both_files_are_loaded() {
    let bench = Bench::new().await;
    let loaded = bench
        .load(
            format!("\u{feff}{}", lessons(&format!("algebra-1,{ROOM},12\r\n algebra-2 , {ROOM} , 3\r\n"))),
            attendees("algebra-1,alice,1\nalgebra-1,bob,2\n\"algebra-2\",\"a+b/c=\",3\n"),
        )
        .await;
    assert_eq!(loaded, Ok(Loaded { lessons: 2, attendees: 3 }));
    assert_eq!(
        bench.joined("algebra-1", "bob").await,
        Joined::Lesson { seats: 12, seat: Some(Seat(2)), shared: false }
    );
    assert_eq!(
        bench.joined("algebra-2", "a+b/c=").await,
        Joined::Lesson { seats: 3, seat: Some(Seat(3)), shared: false }
    );
}

#[tokio::test]
async fn rows_that_are_there_are_overwritten_also_within_a_file() {
    let bench = Bench::new().await;
    bench.load(lessons(&format!("a,{ROOM},1")), attendees("a,bob,1")).await.unwrap();
    bench.load(lessons(&format!("a,{ROOM},5\na,{ROOM},7")), attendees("a,bob,3\na,bob,4")).await.unwrap();
    assert_eq!(bench.joined("a", "bob").await, Joined::Lesson { seats: 7, seat: Some(Seat(4)), shared: false });
}

#[tokio::test]
async fn a_bad_row_is_named_and_nothing_is_loaded() {
    let good = format!("a,{ROOM},3\n");
    let cases = [
        (lessons(&format!("{good}b,{ROOM},none\n")), attendees(""), "lessons.csv, line 3, column 3 (seats): \"none\""),
        (lessons(&format!("{good}b,nowhere,3\n")), attendees(""), "lessons.csv, line 3, column 2 (classroom_id)"),
        (lessons(&format!("{good}b.c,{ROOM},3\n")), attendees(""), "lessons.csv, line 3, column 1 (lesson_id)"),
        (lessons(&format!("{good}b,{ROOM},0\n")), attendees(""), "lessons.csv, line 3, column 3 (seats)"),
        (lessons(&format!("{good}b,{ROOM},99999999999\n")), attendees(""), "line 3, column 3 (seats)"),
        (lessons(&format!("{good}b,{ROOM}\n")), attendees(""), "lessons.csv, line 3, column 3 (seats): the row has 2"),
        (lessons(&format!("{good}b,{ROOM},3,4\n")), attendees(""), "lessons.csv, line 3, column 4: the row has 4"),
        (good.clone(), attendees(""), "lessons.csv, line 1, column 1 (lesson_id): the first line must be"),
        (String::new(), attendees(""), "lessons.csv, line 1, column 1"),
        (lessons(&good), attendees("a,bob,1\n\na,lesson_bob,1\n"), "attendees.csv, line 4, column 2 (user_id)"),
        (
            lessons(&good),
            "\r\nlesson_id,user_id,seat\r\n\r\na,bob,1\r\na,bob,x".into(),
            "attendees.csv, line 5, column 3",
        ),
        (lessons(&good), attendees("a,bob,-1\n"), "attendees.csv, line 2, column 3 (seat): \"-1\""),
        (lessons(&good), attendees("a,bob,1\nz,bob,1\n"), "attendees.csv, line 3, column 1 (lesson_id): there is no"),
    ];
    for (lessons, attendees, expected) in cases {
        let bench = Bench::new().await;
        let fault = bench.load(lessons, attendees).await.unwrap_err();
        assert!(fault.contains(expected) && fault.ends_with("nothing was loaded"), "{expected} in {fault}");
        assert!(bench.store.has_no_lesson().await.unwrap(), "{expected}");
    }
}

#[tokio::test]
async fn a_bad_row_far_down_is_named_too() {
    let bench = Bench::new().await;
    let rows: String = (0..2 * BATCH).map(|row| format!("lesson-{row},{ROOM},3\n")).collect();
    let people: String = (0..2 * BATCH).map(|row| format!("lesson-{row},bob,1\n")).collect();
    let fault = bench.load(lessons(&rows), attendees(&format!("{people}nowhere,bob,1\n"))).await.unwrap_err();
    assert!(fault.contains(&format!("attendees.csv, line {}, column 1", 2 * BATCH + 2)), "{fault}");
    assert!(bench.store.has_no_lesson().await.unwrap());
}

#[tokio::test]
async fn bytes_that_are_no_text_are_named() {
    let bench = Bench::new().await;
    let mut rows = lessons(&format!("a,{ROOM},3\n")).into_bytes();
    rows.extend_from_slice(b"b,\xff\xfe,3\n");
    let fault = bench.load(rows, attendees("")).await.unwrap_err();
    assert!(fault.contains("lessons.csv, line 3, column 2 (classroom_id): not UTF-8"), "{fault}");
}

#[tokio::test]
async fn a_missing_file_is_named() {
    let bench = Bench::new().await;
    let files = LoadArgs { lessons: Some("/nowhere/lessons.csv".into()), attendees: None };
    let fault = load(&bench.store, &files).await.unwrap_err().to_string();
    assert!(fault.starts_with("/nowhere/lessons.csv: "), "{fault}");
}
