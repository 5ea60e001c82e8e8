//! Peers that are written in Python. `tests/run` sets them aside: pynetdicom brings commands of DCMTK's names.

use std::path::Path;

use tokio::process::Command;

/// A script, with these peers in its reach; its arguments follow.
pub fn python(script: &str) -> Command {
    let repository = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let target = std::env::var("CARGO_TARGET_DIR").unwrap_or_else(|_| "target".to_owned());
    let mut command = Command::new("python3");
    command.args(["-c", script]).env("PYTHONPATH", repository.join(target).join("python"));
    command
}
