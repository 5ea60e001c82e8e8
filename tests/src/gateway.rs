//! The node under test: the real program, with a configuration and data directory of its own.

use std::net::SocketAddr;
use std::os::unix::fs::DirBuilderExt as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Output};
use std::sync::Arc;
use std::time::Duration;

use gantry_store::index::Index;
use gantry_store::sealed::Keyring;
use rustix::process::Signal;
use serde_json::Value;
use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::process::Command;

use crate::certificates::{Certificates, Identity};
use crate::dcmtk::Storescp;
use crate::eventually::eventually;
use crate::http::{Answer, Ask};
use crate::process::{Process, leashed};

/// For tests on a disk that somebody else may have filled.
const WHOLE_DISK: &str = "spool-high-water = \"100%\"\nemergency-reserve = \"0B\"\n";

/// How long a start may take, and an end that drains.
const PATIENCE: Duration = Duration::from_mins(1);

/// The program, built by `tests/run` or `cargo build -p gantry-cli` beside the tests.
pub fn program() -> PathBuf {
    let test = std::env::current_exe().expect("a test knows its own program");
    let profile = test.parent().and_then(Path::parent).expect("tests lie in target/<profile>/deps");
    let program = profile.join("gantry");
    assert!(
        program.is_file(),
        "{} is missing: run tests/run, or build it with `cargo build -p gantry-cli`",
        program.display()
    );
    program
}

/// What a node is to be; every setting that is not made is the product's own, but for ports and quick retries.
#[derive(Debug)]
#[must_use = "nothing runs until it is started"]
pub struct Setup {
    certificates: Option<(Arc<Certificates>, Identity)>,
    allow: String,
    data_dir: Option<PathBuf>,
    log_level: String,
    max_associations: usize,
    intake: String,
    object_store: String,
    association: String,
    delivery: String,
    database: String,
    quiet: String,
    alarm: String,
    parties: String,
    routes: usize,
    environment: Vec<(String, String)>,
    /// Lines of `[dicomweb]`, and the tokens of those who may use it.
    dicomweb: String,
    tokens: Vec<String>,
}

impl Setup {
    /// A node with a plaintext listener on loopback and the web, that knows nobody.
    pub fn new() -> Self {
        Self {
            certificates: None,
            allow: "127.0.0.0/8".to_owned(),
            data_dir: None,
            log_level: "info".to_owned(),
            dicomweb: String::new(),
            tokens: Vec::new(),
            max_associations: 64,
            intake: format!("reserve = \"0B\"\n{WHOLE_DISK}"),
            object_store: String::new(),
            association: String::new(),
            delivery:
                "retry-floor = \"1s\"\nretry-ceiling = \"2s\"\nemergency-retry-ceiling = \"1s\"\n"
                    .to_owned(),
            database: String::new(),
            quiet: "1s".to_owned(),
            alarm: String::new(),
            parties: String::new(),
            routes: 0,
            environment: Vec::new(),
        }
    }

    /// With a listener for TLS, and an identity from these certificates.
    pub fn tls(mut self, certificates: &Arc<Certificates>) -> Self {
        let identity = certificates.issue("gantry");
        self.certificates = Some((certificates.clone(), identity));
        self
    }

    /// Who may use the plaintext listener; without it, whoever is on this machine.
    pub fn allow(mut self, network: &str) -> Self {
        network.clone_into(&mut self.allow);
        self
    }

    /// With its data in a folder that the test chose, which must outlive the node.
    pub fn data_dir(mut self, folder: &Path) -> Self {
        self.data_dir = Some(folder.to_owned());
        self
    }

    /// With this in its environment.
    pub fn environment(mut self, name: &str, value: &str) -> Self {
        self.environment.push((name.to_owned(), value.to_owned()));
        self
    }

    /// With a log of this level.
    pub fn log_level(mut self, level: &str) -> Self {
        level.clone_into(&mut self.log_level);
        self
    }

    /// With a plaintext listener that holds so many associations at once.
    pub fn max_associations(mut self, count: usize) -> Self {
        self.max_associations = count;
        self
    }

