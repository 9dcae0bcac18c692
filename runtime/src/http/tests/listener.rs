//! The listener with real connections, among them those of Prometheus.
use rollcall_loadtest::servers::Prometheus;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    sync::watch,
    task::JoinHandle,
};

use super::*;
use crate::{
    http::{Surface, serve, server::MAX_CONNECTIONS},
    http_client::fixture::soon,
};
use rollcall_base::names;

async fn served(bench: &Bench) -> (std::net::SocketAddr, watch::Sender<bool>, JoinHandle<()>) {
    served_as(Surface::Operators(Arc::clone(&bench.admin))).await
}

async fn served_as(surface: Surface) -> (std::net::SocketAddr, watch::Sender<bool>, JoinHandle<()>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (stop, stopped) = watch::channel(false);
    let server = tokio::spawn(serve(surface, listener, stopped));
    (address, stop, server)
}

async fn talk(address: std::net::SocketAddr, request: &str) -> String {
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    // A refusal may end with a reset. The test uses the bytes that came before the reset.
    drop(soon(stream.read_to_end(&mut answer)).await);
    String::from_utf8(answer).unwrap()
}

#[tokio::test]
async fn requests_are_answered_and_nonsense_refused() {
    let bench = Bench::new().await;
    let (address, _stop, _server) = served(&bench).await;
    let get = |path: &str| format!("GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
    assert!(talk(address, &get("/healthz")).await.starts_with("HTTP/1.1 200 OK"));
    assert!(talk(address, &get("/readyz")).await.contains("\"ready\":true"));
    let head = get("/healthz").replace("GET", "HEAD");
    assert!(talk(address, &head).await.ends_with("\r\n\r\n"), "no body");
    assert!(talk(address, "nonsense\r\n\r\n").await.starts_with("HTTP/1.1 400"));
    let long = format!("GET /healthz HTTP/1.1\r\nX: {}\r\n\r\n", "x".repeat(20_000));
    assert!(talk(address, &long).await.starts_with("HTTP/1.1 431"));
    let announced = "POST /api/v1/publish HTTP/1.1\r\nHost: localhost\r\nContent-Length: 999999999\r\n\r\n";
    assert!(talk(address, announced).await.starts_with("HTTP/1.1 413"));
}

/// The client sends all of its body before it reads the answer.
#[tokio::test]
async fn a_client_whose_body_is_refused_learns_why() {
    let bench = Bench::new().await;
    let (address, _stop, _server) = served(&bench).await;
    let body = "x".repeat(6 << 20);
    for (path, status) in [("/api/v1/publish", 413), ("/api/v1/erase", 413), ("/api/v1/nowhere", 404)] {
        let head = format!("POST {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n");
        let sized = format!("{head}Content-Length: {}\r\n\r\n{body}", body.len());
        let chunked = format!("{head}Transfer-Encoding: chunked\r\n\r\n{:x}\r\n{body}\r\n0\r\n\r\n", body.len());
        for request in [sized, chunked] {
            let answer = talk(address, &request).await;
            assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{path}: {answer}");
        }
    }
    // A client that sends `Expect` sends its body only after the answer to the head.
    let asking =
        "POST /api/v1/erase HTTP/1.1\r\nHost: localhost\r\nExpect: 100-continue\r\nContent-Length: 6000000\r\n\r\n";
    assert!(talk(address, asking).await.starts_with("HTTP/1.1 413"));
}

#[tokio::test]
async fn the_probes_address_answers_probes_only_and_without_details() {
    let bench = Bench::with(Some("hunter2"), Arc::new(MemoryKeys::new())).await;
    let (address, _stop, _server) = served_as(Surface::Probes(Arc::clone(&bench.admin))).await;
    // The requests are those of a kubelet and a request with another name. Any name is answered, because the answers
    // need no protection.
    let get = |path: &str| format!("GET {path} HTTP/1.1\r\nHost: any.example\r\nConnection: close\r\n\r\n");
    assert!(talk(address, &get("/healthz")).await.starts_with("HTTP/1.1 200 OK"));
    let ready = talk(address, &get("/readyz")).await;
    assert!(ready.starts_with("HTTP/1.1 200 OK") && ready.contains(r#"{"name":"sqlite","up":true}"#), "{ready}");
    for path in ["/metrics", "/api/v1/nodes", "/api/v1/openapi.json", "/", "/readyz/"] {
        let answer = talk(address, &get(path)).await;
        assert!(answer.starts_with("HTTP/1.1 404") && !answer.contains("rollcall_"), "{path}: {answer}");
    }
    assert!(talk(address, &get("/healthz").replace("GET", "POST")).await.starts_with("HTTP/1.1 405"));
    bench.draining.store(true, std::sync::atomic::Ordering::Relaxed);
    let draining = talk(address, &get("/readyz")).await;
    assert!(draining.starts_with("HTTP/1.1 503") && draining.contains(r#""draining":true"#), "{draining}");
}

#[tokio::test]
async fn a_stop_closes_idle_connections() {
    let bench = Bench::new().await;
    let (address, stop, server) = served(&bench).await;
    let mut idle = TcpStream::connect(address).await.unwrap();
    idle.write_all(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n").await.unwrap();
    let mut bytes = [0; 12];
    soon(idle.read_exact(&mut bytes)).await.unwrap();
    assert_eq!(&bytes, b"HTTP/1.1 200");
    stop.send_replace(true);
    soon(server).await.unwrap();
    soon(idle.read_to_end(&mut Vec::new())).await.unwrap();
    assert!(TcpStream::connect(address).await.is_err());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn prometheus_scrapes_and_answers_with_our_value() {
    let bench = Bench::new().await;
    metrics::with_local_recorder(&bench.recorder, || {
        metrics::gauge!(names::SESSIONS).set(42.0);
        metrics::histogram!(names::DURATION, "function" => "join_lesson").record(0.003);
    });
    let (address, _stop, _server) = served(&bench).await;
    let values = tokio::task::spawn_blocking(move || {
        let prometheus = Prometheus::start(address)?;
        let ask = |expression: &str| prometheus.query(expression, Duration::from_secs(20));
        let buckets = format!("{}_bucket{{function=\"join_lesson\",le=\"0.005\"}}", names::DURATION);
        Ok::<_, std::io::Error>([ask(names::SESSIONS)?, ask("up")?, ask(&buckets)?])
    });
    let values = values.await.unwrap().expect("Prometheus runs; it is in Debian's package prometheus");
    assert_eq!(values, [42.0, 1.0, 1.0]);
}

#[tokio::test]
async fn connections_that_do_nothing_keep_no_probe_out() {
    let bench = Bench::new().await;
    let (address, _stop, _server) = served(&bench).await;
    let mut idle = Vec::new();
    for _ in 0..MAX_CONNECTIONS {
        idle.push(TcpStream::connect(address).await.unwrap());
    }
    let probe = "GET /healthz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";
    assert!(talk(address, probe).await.starts_with("HTTP/1.1 200 OK"));
    // The new connection got the place of the oldest, and did not wait for another to end.
    assert_eq!(soon(idle[0].read(&mut [0])).await.unwrap(), 0);
    let mut last = idle.pop().unwrap();
    last.write_all(probe.as_bytes()).await.unwrap();
    let mut answer = String::new();
    soon(last.read_to_string(&mut answer)).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 200 OK"), "{answer}");
}
