//! A real S3 server: Ceph's radosgw from Debian's packages, with one monitor and one store that keeps all in memory.
//!
//! It takes ten seconds to start, so one serves a whole run: `tests/run` starts it and says where in `GANTRY_TEST_S3`.
//! Without that, a test program starts its own at first need (the program `s3-server` of this package), which ends with it.

use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::Stdio;
use std::sync::OnceLock;
use std::time::Duration;

use gantry_store::facts::ObjectId;
use gantry_store::object::S3Objects;
use gantry_store::object::s3::{Credentials, Settings};
use tempfile::TempDir;
use tokio::process::Command;

use crate::eventually::eventually;
use crate::network::free_port;
use crate::process::{Process, leashed};
use crate::skip;

/// The bucket that there is.
pub const BUCKET: &str = "images";
/// The access key that may use it.
pub const KEY: (&str, &str) = ("gantry-key", "gantry-secret");
/// An access key that may not.
pub const STRANGER: (&str, &str) = ("stranger-key", "stranger-secret");

const PROGRAMS: [&str; 6] =
    ["ceph-mon", "ceph-osd", "radosgw", "ceph-authtool", "monmaptool", "radosgw-admin"];

/// The programs of one cluster, running.
#[derive(Debug)]
pub struct Ceph {
    // Dropped before its folder; the gateway first.
    _gateway: Process,
    _store: Process,
    _monitor: Process,
    _folder: TempDir,
    port: u16,
}

impl Ceph {
    /// Starts it; the reason, if this machine does not have it.
    pub async fn start() -> Result<Self, String> {
        for program in PROGRAMS {
            let there = Command::new(program).arg("--version").output().await;
            there.map_err(|_| format!("{program} is not installed; tests/run installs it"))?;
        }
        let folder = tempfile::tempdir().expect("a folder for Ceph");
        let (at, port) = (folder.path(), free_port());
        let cluster = Cluster { at, identity: uuid(), monitor: free_port(), gateway: port };
        std::fs::write(at.join("ceph.conf"), cluster.configuration())
            .expect("a configuration can be written");
        cluster.make_keys().await?;

        let monitor = cluster.serve("ceph-mon", &["-i", "a"]);
        let store = uuid();
        cluster.run("ceph", &["osd", "new", &store, "0"]).await?;
        cluster.run("ceph-osd", &["-i", "0", "--mkfs", "--osd-uuid", &store]).await?;
        let store = cluster.serve("ceph-osd", &["-i", "0"]);
        let mut gateway = cluster.serve("radosgw", &["-n", "client.rgw"]);
        eventually("radosgw to listen", async || {
            let ended = gateway.exit_status();
            assert!(ended.is_none(), "radosgw ended at once: {}", gateway.log());
            crate::network::is_listening(port).then_some(())
        })
        .await;
        for (name, (id, secret)) in [("gantry", KEY), ("stranger", STRANGER)] {
            let user = ["user", "create", "--uid", name, "--display-name", name];
            let key = ["--access-key", id, "--secret", secret];
            cluster.run("radosgw-admin", &[&user[..], &key[..]].concat()).await?;
        }
        let started =
            Self { _gateway: gateway, _store: store, _monitor: monitor, port, _folder: folder };
        let settings = Settings {
            // The first bucket waits for the pools that it makes.
            response_timeout: Duration::from_mins(1),
            ..Settings::new(BUCKET, &started.url(), Credentials::key(KEY.0, KEY.1))
        };
        let made = tokio::task::spawn_blocking(move || S3Objects::open(settings)?.make_bucket());
        made.await.expect("a bucket is made").map_err(|error| format!("no bucket: {error:?}"))?;
        Ok(started)
    }

    /// Where it answers.
    pub fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }
}

/// What is needed to start one.
struct Cluster<'a> {
    at: &'a Path,
    identity: String,
    monitor: u16,
    gateway: u16,
}

