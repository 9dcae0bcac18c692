//! Which seeds run, on which servers, and with which mishaps.

use std::path::PathBuf;

use clap::Args;

use super::faults::{self, Mishap};

/// The options of a run.
#[derive(Args)]
pub(crate) struct Options {
    /// The gateway to break; it must be a debug build, because a release build has no failpoints
    #[arg(long, default_value = "target/debug/rollcall")]
    pub(super) gateway: PathBuf,
    /// How many seeds to run
    #[arg(long, default_value_t = 50)]
    pub(super) seeds: u64,
    /// The first seed
    #[arg(long, default_value_t = 1)]
    pub(super) first: u64,
    /// Run this seed only
    #[arg(long, conflicts_with_all = ["seeds", "first"])]
    pub(super) seed: Option<u64>,
    /// Use all mishaps, also those under which some ledgers do not balance yet
    #[arg(long)]
    all_mishaps: bool,
    /// Use this mishap in every seed with servers
    #[arg(long, conflicts_with = "all_mishaps", value_parser = faults::named)]
    #[arg(default_value_if("standby", "true", "postgres put back"))]
    mishap: Option<&'static [Mishap]>,
    /// Keep the keys in a Redis Cluster, whose masters fail over
    #[arg(long)]
    pub(super) redis_cluster: bool,
    /// Let nodes reach PostgreSQL through a pgbouncer in transaction mode
    #[arg(long)]
    pub(super) pooler: bool,
    /// Let PostgreSQL speak only TLS and have a synchronous standby, which is promoted in every seed with servers
    #[arg(long, conflicts_with_all = ["all_mishaps", "pooler"])]
    pub(super) standby: bool,
    /// End with the first seed that fails
    #[arg(long)]
    pub(super) until_failure: bool,
    /// How many clusters run at once
    #[arg(long, default_value_t = 2)]
    pub(super) clusters: usize,
}

impl Options {
    /// Returns the mishaps that seeds use.
    pub(super) fn mishaps(&self) -> &'static [Mishap] {
        self.mishap.unwrap_or_else(|| faults::mishaps(self.all_mishaps))
    }

    /// Returns the arguments with which a seed is run again.
    pub(super) fn of_seed(&self, seed: u64) -> String {
        let mishaps = match self.mishap {
            Some(mishap) => format!(" --mishap '{}'", mishap[0].0),
            None if self.all_mishaps => " --all-mishaps".to_owned(),
            None => String::new(),
        };
        let keys = if self.redis_cluster { " --redis-cluster" } else { "" };
        let pooler = if self.pooler { " --pooler" } else { "" };
        let standby = if self.standby { " --standby" } else { "" };
        format!("--gateway {} --seed {seed}{mishaps}{keys}{pooler}{standby}", self.gateway.display())
    }
}
