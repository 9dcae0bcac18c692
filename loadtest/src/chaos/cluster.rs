//! The nodes of a setting on private servers. Each node has a wire to its clients and wires of its own to the servers.
//! Afterwards the servers are asked for what the ledger compares.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use rollcall_loadtest::servers::{Nats, Pgbouncer, PgbouncerOptions, psql, sqlite};
use rollcall_loadtest::view::{Agents, States};
use rollcall_loadtest::webhook::Receiver;
use rollcall_loadtest::{Gateway, GatewayOptions, Wire};

use super::authz;
use super::key_servers::KeyServers;
use super::lines::Lines;
use super::mishaps::{POISONED, UNREADABLE};
use super::options::Options;
use super::past::Past;
use super::primary::Primary;
use super::setting::Setting;
use super::webhook;

/// The number of the pooler's connections to the database. Three nodes have more connections to the pooler.
const POOLED: u32 = 8;
/// The file of the armed failpoint in a node's folder.
pub(super) const FAILPOINT: &str = "failpoint";
/// How long a node may take to drain.
pub(super) const DRAIN: Duration = Duration::from_secs(2);

/// All servers and gateways of one run.
pub(super) struct Cluster {
    pub(super) setting: Setting,
    pub(super) nodes: Vec<Gateway>,
    /// The wires between clients and each node.
    pub(super) wires: Vec<Wire>,
    /// The wires between each node and the servers; empty if the node is embedded.
    pub(super) lines: Vec<Lines>,
    /// `None` if the node is embedded.
    pub(super) servers: Option<Servers>,
    /// The webhook's receiver.
    pub(super) receiver: Arc<Receiver>,
}

/// The servers that the nodes share.
pub(super) struct Servers {
    pub(super) primary: Primary,
    /// The pooler between the nodes' wires and the database. A failover of the database removes it.
    pooler: Option<Pgbouncer>,
    pub(super) keys: KeyServers,
    pub(super) nats: Nats,
    /// The wire between all nodes and the authorization service.
    pub(super) authorization: Wire,
}

impl Servers {
    fn start(options: &Options) -> io::Result<Self> {
        let keys = KeyServers::start(options.redis_cluster)?;
        let authorization = Wire::before(authz::start()?)?;
        let primary = if options.standby { Primary::start_with_standby() } else { Primary::start() }?;
        let behind = || Pgbouncer::start_with(PgbouncerOptions::new(primary.port(), POOLED));
        let pooler = options.pooler.then(behind).transpose()?;
        Ok(Self { primary, pooler, keys, nats: Nats::start()?, authorization })
    }

    fn lines(&self) -> io::Result<Lines> {
        let before = |port| Wire::before(SocketAddr::from((Ipv4Addr::LOCALHOST, port)));
        let port = self.pooler.as_ref().map_or(self.primary.port(), Pgbouncer::port);
        let (postgres, redis) = (before(port)?, before(self.keys.port())?);
        Ok(Lines { postgres, redis, nats: before(self.nats.port())? })
    }

    /// Returns the URL of the database behind the nodes' wires: the pooler's, or the database's own.
    fn database(&self) -> String {
        let port = |port: u16| format!(":{port}/");
        match &self.pooler {
            None => self.primary.database().to_owned(),
            Some(pooler) => self.primary.database().replace(&port(self.primary.port()), &port(pooler.port())),
        }
    }
}

impl Cluster {
    /// Starts the servers and the nodes.
    pub(super) fn start(options: &Options, setting: Setting) -> io::Result<Self> {
        let servers = if setting == Setting::Embedded { None } else { Some(Servers::start(options)?) };
        let options = GatewayOptions::new(options.gateway.canonicalize()?)
            .env("CHAOS_FAILPOINT", FAILPOINT)
            .env("ROLLCALL_LEASE", "500ms")
            .env("ROLLCALL_LEAVE_GRACE", if setting == Setting::Grace { "400ms" } else { "0s" })
            .env("ROLLCALL_DRAIN_DEADLINE", format!("{}s", DRAIN.as_secs()))
            .env("ROLLCALL_PING_INTERVAL", "1s")
            .env("ROLLCALL_PONG_TIMEOUT", "900ms")
            .env("ROLLCALL_RESET_SPREAD", "300ms");
        let receiver = Arc::new(Receiver::start()?);
        let options = webhook::posting_to(&receiver, options);
        let (mut nodes, mut wires, mut lines) = (Vec::new(), Vec::new(), Vec::new());
        for number in 0..setting.nodes() {
            let mut options = options.clone();
            if number == 0 {
                // The handler's timeout is shorter than a call of SQL or Redis may take, so that slow and held wires
                // cut off connects and joins in each step.
                options = options.env("ROLLCALL_HANDLER_TIMEOUT", "900ms");
            }
            if let Some(servers) = &servers {
                let Servers { keys, nats, authorization, .. } = servers;
                let ways = servers.lines()?;
                options = options
                    .env("DATABASE_URL", ways.postgres.instead_of(&servers.database()))
                    .env("ROLLCALL_POSTGRES_POOLER", servers.pooler.is_some())
                    .env("REDIS_URL", keys.url(&ways.redis))
                    .env("NATS_URL", ways.nats.instead_of(&nats.url()))
                    .env("ROLLCALL_AUTHZ_URL", format!("http://{}/", authorization.address()))
                    .env("ROLLCALL_AUTHZ_TTL", "200ms");
                lines.push(ways);
            }
            let node = Gateway::start(options)?;
            wires.push(Wire::before(node.address())?);
            nodes.push(node);
        }
        Ok(Self { setting, nodes, wires, lines, servers, receiver })
    }

