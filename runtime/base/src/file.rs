//! Reads files that an operator names: settings, secrets, certificates, keys.
//!
//! Invariant: no read waits for another process, and no read takes more than [`MAX`] bytes of memory, whatever the path
//! leads to. A start that waits would print nothing, and a node that reads its settings again must not run out of
//! memory.
use std::{
    fs::OpenOptions,
    io::{Error, ErrorKind, Read, Result},
    os::unix::fs::{FileTypeExt, OpenOptionsExt},
    path::Path,
};

use nix::fcntl::OFlag;

/// The largest file, in bytes.
pub const MAX: u64 = 4 << 20;

/// Reads a file. This call blocks.
///
/// # Errors
/// Returns an error if the file cannot be opened or read, is a pipe, or is larger than [`MAX`]. The text says what is
/// wrong, and contains nothing of the file.
pub fn read(path: &Path) -> Result<Vec<u8>> {
    // Without the flag, opening a pipe waits until another process writes to it.
    let file = OpenOptions::new().read(true).custom_flags(OFlag::O_NONBLOCK.bits()).open(path)?;
    if file.metadata()?.file_type().is_fifo() {
        return Err(Error::new(ErrorKind::InvalidInput, "it is a pipe, which can be read only once"));
    }
    let mut bytes = Vec::new();
    file.take(MAX + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > MAX {
        return Err(Error::new(ErrorKind::InvalidData, format!("it is larger than {MAX} bytes")));
    }
    Ok(bytes)
}

/// Reads a file of UTF-8. This call blocks.
///
/// # Errors
/// Returns the errors of [`read`], and an error if the file is not UTF-8.
pub fn read_text(path: &Path) -> Result<String> {
    String::from_utf8(read(path)?).map_err(|_| Error::new(ErrorKind::InvalidData, "it is not UTF-8"))
}

#[cfg(test)]
mod tests {
    use std::fs;

    use nix::{sys::stat::Mode, unistd::mkfifo};

    use super::*;

    #[test]
    fn a_text_is_read_as_it_is() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("text");
        fs::write(&path, "größe\n").unwrap();
        assert_eq!(read_text(&path).unwrap(), "größe\n");
        fs::write(&path, "x".repeat(MAX as usize)).unwrap();
        assert_eq!(read(&path).unwrap().len() as u64, MAX);
        assert_eq!(read(Path::new("/dev/null")).unwrap(), b"", "it is a usual name for no settings");
    }

    #[test]
    fn what_would_wait_or_never_end_is_an_error() {
        let folder = tempfile::tempdir().unwrap();
        let of = |name: &str| folder.path().join(name);
        mkfifo(&of("pipe"), Mode::S_IRUSR | Mode::S_IWUSR).unwrap();
        fs::write(of("large"), "x".repeat(MAX as usize + 1)).unwrap();
        fs::write(of("binary"), b"hunter2\xff").unwrap();
        for (path, problem) in [
            (of("pipe"), "it is a pipe"),
            (of("large"), "larger than 4194304 bytes"),
            ("/dev/zero".into(), "larger than 4194304 bytes"),
            (of("binary"), "it is not UTF-8"),
            (folder.path().to_owned(), "directory"),
            (of("missing"), "No such file"),
        ] {
            let error = read_text(&path).unwrap_err().to_string();
            assert!(error.contains(problem) && !error.contains("hunter2"), "{path:?}: {error}");
        }
    }
}
