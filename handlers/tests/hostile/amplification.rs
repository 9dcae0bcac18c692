//! What memory the bytes of strangers cost: at most 64 KiB for a connection and two bytes for each byte that it sends,
//! and nothing for bytes that it only announces.

use std::io::Write;
use std::net::{SocketAddr, TcpListener};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};

use crate::common::{Backend, SOON, until};
use crate::raw::upgrade;
use crate::{metric, with};

/// The number of connections at once. With this number the memory that the process needs without connections adds
/// little to the memory of each.
const CROWD: usize = 100;
/// How many bytes of memory a connection may cost, whatever it sends.
const FIXED: usize = 64 << 10;
/// How many bytes the rest of the process may grow meanwhile, for each connection of a crowd.
const NOISE: usize = 8 << 10;

/// Returns a gateway whose timeouts are long enough for a busy machine.
fn patient(settings: &[(&str, &str)]) -> Backend {
    let times = ["HEAD_TIMEOUT", "CONNECT_TIMEOUT", "HANDLER_TIMEOUT", "AUTHZ_TIMEOUT", "PING_INTERVAL"];
    let times = times.map(|name| format!("ROLLCALL_{name}"));
    let times = times.iter().map(|name| (name.as_str(), "60s"));
    with(&settings.iter().copied().chain(times).collect::<Vec<_>>())
}

/// Returns a frame that announces a payload of `announced` bytes, and holds `payload`. Its mask is zero.
fn frame(first: u8, payload: &[u8], announced: usize) -> Vec<u8> {
    let mut bytes = vec![first];
    match announced {
        short @ 0..126 => bytes.push(0x80 | u8::try_from(short).unwrap()),
        middle @ 126..65536 => {
            bytes.push(0xfe);
            bytes.extend_from_slice(&u16::try_from(middle).unwrap().to_be_bytes());
        }
        long => {
            bytes.push(0xff);
            bytes.extend_from_slice(&(long as u64).to_be_bytes());
        }
    }
    bytes.extend_from_slice(&[0; 4]);
    bytes.extend_from_slice(payload);
    bytes
}

fn text(text: &str) -> Vec<u8> {
    frame(0x81, text.as_bytes(), text.len())
}

/// Many connections that do the same.
struct Crowd<'a> {
    backend: &'a Backend,
    streams: Vec<TcpStream>,
    before: usize,
    sent: usize,
}

impl<'a> Crowd<'a> {
    /// Opens connections that send nothing.
    async fn dialled(backend: &'a Backend) -> Self {
        let mut streams = Vec::new();
        for _ in 0..CROWD {
            streams.push(dial(backend).await);
        }
        Self { backend, streams, before: memory(backend), sent: 0 }
    }

    /// Opens connections that have upgraded.
    async fn upgraded(backend: &'a Backend) -> Self {
        let head = upgrade(backend.gateway.address(), &[]);
        let mut streams = Vec::new();
        for _ in 0..CROWD {
            let mut stream = dial(backend).await;
            stream.write_all(head.as_bytes()).await.unwrap();
            let mut answer = Vec::new();
            while !answer.ends_with(b"\r\n\r\n") {
                answer.push(stream.read_u8().await.unwrap());
            }
            assert!(answer.starts_with(b"HTTP/1.1 101"));
            streams.push(stream);
        }
        Self { backend, streams, before: memory(backend), sent: 0 }
    }

    /// Sends these bytes on all connections. Returns when the gateway has read all of them.
    async fn sends(&mut self, bytes: &[u8]) {
        for stream in &mut self.streams {
            stream.write_all(bytes).await.unwrap();
        }
        self.sent += bytes.len();
        let address = self.backend.gateway.address();
        until("all is read", SOON, async || unread(address), |bytes| *bytes == 0).await;
    }

    /// Waits until each connection costs at most this many bytes. Freed memory goes back to the kernel a moment later.
    async fn costs_at_most(&self, most: usize) {
        let cost = async || memory(self.backend).saturating_sub(self.before) / CROWD;
        until(&format!("{most} bytes for {}", self.sent), SOON, cost, |cost| *cost <= most + NOISE).await;
    }
}

async fn dial(backend: &Backend) -> TcpStream {
    let socket = TcpSocket::new_v4().unwrap();
    // The buffer is small, so that the gateway soon notices a client that does not read.
    socket.set_recv_buffer_size(4096).unwrap();
    socket.connect(backend.gateway.address()).await.unwrap()
}

/// Returns the gateway's private memory in bytes. The pages of its program are not counted, because they are loaded
/// when they are first run.
pub(crate) fn memory(backend: &Backend) -> usize {
    let text = std::fs::read_to_string(format!("/proc/{}/smaps_rollup", backend.gateway.pid())).unwrap();
    let pss = text.lines().find_map(|line| line.strip_prefix("Pss_Anon:")).unwrap();
    pss.trim().trim_end_matches(" kB").parse::<usize>().unwrap() * 1024
}

/// Returns the bytes that have come to a listener's connections and that the gateway has not read.
fn unread(address: SocketAddr) -> u64 {
    let text = std::fs::read_to_string("/proc/net/tcp").unwrap();
    let local = format!(":{:04X}", address.port());
    let queues = text.lines().filter_map(|line| {
        let fields: Vec<_> = line.split_whitespace().collect();
        let queues = (fields[1].ends_with(&local) && fields[3] == "01").then_some(fields[4])?;
        u64::from_str_radix(queues.split_once(':')?.1, 16).ok()
    });
    queues.sum()
}

#[tokio::test]
async fn a_length_that_is_only_announced_takes_no_memory() {
    let backend = patient(&[]);
    let mut crowd = Crowd::upgraded(&backend).await;
    crowd.sends(&frame(0x81, b"", 65536)).await;
    crowd.costs_at_most(0).await;
}

