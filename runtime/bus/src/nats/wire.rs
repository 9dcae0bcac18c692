//! The operations that a NATS server sends, parsed from the bytes of a connection.
//!
//! Invariant: whatever arrives, an operation has at most [`MAX_LINE`] bytes and those of the largest message, and the
//! parser never reads past the input. A message that is too large or invalid is dropped by itself. The connection ends
//! only if the start of the next operation is unknown.
/// The longest control line in bytes. INFO of a server with many neighbours is the longest.
pub(super) const MAX_LINE: usize = 32 * 1024;
/// The maximum number of bytes of a message in addition to a body of the largest size.
const MAX_HEAD: usize = 128 * 1024;
/// The maximum number of bytes that a message may announce. No server sends more.
const MAX_ANNOUNCED: usize = 64 * 1024 * 1024;

const END: &[u8] = b"\r\n";

/// An operation that the server sends.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Op<'a> {
    /// The server's INFO, in JSON.
    Info(&'a [u8]),
    Message(Message<'a>),
    /// A message that was dropped, with the subject for answers to it.
    Dropped(&'a str),
    Ping,
    Pong,
    Ok,
    Error(&'a [u8]),
}

/// A message for one of this connection's subscriptions.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Message<'a> {
    pub(super) subject: &'a str,
    /// The subscription's number.
    pub(super) sid: u64,
    /// The subject for answers; empty if no answer is wanted.
    pub(super) reply: &'a str,
    /// The block of headers with its first line; empty if the message has none.
    pub(super) head: &'a [u8],
    pub(super) body: &'a [u8],
}

/// Bytes that violate the protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the server sent {0}")]
pub(super) struct Malformed(&'static str);

/// Finds operations. Between two of them it only remembers how many bytes of a dropped message are still to be skipped.
#[derive(Debug)]
pub(super) struct Parser {
    skip: usize,
    /// The maximum number of bytes of headers and body together. Larger messages are skipped.
    max_message: usize,
}

impl Parser {
    /// Creates a parser that may skip messages with a body of more than `max_body` bytes.
    pub(super) fn new(max_body: usize) -> Self {
        Self { skip: 0, max_message: max_body.saturating_add(MAX_HEAD) }
    }

    /// Returns how many of these bytes are consumed, and the operation in them. If both are missing, more bytes are
    /// needed.
    pub(super) fn next<'a>(&mut self, input: &'a [u8]) -> Result<(usize, Option<Op<'a>>), Malformed> {
        if self.skip > 0 {
            let skipped = self.skip.min(input.len());
            self.skip -= skipped;
            return Ok((skipped, None));
        }
        let Some((line, after)) = line(input)? else { return Ok((0, None)) };
        let (name, rest) = line.split_at(line.iter().position(|byte| blank(*byte)).unwrap_or(line.len()));
        let used = |op| Ok((after, Some(op)));
        match name.to_ascii_uppercase().as_slice() {
            b"MSG" => self.message(input, after, &fields(rest)?, false),
            b"HMSG" => self.message(input, after, &fields(rest)?, true),
            b"INFO" => used(Op::Info(rest.trim_ascii())),
            b"PING" => used(Op::Ping),
            b"PONG" => used(Op::Pong),
            b"+OK" => used(Op::Ok),
            b"-ERR" => used(Op::Error(rest.trim_ascii())),
            _ => Err(Malformed("an operation that is none")),
        }
    }

    /// Reads the line `subject sid [reply] [length of the headers] length of all`, which the message follows.
    fn message<'a>(
        &mut self,
        input: &'a [u8],
        start: usize,
        fields: &[&'a [u8]],
        with_head: bool,
    ) -> Result<(usize, Option<Op<'a>>), Malformed> {
        let (subject, sid, reply, head, total): (_, _, &[u8], _, _) = match (fields, with_head) {
            ([subject, sid, total], false) => (subject, sid, b"", 0, number(total)?),
            ([subject, sid, reply, total], false) => (subject, sid, reply, 0, number(total)?),
            ([subject, sid, head, total], true) => (subject, sid, b"", number(head)?, number(total)?),
            ([subject, sid, reply, head, total], true) => (subject, sid, reply, number(head)?, number(total)?),
            _ => return Err(Malformed("a message without its fields")),
        };
        // The subjects that the gateway chooses are ASCII.
        let reply = std::str::from_utf8(reply).unwrap_or_default();
        if head > total || total > MAX_ANNOUNCED {
            return Err(Malformed("a message with a length that cannot be"));
        }
        if total > self.max_message {
            self.skip = total + END.len();
            return Ok((start, Some(Op::Dropped(reply))));
        }
        let end = start + total;
        let Some(trailer) = input.get(end..end + END.len()) else { return Ok((0, None)) };
        if trailer != END {
            return Err(Malformed("a message longer than it says"));
        }
        let (head, body) = input[start..end].split_at(head);
        let sid = number(sid)? as u64;
        let op = match std::str::from_utf8(subject) {
            Ok(subject) => Op::Message(Message { subject, sid, reply, head, body }),
            Err(_) => Op::Dropped(reply),
        };
        Ok((end + END.len(), Some(op)))
    }
}

/// Returns the headers of a block, in order. A line that is not a header is skipped. Blanks around a name are left out,
/// because a publisher that wrote ` Is-Internal : true` meant that header.
pub(super) fn headers(block: &str) -> impl Iterator<Item = (&str, &str)> {
    let lines = block.lines().skip(1).filter_map(|line| line.split_once(':'));
    lines.map(|(name, value)| (name.trim(), value.trim()))
}

/// Returns the first line without its end, and the position after it.
fn line(input: &[u8]) -> Result<Option<(&[u8], usize)>, Malformed> {
    match input.iter().take(MAX_LINE).position(|byte| *byte == b'\n') {
        Some(end) => match input[..end].strip_suffix(b"\r") {
            Some(line) => Ok(Some((line, end + 1))),
            None => Err(Malformed("a line with half an end")),
        },
        None if input.len() >= MAX_LINE => Err(Malformed("a line too long")),
        None => Ok(None),
    }
}

fn blank(byte: u8) -> bool {
    byte == b' ' || byte == b'\t'
}

fn fields(rest: &[u8]) -> Result<Vec<&[u8]>, Malformed> {
    let fields: Vec<_> = rest.split(|byte| blank(*byte)).filter(|field| !field.is_empty()).take(6).collect();
    if fields.len() > 5 { Err(Malformed("a message with too many fields")) } else { Ok(fields) }
}

fn number(digits: &[u8]) -> Result<usize, Malformed> {
    let wrong = Malformed("a number that is none");
    if digits.len() > 18 || !digits.iter().all(u8::is_ascii_digit) {
        return Err(wrong);
    }
    std::str::from_utf8(digits).ok().and_then(|digits| digits.parse().ok()).ok_or(wrong)
}

#[cfg(test)]
mod tests;
