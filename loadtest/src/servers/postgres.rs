//! A private PostgreSQL.
//!
//! `initdb` takes seconds, so its result is kept as a template among the temporary files. It is made under another name
//! and renamed when it is complete. Of processes that make one at the same moment, the first to rename wins.

use std::fs;
use std::io;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::atomic::{AtomicU32, Ordering};

use nix::sys::signal::Signal;

use super::authority::{Authority, Issued};
use super::binary;
use super::server::{Kind, Server};
use super::server_user::{own_user, server_user};

pub(super) const DATA: &str = "data";
pub(super) const SUPERUSER: &str = "postgres";

/// A private PostgreSQL.
pub type Postgres = Server<PostgresKind>;

/// How a private PostgreSQL is set up. The default is durable: commits wait for the disk.
#[derive(Debug, Clone)]
pub struct PostgresOptions {
    /// Whether commits wait for the disk. Tests that are not about durability are faster without.
    pub fsync: bool,
    /// The maximum number of connections.
    pub max_connections: u32,
    /// Further settings, as in `postgresql.conf`.
    pub settings: Vec<(String, String)>,
}

impl Default for PostgresOptions {
    fn default() -> Self {
        Self { fsync: true, max_connections: 100, settings: Vec::new() }
    }
}

impl PostgresOptions {
    /// Options of a server with this certificate that trusts client certificates of this authority. `rules` are the
    /// lines of `pg_hba.conf`.
    ///
    /// # Errors
    /// Returns an error if the rules cannot be written.
    pub fn with_tls(authority: &Authority, server: &Issued, rules: &str) -> io::Result<Self> {
        let file = tempfile::Builder::new().suffix(".conf").tempfile_in(authority.folder())?.into_temp_path().keep()?;
        fs::write(&file, rules)?;
        fs::set_permissions(&file, fs::Permissions::from_mode(0o644))?;
        let settings = [
            ("ssl", "on".to_owned()),
            ("ssl_cert_file", server.certificate.display().to_string()),
            ("ssl_key_file", server.key.display().to_string()),
            ("ssl_ca_file", authority.certificate().display().to_string()),
            ("hba_file", file.display().to_string()),
        ];
        let settings = settings.map(|(name, value)| (name.to_owned(), value)).to_vec();
        Ok(Self { fsync: false, settings, ..Self::default() })
    }
}

/// How a PostgreSQL is started and asked.
#[derive(Debug)]
pub enum PostgresKind {}

impl Kind for PostgresKind {
    type Options = PostgresOptions;
    const NAME: &'static str = "postgres";
    /// The signal for an immediate shutdown. A killed server would leave its shared memory in the kernel.
    const STOP: Signal = Signal::SIGQUIT;

    fn prepare(folder: &Path, _: &PostgresOptions) -> io::Result<()> {
        let template = template()?;
        let mut copy = Command::new("cp");
        copy.args(["-a", "--reflink=auto"]).arg(template).arg(folder.join(DATA));
        run(&mut copy).map(drop)
    }

    fn command(folder: &Path, port: u16, options: &PostgresOptions) -> io::Result<Command> {
        let mut command = as_server_user(&binary::postgres_folder()?.join("postgres"))?;
        command.arg("-D").arg(folder.join(DATA));
        let settings = [
            ("listen_addresses", "127.0.0.1".to_owned()),
            ("unix_socket_directories", String::new()),
            ("port", port.to_string()),
            ("fsync", options.fsync.to_string()),
            ("synchronous_commit", "on".to_owned()),
            // Without this setting, a server that was killed would sync a thousand files one by one.
            ("recovery_init_sync_method", "syncfs".to_owned()),
            ("max_connections", options.max_connections.to_string()),
        ];
        let given = options.settings.iter();
        let given = given.map(|(name, value)| (name.as_str(), value.clone()));
        for (name, value) in settings.into_iter().chain(given) {
            command.arg("-c").arg(format!("{name}={value}"));
        }
        Ok(command)
    }

