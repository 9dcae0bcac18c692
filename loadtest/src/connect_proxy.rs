//! A proxy for HTTPS. Each of its tunnels (CONNECT) leads to one address, whatever host the client names.

use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::io::{AsyncReadExt, AsyncWriteExt, copy_bidirectional};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;

const MAX_HEAD: usize = 8 << 10;

/// A running proxy. It ends when it is dropped.
pub struct ConnectProxy {
    address: SocketAddr,
    requests: Arc<Mutex<Vec<String>>>,
    task: JoinHandle<()>,
}

impl ConnectProxy {
    /// Starts a proxy whose tunnels lead to `target`. With an `authorization`, such as `Basic bWU6cA==`, it refuses
    /// requests without it.
    ///
    /// # Errors
    /// Returns an error if there is no free port.
    pub async fn start(target: SocketAddr, authorization: Option<&str>) -> io::Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let address = listener.local_addr()?;
        let requests = Arc::new(Mutex::new(Vec::new()));
        let wanted = authorization.map(str::to_owned);
        let seen = Arc::clone(&requests);
        let task = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (wanted, seen) = (wanted.clone(), Arc::clone(&seen));
                // An error ends only the client's own tunnel.
                tokio::spawn(async move { tunnel(stream, target, wanted.as_deref(), &seen).await.ok() });
            }
        });
        Ok(Self { address, requests, task })
    }

    /// Returns the proxy's address.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Returns the first lines of the requests that the proxy accepted.
    #[must_use]
    pub fn requests(&self) -> Vec<String> {
        self.requests.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl Drop for ConnectProxy {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn tunnel(
    mut client: TcpStream,
    target: SocketAddr,
    wanted: Option<&str>,
    seen: &Mutex<Vec<String>>,
) -> io::Result<()> {
    let head = head(&mut client).await?;
    let mut lines = head.lines();
    let request = lines.next().unwrap_or_default().to_owned();
    let given = lines.filter_map(|line| line.split_once(": "));
    let mut given = given.filter(|(name, _)| name.eq_ignore_ascii_case("proxy-authorization")).map(|(_, value)| value);
    if wanted.is_some() && wanted != given.next_back() {
        return client.write_all(b"HTTP/1.1 407 Proxy Authentication Required\r\nContent-Length: 0\r\n\r\n").await;
    }
    if !request.starts_with("CONNECT ") {
        return client.write_all(b"HTTP/1.1 405 Method Not Allowed\r\nContent-Length: 0\r\n\r\n").await;
    }
    seen.lock().unwrap_or_else(PoisonError::into_inner).push(request);
    let mut server = TcpStream::connect(target).await?;
    client.write_all(b"HTTP/1.1 200 Connection established\r\n\r\n").await?;
    copy_bidirectional(&mut client, &mut server).await.map(drop)
}

/// Reads a request's head. A client sends nothing after the head before it has an answer.
async fn head(client: &mut TcpStream) -> io::Result<String> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") && head.len() < MAX_HEAD {
        if client.read_buf(&mut head).await? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
    }
    Ok(String::from_utf8_lossy(&head).into_owned())
}
