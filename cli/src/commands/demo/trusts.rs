//! The two trusts of the demonstration: their files, as an administrator would write them, and their nodes.

use std::fs::{DirBuilder, OpenOptions};
use std::io::{self, Write as _};
use std::net::{SocketAddr, TcpListener};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::process::Stdio;

use gantry_deidentify::keys::ProjectKey;
use gantry_gateway::config::{Config, Style};
use gantry_gateway::run::Node;
use gantry_gateway::tls::{Authority, IssueError};
use gantry_store::sealed::Keyring;
use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::process::{Child, Command};

use crate::commands::serve;
use crate::exit::{Exit, Failure};

/// What a trust is called; none of them exists.
#[derive(Debug)]
pub(super) struct Name {
    /// Its folder, and what the other one's configuration calls it.
    pub(super) short: &'static str,
    /// What people call it.
    pub(super) display: &'static str,
    pub(super) ae_title: &'static str,
    phone: &'static str,
}

/// Where the patient is.
pub(super) const DISTRICT: Name = Name {
    short: "northmoor",
    display: "Northmoor District Hospital",
    ae_title: "NORTHMOOR",
    phone: "01632 960 110",
};

/// Where the neurosurgeons are.
pub(super) const CENTRE: Name = Name {
    short: "royal-infirmary",
    display: "Kingsmere Royal Infirmary",
    ae_title: "RI_IEP",
    phone: "01632 960 220",
};

/// Where the heart surgeons are: in the demonstration of failures alone.
pub(super) const HEART: Name = Name {
    short: "heart-centre",
    display: "Westfold Heart Centre",
    ae_title: "WESTFOLD",
    phone: "01632 960 330",
};

/// Where researchers are: in the demonstration of research alone.
pub(super) const UNIVERSITY: Name = Name {
    short: "university",
    display: "Ashdown University",
    ae_title: "ASHDOWN",
    phone: "01632 960 440",
};

/// What the scanner calls itself, and what it calls to mean the centre's emergency team.
pub(super) const SCANNER: &str = "NORTHMOOR_CT";
pub(super) const EMERGENCY: &str = "RI_EMERG";
/// What it calls to mean both centres: for tomorrow's meeting, and for a patient whom both must see now.
pub(super) const MEETING: &str = "MEETING";
pub(super) const BOTH_NOW: &str = "BOTH_EMERG";
/// What it calls to mean the university.
pub(super) const RESEARCH: &str = "RESEARCH";

/// One trust's running node.
#[derive(Debug)]
pub(super) struct Trust {
    pub(super) name: &'static Name,
    pub(super) config: PathBuf,
    pub(super) node: Node,
}

/// The trusts, running; the heart centre as a process of its own, which can be killed.
#[derive(Debug)]
pub(super) struct Trusts {
    pub(super) district: Trust,
    pub(super) centre: Trust,
    pub(super) heart: Option<Apart>,
}

impl Trusts {
    /// Makes the files of two in `folder` and starts them. `web` says on which ports pages would be nice to have; they are
    /// taken where free.
    pub(super) async fn two(folder: &Path, web: [u16; 2]) -> Result<Self, Failure> {
        let addresses = make_all(folder, [&DISTRICT, &CENTRE])?;
        let centre = format!(
            "{}{}",
            common(&CENTRE, addresses[1], free_address(web[1])?),
            partner(&DISTRICT, addresses[0], "send")
        );
        let district = common(&DISTRICT, addresses[0], free_address(web[0])?)
            + &for_scanner()
            + &partner(&CENTRE, addresses[1], "receive")
            + &route(
                "emergency to the royal infirmary",
                EMERGENCY,
                &[&CENTRE],
                "emergency-transfer",
                "emergency",
            );
        let centre = start(&folder.join(CENTRE.short), &CENTRE, &centre).await?;
        let district = start(&folder.join(DISTRICT.short), &DISTRICT, &district).await?;
        Ok(Self { district, centre, heart: None })
    }

    /// The district and a university, to which it sends what is pseudonymised with this key.
    pub(super) async fn research(
        folder: &Path,
        key: &ProjectKey,
        web: [u16; 2],
    ) -> Result<Self, Failure> {
        let addresses = make_all(folder, [&DISTRICT, &UNIVERSITY])?;
        let university = common(&UNIVERSITY, addresses[1], free_address(web[1])?)
            + &partner(&DISTRICT, addresses[0], "send");
        let district = common(&DISTRICT, addresses[0], free_address(web[0])?)
            + &for_scanner()
            + &partner(&UNIVERSITY, addresses[1], "receive")
            + "\n[[project]]\nname = \"head-injury\"\nprofile = \"research\"\nkey = \"head-injury.key\"\n"
            + &route("head CT for research", RESEARCH, &[&UNIVERSITY], "research", "routine")
                .replace("\"as-received\"", "{ pseudonymise = \"head-injury\" }");
        key.write_new(&folder.join(DISTRICT.short).join("head-injury.key"))
            .map_err(|error| Failure::because(Exit::Failed, &error))?;
        let centre = start(&folder.join(UNIVERSITY.short), &UNIVERSITY, &university).await?;
        let district = start(&folder.join(DISTRICT.short), &DISTRICT, &district).await?;
        Ok(Self { district, centre, heart: None })
    }

