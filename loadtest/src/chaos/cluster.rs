//! Three nodes with short leases on private servers, each behind a wire, and what is asked of the servers afterwards.

use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::path::Path;
use std::time::Duration;

use rollcall_loadtest::servers::{Nats, Postgres, PostgresOptions, Redis, psql};
use rollcall_loadtest::{Gateway, GatewayOptions};

use super::plan::NODES;
use super::wire::Wire;

const ANSWER: Duration = Duration::from_secs(5);

/// The whole.
pub(super) struct Cluster {
    pub(super) nodes: Vec<Gateway>,
    pub(super) wires: Vec<Wire>,
    pub(super) postgres: Postgres,
    pub(super) redis: Redis,
    pub(super) nats: Nats,
    database: String,
}

/// A row of agent_session_history.
#[derive(Debug, Clone)]
pub(super) struct Past {
    pub(super) session: i64,
    pub(super) agent: String,
    pub(super) classroom: String,
}

impl Cluster {
    /// Starts it.
    pub(super) async fn start(binary: &Path) -> io::Result<Self> {
        // No power is cut here: what a killed process wrote stays.
        let postgres = Postgres::start_with(PostgresOptions { fsync: false, ..PostgresOptions::default() })?;
        let (redis, nats) = (Redis::start()?, Nats::start()?);
        let database = postgres.create_database()?;
        let options = GatewayOptions::new(binary.canonicalize()?)
            .env("DATABASE_URL", &database)
            .env("REDIS_URL", redis.url())
            .env("NATS_URL", nats.url())
            .env("ROLLCALL_LEASE", "500ms")
            .env("ROLLCALL_PING_INTERVAL", "1s")
            .env("ROLLCALL_PONG_TIMEOUT", "900ms");
        let (mut nodes, mut wires) = (Vec::new(), Vec::new());
        for _ in 0..NODES {
            let node = Gateway::start(options.clone())?;
            wires.push(Wire::before(node.address()).await?);
            nodes.push(node);
        }
        Ok(Self { nodes, wires, postgres, redis, nats, database })
    }

    /// Makes the lessons of a seed, one a classroom.
    pub(super) fn add_lessons(&self, lessons: &[String], classrooms: &[String]) -> io::Result<()> {
        let rows: Vec<String> = lessons
            .iter()
            .zip(classrooms)
            .map(|(lesson, classroom)| format!("('{lesson}', '{classroom}', 30)"))
            .collect();
        let statement = format!("insert into lesson (id, classroom_id, seats) values {}", rows.join(", "));
        psql(&self.database, &statement).map(drop)
    }

    /// What is not over yet in these classrooms: live sessions, and events that wait.
    pub(super) fn unfinished(&self, classrooms: &[String]) -> io::Result<String> {
        let among = quoted(classrooms);
        let statement = format!(
            "select 'session ' || id || ' of ' || agent_id || ' on node ' || node_id || ' sid ' || sid \
                 from agent_session where classroom_id in ({among}) \
             union all select 'outbox ' || operation || ' ' || session_id from outbox where classroom_id in ({among})"
        );
        psql(&self.database, &statement)
    }

    /// The history of these classrooms.
    pub(super) fn history(&self, classrooms: &[String]) -> io::Result<Vec<Past>> {
        let among = quoted(classrooms);
        let statement = format!(
            "select id, agent_id, classroom_id from agent_session_history where classroom_id in ({among}) order by id"
        );
        let rows = psql(&self.database, &statement)?;
        let past = |line: &str| {
            let mut columns = line.split('|');
            let session = columns.next()?.parse().ok()?;
            Some(Past { session, agent: columns.next()?.to_owned(), classroom: columns.next()?.to_owned() })
        };
        let lines = rows.lines().filter(|line| !line.is_empty());
        lines.map(|line| past(line).ok_or_else(|| io::Error::other(format!("no history: {line}")))).collect()
    }

    /// Fields in the hashes of these lessons: each names a connection that is in it.
    pub(super) fn fields(&self, lessons: &[String]) -> io::Result<Vec<String>> {
        let mut fields = Vec::new();
        for lesson in lessons {
            for hash in [format!("lesson_teacher_{lesson}"), format!("lesson_student_{lesson}")] {
                let answer = self.ask_redis(&format!("HGETALL {hash}"))?;
                // An array of bulk strings: lengths and texts by turns after its own length.
                let texts: Vec<&str> = answer.lines().skip(1).filter(|line| !line.starts_with('$')).collect();
                fields.extend(texts.chunks(2).map(|pair| format!("{hash}: {}", pair.join(" -> "))));
            }
        }
        Ok(fields)
    }

    /// One inline command; the answer is whole when the next one's, to PING, has come.
    fn ask_redis(&self, command: &str) -> io::Result<String> {
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, self.redis.port()));
        let mut stream = TcpStream::connect_timeout(&address, ANSWER)?;
        stream.set_read_timeout(Some(ANSWER))?;
        stream.write_all(format!("{command}\r\nPING\r\n").as_bytes())?;
        let mut answer = Vec::new();
        let mut part = [0; 4096];
        while !answer.ends_with(b"+PONG\r\n") {
            match stream.read(&mut part)? {
                0 => return Err(io::ErrorKind::UnexpectedEof.into()),
                length => answer.extend_from_slice(&part[..length]),
            }
        }
        answer.truncate(answer.len() - b"+PONG\r\n".len());
        String::from_utf8(answer).map_err(io::Error::other)
    }
}

fn quoted(ids: &[String]) -> String {
    ids.iter().map(|id| format!("'{id}'")).collect::<Vec<_>>().join(", ")
}
