//! WebSocket frames at the least cost. The client's mask is zero, so masked and plain payloads are the same bytes, and
//! nothing is copied when a frame is read.

pub(crate) const TEXT: u8 = 1;
pub(crate) const CLOSE: u8 = 8;
pub(crate) const PING: u8 = 9;
pub(crate) const PONG: u8 = 10;

const FINAL: u8 = 0x80;
const MASKED: u8 = 0x80;

pub(crate) struct Frame<'a> {
    pub(crate) opcode: u8,
    pub(crate) payload: &'a [u8],
}

/// Encodes a client's frame.
pub(crate) fn masked(opcode: u8, payload: &[u8]) -> Vec<u8> {
    encode(opcode, payload, MASKED, &[0; 4])
}

/// Encodes a server's frame.
pub(crate) fn plain(opcode: u8, payload: &[u8]) -> Vec<u8> {
    encode(opcode, payload, 0, &[])
}

/// Returns the first complete frame of `bytes` and its length. A client's frame is read right only if [`masked`] made
/// it.
pub(crate) fn next(bytes: &[u8]) -> Option<(Frame<'_>, usize)> {
    let (&first, &second) = (bytes.first()?, bytes.get(1)?);
    let (length, mut start) = match second & !MASKED {
        126 => (usize::from(u16::from_be_bytes(*bytes.get(2..)?.first_chunk()?)), 4),
        127 => (u64::from_be_bytes(*bytes.get(2..)?.first_chunk()?) as usize, 10),
        short => (usize::from(short), 2),
    };
    if second & MASKED != 0 {
        start += 4;
    }
    let payload = bytes.get(start..)?.get(..length)?;
    let opcode = first & 0x0f;
    Some((Frame { opcode, payload }, start + length))
}

/// Returns the position after the head of a request or response.
pub(crate) fn head_end(bytes: &[u8]) -> Option<usize> {
    memchr::memmem::find(bytes, b"\r\n\r\n").map(|end| end + 4)
}

fn encode(opcode: u8, payload: &[u8], masked: u8, mask: &[u8]) -> Vec<u8> {
    let mut frame = Vec::with_capacity(payload.len() + 14);
    frame.push(FINAL | opcode);
    match payload.len() {
        length @ 0..126 => frame.push(masked | length as u8),
        length @ 126..0x1_0000 => {
            frame.push(masked | 126);
            frame.extend((length as u16).to_be_bytes());
        }
        length => {
            frame.push(masked | 127);
            frame.extend((length as u64).to_be_bytes());
        }
    }
    frame.extend(mask);
    frame.extend(payload);
    frame
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_length_comes_back_and_no_part_of_a_frame_is_taken_for_one() {
        for length in [0, 1, 125, 126, 65_535, 65_536, 70_000] {
            let payload = vec![b'x'; length];
            for frame in [masked(TEXT, &payload), plain(TEXT, &payload)] {
                let (read, used) = next(&frame).expect("a whole frame");
                assert_eq!((read.opcode, read.payload.len(), used), (TEXT, length, frame.len()));
                assert!(next(&frame[..frame.len() - 1]).is_none());
                assert!(next(&frame[..1]).is_none());
            }
        }
    }
}
