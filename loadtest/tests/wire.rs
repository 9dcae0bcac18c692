//! Tests of the wire in front of a server, which relays what both sides send.

#![allow(clippy::unwrap_used)]

use std::io::{ErrorKind, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::thread;
use std::time::Duration;

use rollcall_loadtest::Wire;

const SOON: Duration = Duration::from_secs(5);
const SILENCE: Duration = Duration::from_millis(200);

#[test]
fn a_connection_stalls_after_some_bytes_and_goes_on_where_it_stood() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let wire = Wire::before(listener.local_addr().unwrap()).unwrap();
    let server = thread::spawn(move || listener.accept().unwrap().0);
    let mut client = TcpStream::connect(wire.address()).unwrap();
    let mut server = server.join().unwrap();
    wire.stall_after(6);
    client.write_all(b"four").unwrap();
    client.write_all(b"eighteen").unwrap();
    let mut got = [0; 6];
    server.set_read_timeout(Some(SOON)).unwrap();
    server.read_exact(&mut got).unwrap();
    assert_eq!(&got, b"fourei");
    server.set_read_timeout(Some(SILENCE)).unwrap();
    assert_eq!(server.read(&mut got).unwrap_err().kind(), ErrorKind::WouldBlock);
    // The other direction goes on while this one is stalled.
    server.write_all(b"answer").unwrap();
    client.set_read_timeout(Some(SOON)).unwrap();
    client.read_exact(&mut got).unwrap();
    assert_eq!(&got, b"answer");
    wire.clear();
    server.set_read_timeout(Some(SOON)).unwrap();
    server.read_exact(&mut got).unwrap();
    assert_eq!(&got, b"ghteen");
}
