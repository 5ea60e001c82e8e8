//! A PostgreSQL server of a test's own, to be stopped, stalled and brought back from a copy; and a line to it that breaks.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::process::Command;
use tokio::task::AbortHandle;

use crate::certificates::Identity;
use crate::eventually::eventually;
use crate::network::{free_port, is_listening};
use crate::process::Process;

/// How long a stop may take.
const PATIENCE: Duration = Duration::from_secs(30);

/// A server with an empty database, `postgres`, whose role `gantry` may do everything.
#[derive(Debug)]
pub struct Postgres {
    // Dropped after the process is killed.
    process: Option<Process>,
    folder: TempDir,
    port: u16,
    settings: Vec<String>,
}

impl Postgres {
    /// Makes and starts one; `None`, said loudly, on a machine without PostgreSQL.
    pub async fn start(test: &str) -> Option<Self> {
        let server = Self::prepare(test).await?;
        Some(server.up().await)
    }

    /// The same, with TLS alone, as this identity, and with this password.
    pub async fn start_with_tls(test: &str, identity: &Identity, password: &str) -> Option<Self> {
        let mut server = Self::prepare(test).await?;
        for (file, name) in [(&identity.certificate, "server.crt"), (&identity.key, "server.key")] {
            let to = server.data().join(name);
            fs::copy(file, &to).expect("a certificate can be copied");
            fs::set_permissions(&to, fs::Permissions::from_mode(0o600)).expect("modes can be set");
        }
        server.give_to_its_user().await;
        server.settings = vec!["ssl=on".to_owned()];
        let mut server = server.up().await;
        let file = server.data().join("pg_hba.conf");
        let change = format!("ALTER ROLE gantry PASSWORD '{password}'");
        run(Command::new(bin().join("psql"))
            .args(["-q", "-h", "127.0.0.1", "-U", "gantry", "-c"])
            .arg(change)
            .arg("-p")
            .arg(server.port.to_string())
            .arg("postgres"))
        .await;
        server.stop().await;
        fs::write(file, "hostssl all all 127.0.0.1/32 scram-sha-256\n").expect("a file is written");
        Some(server.up().await)
    }

    async fn prepare(test: &str) -> Option<Self> {
        if !bin().join("initdb").is_file() {
            crate::skip(test, "PostgreSQL is not installed");
            return None;
        }
        let folder = tempfile::tempdir().expect("a folder for a database");
        let server = Self { process: None, folder, port: free_port(), settings: Vec::new() };
        server.give_to_its_user().await;
        server.make_empty().await;
        Some(server)
    }

    async fn up(mut self) -> Self {
        self.run().await;
        self
    }

    /// Starts it, on the port that it has always had.
    pub async fn run(&mut self) {
        assert!(self.process.is_none(), "the database runs already");
        let mut command = as_its_user(&bin().join("postgres"));
        command.arg("-D").arg(self.data()).arg("-p").arg(self.port.to_string());
        let folder = format!("unix_socket_directories={}", self.folder.path().display());
        // It is never the machine that loses power here.
        let settings = ["listen_addresses=127.0.0.1", "fsync=off", "full_page_writes=off", &folder];
        for setting in settings.into_iter().chain(self.settings.iter().map(String::as_str)) {
            command.arg("-c").arg(setting);
        }
        // Beside the data, which its user owns: the log is this process's.
        let log = self.folder.path().join("log");
        self.process = Some(Process::start("postgres", &mut command, &log, false));
        let port = self.port.to_string();
        eventually("the database to answer", async || {
            let mut ask = Command::new(bin().join("pg_isready"));
            let asked = ask.args(["-q", "-h", "127.0.0.1", "-p", &port]).status().await;
            asked.expect("pg_isready runs").success().then_some(())
        })
        .await;
    }

    /// As `pg_ctl stop -m immediate`: what it was doing is undone at the next start.
    pub async fn stop(&mut self) {
        let mut process = self.process.take().expect("the database runs");
        process.signal(Signal::QUIT);
        process.ended(PATIENCE).await;
        assert!(!is_listening(self.port));
    }

    /// It stays there and answers nobody, as on a disk that hangs.
    pub fn pause(&self) {
        self.signal_all(Signal::STOP);
    }

    /// It goes on.
    pub fn resume(&self) {
        self.signal_all(Signal::CONT);
    }

    /// To the server and to each of its sessions, which are groups of their own.
    fn signal_all(&self, signal: Signal) {
        let id = self.process.as_ref().and_then(Process::id).expect("the database runs");
        let parent = format!(" {id} ");
        let mut processes = vec![id.to_string()];
        for entry in fs::read_dir("/proc").expect("processes can be listed").flatten() {
            let name = entry.file_name().to_string_lossy().into_owned();
            let Ok(stat) = fs::read_to_string(entry.path().join("stat")) else { continue };
            // After the name in parentheses: the state, and the parent.
            let after = stat.rsplit(')').next().unwrap_or_default();
            if after.get(2..).is_some_and(|rest| rest.starts_with(&parent)) {
                processes.push(name);
            }
        }
        for process in processes {
            let pid = process.parse().ok().and_then(Pid::from_raw).expect("a process has a number");
            let _ = kill_process(pid, signal);
        }
    }

    /// A copy of all it holds, as a backup would be; it must not run.
    pub async fn copy(&self) -> TempDir {
        assert!(self.process.is_none(), "the database runs");
        let copy = tempfile::tempdir().expect("a folder for a copy");
        run(Command::new("cp").arg("-a").arg(self.data()).arg(copy.path().join("data"))).await;
        copy
    }

