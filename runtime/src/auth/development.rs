//! The secret of a first run. It is created once and kept in a file beside the database. It is never used if the
//! gateway listens on an address that other machines can reach.
//!
//! Invariant: from the moment that the file has its name, it is complete and only its owner can read it.
use std::{
    fs,
    io::{self, Write},
    os::unix::fs::{OpenOptionsExt, PermissionsExt},
    path::Path,
};

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};

use rollcall_base::{Secret, file};

/// Reads the secret in this file, or creates it.
///
/// # Errors
/// Returns an error if the file cannot be created or read, is empty, or can be read by other users.
pub fn development_secret(path: &Path) -> io::Result<Secret> {
    match read(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            create(path)?;
            read(path)
        }
        secret => secret,
    }
}

fn read(path: &Path) -> io::Result<Secret> {
    let text = file::read_text(path)?;
    if fs::metadata(path)?.permissions().mode() & 0o077 != 0 {
        return Err(io::Error::new(
            io::ErrorKind::PermissionDenied,
            format!("others may read it; run: chmod 600 {}", path.display()),
        ));
    }
    match text.trim() {
        "" => Err(io::Error::new(io::ErrorKind::InvalidData, "it is empty; remove it, and a new one is created")),
        secret => Ok(Secret::new(secret)),
    }
}

fn create(path: &Path) -> io::Result<()> {
    let mut bytes = [0; 32];
    getrandom::fill(&mut bytes).map_err(io::Error::other)?;
    let draft = path.with_extension(format!("{}.draft", std::process::id()));
    let mut file = fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(&draft)?;
    let written = writeln!(file, "{}", URL_SAFE_NO_PAD.encode(bytes))
        .and_then(|()| file.sync_all())
        // The draft gets the real name in one step, so another process never reads half of the file. If two processes
        // create the file at the same time, both use the secret of the first.
        .and_then(|()| match fs::hard_link(&draft, path) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
            linked => linked,
        });
    fs::remove_file(&draft)?;
    written
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_secret_is_created_once_for_its_owner_alone() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("rollcall.db.secret");
        let secret = development_secret(&path).unwrap();
        assert_eq!(secret.reveal().len(), 43);
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(development_secret(&path).unwrap(), secret);
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1, "no draft is left behind");
    }

    #[test]
    fn a_secret_that_others_may_read_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("rollcall.db.secret");
        development_secret(&path).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
        assert!(development_secret(&path).unwrap_err().to_string().contains("chmod 600"));
    }
}