    /// Returns whether another seed may run on this cluster.
    pub(super) fn is_as_new(&self) -> bool {
        self.servers.as_ref().is_none_or(|servers| !servers.primary.has_failed_over())
    }

    /// Removes the rows that cannot be published, so that the next seed starts without them.
    pub(super) fn remove_poison(&self) -> io::Result<()> {
        if self.servers.is_some() {
            let rows = format!("where agent_id in ('{POISONED}', '{UNREADABLE}')");
            self.sql(&format!("delete from outbox {rows}; delete from outbox_quarantine {rows}"))?;
        }
        Ok(())
    }

    /// Inserts lessons, each with its classroom.
    pub(super) fn add_lessons<'a>(&self, lessons: impl Iterator<Item = (&'a String, &'a String)>) -> io::Result<()> {
        let rows: Vec<String> = lessons.map(|(lesson, classroom)| format!("('{lesson}', '{classroom}', 30)")).collect();
        self.sql(&format!("insert into lesson (id, classroom_id, seats) values {}", rows.join(", "))).map(drop)
    }

    /// Returns what is unfinished in these classrooms: live sessions, events that wait in the outbox, and fields that
    /// wait for their removal.
    pub(super) fn unfinished(&self, classrooms: &[String], lessons: &[String]) -> io::Result<String> {
        let (among, of) = (quoted(classrooms), quoted(lessons));
        self.sql(&format!(
            "select 'session ' || id || ' of ' || agent_id || ' on node ' || node_id || ' sid ' || sid \
                 from agent_session where classroom_id in ({among}) \
             union all select 'outbox ' || operation || ' ' || session_id from outbox where classroom_id in ({among}) \
             union all select 'set aside ' || operation || ' ' || session_id from outbox_quarantine \
                 where classroom_id in ({among}) \
             union all select 'leaving ' || sid || ' of node ' || node_id from stale_field where lesson_id in ({of})"
        ))
    }

    /// Returns the connections that own the live sessions of these classrooms.
    pub(super) fn owners(&self, classrooms: &[String]) -> io::Result<BTreeSet<String>> {
        let among = quoted(classrooms);
        let sids = self.sql(&format!("select sid from agent_session where classroom_id in ({among})"))?;
        Ok(sids.lines().map(str::to_owned).collect())
    }

    /// Returns the lesson of each live session of these classrooms, by the sid of its connection, or `None` if the
    /// session is in no lesson.
    pub(super) fn memberships(&self, classrooms: &[String]) -> io::Result<BTreeMap<String, Option<String>>> {
        let among = quoted(classrooms);
        let rows = self
            .sql(&format!("select sid, coalesce(lesson_id, '') from agent_session where classroom_id in ({among})"))?;
        let pairs = rows.lines().filter_map(|row| row.split_once('|'));
        Ok(pairs.map(|(sid, lesson)| (sid.to_owned(), (!lesson.is_empty()).then(|| lesson.to_owned()))).collect())
    }

    /// Returns the agents in each of these classrooms.
    pub(super) fn agents(&self, classrooms: &[String]) -> io::Result<BTreeMap<String, Agents>> {
        let among = quoted(classrooms);
        let rows =
            self.sql(&format!("select classroom_id, id, agent_id from agent_session where classroom_id in ({among})"))?;
        let mut agents = BTreeMap::<String, Agents>::new();
        for row in rows.lines() {
            let mut columns = row.splitn(3, '|');
            let (classroom, session, agent) = (columns.next(), columns.next(), columns.next());
            let session = session.and_then(|session| session.parse().ok());
            let (Some(classroom), Some(session), Some(agent)) = (classroom, session, agent) else {
                return Err(io::Error::other(format!("no session: {row}")));
            };
            agents.entry(classroom.to_owned()).or_default().insert(session, agent.to_owned());
        }
        Ok(agents)
    }

    /// Returns the states that the agents in each of these classrooms show.
    pub(super) fn states(&self, classrooms: &[String]) -> io::Result<BTreeMap<String, States>> {
        let among = quoted(classrooms);
        let rows = self.sql(&format!(
            "select classroom_id, id, state_n, coalesce(state, 'null') from agent_session \
                 where state_n is not null and classroom_id in ({among})"
        ))?;
        let mut states = BTreeMap::<String, States>::new();
        for row in rows.lines() {
            let mut columns = row.splitn(4, '|');
            let classroom = columns.next().unwrap_or_default().to_owned();
            let mut number = || columns.next().and_then(|number| number.parse::<i64>().ok());
            let (session, version) = (number(), number());
            let state = columns.next().and_then(|state| serde_json::from_str(state).ok());
            let (Some(session), Some(version), Some(state)) = (session, version, state) else {
                return Err(io::Error::other(format!("no state: {row}")));
            };
            states.entry(classroom).or_default().insert(session, (version, state));
        }
        Ok(states)
    }

    /// Returns how many connections the nodes have.
    pub(super) fn connections(&self) -> io::Result<u64> {
        let each = self.nodes.iter().map(|node| node.metric("rollcall_connections", &[]));
        Ok(each.sum::<io::Result<f64>>()? as u64)
    }

    /// Returns the history of these classrooms.
    pub(super) fn history(&self, classrooms: &[String]) -> io::Result<Vec<Past>> {
        let among = quoted(classrooms);
        let rows = self.sql(&format!(
            "select id, agent_id, classroom_id, reason from agent_session_history \
                 where classroom_id in ({among}) order by id"
        ))?;
        let past = |line: &str| {
            let mut columns = line.split('|');
            let session = columns.next()?.parse().ok()?;
            let mut text = || columns.next().map(str::to_owned);
            Some(Past { session, agent: text()?, classroom: text()?, reason: text()? })
        };
        let lines = rows.lines().filter(|line| !line.is_empty());
        lines.map(|line| past(line).ok_or_else(|| io::Error::other(format!("no history: {line}")))).collect()
    }

    /// Returns the fields in the hashes of these lessons. Each names a connection in the lesson.
    pub(super) fn fields(&self, lessons: &[String]) -> io::Result<Vec<String>> {
        let mut fields = Vec::new();
        let Some(Servers { keys, .. }) = &self.servers else { return Ok(fields) };
        for lesson in lessons {
            for hash in [format!("lesson_teacher_{lesson}"), format!("lesson_student_{lesson}")] {
                let texts = keys.hash(&hash)?;
                fields.extend(texts.chunks(2).map(|pair| format!("{hash}: {}", pair.join(" -> "))));
            }
        }
        Ok(fields)
    }

    /// Returns the fields that these lessons must have: of the connections of one user in one role, the one that joined
    /// last has the field.
    pub(super) fn due_fields(&self, lessons: &[String]) -> io::Result<Vec<String>> {
        if self.servers.is_none() {
            return Ok(Vec::new());
        }
        let kind = "case when lesson_role = 'teacher' then 'teacher' else 'student' end";
        let rows = self.sql(&format!(
            "select distinct on (lesson_id, user_id, {kind}) \
                 'lesson_' || {kind} || '_' || lesson_id || ': ' || user_id || ' -> ' || sid \
                 from agent_session where lesson_id in ({}) \
                 order by lesson_id, user_id, {kind}, joined_at desc, id desc",
            quoted(lessons)
        ))?;
        Ok(rows.lines().map(str::to_owned).collect())
    }

    /// Runs a statement. Returns a line for each row, with its columns divided by `|`.
    fn sql(&self, statement: &str) -> io::Result<String> {
        match &self.servers {
            Some(Servers { primary, .. }) => psql(primary.database(), statement),
            None => sqlite(&self.nodes[0].folder().join("rollcall.db"), statement),
        }
    }
}

fn quoted(ids: &[String]) -> String {
    ids.iter().map(|id| format!("'{id}'")).collect::<Vec<_>>().join(", ")
}
