//! A function over HTTP that the test serves itself, and the file that names functions.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use rollcall_loadtest::GatewayOptions;
use serde_json::Value;
use tokio::io::{AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};

use super::http_request::HttpRequest;

/// The secret that the gateway and the functions share.
pub(crate) const FUNCTIONS_SECRET: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";

/// What a function does when it is called.
pub(crate) enum Reply {
    /// The function answers with this status and body.
    Json(u16, Value),
    /// The function sends these bytes, valid or not, and closes the connection.
    Bytes(Vec<u8>),
    /// The function sends the head of an answer, then one byte of the body at a time, without an end.
    Drip,
    /// The function never answers.
    Hang,
    /// The function closes the connection without an answer.
    Crash,
}

/// A call as the function got it.
#[derive(Clone, Debug)]
pub(crate) struct Call {
    pub(crate) headers: BTreeMap<String, String>,
    pub(crate) body: String,
}

type Decision = dyn Fn(&Value) -> Reply + Send + Sync;

/// A running function.
pub(crate) struct Function {
    address: SocketAddr,
    calls: Arc<Mutex<Vec<Call>>>,
}

impl Function {
    pub(crate) async fn start(decide: impl Fn(&Value) -> Reply + Send + Sync + 'static) -> Self {
        Self::start_at(0, decide).await
    }

    /// Starts a function on this port.
    pub(crate) async fn start_at(port: u16, decide: impl Fn(&Value) -> Reply + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", port)).await.unwrap();
        let (address, calls) = (listener.local_addr().unwrap(), Arc::default());
        let (seen, decide): (Arc<Mutex<Vec<Call>>>, Arc<Decision>) = (Arc::clone(&calls), Arc::new(decide));
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(serve(stream, Arc::clone(&seen), Arc::clone(&decide)));
            }
        });
        Self { address, calls }
    }

    pub(crate) fn url(&self) -> String {
        format!("http://{}/", self.address)
    }

    /// Returns the calls that came so far.
    pub(crate) fn calls(&self) -> Vec<Call> {
        self.calls.lock().unwrap().clone()
    }
}

async fn serve(stream: TcpStream, seen: Arc<Mutex<Vec<Call>>>, decide: Arc<Decision>) {
    let mut stream = BufReader::new(stream);
    while let Some(call) = read(&mut stream).await {
        let reply = decide(&serde_json::from_str(&call.body).unwrap());
        seen.lock().unwrap().push(call);
        let sent = match reply {
            Reply::Json(status, body) => {
                let body = body.to_string();
                let head = format!("HTTP/1.1 {status} X\r\ncontent-length: {}\r\n\r\n", body.len());
                stream.write_all((head + &body).as_bytes()).await
            }
            Reply::Bytes(bytes) => {
                // The gateway may close the connection before it has read the whole answer.
                let _ = stream.write_all(&bytes).await;
                return;
            }
            Reply::Drip => drip(&mut stream).await,
            Reply::Hang => return std::future::pending().await,
            Reply::Crash => return,
        };
        if sent.is_err() {
            return;
        }
    }
}

async fn drip(stream: &mut BufReader<TcpStream>) -> std::io::Result<()> {
    stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 60000\r\n\r\n{").await?;
    loop {
        tokio::time::sleep(Duration::from_millis(20)).await;
        stream.write_all(b" ").await?;
    }
}

/// Reads the next call of a connection. Returns `None` when the connection has ended.
async fn read(stream: &mut BufReader<TcpStream>) -> Option<Call> {
    let HttpRequest { headers, body, .. } = HttpRequest::read(stream).await?;
    Some(Call { headers, body: String::from_utf8(body).ok()? })
}

/// The file for `ROLLCALL_FUNCTIONS`. It is deleted when this value is dropped.
pub(crate) struct FunctionsFile(tempfile::TempDir);

impl FunctionsFile {
    /// Writes the file. Each function is an event, a URL and further lines.
    pub(crate) fn new(functions: &[(&str, &str, &str)]) -> Self {
        let mut text = String::new();
        for (event, url, lines) in functions {
            writeln!(text, "[[function]]\nevent = \"{event}\"\nurl = \"{url}\"\n{lines}").unwrap();
        }
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("functions.toml"), text).unwrap();
        Self(folder)
    }

    /// Returns the options of a gateway that uses this file.
    pub(crate) fn on(&self, options: &GatewayOptions) -> GatewayOptions {
        let path = self.0.path().join("functions.toml");
        options.clone().env("ROLLCALL_FUNCTIONS", path.display()).env("ROLLCALL_FUNCTIONS_SECRET", FUNCTIONS_SECRET)
    }
}
