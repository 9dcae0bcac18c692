//! Whatever bytes come, and however they are cut into reads: the same is heard, in bounded memory, without a panic.
#![no_main]
use libfuzzer_sys::fuzz_target;
use rollcall_websocket::{Event, Inbound, Message, SocketOptions, Violation};

/// What one read may cost besides twice its bytes: a control frame, and the smallest allocations.
const SLACK: usize = 512;

#[derive(Debug, PartialEq)]
enum Heard {
    Text(String),
    Binary(Vec<u8>),
    Ping(Vec<u8>),
    Pong,
    Close(Option<u16>),
}

fn hear<'a>(reads: impl Iterator<Item = &'a [u8]>, options: &SocketOptions) -> (Vec<Heard>, Option<Violation>) {
    let mut inbound = Inbound::default();
    let mut heard = Vec::new();
    let mut come = 0;
    for read in reads {
        come += read.len();
        let mut bytes = read.to_vec();
        let mut input = &mut bytes[..];
        loop {
            match inbound.next(&mut input, options) {
                Ok(None) => break,
                Err(violation) => return (heard, Some(violation)),
                Ok(Some(event)) => heard.push(match event {
                    Event::Message(Message::Text(text)) => Heard::Text(text.into()),
                    Event::Message(Message::Binary(data)) => Heard::Binary(data.into()),
                    Event::Ping(payload) => Heard::Ping(payload.into()),
                    Event::Pong => Heard::Pong,
                    Event::Close(code) => Heard::Close(code),
                }),
            }
        }
        assert!(input.is_empty());
        assert!(inbound.memory() <= 2 * come + SLACK);
    }
    (heard, None)
}

fuzz_target!(|data: &[u8]| {
    let Some((&[binary, first, second], bytes)) = data.split_first_chunk::<3>() else { return };
    let options = SocketOptions {
        binary: binary & 1 == 1,
        max_message: 1 << (binary >> 4),
        max_fragments: 4,
        ..SocketOptions::default()
    };
    let whole = hear(std::iter::once(bytes), &options);
    let sizes = [usize::from(first % 32) + 1, usize::from(second) + 1];
    let mut rest = bytes;
    let mut turn = 0;
    let reads = std::iter::from_fn(|| {
        let (read, behind) = rest.split_at(sizes[turn % 2].min(rest.len()));
        (rest, turn) = (behind, turn + 1);
        (!read.is_empty()).then_some(read)
    });
    assert_eq!(hear(reads, &options), whole);
});
