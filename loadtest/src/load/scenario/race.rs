//! Pairs that enter at once on several nodes with servers: see [`rollcall_loadtest::race`].

use std::io;
use std::path::Path;
use std::time::Instant;

use rollcall_loadtest::race::{self, Race};

use crate::load::system::{Kind, System};

const MAX_SHOWN: usize = 20;

/// Returns whether every view was complete.
pub(crate) fn run(gateway: &Path, nodes: usize, race: Race) -> io::Result<bool> {
    let system = System::gateways(&gateway.canonicalize()?, Kind::Real, nodes, &[], &[])?;
    let System::Gateways { gateways, backends: Some(backends), .. } = &system else {
        return Err(io::Error::other("a race needs gateways with servers"));
    };
    let begun = Instant::now();
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    let found = runtime.block_on(race::run(gateways, &backends.database, race))?;
    for wrong in found.wrong.iter().take(MAX_SHOWN) {
        println!("{wrong}");
    }
    println!("{} pairs on {nodes} nodes: {found}, in {:.0?}", race.pairs, begun.elapsed());
    Ok(found.wrong.is_empty())
}
