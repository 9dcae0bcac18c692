//! Functions over HTTP: how many calls a second go through one gateway to a service beside it, and how long the last of
//! 50 waits, from the caller's frame on, for the event that a call publishes.

use std::io;
use std::thread;
use std::time::Duration;

use futures_util::future::try_join_all;
use memchr::memmem::{find, rfind};
use rollcall_loadtest::servers::private_folder;
use rollcall_loadtest::{Client, token};
use serde_json::json;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::{Builder, Runtime};
use tokio::time::{Instant, sleep_until};

use crate::load::clock::now;
use crate::load::crew::{Band, Crew};
use crate::load::order::{Crowd, Listen};
use crate::load::proc::cpu_seconds;
use crate::load::results::Limit;
use crate::load::stage::{Note, Stage, latency_ms};
use crate::load::system::{Kind, System};

const ROOM: usize = 50;
const ROOMS: usize = 20;
const CALLERS_A_ROOM: usize = 3;
const SECONDS: f64 = 5.0;
const LIMIT: Duration = Duration::from_secs(60);
/// A rate so high that no client is limited.
const RATE: &str = "1000000";

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
    let settings = [
        ("ROLLCALL_FUNCTIONS", file.to_string_lossy().into_owned()),
        ("ROLLCALL_FUNCTIONS_SECRET", format!("whsec_{}", "A".repeat(43))),
        ("ROLLCALL_EVENT_RATE", RATE.to_owned()),
        ("ROLLCALL_USER_EVENT_RATE", RATE.to_owned()),
    ];
    let guests = Crowd::guests(33, ROOM * ROOMS, ROOM);
    let resuming = Crowd::new(34, ROOM * ROOMS, ROOM).resuming();
    let system = stage.start_with(kind, 1, &[guests.clone(), resuming.clone()], &settings)?;
    let mut crew = Crew::for_agents(guests.agents + resuming.agents)?;

    let band = crew.prepare(&guests, system.address())?;
    crew.gather(&band)?;
    let mut callers = Callers::enter(&system, &guests)?;
    let echoes = callers.as_fast_as_they_go("echo")?;
    crew.listen(Listen::Count)?;
    let tells = callers.as_fast_as_they_go("tell")?;
    crew.pushes(&band, (tells / ROOMS) as f64, LIMIT, || Ok(()))?;
    let rate = tells as f64 / SECONDS;
    let mut note = stage.note("functions", kind);
    note.figure("calls of a function", echoes as f64 / SECONDS, "/s", Some(Limit::AtLeast(5_000.0)));
    note.figure("calls that publish to 50", rate, "/s", None);
    last_of_50(&mut note, &system, &mut crew, &band, &mut callers, (rate / 2.0, "", 10.0))?;
    crew.leave(&band)?;
    drop(callers);
    system.wait_until_empty()?;

    let band = crew.prepare(&resuming, system.address())?;
    crew.gather(&band)?;
    let mut callers = Callers::enter(&system, &resuming)?;
    last_of_50(&mut note, &system, &mut crew, &band, &mut callers, (rate / 2.0, ", who resume", 35.0))
}

/// Measures how long the last agent of a room waits for an event at this rate of calls, and how much processor time each
/// process needs meanwhile.
fn last_of_50(
    note: &mut Note<'_>,
    system: &System,
    crew: &mut Crew,
    band: &Band,
    callers: &mut Callers,
    (rate, whom, limit): (f64, &str, f64),
) -> io::Result<()> {
    let users = [
        ("the gateway", vec![system.pid()]),
        ("their agents", crew.pids()),
        ("callers and service", vec![std::process::id()]),
    ];
    let used = |pids: &[u32]| pids.iter().map(|pid| cpu_seconds(*pid)).sum::<io::Result<f64>>();
    let before = users.iter().map(|(_, pids)| used(pids)).collect::<io::Result<Vec<_>>>()?;
    crew.listen(Listen::LastOf(ROOM as u32))?;
    let told = callers.paced("tell", rate)?;
    let all = crew.pushes(band, (told / ROOMS) as f64, LIMIT, || Ok(()))?;
    let heard = crew.count()?;
    let lost = if all.is_some() { 0.0 } else { (told * ROOM) as f64 - heard.pushes as f64 };
    let name = format!("frame to the last of 50, at half of that{whom}");
    note.figure(&format!("{name}: p50"), latency_ms(&heard.latencies, 0.5), "ms", None);
    note.figure(&format!("{name}: p99"), latency_ms(&heard.latencies, 0.99), "ms", Some(Limit::AtMost(limit)));
    note.figure(&format!("{name}: lost"), lost, "", Some(Limit::AtMost(0.0)));
    for ((who, pids), before) in users.iter().zip(before) {
        let share = (used(pids)? - before) / SECONDS * 100.0;
        note.figure(&format!("{name}: {who}, of one core"), share, "%", None);
    }
    Ok(())
}

/// Agents that call functions: the same number in each of the crowd's lessons.
struct Callers {
    runtime: Runtime,
    clients: Vec<Client>,
}

impl Callers {
    fn enter(system: &System, crowd: &Crowd) -> io::Result<Self> {
        let runtime = Builder::new_current_thread().enable_all().build()?;
        let entering = (0..ROOMS * CALLERS_A_ROOM).map(async |number| {
            let room = number % ROOMS;
            let mut client = Client::connect(system.address()).await?;
            let token = token::participant(&format!("caller-{number}"));
            client.connect_request(&token, &crowd.classroom(room), "web").await?;
            client.join_lesson(&crowd.lesson(room)).await?;
            Ok(client)
        });
        let clients = runtime.block_on(try_join_all(entering)).map_err(failed)?;
        Ok(Self { runtime, clients })
    }

    /// Lets each agent call again as soon as it has its answer, for some seconds. Returns how many calls succeeded.
    fn as_fast_as_they_go(&mut self, event: &str) -> io::Result<usize> {
        let until = Instant::now() + Duration::from_secs_f64(SECONDS);
        let calling = self.clients.iter_mut().map(async |client| {
            let mut calls = 0;
            while Instant::now() < until {
                call(client, event).await?;
                calls += 1;
            }
            Ok(calls)
        });
        Ok(self.runtime.block_on(try_join_all(calling)).map_err(failed)?.into_iter().sum())
    }

    /// Lets all agents together call at this rate, each as often as the others. Returns how many calls succeeded.
    fn paced(&mut self, event: &str, rate: f64) -> io::Result<usize> {
        let (began, count) = (Instant::now(), self.clients.len());
        let each = (rate * SECONDS / count as f64) as usize;
        let calling = self.clients.iter_mut().enumerate().map(async |(number, client)| {
            for round in 0..each {
                let due = (round * count + number) as f64 / rate;
                sleep_until(began + Duration::from_secs_f64(due)).await;
                call(client, event).await?;
            }
            Ok(())
        });
        self.runtime.block_on(try_join_all(calling)).map_err(failed)?;
        Ok(each * count)
    }
}

async fn call(client: &mut Client, event: &str) -> Result<(), Box<dyn std::error::Error>> {
    let payload = json!({"at": now(), "text": "x".repeat(70)});
    let ack = client.request(event, payload).await?;
    if ack["status"] == "SUCCESS" { Ok(()) } else { Err(ack.to_string().into()) }
}

fn failed(error: Box<dyn std::error::Error>) -> io::Error {
    io::Error::other(error.to_string())
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
