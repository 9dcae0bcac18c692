//! A server in place of Mixpanel that the test runs itself.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread;

use serde_json::Value;

use super::SOON;

/// One request of the gateway to Mixpanel.
#[derive(Debug)]
pub(crate) struct Tracked {
    /// The first line of the request, such as `POST /track HTTP/1.1`.
    pub(crate) request_line: String,
    pub(crate) events: Vec<Value>,
}

/// An HTTP server that accepts every request and passes it to the test.
pub(crate) struct Mixpanel {
    address: SocketAddr,
    requests: Receiver<Tracked>,
}

impl Mixpanel {
    pub(crate) fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let (sender, requests) = channel();
        thread::spawn(move || {
            for stream in listener.incoming() {
                let sender = sender.clone();
                // An error ends only the thread of this connection: the gateway closes a connection after its last
                // request.
                thread::spawn(move || serve(stream.unwrap(), &sender).ok());
            }
        });
        Self { address, requests }
    }

    pub(crate) fn url(&self) -> String {
        format!("http://{}/track", self.address)
    }

    /// Waits for the next request and returns it.
    pub(crate) fn next(&self) -> Tracked {
        self.requests.recv_timeout(SOON).expect("a call to Mixpanel")
    }

    /// Returns the requests that came since the last one that the test took.
    pub(crate) fn rest(&self) -> Vec<Tracked> {
        self.requests.try_iter().collect()
    }
}

fn serve(stream: TcpStream, requests: &Sender<Tracked>) -> std::io::Result<()> {
    let mut answers = stream.try_clone()?;
    let mut reader = BufReader::new(stream);
    loop {
        let mut head = Vec::new();
        loop {
            let mut line = String::new();
            if reader.read_line(&mut line)? == 0 {
                return Ok(());
            }
            let line = line.trim_end().to_owned();
            if line.is_empty() {
                break;
            }
            head.push(line);
        }
        let length = head.iter().find_map(|line| {
            let (name, value) = line.split_once(':')?;
            name.eq_ignore_ascii_case("content-length").then(|| value.trim().parse().unwrap())
        });
        let mut body = vec![0; length.unwrap_or(0)];
        reader.read_exact(&mut body)?;
        let events = serde_json::from_slice(&body).unwrap();
        requests.send(Tracked { request_line: head.swap_remove(0), events }).map_err(std::io::Error::other)?;
        answers.write_all(b"HTTP/1.1 200 OK\r\ncontent-type: text/plain\r\ncontent-length: 1\r\n\r\n1")?;
    }
}
