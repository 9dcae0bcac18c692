//! An authorization service that allows everything (PROTOCOL 10). The wire in front of it makes it fail.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::thread;

use serde_json::{Value, json};

/// Serves until the process ends, and returns the address.
pub(super) fn start() -> io::Result<SocketAddr> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    let address = listener.local_addr()?;
    thread::Builder::new().name("authorization".to_owned()).spawn(move || {
        for connection in listener.incoming().flatten() {
            // An error ends only this connection, and the node asks again on another one.
            thread::spawn(move || answer_all(&connection).ok());
        }
    })?;
    Ok(address)
}

fn answer_all(connection: &TcpStream) -> io::Result<()> {
    let mut reader = BufReader::new(connection);
    let mut connection = connection;
    loop {
        let mut length = 0;
        loop {
            let mut line = String::new();
            if reader.read_line(&mut line)? == 0 {
                return Ok(());
            }
            let line = line.trim_end().to_ascii_lowercase();
            if line.is_empty() {
                break;
            }
            if let Some(value) = line.strip_prefix("content-length:") {
                length = value.trim().parse().map_err(io::Error::other)?;
            }
        }
        let mut body = vec![0; length];
        reader.read_exact(&mut body)?;
        let question: Value = serde_json::from_slice(&body)?;
        let allowed = json!([question["action"]]).to_string();
        let head = format!("HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {}", allowed.len());
        connection.write_all(format!("{head}\r\n\r\n{allowed}").as_bytes())?;
    }
}