impl Cluster<'_> {
    fn configuration(&self) -> String {
        let Self { at, identity, monitor, gateway } = self;
        let at = at.display();
        format!(
            "[global]\nfsid = {identity}\nmon host = [v1:127.0.0.1:{monitor}/0]\n\
             auth cluster required = cephx\nauth service required = cephx\nauth client required = cephx\n\
             keyring = {at}/keyring\nrun dir = {at}\nadmin socket = {at}/$name.asok\n\
             log file = {at}/$name.log\nlog to stderr = false\n\
             mon data = {at}/mon\nmon data avail warn = 1\nmon data avail crit = 1\n\
             osd data = {at}/osd\nosd objectstore = memstore\nmemstore device bytes = 8589934592\n\
             osd pool default size = 1\nosd pool default min size = 1\n\
             osd pool default pg num = 1\nosd pool default pgp num = 1\n\
             osd pool default pg autoscale mode = off\nosd crush chooseleaf type = 0\n\
             public addr = 127.0.0.1\ncluster addr = 127.0.0.1\nms bind msgr2 = false\n\
             mon max pg per osd = 1000\nrgw frontends = beast endpoint=127.0.0.1:{gateway} tcp_nodelay=1\n\
             rgw crypt require ssl = false\n"
        )
    }

    /// The monitor's database and everybody's keys; "auth none" is what radosgw does not work with.
    async fn make_keys(&self) -> Result<(), String> {
        let keys: [&[&str]; 4] = [
            &["--create-keyring", "-n", "mon.", "--cap", "mon", "allow *"],
            &["-n", "client.admin", "--cap", "mon", "allow *", "--cap", "osd", "allow *"],
            &["-n", "osd.0", "--cap", "mon", "allow profile osd", "--cap", "osd", "allow *"],
            &["-n", "client.rgw", "--cap", "mon", "allow rw", "--cap", "osd", "allow rwx"],
        ];
        for key in keys {
            self.run("ceph-authtool", &[&["keyring", "--gen-key"], key].concat()).await?;
        }
        let address = format!("[v1:127.0.0.1:{}]", self.monitor);
        let map =
            ["--create", "--clobber", "--addv", "a", &address, "--fsid", &self.identity, "monmap"];
        self.run("monmaptool", &map).await?;
        for folder in ["mon", "osd"] {
            std::fs::create_dir(self.at.join(folder)).expect("a folder can be made");
        }
        self.run("ceph-mon", &["--mkfs", "-i", "a", "--monmap", "monmap", "--keyring", "keyring"])
            .await
    }

    async fn run(&self, program: &str, arguments: &[&str]) -> Result<(), String> {
        let mut command = Command::new(program);
        command.args(arguments).current_dir(self.at).env("CEPH_CONF", self.at.join("ceph.conf"));
        let output =
            tokio::time::timeout(Duration::from_mins(1), command.kill_on_drop(true).output())
                .await
                .map_err(|_| format!("{program} does not end"))?
                .map_err(|error| format!("{program} does not start: {error}"))?;
        if output.status.success() {
            return Ok(());
        }
        Err(format!("{program} failed: {}", String::from_utf8_lossy(&output.stderr).trim()))
    }

    fn serve(&self, program: &str, arguments: &[&str]) -> Process {
        let mut command = leashed(program);
        command.args(arguments).arg("-f").current_dir(self.at);
        command.env("CEPH_CONF", self.at.join("ceph.conf"));
        Process::start(program, &mut command, &self.at.join(format!("{program}.out")), false)
    }
}

fn uuid() -> String {
    let id =
        std::fs::read_to_string("/proc/sys/kernel/random/uuid").expect("the kernel makes UUIDs");
    id.trim().to_owned()
}

/// A part of the real server that is a test's own.
#[derive(Clone, Debug)]
pub struct Bucket {
    /// Where the server answers.
    pub url: String,
    /// What all keys of this test begin with.
    pub prefix: String,
}

impl Bucket {
    /// One for this test; `None`, said loudly, where there is no server.
    pub fn new(test: &str) -> Option<Self> {
        match server() {
            Ok(url) => Some(Self { url, prefix: format!("test/{}", ObjectId::new()) }),
            Err(why) => {
                skip(test, &why);
                None
            }
        }
    }

    /// The server's host and port.
    pub fn address(&self) -> std::net::SocketAddr {
        let address = self.url.rsplit('/').next().and_then(|address| address.parse().ok());
        address.expect("a server on loopback has an address")
    }

    /// How the back end speaks to it.
    pub fn settings(&self) -> Settings {
        Settings {
            prefix: self.prefix.clone(),
            ..Settings::new(BUCKET, &self.url, Credentials::key(KEY.0, KEY.1))
        }
    }

    /// The back end.
    pub fn store(&self) -> S3Objects {
        S3Objects::open(self.settings()).expect("the back end opens")
    }

    /// The lines of `[object-store]`, by way of another address; the credentials lie in a file in this folder.
    pub fn toml(&self, endpoint: &str, folder: &Path) -> String {
        use std::os::unix::fs::OpenOptionsExt as _;
        let file = folder.join("s3-key");
        let mut options = std::fs::OpenOptions::new();
        let mut written = options
            .create(true)
            .write(true)
            .truncate(true)
            .mode(0o600)
            .open(&file)
            .expect("a file for credentials");
        std::io::Write::write_all(&mut written, format!("{}\n{}\n", KEY.0, KEY.1).as_bytes())
            .expect("credentials can be written");
        format!(
            "kind = \"s3\"\nbucket = \"{BUCKET}\"\nprefix = \"{}\"\nendpoint = \"{endpoint}\"\n\
             path-style = true\ncredentials-file = \"{}\"\n",
            self.prefix,
            file.display()
        )
    }
}

/// Where the server of this run is.
fn server() -> Result<String, String> {
    static SERVER: OnceLock<Result<String, String>> = OnceLock::new();
    SERVER
        .get_or_init(|| match std::env::var("GANTRY_TEST_S3") {
            Ok(url) if url.starts_with("http://") => Ok(url),
            // tests/run has tried and says why not.
            Ok(why) => Err(why),
            Err(_) => start(),
        })
        .clone()
}

/// Starts the program that holds it. It ends when its standard input does, which is when this process does.
fn start() -> Result<String, String> {
    let mut command =
        std::process::Command::new(crate::gateway::program().with_file_name("s3-server"));
    let mut server =
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().map_err(|error| {
            format!("s3-server does not start: {error}; cargo builds it beside the tests")
        })?;
    let mut line = String::new();
    let stdout = server.stdout.take().expect("standard output is piped");
    BufReader::new(stdout).read_line(&mut line).map_err(|error| error.to_string())?;
    // Kept open for as long as this process lives.
    std::mem::forget(server);
    match line.trim() {
        url if url.starts_with("http://") => Ok(url.to_owned()),
        why => Err(why.to_owned()),
    }
}
