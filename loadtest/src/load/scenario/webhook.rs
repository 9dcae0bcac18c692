//! The webhook while its receiver is down: agents enter and leave at a steady rate, and nodes are killed, and stopped
//! for longer than their lease. When the receiver is back it must get every event, in order, while nodes still break.
//!
//! The history says what it must get: one entered and then one left of each session.

use std::collections::HashSet;
use std::io;
use std::net::SocketAddr;
use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread;
use std::time::{Duration, Instant};

use futures_util::StreamExt;
use rollcall_loadtest::client::ClientError;
use rollcall_loadtest::webhook::{Receiver, SECRET};
use rollcall_loadtest::{Client, Gateway, retry, token};
use tokio::runtime::Builder;
use tokio::time::{sleep, sleep_until, timeout};

use super::webhook_ledger::{Balance, Ledger};
use crate::load::results::Limit;
use crate::load::stage::Stage;
use crate::load::system::{Kind, System};

const CLASSROOMS: usize = 200;
/// How long an agent stays.
const VISIT: Duration = Duration::from_secs(1);
/// How long an agent waits at a node before it tries the next one.
const ENTER_LIMIT: Duration = Duration::from_secs(2);
const TRIES: usize = 4;
const TRY_AGAIN: Duration = Duration::from_millis(500);
/// The maximum number of agents that are connected or connecting at once, including those that wait for stopped nodes.
const MAX_AT_ONCE: usize = 8000;
/// The lease is short, so that the sessions of every stopped node are taken over.
const LEASE: Duration = Duration::from_secs(2);
/// The time between two faults of nodes.
const PEACE: Duration = Duration::from_secs(4);
/// How long nodes still break after the receiver is back.
const BROKEN_CATCHING_UP: Duration = Duration::from_secs(15);
/// If no new event comes for this long, missing events are lost. This is longer than the longest pause between two
/// attempts.
const SILENCE: Duration = Duration::from_secs(45);

/// How long the receiver is down, how many events come in a second, and the number of nodes (one if it is embedded).
#[derive(Debug, Clone, Copy)]
pub(crate) struct Outage {
    pub(crate) lasts: Duration,
    pub(crate) rate: f64,
    pub(crate) nodes: usize,
}

impl Outage {
    /// The outage in a run of all scenarios.
    pub(crate) const SHORT: Self = Self { lasts: Duration::from_secs(60), rate: 1000.0, nodes: 3 };
}

pub(crate) fn run(stage: &mut Stage, outage: Outage) -> io::Result<()> {
    for kind in stage.gateways() {
        measure(stage, kind, outage)?;
    }
    Ok(())
}

fn measure(stage: &mut Stage, kind: Kind, outage: Outage) -> io::Result<()> {
    let receiver = Receiver::start()?;
    receiver.kill();
    let settings = [
        ("ROLLCALL_WEBHOOK_URL", receiver.url()),
        ("ROLLCALL_WEBHOOK_SECRET", SECRET.to_owned()),
        ("ROLLCALL_LEASE", format!("{}s", LEASE.as_secs())),
    ];
    let nodes = if kind == Kind::Embedded { 1 } else { outage.nodes };
    let mut system = stage.start_with(kind, nodes, &[], &settings)?;
    let System::Gateways { gateways, .. } = &mut system else {
        return Err(io::Error::other("the floor has no webhook"));
    };
    let addresses: Vec<SocketAddr> = gateways.iter().map(Gateway::address).collect();
    let (storm, over) = mpsc::channel::<()>();
    let mut ledger = Ledger::default();
    let (faults, back) = thread::scope(|scope| {
        let faults = scope.spawn(move || break_nodes(gateways, &over));
        let course = come_and_go(&addresses, outage).and_then(|()| {
            receiver.restart()?;
            let back = Instant::now();
            ledger.follow(&receiver, |ledger| {
                let broken = ledger.first.is_some_and(|first| first.elapsed() >= BROKEN_CATCHING_UP);
                broken || back.elapsed() >= SILENCE
            });
            Ok(back)
        });
        drop(storm);
        Ok::<_, io::Error>((joined(faults)?, course?))
    })?;
    thread::scope(|scope| {
        let empty = scope.spawn(|| system.wait_until_empty());
        ledger.follow(&receiver, |_| empty.is_finished());
        joined(empty)
    })?;
    let history = system.sql("select id from agent_session_history")?;
    let history: HashSet<i64> = history.lines().filter_map(|id| id.parse().ok()).collect();
    ledger.follow(&receiver, |ledger| {
        ledger.balance(&history).missing == 0 || ledger.latest.max(back).elapsed() >= SILENCE
    });

    let Balance { missing, strange } = ledger.balance(&history);
    let made = 2 * history.len();
    let seconds = |until: Instant| until.saturating_duration_since(back).as_secs_f64();
    let mut note = stage.note("webhook", kind);
    note.figure("receiver down", outage.lasts.as_secs_f64(), "s", None);
    let rate = made as f64 / outage.lasts.as_secs_f64();
    note.figure("events a second meanwhile", rate, "/s", Some(Limit::AtLeast(0.9 * outage.rate)));
    note.figure("nodes killed, or stopped and taken over", faults as f64, "", None);
    note.figure("events", made as f64, "", None);
    note.figure("events lost or out of order", missing as f64, "", Some(Limit::AtMost(0.0)));
    note.figure("events that never were, or told anew", strange as f64, "", Some(Limit::AtMost(0.0)));
    note.figure("events posted again, which their offset tells", ledger.ignored as f64, "", None);
    note.figure("first delivered after", ledger.first.map_or(f64::INFINITY, seconds), "s", None);
    note.figure("all delivered after", seconds(ledger.latest), "s", None);
    Ok(())
}