    fn ask(port: u16) -> io::Result<()> {
        psql(&Self::url(port), "select 1").map(drop)
    }

    fn url(port: u16) -> String {
        database_url(port, SUPERUSER)
    }
}

impl Server<PostgresKind> {
    /// Creates an empty database on this server and returns its URL.
    ///
    /// # Errors
    /// Returns an error if the server does not answer.
    pub fn create_database(&self) -> io::Result<String> {
        static NEXT: AtomicU32 = AtomicU32::new(1);
        let name = format!("test_{}", NEXT.fetch_add(1, Ordering::Relaxed));
        psql(&self.url(), &format!("create database {name}"))?;
        Ok(database_url(self.port(), &name))
    }
}

/// Runs a statement in the database of this URL. Returns a line for each row, with its columns divided by `|`.
///
/// # Errors
/// Returns an error if the server is away or refuses the statement.
pub fn psql(url: &str, statement: &str) -> io::Result<String> {
    let output = run(psql_command(url)?.args(["-c", statement]))?;
    Ok(String::from_utf8_lossy(&output.stdout).trim_end().to_owned())
}

/// Returns the command of a `psql` in the database of this URL. It reads statements from its input and answers as
/// [`psql`] does.
///
/// # Errors
/// Returns an error if `psql` is not installed.
pub fn psql_command(url: &str) -> io::Result<Command> {
    let mut command = Command::new(binary::postgres_folder()?.join("psql"));
    command.env("PGCONNECT_TIMEOUT", "5").args(["-X", "-q", "-A", "-t", "-v", "ON_ERROR_STOP=1", "-d", url]);
    Ok(command)
}

fn database_url(port: u16, database: &str) -> String {
    format!("postgres://{SUPERUSER}@127.0.0.1:{port}/{database}")
}

/// Returns the data folder of which every server starts with a copy.
fn template() -> io::Result<PathBuf> {
    let programs = binary::postgres_folder()?;
    let initdb = programs.join("initdb");
    let version = run(Command::new(&initdb).arg("--version"))?.stdout;
    let version = String::from_utf8_lossy(&version)
        .split_whitespace()
        .find(|word| word.starts_with(|first: char| first.is_ascii_digit()))
        .unwrap_or("unknown")
        .to_owned();
    let owner = server_user()?.map_or_else(own_user, |user| user.0);
    let template = std::env::temp_dir().join(format!("rollcall-postgres-{version}-{owner}"));
    match fs::metadata(&template) {
        Ok(found) if found.uid() == owner => return Ok(template),
        Ok(_) => {
            let message = format!("{} belongs to somebody else", template.display());
            return Err(io::Error::new(io::ErrorKind::PermissionDenied, message));
        }
        Err(_) => {}
    }
    let workshop = tempfile::Builder::new().prefix("rollcall-initdb-").tempdir()?;
    fs::set_permissions(workshop.path(), fs::Permissions::from_mode(0o777))?;
    let data = workshop.path().join(DATA);
    let mut command = as_server_user(&initdb)?;
    command
        .current_dir(workshop.path())
        .args(["--username", SUPERUSER, "--auth", "trust", "--no-sync"])
        .args(["--encoding", "UTF8", "--locale", "C", "--pgdata"])
        .arg(&data);
    run(&mut command)?;
    match fs::rename(&data, &template) {
        Err(error) if !template.is_dir() => Err(error),
        _ => Ok(template),
    }
}

pub(super) fn as_server_user(program: &Path) -> io::Result<Command> {
    let mut command = Command::new(program);
    if let Some((uid, gid)) = server_user()? {
        // HOME must not be this user's home, in which libpq would look for certificates.
        command.uid(uid).gid(gid).env("HOME", "/nonexistent");
    }
    Ok(command)
}

pub(super) fn run(command: &mut Command) -> io::Result<Output> {
    let output = command.output()?;
    if output.status.success() {
        return Ok(output);
    }
    let said = String::from_utf8_lossy(&output.stderr);
    let program = command.get_program().display();
    Err(io::Error::other(format!("{program}: {}", said.trim())))
}
