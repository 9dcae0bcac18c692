#![allow(clippy::unwrap_used)]
use proptest::prelude::*;

use super::*;

/// An operation without borrowed parts.
type Said = (&'static str, String, u64, Vec<u8>, Vec<u8>);

fn said(op: Op<'_>) -> Said {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    match op {
        Op::Info(json) => ("info", text(json), 0, vec![], vec![]),
        Op::Error(error) => ("error", text(error), 0, vec![], vec![]),
        Op::Message(Message { subject, sid, head, body, .. }) => {
            ("message", subject.to_owned(), sid, head.to_vec(), body.to_vec())
        }
        Op::Dropped(_) => ("dropped", String::new(), 0, vec![], vec![]),
        Op::Ping => ("ping", String::new(), 0, vec![], vec![]),
        Op::Pong => ("pong", String::new(), 0, vec![], vec![]),
        Op::Ok => ("ok", String::new(), 0, vec![], vec![]),
    }
}

/// Reads pieces as a connection does: bytes that are not consumed are kept.
fn read<'a>(pieces: impl IntoIterator<Item = &'a [u8]>) -> Result<Vec<Said>, Malformed> {
    let (mut parser, mut kept, mut all) = (Parser::new(MAX_HEAD), Vec::new(), Vec::new());
    for piece in pieces {
        kept.extend_from_slice(piece);
        let mut at = 0;
        loop {
            let (used, op) = parser.next(&kept[at..])?;
            at += used;
            match op {
                Some(op) => all.push(said(op)),
                None if used == 0 => break,
                None => {}
            }
        }
        kept.drain(..at);
        assert!(kept.len() <= MAX_LINE + (2 * MAX_HEAD) + END.len() + piece.len(), "what is kept is bounded");
    }
    Ok(all)
}

const SCRIPT: &[u8] = b"INFO {\"tls_required\":false} \r\n+OK\r\nPING\r\npong\r\n-ERR 'Stale Connection'\r\n\
    MSG live.a 12 5\r\nhel\r\n\r\nmsg\tlive.b  7 _INBOX.x 0\r\n\r\nHMSG live.c 3 23 25\r\nNATS/1.0\r\nA: b\r\nC:d\r\n\r\n{}\r\n\
    HMSG live.d 4 _INBOX.y 12 12\r\nNATS/1.0\r\n\r\n\r\n";

fn script() -> Vec<Said> {
    let message = |subject: &str, sid, head: &[u8], body: &[u8]| -> Said {
        ("message", subject.to_owned(), sid, head.to_vec(), body.to_vec())
    };
    vec![
        ("info", "{\"tls_required\":false}".to_owned(), 0, vec![], vec![]),
        ("ok", String::new(), 0, vec![], vec![]),
        ("ping", String::new(), 0, vec![], vec![]),
        ("pong", String::new(), 0, vec![], vec![]),
        ("error", "'Stale Connection'".to_owned(), 0, vec![], vec![]),
        message("live.a", 12, b"", b"hel\r\n"),
        message("live.b", 7, b"", b""),
        message("live.c", 3, b"NATS/1.0\r\nA: b\r\nC:d\r\n\r\n", b"{}"),
        message("live.d", 4, b"NATS/1.0\r\n\r\n", b""),
    ]
}

#[test]
fn everything_a_server_says_is_understood() {
    assert_eq!(read([SCRIPT]).unwrap(), script());
}

#[test]
fn it_does_not_matter_where_the_bytes_are_split() {
    for place in 0..=SCRIPT.len() {
        let (first, second) = SCRIPT.split_at(place);
        assert_eq!(read([first, second]).unwrap(), script(), "split at {place}");
    }
    assert_eq!(read(SCRIPT.chunks(1)).unwrap(), script());
}

