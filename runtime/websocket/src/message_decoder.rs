//! Turns bytes into messages, without I/O: joins fragments, returns control frames between them, and checks limits and
//! UTF-8 as the bytes arrive.
//!
//! Invariant: the output does not depend on how the bytes are split into reads. Memory is allocated only for bytes that
//! have arrived, and grows by half at most.
use fastwebsockets::{OpCode, unmask};

use crate::{
    close::Violation,
    frame::{self, Expect, Header, MAX_HEADER},
    options::SocketOptions,
};

/// A client's message. It is borrowed from the worker's read buffer if possible.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Message<'a> {
    /// A text message, in valid UTF-8.
    Text(&'a str),
    /// A binary message. It only comes if [`SocketOptions::binary`] allows it.
    Binary(&'a [u8]),
}

/// A message or control frame of a client.
#[derive(Debug, PartialEq, Eq)]
pub enum Decoded<'a> {
    /// A complete message.
    Message(Message<'a>),
    /// The payload of a ping, which the pong repeats.
    Ping(&'a [u8]),
    /// A pong, which needs no answer.
    Pong,
    /// The code of a close frame, if it has one.
    Close(Option<u16>),
}

/// The incomplete header, frame and message of a connection. It is empty most of the time, and then it is not kept.
#[derive(Debug, Default)]
pub struct MessageDecoder {
    head: [u8; MAX_HEADER],
    head_size: usize,
    /// The incomplete frame. Its length counts the missing bytes, and its mask is rotated to fit the next of them.
    frame: Option<Header>,
    control: Vec<u8>,
    /// The opcode of the incomplete message: text or binary.
    message: Option<OpCode>,
    fragments: u32,
    data: Vec<u8>,
    /// How many bytes of `data` are known to be valid UTF-8.
    valid: usize,
    /// Input that has not been parsed yet.
    pub(crate) unparsed: Vec<u8>,
}

impl MessageDecoder {
    /// Returns the bytes that are allocated for the incomplete message and frame.
    #[must_use]
    pub fn memory(&self) -> usize {
        self.data.capacity() + self.control.capacity() + self.unparsed.capacity()
    }

    /// Returns whether this can be dropped without losing input.
    #[must_use]
    pub fn is_idle(&self) -> bool {
        self.head_size == 0 && self.frame.is_none() && self.message.is_none() && self.unparsed.is_empty()
    }

    /// Decodes the next message or control frame, and moves `input` past it. Returns `None` when the input is used up.
    pub fn next<'a, 'input: 'a>(
        &'a mut self,
        input: &mut &'input mut [u8],
        options: &SocketOptions,
    ) -> Result<Option<Decoded<'a>>, Violation> {
        loop {
            let mut frame = match self.frame.take() {
                Some(frame) => frame,
                None => match self.header(input, options)? {
                    Some(frame) => frame,
                    None => return Ok(None),
                },
            };
            let whole = input.len() >= frame.length;
            if frame::is_control(frame.opcode) {
                if whole && self.control.is_empty() {
                    return control(frame.opcode, take(input, &mut frame)).map(Some);
                }
                self.control.extend_from_slice(take(input, &mut frame));
                if frame.length == 0 {
                    return control(frame.opcode, &self.control).map(Some);
                }
            } else if whole && frame.fin && self.message.is_none() {
                self.fragments = 0;
                return message(frame.opcode, take(input, &mut frame)).map(Some);
            } else {
                let kind = *self.message.get_or_insert(frame.opcode);
                self.append(take(input, &mut frame), options.max_message);
                if kind == OpCode::Text {
                    self.validate()?;
                }
                if frame.length == 0 && frame.fin {
                    (self.message, self.fragments, self.valid) = (None, 0, 0);
                    return message(kind, &self.data).map(Some);
                }
            }
            if frame.length > 0 {
                self.frame = Some(frame);
                return Ok(None);
            }
        }
    }

    fn header(&mut self, input: &mut &mut [u8], options: &SocketOptions) -> Result<Option<Header>, Violation> {
        if self.message.is_none() {
            // The buffer holds the message that was delivered last.
            self.data.clear();
        }
        self.control.clear();
        let expect = Expect {
            continuation: self.message.is_some(),
            binary: options.binary,
            room: options.max_message.saturating_sub(self.data.len()),
            fragments: options.max_fragments.saturating_sub(self.fragments),
        };
        let before = self.head_size;
        let fresh = input.len().min(MAX_HEADER - before);
        self.head[before..before + fresh].copy_from_slice(&input[..fresh]);
        match frame::parse(&self.head[..before + fresh], expect)? {
            Some((header, size)) => {
                self.head_size = 0;
                advance(input, size - before);
                self.fragments += u32::from(!frame::is_control(header.opcode));
                Ok(Some(header))
            }
            None => {
                self.head_size = before + fresh;
                advance(input, fresh);
                Ok(None)
            }
        }
    }

    fn append(&mut self, chunk: &[u8], max: usize) {
        let needed = self.data.len() + chunk.len();
        if needed > self.data.capacity() {
            self.data.reserve_exact(chunk.len() + (needed / 2).min(max - needed));
        }
        self.data.extend_from_slice(chunk);
    }

    /// Fails at the first byte that makes the text invalid whatever comes after it.
    fn validate(&mut self) -> Result<(), Violation> {
        match std::str::from_utf8(&self.data[self.valid..]) {
            Ok(_) => self.valid = self.data.len(),
            Err(error) if error.error_len().is_none() => self.valid += error.valid_up_to(),
            Err(_) => return Err(Violation::Utf8),
        }
        Ok(())
    }
}

/// Takes the arrived part of the frame's payload from the input, and unmasks it.
fn take<'a>(input: &mut &'a mut [u8], frame: &mut Header) -> &'a [u8] {
    let size = frame.length.min(input.len());
    let chunk = advance(input, size);
    unmask(chunk, frame.mask);
    frame.mask.rotate_left(size % 4);
    frame.length -= size;
    chunk
}

fn advance<'a>(input: &mut &'a mut [u8], size: usize) -> &'a mut [u8] {
    input.split_off_mut(..size).expect("callers take no more than the input has")
}

fn control(opcode: OpCode, payload: &[u8]) -> Result<Decoded<'_>, Violation> {
    match opcode {
        OpCode::Ping => Ok(Decoded::Ping(payload)),
        OpCode::Close => frame::parse_close(payload).map(Decoded::Close),
        _ => Ok(Decoded::Pong),
    }
}

fn message(kind: OpCode, payload: &[u8]) -> Result<Decoded<'_>, Violation> {
    Ok(Decoded::Message(match kind {
        OpCode::Binary => Message::Binary(payload),
        _ => Message::Text(std::str::from_utf8(payload).map_err(|_| Violation::Utf8)?),
    }))
}

#[cfg(test)]
mod tests;
