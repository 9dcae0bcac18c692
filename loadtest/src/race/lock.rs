//! Locks the rows of agents for a while.

use std::io;
use std::process::Stdio;
use std::time::Duration;

use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::process::{Child, Command};
use tokio::time::timeout;

use crate::servers::psql_command;

const LIMIT: Duration = Duration::from_secs(10);

/// Locked rows. Dropping this value unlocks them.
pub(super) struct Locked {
    _psql: Child,
}

impl Locked {
    /// Locks the rows of connected agents whose users' names begin with `users`.
    pub(super) async fn rows(database: &str, users: &str) -> io::Result<Self> {
        let mut command = Command::from(psql_command(database)?);
        let mut psql = command.stdin(Stdio::piped()).stdout(Stdio::piped()).kill_on_drop(true).spawn()?;
        let (input, output) = psql.stdin.as_mut().zip(psql.stdout.as_mut()).ok_or(io::ErrorKind::BrokenPipe)?;
        let rows = format!("select agent_id from agent_session where agent_id like '%.{users}-%' for update");
        input.write_all(format!("begin; {rows};\n").as_bytes()).await?;
        let mut agent = String::new();
        // The statement answers when it has locked all rows.
        timeout(LIMIT, BufReader::new(output).read_line(&mut agent)).await.map_err(|_| io::ErrorKind::TimedOut)??;
        if agent.is_empty() { Err(io::Error::other(format!("no {users} is there"))) } else { Ok(Self { _psql: psql }) }
    }
}
