//! The system that is measured: the floor, or gateways with backends of one kind, started for one scenario with the
//! lessons that its crowds join.

use std::fmt;
use std::io::{self, BufRead, BufReader, BufWriter, Write};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use rollcall_loadtest::servers::{PostgresOptions, private_folder, psql, sqlite};
use rollcall_loadtest::{Gateway, GatewayOptions};
use serde::{Deserialize, Serialize};

use super::backends::{Backends, NatsServer};
use super::order::Crowd;
use super::proc;
use super::publisher::Publisher;

/// How long a gateway may take until no session is left.
const EMPTY_LIMIT: Duration = Duration::from_secs(60);
/// The longest age of a gateway's count of its outbox, and a little more.
const COUNTED_EVERY: Duration = Duration::from_millis(600);

/// The maximum number of seats of a lesson. A seat map is a hash in Redis with a field for each seat, and no real
/// lesson has 10,000 seats.
const MAX_SEATS: usize = 1000;

/// The backends of a gateway, or the floor instead of a gateway.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
pub(crate) enum Kind {
    /// No gateway, but the bare epoll loop.
    Floor,
    /// SQLite, with keys and bus in the process.
    Embedded,
    /// PostgreSQL, Redis and NATS.
    Real,
    /// PostgreSQL, Redis and NATS, each over TLS.
    Tls,
}

impl fmt::Display for Kind {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::Floor => "floor",
            Self::Embedded => "embedded",
            Self::Real => "real",
            Self::Tls => "tls",
        })
    }
}

pub(crate) struct FloorServer {
    child: Child,
    address: SocketAddr,
}

pub(crate) enum System {
    Floor(FloorServer),
    Gateways {
        gateways: Vec<Gateway>,
        backends: Option<Box<Backends>>,
        /// The folder with the database of an embedded gateway.
        folder: tempfile::TempDir,
    },
}

impl System {
    /// Starts the floor.
    pub(crate) fn floor() -> io::Result<Self> {
        FloorServer::start().map(Self::Floor)
    }

    /// Starts `count` gateways on backends of one kind, with the lessons of `crowds` and these settings.
    pub(crate) fn gateways(
        binary: &Path,
        kind: Kind,
        count: usize,
        crowds: &[Crowd],
        settings: &[(&str, String)],
    ) -> io::Result<Self> {
        Self::gateways_on(binary, kind, count, crowds, settings, PostgresOptions::default())
    }

    /// Starts gateways as `gateways` does, with a PostgreSQL of these options.
    pub(crate) fn gateways_on(
        binary: &Path,
        kind: Kind,
        count: usize,
        crowds: &[Crowd],
        settings: &[(&str, String)],
        postgres: PostgresOptions,
    ) -> io::Result<Self> {
        let folder = private_folder("load")?;
        let backends = match kind {
            Kind::Floor => return Self::floor(),
            Kind::Embedded => None,
            Kind::Real => Some(Box::new(Backends::plain(postgres)?)),
            Kind::Tls => Some(Box::new(Backends::tls(postgres)?)),
        };
        let guests = crowds.iter().any(|crowd| crowd.guests);
        let mut options = GatewayOptions::new(binary).env("ROLLCALL_GUESTS", guests);
        options = match &backends {
            None => options.env("DATABASE_URL", format!("sqlite:{}", database_file(&folder).display())),
            Some(backends) => {
                let options = options.env("DATABASE_URL", &backends.database);
                backends.settings.iter().fold(options, |options, (name, value)| options.env(name, value))
            }
        };
        options = settings.iter().fold(options, |options, (name, value)| options.env(name, value));
        load_lessons(&options, folder.path(), crowds)?;
        let gateways = (0..count).map(|_| Gateway::start(options.clone()));
        Ok(Self::Gateways { gateways: gateways.collect::<io::Result<_>>()?, backends, folder })
    }

    /// Returns the address for clients of the first gateway.
    pub(crate) fn address(&self) -> SocketAddr {
        match self {
            Self::Floor(floor) => floor.address,
            Self::Gateways { gateways, .. } => gateways[0].address(),
        }
    }

    pub(crate) fn gateway(&mut self) -> io::Result<&mut Gateway> {
        match self {
            Self::Floor(_) => Err(io::Error::other("the floor is no gateway")),
            Self::Gateways { gateways, .. } => Ok(&mut gateways[0]),
        }
    }

