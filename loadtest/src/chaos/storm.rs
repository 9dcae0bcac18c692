//! The faults of a plan, done to a cluster when their time has come.
//!
//! Invariant: when a storm is over everything runs again, whatever happened to it.

use std::io;
use std::thread;
use std::time::{Duration, Instant};

use rollcall_loadtest::Gateway;
use rollcall_loadtest::servers::{Kind, Server};

use super::cluster::Cluster;
use super::plan::{Deed, Fault, Target};
use super::wire::Wire;

/// A node that is started while its servers are down ends, and is started again.
const RESTART_LIMIT: Duration = Duration::from_secs(30);
const RESTART_AGAIN: Duration = Duration::from_millis(100);

/// A process that faults are done to.
trait Victim: Send {
    fn pause(&self) -> io::Result<()>;
    fn resume(&self) -> io::Result<()>;
    fn kill(&mut self) -> io::Result<()>;
    fn restart(&mut self) -> io::Result<()>;
}

impl Victim for Gateway {
    fn pause(&self) -> io::Result<()> {
        self.pause()
    }
    fn resume(&self) -> io::Result<()> {
        self.resume()
    }
    fn kill(&mut self) -> io::Result<()> {
        self.kill()
    }
    fn restart(&mut self) -> io::Result<()> {
        self.restart()
    }
}

impl<K: Kind<Options: Send>> Victim for Server<K> {
    fn pause(&self) -> io::Result<()> {
        self.pause()
    }
    fn resume(&self) -> io::Result<()> {
        self.resume()
    }
    fn kill(&mut self) -> io::Result<()> {
        self.kill()
    }
    fn restart(&mut self) -> io::Result<()> {
        self.restart()
    }
}

/// Does all of it, and returns when the last fault has ended.
pub(super) fn rage(cluster: &mut Cluster, faults: &[Fault], start: Instant) -> io::Result<()> {
    let Cluster { nodes, wires, postgres, redis, nats, .. } = cluster;
    let of = |target: Target| faults.iter().filter(move |fault| fault.target == target);
    thread::scope(|scope| {
        let mut threads = Vec::new();
        for (number, node) in nodes.iter_mut().enumerate() {
            threads.push(scope.spawn(move || endure(node, of(Target::Node(number)), start)));
        }
        threads.push(scope.spawn(|| endure(postgres, of(Target::Postgres), start)));
        threads.push(scope.spawn(|| endure(redis, of(Target::Redis), start)));
        threads.push(scope.spawn(|| endure(nats, of(Target::Nats), start)));
        for (number, wire) in wires.iter().enumerate() {
            threads.push(scope.spawn(move || bend(wire, of(Target::Wire(number)), start)));
        }
        let mut ended = threads.into_iter().map(|thread| thread.join());
        ended.try_for_each(|ended| ended.unwrap_or_else(|_| Err(io::Error::other("a fault panicked"))))
    })
}

/// One process's faults, one after the other: one whose time comes during another follows it.
fn endure<'a>(victim: &mut dyn Victim, faults: impl Iterator<Item = &'a Fault>, start: Instant) -> io::Result<()> {
    for Fault { at, deed, lasts, .. } in faults {
        sleep_until(start + *at);
        if *deed == Deed::Kill {
            victim.kill()?;
            thread::sleep(*lasts);
            let deadline = Instant::now() + RESTART_LIMIT;
            while let Err(error) = victim.restart() {
                if Instant::now() >= deadline {
                    return Err(error);
                }
                thread::sleep(RESTART_AGAIN);
            }
        } else {
            victim.pause()?;
            thread::sleep(*lasts);
            victim.resume()?;
        }
    }
    Ok(())
}

fn bend<'a>(wire: &Wire, faults: impl Iterator<Item = &'a Fault>, start: Instant) -> io::Result<()> {
    for Fault { at, deed, lasts, .. } in faults {
        sleep_until(start + *at);
        match deed {
            Deed::Hold => wire.hold(),
            Deed::HalfOpen => wire.lose_clients(),
            Deed::Cut | Deed::Kill | Deed::Pause => wire.cut(),
        }
        thread::sleep(*lasts);
        wire.clear();
    }
    Ok(())
}

fn sleep_until(moment: Instant) {
    thread::sleep(moment.saturating_duration_since(Instant::now()));
}
