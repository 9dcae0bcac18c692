//! Tables in a schema of their own (`ROLLCALL_SCHEMA`), beside other tables.
use rollcall_store::{
    Schema, Sessions,
    postgres::{PostgresOptions, PostgresStore},
};

use crate::world::{LEASE, Member, World, classroom, register};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tables_are_made_and_used_in_the_schema_of_the_settings() {
    let world = World::postgres().await;
    let store = |schema: &str| {
        let schema = Some(schema.parse().expect("a name"));
        PostgresStore::connect(&PostgresOptions { schema, ..PostgresOptions::new(world.url()) }).expect("a URL")
    };
    let [east, west] = ["east", "west"].map(store);
    assert_eq!(east.missing_migrations().await.expect("answered"), ["0001_presence"]);
    east.migrate().await.expect("migrated");
    east.migrate().await.expect("it is there");
    // A role that may not make a schema uses an existing one.
    world.sql("create schema west");
    west.migrate().await.expect("migrated");
    let [there, _] = [register(&east, LEASE).await, register(&west, LEASE).await];
    east.open(there, &[Member::new(classroom(), "web.alice").open()]).await.expect("opened");
    let sessions =
        ["east", "west", "public"].map(|schema| world.sql(&format!("select count(*) from {schema}.agent_session")));
    assert_eq!(sessions, ["1", "0", "0"]);
    assert_ne!(east.installation().await.expect("an id"), west.installation().await.expect("an id"));
}
