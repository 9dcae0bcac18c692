//! Functions over HTTP: how many calls a second go through one gateway to a service beside it, and how long the last of
//! 50 waits, from the caller's frame on, for the event that a call publishes.

use std::io;
use std::thread;

use memchr::memmem::{find, rfind};
use rollcall_loadtest::servers::private_folder;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::Builder;

use super::callers::{Callers, NO_RATE_LIMIT, SECONDS};
use super::publisher::{Listeners, crowds};
use crate::load::results::Limit;
use crate::load::stage::Stage;
use crate::load::system::Kind;

pub(crate) fn run(stage: &mut Stage) -> io::Result<()> {
    for kind in stage.gateways() {
        measure(stage, kind)?;
    }
    Ok(())
}

fn measure(stage: &mut Stage, kind: Kind) -> io::Result<()> {
    let service = Service::start()?;
    let folder = private_folder("functions")?;
    let file = folder.path().join("functions.toml");
    let function = |event: &str| format!("[[function]]\nevent = \"{event}\"\nurl = \"{}/{event}\"\n", service.url);
    std::fs::write(&file, function("echo") + &function("tell"))?;
    let mut settings = vec![
        ("ROLLCALL_FUNCTIONS", file.to_string_lossy().into_owned()),
        ("ROLLCALL_FUNCTIONS_SECRET", format!("whsec_{}", "A".repeat(43))),
    ];
    settings.extend(NO_RATE_LIMIT.map(|(name, value)| (name, value.to_owned())));
    let crowds = crowds();
    let system = stage.start_with(kind, 1, &crowds, &settings)?;
    let mut listeners = Listeners::enter(&system, &crowds[0])?;
    let mut callers = Callers::enter(&system, &crowds[0])?;
    let echoes = callers.as_fast_as_they_go("echo")?;
    let tells = listeners.count(|| callers.as_fast_as_they_go("tell"))?;
    let mut note = stage.note("functions", kind);
    note.figure("calls of a function", echoes as f64 / SECONDS, "/s", Some(Limit::AtLeast(5_000.0)));
    note.figure("calls that publish to 50", tells as f64 / SECONDS, "/s", None);
    listeners.last_of_50(
        &mut note,
        &system,
        || callers.paced("tell", tells as f64 / SECONDS / 2.0),
        "half",
        Some(Limit::AtMost(10.0)),
    )
}

/// The service, in a thread of its own. `echo` answers without data, and `tell` publishes the payload to the lesson.
struct Service {
    url: String,
}

impl Service {
    fn start() -> io::Result<Self> {
        let runtime = Builder::new_current_thread().enable_all().build()?;
        let listener = runtime.block_on(TcpListener::bind("127.0.0.1:0"))?;
        let url = format!("http://{}", listener.local_addr()?);
        // The thread ends with the process. Without calls it costs nothing.
        thread::spawn(move || {
            runtime.block_on(async {
                while let Ok((stream, _)) = listener.accept().await {
                    tokio::spawn(serve(stream));
                }
            });
        });
        Ok(Self { url })
    }
}

async fn serve(stream: TcpStream) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let mut stream = BufReader::new(stream);
    loop {
        let (mut length, mut tell, mut line) = (0, false, String::new());
        loop {
            line.clear();
            if stream.read_line(&mut line).await? == 0 {
                return Ok(());
            }
            tell |= line.starts_with("POST /tell ");
            let lower = line.to_ascii_lowercase();
            if let Some(value) = lower.strip_prefix("content-length:") {
                length = value.trim().parse().map_err(io::Error::other)?;
            } else if line == "\r\n" {
                break;
            }
        }
        let mut body = vec![0; length];
        stream.read_exact(&mut body).await?;
        let answer = if tell { publish(&body) } else { "{}".to_owned() };
        let head = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n", answer.len());
        stream.write_all((head + &answer).as_bytes()).await?;
    }
}

fn publish(call: &[u8]) -> String {
    const PAYLOAD: &[u8] = b"\"payload\":";
    let payload = find(call, PAYLOAD).zip(rfind(call, b",\"session\":"));
    let payload = payload.and_then(|(start, end)| call.get(start + PAYLOAD.len()..end)).unwrap_or(b"{}");
    let payload = String::from_utf8_lossy(payload);
    format!(r#"{{"publish":[{{"to":"lesson","entity_type":"note","operation":"made","body":{payload}}}]}}"#)
}
