//! A server on the production socket layer for the public test suites of Engine.IO and Socket.IO.
//!
//! `cargo run -p rollcall-runtime --example socketio_echo -- 127.0.0.1:3000` is for the suite of Socket.IO, and with
//! `--engine` for the suite of Engine.IO. Socket.IO's suite needs the namespaces `/` and `/custom`, the events
//! `message` (answered by `message-back`) and `message-with-ack`, and an event `auth` with the payload of CONNECT.
use std::{collections::BTreeSet, error::Error, net::SocketAddr, time::Duration};

use bytes::Bytes;
use clap::Parser;
use http_body_util::Full;
use hyper::{Request, Response, StatusCode, body::Incoming};
use rollcall_base::tasks::Tasks;
use rollcall_socketio::{Attachments, Event, Kind, Malformed, Packet};
use rollcall_websocket::{
    Application, Cause, HttpHooks, Inbox, ListenerOptions, Message, Origins, Socket, SocketId, SocketIo, SocketOptions,
    Sockets, Upgrade, Workers, bind, serve,
};
use serde_json::value::RawValue;

/// The suite loses a message that arrives in one read with the answer to CONNECT.
const AUTH_DELAY: Duration = Duration::from_millis(20);

#[derive(Parser)]
#[command(about = "A Socket.IO or Engine.IO echo on Rollcall's socket layer")]
struct Arguments {
    /// The address to listen on
    #[arg(default_value = "127.0.0.1:3000")]
    listen: SocketAddr,
    /// Echo messages of Engine.IO at /engine.io, instead of events of Socket.IO at /socket.io
    #[arg(long)]
    engine: bool,
}

/// An event `auth` for a namespace of a socket.
struct Auth {
    socket: SocketId,
    message: Vec<u8>,
}

struct Echo {
    is_engine: bool,
    inbox: Inbox<Auth>,
}

/// The namespaces that a client has connected to, and the packet whose attachments have not all come yet.
#[derive(Default)]
struct Peer {
    namespaces: BTreeSet<String>,
    attachments: Option<Attachments>,
}

impl Application for Echo {
    type Peer = Peer;
    type Command = Auth;

    fn opened(&mut self, _: &mut SocketIo<'_>, _: Upgrade) -> Peer {
        Peer::default()
    }

    fn message(&mut self, socket: &mut Socket<'_, Peer>, message: Message<'_>) {
        let handled = match message {
            Message::Text(text) if self.is_engine => return socket.send_text(text.as_bytes()),
            Message::Binary(data) if self.is_engine => return socket.send_binary(data),
            Message::Text(text) => self.packet(socket, text),
            Message::Binary(data) => attachment(socket, data),
        };
        if handled.is_err() {
            socket.close(1002, None);
        }
    }

    fn command(&mut self, sockets: &mut Sockets<Peer>, Auth { socket, message }: Auth) {
        if let Some(mut socket) = sockets.get_mut(socket) {
            socket.send_text(&message);
        }
    }

    fn closed(&mut self, _: &mut Sockets<Peer>, _: SocketId, _: Peer, _: Cause) {}
}

impl Echo {
    fn packet(&self, socket: &mut Socket<'_, Peer>, text: &str) -> Result<(), Malformed> {
        let packet = Packet::parse(text)?;
        if socket.peer.attachments.is_some() {
            return Err(Malformed);
        }
        let is_connected = socket.peer.namespaces.contains(packet.namespace);
        match packet.kind {
            Kind::Connect if !is_connected => self.connect(socket, &packet),
            Kind::Disconnect => drop(socket.peer.namespaces.remove(packet.namespace)),
            Kind::Event if is_connected => echo(socket, &packet, &[])?,
            Kind::BinaryEvent if is_connected => {
                socket.peer.attachments = Some(Attachments::new(text, &packet, 1_000_000)?);
            }
            _ => return Err(Malformed),
        }
        Ok(())
    }

