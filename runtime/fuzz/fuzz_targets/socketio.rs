//! Parses any message and any payload of Socket.IO. There must be no panic, and a parsed value that is encoded again
//! must be parsed to the same value.
#![no_main]
use libfuzzer_sys::fuzz_target;
use rollcall_socketio::{
    Attachments, Event, Packet,
    engine::{EnginePacket, Query, SEPARATOR},
};

fuzz_target!(|data: &[u8]| {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let _ = Query::parse(text);
    for part in text.split(char::from(SEPARATOR)) {
        if let Ok(EnginePacket::Message(message)) = EnginePacket::parse(part) {
            read(message);
        }
    }
    read(text);
});

fn read(text: &str) {
    let Ok(packet) = Packet::parse(text) else { return };
    let written = String::from_utf8(packet.encode()).expect("a packet is text");
    assert_eq!(Packet::parse(&written), Ok(packet));
    let _ = Event::parse(packet.data);
    let _ = rollcall_schema::socketio::Auth::parse(packet.data);
    if let Ok(mut attachments) = Attachments::new(text, &packet, text.len() + 8) {
        while !attachments.is_whole() && attachments.push(b"ab").is_ok() {}
    }
}
