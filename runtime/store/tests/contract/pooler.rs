//! Behind a pgbouncer in transaction mode, with so few connections to PostgreSQL that two nodes must share them.
use std::{sync::Arc, time::Duration};

use rollcall_loadtest::servers::{Pgbouncer, PgbouncerOptions, PgbouncerVersion, Postgres, psql};
use rollcall_schema::SessionId;
use rollcall_store::{
    Change, Closed, Joined, Lease, LeftReason, LessonRow, Store, StoreError,
    postgres::{PostgresOptions, PostgresStore},
};
use tokio::{task::JoinSet, time::Instant};

use crate::world::{LEASE, Member, classroom, events_of, register, start_server};

/// The pooler's connections to PostgreSQL: fewer than one node has to the pooler.
const CONNECTIONS: u32 = 3;

struct Pooled {
    postgres: Postgres,
    pgbouncer: Pgbouncer,
}

impl Pooled {
    fn of(version: PgbouncerVersion) -> Self {
        let postgres = start_server().expect("a server");
        let options = PgbouncerOptions { version, ..PgbouncerOptions::new(postgres.port(), CONNECTIONS) };
        Self { pgbouncer: Pgbouncer::start_with(options).expect("a pooler"), postgres }
    }

    async fn start(version: PgbouncerVersion) -> (Self, Arc<dyn Store>, Lease) {
        let pooled = Self::of(version);
        let store = pooled.store();
        store.migrate().await.expect("migrated");
        let lease = register(&*store, LEASE).await;
        (pooled, store, lease)
    }

    fn store(&self) -> Arc<dyn Store> {
        self.store_in(None)
    }

    fn store_in(&self, schema: Option<&str>) -> Arc<dyn Store> {
        let schema = schema.map(|schema| schema.parse().expect("a name"));
        let options =
            PostgresOptions { pool_size: 2, pooler: true, schema, ..PostgresOptions::new(self.pgbouncer.url()) };
        Arc::new(PostgresStore::connect(&options).expect("a URL"))
    }

