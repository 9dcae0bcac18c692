//! The network before a server: a relay of bytes that can stand still, in one direction alone too, be slow, cut, or lose
//! whoever connected.
//!
//! Invariant: what a side sent arrives whole and in order, however late, also after that side's process is dead; each side
//! hears of the other's end after all that came before it. Only what is cut is lost.

use std::io;
use std::net::{SocketAddr, TcpListener as Listening};
use std::sync::LazyLock;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{ReadHalf, WriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::{Builder, Runtime};
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, sleep_until, timeout};

const DIAL_LIMIT: Duration = Duration::from_secs(1);
/// The most pieces under way in one direction, and the bytes of one.
const UNDER_WAY: (usize, usize) = (64, 16 << 10);

/// Beside any runtime of a test, which may be blocked by what it does with its processes.
static NETWORK: LazyLock<Runtime> = LazyLock::new(|| {
    let built = Builder::new_multi_thread().worker_threads(1).thread_name("network").enable_all().build();
    built.expect("a thread for the network")
});

/// A way through a [`Wire`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Way {
    /// From the side that connected to the server.
    Up,
    /// From the server to the side that connected.
    Down,
    /// Both.
    Both,
}

/// What is wrong. Connections that were there before a count rose are hit by it.
#[derive(Debug, Default, Clone, Copy)]
struct Weather {
    held: (bool, bool),
    late: Duration,
    /// New connections end at once.
    closed: bool,
    cuts: u32,
    halves: u32,
    /// This many bytes of each connection go to the server; the rest is held.
    upto: Option<usize>,
    /// Halves up to this one are told to the server.
    known: u32,
}

/// The network before one server.
pub struct Wire {
    server: SocketAddr,
    /// Where new connections lead.
    target: watch::Sender<SocketAddr>,
    address: SocketAddr,
    weather: watch::Sender<Weather>,
}

impl Wire {
    /// Listens, and relays to `server` for as long as the value lives.
    ///
    /// # Errors
    /// When there is no port.
    pub fn before(server: SocketAddr) -> io::Result<Self> {
        let listener = Listening::bind(("127.0.0.1", 0))?;
        listener.set_nonblocking(true)?;
        let address = listener.local_addr()?;
        let weather = watch::Sender::new(Weather::default());
        let seen = weather.subscribe();
        let (target, leads_to) = watch::channel(server);
        let _network = NETWORK.enter();
        let listener = TcpListener::from_std(listener)?;
        NETWORK.spawn(async move {
            // Ends with the value, whose sender is dropped then.
            while seen.has_changed().is_ok() {
                let Ok(Ok((client, _))) = timeout(DIAL_LIMIT, listener.accept()).await else { continue };
                if !seen.borrow().closed {
                    let server = *leads_to.borrow();
                    tokio::spawn(relay(client, server, seen.clone()));
                }
            }
        });
        Ok(Self { server, target, address, weather })
    }

    /// Where to connect.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// A URL of the server, as one that leads through here.
    #[must_use]
    pub fn instead_of(&self, url: &str) -> String {
        url.replace(&self.server.to_string(), &self.address.to_string())
    }

    /// New connections lead to another server from now on, as after a failover; those that are there stay.
    pub fn lead_to(&self, server: SocketAddr) {
        self.target.send_replace(server);
    }

    /// Nothing goes through any more, not even an end; connections stay, and new ones are accepted.
    pub fn hold(&self, way: Way) {
        self.weather.send_modify(|weather| weather.held = (way != Way::Down, way != Way::Up));
    }

    /// Lets this many more bytes of each connection through to the server, and then nothing; connections stay.
    pub fn stall_after(&self, bytes: usize) {
        self.weather.send_modify(|weather| weather.upto = Some(bytes));
    }

    /// Everything arrives so much later.
    pub fn delay(&self, by: Duration) {
        self.weather.send_modify(|weather| weather.late = by);
    }

    /// Ends all connections of this moment.
    pub fn cut(&self) {
        self.weather.send_modify(|weather| weather.cuts += 1);
    }

