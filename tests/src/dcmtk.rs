//! DCMTK's programs as peers: what most of the world's small tools are made of.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Output;
use std::sync::Arc;

use rustix::process::Signal;
use sample_studies::Study;
use tempfile::TempDir;
use tokio::process::Command;

use crate::certificates::{Certificates, Identity};
use crate::digest;
use crate::eventually::eventually;
use crate::namespace::Namespace;
use crate::network::{free_port, is_listening};
use crate::part10::Part10;
use crate::process::{Process, leashed};

/// Makes peers.
#[derive(Clone, Copy, Debug)]
pub struct Dcmtk;

impl Dcmtk {
    /// A receiver that keeps every byte as it came, on a port that stays its own over restarts, and serves any number of
    /// associations.
    pub fn storescp(ae_title: &str) -> Storescp {
        let receiver = Self::storescp_as_it_comes(ae_title).options(&["+B", "+xa", "-pm"]);
        Storescp { fork: true, level: "-v", ..receiver }
    }

    /// A receiver without options: it takes each data set apart, serves one association at a time, and says nothing.
    pub fn storescp_as_it_comes(ae_title: &str) -> Storescp {
        Storescp {
            ae_title: ae_title.to_owned(),
            port: free_port(),
            folder: tempfile::tempdir().expect("a folder for a receiver"),
            arguments: Vec::new(),
            fork: false,
            level: "-q",
            namespace: None,
            process: None,
        }
    }

    /// A sender of a study's files.
    pub fn storescu(study: &Study) -> Scu {
        let folder = tempfile::tempdir().expect("a folder for a study");
        study.write_to(folder.path()).expect("a study can be written");
        let files = vec!["+sd".into(), folder.path().join(&study.name).into()];
        Scu { _folder: Some(folder), ..Scu::new("storescu", files) }
    }

    /// A sender of files that are there.
    pub fn storescu_files(files: &[PathBuf]) -> Scu {
        Scu::new("storescu", files.iter().map(OsString::from).collect())
    }

    /// A query client; keys as `-k` takes them, answers as files in a folder.
    pub fn findscu(keys: &[&str], answers: &Path) -> Scu {
        Scu::new("findscu", Vec::new()).keys(keys).options(&["-X", "-od"]).folder(answers)
    }

    /// A client of C-MOVE, to whoever it names.
    pub fn movescu(keys: &[&str], destination: &str) -> Scu {
        Scu::new("movescu", Vec::new()).keys(keys).options(&["-aem", destination])
    }

    /// A client of C-GET, which writes what it gets into a folder, as it came.
    pub fn getscu(keys: &[&str], folder: &Path) -> Scu {
        Scu::new("getscu", Vec::new()).keys(keys).options(&["-B", "-od"]).folder(folder)
    }

    /// A C-ECHO.
    pub fn echoscu() -> Scu {
        Scu::new("echoscu", Vec::new())
    }
}

/// A program that asks for one association.
#[derive(Debug)]
#[must_use = "it calls nobody until it is told where to send"]
pub struct Scu {
    program: &'static str,
    calling: String,
    called: String,
    options: Vec<OsString>,
    files: Vec<OsString>,
    // The files to send live as long as this.
    _folder: Option<TempDir>,
}

impl Scu {
    fn new(program: &'static str, files: Vec<OsString>) -> Self {
        let (calling, called) = ("PACS".to_owned(), "GANTRY".to_owned());
        Self { program, calling, called, options: Vec::new(), files, _folder: None }
    }

    /// What it calls itself; PACS unless said otherwise.
    pub fn calling(mut self, ae_title: &str) -> Self {
        ae_title.clone_into(&mut self.calling);
        self
    }

    /// What it calls; GANTRY unless said otherwise.
    pub fn called(mut self, ae_title: &str) -> Self {
        ae_title.clone_into(&mut self.called);
        self
    }

    /// Over TLS: with a certificate, or as a client that has none.
    pub fn tls(mut self, certificates: &Certificates, identity: Option<&Identity>) -> Self {
        match identity {
            Some(identity) => {
                self.options.extend([
                    "+tls".into(),
                    identity.key.clone().into(),
                    identity.certificate.clone().into(),
                ]);
            }
            None => self.options.push("+tla".into()),
        }
        self.options.extend(["+cf".into(), certificates.authority().into()]);
        self
    }

