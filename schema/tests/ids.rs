//! Checks ids by the rules of PROTOCOL 1 and 6: with tables of invalid texts, and with the rules as regular
//! expressions.
use proptest::{prelude::*, test_runner::FileFailurePersistence::WithSource};
use rollcall_schema::{AgentId, AgentLabel, Audience, ClassroomId, LessonId, Role, RoomId, Sid, Subject, UserId};

const UUID: &str = "5c2f2c26-6b1c-4a4b-9d4e-2b9f5a3f7d10";

/// Texts that would be wildcards, or would add a token or a command, in a subject, a key or a query.
const HOSTILE: [&str; 23] = [
    "",
    "*",
    ">",
    ".",
    "..",
    " ",
    "a b",
    "a.*",
    "a.>",
    ".a",
    "a.",
    "a..b",
    "\r\n",
    "a\r\nb",
    "a\n",
    "\0",
    "a\0b",
    "\u{1b}[31m",
    "' OR 1=1",
    "a;b",
    "a:b",
    "ünïcode",
    "a\u{202e}b",
];

type Check = fn(&str) -> bool;

fn every_check() -> [(&'static str, Check); 7] {
    [
        ("lesson_id", |text| LessonId::parse(text).is_ok()),
        ("agent_label", |text| AgentLabel::parse(text).is_ok()),
        ("sub", |text| UserId::parse(text).is_ok()),
        ("aud", |text| Audience::parse(text).is_ok()),
        ("classroom_id", |text| ClassroomId::parse(text).is_ok()),
        ("sid", |text| Sid::parse(text).is_ok()),
        ("agent_id", |text| AgentId::parse(text).is_ok()),
    ]
}

#[test]
fn hostile_texts_are_no_ids() {
    for (kind, is_valid) in every_check() {
        for text in HOSTILE {
            // These texts are valid in a sub, because its dots and signs are encoded in an agent's id.
            let fine = kind == "sub" && [".", "..", ".a", "a.", "a..b", "a;b", "a:b"].contains(&text);
            assert_eq!(is_valid(text), fine, "{text:?} as {kind}");
        }
    }
}

#[test]
fn hostile_texts_are_no_part_of_an_id() {
    for text in HOSTILE {
        // Further labels make a longer host name, which is not hostile.
        let longer_name = matches!(text, "a..b");
        for agent in
            [format!("{text}.alice.example.org"), format!("web.{text}.example.org"), format!("web.alice.{text}")]
        {
            assert!(AgentId::parse(&agent).is_err() || longer_name, "{agent:?}");
        }
        for subject in
            [format!("lesson.{text}.note"), format!("classroom.{text}.note"), format!("lesson.algebra.{text}")]
        {
            assert!(Subject::parse(&subject).is_err(), "{subject:?}");
        }
    }
}

#[test]
fn lengths_have_limits() {
    let of = |length: usize| "a".repeat(length);
    // Each of these characters takes three in an agent's id.
    let user = UserId::parse(&".".repeat(128)).expect("128 characters");
    let label = AgentLabel::parse(&of(64)).expect("64 characters");
    let agent = AgentId::new(&label, &user, &Audience::parse("example.org").expect("a name"));
    assert_eq!(AgentId::parse(agent.as_str()).map(|agent| agent.user()), Ok(user));
    assert!(AgentId::parse(&agent.as_str().replacen(".%", ".%2E%", 1)).is_err(), "129");
    assert!(LessonId::parse(&of(64)).is_ok() && LessonId::parse(&of(65)).is_err());
    assert!(AgentLabel::parse(&of(64)).is_ok() && AgentLabel::parse(&of(65)).is_err());
    assert!(UserId::parse(&of(128)).is_ok() && UserId::parse(&of(129)).is_err());
    assert!(Audience::parse(&of(63)).is_ok() && Audience::parse(&of(64)).is_err());
    let name = |last| format!("{0}.{0}.{0}.{1}", of(63), of(last));
    assert!(Audience::parse(&name(61)).is_ok() && Audience::parse(&name(62)).is_err());
}

#[test]
fn a_sub_is_never_the_key_of_a_lesson() {
    for text in ["lesson_teacher_42", "lesson_student_42", "lesson_seat_42", "lesson_", "rollcall:", "rollcall:x"] {
        assert!(UserId::parse(text).is_err(), "{text}");
        assert!(AgentId::parse(&format!("web.{text}.example.org")).is_err(), "{text}");
    }
    assert!(UserId::parse("lesson").is_ok());
    assert!(UserId::parse("rollcall").is_ok());
    assert!(UserId::parse("my_lesson_42").is_ok());
}

#[test]
fn a_sub_is_encoded_in_an_agent_s_id_in_one_way() {
    let agent = |sub: &str| {
        let user = UserId::parse(sub).expect("a sub");
        let (label, audience) = (AgentLabel::parse("web"), Audience::parse("example.org"));
        let agent = AgentId::new(&label.expect("a label"), &user, &audience.expect("a name"));
        assert_eq!(agent.user(), user);
        AgentId::parse(agent.as_str()).expect("its own text").to_string()
    };
    for (sub, encoded) in [
        ("alice", "alice"),
        ("alice@school.example", "alice@school%2Eexample"),
        ("auth0|64f0", "auth0|64f0"),
        ("a_=+/@|~-Z9", "a_=+/@|~-Z9"),
        ("urn:x:1", "urn%3Ax%3A1"),
        ("..", "%2E%2E"),
        ("100%", "100%25"),
        ("a%2Eb", "a%252Eb"),
        ("a#b?c&d", "a%23b%3Fc%26d"),
    ] {
        assert_eq!(agent(sub), format!("web.{encoded}.example.org"));
    }
    for spelling in
        ["%61lice", "alice%2e", "alice%2", "alice%", "a:b", "a#b", "alice%00", "alice%0A", "alice%2A", "%FF"]
    {
        assert!(AgentId::parse(&format!("web.{spelling}.example.org")).is_err(), "{spelling}");
    }
    assert!(AgentId::parse("web.lesson%5F1.example.org").is_err(), "what stands as it is may not be encoded");
}

#[test]
fn a_sub_is_printable_without_what_is_special_somewhere() {
    for text in ["auth0|64f0", "alice@school.example", "a.b", "a;b", "a:b", "~", "`", "$(x)", "a,b", "<a"] {
        assert!(UserId::parse(text).is_ok(), "{text}");
    }
    for text in ["a b", "a*", "a>", "{a", "a}", "a\"", "a'", "a\\b", "a\tb", "a\u{7f}", "é", "a\u{202e}"] {
        assert!(UserId::parse(text).is_err(), "{text:?}");
    }
}

#[test]
fn an_agent_label_has_no_dot() {
    assert!(AgentLabel::parse("web.alice").is_err());
}

#[test]
fn a_classroom_is_written_with_hyphens() {
    assert!(ClassroomId::parse(UUID).is_ok());
    let upper = ClassroomId::parse(&UUID.to_uppercase()).expect("either case");
    assert_eq!(upper.to_string(), UUID);
    let simple = UUID.replace('-', "");
    for text in [&*simple, &format!("{{{UUID}}}"), &format!("urn:uuid:{UUID}"), &format!("{UUID} "), &UUID[1..]] {
        assert!(ClassroomId::parse(text).is_err(), "{text}");
    }
}

#[test]
fn an_audience_is_like_a_dns_name() {
    for good in ["localhost", "example.org", "svc.foxford.ru", "a-b.c1"] {
        assert!(Audience::parse(good).is_ok(), "{good}");
    }
    for bad in ["-a.org", "a-.org", "a_b.org", "a.-", "a.org."] {
        assert!(Audience::parse(bad).is_err(), "{bad}");
    }
}

#[test]
fn a_sid_has_one_spelling() {
    let sid = Sid(u128::MAX).to_string();
    assert_eq!(sid, "_____________________w");
    // The last character has unused bits, which must be zero.
    for text in
        ["_____________________x", "____________________w", "______________________w", "////////////////////////"]
    {
        assert!(Sid::parse(text).is_err(), "{text}");
    }
}

#[test]
fn roles_are_three_words() {
    for role in [Role::Teacher, Role::Participant, Role::Hub] {
        assert_eq!(role.as_str().parse(), Ok(role));
        assert_eq!(serde_json::to_string(&role).expect("a role"), format!("\"{role}\""));
    }
    assert_eq!(Role::default(), Role::Participant);
    for text in ["", "Teacher", "admin", "teacher "] {
        assert!(text.parse::<Role>().is_err(), "{text:?}");
    }
}

#[test]
fn errors_do_not_repeat_the_text() {
    let error = LessonId::parse("secret!").expect_err("not an id");
    assert_eq!(error.to_string(), "not a valid lesson_id");
    let error = serde_json::from_str::<LessonId>(r#""secret!""#).expect_err("not an id");
    assert!(!error.to_string().contains("secret"), "{error}");
}

fn audience() -> impl Strategy<Value = String> {
    "[a-z0-9]([a-z0-9-]{0,8}[a-z0-9])?(\\.[a-z0-9]([a-z0-9-]{0,8}[a-z0-9])?){0,3}"
}

fn sub() -> impl Strategy<Value = String> {
    let reserved = |text: &String| text.starts_with("lesson_") || text.starts_with("rollcall:");
    r#"[!#-&(-)+-=?-\[\]-z|~]{1,128}"#.prop_filter("a key that is not a user's", move |text| !reserved(text))
}

proptest! {
    #![proptest_config(ProptestConfig::with_failure_persistence(WithSource("regressions")))]

    #[test]
    fn ids_are_what_their_expressions_match(word in "[A-Za-z0-9_-]{1,64}", sub in sub(), audience in audience()) {
        prop_assert_eq!(LessonId::parse(&word).map(|id| id.to_string()), Ok(word.clone()));
        prop_assert_eq!(AgentLabel::parse(&word).map(|id| id.to_string()), Ok(word.clone()));
        prop_assert_eq!(UserId::parse(&sub).map(|id| id.to_string()), Ok(sub.clone()));
        prop_assert_eq!(Audience::parse(&audience).map(|id| id.to_string()), Ok(audience.clone()));
    }

    #[test]
    fn one_wrong_character_is_enough(word in "[A-Za-z0-9_-]{0,30}", wrong in "[^!-~]|[*>{}\"'\\\\]", rest in "[A-Za-z0-9_-]{0,30}") {
        let text = format!("{word}{wrong}{rest}");
        prop_assert!(LessonId::parse(&text).is_err());
        prop_assert!(AgentLabel::parse(&text).is_err());
        prop_assert!(UserId::parse(&text).is_err());
    }

    #[test]
    fn an_agent_id_splits_again(label in "[A-Za-z0-9_-]{1,64}", sub in sub(), audience in audience()) {
        let (label, sub, audience) = (
            AgentLabel::parse(&label).expect("matches"),
            UserId::parse(&sub).expect("matches"),
            Audience::parse(&audience).expect("matches"),
        );
        let agent = AgentId::new(&label, &sub, &audience);
        let again = AgentId::parse(agent.as_str()).expect("its own text");
        prop_assert_eq!((again.label(), again.user(), again.audience()), (label, sub, audience));
    }

    #[test]
    fn serde_agrees_with_parse(text in "\\PC{0,12}|[A-Za-z0-9_-]{1,70}") {
        let json = serde_json::to_string(&text).expect("a text");
        prop_assert_eq!(serde_json::from_str::<LessonId>(&json).ok(), LessonId::parse(&text).ok());
        if let Ok(id) = LessonId::parse(&text) {
            prop_assert_eq!(serde_json::to_string(&id).expect("an id"), json);
        }
    }

    #[test]
    fn sids_and_classrooms_are_read_back(number: u128) {
        let sid = Sid(number);
        prop_assert_eq!(sid.to_string().len(), 22);
        prop_assert_eq!(Sid::parse(&sid.to_string()), Ok(sid));
        let classroom = ClassroomId(uuid::Uuid::from_u128(number));
        prop_assert_eq!(ClassroomId::parse(&classroom.to_string()), Ok(classroom));
    }

    #[test]
    fn subjects_are_read_back(lesson in "[A-Za-z0-9_-]{1,64}", entity in "[A-Za-z0-9_-]{1,64}", number: u128) {
        let classroom = ClassroomId(uuid::Uuid::from_u128(number));
        for room in [RoomId::Lesson(LessonId::parse(&lesson).expect("matches")), RoomId::Classroom(classroom)] {
            let text = format!("{room}.{entity}");
            let subject = Subject::parse(&text).expect("both parts are words");
            prop_assert_eq!(subject.to_string(), text);
            prop_assert_eq!(subject.room, room);
        }
    }

    #[test]
    fn no_text_makes_a_check_panic(text in any::<String>()) {
        for (_, is_valid) in every_check() {
            is_valid(&text);
        }
        let _ = Subject::parse(&text);
    }
}

#[test]
fn a_classroom_is_fed_by_both_spellings_of_its_uuid() {
    let filters = |room: &str| {
        let room = Subject::parse(&format!("{room}.note")).expect("a subject").room;
        room.filters().collect::<Vec<_>>()
    };
    let [lower, upper] = ["5c2f2c26-6b1c-4a4b-9d4e-2b9f5a3f7d10", "5C2F2C26-6B1C-4A4B-9D4E-2B9F5A3F7D10"];
    for spelling in [lower, upper] {
        let both = [lower, upper].map(|id| format!("classroom.{id}.*"));
        assert_eq!(filters(&format!("classroom.{spelling}")), both);
    }
    let digits = "classroom.11111111-1111-4111-8111-111111111111";
    assert_eq!(filters(digits), [format!("{digits}.*")]);
    assert_eq!(filters("lesson.algebra-1"), ["lesson.algebra-1.*"]);
}