    /// Ends all connections; new ones end too.
    pub fn close(&self) {
        self.weather.send_modify(|weather| (weather.closed, weather.cuts) = (true, weather.cuts + 1));
    }

    /// Whoever connected loses the connection; the server does not hear of it before [`Wire::clear`].
    pub fn lose_clients(&self) {
        self.weather.send_modify(|weather| weather.halves += 1);
    }

    /// Ends all faults of the wire, but for where it leads to. What was held is passed on.
    pub fn clear(&self) {
        self.weather.send_modify(|weather| {
            *weather =
                Weather { cuts: weather.cuts, halves: weather.halves, known: weather.halves, ..Weather::default() }
        });
    }
}

/// Why bytes stopped going through.
enum Stop {
    Ended,
    ClientLost,
}

async fn relay(mut client: TcpStream, server: SocketAddr, mut weather: watch::Receiver<Weather>) {
    let born = *weather.borrow_and_update();
    let Ok(Ok(mut server)) = timeout(DIAL_LIMIT, TcpStream::connect(server)).await else { return };
    client.set_nodelay(true).ok();
    server.set_nodelay(true).ok();
    let stop = {
        let ((from_client, to_client), (from_server, to_server)) = (client.split(), server.split());
        let up = copy(from_client, to_server, weather.clone(), |weather| Bounds {
            held: weather.held.0,
            upto: weather.upto,
        });
        let down = copy(from_server, to_client, weather.clone(), |weather| Bounds { held: weather.held.1, upto: None });
        tokio::select! {
            _ = async { tokio::join!(up, down) } => Stop::Ended,
            stop = struck(born, weather.clone()) => stop,
        }
    };
    if let Stop::ClientLost = stop {
        drop(client);
        // Neither side hears of the end before the faults are over, or the wire is gone.
        weather.wait_for(|weather| weather.known > born.halves).await.ok();
    }
}

async fn struck(born: Weather, mut weather: watch::Receiver<Weather>) -> Stop {
    let hit = weather.wait_for(|now| now.cuts > born.cuts || now.halves > born.halves).await;
    match hit {
        Ok(now) if now.halves > born.halves => Stop::ClientLost,
        _ => Stop::Ended,
    }
}

/// What one direction lets through.
#[derive(Debug, PartialEq, Eq)]
struct Bounds {
    held: bool,
    upto: Option<usize>,
}

/// Copies one direction until its end.
async fn copy(
    mut from: ReadHalf<'_>,
    mut to: WriteHalf<'_>,
    mut weather: watch::Receiver<Weather>,
    bounds: fn(&Weather) -> Bounds,
) {
    let (pieces, length) = UNDER_WAY;
    let (came, mut under_way) = mpsc::channel::<(Instant, Vec<u8>)>(pieces);
    let seen = weather.clone();
    let read = async move {
        loop {
            let mut piece = Vec::with_capacity(length);
            let ended = !matches!(from.read_buf(&mut piece).await, Ok(1..));
            // The last piece is empty.
            let due = Instant::now() + seen.borrow().late;
            if came.send((due, piece)).await.is_err() || ended {
                return;
            }
        }
    };
    let write = async {
        // Bytes passed since the wire has a bound.
        let mut passed = 0;
        'pieces: while let Some((due, piece)) = under_way.recv().await {
            sleep_until(due).await;
            let mut rest = &piece[..];
            loop {
                let mut length = rest.len();
                let passes = |weather: &Weather| {
                    let Bounds { held, upto } = bounds(weather);
                    passed = if upto.is_some() { passed } else { 0 };
                    length = upto.map_or(rest.len(), |upto| rest.len().min(upto.saturating_sub(passed)));
                    !held && (length > 0 || upto.is_none())
                };
                let passes = weather.wait_for(passes).await.is_ok();
                if !passes || piece.is_empty() || to.write_all(&rest[..length]).await.is_err() {
                    break 'pieces;
                }
                (passed, rest) = (passed + length, &rest[length..]);
                if rest.is_empty() {
                    break;
                }
            }
        }
        drop(under_way);
        to.shutdown().await.ok();
    };
    tokio::join!(read, write);
}
