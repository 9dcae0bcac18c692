//! The folder of everything that this process starts, and its removal.
//!
//! Invariant: after the end of this process, for any reason, no process works in the folder, and the folder is removed.
//! A small shell, the reaper, waits for the end of a pipe that only this process holds. Then it kills every process
//! whose working directory is in the folder, also stopped ones, and removes the folder. A parent death signal cannot be
//! used: it fires at the end of the thread that spawned the process, and each test is a thread. PostgreSQL's children
//! do not inherit the signal either.

use std::fs;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::{Mutex, PoisonError};

const REAPER: &str = r#"
trap '' HUP INT TERM
cat >/dev/null
for process in /proc/[0-9]*; do
    case "$(readlink "$process/cwd")" in
        "$1" | "$1"/*) kill -KILL "${process#/proc/}" ;;
    esac
done
for attempt in 1 2 3 4 5 6 7 8 9 10; do
    rm -rf "$1" && exit
    sleep 0.1
done
"#;

/// Makes a folder inside this process's folder. It is removed when it is dropped. Processes that are started must have
/// their working directory in it.
///
/// # Errors
/// Returns an error if the folder cannot be created.
pub fn private_folder(prefix: &str) -> io::Result<tempfile::TempDir> {
    let folder = tempfile::Builder::new().prefix(prefix).tempdir_in(process_folder()?)?;
    open_to_server_users(folder.path())?;
    Ok(folder)
}

fn process_folder() -> io::Result<PathBuf> {
    static FOLDER: Mutex<Option<PathBuf>> = Mutex::new(None);
    let mut folder = FOLDER.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(path) = &*folder {
        return Ok(path.clone());
    }
    let path = tempfile::Builder::new().prefix("rollcall-servers-").tempdir()?.keep().canonicalize()?;
    open_to_server_users(&path)?;
    leave_to_reaper(&path)?;
    *folder = Some(path.clone());
    Ok(path)
}

/// Lets other users pass through this folder, because PostgreSQL does not run as root.
fn open_to_server_users(path: &Path) -> io::Result<()> {
    fs::set_permissions(path, fs::Permissions::from_mode(0o755))
}

fn leave_to_reaper(path: &Path) -> io::Result<()> {
    let mut reaper = Command::new("/bin/sh")
        .args(["-c", REAPER, "reaper"])
        .arg(path)
        .current_dir("/")
        .process_group(0)
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()?;
    // The pipe is left open on purpose. The kernel closes it when this process ends, which wakes the reaper.
    std::mem::forget(reaper.stdin.take());
    Ok(())
}
