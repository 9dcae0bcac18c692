//! What open consoles cost a node that is full of connections.

use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::thread;
use std::time::Duration;

use crate::load::crew::Crew;
use crate::load::order::Crowd;
use crate::load::proc;
use crate::load::results::Limit;
use crate::load::stage::Stage;
use crate::load::system::{Kind, System};

const CONSOLES: usize = 20;
/// The number of rounds, of which the mean counts. Rounds with and without consoles alternate, because a machine is not
/// always equally fast.
const ROUNDS: usize = 3;
const ROUND: Duration = Duration::from_secs(30);
/// How long a console may get nothing. It gets an event every second.
const SILENT: Duration = Duration::from_secs(10);

pub(crate) fn run(stage: &mut Stage) -> io::Result<()> {
    for kind in stage.kinds.clone() {
        measure(stage, kind)?;
    }
    Ok(())
}

fn measure(stage: &mut Stage, kind: Kind) -> io::Result<()> {
    let crowd = Crowd::new(60, stage.agents, 30);
    let mut system = stage.start(kind, 1, std::slice::from_ref(&crowd))?;
    let mut crew = Crew::for_agents(stage.agents)?;
    let band = crew.prepare(&crowd, system.address())?;
    crew.gather(&band)?;
    let admin = system.gateway()?.admin();
    let (mut without, mut with, mut bytes) = (0.0, 0.0, 0);
    for _ in 0..ROUNDS {
        without += busy(&system)?;
        let consoles = (0..CONSOLES).map(|_| Console::open(admin)).collect::<io::Result<Vec<_>>>()?;
        with += busy(&system)?;
        for console in consoles {
            bytes += console.close()?;
        }
    }
    let rounds = ROUNDS as f64;
    let (without, with) = (without / rounds, with / rounds);
    let read = bytes as f64 / rounds / CONSOLES as f64 / ROUND.as_secs_f64();
    let lost: u64 = crew.count()?.lost.values().sum();
    let mut note = stage.note("consoles", kind);
    note.figure(&format!("{} idle agents: of one core", band.agents()), without, "%", None);
    note.figure(&format!("with {CONSOLES} consoles"), with, "%", None);
    note.figure(&format!("{CONSOLES} consoles cost"), with - without, "%", Some(Limit::AtMost(3.0)));
    note.figure("a console reads", read, "bytes/s", None);
    note.figure("connections lost", lost as f64, "", Some(Limit::AtMost(0.0)));
    Ok(())
}

/// Returns the gateway's processor time during a round, in percent of a core.
fn busy(system: &System) -> io::Result<f64> {
    let before = proc::cpu_seconds(system.pid())?;
    thread::sleep(ROUND);
    Ok((proc::cpu_seconds(system.pid())? - before) / ROUND.as_secs_f64() * 100.0)
}

/// A console, which reads its stream and counts the bytes.
struct Console {
    stream: TcpStream,
    reader: thread::JoinHandle<io::Result<u64>>,
}

impl Console {
    fn open(admin: SocketAddr) -> io::Result<Self> {
        let mut stream = TcpStream::connect(admin)?;
        stream.set_read_timeout(Some(SILENT))?;
        write!(stream, "GET /api/console/now HTTP/1.1\r\nHost: {admin}\r\n\r\n")?;
        let mut source = stream.try_clone()?;
        let reader = thread::spawn(move || {
            let (mut buffer, mut count) = ([0; 16 * 1024], 0);
            loop {
                match source.read(&mut buffer)? {
                    0 => return Ok(count),
                    read => count += read as u64,
                }
            }
        });
        Ok(Self { stream, reader })
    }

    fn close(self) -> io::Result<u64> {
        self.stream.shutdown(Shutdown::Both)?;
        self.reader.join().map_err(|_| io::Error::other("a console panicked"))?
    }
}