    fn keys(mut self, keys: &[&str]) -> Self {
        self.options.extend(keys.iter().flat_map(|key| ["-k".into(), OsString::from(key)]));
        self
    }

    fn folder(mut self, folder: &Path) -> Self {
        self.options.push(folder.into());
        self
    }

    /// With further options.
    pub fn options(mut self, options: &[&str]) -> Self {
        self.options.extend(options.iter().map(OsString::from));
        self
    }

    /// Calls, and waits for the end.
    pub async fn send_to(&self, address: SocketAddr) -> Sent {
        let mut command = Command::new(self.program);
        // Without it DCMTK holds back half of each message for 40 ms.
        command.env("TCP_NODELAY", "1");
        command
            .args(["-v", "-aet", &self.calling, "-aec", &self.called, "-to", "30", "-td", "60"])
            .args(&self.options);
        command.arg(address.ip().to_string()).arg(address.port().to_string()).args(&self.files);
        let output = command.kill_on_drop(true).output().await;
        Sent(output.unwrap_or_else(|error| {
            panic!("{} does not start: {error}; tests/run installs it", self.program)
        }))
    }
}

/// How it went.
#[derive(Debug)]
pub struct Sent(Output);

impl Sent {
    /// What the program said.
    pub fn said(&self) -> String {
        String::from_utf8_lossy(&[&self.0.stdout[..], &self.0.stderr[..]].concat()).into_owned()
    }

    /// The names of the files that storescu saw answered 0000H.
    pub fn acknowledged(&self) -> Vec<String> {
        let said = self.said();
        let mut sending = None;
        let mut acknowledged = Vec::new();
        for line in said.lines() {
            if let Some((_, path)) = line.split_once("Sending file: ") {
                sending = path.rsplit('/').next().map(|name| name.trim().to_owned());
            } else if line.contains("Received Store Response (Success)") {
                acknowledged.extend(sending.take());
            }
        }
        acknowledged
    }

    /// Whether everything was accepted.
    pub fn is_success(&self) -> bool {
        self.0.status.success()
    }

    /// Fails the test unless everything was accepted.
    pub fn expect_success(self) {
        assert!(self.is_success(), "DCMTK was not served:\n{}", self.said());
    }

    /// Fails the test if it was served, or was refused in other words.
    pub fn expect_refusal(self, words: &str) {
        assert!(!self.is_success(), "DCMTK was served and should not have been:\n{}", self.said());
        assert!(
            self.said().contains(words),
            "DCMTK was refused, but not with {words:?}:\n{}",
            self.said()
        );
    }
}

/// A receiver; not running until it is started.
#[derive(Debug)]
#[must_use = "it ends when it is dropped"]
pub struct Storescp {
    ae_title: String,
    port: u16,
    // Dropped before its folder.
    process: Option<Process>,
    folder: TempDir,
    arguments: Vec<OsString>,
    fork: bool,
    level: &'static str,
    namespace: Option<Arc<Namespace>>,
}

impl Storescp {
    /// In a network of its own.
    pub fn inside(mut self, namespace: &Arc<Namespace>) -> Self {
        self.namespace = Some(namespace.clone());
        self
    }

    /// Over TLS, and only for peers with a certificate of this authority.
    pub fn tls(mut self, certificates: &Certificates, identity: &Identity) -> Self {
        self.arguments.extend([
            "+tls".into(),
            identity.key.clone().into(),
            identity.certificate.clone().into(),
        ]);
        self.arguments.extend(["+cf".into(), certificates.authority().into()]);
        self
    }

    /// One that serves one association at a time, and lets the next wait, as many small receivers do.
    pub fn one_association_at_a_time(mut self) -> Self {
        self.fork = false;
        self
    }

    /// One whose log tells which instances came in which order.
    pub fn remembering_the_order(mut self) -> Self {
        self.level = "-d";
        self
    }

    /// With further options.
    pub fn options(mut self, options: &[&str]) -> Self {
        self.arguments.extend(options.iter().map(OsString::from));
        self
    }

    /// Started.
    pub async fn start(mut self) -> Self {
        self.run().await;
        self
    }

