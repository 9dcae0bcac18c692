//! The network between clients and a node: a relay of bytes that can stand still, cut, or lose one half.
//!
//! Invariant: while nothing is wrong, bytes go through in order and both ends hear of each other's end.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{ReadHalf, WriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::time::timeout;

const DIAL_LIMIT: Duration = Duration::from_secs(1);

/// What is wrong. Connections that were there before a count rose are hit by it.
#[derive(Debug, Default, Clone, Copy)]
struct Weather {
    held: bool,
    cuts: u32,
    halves: u32,
    /// Halves up to this one are told to the node.
    known: u32,
}

/// The network before one node.
pub(super) struct Wire {
    address: SocketAddr,
    weather: watch::Sender<Weather>,
}

impl Wire {
    /// Listens, and relays to `node`.
    pub(super) async fn before(node: SocketAddr) -> io::Result<Self> {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await?;
        let address = listener.local_addr()?;
        let weather = watch::Sender::new(Weather::default());
        let seen = weather.subscribe();
        tokio::spawn(async move {
            // Ends with the value, whose sender is dropped then.
            while seen.has_changed().is_ok() {
                let Ok(Ok((client, _))) = timeout(DIAL_LIMIT, listener.accept()).await else { continue };
                tokio::spawn(relay(client, node, seen.clone()));
            }
        });
        Ok(Self { address, weather })
    }

    /// Where clients connect.
    pub(super) fn address(&self) -> SocketAddr {
        self.address
    }

    pub(super) fn hold(&self) {
        self.weather.send_modify(|weather| weather.held = true);
    }

    pub(super) fn cut(&self) {
        self.weather.send_modify(|weather| weather.cuts += 1);
    }

    pub(super) fn lose_clients(&self) {
        self.weather.send_modify(|weather| weather.halves += 1);
    }

    /// The end of whatever is wrong.
    pub(super) fn clear(&self) {
        self.weather.send_modify(|weather| {
            weather.held = false;
            weather.known = weather.halves;
        });
    }
}

/// Why bytes stopped going through.
enum Stop {
    Ended,
    ClientLost,
}

async fn relay(mut client: TcpStream, node: SocketAddr, mut weather: watch::Receiver<Weather>) {
    let born = *weather.borrow_and_update();
    let Ok(Ok(mut server)) = timeout(DIAL_LIMIT, TcpStream::connect(node)).await else { return };
    client.set_nodelay(true).ok();
    server.set_nodelay(true).ok();
    let stop = {
        let ((from_client, to_client), (from_server, to_server)) = (client.split(), server.split());
        let up = copy(from_client, to_server, weather.clone());
        let down = copy(from_server, to_client, weather.clone());
        tokio::select! {
            _ = async { tokio::join!(up, down) } => Stop::Ended,
            stop = struck(born, weather.clone()) => stop,
        }
    };
    if let Stop::ClientLost = stop {
        drop(client);
        // Nobody is told before the weather is fair again, or the wire is gone.
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

/// One direction, until its end.
async fn copy(mut from: ReadHalf<'_>, mut to: WriteHalf<'_>, mut weather: watch::Receiver<Weather>) {
    let mut buffer = vec![0; 16 << 10];
    while let Ok(length @ 1..) = from.read(&mut buffer).await {
        if weather.wait_for(|weather| !weather.held).await.is_err() || to.write_all(&buffer[..length]).await.is_err() {
            break;
        }
    }
    to.shutdown().await.ok();
}