    fn connect(&self, socket: &mut Socket<'_, Peer>, packet: &Packet<'_>) {
        let answer = |kind, data| Packet { kind, attachments: 0, namespace: packet.namespace, id: None, data }.encode();
        if !["/", "/custom"].contains(&packet.namespace) {
            return socket.send_text(&answer(Kind::ConnectError, r#"{"message":"Invalid namespace"}"#));
        }
        socket.peer.namespaces.insert(packet.namespace.to_owned());
        let sid = format!(r#"{{"sid":"{:x}"}}"#, socket.id().to_bits());
        socket.send_text(&answer(Kind::Connect, &sid));
        let auth = if packet.data.is_empty() { "{}" } else { packet.data };
        let message = answer(Kind::Event, &format!(r#"["auth",{auth}]"#));
        let (inbox, socket) = (self.inbox.clone(), socket.id());
        tokio::spawn(async move {
            tokio::time::sleep(AUTH_DELAY).await;
            let _ = inbox.send(Auth { socket, message }).await;
        });
    }
}

fn attachment(socket: &mut Socket<'_, Peer>, data: &[u8]) -> Result<(), Malformed> {
    let mut attachments = socket.peer.attachments.take().ok_or(Malformed)?;
    attachments.push(data)?;
    if !attachments.is_whole() {
        socket.peer.attachments = Some(attachments);
        return Ok(());
    }
    let (text, data) = attachments.into_parts();
    echo(socket, &Packet::parse(&text)?, &data)
}

/// Answers an event as the suite requires.
fn echo(socket: &mut Socket<'_, Peer>, packet: &Packet<'_>, attachments: &[Box<[u8]>]) -> Result<(), Malformed> {
    let name = Event::parse(packet.data)?.name;
    let arguments: Vec<&RawValue> = serde_json::from_str(packet.data).map_err(|_| Malformed)?;
    let arguments: Vec<_> = arguments[1..].iter().map(|argument| argument.get()).collect();
    let arguments = arguments.join(",");
    let binary = !attachments.is_empty();
    let (kind, id, data) = match (&*name, packet.id) {
        ("message", _) => {
            let kind = if binary { Kind::BinaryEvent } else { Kind::Event };
            (kind, None, format!(r#"["message-back",{arguments}]"#))
        }
        ("message-with-ack", Some(id)) => {
            let kind = if binary { Kind::BinaryAck } else { Kind::Ack };
            (kind, Some(id), format!("[{arguments}]"))
        }
        _ => return Ok(()),
    };
    let answer = Packet { kind, attachments: attachments.len(), namespace: packet.namespace, id, data: &data };
    socket.send_text(&answer.encode());
    attachments.iter().for_each(|data| socket.send_binary(data));
    Ok(())
}

struct NotFound;

impl HttpHooks for NotFound {
    async fn other(&self, _: SocketAddr, _: Request<Incoming>) -> Response<Full<Bytes>> {
        let mut response = Response::new(Full::default());
        *response.status_mut() = StatusCode::NOT_FOUND;
        response
    }
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let Arguments { listen, engine: is_engine } = Arguments::parse();
    let options = SocketOptions {
        max_message: 1_000_000,
        max_outbound: 4_000_000,
        ping_interval: Duration::from_millis(300),
        engine_pong_timeout: Duration::from_millis(200),
        tick: Duration::from_millis(100),
        ..SocketOptions::default()
    };
    let workers = Workers::start(&Tasks::default(), 2, &options, "echo", |inbox| Echo { is_engine, inbox })?;
    let listener = bind(listen)?;
    println!("listening on {}", listener.local_addr()?);
    let path = if is_engine { "/engine.io" } else { "/socket.io" };
    let listening =
        ListenerOptions { engine_path: Some(path.into()), origins: Origins::Any, ..ListenerOptions::default() };
    let interrupted = async {
        if let Err(error) = tokio::signal::ctrl_c().await {
            eprintln!("cannot wait for an interrupt: {error}");
        }
    };
    let listening = tokio::sync::watch::channel(std::sync::Arc::new(listening)).1;
    serve(listener, listening, NotFound, workers.clone(), interrupted).await;
    workers.shutdown().await;
    Ok(())
}