    /// Starts, with what it received before.
    pub async fn run(&mut self) {
        assert!(self.process.is_none(), "{} runs already", self.ae_title);
        std::fs::create_dir_all(self.received_folder()).expect("a folder for what is received");
        let mut command = match &self.namespace {
            None => leashed("storescp"),
            Some(namespace) => {
                let mut command = leashed("ip");
                command.args(["netns", "exec", namespace.name(), "storescp"]);
                command
            }
        };
        command.env("TCP_NODELAY", "1");
        command.args([self.level, "-aet", &self.ae_title, "-od"]).arg(self.received_folder());
        if self.fork {
            command.arg("--fork");
        }
        command.args(&self.arguments).arg(self.port.to_string());
        let log = self.folder.path().join("log");
        let mut process =
            Process::start(&format!("storescp {}", self.ae_title), &mut command, &log, false);
        eventually("storescp to listen", async || {
            let ended = process.exit_status();
            assert!(ended.is_none(), "storescp ended at once: {}", process.log());
            self.is_listening().then_some(())
        })
        .await;
        self.process = Some(process);
    }

    /// Ends it, as a partner that is switched off.
    pub async fn switch_off(&mut self) {
        self.process.take().expect("the receiver runs").kill().await;
        // Its forks hold the port too, and the next start would take it for listening.
        eventually("the forks to have ended", async || (!self.is_listening()).then_some(())).await;
    }

    fn is_listening(&self) -> bool {
        match &self.namespace {
            None => is_listening(self.port),
            Some(namespace) => namespace.is_listening(self.port),
        }
    }

    /// Stops it where it is: connections stay and nothing is answered.
    pub fn pause(&self) {
        self.process.as_ref().expect("the receiver runs").signal(Signal::STOP);
    }

    /// Lets it go on.
    pub fn resume(&self) {
        self.process.as_ref().expect("the receiver runs").signal(Signal::CONT);
    }

    /// What it calls itself.
    pub fn ae_title(&self) -> &str {
        &self.ae_title
    }

    /// Where it listens.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        match &self.namespace {
            None => SocketAddr::from(([127, 0, 0, 1], self.port)),
            Some(namespace) => namespace.at(self.port),
        }
    }

    /// What it has said, over all its starts.
    pub fn log(&self) -> String {
        String::from_utf8_lossy(&std::fs::read(self.folder.path().join("log")).unwrap_or_default())
            .into_owned()
    }

    /// The SOP Instance UIDs that it was sent, in order, repeats too; of one that remembers the order.
    pub fn order_of_arrival(&self) -> Vec<String> {
        // "D: Affected SOP Instance UID     : 1.2.3" in the request, and once more in the response.
        let log = self.log();
        let mut request = false;
        let mut order = Vec::new();
        for line in log.lines() {
            if let Some((_, kind)) = line.split_once("Message Type") {
                request = kind.contains("C-STORE RQ");
            } else if request && let Some((_, uid)) = line.split_once("Affected SOP Instance UID") {
                order.push(uid.trim_start_matches([' ', ':']).trim_end().to_owned());
            }
        }
        order
    }

    /// How many files it has, whole or not.
    pub fn count(&self) -> usize {
        std::fs::read_dir(self.received_folder()).map_or(0, Iterator::count)
    }

    /// The digest of every data set that it holds, by SOP Instance UID; `None` while a file is not whole.
    pub fn try_holds(&self) -> Option<BTreeMap<String, String>> {
        let files = std::fs::read_dir(self.received_folder()).ok()?;
        files
            .map(|file| {
                let file = Part10::read(&file.ok()?.path()).ok()?;
                Some((file.sop_instance_uid, digest(&file.data_set)))
            })
            .collect()
    }

    /// The same, when nothing is on its way.
    pub fn holds(&self) -> BTreeMap<String, String> {
        self.try_holds().expect("what was received reads")
    }

    /// Waits until it holds exactly these.
    pub async fn comes_to_hold(&self, expected: &BTreeMap<String, String>) {
        let what = format!("{} instances at {}", expected.len(), self.ae_title);
        eventually(&what, async || {
            let enough = self.count() >= expected.len();
            (enough && self.try_holds().as_ref() == Some(expected)).then_some(())
        })
        .await;
    }

    fn received_folder(&self) -> PathBuf {
        self.folder.path().join("received")
    }

    /// Forgets what it received.
    pub fn forget(&self) {
        let folder = self.received_folder();
        std::fs::remove_dir_all(&folder)
            .and_then(|()| std::fs::create_dir_all(&folder))
            .expect("it can be emptied");
    }

    /// Its folder of received files, for programs that look at them.
    pub fn received(&self) -> impl AsRef<Path> {
        self.received_folder()
    }
}