    /// Puts a copy in the place of what it holds; it must not run.
    pub async fn bring_back(&self, copy: &TempDir) {
        assert!(self.process.is_none(), "the database runs");
        fs::remove_dir_all(self.data()).expect("the data can be removed");
        run(Command::new("cp").arg("-a").arg(copy.path().join("data")).arg(self.data())).await;
    }

    /// Loses everything; it must not run.
    pub async fn make_empty(&self) {
        assert!(self.process.is_none(), "the database runs");
        let _ = fs::remove_dir_all(self.data());
        let mut command = as_its_user(&bin().join("initdb"));
        command.arg("--pgdata").arg(self.data());
        command.args(["--username=gantry", "--auth=trust", "--encoding=UTF8", "--locale=C"]);
        run(command.arg("--no-sync")).await;
    }

    async fn give_to_its_user(&self) {
        if rustix::process::getuid().is_root() {
            run(Command::new("chown").args(["-R", "postgres:postgres"]).arg(self.folder.path()))
                .await;
        }
    }

    fn data(&self) -> PathBuf {
        self.folder.path().join("data")
    }

    /// Where it listens.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// As `[database]` names it.
    pub fn url(&self) -> String {
        url(self.port)
    }
}

impl Drop for Postgres {
    fn drop(&mut self) {
        // One that is stopped does not see its server die.
        if self.process.is_some() {
            self.resume();
        }
    }
}

fn url(port: u16) -> String {
    format!("postgres://gantry@127.0.0.1:{port}/postgres")
}

/// Where Debian has its programs: the latest version's.
fn bin() -> PathBuf {
    let versions = fs::read_dir("/usr/lib/postgresql").into_iter().flatten().flatten();
    let latest = versions
        .max_by_key(|entry| entry.file_name().to_string_lossy().parse::<u32>().unwrap_or_default());
    latest.map_or_else(PathBuf::new, |entry| entry.path().join("bin"))
}

/// Root may not run it; and it ends with the test.
fn as_its_user(program: &Path) -> Command {
    let mut command = Command::new("setpriv");
    if rustix::process::getuid().is_root() {
        command.args(["--reuid=postgres", "--regid=postgres", "--clear-groups"]);
    }
    command.args(["--pdeathsig", "KILL", "--"]).arg(program).current_dir("/");
    command
}

async fn run(command: &mut Command) {
    let done = command.output().await.expect("a program runs");
    assert!(done.status.success(), "{command:?}: {}", String::from_utf8_lossy(&done.stderr));
}

/// A line to a server, which breaks now and then at the worst moment: when a commit goes over it.
#[derive(Debug)]
pub struct BreakingLine {
    port: u16,
    breaks: Arc<AtomicBool>,
    cut: Arc<AtomicU32>,
    task: AbortHandle,
}

impl BreakingLine {
    /// A line that holds, so far.
    pub async fn to(port: u16) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port is free");
        let own = listener.local_addr().expect("a listener has an address").port();
        let (breaks, cut) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU32::new(0)));
        let (shared, count) = (breaks.clone(), cut.clone());
        let task = tokio::spawn(async move {
            let commits = Arc::new(AtomicU32::new(0));
            while let Ok((client, _)) = listener.accept().await {
                if let Ok(server) = TcpStream::connect(("127.0.0.1", port)).await {
                    let (breaks, cut) = (shared.clone(), count.clone());
                    tokio::spawn(carry(client, server, breaks, commits.clone(), cut));
                }
            }
        });
        Self { port: own, breaks, cut, task: task.abort_handle() }
    }

    /// From now on it breaks in every third commit: in turn before the server has seen it, and before its answer is seen.
    pub fn breaks(&self, breaks: bool) {
        self.breaks.store(breaks, Ordering::SeqCst);
    }

    /// How often it broke.
    pub fn broke(&self) -> u32 {
        self.cut.load(Ordering::SeqCst)
    }

    /// The server behind it, as `[database]` names it.
    pub fn url(&self) -> String {
        url(self.port)
    }
}

impl Drop for BreakingLine {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn carry(
    mut client: TcpStream,
    mut server: TcpStream,
    breaks: Arc<AtomicBool>,
    commits: Arc<AtomicU32>,
    cut: Arc<AtomicU32>,
) {
    let (mut up, mut down) = (vec![0; 1 << 16], vec![0; 1 << 16]);
    loop {
        tokio::select! {
            read = client.read(&mut up) => {
                let Ok(length @ 1..) = read else { return };
                let commits_now = up[..length].windows(7).any(|bytes| bytes == b"COMMIT\0");
                if commits_now && breaks.load(Ordering::SeqCst) {
                    let number = commits.fetch_add(1, Ordering::SeqCst);
                    if number % 3 == 2 {
                        cut.fetch_add(1, Ordering::SeqCst);
                        if number.is_multiple_of(2) {
                            let _ = server.write_all(&up[..length]).await;
                            let _ = server.read(&mut down).await;
                        }
                        return;
                    }
                }
                if server.write_all(&up[..length]).await.is_err() { return }
            }
            read = server.read(&mut down) => {
                let Ok(length @ 1..) = read else { return };
                if client.write_all(&down[..length]).await.is_err() { return }
            }
        }
    }
}
