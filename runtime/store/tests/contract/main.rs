//! The contract of every [`Store`]: each case runs against a private PostgreSQL and against an SQLite file.
mod agent_states;
mod failover;
mod history;
mod hosts;
mod hung;
mod kicks;
mod lease;
mod lesson_leaves;
mod load;
mod model;
mod nodes;
mod outbox;
mod overview;
mod pooler;
mod removals;
mod resumable;
mod roles;
mod schema_name;
mod serving;
mod sessions;
mod shards;
mod snapshots;
mod stale_fields;
mod timeline;
mod tls;
mod webhook;
mod world;

/// Makes a test of each case for each store.
macro_rules! on_both {
    ($($case:ident),* $(,)?) => {
        mod postgres {
            $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $case() {
                super::$case(crate::world::World::postgres().await).await;
            })*
        }
        mod sqlite {
            $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $case() {
                super::$case(crate::world::World::sqlite().await).await;
            })*
        }
    };
}
use on_both;
