//! The gateway's binary: the runtime with this crate's table of handlers.
use std::process::ExitCode;

fn main() -> ExitCode {
    rollcall_runtime::run(rollcall::table())
}
