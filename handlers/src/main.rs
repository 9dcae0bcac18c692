//! The gateway's binary: the runtime with this crate's table of handlers.
use std::process::ExitCode;

use mimalloc::MiMalloc;

/// A join takes a tenth less of the gateway's processor time with it than with the allocator of glibc, and memory is freed
/// as well.
#[global_allocator]
static ALLOCATOR: MiMalloc = MiMalloc;

fn main() -> ExitCode {
    rollcall_runtime::run(rollcall::table())
}
