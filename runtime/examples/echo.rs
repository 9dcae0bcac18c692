//! An echo server on the production socket layer, only for the layer's conformance tests and benchmarks.
//!
//! `cargo run --release -p rollcall-runtime --example echo -- 127.0.0.1:9001 --max-message 16777216`
use std::{error::Error, net::SocketAddr, thread::available_parallelism};

use bytes::Bytes;
use clap::Parser;
use http_body_util::Full;
use hyper::{Request, Response, StatusCode, body::Incoming};
use rollcall_websocket::{
    Application, Cause, HttpHooks, ListenerOptions, Message, Socket, SocketId, SocketIo, SocketOptions, Sockets,
    Upgrade, Workers, bind, serve,
};

#[derive(Parser)]
#[command(about = "A WebSocket echo on Rollcall's socket layer")]
struct Arguments {
    /// The address to listen on
    #[arg(default_value = "127.0.0.1:9001")]
    listen: SocketAddr,
    /// The maximum size of a message in bytes
    #[arg(long, default_value_t = SocketOptions::default().max_message)]
    max_message: usize,
    /// The maximum number of fragments of a message. Default: 1,024 for each 64 KiB of `max-message`
    #[arg(long)]
    max_fragments: Option<u32>,
    /// The number of workers. Default: one for each core
    #[arg(long)]
    workers: Option<usize>,
}

struct Echo;

impl Application for Echo {
    type Peer = ();
    type Command = ();

    fn opened(&mut self, _: &mut SocketIo<'_>, _: Upgrade) {}

    fn message(&mut self, socket: &mut Socket<'_, ()>, message: Message<'_>) {
        match message {
            Message::Text(text) => socket.send_text(text.as_bytes()),
            Message::Binary(data) => socket.send_binary(data),
        }
    }

    fn command(&mut self, _: &mut Sockets<()>, (): ()) {}

    fn closed(&mut self, _: &mut Sockets<()>, _: SocketId, (): (), _: Cause) {}
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
    let arguments = Arguments::parse();
    let defaults = SocketOptions::default();
    let factor = arguments.max_message.div_ceil(defaults.max_message).max(1);
    let fragments = defaults.max_fragments.saturating_mul(u32::try_from(factor)?);
    let options = SocketOptions {
        max_message: arguments.max_message,
        max_fragments: arguments.max_fragments.unwrap_or(fragments),
        binary: true,
        max_outbound: defaults.max_outbound.max(2 * arguments.max_message),
        ..defaults
    };
    let count = arguments.workers.map_or_else(|| available_parallelism().map_or(1, usize::from), usize::from);
    let workers = Workers::start(&rollcall_base::tasks::Tasks::default(), count, &options, "echo", |_| Echo)?;
    let listener = bind(arguments.listen)?;
    println!("listening on {}", listener.local_addr()?);
    let listening = ListenerOptions { path: "/".into(), ..ListenerOptions::default() };
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
