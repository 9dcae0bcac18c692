//! The user for servers that refuse to run as root.

use std::fs;
use std::io;

/// Returns the user and group for servers that refuse to run as root, or `None` if this process does not run as root.
pub(super) fn server_user() -> io::Result<Option<(u32, u32)>> {
    if own_user() != 0 {
        return Ok(None);
    }
    let users = fs::read_to_string("/etc/passwd")?;
    let ids = |name: &str| {
        let line = users.lines().find(|line| line.split(':').next() == Some(name))?;
        let mut fields = line.split(':').skip(2);
        Some((fields.next()?.parse().ok()?, fields.next()?.parse().ok()?))
    };
    let found = ids("postgres").or_else(|| ids("nobody"));
    let found = found.ok_or_else(|| io::Error::other("no user `postgres` or `nobody`"))?;
    Ok(Some(found))
}

pub(super) fn own_user() -> u32 {
    nix::unistd::geteuid().as_raw()
}
