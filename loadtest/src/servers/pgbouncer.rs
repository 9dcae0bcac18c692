//! A pgbouncer before a PostgreSQL, in transaction mode.

use std::fs;
use std::io;
use std::path::Path;
use std::process::Command;

use nix::sys::signal::Signal;

use super::binary;
use super::postgres::{SUPERUSER, as_server_user, psql};
use super::server::{Kind, Server};

/// A running pgbouncer.
pub type Pgbouncer = Server<PgbouncerKind>;

/// The version of pgbouncer to run.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum PgbouncerVersion {
    /// The distribution's version: 1.18 on Debian 12. It does not keep track of prepared statements.
    #[default]
    Distribution,
    /// The version that `loadtest/setup/pgbouncer` builds. It keeps track of prepared statements.
    Current,
}

/// How a pgbouncer pools connections.
#[derive(Debug, Clone)]
pub struct PgbouncerOptions {
    /// Which version runs.
    pub version: PgbouncerVersion,
    /// The port of PostgreSQL on 127.0.0.1.
    pub postgres: u16,
    /// The maximum number of connections to each database.
    pub pool_size: u32,
}

impl PgbouncerOptions {
    /// Returns the options of the distribution's version.
    #[must_use]
    pub fn new(postgres: u16, pool_size: u32) -> Self {
        Self { version: PgbouncerVersion::default(), postgres, pool_size }
    }
}

/// How a pgbouncer is started and asked.
#[derive(Debug)]
pub enum PgbouncerKind {}

impl Kind for PgbouncerKind {
    type Options = PgbouncerOptions;
    const NAME: &'static str = "pgbouncer";
    /// On this signal pgbouncer ends at once.
    const STOP: Signal = Signal::SIGTERM;

    fn command(folder: &Path, port: u16, options: &PgbouncerOptions) -> io::Result<Command> {
        let (users, config) = (folder.join("users.txt"), folder.join("pgbouncer.ini"));
        fs::write(&users, format!("\"{SUPERUSER}\" \"\"\n"))?;
        let text = format!(
            "[databases]\n* = host=127.0.0.1 port={}\n[pgbouncer]\nlisten_addr = 127.0.0.1\nlisten_port = {port}\n\
             unix_socket_dir =\nauth_type = trust\nauth_file = {}\npool_mode = transaction\nmax_client_conn = 1000\n\
             default_pool_size = {}\nserver_login_retry = 1\n",
            options.postgres,
            users.display(),
            options.pool_size,
        );
        let (program, more) = match options.version {
            PgbouncerVersion::Distribution => (binary::find("pgbouncer", "pgbouncer")?, ""),
            PgbouncerVersion::Current => {
                // The user that runs it may not be allowed to read the folder of the build, so the program is copied.
                let program = folder.join("pgbouncer");
                fs::copy(binary::built("pgbouncer")?, &program)?;
                (program, "max_prepared_statements = 100\n")
            }
        };
        fs::write(&config, text + more)?;
        let mut command = as_server_user(&program)?;
        command.arg(config);
        Ok(command)
    }

    fn ask(port: u16) -> io::Result<()> {
        psql(&Self::url(port), "select 1").map(drop)
    }

    fn url(port: u16) -> String {
        format!("postgres://{SUPERUSER}@127.0.0.1:{port}/postgres")
    }
}
