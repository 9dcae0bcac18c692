use tokio::sync::oneshot;

use super::*;

fn questions() -> Questions {
    Questions::new("here".to_owned(), "Q".to_owned())
}

/// Begins a round trip for one caller. Returns the written bytes and the receiver of the answer.
fn asked(questions: &mut Questions) -> (String, oneshot::Receiver<Result<State, StateError>>) {
    let (waiter, answer) = oneshot::channel();
    (String::from_utf8(questions.ask(vec![waiter])).expect("text"), answer)
}

/// Answers the last message.
fn hear(questions: &mut Questions, head: &str, body: &str) -> Heard {
    let subject = format!("{}{}", questions.inbox, questions.number);
    questions.hear(&subject, head.as_bytes(), body.as_bytes(), Instant::now())
}

fn state(leader: Option<&str>) -> String {
    let cluster = leader.map(|leader| format!(r#","cluster":{{"leader":"{leader}"}}"#)).unwrap_or_default();
    format!(r#"{{"created":"now","state":{{"first_seq":1,"last_seq":7,"bytes":0}}{cluster}}}"#)
}

fn is_refused_message(written: &[u8]) -> bool {
    written.starts_with(b"HPUB classroom.$probe")
}

const NOBODY: &str = "NATS/1.0 503\r\n\r\n";

#[tokio::test]
async fn on_the_server_that_leads_the_stream_one_message_is_enough() {
    for leader in [None, Some("here")] {
        let mut questions = questions();
        for _ in 0..2 {
            let (written, _answer) = asked(&mut questions);
            assert!(written.starts_with("PUB Q "), "{written}");
            assert!(matches!(hear(&mut questions, "", &state(leader)), Heard::Answer(Answer { state: Ok(_), .. })));
        }
    }
}

#[tokio::test]
async fn elsewhere_a_refused_message_goes_before_and_again_for_another_leader() {
    let mut questions = questions();
    asked(&mut questions);
    for leader in ["a", "b"] {
        let Heard::Next(written) = hear(&mut questions, "", &state(Some(leader))) else { panic!("not proved") };
        assert!(is_refused_message(&written));
        let Heard::Next(written) = hear(&mut questions, "", "{}") else { panic!("not asked") };
        assert!(written.starts_with(b"PUB Q "));
    }
    let Heard::Answer(answer) = hear(&mut questions, "", &state(Some("b"))) else { panic!("no answer") };
    assert!(!answer.interrupted);
    // If another server is known to lead the stream, the refused message goes first.
    assert!(asked(&mut questions).0.starts_with("HPUB"));
    // No server takes the message. That proves nothing, and events that the leader republished may be lost.
    assert!(matches!(hear(&mut questions, NOBODY, ""), Heard::Nothing));
    assert!(matches!(questions.again(), Again::Next(written) if written.starts_with(b"PUB Q ")));
    assert!(
        matches!(hear(&mut questions, "", &state(Some("b"))), Heard::Next(written) if is_refused_message(&written))
    );
    assert!(matches!(hear(&mut questions, "", "{}"), Heard::Next(_)));
    let Heard::Answer(answer) = hear(&mut questions, "", &state(Some("b"))) else { panic!("no answer") };
    assert!(answer.state.is_ok() && answer.interrupted);
}

#[tokio::test]
async fn a_refused_message_that_got_lost_is_an_interruption_and_one_that_is_late_is_none() {
    for lost in [true, false] {
        let mut questions = questions();
        questions.leader = Some("a".to_owned());
        let (_, _answer) = asked(&mut questions);
        let first = format!("{}{}", questions.inbox, questions.number);
        assert!(matches!(questions.again(), Again::Next(written) if is_refused_message(&written)));
        let answered = if lost { format!("{}{}", questions.inbox, questions.number) } else { first };
        assert!(matches!(questions.hear(&answered, b"", b"{}", Instant::now()), Heard::Next(_)));
        let Heard::Answer(answer) = hear(&mut questions, "", &state(Some("a"))) else { panic!("no answer") };
        assert_eq!(answer.interrupted, lost);
    }
}

#[tokio::test(start_paused = true)]
async fn a_question_is_asked_again_and_then_given_up() {
    let mut questions = questions();
    let (_, answer) = asked(&mut questions);
    let first = format!("{}{}", questions.inbox, questions.number);
    tokio::time::advance(ASK_AGAIN).await;
    assert_eq!(questions.due(), Some(Instant::now()));
    assert!(matches!(questions.again(), Again::Next(_)));
    // The first message is answered late.
    assert!(matches!(questions.hear(&first, b"", state(None).as_bytes(), Instant::now()), Heard::Answer(_)));
    drop(answer);
    asked(&mut questions);
    tokio::time::advance(CALL_TIMEOUT).await;
    assert!(matches!(questions.again(), Again::GivenUp { in_cluster: false }) && !questions.is_waiting());
}
