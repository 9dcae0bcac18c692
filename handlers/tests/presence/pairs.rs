//! Pairs that enter at once on three nodes: list and pushes together give every client a whole view (PROTOCOL 2).

use rollcall_loadtest::race::{self, Race};
use rollcall_loadtest::{Gateway, GatewayOptions};

use crate::common::Servers;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn agents_that_enter_at_once_see_each_other() {
    let Servers { postgres, redis, nats, .. } = Servers::shared();
    let options = GatewayOptions::new(env!("CARGO_BIN_EXE_rollcall"))
        .env("DATABASE_URL", &postgres)
        .env("REDIS_URL", redis)
        .env("NATS_URL", nats);
    let nodes: Vec<Gateway> = (0..3).map(|_| Gateway::start(options.clone()).unwrap()).collect();
    let found = race::run(&nodes, &postgres, Race { pairs: 120, at_once: 60 }).await.unwrap();
    assert!(found.views > 0 && found.wrong.is_empty(), "{found}: {}", found.wrong.join("\n"));
}
