//! What all servers have in common: the start, the wait for the first answer, and the faults that a test injects.

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

/// How one kind of server is started and asked.
pub trait Kind {
    /// The options of `start_with`.
    type Options: Clone;

    /// The server's name in messages.
    const NAME: &'static str;

    /// The signal that ends the server fast and leaves nothing behind in the kernel.
    const STOP: Signal = Signal::SIGKILL;

    /// Makes the files that must be on disk before the first start.
    ///
    /// # Errors
    /// Returns an error if a program is missing or fails.
    fn prepare(_folder: &Path, _options: &Self::Options) -> io::Result<()> {
        Ok(())
    }

    /// Returns the command that serves `port` from `folder` in the foreground.
    ///
    /// # Errors
    /// Returns an error if the program is not installed.
    fn command(folder: &Path, port: u16, options: &Self::Options) -> io::Result<Command>;

    /// Asks the server once in its own protocol. An error means that it is not ready yet.
    ///
    /// # Errors
    /// Returns the reason why no answer came.
    fn ask(port: u16) -> io::Result<()>;

    /// Returns the URL for clients of a server on this port.
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
    /// Starts a server with the default options.
    ///
    /// # Errors
    /// Returns an error if the program is not installed (the error names the package) or does not start.
    pub fn start() -> io::Result<Self> {
        Self::start_with(K::Options::default())
    }
}

impl<K: Kind> Server<K> {
    /// Starts a server with these options.
    ///
    /// # Errors
    /// Returns an error if the program is not installed (the error names the package) or does not start.
    pub fn start_with(options: K::Options) -> io::Result<Self> {
        let folder = private_folder(K::NAME)?;
        K::prepare(folder.path(), &options)?;
        let mut attempt = 1;
        let (port, process) = loop {
            let port = free_port()?;
            match launch::<K>(folder.path(), port, &options) {
                Ok(process) => break (port, process),
                // Another process may have taken the port since it was found free.
                Err(error) if attempt == PORT_ATTEMPTS || error.kind() != io::ErrorKind::AddrInUse => {
                    return Err(error);
                }
                Err(_) => attempt += 1,
            }
        };
        Ok(Self { options, port, process, folder })
    }

    /// Returns the URL for clients. It is the same after a restart.
    #[must_use]
    pub fn url(&self) -> String {
        K::url(self.port)
    }

    /// Returns the port on 127.0.0.1. It is the same after a restart.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Returns the process id. It changes with each restart.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.process.pid()
    }

    /// Stops the server (SIGSTOP): connections stay open, and no answers come.
    ///
    /// # Errors
    /// Returns an error if the server is not running.
    pub fn pause(&self) -> io::Result<()> {
        self.process.pause()
    }

    /// Lets the server go on after [`pause`](Self::pause).
    ///
    /// # Errors
    /// Returns an error if the server is not running.
    pub fn resume(&self) -> io::Result<()> {
        self.process.resume()
    }

    /// Kills the server (SIGKILL) and all its children, even if they are paused. Its data stay.
    ///
    /// # Errors
    /// Returns an error if the kernel refuses.
    pub fn kill(&mut self) -> io::Result<()> {
        self.process.kill()
    }

    /// Kills the server if it still runs, and starts it again on the same port with the same data.
    ///
    /// # Errors
    /// Returns an error if the server does not start.
    pub fn restart(&mut self) -> io::Result<()> {
        self.kill()?;
        self.process = launch::<K>(self.folder.path(), self.port, &self.options)?;
        Ok(())
    }

    /// Returns whether the server runs. It has ended if it was killed or crashed.
    ///
    /// # Errors
    /// Returns an error if the kernel refuses.
    pub fn is_running(&mut self) -> io::Result<bool> {
        Ok(self.process.ended()?.is_none())
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
        // If this fails, the process is killed when its value is dropped.
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
