//! Faults of servers that keep running: the stream is lost or refuses messages, Redis is demoted or loses writes, rows
//! are poisoned.
//!
//! Invariant: when a mishap has ended, the server works as before, and rows that a mishap wrote can be told by their
//! names.

use std::io;
use std::sync::Mutex;
use std::thread;
use std::time::{Duration, Instant};

use tokio::runtime::Runtime;

use rollcall_loadtest::servers::{psql, tell_redis};

use super::faults::Deed;
use super::journal::locked;
use super::stream::Tape;

/// How long a Redis may take to copy the data of another.
const SYNC_LIMIT: Duration = Duration::from_secs(10);
const LOOK_EVERY: Duration = Duration::from_millis(10);
/// No server listens on this port.
const NO_PORT: u16 = 1;
/// The agent of outbox rows that cannot be published as they are. No seed has such an agent.
pub(super) const POISONED: &str = "web.poisoned.example.org";
/// A text that is not an agent's id.
pub(super) const UNREADABLE: &str = "nobody";
/// The number of poisoned rows. It is large enough for each of the outbox's shards to get one.
const ROWS: usize = 64;

/// What mishaps need to know of their seed.
pub(super) struct Scene<'a> {
    pub(super) runtime: &'a Runtime,
    /// `None` if there is no stream.
    pub(super) tape: Option<&'a Tape>,
    pub(super) classrooms: &'a [String],
    /// The user whose sessions the database refuses to end.
    pub(super) user: String,
    /// A lock that is held while a node starts and while the stream is deleted. A node that starts makes a missing
    /// stream, and a server that still deletes the old stream's files would delete the new one's, too.
    pub(super) starts: Mutex<()>,
}

impl Scene<'_> {
    /// Carries out a deed on the stream, and returns the mishap's name, or `None` if the deed is not about the stream.
    pub(super) fn strike_stream(&self, deed: Deed, lasts: Duration) -> io::Result<Option<&'static str>> {
        let Some(tape) = self.tape else { return Ok(None) };
        let deleting = matches!(deed, Deed::Delete | Deed::Remake).then(|| locked(&self.starts));
        let done = self.runtime.block_on(async {
            match deed {
                Deed::Delete => tape.delete().await.map(|_| Some("stream deleted")),
                Deed::Remake => {
                    let config = tape.delete().await?;
                    tape.create(config).await;
                    Ok(Some("stream made anew"))
                }
                Deed::Refuse => {
                    let config = tape.refuse().await?;
                    tokio::time::sleep(lasts).await;
                    tape.accept(&config).await.map(|()| Some("stream refuses"))
                }
                Deed::Forge => tape.forge(self.classrooms).await.map(|()| Some("message forged")),
                _ => Ok(None),
            }
        });
        if deleting.is_some() {
            drop(deleting);
            self.runtime.block_on(tape.until_made());
        }
        done.map_err(io::Error::other)
    }

    /// Carries out a deed on the Redis on `port`, and returns the mishap's name. `spare` is another Redis that no node
    /// uses.
    pub(super) fn strike_redis(
        &self,
        port: u16,
        spare: u16,
        deed: Deed,
        lasts: Duration,
    ) -> io::Result<Option<&'static str>> {
        match deed {
            Deed::Demote => {
                follow(port, Some(NO_PORT))?;
                thread::sleep(lasts);
                follow(port, None)?;
                Ok(Some("redis demoted"))
            }
            Deed::PutBack => {
                follow(spare, Some(port))?;
                synced(spare)?;
                follow(spare, None)?;
                // Writes from here on are lost.
                thread::sleep(lasts);
                follow(port, Some(spare))?;
                synced(port)?;
                follow(port, None)?;
                Ok(Some("redis put back"))
            }
            _ => Ok(None),
        }
    }

    /// Carries out a deed on rows of this database, and returns the mishap's name.
    pub(super) fn strike_rows(&self, database: &str, deed: Deed, lasts: Duration) -> io::Result<Option<&'static str>> {
        match deed {
            Deed::Poison => {
                psql(database, &poison())?;
                Ok(Some("row poisoned"))
            }
            Deed::RefuseEnd => {
                psql(database, &refuse_end(&self.user))?;
                thread::sleep(lasts);
                psql(database, "drop trigger chaos_refuse on agent_session; drop function chaos_refuse")?;
                Ok(Some("end refused"))
            }
            _ => Ok(None),
        }
    }
}

/// Returns the statement that inserts poisoned rows into every shard: a row with an unknown reason, which is published
/// without the reason, and a row that cannot be published.
fn poison() -> String {
    let insert = "insert into outbox (classroom_id, agent_id, session_id, operation, reason)";
    let each = |agent: &str, first: i64| {
        format!(
            "{insert} select gen_random_uuid(), '{agent}', {first} + n, 'left', 'exploded' from generate_series(1, {ROWS}) n"
        )
    };
    format!("{}; {}", each(POISONED, 1 << 40), each(UNREADABLE, 1 << 41))
}

fn refuse_end(user: &str) -> String {
    format!(
        "create function chaos_refuse() returns trigger language plpgsql as \
             $$ begin raise exception 'refused by chaos'; end $$; \
         create trigger chaos_refuse before delete on agent_session \
             for each row when (old.user_id = '{user}') execute function chaos_refuse()"
    )
}

/// Makes a Redis replicate the one on another port, or none.
fn follow(port: u16, leader: Option<u16>) -> io::Result<()> {
    let command = leader.map_or("REPLICAOF NO ONE".to_owned(), |leader| format!("REPLICAOF 127.0.0.1 {leader}"));
    tell_redis(port, &command).map(drop)
}

/// Waits until a Redis has the data of its leader.
fn synced(port: u16) -> io::Result<()> {
    let deadline = Instant::now() + SYNC_LIMIT;
    while !tell_redis(port, "INFO replication")?.contains("master_link_status:up") {
        if Instant::now() >= deadline {
            return Err(io::Error::new(io::ErrorKind::TimedOut, "a Redis does not follow the other one"));
        }
        thread::sleep(LOOK_EVERY);
    }
    Ok(())
}
