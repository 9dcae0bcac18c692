//! The examples in the descriptions of both protocols, the packets for which the reference implementation closes a
//! connection, and properties.
use proptest::prelude::*;
use rollcall_socketio::{
    Attachments, Event, Kind, Malformed, Packet,
    engine::{EnginePacket, Open, Query, RequestError, Transport, payload, push_binary, push_message, push_packet},
};

fn packet<'a>(kind: Kind, namespace: &'a str, id: Option<u64>, data: &'a str) -> Packet<'a> {
    Packet { kind, attachments: 0, namespace, id, data }
}

#[test]
fn the_descriptions_examples_are_read_and_written() {
    let examples = [
        ("0", packet(Kind::Connect, "/", None, "")),
        (
            r#"0/admin,{"sid":"oSO0OpakMV_3jnilAAAA"}"#,
            packet(Kind::Connect, "/admin", None, r#"{"sid":"oSO0OpakMV_3jnilAAAA"}"#),
        ),
        (r#"4{"message":"Not authorized"}"#, packet(Kind::ConnectError, "/", None, r#"{"message":"Not authorized"}"#)),
        (r#"2["foo"]"#, packet(Kind::Event, "/", None, r#"["foo"]"#)),
        (r#"2/admin,["bar"]"#, packet(Kind::Event, "/admin", None, r#"["bar"]"#)),
        (r#"212["foo"]"#, packet(Kind::Event, "/", Some(12), r#"["foo"]"#)),
        (r#"3/admin,13["bar"]"#, packet(Kind::Ack, "/admin", Some(13), r#"["bar"]"#)),
        ("1", packet(Kind::Disconnect, "/", None, "")),
        ("1/admin,", packet(Kind::Disconnect, "/admin", None, "")),
        (
            r#"51-["baz",{"_placeholder":true,"num":0}]"#,
            Packet {
                attachments: 1,
                ..packet(Kind::BinaryEvent, "/", None, r#"["baz",{"_placeholder":true,"num":0}]"#)
            },
        ),
        (
            r#"61-15["bar",{"_placeholder":true,"num":0}]"#,
            Packet {
                attachments: 1,
                ..packet(Kind::BinaryAck, "/", Some(15), r#"["bar",{"_placeholder":true,"num":0}]"#)
            },
        ),
    ];
    for (text, expected) in examples {
        assert_eq!(Packet::parse(text), Ok(expected), "{text}");
        assert_eq!(String::from_utf8(expected.encode()).as_deref(), Ok(text));
    }
    // Clients may leave out the data and the last comma.
    for (text, kind) in [("2", Kind::Event), ("3", Kind::Ack)] {
        assert_eq!(Packet::parse(text), Ok(packet(kind, "/", None, "")), "{text}");
    }
    assert_eq!(Packet::parse("299999999999999999999[7]"), Ok(packet(Kind::Event, "/", Some(u64::MAX), "[7]")));
    assert_eq!(Packet::parse("0/custom"), Ok(packet(Kind::Connect, "/custom", None, "")));
}

#[test]
fn what_the_reference_closes_for_is_malformed() {
    let faults = [
        "",
        "7",
        "abc",
        "x[]",
        "2{}",
        r#"2abc["a"]"#,
        "2[",
        r#"2["a"]x"#,
        "0[]",
        "1{}",
        "3{}",
        "4[]",
        "5",
        r#"5["a"]"#,
        r#"511-["a"]"#,
        r#"5-1-["a"]"#,
        r#"50-["a"]"#,
        r#"51["a"]"#,
    ];
    for text in faults {
        assert_eq!(Packet::parse(text), Err(Malformed), "{text}");
    }
    for data in ["[]", "[null]", "[{}]", r#"["connect"]"#, r#"["disconnecting",1]"#, r#"["\u0063onnect"]"#, "{}"] {
        assert!(Event::parse(data).is_err(), "{data}");
    }
}

#[test]
fn an_event_has_a_name_and_a_first_argument() {
    let event = Event::parse(r#"["join_lesson",{"lesson_id":"a"},[1,2],"more"]"#).expect("an event");
    assert_eq!((&*event.name, event.argument.map(|raw| raw.get())), ("join_lesson", Some(r#"{"lesson_id":"a"}"#)));
    let event = Event::parse(r#"[7]"#).expect("an event");
    assert_eq!((&*event.name, event.argument.is_none()), ("7", true));
    let event = Event::parse(r#"["\ud800"]"#).expect("an event");
    assert_eq!(&*event.name, r#""\ud800""#);
    let nested = format!(r#"["a",{}{}]"#, "[".repeat(5_000), "]".repeat(5_000));
    assert!(Event::parse(&nested).is_ok(), "nesting costs no stack");
}

#[test]
fn attachments_are_bounded_and_named_by_placeholders() {
    let text = r#"52-["a",{"_placeholder":true,"num":1},{"x":[{"num":0,"_placeholder":true}]}]"#;
    let read = Packet::parse(text).expect("a packet");
    let mut parts = Attachments::new(text, &read, text.len() + 5).expect("placeholders");
    parts.push(&[1, 2]).expect("room");
    assert!(!parts.is_whole());
    assert_eq!(parts.push(&[0; 4]), Err(Malformed));
    let mut parts = Attachments::new(text, &read, text.len() + 5).expect("placeholders");
    parts.push(&[1, 2]).expect("room");
    parts.push(&[3, 4, 5]).expect("room");
    assert!(parts.is_whole());
    assert_eq!(parts.into_parts().1, [vec![1, 2].into(), Box::<[u8]>::from([3, 4, 5])]);

    let parts = Packet::parse("51-").and_then(|packet| Attachments::new("51-", &packet, 8));
    assert!(parts.is_ok_and(|parts| !parts.is_whole()), "without data");
    let deep = format!(r#"51-["a",{}{}]"#, "[".repeat(500), "]".repeat(500));
    let beyond = r#"51-["a",{"_placeholder":true,"num":1}]"#;
    let without = r#"51-["a",{"_placeholder":true}]"#;
    for text in [deep.as_str(), beyond, without] {
        let read = Packet::parse(text).expect("a packet");
        assert!(Attachments::new(text, &read, 1 << 16).is_err(), "{text}");
    }
}

#[test]
fn engine_packets_and_requests() {
    assert_eq!(EnginePacket::parse("4hello"), Ok(EnginePacket::Message("hello")));
    for base64 in ["bAQIDBA==", "bAQIDBA", "bAQID\nBA==\n"] {
        assert_eq!(EnginePacket::parse(base64), Ok(EnginePacket::Binary(vec![1, 2, 3, 4])), "{base64:?}");
    }
    assert_eq!(EnginePacket::parse("3"), Ok(EnginePacket::Pong));
    for fault in ["", "2", "2probe", "abc", "b#", "7", "ä"] {
        assert_eq!(EnginePacket::parse(fault), Err(Malformed), "{fault}");
    }
    let mut body = Vec::new();
    push_message(b"hello", &mut body);
    push_packet("2", &mut body);
    push_binary(&[1, 2, 3, 4], &mut body);
    assert_eq!(payload(&body), b"4hello\x1e2\x1ebAQIDBA==");

    let begins = |query, is_get| Query::parse(query)?.check_handshake(is_get, Transport::Polling);
    for query in ["EIO=4", "EIO=4&transport=", "EIO=4&transport=Polling", "EIO=4&transport=webtransport"] {
        assert_eq!(begins(query, true), Err(RequestError::UnknownTransport), "{query}");
    }
    assert_eq!(begins("EIO=3&transport=polling", false), Err(RequestError::HandshakeMethod));
    assert_eq!(begins("EIO=3&transport=websocket", true), Err(RequestError::BadRequest));
    assert_eq!(begins("EIO=3&transport=polling", true), Err(RequestError::Version));
    assert_eq!(begins("EIO=3&transport=websocket&%45IO=4&sid=&transport=polling", true), Ok(()));
    let query = Query::parse("EIO=4&t=x&sid=a%2Eb&transport=websocket").expect("a query");
    assert_eq!(query.sid.as_deref(), Some("a.b"));
    assert_eq!(query.check_request(Transport::WebSocket), Ok(()));
    assert_eq!(query.check_request(Transport::Polling), Err(RequestError::BadRequest));
    let query = Query::parse("EIO=3&sid=a.b&transport=polling").expect("a query");
    assert_eq!(query.check_request(Transport::Polling), Err(RequestError::BadRequest));
    assert_eq!(RequestError::UnknownSession.body(), r#"{"code":1,"message":"Session ID unknown"}"#);
    let codes = [RequestError::UnknownTransport, RequestError::HandshakeMethod, RequestError::BadRequest];
    assert_eq!(codes.map(RequestError::code), [0, 2, 3]);
    assert_eq!(
        [RequestError::Forbidden, RequestError::Version].map(|error| (error.code(), error.status())),
        [(4, 403), (5, 400)]
    );

    let open =
        Open { sid: "a.b", upgrades: &["websocket"], ping_interval: 300, ping_timeout: 200, max_payload: 1_000_000 };
    let text = r#"0{"sid":"a.b","upgrades":["websocket"],"pingInterval":300,"pingTimeout":200,"maxPayload":1000000}"#;
    assert_eq!(open.packet(), text);
}

proptest! {
    #[test]
    fn no_text_breaks_the_parsers(text in ".{0,200}") {
        let _ = EnginePacket::parse(&text);
        let _ = Query::parse(&text);
        if let Ok(packet) = Packet::parse(&text) {
            let _ = Event::parse(packet.data);
            let _ = Attachments::new(&text, &packet, 1 << 16);
        }
    }

    #[test]
    fn what_is_written_is_read(kind in 2_u8..4, namespace in "(/[a-z]{1,8})", id in proptest::option::of(any::<u64>()), name in "[a-z_]{1,12}") {
        let data = serde_json::to_string(&[format!("x{name}")]).expect("JSON");
        let kind = if kind == 2 { Kind::Event } else { Kind::Ack };
        let written = packet(kind, &namespace, id, &data);
        let text = String::from_utf8(written.encode()).expect("UTF-8");
        prop_assert_eq!(Packet::parse(&text), Ok(written));
    }

    #[test]
    fn packets_around_noise_are_malformed_or_read(kind in 0_u8..8, rest in r#"[-/,0-9a-z{}\[\]":_]{0,40}"#) {
        let text = format!("{kind}{rest}");
        if let Ok(packet) = Packet::parse(&text) {
            let again = String::from_utf8(packet.encode()).expect("UTF-8");
            prop_assert_eq!(Packet::parse(&again), Ok(packet));
        }
    }
}