fn joined<T>(thread: thread::ScopedJoinHandle<'_, io::Result<T>>) -> io::Result<T> {
    thread.join().unwrap_or_else(|_| Err(io::Error::other("a thread panicked")))
}

/// Agents enter and leave, with two events each, for as long as the outage lasts.
fn come_and_go(addresses: &[SocketAddr], outage: Outage) -> io::Result<()> {
    let agents = outage.rate / 2.0;
    let all = (agents * outage.lasts.as_secs_f64()) as usize;
    Builder::new_current_thread().enable_all().build()?.block_on(async {
        let began = tokio::time::Instant::now();
        let visits = futures_util::stream::iter(0..all).map(async |number| {
            sleep_until(began + Duration::from_secs_f64(number as f64 / agents)).await;
            for attempt in 0..TRIES {
                let address = addresses[(number + attempt) % addresses.len()];
                // A visit that breaks in the middle has its events too, and is in the history.
                if let Ok(Ok(client)) = timeout(ENTER_LIMIT, enter(address, number)).await {
                    sleep(VISIT).await;
                    client.close().await.ok();
                    break;
                }
                sleep(TRY_AGAIN).await;
            }
        });
        visits.buffer_unordered(MAX_AT_ONCE).collect::<()>().await;
    });
    Ok(())
}

async fn enter(address: SocketAddr, number: usize) -> Result<Client, ClientError> {
    let mut client = Client::connect(address).await?;
    let classroom = format!("00000000-0000-4000-8000-{:012x}", number % CLASSROOMS);
    client.connect_request(&token::participant(&format!("visitor-{number}")), &classroom, "web").await?;
    Ok(client)
}

/// Kills one node, stops the next for longer than its lease, and so on until the sender of `over` is dropped. Returns
/// the number of faults.
fn break_nodes(gateways: &mut [Gateway], over: &mpsc::Receiver<()>) -> io::Result<usize> {
    let (mut faults, count) = (0, gateways.len());
    while over.recv_timeout(PEACE) == Err(RecvTimeoutError::Timeout) {
        let (round, number) = (faults / count, faults % count);
        let node = &mut gateways[number];
        // Each node is killed in one round and stopped in the next.
        if (round + number).is_multiple_of(2) {
            node.kill()?;
            start_again(node)?;
        } else {
            node.pause()?;
            thread::sleep(2 * LEASE);
            node.resume()?;
        }
        faults += 1;
    }
    Ok(faults)
}

/// Starts a node again. It may have to wait for the end of its own lease.
fn start_again(node: &mut Gateway) -> io::Result<()> {
    retry(ENTER_LIMIT + 2 * LEASE, || node.restart())
}