    pub(crate) fn publisher(&self) -> io::Result<Publisher> {
        match self {
            Self::Floor(floor) => Publisher::floor(floor.address),
            Self::Gateways { gateways, backends, .. } => match backends.as_ref().map(|backends| &backends.nats) {
                Some(NatsServer::Plain(nats)) => Publisher::nats(nats.port()),
                Some(NatsServer::Tls(_)) | None => Publisher::http(gateways[0].admin()),
            },
        }
    }

    /// Returns the memory of the first server in bytes, without its backends.
    pub(crate) fn pss(&self) -> io::Result<u64> {
        proc::pss(self.pid())
    }

    pub(crate) fn pid(&self) -> u32 {
        match self {
            Self::Floor(floor) => floor.child.id(),
            Self::Gateways { gateways, .. } => gateways[0].pid(),
        }
    }

    /// Runs a statement in the gateways' database. Returns a line for each row, with its columns divided by `|`.
    pub(crate) fn sql(&self, statement: &str) -> io::Result<String> {
        match self {
            Self::Floor(_) => Err(io::Error::other("the floor has no database")),
            Self::Gateways { backends: Some(backends), .. } => psql(&backends.database, statement),
            Self::Gateways { folder, .. } => sqlite(&database_file(folder), statement),
        }
    }

    /// Waits until no gateway has a session, so that the next wave's cost is its own only.
    pub(crate) fn wait_until_empty(&self) -> io::Result<()> {
        let Self::Gateways { gateways, .. } = self else {
            return Ok(());
        };
        for gateway in gateways {
            let zero = |name, labels: &[&str]| gateway.wait_for_metric(name, labels, EMPTY_LIMIT, |value| value == 0.0);
            zero("rollcall_sessions", &[])?;
            zero("rollcall_function_in_flight", &["function=\"disconnect\""])?;
            // A count from before the last disconnect is too old, so the wait is longer than a count's age.
            std::thread::sleep(COUNTED_EVERY);
            zero("rollcall_outbox_rows", &[])?;
        }
        Ok(())
    }
}

impl FloorServer {
    fn start() -> io::Result<Self> {
        let mut child = Command::new(std::env::current_exe()?)
            .arg("floor-server")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()?;
        let output = child.stdout.take().ok_or(io::ErrorKind::BrokenPipe)?;
        let mut line = String::new();
        BufReader::new(output).read_line(&mut line)?;
        let address = line.trim().strip_prefix("listening on ");
        let address = address.and_then(|address| address.parse().ok());
        let address = address.ok_or_else(|| io::Error::other("the floor does not listen"))?;
        Ok(Self { child, address })
    }
}

impl Drop for FloorServer {
    fn drop(&mut self) {
        // An error means that the process has ended already.
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

fn database_file(folder: &tempfile::TempDir) -> PathBuf {
    folder.path().join("rollcall.db")
}

/// Loads the lessons. This is done before the gateways start, so that the work is not part of any measurement.
fn load_lessons(options: &GatewayOptions, folder: &Path, crowds: &[Crowd]) -> io::Result<()> {
    let lessons = folder.join("lessons.csv");
    let attendees = folder.join("attendees.csv");
    let mut rows = BufWriter::new(std::fs::File::create(&lessons)?);
    let mut seats = BufWriter::new(std::fs::File::create(&attendees)?);
    writeln!(rows, "lesson_id,classroom_id,seats")?;
    writeln!(seats, "lesson_id,user_id,seat")?;
    for crowd in crowds {
        for room in crowd.rooms() {
            let (lesson, classroom) = (crowd.lesson(room), crowd.classroom(room));
            writeln!(rows, "{lesson},{classroom},{}", crowd.room_size.min(MAX_SEATS))?;
        }
        let seated = if crowd.guests { 0 } else { crowd.agents };
        for agent in crowd.first..crowd.first + seated {
            let lesson = crowd.lesson(agent / crowd.room_size);
            let seat = agent % crowd.room_size + 1;
            writeln!(seats, "{lesson},{},{seat}", crowd.user(agent))?;
        }
    }
    rows.flush()?;
    seats.flush()?;
    let load = options.clone().arg("load").arg("--lessons").arg(lessons);
    for options in [options.clone().arg("migrate"), load.arg("--attendees").arg(attendees)] {
        let output = options.command().current_dir(folder).output()?;
        if !output.status.success() {
            let said = String::from_utf8_lossy(&output.stderr).into_owned();
            return Err(io::Error::other(format!("{:?}: {said}", options.command())));
        }
    }
    Ok(())
}