    /// With these lines in `[intake]`, instead of a reserve of nothing; where they say nothing of a high-water mark, the
    /// spool may fill its disk.
    pub fn intake(mut self, lines: &str) -> Self {
        let whole_disk = if lines.contains("spool-high-water") { "" } else { WHOLE_DISK };
        self.intake = format!("{lines}\n{whole_disk}");
        self
    }

    /// With these lines in `[object-store]`, instead of files.
    pub fn object_store(mut self, lines: &str) -> Self {
        self.object_store = format!("[object-store]\n{lines}\n");
        self
    }

    /// With these lines in `[association]`.
    pub fn association(mut self, lines: &str) -> Self {
        self.association = format!("{lines}\n");
        self
    }

    /// With these lines in `[delivery]`, instead of quick retries.
    pub fn delivery(mut self, lines: &str) -> Self {
        self.delivery = format!("{lines}\n");
        self
    }

    /// With a source asked again when nothing has come for so long, instead of a second.
    pub fn quiet(mut self, time: &str) -> Self {
        time.clone_into(&mut self.quiet);
        self
    }

    /// With its rows on a PostgreSQL server.
    pub fn database(self, url: &str) -> Self {
        self.database_with(&format!("url = \"{url}\""))
    }

    /// With these lines in `[database]`.
    pub fn database_with(mut self, lines: &str) -> Self {
        self.database = format!("[database]\n{lines}\n");
        self
    }

    /// With these lines in `[alarm]`.
    pub fn alarm(mut self, lines: &str) -> Self {
        self.alarm = format!("[alarm]\n{lines}\n");
        self
    }

    /// With DICOMweb, and these lines in its section.
    pub fn dicomweb(mut self, lines: &str) -> Self {
        self.dicomweb = format!("[dicomweb]\naddress = \"127.0.0.1:0\"\n{lines}\n");
        self
    }

    /// With a bearer token for the partner or source that was named last.
    pub fn token(mut self, token: &str) -> Self {
        self.tokens.push(token.to_owned());
        let number = self.tokens.len();
        self.party(&format!("token-file = \"token-{number}\"\n"))
    }

    /// With a source.
    pub fn source(self, name: &str, ae_title: &str) -> Self {
        self.party(&format!("[[source]]\nname = \"{name}\"\nae-title = \"{ae_title}\"\n"))
    }

    /// With a source that can be called.
    pub fn source_at(self, name: &str, ae_title: &str, port: u16) -> Self {
        self.source(name, ae_title).party(&format!("address = \"127.0.0.1:{port}\"\n"))
    }

    /// With these lines for the partner or source that was named last.
    pub fn and(self, lines: &str) -> Self {
        self.party(&format!("{lines}\n"))
    }

    /// With a source that is known by its certificate.
    pub fn source_with_certificate(self, name: &str, ae_title: &str, identity: &Identity) -> Self {
        let pin = identity.certificate.display();
        self.party(&format!(
            "[[source]]\nname = \"{name}\"\nae-title = \"{ae_title}\"\ncertificate = \"{pin}\"\n"
        ))
    }

    /// With a partner over plain TCP. What goes to it is never compressed: which bytes arrive must not depend on how busy
    /// the machine of the tests is.
    pub fn partner(self, name: &str, ae_title: &str, port: u16) -> Self {
        self.partner_compressing(name, ae_title, port, "never")
    }

    /// With a partner over plain TCP, to which is compressed as this word says.
    pub fn partner_compressing(
        self,
        name: &str,
        ae_title: &str,
        port: u16,
        compress: &str,
    ) -> Self {
        self.partner_at(name, ae_title, SocketAddr::from(([127, 0, 0, 1], port)))
            .and(&format!("compress = \"{compress}\""))
    }

    /// With a partner over plain TCP that need not be on loopback.
    pub fn partner_at(self, name: &str, ae_title: &str, address: SocketAddr) -> Self {
        self.party(&format!(
            "[[partner]]\nname = \"{name}\"\nae-title = \"{ae_title}\"\naddress = \"{address}\"\ntls = \"off\"\n"
        ))
    }

