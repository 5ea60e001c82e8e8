//! Starts a real S3 server for tests, says where on standard output (or why not), and ends with its standard input.

use std::io::{Read as _, Write as _};

use gantry_tests::ceph::Ceph;

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let ceph = Ceph::start().await;
    let said = match &ceph {
        Ok(ceph) => ceph.url(),
        // In one line, as it is read as one.
        Err(why) => why.replace('\n', " "),
    };
    writeln!(std::io::stdout(), "{said}")?;
    if ceph.is_ok() {
        // Signals are left to those who sent them; whoever started this closes the pipe, also by dying.
        let wait = tokio::task::spawn_blocking(|| std::io::stdin().read_to_end(&mut Vec::new()));
        wait.await??;
    }
    drop(ceph);
    Ok(())
}
