//! What is between a node and its server: connections that can be cut, servers with special options, and bytes that no
//! client library sends.
use std::{
    net::TcpListener as Probe,
    path::Path,
    process::{Child, Command, Stdio},
    sync::Arc,
    time::Duration,
};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt, copy_bidirectional},
    net::{TcpListener, TcpStream},
    sync::{RwLock, mpsc, watch},
};

/// Relays connections to a server until they are cut.
pub(crate) struct Proxy {
    port: u16,
    whole: watch::Sender<bool>,
    frozen: watch::Sender<()>,
    /// A lock that each connection holds for reading as long as it lives.
    open: Arc<RwLock<()>>,
}

impl Proxy {
    pub(crate) async fn to(server: u16) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let (whole, state) = watch::channel(true);
        let (frozen, cold) = watch::channel(());
        let open = Arc::new(RwLock::new(()));
        let opened = open.clone();
        tokio::spawn(async move {
            while let Ok((mut near, _)) = listener.accept().await {
                let (mut state, mut cold, opened) = (state.clone(), cold.clone(), opened.clone());
                cold.mark_unchanged();
                tokio::spawn(async move {
                    let _lives = opened.read().await;
                    if !*state.borrow() {
                        return;
                    }
                    let mut far = TcpStream::connect(("127.0.0.1", server)).await.unwrap();
                    let silent = tokio::select! {
                        _ = copy_bidirectional(&mut near, &mut far) => false,
                        _ = state.wait_for(|whole| !whole) => false,
                        _ = cold.changed() => true,
                    };
                    if silent {
                        let _open = (near, far);
                        let _ = state.wait_for(|whole| !whole).await.is_ok();
                    }
                });
            }
        });
        Self { port, whole, frozen, open }
    }

    pub(crate) fn url(&self) -> String {
        format!("nats://127.0.0.1:{}", self.port)
    }

    /// Closes all connections, and returns when they have ended. New ones are closed, too.
    pub(crate) async fn cut(&self) {
        self.whole.send(false).unwrap();
        let _none = self.open.write().await;
    }

    /// Keeps the present connections open, but lets no byte pass on them any more.
    pub(crate) fn freeze(&self) {
        self.frozen.send(()).unwrap();
    }

    /// Lets bytes pass on new connections again.
    pub(crate) fn mend(&self) {
        self.whole.send(true).unwrap();
    }
}

/// Relays connections until it is told to hold. From then on it keeps the bytes that a node sends, even after the node
/// has given the connection up.
pub(crate) struct Stall {
    port: u16,
    held: watch::Sender<bool>,
    /// Gets a message for each connection whose kept bytes the server has read.
    delivered: mpsc::Receiver<()>,
    deliver: watch::Sender<bool>,
}

impl Stall {
    pub(crate) async fn to(server: u16) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let (held, holds) = watch::channel(false);
        let (deliver, delivers) = watch::channel(false);
        let (done, delivered) = mpsc::channel(1);
        tokio::spawn(async move {
            let mut over = delivers.clone();
            while let Ok((near, _)) = tokio::select! {
                accepted = listener.accept() => accepted,
                () = async { drop(over.wait_for(|over| *over).await) } => return,
            } {
                // Connections that come while the proxy holds bytes are only kept open.
                if *holds.borrow() {
                    tokio::spawn(async move { (near, std::future::pending::<()>().await) });
                    continue;
                }
                let far = TcpStream::connect(("127.0.0.1", server)).await.unwrap();
                tokio::spawn(stall(near, far, holds.clone(), delivers.clone(), done.clone()));
            }
        });
        Self { port, held, delivered, deliver }
    }

    pub(crate) fn url(&self) -> String {
        format!("nats://127.0.0.1:{}", self.port)
    }

    pub(crate) fn hold(&self) {
        self.held.send(true).unwrap();
    }

    /// Sends the kept bytes, and returns when the server has answered all of them.
    pub(crate) async fn deliver(mut self) {
        self.deliver.send(true).unwrap();
        while self.delivered.recv().await.is_some() {}
    }
}

async fn stall(
    mut near: TcpStream,
    mut far: TcpStream,
    holds: watch::Receiver<bool>,
    mut delivers: watch::Receiver<bool>,
    done: mpsc::Sender<()>,
) {
    let (mut kept, mut open) = (Vec::new(), true);
    let (mut sent, mut said) = (Vec::new(), Vec::new());
    loop {
        tokio::select! {
            read = near.read_buf(&mut sent), if open => {
                open = matches!(read, Ok(1..));
                if *holds.borrow() { kept.append(&mut sent) } else { far.write_all(&std::mem::take(&mut sent)).await.unwrap() }
            }
            read = far.read_buf(&mut said) => {
                if !matches!(read, Ok(1..)) {
                    return;
                }
                open &= near.write_all(&std::mem::take(&mut said)).await.is_ok();
            }
            () = async { drop(delivers.wait_for(|deliver| *deliver).await) } => break,
        }
    }
    kept.extend(b"PING\r\n");
    far.write_all(&kept).await.unwrap();
    while !said.windows(6).any(|bytes| bytes == b"PONG\r\n") && matches!(far.read_buf(&mut said).await, Ok(1..)) {}
    drop(done);
}

/// Publishes with these headers, byte for byte, and returns when the server has the message.
pub(crate) async fn publish_raw(port: u16, subject: &str, headers: &[u8], body: &[u8]) {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).await.unwrap();
    let mut bytes = b"CONNECT {\"verbose\":false,\"headers\":true}\r\n".to_vec();
    bytes.extend(format!("HPUB {subject} {} {}\r\n", headers.len(), headers.len() + body.len()).bytes());
    bytes.extend([headers, body, b"\r\nPING\r\n"].concat());
    stream.write_all(&bytes).await.unwrap();
    let mut said = Vec::new();
    while !said.ends_with(b"PONG\r\n") {
        assert!(stream.read_buf(&mut said).await.unwrap() > 0, "{}", String::from_utf8_lossy(&said));
    }
}

/// A server with options of its own.
pub(crate) struct Handmade {
    pub(crate) port: u16,
    child: Child,
    _folder: tempfile::TempDir,
}

impl Handmade {
    pub(crate) fn start(options: &[&str]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let store = ["--store_dir", folder.path().to_str().unwrap()].map(str::to_owned);
        let options: Vec<_> = store.into_iter().chain(options.iter().map(|option| (*option).to_owned())).collect();
        Self::start_in(folder, &options)
    }

    /// Creates a server with its settings in this file. If they name no folder, a reload may end JetStream.
    pub(crate) fn start_with_file(settings: &Path) -> Self {
        let folder = tempfile::tempdir().unwrap();
        Self::start_in(folder, &["--config".to_owned(), settings.to_str().unwrap().to_owned()])
    }

    fn start_in(folder: tempfile::TempDir, options: &[String]) -> Self {
        let port = Probe::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let mut command = Command::new("nats-server");
        command.args(["--addr", "127.0.0.1", "--port", &port.to_string()]);
        let child = command.args(options).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        let server = Self { port, child, _folder: folder };
        while std::net::TcpStream::connect(("127.0.0.1", port)).is_err() {
            std::thread::sleep(Duration::from_millis(5));
        }
        server
    }

    /// Lets the server read its file of settings again.
    pub(crate) fn reload(&self) {
        let told = Command::new("kill").args(["-HUP", &self.child.id().to_string()]).status().unwrap();
        assert!(told.success());
    }
}

impl Drop for Handmade {
    fn drop(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}