    /// The same with the heart centre, to which the district sends as well, and which it tries again soon.
    pub(super) async fn three(folder: &Path, web: [u16; 2]) -> Result<Self, Failure> {
        let addresses = make_all(folder, [&DISTRICT, &CENTRE, &HEART])?;
        let soon = "\n[delivery]\nretry-floor = \"1s\"\nretry-ceiling = \"4s\"\nemergency-retry-ceiling = \"2s\"\n";
        let receiving = |name, address, web| {
            common(name, address, web) + &partner(&DISTRICT, addresses[0], "send")
        };
        let both = [&CENTRE, &HEART];
        let district = common(&DISTRICT, addresses[0], free_address(web[0])?)
            + soon
            + &for_scanner()
            + &partner(&CENTRE, addresses[1], "receive")
            + &partner(&HEART, addresses[2], "receive")
            + &route("tomorrow's meeting", MEETING, &both, "mdt", "routine")
            + &route("a patient for both", BOTH_NOW, &both, "emergency-transfer", "emergency");
        let centre = receiving(&CENTRE, addresses[1], free_address(web[1])?);
        let heart = receiving(&HEART, addresses[2], free_address(0)?);
        write(&folder.join(HEART.short).join("gantry.toml"), 0o644, &heart)?;
        let heart = Apart::start(&folder.join(HEART.short)).await?;
        let centre = start(&folder.join(CENTRE.short), &CENTRE, &centre).await?;
        let district = start(&folder.join(DISTRICT.short), &DISTRICT, &district).await?;
        Ok(Self { district, centre, heart: Some(heart) })
    }
}

/// A node in a process of its own; killed when dropped.
#[derive(Debug)]
pub(super) struct Apart {
    folder: PathBuf,
    process: Option<Child>,
}

impl Apart {
    async fn start(folder: &Path) -> Result<Self, Failure> {
        let mut apart = Self { folder: folder.to_owned(), process: None };
        apart.run().await?;
        Ok(apart)
    }

    /// Its configuration.
    pub(super) fn config(&self) -> PathBuf {
        self.folder.join("gantry.toml")
    }

    /// Its rows, which may be read beside it.
    pub(super) fn index(&self) -> PathBuf {
        self.folder.join("data/index.sqlite")
    }

    /// Starts it, with what it had; returns when it listens.
    pub(super) async fn run(&mut self) -> Result<(), Failure> {
        let failed = |error: &dyn std::error::Error| Failure::because(Exit::Failed, error);
        let program = std::env::current_exe().map_err(|error| failed(&error))?;
        let path = self.folder.join("node.log");
        let log = OpenOptions::new().create(true).append(true).open(&path);
        let log = log.map_err(|error| Failure::of_file("write", &path, &error))?;
        let mut process = Command::new(program)
            .args(["serve", "--json", "--config"])
            .arg(self.config())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(log)
            .kill_on_drop(true)
            .spawn()
            .map_err(|error| failed(&error))?;
        let mut said = String::new();
        if let Some(stdout) = process.stdout.take() {
            let read = BufReader::new(stdout).read_line(&mut said).await;
            read.map_err(|error| failed(&error))?;
        }
        if said.is_empty() {
            return Err(Failure::new(
                Exit::Failed,
                format_args!("{} did not start", HEART.display),
            )
            .hint(format_args!("its log says why: {}", path.display())));
        }
        self.process = Some(process);
        Ok(())
    }

    /// Ends it as a power cut would, as far as it is concerned (SIGKILL).
    pub(super) async fn kill(&mut self) -> Result<(), Failure> {
        match self.process.take() {
            Some(mut process) => {
                process.kill().await.map_err(|error| Failure::because(Exit::Failed, &error))
            }
            None => Ok(()),
        }
    }
}

/// Certificates and keys of each, and where it will listen. Each knows the certificates of all.
fn make_all<const N: usize>(folder: &Path, names: [&Name; N]) -> Result<[SocketAddr; N], Failure> {
    let authority =
        Authority::new("Demonstration authority").map_err(|error| cannot_issue(&error))?;
    for name in &names {
        make_files(&folder.join(name.short), name, &authority)?;
    }
    for (of, at) in names.iter().flat_map(|of| names.iter().map(move |at| (of, at))) {
        let from = folder.join(of.short).join("tls/node.crt");
        let to = folder.join(at.short).join("tls").join(format!("{}.crt", of.short));
        std::fs::copy(from, &to).map_err(|error| Failure::of_file("write", &to, &error))?;
    }
    let mut addresses = [SocketAddr::from(([127, 0, 0, 1], 0)); N];
    for address in &mut addresses {
        *address = free_address(0)?;
    }
    Ok(addresses)
}

