//! The two trusts of the demonstration: their files, as an administrator would write them, and their nodes.

use std::fs::{DirBuilder, OpenOptions};
use std::io::{self, Write as _};
use std::net::{SocketAddr, TcpListener};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use gantry_gateway::config::{Config, Style};
use gantry_gateway::run::Node;
use gantry_gateway::tls::{Authority, IssueError};
use gantry_store::sealed::Keyring;

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

/// What the scanner calls itself, and what it calls to mean the centre's emergency team.
pub(super) const SCANNER: &str = "NORTHMOOR_CT";
pub(super) const EMERGENCY: &str = "RI_EMERG";

/// One trust's running node.
#[derive(Debug)]
pub(super) struct Trust {
    pub(super) name: &'static Name,
    pub(super) config: PathBuf,
    pub(super) node: Node,
}

/// Both, running.
#[derive(Debug)]
pub(super) struct Trusts {
    pub(super) district: Trust,
    pub(super) centre: Trust,
}

impl Trusts {
    /// Makes their files in `folder` and starts them. `web` says on which ports pages would be nice to have; they are
    /// taken where free.
    pub(super) async fn start(folder: &Path, web: [u16; 2]) -> Result<Self, Failure> {
        let authority =
            Authority::new("Demonstration authority").map_err(|error| cannot_issue(&error))?;
        for name in [&DISTRICT, &CENTRE] {
            make_files(&folder.join(name.short), name, &authority)?;
        }
        for (of, at) in [(&DISTRICT, &CENTRE), (&CENTRE, &DISTRICT)] {
            let from = folder.join(of.short).join("tls/node.crt");
            let to = folder.join(at.short).join("tls").join(format!("{}.crt", of.short));
            std::fs::copy(from, &to).map_err(|error| Failure::of_file("write", &to, &error))?;
        }
        let [district_tls, centre_tls] = [free_address(0)?, free_address(0)?];
        let [district_web, centre_web] = [free_address(web[0])?, free_address(web[1])?];

        let centre = common(&CENTRE, centre_tls, centre_web)
            + &format!(
                "
[[partner]]
name = \"{}\"
display-name = \"{}\"
ae-title = \"{}\"
address = \"{district_tls}\"
certificate = \"tls/{}.crt\"
may = [\"send\"]
phone = \"{}\"
",
                DISTRICT.short, DISTRICT.display, DISTRICT.ae_title, DISTRICT.short, DISTRICT.phone
            );
        let district = common(&DISTRICT, district_tls, district_web)
            + &format!(
                "
# The scanner speaks plain DICOM, on this machine only.
[[listener]]
address = \"127.0.0.1:0\"
tls = \"off\"
allow = [\"127.0.0.0/8\"]

[[source]]
name = \"ct-scanner\"
ae-title = \"{SCANNER}\"

[[partner]]
name = \"{}\"
display-name = \"{}\"
ae-title = \"{}\"
address = \"{centre_tls}\"
certificate = \"tls/{}.crt\"
may = [\"receive\"]
phone = \"{}\"

[[route]]
name = \"emergency to the royal infirmary\"
when = {{ called-ae-title = \"{EMERGENCY}\" }}
to = [\"{}\"]
purpose = \"emergency-transfer\"
priority = \"emergency\"
protect = \"as-received\"
",
                CENTRE.short,
                CENTRE.display,
                CENTRE.ae_title,
                CENTRE.short,
                CENTRE.phone,
                CENTRE.short
            );
        let centre = start(&folder.join(CENTRE.short), &CENTRE, &centre).await?;
        let district = start(&folder.join(DISTRICT.short), &DISTRICT, &district).await?;
        Ok(Self { district, centre })
    }
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