    /// With a partner over plain TCP and one association at a time, so that there is an order of sending.
    pub fn partner_in_order(self, name: &str, ae_title: &str, port: u16) -> Self {
        let partner = self.partner(name, ae_title, port);
        partner.party("associations = 1\n")
    }

    /// With a partner over mutual TLS, known by its certificate; nothing is compressed, as above.
    pub fn partner_over_tls(
        self,
        name: &str,
        ae_title: &str,
        port: u16,
        identity: &Identity,
    ) -> Self {
        let pin = identity.certificate.display();
        self.party(&format!(
            "[[partner]]\nname = \"{name}\"\nae-title = \"{ae_title}\"\naddress = \"127.0.0.1:{port}\"\ncertificate = \"{pin}\"\n\
             compress = \"never\"\n"
        ))
    }

    /// With a route for what is sent to this AE title.
    pub fn route(mut self, called: &str, to: &[&str], priority: &str) -> Self {
        self.routes += 1;
        let number = self.routes;
        let purpose = if priority == "emergency" { "emergency-transfer" } else { "direct-care" };
        self.party(&format!(
            "[[route]]\nname = \"route {number}\"\nwhen = {{ called-ae-title = \"{called}\" }}\nto = {to:?}\n\
             purpose = \"{purpose}\"\npriority = \"{priority}\"\nprotect = \"as-received\"\n"
        ))
    }

    /// With a rule that says how long images are kept.
    pub fn rule(self, lines: &str) -> Self {
        self.party(lines)
    }

    fn party(mut self, lines: &str) -> Self {
        self.parties.push_str(lines);
        self
    }

    /// Starts it, and returns when it is ready.
    pub async fn start(self) -> Gateway {
        let folder = tempfile::tempdir().expect("a folder for the node");
        let data_dir = self.data_dir.clone().unwrap_or_else(|| folder.path().join("data"));
        std::fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(&data_dir)
            .expect("the data directory can be made");
        if Keyring::open(&data_dir.join("keys")).is_err() {
            Keyring::create(&data_dir.join("keys")).expect("a key can be made");
        }
        let mut gateway = Gateway {
            setup: self,
            folder,
            data_dir,
            process: None,
            plaintext: None,
            tls: None,
            web: None,
            dicomweb: None,
        };
        gateway.start().await;
        gateway
    }

    fn toml(&self, data_dir: &Path) -> String {
        let node = format!(
            "[node]\nae-title = \"GANTRY\"\norganisation = \"TEST\"\ndata-dir = \"{}\"\n\
             [[listener]]\naddress = \"127.0.0.1:0\"\ntls = \"off\"\nallow = [\"{}\"]\n\
             max-associations = {}\n",
            data_dir.display(),
            self.allow,
            self.max_associations,
        );
        let tls = self.certificates.as_ref().map(|(certificates, identity)| {
            format!(
                "[[listener]]\naddress = \"127.0.0.1:0\"\n[tls]\ncertificate = \"{}\"\nkey = \"{}\"\n\
                 authorities = [\"{}\"]\n",
                identity.certificate.display(),
                identity.key.display(),
                certificates.authority().display()
            )
        });
        let rest = format!(
            "{}[web]\naddress = \"127.0.0.1:0\"\n[intake]\n{}[association]\n{}[delivery]\n{}\
             [completeness]\nquiet = \"{}\"\n[log]\nformat = \"json\"\nlevel = \"{}\"\n",
            self.object_store,
            self.intake,
            self.association,
            self.delivery,
            self.quiet,
            self.log_level
        );
        [
            node,
            tls.unwrap_or_default(),
            rest,
            self.database.clone(),
            self.alarm.clone(),
            self.dicomweb.clone(),
            self.parties.clone(),
        ]
        .concat()
    }
}

impl Default for Setup {
    fn default() -> Self {
        Self::new()
    }
}

/// A node, and its data when it is down.
#[derive(Debug)]
pub struct Gateway {
    setup: Setup,
    // Dropped after the process is killed.
    process: Option<Process>,
    folder: TempDir,
    data_dir: PathBuf,
    plaintext: Option<SocketAddr>,
    tls: Option<SocketAddr>,
    web: Option<SocketAddr>,
    dicomweb: Option<String>,
}

