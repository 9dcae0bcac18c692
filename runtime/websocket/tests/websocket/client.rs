//! A client that sends any bytes, legal or not, and reads exactly the bytes that come back.
use std::{
    io::{ErrorKind, Read, Write},
    net::{SocketAddr, TcpStream},
    time::{Duration, Instant},
};

use rollcall_websocket::SocketId;

use crate::harness::DEADLINE;

const MASK: [u8; 4] = [0xa1, 0xb2, 0xc3, 0xd4];

/// Returns an upgrade request with additional headers.
pub fn upgrade(target: &str, headers: &str) -> String {
    format!(
        "GET {target} HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
         Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n{headers}\r\n"
    )
}

/// Returns a masked frame.
pub fn frame(first: u8, payload: &[u8]) -> Vec<u8> {
    let mut bytes = vec![first];
    match payload.len() {
        size @ 0..126 => bytes.push(0x80 | size as u8),
        size @ 126..65536 => {
            bytes.push(0xfe);
            bytes.extend_from_slice(&(size as u16).to_be_bytes());
        }
        size => {
            bytes.push(0xff);
            bytes.extend_from_slice(&(size as u64).to_be_bytes());
        }
    }
    bytes.extend_from_slice(&MASK);
    bytes.extend(payload.iter().zip(MASK.iter().cycle()).map(|(byte, mask)| byte ^ mask));
    bytes
}

pub fn text(text: &str) -> Vec<u8> {
    frame(0x81, text.as_bytes())
}

pub struct Client {
    stream: TcpStream,
    pub id: Option<SocketId>,
}

impl Client {
    pub fn dial(address: SocketAddr) -> Self {
        let stream = TcpStream::connect_timeout(&address, DEADLINE).expect("the server listens");
        stream.set_read_timeout(Some(DEADLINE)).expect("a deadline");
        stream.set_write_timeout(Some(DEADLINE)).expect("a deadline");
        stream.set_nodelay(true).expect("no delay");
        Self { stream, id: None }
    }

    pub fn id(&self) -> SocketId {
        self.id.expect("upgraded")
    }

    pub fn stream(&self) -> &TcpStream {
        &self.stream
    }

    pub fn send(&mut self, bytes: &[u8]) {
        self.stream.write_all(bytes).expect("the server reads");
    }

    /// Sends until the server closes or resets the connection. Returns how many bytes the kernel took.
    pub fn flood(&mut self, bytes: &[u8]) -> usize {
        let start = Instant::now();
        let mut sent = 0;
        loop {
            assert!(start.elapsed() < 2 * DEADLINE, "the server never ends the flood");
            match self.stream.write(bytes) {
                Ok(size) => sent += size,
                Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {}
                Err(_) => return sent,
            }
        }
    }

    /// Sends single bytes, `pace` apart, until the server ends the connection.
    pub fn send_slowly(&mut self, bytes: impl IntoIterator<Item = u8>, pace: Duration) {
        self.stream.set_read_timeout(Some(pace)).expect("a pace");
        for byte in bytes {
            if self.stream.write_all(&[byte]).is_err() || self.stream.read(&mut [0]).is_ok() {
                return;
            }
        }
        panic!("the server waited for all bytes");
    }

    pub fn take(&mut self, size: usize) -> Vec<u8> {
        let mut bytes = vec![0; size];
        self.stream.read_exact(&mut bytes).expect("enough bytes in time");
        bytes
    }

    /// Reads the head of a response.
    pub fn head(&mut self) -> String {
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            head.extend(self.take(1));
        }
        String::from_utf8(head).expect("a head is text")
    }

    /// Returns the first byte and the payload of the next frame.
    pub fn frame(&mut self) -> (u8, Vec<u8>) {
        let head = self.take(2);
        let size = match head[1] {
            126 => u16::from_be_bytes(self.take(2).try_into().expect("two")).into(),
            127 => u64::from_be_bytes(self.take(8).try_into().expect("eight")) as usize,
            size => usize::from(size),
        };
        (head[0], self.take(size))
    }

    /// Reads until the server's FIN. A reset fails the test.
    pub fn rest(&mut self) -> Vec<u8> {
        let mut rest = Vec::new();
        self.stream.read_to_end(&mut rest).expect("the server's FIN in time");
        rest
    }

    /// Expects exactly one close frame with this code, and then the FIN.
    #[track_caller]
    pub fn expect_close(&mut self, code: u16) {
        let [high, low] = code.to_be_bytes();
        assert_eq!(self.rest(), [0x88, 2, high, low]);
    }
}
