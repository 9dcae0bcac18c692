//! What a flood costs other clients: how long classmates wait for their events while strangers send pings as fast as
//! they can.
//!
//! A flood from the same machine takes processor time from all processes. So the flood is sent first to a second
//! gateway, which has no other clients, and then to the classmates' gateway. The difference is the gateway's part.

use std::io::{self, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use super::fanout::paced;
use crate::load::clock::{SECOND, now};
use crate::load::crew::{Band, Crew};
use crate::load::frame::{PING, masked};
use crate::load::order::{Crowd, Listen};
use crate::load::publisher::Publisher;
use crate::load::requests::upgrade;
use crate::load::results::Limit;
use crate::load::rounds::EVENT_SIZE;
use crate::load::stage::{Stage, latency_ms};
use crate::load::system::Kind;

const LIMIT: Duration = Duration::from_secs(60);
const AGENTS: usize = 1000;
const ROOM: usize = 50;
const EVENTS_A_SECOND: f64 = 200.0;
const FLOODERS: usize = 4;
/// The number of pings in one send.
const PIECE: usize = 500;
/// The largest payload of a ping.
const PAYLOAD: [u8; 125] = [b'p'; 125];
/// How many times as long the slowest of 100 events may take during a flood to the same gateway as during a flood to
/// another address.
const MAX: f64 = 2.0;

pub(crate) fn run(stage: &mut Stage) -> io::Result<()> {
    // The floor answers no pings.
    for kind in stage.gateways() {
        floods(stage, kind)?;
    }
    Ok(())
}

fn floods(stage: &mut Stage, kind: Kind) -> io::Result<()> {
    let crowd = Crowd::guests(33, AGENTS, ROOM);
    let system = stage.start(kind, 1, std::slice::from_ref(&crowd))?;
    let elsewhere = stage.start(Kind::Embedded, 1, &[])?;
    let mut crew = Crew::for_agents(crowd.agents)?;
    let band = crew.prepare(&crowd, system.address())?;
    crew.gather(&band)?;
    let lessons: Vec<String> = crowd.rooms().map(|room| crowd.lesson(room)).collect();
    let mut class = Class { crew, band, publisher: system.publisher()?, lessons };

    let alone = class.p99(None)?;
    let beside_another = class.p99(Some(elsewhere.address()))?;
    let beside_theirs = class.p99(Some(system.address()))?;

    let mut note = stage.note("hostile", kind);
    note.figure("p99 of classmates, alone", alone.p99, "ms", None);
    let name = "p99 of classmates, pings flood another gateway";
    note.figure(name, beside_another.p99, "ms", None);
    note.figure("pings that it reads", beside_another.pings, "/s", None);
    let limit = Limit::AtMost(MAX * beside_another.p99);
    note.figure("p99 of classmates, pings flood theirs", beside_theirs.p99, "ms", Some(limit));
    note.figure("pings that it reads meanwhile", beside_theirs.pings, "/s", None);
    let lost = alone.lost + beside_another.lost + beside_theirs.lost;
    note.figure("events lost beside floods", lost, "", Some(Limit::AtMost(0.0)));
    Ok(())
}

/// Agents that listen, and the connection that publishes to them.
struct Class {
    crew: Crew,
    band: Band,
    publisher: Publisher,
    lessons: Vec<String>,
}

/// What the honest clients saw during a flood.
struct Fared {
    p99: f64,
    lost: f64,
    /// The flood's pings in a second.
    pings: f64,
}

impl Class {
    /// Returns the latency that 99 of 100 events keep, while a flood goes to this address.
    fn p99(&mut self, flooded: Option<SocketAddr>) -> io::Result<Fared> {
        self.crew.listen(Listen::Each)?;
        let flood = flooded.map(Flood::of);
        let began = now();
        let published = paced(&mut self.publisher, &self.lessons, EVENT_SIZE, EVENTS_A_SECOND)?;
        let seconds = (now() - began) as f64 / SECOND as f64;
        let pings = flood.map_or(0, Flood::end);
        let each = published as f64 / self.lessons.len() as f64;
        let all = self.crew.pushes(&self.band, each, LIMIT, || Ok(()))?;
        let heard = self.crew.count()?;
        let lost = if all.is_some() { 0.0 } else { (published * ROOM) as f64 - heard.pushes as f64 };
        Ok(Fared { p99: latency_ms(&heard.latencies, 0.99), lost, pings: pings as f64 / seconds })
    }
}

/// Strangers that send pings and read nothing. A stranger whose connection is closed connects again.
struct Flood {
    over: Arc<AtomicBool>,
    flooders: Vec<JoinHandle<u64>>,
}

impl Flood {
    fn of(target: SocketAddr) -> Self {
        let over = Arc::new(AtomicBool::new(false));
        let flooder = || {
            let over = Arc::clone(&over);
            thread::spawn(move || {
                let mut sent = 0;
                while !over.load(Ordering::Relaxed) {
                    // Whether this connection ended with an error or without, the next one follows.
                    flood(target, &over, &mut sent).ok();
                }
                sent
            })
        };
        let flooders = (0..FLOODERS).map(|_| flooder()).collect();
        Self { over, flooders }
    }

    /// Ends the flood. Returns how many pings were sent.
    fn end(self) -> u64 {
        self.over.store(true, Ordering::Relaxed);
        self.flooders.into_iter().map(|flooder| flooder.join().unwrap_or_default()).sum()
    }
}

/// Sends a flood on one connection, and counts its pings in `sent`.
fn flood(target: SocketAddr, over: &AtomicBool, sent: &mut u64) -> io::Result<()> {
    let mut stream = TcpStream::connect(target)?;
    stream.set_write_timeout(Some(Duration::from_millis(100)))?;
    stream.write_all(&upgrade(target))?;
    let pings = masked(PING, &PAYLOAD).repeat(PIECE);
    while !over.load(Ordering::Relaxed) {
        stream.write_all(&pings)?;
        *sent += PIECE as u64;
    }
    Ok(())
}
