//! What faults do to a process: pause it, kill it, and start it again.

use std::io;

use rollcall_loadtest::Gateway;
use rollcall_loadtest::servers::{Kind, Server};

/// A process that faults happen to.
pub(super) trait Victim: Send {
    fn pause(&mut self) -> io::Result<()>;
    fn resume(&mut self) -> io::Result<()>;
    fn kill(&mut self) -> io::Result<()>;
    fn restart(&mut self) -> io::Result<()>;
}

impl Victim for Gateway {
    fn pause(&mut self) -> io::Result<()> {
        Self::pause(self)
    }
    fn resume(&mut self) -> io::Result<()> {
        Self::resume(self)
    }
    fn kill(&mut self) -> io::Result<()> {
        Self::kill(self)
    }
    fn restart(&mut self) -> io::Result<()> {
        Self::restart(self)
    }
}

impl<K: Kind<Options: Send>> Victim for Server<K> {
    fn pause(&mut self) -> io::Result<()> {
        Self::pause(self)
    }
    fn resume(&mut self) -> io::Result<()> {
        Self::resume(self)
    }
    fn kill(&mut self) -> io::Result<()> {
        Self::kill(self)
    }
    fn restart(&mut self) -> io::Result<()> {
        Self::restart(self)
    }
}
