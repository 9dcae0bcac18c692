//! The private servers start, survive every fault, and leave nothing behind.

#![allow(clippy::unwrap_used)]

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::thread;
use std::time::Duration;

use rollcall_loadtest::servers::{Kind, Nats, Postgres, PostgresOptions, Prometheus, Redis, Server, Standby};
use rollcall_loadtest::servers::{psql, shared};

/// Injects every fault, one after the other. `alive` asks the server with a short limit.
fn bears_every_fault<K: Kind>(server: &mut Server<K>) {
    let url = server.url();
    let alive = |server: &Server<K>| K::ask(server.port()).is_ok();
    assert!(alive(server));
    server.kill().unwrap();
    assert!(!alive(server));
    server.restart().unwrap();
    assert!(alive(server));
    assert_eq!(server.url(), url);
}

#[test]
fn redis_is_killed_and_restarted() {
    bears_every_fault(&mut Redis::start().unwrap());
}

#[test]
fn nats_is_killed_and_restarted() {
    bears_every_fault(&mut Nats::start().unwrap());
}

#[test]
fn postgres_is_killed_and_restarted_with_its_data() {
    let mut postgres = Postgres::start().unwrap();
    let database = postgres.create_database().unwrap();
    psql(&database, "create table kept (n int); insert into kept values (7)").unwrap();
    bears_every_fault(&mut postgres);
    assert_eq!(psql(&database, "select n from kept").unwrap(), "7");
}

#[test]
fn a_standby_is_promoted_without_the_last_commits() {
    let mut primary = Postgres::start().unwrap();
    psql(&primary.url(), "create table kept (n int); insert into kept values (1)").unwrap();
    let mut standby = Standby::of(primary.port()).unwrap();
    psql(&primary.url(), "insert into kept values (2)").unwrap();
    standby.catch_up(&primary.url()).unwrap();
    standby.stop_receiving().unwrap();
    psql(&primary.url(), "insert into kept values (3)").unwrap();
    primary.kill().unwrap();
    standby.promote().unwrap();
    psql(&standby.url(), "insert into kept values (4)").unwrap();
    standby.restart().unwrap();
    assert_eq!(psql(&standby.url(), "select n from kept order by n").unwrap(), "1\n2\n4");
    let next = Standby::of(standby.port()).unwrap();
    next.catch_up(&standby.url()).unwrap();
    assert_eq!(psql(&next.url(), "select count(*) from kept").unwrap(), "3");
}

#[test]
fn a_paused_server_keeps_its_connections_and_answers_after_resume() {
    let nats = Nats::start().unwrap();
    let mut stream = TcpStream::connect(("127.0.0.1", nats.port())).unwrap();
    stream.set_read_timeout(Some(Duration::from_millis(200))).unwrap();
    let mut info = [0; 4096];
    assert_ne!(stream.read(&mut info).unwrap(), 0);
    nats.pause().unwrap();
    stream.write_all(b"CONNECT {}\r\nPING\r\n").unwrap();
    assert!(stream.read(&mut info).is_err());
    nats.resume().unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
    assert_ne!(stream.read(&mut info).unwrap(), 0);
}

#[test]
fn a_paused_postgres_has_all_its_children_paused() {
    let postgres = Postgres::start_with(PostgresOptions { fsync: false, ..PostgresOptions::default() }).unwrap();
    let url = postgres.url();
    let sleeper = thread::spawn(move || psql(&url, "select pg_sleep(0.2), 'woken'"));
    let states = || {
        let output = std::process::Command::new("ps")
            .args(["--no-headers", "-o", "stat", "--ppid"])
            .arg(postgres.pid().to_string())
            .output()
            .unwrap();
        String::from_utf8(output.stdout).unwrap()
    };
    postgres.pause().unwrap();
    let stopped = states();
    assert!(stopped.lines().all(|state| state.starts_with(['T', 'Z'])), "{stopped}");
    postgres.resume().unwrap();
    assert_eq!(sleeper.join().unwrap().unwrap(), "|woken");
}

#[test]
fn tests_share_one_server_with_a_database_each() {
    let first = shared::postgres().create_database().unwrap();
    let second = shared::postgres().create_database().unwrap();
    psql(&first, "create table mine (n int)").unwrap();
    assert_eq!(psql(&second, "select count(*) from pg_tables where tablename = 'mine'").unwrap(), "0");
}

#[test]
fn prometheus_scrapes_and_answers() {
    let target = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = target.local_addr().unwrap();
    thread::spawn(move || {
        for stream in target.incoming() {
            let mut stream = stream.unwrap();
            let mut request = [0; 4096];
            assert_ne!(stream.read(&mut request).unwrap(), 0);
            let body = "answer_to_everything 42\n";
            let head = "HTTP/1.1 200 OK\r\ncontent-type: text/plain\r\nconnection: close";
            write!(stream, "{head}\r\ncontent-length: {}\r\n\r\n{body}", body.len()).unwrap();
        }
    });
    let prometheus = Prometheus::start(address).unwrap();
    let value = prometheus.query("answer_to_everything", Duration::from_secs(20)).unwrap();
    assert!((value - 42.0).abs() < f64::EPSILON);
}