    fn sql(&self, statement: &str) -> String {
        psql(&self.postgres.url(), statement).expect("answered")
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_nodes_share_connections_of_a_pooler_that_knows_no_prepared_statements() {
    let of_the_pooler = two_nodes_share_connections(PgbouncerVersion::Distribution).await;
    assert_eq!(of_the_pooler, "0");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_nodes_share_connections_of_a_pooler_that_keeps_track_of_prepared_statements() {
    let of_the_pooler = two_nodes_share_connections(PgbouncerVersion::Current).await;
    assert_ne!(of_the_pooler, "0");
}

/// Returns how many of the pooler's prepared statements a connection has at the end.
async fn two_nodes_share_connections(version: PgbouncerVersion) -> String {
    let (pooled, store, lease) = Pooled::start(version).await;
    let other = pooled.store();
    let others_lease = register(&*other, LEASE).await;
    let here = classroom();
    let lesson = rollcall_schema::LessonId::parse("algebra-1").expect("an id");
    let mut load = store.begin_load().await.expect("begun");
    load.lessons(vec![LessonRow { id: lesson.clone(), classroom: here, seats: 30 }]).await.expect("a lesson");
    load.commit().await.expect("committed");
    let mut calls = JoinSet::new();
    for n in 0..40 {
        let (store, lease) = if n % 2 == 0 { (store.clone(), lease) } else { (other.clone(), others_lease) };
        let (member, lesson) = (Member::new(here, &format!("web.u{n}")), lesson.clone());
        calls.spawn(async move {
            let deadline = Instant::now() + LEASE;
            // Some calls may wait for a connection for too long.
            let opened = loop {
                match store.open(lease, &[member.open()]).await {
                    Ok(opened) => break opened[0].expect("its user has few"),
                    Err(error) => assert!(Instant::now() < deadline, "{error}"),
                }
            };
            let joined = loop {
                match store.join(lease, &[member.join(opened.session, &lesson)]).await {
                    Ok(joined) => break joined[0],
                    Err(error) => assert!(Instant::now() < deadline, "{error}"),
                }
            };
            assert!(matches!(joined, Joined::Lesson { .. }), "{joined:?}");
        });
    }
    while let Some(call) = calls.join_next().await {
        call.expect("joined");
    }
    assert_eq!(store.renew_lease(lease, LEASE).await.expect("renewed").nodes, 2);
    assert_eq!(store.lesson_memberships(lease.node, SessionId(0), 100).await.expect("read").len(), 20);
    pooled.sql(&format!("update node set lease_until = '2000-01-01' where id = {}", others_lease.node));
    let mut reaped = 0;
    while reaped < 20 {
        store.renew_lease(lease, LEASE).await.expect("renewed");
        reaped += store.reap(lease, 7).await.expect("reaped");
    }
    let changes: Vec<Change> = events_of(&*store, lease).await.into_iter().map(|row| row.change).collect();
    assert_eq!(changes.iter().filter(|change| **change == Change::Entered).count(), 40);
    assert_eq!(changes.iter().filter(|change| **change == Change::Left(Some(LeftReason::NodeLost))).count(), 20);
    assert_eq!(store.backlog().await.expect("counted").rows, 0);
    // Settings of one transaction do not hold in the next.
    let prepared = |names: &str| {
        let count = format!("select count(*) from pg_prepared_statements where name {names} '^PGBOUNCER'");
        psql(&pooled.pgbouncer.url(), &count).expect("answered")
    };
    assert_eq!(prepared("!~"), "0", "no statement is left behind");
    assert_eq!(psql(&pooled.pgbouncer.url(), "show enable_seqscan").expect("answered"), "on");
    let connections = "select count(*) from pg_stat_activity where datname = 'postgres' and backend_type = 'client backend' \
        and pid <> pg_backend_pid()";
    assert!(pooled.sql(connections).parse::<u32>().expect("a number") <= CONNECTIONS);
    store.release_lease(lease).await.expect("released");
    prepared("~")
}

/// Only the role's own setting reaches each connection behind the pooler, so without it no node starts.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tables_in_a_schema_of_their_own_need_the_roles_setting() {
    for version in [PgbouncerVersion::Distribution, PgbouncerVersion::Current] {
        let pooled = Pooled::of(version);
        let store = pooled.store_in(Some("east"));
        let refused = store.migrate().await.expect_err("the tables would be made elsewhere").to_string();
        let (_, advice) = refused.split_once("alter role").unwrap_or_else(|| panic!("{refused}"));
        pooled.sql(&format!("alter role{advice}"));
        let ended = "select count(pg_terminate_backend(pid)) from pg_stat_activity \
            where backend_type = 'client backend' and pid <> pg_backend_pid()";
        pooled.sql(ended);
        let deadline = Instant::now() + LEASE;
        while let Err(error) = store.migrate().await {
            assert!(Instant::now() < deadline, "{error}");
        }
        let lease = register(&*store, LEASE).await;
        let alice = Member::new(classroom(), "web.alice");
        store.open(lease, &[alice.open()]).await.expect("opened");
        assert_eq!(events_of(&*store, lease).await.len(), 1);
        store.close(lease, &[alice.close(LeftReason::Closed)]).await.expect("closed");
        assert_eq!(pooled.sql("select count(*) from east.agent_session_history"), "1");
        assert_eq!(pooled.sql("select to_regclass('public.agent_session') is null"), "t");
    }
}

/// The pooler is stopped with the statement, and passes it on much later.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_write_that_comes_after_its_deadline_writes_nothing() {
    for version in [PgbouncerVersion::Distribution, PgbouncerVersion::Current] {
        a_late_write_writes_nothing(version).await;
    }
}

async fn a_late_write_writes_nothing(version: PgbouncerVersion) {
    let (pooled, store, lease) = Pooled::start(version).await;
    let alice = Member::new(classroom(), "web.alice");
    store.open(lease, &[Member::new(alice.classroom, "web.bob").open()]).await.expect("opened");
    pooled.pgbouncer.pause().expect("paused");
    let answer = store.open(lease, &[alice.open()]).await;
    assert!(matches!(answer, Err(StoreError::Unavailable(_))), "{answer:?}");
    pooled.pgbouncer.resume().expect("resumed");
    let deadline = Instant::now() + LEASE;
    let closed = loop {
        match store.close(lease, &[alice.close(LeftReason::Lost)]).await {
            Ok(closed) => break closed,
            Err(error) => assert!(Instant::now() < deadline, "{error}"),
        }
    };
    assert_eq!(closed, [Closed::NotOwner]);
    assert_eq!(pooled.sql("select count(*) from agent_session"), "1");
}

/// The write is under way while another client's lock delays it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_follows_a_write_of_unknown_outcome_waits_for_its_end() {
    for version in [PgbouncerVersion::Distribution, PgbouncerVersion::Current] {
        what_follows_a_lost_write_waits(version).await;
    }
}

async fn what_follows_a_lost_write_waits(version: PgbouncerVersion) {
    let (pooled, store, lease) = Pooled::start(version).await;
    let alice = Member::new(classroom(), "web.alice");
    store.open(lease, &[Member::new(alice.classroom, "web.bob").open()]).await.expect("opened");
    // A lock stops the write of a session, which goes on long after the caller has given up.
    let (client, connection) =
        tokio_postgres::connect(&pooled.postgres.url(), tokio_postgres::NoTls).await.expect("connected");
    tokio::spawn(connection);
    client.batch_execute("begin; lock table agent_session in access exclusive mode").await.expect("locked");
    let batch = [alice.open()];
    let given_up = tokio::time::timeout(Duration::from_millis(100), store.open(lease, &batch)).await;
    assert!(given_up.is_err(), "it waits for the lock");
    let close = [alice.close(LeftReason::Lost)];
    let closing = async {
        let deadline = Instant::now() + LEASE;
        loop {
            match store.close(lease, &close).await {
                Ok(closed) => return closed,
                Err(error) => assert!(Instant::now() < deadline, "{error}"),
            }
        }
    };
    let (closed, ()) = tokio::join!(closing, async {
        client.batch_execute("rollback").await.expect("released");
    });
    assert_eq!(pooled.sql("select count(*) from agent_session"), "1", "{closed:?}");
}
