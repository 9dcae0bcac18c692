//! Runs a script of `loadtest/browser`, which drives Chromium. The script asks the test for what it cannot do itself,
//! one named step at a time.

use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Command, Stdio};

/// Runs a script with these settings. `step` does what the script asks for. The script's pictures go to
/// `target/tmp/pictures`.
pub(crate) async fn in_browser(script: &str, settings: &[(&str, String)], mut step: impl AsyncFnMut(&str)) {
    let repository = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let pictures = Path::new(env!("CARGO_TARGET_TMPDIR")).join("pictures");
    let mut child = Command::new("node")
        .arg(repository.join("loadtest/browser").join(script))
        .envs(settings.iter().map(|(name, value)| (name, value)))
        .env("PICTURES", pictures)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("node runs; it comes with Debian's package npm (make setup installs it)");
    let (mut answers, mut lines) = (child.stdin.take().unwrap(), BufReader::new(child.stdout.take().unwrap()).lines());
    loop {
        let line;
        (line, lines) = tokio::task::spawn_blocking(move || (lines.next(), lines)).await.unwrap();
        let Some(line) = line else { break };
        let line = line.unwrap();
        match line.strip_prefix("step ") {
            Some(name) => {
                step(name).await;
                writeln!(answers, "done").unwrap();
            }
            None => println!("{script}: {line}"),
        }
    }
    let status = tokio::task::spawn_blocking(move || child.wait()).await.unwrap().unwrap();
    assert!(status.success(), "{script} ends with {status}; what it says is above");
}
