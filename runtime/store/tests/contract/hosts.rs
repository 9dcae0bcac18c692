//! A URL with several hosts, some of which do not answer, and a password that is replaced.
use std::{
    fs,
    os::unix::fs::PermissionsExt,
    path::Path,
    sync::Arc,
    time::{Duration, Instant},
};

use rollcall_base::BackendUrl;
use rollcall_loadtest::servers::{self, Postgres, Standby, psql};
use rollcall_store::{
    Schema, Store,
    postgres::{PostgresOptions, PostgresStore},
};
use tokio::net::{TcpListener, TcpSocket, TcpStream};

use crate::world::{LEASE, Member, classroom, connect, register, start_server};

/// Within this time after a failover, the server that takes writes is found.
const FOUND: Duration = Duration::from_secs(5);

fn url(ports: &[u16]) -> String {
    let hosts: Vec<_> = ports.iter().map(|port| format!("127.0.0.1:{port}")).collect();
    format!("postgres://postgres@{}/postgres", hosts.join(","))
}

/// Uses everything that makes connections: the pool, migrations, the relay and a load.
async fn all_connect(store: &dyn Store) {
    store.ping().await.expect("the second host is found");
    store.migrate().await.expect("migrated");
    let lease = register(store, LEASE).await;
    store.renew_lease(lease, LEASE).await.expect("renewed");
    store.open_outbox(lease).await.expect("an outbox").claim().await.expect("claimed");
    store.begin_load().await.expect("begun").commit().await.expect("committed");
}

#[tokio::test]
async fn a_host_that_accepts_and_never_answers_holds_up_nobody() {
    let server = start_server().expect("a server");
    let silent = TcpListener::bind("127.0.0.1:0").await.expect("bound");
    let silent_port = silent.local_addr().expect("an address").port();
    // The kernel accepts the connections, and no process answers. The URL's time limit for a host is longer than a
    // call's.
    for limit in ["", "?connect_timeout=30"] {
        let store = connect(&format!("{}{limit}", url(&[silent_port, silent_port, server.port()])));
        all_connect(&*store).await;
    }
}

#[tokio::test]
async fn a_host_that_answers_no_packet_holds_up_nobody() {
    let server = start_server().expect("a server");
    let socket = TcpSocket::new_v4().expect("a socket");
    socket.bind("127.0.0.1:0".parse().expect("an address")).expect("bound");
    let full = socket.listen(1).expect("listens");
    let address = full.local_addr().expect("an address");
    // The listener's queue is full, so the kernel drops new packets.
    let mut queued = Vec::new();
    while let Ok(connected) = tokio::time::timeout(Duration::from_millis(200), TcpStream::connect(address)).await {
        queued.push(connected.expect("queued"));
    }
    all_connect(&*connect(&url(&[address.port(), server.port()]))).await;
}

/// Calls until a call succeeds.
pub(crate) async fn serves_again(store: &dyn Store, since: Instant) {
    let member = Member::new(classroom(), "web.alice");
    loop {
        let registration =
            rollcall_store::Registration { label: "t".into(), lease: LEASE, standalone: false, process: None };
        if let Ok(lease) = store.register(&registration).await
            && store.open(lease, &[member.open()]).await.is_ok()
        {
            return;
        }
        assert!(since.elapsed() < FOUND, "the server that takes writes was not found");
    }
}

/// One of two standbys is promoted. The other one accepts connections, too, and is asked first.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn after_a_failover_the_new_primary_is_found() {
    let primary = start_server().expect("a server");
    let [other, standby] = [(); 2].map(|()| Standby::of(primary.port()).expect("a standby"));
    let options = PostgresOptions::new(url(&[primary.port(), other.port(), standby.port()]));
    let store: Arc<dyn Store> = Arc::new(PostgresStore::connect(&options).expect("a URL"));
    store.migrate().await.expect("migrated");
    let lease = register(&*store, LEASE).await;
    // All connections of the pool lead to the primary.
    let pings = (0..options.pool_size).map(|_| store.ping());
    futures_util::future::join_all(pings).await.into_iter().for_each(|ping| ping.expect("answered"));
    standby.catch_up(&primary.url()).expect("caught up");

    // The connections stay open, and nothing answers.
    primary.pause().expect("paused");
    standby.promote().expect("promoted");
    let promoted = Instant::now();
    serves_again(&*store, promoted).await;
    store.renew_lease(lease, LEASE).await.expect("the new primary has the lease");
    primary.resume().expect("resumed");
}

/// Returns a server on which one role needs a password.
fn with_password(folder: &Path) -> Postgres {
    let rules = folder.join("pg_hba.conf");
    fs::set_permissions(folder, fs::Permissions::from_mode(0o755)).expect("set");
    fs::write(&rules, "host all rotated 127.0.0.1/32 scram-sha-256\nhost all all 127.0.0.1/32 trust\n")
        .expect("written");
    let settings = vec![("hba_file".to_owned(), rules.display().to_string())];
    let options = servers::PostgresOptions { fsync: false, settings, ..Default::default() };
    Postgres::start_with(options).expect("a server")
}

#[tokio::test]
async fn a_password_that_is_replaced_in_its_file_counts_from_the_next_connection_on() {
    let folder = tempfile::tempdir().expect("a folder");
    let server = with_password(folder.path());
    let sql = |statement: &str| psql(&server.url(), statement).expect("answered");
    sql("create role rotated login superuser password 'first'");
    let file = folder.path().join("url");
    let write = |password: &str| {
        let next = folder.path().join("next");
        let url = format!("postgres://rotated:{password}@127.0.0.1:{}/postgres\n", server.port());
        fs::write(&next, url).expect("written");
        fs::rename(next, &file).expect("renamed");
    };
    write("first");
    let first = fs::read_to_string(&file).expect("read");
    let url = BackendUrl::in_file(first.trim(), "DATABASE_URL", file.clone(), |_| Ok(()));
    let store = PostgresStore::connect(&PostgresOptions::new(url)).expect("a URL");
    store.ping().await.expect("answered");

    let disconnect = "select pg_terminate_backend(pid) from pg_stat_activity where usename = 'rotated'";
    let replaced = async |password: &str| {
        sql(&format!("alter role rotated password '{password}'"));
        sql(disconnect);
        // The store notices a moment later that a connection has ended.
        let deadline = Instant::now() + FOUND;
        let mut answer = store.ping().await;
        while answer.is_err() && Instant::now() < deadline {
            answer = store.ping().await;
        }
        answer
    };
    write("second");
    replaced("second").await.expect("the new password is read");
    store.migrate().await.expect("a dedicated connection reads it, too");
    fs::write(&file, "").expect("written");
    replaced("second").await.expect("the last good one stays in use");
    write("third");
    replaced("third").await.expect("and is replaced when the file is whole again");
}