#[test]
fn what_is_too_large_is_left_out_alone() {
    let most = 2 * MAX_HEAD;
    let message = |size: usize| [format!("MSG a 1 {size}\r\n").as_bytes(), &vec![b'x'; size], END].concat();
    let all = [message(most), message(most + 1), message(MAX_ANNOUNCED / 16), b"PING\r\n".to_vec()].concat();
    for piece in [all.len(), 64 * 1024, 1000] {
        let kinds: Vec<_> = read(all.chunks(piece)).unwrap().into_iter().map(|said| said.0).collect();
        assert_eq!(kinds, ["message", "dropped", "dropped", "ping"]);
    }
}

#[test]
fn a_subject_that_is_no_text_costs_its_message() {
    let kinds: Vec<_> =
        read([&b"MSG \xff 1 2\r\n{}\r\nPING\r\n"[..]]).unwrap().into_iter().map(|said| said.0).collect();
    assert_eq!(kinds, ["dropped", "ping"]);
}

#[test]
fn what_is_no_operation_ends_the_connection() {
    let wrong: [&[u8]; 15] = [
        b"HELLO\r\n",
        b"\r\n",
        b"PING\n",
        b"MSG a 1\r\n",
        b"MSG a 1 r s 2\r\n",
        b"MSG a 1 b c d 2\r\n",
        b"MSG a 1 -1\r\n",
        b"MSG a 1 +1\r\n",
        b"MSG a 1 1e3\r\n",
        b"MSG a x 0\r\n\r\n",
        b"MSG a 1 99999999999999999999999\r\n",
        b"MSG a 1 67108865\r\n",
        b"HMSG a 1 3 2\r\n",
        b"HMSG a 1 2\r\n",
        b"MSG a 1 2\r\n{}PING",
    ];
    for input in wrong {
        assert!(read([input]).is_err(), "{}", String::from_utf8_lossy(input));
    }
    assert_eq!(read([&vec![b'x'; MAX_LINE][..]]), Err(Malformed("a line too long")));
    assert_eq!(read([&vec![b'x'; MAX_LINE - 1][..]]).unwrap(), []);
}

#[test]
fn headers_are_read_as_far_as_they_are_some() {
    let block = "NATS/1.0 503 None\r\nA: b\r\nno colon\r\n: nameless\r\nA:  c : d \r\n\tE : f\r\n\r\n";
    assert_eq!(headers(block).collect::<Vec<_>>(), [("A", "b"), ("", "nameless"), ("A", "c : d"), ("E", "f")]);
    assert_eq!(headers("").count() + headers("NATS/1.0").count() + headers("A: b").count(), 0);
}

proptest! {
    #[test]
    fn garbage_is_refused_or_waited_for(pieces in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..40), 0..40)) {
        let _ = read(pieces.iter().map(Vec::as_slice));
    }

    #[test]
    fn a_script_with_broken_bytes_never_panics(
        broken in prop::collection::vec((0..SCRIPT.len(), any::<u8>()), 0..4),
        piece in 1..64usize,
    ) {
        let mut script = SCRIPT.to_vec();
        for (place, byte) in broken {
            script[place] = byte;
        }
        let whole = read([&script[..]]);
        prop_assert_eq!(read(script.chunks(piece)).ok(), whole.ok());
    }

    #[test]
    fn messages_come_out_as_they_went_in(
        messages in prop::collection::vec(
            ("[a-z.]{1,20}", 0..u32::MAX, prop::collection::vec(any::<u8>(), 0..50), prop::collection::vec(any::<u8>(), 0..50)),
            0..20,
        ),
        piece in 1..200usize,
    ) {
        let mut bytes = Vec::new();
        let mut expected: Vec<Said> = Vec::new();
        for (subject, sid, head, body) in messages {
            bytes.extend(format!("HMSG {subject} {sid} {} {}\r\n", head.len(), head.len() + body.len()).bytes());
            bytes.extend([&head[..], &body, END].concat());
            expected.push(("message", subject, sid.into(), head, body));
        }
        prop_assert_eq!(read(bytes.chunks(piece)).unwrap(), expected);
    }
}
