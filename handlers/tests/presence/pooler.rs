//! Two nodes behind a pgbouncer in transaction mode, whose few connections to PostgreSQL they share.

use std::process::Output;

use rollcall_loadtest::servers::{Pgbouncer, PgbouncerOptions, PgbouncerVersion};
use rollcall_loadtest::{Gateway, GatewayOptions};

use super::nodes::enters_on;
use crate::common::{Backend, SOON, Servers, postgres, session_error};

/// The pooler's connections to PostgreSQL: fewer than a node has to the pooler.
const CONNECTIONS: u32 = 4;

fn said(output: &Output) -> String {
    [&output.stdout, &output.stderr].map(|bytes| String::from_utf8_lossy(bytes).into_owned()).concat()
}

#[tokio::test]
async fn two_nodes_behind_a_pooler_do_what_others_do() {
    let servers = Servers::shared();
    let options = PgbouncerOptions {
        version: PgbouncerVersion::Current,
        ..PgbouncerOptions::new(postgres().port(), CONNECTIONS)
    };
    let pgbouncer = Pgbouncer::start_with(options).unwrap();
    let (_, database) = servers.postgres.rsplit_once('/').unwrap();
    let url = format!("postgres://postgres@127.0.0.1:{}/{database}", pgbouncer.port());
    let behind = |options: GatewayOptions| options.env("DATABASE_URL", &url).env("ROLLCALL_LEASE", "3s");
    let pooled = |options: GatewayOptions| behind(options).env("ROLLCALL_POSTGRES_POOLER", true);
    let first = Backend::start(Some(servers), |options| pooled(options.clone()));
    let mut second = Gateway::start(pooled(first.beside())).unwrap();

    let checked = pooled(first.beside()).arg("check").command().current_dir(first.gateway.folder()).output().unwrap();
    assert!(checked.status.success(), "{}", said(&checked));
    let checked = behind(first.beside()).arg("check").command().current_dir(first.gateway.folder()).output().unwrap();
    assert!(
        !checked.status.success() && said(&checked).contains("ROLLCALL_POSTGRES_POOLER=true"),
        "{}",
        said(&checked)
    );

    let room = first.classroom();
    let mut witness = first.participant(room, "witness").await;
    let mut alice = first.participant(room, "alice").await;
    alice.joins(&room.algebra).await;
    first.settled(room, [&mut witness, &mut alice]).await;
    // A session moves to the other node.
    let mut moved = enters_on(&second, room, "alice").await;
    assert_eq!(moved.session, alice.session);
    session_error(&alice.client.expect_close(SOON).await.unwrap(), "replaced", 422, 3503);
    moved.joins(&room.algebra).await;
    let bob = enters_on(&second, room, "bob").await;
    witness.sees("entered", &bob.whom()).await;
    let gone = bob.leaves().await;
    witness.sees("left", &gone).await;
    second.kill().unwrap();
    witness.sees("left", &moved.whom()).await;
    let history = [format!("{}|{}|node_lost", moved.session, moved.id), format!("{}|{}|closed", gone.session, gone.id)];
    assert_eq!(first.history(room).await, history);
    first.wait_for_rows("select count(*) from outbox", &["0"]).await;
}
