//! A process in a folder of its own that a test can pause, resume and kill.
//!
//! Invariant: the process is a child of this one, and neither it nor its children survive this value.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

use nix::sys::signal::Signal;

use super::signal;
use crate::wait::poll;

const OUTPUT: &str = "output.log";
/// The file with the output of earlier processes in the folder.
const EARLIER: &str = "earlier.log";

/// A child process with its output in `output.log` of its working directory.
pub(crate) struct Process {
    child: Child,
}

impl Process {
    pub(crate) fn spawn(mut command: Command, folder: &Path) -> io::Result<Self> {
        let append = |name| File::options().create(true).append(true).open(folder.join(name));
        append(EARLIER)?.write_all(output(folder).as_bytes())?;
        let log = append(OUTPUT)?;
        log.set_len(0)?;
        let child =
            command.current_dir(folder).stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log).spawn().map_err(
                |error| {
                    let program = command.get_program().display();
                    io::Error::new(error.kind(), format!("{program}: {error}"))
                },
            )?;
        Ok(Self { child })
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    pub(crate) fn ended(&mut self) -> io::Result<Option<ExitStatus>> {
        self.child.try_wait()
    }

    pub(crate) fn wait(&mut self, limit: Duration, what: &str) -> io::Result<ExitStatus> {
        poll(limit, what, || self.child.try_wait())
    }

    pub(crate) fn signal(&self, signal: Signal) -> io::Result<()> {
        signal::send(self.pid(), signal)
    }

    pub(crate) fn pause(&self) -> io::Result<()> {
        signal::pause(self.pid())
    }

    pub(crate) fn resume(&self) -> io::Result<()> {
        signal::resume(self.pid())
    }

    pub(crate) fn kill(&mut self) -> io::Result<()> {
        if self.ended()?.is_none() {
            signal::kill(self.pid())?;
            self.child.wait()?;
        }
        Ok(())
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // A failure cannot be reported here. The reaper kills what is left.
        self.kill().ok();
    }
}

/// Returns the output of the last process in this folder.
pub(crate) fn output(folder: &Path) -> String {
    read(folder, OUTPUT)
}

/// Returns the output of all processes in this folder.
pub(crate) fn all_output(folder: &Path) -> String {
    read(folder, EARLIER) + &output(folder)
}

fn read(folder: &Path, name: &str) -> String {
    String::from_utf8_lossy(&fs::read(folder.join(name)).unwrap_or_default()).into_owned()
}
