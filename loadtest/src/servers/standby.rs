//! A private PostgreSQL that replicates another one, and can be promoted while it lacks the other's last commits.

use std::io;
use std::os::unix::fs::{DirBuilderExt, chown};
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use nix::sys::signal::Signal;

use super::binary;
use super::postgres::{DATA, PostgresKind, PostgresOptions, SUPERUSER, as_server_user, psql, run};
use super::server::{Kind, Server};
use super::server_user::server_user;
use crate::wait::poll;

const LIMIT: Duration = Duration::from_secs(20);

/// A private PostgreSQL that streams from a primary until it is promoted.
pub type Standby = Server<StandbyKind>;

/// The options of a standby.
#[derive(Debug, Clone)]
pub struct StandbyOptions {
    /// The port of the primary: a [`Postgres`](super::Postgres), or a standby that was promoted.
    pub primary: u16,
    /// The standby's own settings.
    pub server: PostgresOptions,
}

/// How a standby is started and asked.
#[derive(Debug)]
pub enum StandbyKind {}

impl Kind for StandbyKind {
    type Options = StandbyOptions;
    const NAME: &'static str = "standby";
    const STOP: Signal = PostgresKind::STOP;

    fn prepare(folder: &Path, options: &StandbyOptions) -> io::Result<()> {
        let data = folder.join(DATA);
        std::fs::DirBuilder::new().mode(0o700).create(&data)?;
        if let Some((uid, gid)) = server_user()? {
            chown(&data, Some(uid), Some(gid))?;
        }
        let mut backup = as_server_user(&binary::postgres_folder()?.join("pg_basebackup"))?;
        backup.current_dir(&data).arg("-D").arg(&data);
        backup.args(["-h", "127.0.0.1", "-U", SUPERUSER, "-p", &options.primary.to_string()]);
        backup.args(["--write-recovery-conf", "--wal-method=stream", "--checkpoint=fast", "--no-sync"]);
        run(&mut backup).map(drop)
    }

    fn command(folder: &Path, port: u16, options: &StandbyOptions) -> io::Result<Command> {
        PostgresKind::command(folder, port, &options.server)
    }

    fn ask(port: u16) -> io::Result<()> {
        PostgresKind::ask(port)
    }

    fn url(port: u16) -> String {
        PostgresKind::url(port)
    }
}

impl Server<StandbyKind> {
    /// Starts a standby that copies the primary on this port and replicates it. It does not wait for the disk.
    ///
    /// # Errors
    /// Returns an error if the primary or the copy does not answer.
    pub fn of(primary: u16) -> io::Result<Self> {
        let server = PostgresOptions { fsync: false, ..PostgresOptions::default() };
        Self::start_with(StandbyOptions { primary, server })
    }

    /// Waits until the standby has replayed what the server of this URL has committed by now.
    ///
    /// # Errors
    /// Returns an error if the standby or the primary does not answer.
    pub fn catch_up(&self, primary: &str) -> io::Result<()> {
        let committed = psql(primary, "select pg_current_wal_lsn()")?;
        let asked = format!("select pg_last_wal_replay_lsn() >= '{committed}'");
        poll(LIMIT, "the standby catches up", || Ok((psql(&self.url(), &asked)? == "t").then_some(())))
    }

    /// Stops the replication. What the primary commits from now on is lost if this standby is promoted.
    ///
    /// # Errors
    /// Returns an error if the standby does not answer.
    pub fn stop_receiving(&self) -> io::Result<()> {
        psql(&self.url(), "alter system set primary_conninfo = ''")?;
        psql(&self.url(), "select pg_reload_conf()")?;
        let receivers = "select count(*) from pg_stat_wal_receiver";
        poll(LIMIT, "the end of streaming", || Ok((psql(&self.url(), receivers)? == "0").then_some(())))
    }

    /// Promotes the standby, and returns when it accepts writes.
    ///
    /// # Errors
    /// Returns an error if the standby does not become a primary.
    pub fn promote(&self) -> io::Result<()> {
        let promoted = psql(&self.url(), "select pg_promote(true, 20) and not pg_is_in_recovery()")?;
        if promoted == "t" { Ok(()) } else { Err(io::Error::other("the standby was not promoted")) }
    }
}
