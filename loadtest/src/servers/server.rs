//! What all servers have in common: start, wait for the first answer, and the faults a test injects.

use std::fmt;
use std::io;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use nix::sys::signal::Signal;

use super::port::free_port;
use super::private_folder;
use super::process::{Process, output};
use crate::wait::poll;

const START_LIMIT: Duration = Duration::from_secs(20);
const STOP_LIMIT: Duration = Duration::from_secs(5);
const PORT_ATTEMPTS: usize = 5;

/// What is particular to one kind of server.
pub trait Kind {
    /// What `start_with` takes.
    type Options: Clone;

    /// Its name in messages.
    const NAME: &'static str;

    /// The signal that ends it fast and leaves nothing behind in the kernel.
    const STOP: Signal = Signal::SIGKILL;

    /// Makes what must be on disk before the first start.
    ///
    /// # Errors
    /// When a program is missing or fails.
    fn prepare(_folder: &Path, _options: &Self::Options) -> io::Result<()> {
        Ok(())
    }

    /// The command that serves `port` from `folder` in the foreground.
    ///
    /// # Errors
    /// When the program is not installed.
    fn command(folder: &Path, port: u16, options: &Self::Options) -> io::Result<Command>;

    /// Asks once, in the server's own protocol. An error means not yet.
    ///
    /// # Errors
    /// Whatever kept the answer away.
    fn ask(port: u16) -> io::Result<()>;

    /// The URL under which clients find it.
    fn url(port: u16) -> String;
}

/// A running server of some kind; see the aliases [`Postgres`](super::Postgres),
/// [`Redis`](super::Redis) and [`Nats`](super::Nats).
pub struct Server<K: Kind> {
    options: K::Options,
    port: u16,
    process: Process,
    folder: tempfile::TempDir,
}

impl<K: Kind<Options: Default>> Server<K> {
    /// Starts one with the default options.
    ///
    /// # Errors
    /// When the program is not installed (the error names the package) or does not come up.
    pub fn start() -> io::Result<Self> {
        Self::start_with(K::Options::default())
    }
}

impl<K: Kind> Server<K> {
    /// Starts one with these options.
    ///
    /// # Errors
    /// When the program is not installed (the error names the package) or does not come up.
    pub fn start_with(options: K::Options) -> io::Result<Self> {
        let folder = private_folder(K::NAME)?;
        K::prepare(folder.path(), &options)?;
        let mut attempt = 1;
        let (port, process) = loop {
            let port = free_port()?;
            match launch::<K>(folder.path(), port, &options) {
                Ok(process) => break (port, process),
                // Another process may have taken the port since.
                Err(error) if attempt == PORT_ATTEMPTS || error.kind() != io::ErrorKind::AddrInUse => {
                    return Err(error);
                }
                Err(_) => attempt += 1,
            }
        };
        Ok(Self { options, port, process, folder })
    }

    /// Where clients find it; the same after a restart.
    #[must_use]
    pub fn url(&self) -> String {
        K::url(self.port)
    }

    /// Its port on 127.0.0.1; the same after a restart.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Its process; another one after a restart.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.process.pid()
    }

    /// Stops it where it stands (SIGSTOP): connections stay, answers do not come.
    ///
    /// # Errors
    /// When it is not running.
    pub fn pause(&self) -> io::Result<()> {
        self.process.pause()
    }

    /// Lets it go on after [`pause`](Self::pause).
    ///
    /// # Errors
    /// When it is not running.
    pub fn resume(&self) -> io::Result<()> {
        self.process.resume()
    }

    /// Kills it (SIGKILL) with all its children, paused or not. Its data stay.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn kill(&mut self) -> io::Result<()> {
        self.process.kill()
    }

    /// Starts it again on the same port and data, after killing it if it still runs.
    ///
    /// # Errors
    /// When it does not come up.
    pub fn restart(&mut self) -> io::Result<()> {
        self.kill()?;
        self.process = launch::<K>(self.folder.path(), self.port, &self.options)?;
        Ok(())
    }

    fn stop(&mut self) -> io::Result<()> {
        if self.process.ended()?.is_none() {
            self.resume()?;
            self.process.signal(K::STOP)?;
            self.process.wait(STOP_LIMIT, K::NAME)?;
        }
        Ok(())
    }
}

impl<K: Kind> Drop for Server<K> {
    fn drop(&mut self) {
        // If this fails, the process is killed when it is dropped in its turn.
        self.stop().ok();
    }
}

impl<K: Kind> fmt::Debug for Server<K> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{} on port {}", K::NAME, self.port)
    }
}

fn launch<K: Kind>(folder: &Path, port: u16, options: &K::Options) -> io::Result<Process> {
    let mut process = Process::spawn(K::command(folder, port, options)?, folder)?;
    let ready = poll(START_LIMIT, K::NAME, || match process.ended()? {
        Some(status) => Err(failed::<K>(folder, &format!("ended with {status}"))),
        None => Ok(K::ask(port).ok()),
    });
    match ready {
        Ok(()) => Ok(process),
        Err(error) if error.kind() == io::ErrorKind::TimedOut => Err(failed::<K>(folder, "does not answer")),
        Err(error) => Err(error),
    }
}

fn failed<K: Kind>(folder: &Path, how: &str) -> io::Error {
    let output = output(folder);
    let kind = if output.to_lowercase().contains("address already in use") {
        io::ErrorKind::AddrInUse
    } else {
        io::ErrorKind::Other
    };
    io::Error::new(kind, format!("{} {how}; its output:\n{output}", K::NAME))
}
