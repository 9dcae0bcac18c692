//! A worker process: it reads orders from its input, lets an [`Engine`] carry them out, and writes answers to its
//! output.
//!
//! A worker ends when its input ends, so it never outlives the command that started it.

use std::io::{self, BufRead, Write};
use std::sync::Arc;
use std::sync::mpsc::{self, Receiver};
use std::thread;

use mio::{Events, Waker};

use super::clock::{SECOND, now};
use super::engine::{Engine, WAKE};
use super::order::{Answer, Order};

const PROGRESS_EVERY: u64 = SECOND / 5;

/// Carries out orders until the input ends.
pub(crate) fn run() -> io::Result<()> {
    let mut engine = Engine::new()?;
    let waker = Arc::new(Waker::new(engine.registry(), WAKE)?);
    let orders = listen(waker);
    let mut events = Events::with_capacity(1024);
    let mut reported = (now(), 0);
    loop {
        engine.turn(&mut events)?;
        while let Ok(order) = orders.try_recv() {
            if let Some(answer) = engine.take(order) {
                say(&answer)?;
            }
        }
        if let Some(answer) = engine.settle() {
            say(&answer)?;
        }
        let at = now();
        if at > reported.0 + PROGRESS_EVERY && engine.present != reported.1 {
            reported = (at, engine.present);
            say(&Answer::Progress { present: reported.1 })?;
        }
    }
}

fn listen(waker: Arc<Waker>) -> Receiver<Order> {
    let (sender, orders) = mpsc::sync_channel(16);
    thread::spawn(move || {
        for line in io::stdin().lock().lines() {
            let order = line.and_then(|line| Ok(serde_json::from_str(&line)?));
            match order {
                Ok(order) => {
                    if sender.send(order).is_err() || waker.wake().is_err() {
                        break;
                    }
                }
                Err(error) => {
                    eprintln!("an order that cannot be read: {error}");
                    break;
                }
            }
        }
        std::process::exit(0);
    });
    orders
}

fn say(answer: &Answer) -> io::Result<()> {
    let mut output = io::stdout().lock();
    serde_json::to_writer(&mut output, answer)?;
    output.write_all(b"\n")?;
    output.flush()
}
