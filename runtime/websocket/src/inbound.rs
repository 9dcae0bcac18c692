//! From bytes to messages, without I/O: fragments put together, control frames let through, limits and UTF-8 checked
//! as the bytes arrive.
//!
//! Invariant: how the bytes are cut into reads changes nothing about what comes out; memory is taken only for bytes
//! that are here, and grows by half at most.
use fastwebsockets::{OpCode, unmask};

use super::{
    Message, SocketOptions, Violation,
    frame::{self, Expect, Header, MAX_HEADER},
};

/// What a client has said.
#[derive(Debug, PartialEq, Eq)]
pub enum Event<'a> {
    /// Whole.
    Message(Message<'a>),
    /// To be answered with the same payload.
    Ping(&'a [u8]),
    /// To be ignored.
    Pong,
    /// With its code, if it has one.
    Close(Option<u16>),
}

/// What is partly here: of a header, a frame, a message. Empty most of the time, and then not kept.
#[derive(Debug, Default)]
pub struct Inbound {
    head: [u8; MAX_HEADER],
    head_size: usize,
    /// The frame under way; its length is what is missing, its mask is turned to what comes next.
    frame: Option<Header>,
    control: Vec<u8>,
    /// The message under way: text or binary.
    message: Option<OpCode>,
    fragments: u32,
    data: Vec<u8>,
    /// Of `data`, the bytes known to be UTF-8.
    valid: usize,
    /// Input that nobody has looked at yet.
    pub(super) held: Vec<u8>,
}

impl Inbound {
    /// Bytes kept for the message and frame under way.
    #[must_use]
    pub fn memory(&self) -> usize {
        self.data.capacity() + self.control.capacity() + self.held.capacity()
    }

    /// Whether nothing would be lost with it.
    #[must_use]
    pub fn is_idle(&self) -> bool {
        self.head_size == 0 && self.frame.is_none() && self.message.is_none() && self.held.is_empty()
    }

    /// The next thing in `input`, which is moved past it; `None` when the input is used up.
    pub fn next<'a, 'input: 'a>(
        &'a mut self,
        input: &mut &'input mut [u8],
        options: &SocketOptions,
    ) -> Result<Option<Event<'a>>, Violation> {
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
            // Of the message delivered last.
            self.data.clear();
        }
        self.control.clear();
        let expect = Expect {
            continuation: self.message.is_some(),
            binary: options.binary,
            room: options.max_message - self.data.len(),
            fragments: options.max_fragments - self.fragments,
        };
        let kept = self.head_size;
        let fresh = input.len().min(MAX_HEADER - kept);
        self.head[kept..kept + fresh].copy_from_slice(&input[..fresh]);
        match frame::parse(&self.head[..kept + fresh], expect)? {
            Some((header, size)) => {
                self.head_size = 0;
                advance(input, size - kept);
                self.fragments += u32::from(!frame::is_control(header.opcode));
                Ok(Some(header))
            }
            None => {
                self.head_size = kept + fresh;
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

    /// Fails at the first byte that no continuation could mend.
    fn validate(&mut self) -> Result<(), Violation> {
        match std::str::from_utf8(&self.data[self.valid..]) {
            Ok(_) => self.valid = self.data.len(),
            Err(error) if error.error_len().is_none() => self.valid += error.valid_up_to(),
            Err(_) => return Err(Violation::Utf8),
        }
        Ok(())
    }
}

/// Takes what is here of a frame's payload off the input, unmasked.
fn take<'a>(input: &mut &'a mut [u8], frame: &mut Header) -> &'a [u8] {
    let size = frame.length.min(input.len());
    let chunk = advance(input, size);
    unmask(chunk, frame.mask);
    frame.mask.rotate_left(size % 4);
    frame.length -= size;
    chunk
}

fn advance<'a>(input: &mut &'a mut [u8], size: usize) -> &'a mut [u8] {
    input.split_off_mut(..size).expect("no more than there is")
}

fn control(opcode: OpCode, payload: &[u8]) -> Result<Event<'_>, Violation> {
    match opcode {
        OpCode::Ping => Ok(Event::Ping(payload)),
        OpCode::Close => frame::parse_close(payload).map(Event::Close),
        _ => Ok(Event::Pong),
    }
}

fn message(kind: OpCode, payload: &[u8]) -> Result<Event<'_>, Violation> {
    Ok(Event::Message(match kind {
        OpCode::Binary => Message::Binary(payload),
        _ => Message::Text(std::str::from_utf8(payload).map_err(|_| Violation::Utf8)?),
    }))
}

#[cfg(test)]
mod tests;
