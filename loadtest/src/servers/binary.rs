//! Finds the servers' programs. If one is missing, the error names the package that has it.

use std::env;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

const POSTGRES_VERSIONS: &str = "/usr/lib/postgresql";

/// Finds the program `name`, or returns an error that names its Debian package.
pub(super) fn find(name: &str, package: &str) -> io::Result<PathBuf> {
    let path = env::var_os("PATH").unwrap_or_default();
    env::split_paths(&path)
        .chain(["/usr/sbin", "/usr/local/bin"].map(PathBuf::from))
        .map(|folder| folder.join(name))
        .find(|candidate| candidate.is_file())
        .ok_or_else(|| missing(name, package))
}

/// Returns the folder in which cargo builds, and the scripts in `loadtest/setup` install.
#[must_use]
pub fn target_folder() -> PathBuf {
    let target = env::var_os("CARGO_TARGET_DIR").map(PathBuf::from);
    target.unwrap_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join("../target"))
}

/// Finds the program `name` that a script in `loadtest/setup` has built, or returns an error that names the script.
pub(super) fn built(name: &str) -> io::Result<PathBuf> {
    let program = target_folder().join(name).join("bin").join(name);
    program.canonicalize().map_err(|_| {
        io::Error::new(io::ErrorKind::NotFound, format!("no {}: run loadtest/setup/{name}", program.display()))
    })
}

/// Returns the folder with the programs of the newest PostgreSQL. `PATH` is not searched first, because Debian's `psql`
/// there is a wrapper that takes longer to start than the server.
pub(super) fn postgres_folder() -> io::Result<PathBuf> {
    let newest = fs::read_dir(POSTGRES_VERSIONS)
        .into_iter()
        .flatten()
        .flatten()
        .map(|entry| entry.path())
        .filter(|version| version.join("bin/initdb").is_file())
        .max_by_key(|version| version_number(version));
    if let Some(version) = newest {
        return Ok(version.join("bin"));
    }
    let program = find("postgres", "postgresql")?.canonicalize()?;
    program.parent().map(Path::to_path_buf).ok_or_else(|| missing("postgres", "postgresql"))
}

fn version_number(folder: &Path) -> u32 {
    folder.file_name().and_then(|name| name.to_str()).and_then(|name| name.parse().ok()).unwrap_or(0)
}

fn missing(name: &str, package: &str) -> io::Error {
    io::Error::new(io::ErrorKind::NotFound, format!("{name} is not installed: apt-get install {package}"))
}
