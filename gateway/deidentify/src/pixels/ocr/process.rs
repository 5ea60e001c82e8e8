//! A process with a limit for its time and its output.

use std::io::{Read, Write};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::thread;
use std::time::{Duration, Instant};

use super::OcrError;

/// Ends with its process, on whatever way it is left.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        // It may have ended by itself, which is no failure.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// How often to look whether a process that has closed its output has ended, which takes it microseconds.
const LOOK: Duration = Duration::from_millis(2);

/// Runs a program on an input, and returns what it says on standard output if it succeeds.
pub(super) fn run(
    program: &Path,
    arguments: &[&str],
    input: Vec<u8>,
    limit: Duration,
    max_output: u64,
) -> Result<Vec<u8>, OcrError> {
    let deadline = Instant::now() + limit;
    let child = Command::new(program)
        .args(arguments)
        // One thread: many instances are looked at side by side.
        .env("OMP_THREAD_LIMIT", "1")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()?;
    let mut running = Running(child);
    let broken = || std::io::Error::from(std::io::ErrorKind::BrokenPipe);
    let mut stdin = running.0.stdin.take().ok_or_else(broken)?;
    let stdout = running.0.stdout.take().ok_or_else(broken)?;

    // Both ends at once: a pipe holds 64 KiB. Either thread ends with the process, as its pipe does.
    thread::spawn(move || {
        // A program that does not want all of it says by its status whether it is content.
        let _ = stdin.write_all(&input);
    });
    let (send, said) = channel();
    thread::spawn(move || {
        let mut output = Vec::new();
        let read = stdout.take(max_output + 1).read_to_end(&mut output);
        // Nobody listens any more after the limit.
        let _ = send.send(read.map(|_| output));
    });
    let output = match said.recv_timeout(limit) {
        Ok(output) => output?,
        Err(RecvTimeoutError::Timeout) => return Err(OcrError::Slow(limit)),
        Err(RecvTimeoutError::Disconnected) => return Err(broken().into()),
    };
    if output.len() as u64 > max_output {
        return Err(OcrError::Verbose);
    }
    loop {
        match running.0.try_wait()? {
            Some(status) if status.success() => return Ok(output),
            Some(_) => return Err(OcrError::Failed),
            None if Instant::now() >= deadline => return Err(OcrError::Slow(limit)),
            None => thread::sleep(LOOK),
        }
    }
}
