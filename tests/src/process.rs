//! A child process with its log, killed with its own children when it is dropped.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process_group};
use tokio::process::{Child, ChildStdout, Command};

/// How much of a log is shown when a test fails.
const TAIL: usize = 60;

/// A command for [`Process::start`]: should the test itself be killed, its drop does not run, and the kernel kills the
/// child instead (setpriv is in every Debian).
pub fn leashed(program: impl AsRef<OsStr>) -> Command {
    let mut command = Command::new("setpriv");
    command.args(["--pdeathsig", "KILL", "--"]).arg(program);
    command
}

/// A child process.
#[derive(Debug)]
pub struct Process {
    name: String,
    child: Child,
    log: PathBuf,
}

impl Process {
    /// Starts a program. What it says on standard error, and on standard output unless that is piped to the test, is
    /// appended to the file `log`.
    pub fn start(name: &str, command: &mut Command, log: &Path, pipe_stdout: bool) -> Self {
        let file = std::fs::OpenOptions::new()
            .create(true)
            .append(true)
            .open(log)
            .expect("a log file can be opened");
        let stdout = if pipe_stdout {
            Stdio::piped()
        } else {
            file.try_clone().expect("a file has two handles").into()
        };
        command.stdin(Stdio::null()).stdout(stdout).stderr(file);
        // A group of its own, so that what it forks ends with it.
        let child = command.process_group(0).spawn();
        let child = child.unwrap_or_else(|error| panic!("{name} does not start: {error}"));
        Self { name: name.to_owned(), child, log: log.to_owned() }
    }

    /// Its standard output, if piped and not taken before.
    pub fn take_stdout(&mut self) -> Option<ChildStdout> {
        self.child.stdout.take()
    }

    /// Its id, while it has not been waited for.
    pub fn id(&self) -> Option<u32> {
        self.child.id()
    }

    /// Sends a signal, to its children too; to a process that has ended, nothing.
    pub fn signal(&self, signal: Signal) {
        let pid = self.child.id().and_then(|id| Pid::from_raw(id.cast_signed()));
        if let Some(pid) = pid {
            let _ = kill_process_group(pid, signal);
        }
    }

    /// Kills it, as a power cut would as far as the process is concerned, and waits until it is gone.
    pub async fn kill(&mut self) {
        self.signal(Signal::KILL);
        self.child.wait().await.expect("a child can be waited for");
    }

    /// Waits until it ends.
    pub async fn ended(&mut self, within: Duration) -> ExitStatus {
        match tokio::time::timeout(within, self.child.wait()).await {
            Ok(status) => status.expect("a child can be waited for"),
            Err(late) => panic!("{} did not end within {within:?}: {late}", self.name),
        }
    }

    /// How it ended; `None` while it runs.
    pub fn exit_status(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().expect("a child can be asked")
    }

    /// All that it has said.
    pub fn log(&self) -> String {
        String::from_utf8_lossy(&std::fs::read(&self.log).unwrap_or_default()).into_owned()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let running = matches!(self.child.try_wait(), Ok(None));
        if running {
            self.signal(Signal::KILL);
            // Its folder goes next, so it must be gone; a killed process is within milliseconds.
            let begun = Instant::now();
            while matches!(self.child.try_wait(), Ok(None))
                && begun.elapsed() < Duration::from_secs(5)
            {
                std::thread::sleep(Duration::from_millis(1));
            }
        }
        if std::thread::panicking() {
            let log = self.log();
            let lines: Vec<_> = log.lines().collect();
            let tail = lines
                .iter()
                .skip(lines.len().saturating_sub(TAIL))
                .map(|line| format!("  {line}\n"));
            eprintln!(
                "--- {} ({}), the end of its log:\n{}",
                self.name,
                if running { "was running" } else { "had ended" },
                tail.collect::<String>()
            );
        }
    }
}
