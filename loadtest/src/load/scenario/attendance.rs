//! A classroom with a million sessions in its history: how fast its attendance is read, how much memory that costs the
//! gateway, and how much slower joins are while old history is deleted.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use crate::load::crew::{Band, Crew};
use crate::load::order::{Crowd, Goal, Pace};
use crate::load::proc;
use crate::load::results::Limit;
use crate::load::stage::{Stage, fastest};
use crate::load::system::{Kind, System};

const ROWS: usize = 1_000_000;
/// The number of rows that one statement inserts.
const PIECE: usize = 100_000;
const CLASSROOM: &str = "00000000-0000-4000-8000-a77e0da9ce00";
/// A letter that occurs once in each row of a list, in the agent's id, and nowhere else in an answer.
const MARK: u8 = b'Q';
/// The number of bytes of a list after which the gateway's memory is read again.
const LOOK_EVERY: usize = 4 << 20;
const SILENT: Duration = Duration::from_secs(30);

pub(crate) fn run(stage: &mut Stage) -> io::Result<()> {
    for kind in stage.gateways() {
        measure(stage, kind)?;
    }
    Ok(())
}

fn measure(stage: &mut Stage, kind: Kind) -> io::Result<()> {
    let crowd = Crowd::new(70, stage.agents, 30);
    let mut system = stage.start(kind, 1, std::slice::from_ref(&crowd))?;
    fill(&system, kind)?;
    let admin = system.gateway()?.admin();
    // The first request makes the gateway allocate what it keeps, so that this is not counted as growth.
    list(&system, admin, "?from=2099-01-01T00:00:00Z")?;
    for format in ["csv", "json"] {
        let List { rows, seconds, grown } = list(&system, admin, &format!("?format={format}"))?;
        let mut note = stage.note("attendance", kind);
        note.figure(&format!("rows as {format}"), rows as f64, "", Some(Limit::AtLeast(ROWS as f64)));
        note.figure(&format!("rows as {format}, a second"), rows as f64 / seconds, "/s", None);
        note.figure(&format!("memory that {format} adds"), grown as f64 / proc::MIB, "MiB", Some(Limit::AtMost(16.0)));
    }

    let mut crew = Crew::for_agents(crowd.agents)?;
    let band = crew.prepare(&crowd, system.address())?;
    let rate = joins(stage, kind, &mut crew, &system, &band, "", None)?;
    system.gateway()?.restart_with(|options| options.env("ROLLCALL_HISTORY_RETENTION", "1h"))?;
    let began = Instant::now();
    joins(stage, kind, &mut crew, &system, &band, ", while old history goes", Some(rate))?;
    let gone = system.gateway()?.metric("rollcall_history_deleted_total", &[])?;
    let mut note = stage.note("attendance", kind);
    note.figure("old rows that went meanwhile", gone, "", None);
    note.figure("old rows that went, a second", gone / began.elapsed().as_secs_f64(), "/s", None);
    Ok(())
}

/// Agents connect and join, as fast as possible and at half of that rate. Returns the rate.
fn joins(
    stage: &mut Stage,
    kind: Kind,
    crew: &mut Crew,
    system: &System,
    band: &Band,
    when: &str,
    before: Option<f64>,
) -> io::Result<f64> {
    let (rate, wave) = fastest(crew, system, band, Goal::Joined)?;
    let mut note = stage.note("attendance", kind);
    let name = format!("connect and join{when}");
    note.failures(&name, &wave);
    note.figure(&name, rate, "/s", before.map(|before| Limit::AtLeast(0.8 * before)));
    crew.leave(band)?;
    system.wait_until_empty()?;
    let wave = crew.arrive(band, Pace::Rate(before.unwrap_or(rate) / 2.0), Goal::Joined)?;
    let name = format!("at half of that rate{when}");
    note.failures(&name, &wave);
    note.figure(&format!("{name}: p50"), wave.quantile_ms(0.50), "ms", None);
    note.figure(&format!("{name}: p99"), wave.quantile_ms(0.99), "ms", Some(Limit::AtMost(50.0)));
    crew.leave(band)?;
    system.wait_until_empty()?;
    Ok(rate)
}

/// Writes the history. Later sessions get higher ids than the sessions in the history, as in a database in use.
fn fill(system: &System, kind: Kind) -> io::Result<()> {
    let columns = "agent_session_history (id, agent_id, classroom_id, user_id, reason,";
    let values = format!("n, '{}.u' || n || '.example.org', '{CLASSROOM}', 'u' || n, 'closed',", char::from(MARK));
    for first in (1..=ROWS).step_by(PIECE) {
        let last = first + PIECE - 1;
        system.sql(&match kind {
            Kind::Embedded => format!(
                "with recursive n(n) as (select {first} union all select n + 1 from n where n < {last}) \
                 insert into {columns} started_at, ended_at) select {values} \
                 strftime('%Y-%m-%d %H:%M:%f', 'now', '-2 days'), \
                 strftime('%Y-%m-%d %H:%M:%f', 'now', '-1 day', '+' || (n / 1000.0) || ' seconds') from n"
            ),
            _ => format!(
                "insert into {columns} lifetime) select {values} \
                 tstzrange(now() - interval '2 days', now() - interval '1 day' + n * interval '1 ms') \
                 from generate_series({first}, {last}) as n"
            ),
        })?;
    }
    let ids = match kind {
        Kind::Embedded => format!("insert into sqlite_sequence (name, seq) values ('agent_session', {ROWS})"),
        _ => format!("select setval('agent_session_id_seq', {ROWS})"),
    };
    system.sql(&ids).map(drop)
}

/// The cost of reading a list.
struct List {
    rows: usize,
    seconds: f64,
    /// The maximum number of bytes by which the gateway's memory exceeded its size before.
    grown: u64,
}

/// Reads a list to its end, without keeping it.
fn list(system: &System, admin: SocketAddr, query: &str) -> io::Result<List> {
    let (before, began) = (system.pss()?, Instant::now());
    let mut stream = TcpStream::connect(admin)?;
    stream.set_read_timeout(Some(SILENT))?;
    let path = format!("/api/v1/classrooms/{CLASSROOM}/attendance{query}");
    write!(stream, "GET {path} HTTP/1.1\r\nHost: {admin}\r\nConnection: close\r\n\r\n")?;
    let (mut rows, mut bytes, mut most) = (0, 0, before);
    let mut part = vec![0; 64 * 1024];
    loop {
        let length = stream.read(&mut part)?;
        if length == 0 {
            break;
        }
        rows += memchr::memchr_iter(MARK, &part[..length]).count();
        if (bytes + length) / LOOK_EVERY > bytes / LOOK_EVERY {
            most = most.max(proc::pss(system.pid())?);
        }
        bytes += length;
    }
    Ok(List { rows, seconds: began.elapsed().as_secs_f64(), grown: most - before })
}
