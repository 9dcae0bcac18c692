//! The network before a server: a relay of bytes that can hold everything in one or both directions, be slow, cut
//! connections, or lose its clients.
//!
//! Invariant: the bytes that a side sent arrive complete and in order, even late and after the death of that side's
//! process. Each side sees the other's end after all of the other's bytes. Only bytes on a connection that is cut are
//! lost.

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
/// The maximum number of pieces of bytes under way in one direction, and the size of a piece.
const UNDER_WAY: (usize, usize) = (64, 16 << 10);

/// The relay has a runtime of its own, because a test may block the threads of its runtime.
static NETWORK: LazyLock<Runtime> = LazyLock::new(|| {
    let built = Builder::new_multi_thread().worker_threads(1).thread_name("network").enable_all().build();
    built.expect("a thread for the network")
});

/// A direction through a [`Wire`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Way {
    /// From the client to the server.
    Up,
    /// From the server to the client.
    Down,
    /// Both directions.
    Both,
}

/// The present faults. A fault that is a counter hits the connections that existed when it was last increased.
#[derive(Debug, Default, Clone, Copy)]
struct Weather {
    held: (bool, bool),
    late: Duration,
    /// New connections are closed at once.
    closed: bool,
    cuts: u32,
    halves: u32,
    /// This many bytes of each connection go to the server, and the rest is held.
    upto: Option<usize>,
    /// The value of `halves` through which connections with a lost client are now closed to the server, too.
    known: u32,
}

/// The network before one server.
pub struct Wire {
    server: SocketAddr,
    /// The server to which new connections lead.
    target: watch::Sender<SocketAddr>,
    address: SocketAddr,
    weather: watch::Sender<Weather>,
}

impl Wire {
    /// Listens, and relays connections to `server` until this value is dropped.
    ///
    /// # Errors
    /// Returns an error if there is no port.
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
            // The loop ends when the value is dropped, and its sender with it.
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

    /// Returns the address for clients.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Returns a URL of the server, changed so that it leads through this relay.
    #[must_use]
    pub fn instead_of(&self, url: &str) -> String {
        url.replace(&self.server.to_string(), &self.address.to_string())
    }

    /// Makes new connections lead to another server, as after a failover. Existing connections stay.
    pub fn lead_to(&self, server: SocketAddr) {
        self.target.send_replace(server);
    }

    /// Holds all bytes and ends of connections in this direction. Connections stay open, and new ones are accepted.
    pub fn hold(&self, way: Way) {
        self.weather.send_modify(|weather| weather.held = (way != Way::Down, way != Way::Up));
    }

    /// Lets this many more bytes of each connection through to the server, and then holds the rest. Connections stay
    /// open.
    pub fn stall_after(&self, bytes: usize) {
        self.weather.send_modify(|weather| weather.upto = Some(bytes));
    }

    /// Makes all bytes arrive later by this time.
    pub fn delay(&self, by: Duration) {
        self.weather.send_modify(|weather| weather.late = by);
    }

    /// Ends all present connections.
    pub fn cut(&self) {
        self.weather.send_modify(|weather| weather.cuts += 1);
    }

    /// Ends all present connections, and each new one.
    pub fn close(&self) {
        self.weather.send_modify(|weather| (weather.closed, weather.cuts) = (true, weather.cuts + 1));
    }

    /// Ends the connections to the clients. The server does not notice it before [`Wire::clear`].
    pub fn lose_clients(&self) {
        self.weather.send_modify(|weather| weather.halves += 1);
    }

    /// Ends all faults, and passes on what was held. A changed server stays.
    pub fn clear(&self) {
        self.weather.send_modify(|weather| {
            *weather =
                Weather { cuts: weather.cuts, halves: weather.halves, known: weather.halves, ..Weather::default() }
        });
    }
}

/// Why a connection's bytes stopped.
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
        // Neither side sees the end before the faults are over, or the relay is dropped.
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

/// The limits of one direction.
#[derive(Debug, PartialEq, Eq)]
struct Bounds {
    held: bool,
    upto: Option<usize>,
}

/// Copies the bytes of one direction until its end.
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
            // The last piece is empty, and stands for the end.
            let due = Instant::now() + seen.borrow().late;
            if came.send((due, piece)).await.is_err() || ended {
                return;
            }
        }
    };
    let write = async {
        // The bytes that passed since a limit was set.
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