#[tokio::test]
async fn half_a_message_costs_its_bytes_twice_at_most() {
    let backend = patient(&[]);
    let mut crowd = Crowd::upgraded(&backend).await;
    crowd.sends(&frame(0x81, b"", 65536)).await;
    for _ in 0..13 {
        crowd.sends(&[b' '; 5_000]).await;
        crowd.costs_at_most(2 * crowd.sent).await;
    }
}

#[tokio::test]
async fn fragments_cost_their_bytes_twice_at_most() {
    let backend = patient(&[]);
    for size in [0, 1, 60] {
        let mut crowd = Crowd::upgraded(&backend).await;
        let payload = vec![b' '; size];
        let fragments = [frame(0x01, &payload, size), frame(0x00, &payload, size).repeat(1022)].concat();
        crowd.sends(&fragments).await;
        crowd.costs_at_most(2 * crowd.sent).await;
    }
}

#[tokio::test]
async fn half_a_head_costs_no_more_than_a_connection_may() {
    let backend = patient(&[]);
    let head = upgrade(backend.gateway.address(), &[("X", &"y".repeat(15_000))]);
    for length in [1, 100, head.len() - 4] {
        let mut crowd = Crowd::dialled(&backend).await;
        crowd.sends(&head.as_bytes()[..length]).await;
        crowd.costs_at_most(FIXED).await;
    }
}

#[tokio::test]
async fn requests_that_wait_for_a_function_cost_no_more_than_they_may() {
    // The authorization service accepts the question and never answers, so that each connect takes long.
    let hook = TcpListener::bind("127.0.0.1:0").unwrap();
    let hook = format!("http://{}/", hook.local_addr().unwrap());
    let backend = patient(&[("ROLLCALL_AUTHZ_URL", &hook)]);
    let room = backend.classroom();
    let payload = room.connect_request(&room.participant("alice"), "web");
    let connect = text(&json!({"type": "connect_request", "payload": payload}).to_string());
    for waiting in ["", "x", &"x".repeat(100)] {
        let mut crowd = Crowd::upgraded(&backend).await;
        crowd.sends(&connect).await;
        let waiting = text(waiting);
        crowd.sends(&waiting.repeat(27_000 / waiting.len())).await;
        crowd.costs_at_most(FIXED + 2 * crowd.sent).await;
    }
}

#[tokio::test]
async fn a_client_over_its_limit_that_does_not_read_the_answers_is_closed() {
    let backend = patient(&[("ROLLCALL_SEND_BUFFER", "16KiB")]);
    let room = backend.classroom();
    let mut crowd = Crowd::upgraded(&backend).await;
    for (number, stream) in crowd.streams.iter_mut().enumerate() {
        let payload = room.connect_request(&room.participant(&format!("user-{number}")), "web");
        let mut request = json!({"type": "connect_request", "payload": payload});
        // Each client is in a classroom of its own, so that it gets nothing but answers to its own requests.
        request["payload"]["classroom_id"] = json!(format!("2b5c0e0c-8f7c-4b0a-9d54-{number:012}"));
        stream.write_all(&text(&request.to_string())).await.unwrap();
        stream.read_u8().await.unwrap();
    }
    crowd.before = memory(&backend);
    crowd.sends(&text("x").repeat(3_000)).await;
    crowd.costs_at_most(FIXED + 2 * crowd.sent).await;
    let closed = || metric(&backend, "rollcall_disconnects_total", "reason=\"too_many_requests\"");
    until("all are closed", SOON, async || closed(), |closed| *closed == CROWD as f64).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn classmates_notice_nothing_of_a_flood() {
    let backend = with(&[("ROLLCALL_EVENT_RATE", "100000"), ("ROLLCALL_USER_EVENT_RATE", "100000")]);
    let room = backend.classroom();
    let mut alice = backend.participant(room, "alice").await;
    // The 99th percentile of the times until alice gets an answer.
    let mut slowest = async || {
        let mut times = Vec::new();
        for _ in 0..300 {
            let asked = Instant::now();
            assert_eq!(alice.client.request("nonsense", json!({})).await.unwrap()["message"], "unknown event");
            times.push(asked.elapsed());
        }
        times.sort_unstable();
        times[times.len() * 99 / 100]
    };
    let (address, over) = (backend.gateway.address(), AtomicBool::new(false));
    let flood = frame(0x89, &[b'p'; 125], 125).repeat(500);
    // Other load on the machine can only make the result worse, so one good attempt is enough.
    let mut attempts = Vec::new();
    while attempts.iter().all(|(before, during)| *during > *before + Duration::from_millis(50)) {
        assert!(attempts.len() < 10, "the 99th of 100 answers, before and during: {attempts:?}");
        let before = slowest().await;
        over.store(false, Ordering::Relaxed);
        // The flood connects again and again, because the gateway soon closes each connection. It runs in a thread, so
        // that it takes no time from alice's task.
        let during = std::thread::scope(|scope| {
            scope.spawn(|| {
                while !over.load(Ordering::Relaxed) {
                    let mut stream = std::net::TcpStream::connect(address).unwrap();
                    stream.set_write_timeout(Some(Duration::from_millis(100))).unwrap();
                    stream.write_all(upgrade(address, &[]).as_bytes()).unwrap();
                    while stream.write_all(&flood).is_ok() {
                        if over.load(Ordering::Relaxed) {
                            return;
                        }
                    }
                }
            });
            let during = tokio::task::block_in_place(|| tokio::runtime::Handle::current().block_on(slowest()));
            over.store(true, Ordering::Relaxed);
            during
        });
        attempts.push((before, during));
    }
}