fn for_scanner() -> String {
    format!(
        "
# The scanner speaks plain DICOM, on this machine only.
[[listener]]
address = \"127.0.0.1:0\"
tls = \"off\"
allow = [\"127.0.0.0/8\"]

[[source]]
name = \"ct-scanner\"
ae-title = \"{SCANNER}\"
"
    )
}

fn partner(name: &Name, address: SocketAddr, may: &str) -> String {
    let Name { short, display, ae_title, phone } = name;
    format!(
        "
[[partner]]
name = \"{short}\"
display-name = \"{display}\"
ae-title = \"{ae_title}\"
address = \"{address}\"
certificate = \"tls/{short}.crt\"
may = [\"{may}\"]
phone = \"{phone}\"
"
    )
}

fn route(name: &str, called: &str, to: &[&Name], purpose: &str, priority: &str) -> String {
    let to: Vec<_> = to.iter().map(|name| name.short).collect();
    format!(
        "
[[route]]
name = \"{name}\"
when = {{ called-ae-title = \"{called}\" }}
to = {to:?}
purpose = \"{purpose}\"
priority = \"{priority}\"
protect = \"as-received\"
"
    )
}

impl Trust {
    /// The listener whose configured address ends in port 0 is the plain one; its real address.
    pub(super) fn plain_listener(&self) -> Option<SocketAddr> {
        let plain = self.node.listeners.iter().find(|(name, _)| name.ends_with(":0"));
        plain.map(|(_, address)| *address)
    }
}

/// What both have in their `gantry.toml`.
fn common(name: &Name, dicom: SocketAddr, web: SocketAddr) -> String {
    format!(
        "# {} in the demonstration of Gantry. It does not exist.

[node]
ae-title = \"{}\"
organisation = \"{}\"
data-dir = \"data\"

[[listener]]
address = \"{dicom}\"

[tls]
certificate = \"tls/node.crt\"
key = \"tls/node.key\"
authorities = [\"tls/ca.crt\"]

[web]
address = \"{web}\"

[intake]
reserve = \"16MiB\"
spool-high-water = \"100%\"
emergency-reserve = \"0B\"
",
        name.display, name.ae_title, name.display
    )
}

async fn start(folder: &Path, name: &'static Name, text: &str) -> Result<Trust, Failure> {
    let path = folder.join("gantry.toml");
    write(&path, 0o644, text)?;
    let (config, _) = Config::load(&path)
        .map_err(|problems| Failure::new(Exit::Failed, problems.render(Style::Plain)))?;
    let node = Node::start(config).await.map_err(|error| serve::cannot_start(&error))?;
    Ok(Trust { name, config: path, node })
}

fn make_files(folder: &Path, name: &Name, authority: &Authority) -> Result<(), Failure> {
    let issued = authority
        .issue(name.ae_title, &["localhost", "127.0.0.1"])
        .map_err(|error| cannot_issue(&error))?;
    for folder in [folder.join("tls"), folder.join("data")] {
        let made = DirBuilder::new().recursive(true).mode(0o700).create(&folder);
        made.map_err(|error| Failure::of_file("make", &folder, &error))?;
    }
    write(&folder.join("tls/ca.crt"), 0o644, &authority.certificate_pem())?;
    write(&folder.join("tls/node.crt"), 0o644, &issued.certificate_pem)?;
    write(&folder.join("tls/node.key"), 0o600, &issued.key_pem)?;
    Keyring::create(&folder.join("data/keys"))
        .map(drop)
        .map_err(|error| Failure::because(Exit::Failed, &error))
}

fn write(path: &Path, mode: u32, text: &str) -> Result<(), Failure> {
    let written = OpenOptions::new().write(true).create_new(true).mode(mode).open(path);
    written
        .and_then(|mut file| file.write_all(text.as_bytes()))
        .map_err(|error| Failure::of_file("write", path, &error))
}

/// An address on this machine that nothing listens on: the wished-for port, or one of the kernel's choice. Partners have to
/// know each other's address before either is started, so the port is given back and taken again.
fn free_address(wished: u16) -> Result<SocketAddr, Failure> {
    let bind =
        |port| TcpListener::bind(("127.0.0.1", port)).and_then(|listener| listener.local_addr());
    bind(wished).or_else(|_: io::Error| bind(0)).map_err(|error| {
        Failure::new(Exit::Failed, format_args!("cannot listen on this machine: {error}"))
    })
}

fn cannot_issue(error: &IssueError) -> Failure {
    Failure::because(Exit::Failed, error)
}