impl Gateway {
    /// A node that sends what PACS sends to GANTRY on to one partner, as routine.
    pub fn forwarding_to(partner: &Storescp) -> Setup {
        Setup::new()
            .source("pacs", "PACS")
            .partner("partner", partner.ae_title(), partner.port())
            .route("GANTRY", &["partner"], "routine")
    }

    /// Starts it; with the same data if it ran before, and on other ports, as somebody may have taken those.
    pub async fn start(&mut self) {
        assert!(self.process.is_none(), "the node runs already");
        let toml = self.setup.toml(&self.data_dir);
        std::fs::write(self.config(), toml).expect("the configuration can be written");
        for (number, token) in (1..).zip(&self.setup.tokens) {
            let file = self.folder.path().join(format!("token-{number}"));
            std::fs::write(&file, token).expect("a token can be written");
            std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o600))
                .expect("a token can be made private");
        }
        let mut command = leashed(program());
        command.arg("serve").arg("--config").arg(self.config()).arg("--json");
        command.env_remove("RUST_LOG").envs(self.setup.environment.iter().cloned());
        let mut process =
            Process::start("gantry", &mut command, &self.folder.path().join("gantry.log"), true);
        let stdout = process.take_stdout().expect("standard output is piped");
        let mut line = String::new();
        let mut stdout = BufReader::new(stdout);
        let read = stdout.read_line(&mut line);
        tokio::time::timeout(PATIENCE, read)
            .await
            .expect("the node is ready in time")
            .expect("standard output reads");
        let ready: Value = serde_json::from_str(&line).unwrap_or_else(|_| {
            panic!(
                "gantry serve said {line:?} instead of where it listens; its log:\n{}",
                process.log()
            )
        });
        let address =
            |listener: usize| ready["listeners"][listener]["address"].as_str()?.parse().ok();
        self.plaintext = address(0);
        self.tls = address(1);
        self.web = ready["web"].as_str().and_then(|url| url.rsplit("//").next()?.parse().ok());
        self.dicomweb = ready["dicomweb"].as_str().map(|url| format!("{url}/dicomweb"));
        self.process = Some(process);
    }

    /// Where it listens without TLS.
    pub fn plaintext(&self) -> SocketAddr {
        self.plaintext.expect("the node has a plaintext listener")
    }

    /// Where it listens with TLS.
    pub fn tls(&self) -> SocketAddr {
        self.tls.expect("the node has a TLS listener")
    }

    /// What its DICOMweb is called.
    pub fn dicomweb(&self) -> &str {
        self.dicomweb.as_deref().expect("the node answers DICOMweb")
    }

    /// Where its pages are.
    pub fn web(&self) -> SocketAddr {
        self.web.expect("the node has pages")
    }

    /// Its configuration file.
    pub fn config(&self) -> PathBuf {
        self.folder.path().join("gantry.toml")
    }

    /// Its data directory.
    pub fn data_dir(&self) -> &Path {
        &self.data_dir
    }

    /// Its identity, for peers that pin it.
    pub fn identity(&self) -> &Identity {
        &self.setup.certificates.as_ref().expect("the node has a certificate").1
    }

    /// All that it has logged since its first start.
    pub fn log(&self) -> String {
        let log = std::fs::read(self.folder.path().join("gantry.log")).unwrap_or_default();
        String::from_utf8_lossy(&log).into_owned()
    }

    fn process(&mut self) -> &mut Process {
        self.process.as_mut().expect("the node runs")
    }

    /// Whether it still runs.
    pub fn is_alive(&mut self) -> bool {
        self.process().exit_status().is_none()
    }

    /// SIGKILL, as a crash at whatever it was doing.
    pub async fn kill(&mut self) {
        self.process.take().expect("the node runs").kill().await;
    }

    /// SIGTERM, without waiting.
    pub fn ask_to_stop(&mut self) {
        self.process().signal(Signal::TERM);
    }

    /// Waits for the end that was asked for.
    pub async fn stopped(&mut self) -> ExitStatus {
        self.process.take().expect("the node runs").ended(PATIENCE).await
    }

    /// SIGTERM, and waits until it has drained.
    pub async fn stop(&mut self) -> ExitStatus {
        self.ask_to_stop();
        self.stopped().await
    }

    /// A crash, and the start after it.
    pub async fn kill_and_restart(&mut self) {
        self.kill().await;
        self.start().await;
    }

    /// Most memory it had at once, in bytes (VmHWM of proc(5)).
    pub fn peak_memory(&mut self) -> u64 {
        let id = self.process().id().expect("the node runs");
        let status =
            std::fs::read_to_string(format!("/proc/{id}/status")).expect("proc knows the node");
        let line =
            status.lines().find_map(|line| line.strip_prefix("VmHWM:")).expect("proc says VmHWM");
        line.trim().trim_end_matches(" kB").parse::<u64>().expect("VmHWM is a number") * 1024
    }

    /// Asks its API on the administrator's socket.
    pub async fn ask(&self, ask: Ask) -> Answer {
        ask.to_socket(&self.data_dir.join("admin.sock"))
            .await
            .expect("the administrator's socket answers")
    }

    /// The JSON at this address of its API.
    pub async fn api(&self, path: &str) -> Value {
        self.ask(Ask::get(path)).await.json()
    }

    /// Where everything that was ordered for a partner is.
    pub async fn conservation(&self, partner: &str) -> Conservation {
        let status = self.api("/api/v1/status").await;
        let partners = status["partners"].as_array().expect("the status lists partners");
        let row = partners.iter().find(|row| row["name"] == partner);
        let count = |name: &str| row.and_then(|row| row[name].as_u64()).unwrap_or_default();
        Conservation {
            ordered: count("ordered"),
            delivered: count("delivered"),
            waiting: count("waiting"),
            set_aside: count("set_aside"),
            cancelled: count("cancelled"),
        }
    }

    /// Waits until a partner has accepted so many instances and nothing waits for it.
    pub async fn delivered(&self, partner: &str, count: usize) {
        eventually(&format!("{count} instances to be delivered to {partner}"), async || {
            let now = self.conservation(partner).await;
            (now.delivered == count as u64 && now.waiting == 0).then_some(())
        })
        .await;
    }

    /// Waits until it knows of so many instances and has stored them all. Until something is a row it waits for nothing, so the
    /// figures of what waits do not tell by themselves.
    pub async fn stored(&self, instances: usize) {
        eventually(&format!("{instances} instances to be stored"), async || {
            let status = self.api("/api/v1/status").await;
            let waits = [&status["spool"]["waiting"], &status["object_store"]["waiting"]];
            (status["totals"]["instances"] == instances && waits.iter().all(|waits| **waits == 0))
                .then_some(())
        })
        .await;
    }

    /// How many instances it knows of.
    pub async fn instances(&self) -> u64 {
        let status = self.api("/api/v1/status").await;
        status["totals"]["instances"].as_u64().expect("the status counts instances")
    }

    /// Asks its rows, beside the program.
    pub async fn rows<T>(&self, ask: impl AsyncFnOnce(&Index) -> T) -> T {
        let index =
            Index::open(&self.data_dir.join("index.sqlite")).await.expect("the index opens");
        let answer = ask(&index).await;
        index.close().await;
        answer
    }

    /// Runs another command of the program with this node's configuration.
    pub async fn command(&self, arguments: &[&str]) -> Output {
        let mut command = Command::new(program());
        command.args(arguments).arg("--config").arg(self.config()).env_remove("RUST_LOG");
        command.kill_on_drop(true).output().await.expect("the program runs")
    }
}

/// What was ordered for a partner, and where it is.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Conservation {
    /// Deliveries that routes ordered.
    pub ordered: u64,
    /// Accepted by the partner.
    pub delivered: u64,
    /// Queued, being sent, or waiting for the next try.
    pub waiting: u64,
    /// Waiting for a person.
    pub set_aside: u64,
    /// Given up by a person.
    pub cancelled: u64,
}

impl Conservation {
    /// Whether nothing was lost on the way.
    pub fn adds_up(&self) -> bool {
        self.ordered == self.delivered + self.waiting + self.set_aside + self.cancelled
    }
}
