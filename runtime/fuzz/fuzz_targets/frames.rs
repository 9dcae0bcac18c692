//! Decodes any bytes. However the bytes are split into reads, the output must be the same, in bounded memory, without a
//! panic.
#![no_main]
use libfuzzer_sys::fuzz_target;
use rollcall_websocket::{Decoded, Message, MessageDecoder, SocketOptions, Violation};

/// How many bytes may be allocated besides twice the input: a control frame, and the smallest allocations.
const SLACK: usize = 512;

#[derive(Debug, PartialEq)]
enum Received {
    Text(String),
    Binary(Vec<u8>),
    Ping(Vec<u8>),
    Pong,
    Close(Option<u16>),
}

fn decode<'a>(reads: impl Iterator<Item = &'a [u8]>, options: &SocketOptions) -> (Vec<Received>, Option<Violation>) {
    let mut decoder = MessageDecoder::default();
    let mut received = Vec::new();
    let mut size = 0;
    for read in reads {
        size += read.len();
        let mut bytes = read.to_vec();
        let mut input = &mut bytes[..];
        loop {
            match decoder.next(&mut input, options) {
                Ok(None) => break,
                Err(violation) => return (received, Some(violation)),
                Ok(Some(event)) => received.push(match event {
                    Decoded::Message(Message::Text(text)) => Received::Text(text.into()),
                    Decoded::Message(Message::Binary(data)) => Received::Binary(data.into()),
                    Decoded::Ping(payload) => Received::Ping(payload.into()),
                    Decoded::Pong => Received::Pong,
                    Decoded::Close(code) => Received::Close(code),
                }),
            }
        }
        assert!(input.is_empty());
        assert!(decoder.memory() <= 2 * size + SLACK);
    }
    (received, None)
}

fuzz_target!(|data: &[u8]| {
    let Some((&[binary, first, second], bytes)) = data.split_first_chunk::<3>() else { return };
    let options = SocketOptions {
        binary: binary & 1 == 1,
        max_message: 1 << (binary >> 4),
        max_fragments: 4,
        ..SocketOptions::default()
    };
    let whole = decode(std::iter::once(bytes), &options);
    let sizes = [usize::from(first % 32) + 1, usize::from(second) + 1];
    let mut rest = bytes;
    let mut number = 0;
    let reads = std::iter::from_fn(|| {
        let (read, behind) = rest.split_at(sizes[number % 2].min(rest.len()));
        (rest, number) = (behind, number + 1);
        (!read.is_empty()).then_some(read)
    });
    assert_eq!(decode(reads, &options), whole);
});
