//! Configuration: what `gantry.toml` and `conf.d/*.toml` say, resolved and cross-checked.
//!
//! `file` is what people write, [`Config`] is what the node runs on: every reference holds, every path is absolute,
//! every default is filled in. What stands between them is `check`, which finds all problems in one pass, so that
//! nobody repairs a file one error at a time. A `Config` may as well be built in code (the demo does), which is why
//! its fields are public; it then carries no promise beyond its types. Opens no socket and makes no directory.

mod alarm;
mod check;
mod file;
mod pace;
pub mod report;
pub mod values;
mod words;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use gantry_store::dicom::{AeTitle, Tag};
use gantry_store::facts::{Priority, Purpose};
use gantry_store::index::PostgresSettings;
pub use gantry_store::spool::HighWater;
use ipnet::IpNet;
use jiff::Timestamp;

pub use alarm::{Alarm, Mail, MailTls, Secret, Webhook};
pub use pace::{Associations, Hours, Pace};
pub use report::{Finding, Problems, Severity, Style, Warning};
pub(crate) use values::duration_text;
pub use values::{Fingerprint, HostPort, Pattern};

use crate::protect::Protection;

/// What a node runs on.
#[derive(Clone, Debug, PartialEq)]
pub struct Config {
    /// The file it was read from.
    pub file: PathBuf,
    /// Who this node is and where it keeps things.
    pub node: Node,
    /// Where DICOM peers may connect; at least one.
    pub listeners: Vec<Listener>,
    /// This node's identity and whom it believes; there whenever a listener, a partner or the web needs it.
    pub tls: Option<Tls>,
    /// Pages and API.
    pub web: Option<Web>,
    /// DICOMweb.
    pub dicomweb: Option<Dicomweb>,
    /// When a received instance counts, and what is too much.
    pub intake: Intake,
    /// Bounds of every association.
    pub limits: Limits,
    /// Where instances are kept.
    pub object_store: ObjectStore,
    /// How full the object store may get before `at-least` of retention rules counts; `None`: as full as it likes.
    pub store_high_water: Option<HighWater>,
    /// Where rows are kept.
    pub database: Database,
    /// How deliveries are tried again.
    pub delivery: Delivery,
    /// What is logged, and in which form.
    pub log: Log,
    /// Local application entities that may send.
    pub sources: Vec<Source>,
    /// Other organisations' nodes.
    pub partners: Vec<Partner>,
    /// What goes where; every route that matches applies.
    pub routes: Vec<Route>,
    /// How long images are kept; without a rule, until a person removes them.
    pub retention: Vec<Retention>,
    /// How often all that is kept is read again.
    pub scrub: Scrub,
    /// When what came is compared with what its source has.
    pub completeness: Completeness,
    /// When people are told that something is stuck, and how.
    pub alarm: Alarm,
    /// How what leaves protected is made, by [`Protect::under`].
    pub protections: BTreeMap<String, Arc<Protection>>,
}

/// `[completeness]`: when what came is compared with what its source has.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Completeness {
    /// A source is asked about a study when the association that brought it ends, and again when nothing of it has come for
    /// so long. Only then is anything fetched.
    pub quiet: Duration,
}

impl Default for Completeness {
    fn default() -> Self {
        Self { quiet: Duration::from_mins(1) }
    }
}

/// `[scrub]`: how often all that is kept is read again, and how fast.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Scrub {
    /// How long after a round began the next one does; `None`: only when a person asks for it.
    pub every: Option<Duration>,
    /// Bytes a second that are read at most.
    pub rate: u64,
}

impl Default for Scrub {
    fn default() -> Self {
        Self { every: Some(Duration::from_hours(30 * 24)), rate: 16 << 20 }
    }
}

/// `[[retention]]`: how long images are kept.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Retention {
    /// What people read where images are gone.
    pub name: String,
    /// Transfers for these purposes; empty: for any.
    pub purposes: Vec<Purpose>,
    /// Transfers to these partners; empty: to any.
    pub partners: Vec<String>,
    /// Studies that no route sent anywhere, and no others.
    pub unrouted: bool,
    /// How long.
    pub keep: Duration,
    /// How long at least while the object store is above its high-water mark.
    pub at_least: Option<Duration>,
    /// From when on.
    pub after: After,
}

/// `after` of a retention rule: what its time begins with.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum After {
    /// The far end proved that it holds all of it.
    #[default]
    Confirmed,
    /// The partner answered every C-STORE with success, which is no proof: must be written out.
    Sent,
}

impl Config {
    /// Reads `path` and the `conf.d/*.toml` beside it, in the order of their names.
    ///
    /// Certificates and keys that the files name are read as well, as half of what can be wrong is there. Either the
    /// configuration can be run, perhaps with something to look after soon, or every problem found is returned.
    pub fn load(path: &Path) -> Result<(Self, Vec<Warning>), Problems> {
        check::load(path)
    }

    /// The partner of that name.
    pub fn partner(&self, name: &str) -> Option<&Partner> {
        self.partners.iter().find(|partner| partner.name == name)
    }

    /// The source of that name.
    pub fn source(&self, name: &str) -> Option<&Source> {
        self.sources.iter().find(|source| source.name == name)
    }
}

/// `[node]`: who this node is and where it keeps things.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Node {
    /// What this node calls itself, and answers to.
    pub ae_title: AeTitle,
    /// The organisation it belongs to: an ODS code, or whatever the partners know it by.
    pub organisation: String,
    /// The directory of everything this node writes.
    pub data_dir: PathBuf,
}

impl Node {
    /// Received instances that are not yet in the object store.
    pub fn spool_dir(&self) -> PathBuf {
        self.data_dir.join("spool")
    }

    /// The object store of kind `file`.
    pub fn objects_dir(&self) -> PathBuf {
        self.data_dir.join("objects")
    }

    /// What partners have accepted, beside the index.
    pub fn delivered_dir(&self) -> PathBuf {
        self.data_dir.join("delivered")
    }

    /// How far the index has come.
    pub fn index_mark_path(&self) -> PathBuf {
        self.data_dir.join("index-mark")
    }

    /// How far the scrub came.
    pub fn scrub_path(&self) -> PathBuf {
        self.data_dir.join("scrub.json")
    }

    /// Which alarms last, and who was told.
    pub fn alarms_path(&self) -> PathBuf {
        self.data_dir.join("alarms.json")
    }

    /// The SQLite database.
    pub fn index_path(&self) -> PathBuf {
        self.data_dir.join("index.sqlite")
    }

    /// Key-encryption keys.
    pub fn keys_dir(&self) -> PathBuf {
        self.data_dir.join("keys")
    }

    /// The Unix socket that the command line speaks to.
    pub fn admin_socket(&self) -> PathBuf {
        self.data_dir.join("admin.sock")
    }
}

/// `[[listener]]`: an address that DICOM peers may connect to.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Listener {
    /// The address as written, which routes name and which instances remember.
    pub name: String,
    /// Where to listen; port 0 lets the kernel choose.
    pub address: SocketAddr,
    /// Whether peers must show a certificate.
    pub tls: ListenerTls,
    /// Networks that may connect. Empty: any, which only a listener with mutual TLS may say.
    pub allow: Vec<IpNet>,
    /// How many associations it holds at once; the next is refused with "local limit exceeded" (PS3.8 9.3.4).
    pub max_associations: usize,
}

impl Listener {
    /// Unless the file says otherwise.
    pub const MAX_ASSOCIATIONS: usize = 64;
}

/// `tls` of a listener.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum ListenerTls {
    /// Both sides show a certificate.
    #[default]
    Mutual,
    /// Plain TCP.
    Off,
}

/// `[tls]`: files of this node's identity and of the authorities it believes.
///
/// Paths and not their contents: the files are read when a TLS configuration is made, so a reload finds new ones.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Tls {
    /// This node's certificate and key.
    pub identity: Identity,
    /// PEM files of the authorities that peers' certificates must come from; never the operating system's.
    pub authorities: Vec<PathBuf>,
}

/// A certificate and its private key, both PEM.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Identity {
    /// The end-entity certificate first, then those between it and the authority.
    pub certificate: PathBuf,
    /// Readable by its owner alone.
    pub key: PathBuf,
}

/// `[web]`: pages, API and DICOMweb.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Web {
    /// Where to listen; port 0 lets the kernel choose.
    pub address: SocketAddr,
    /// Whether it is https.
    pub tls: WebTls,
    /// What people's browsers call it, without a slash at the end: links begin with it, and the origin of a request
    /// that changes something is compared with it. `None` where nothing is written and the address does not tell: it is
    /// that of all interfaces, or the port is the kernel's choice.
    pub url: Option<String>,
}

/// `tls` of the web.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum WebTls {
    /// Browsers see this certificate and show none themselves.
    ServerOnly(Identity),
    /// Plain http: the default on loopback; elsewhere it must be written out.
    Off,
}

/// `[dicomweb]`: where sources and partners find, fetch and store over HTTP (PS3.18). A listener of its own, so that who may
/// reach it need not reach the pages, and no browser is asked for a certificate.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Dicomweb {
    /// Where to listen; port 0 lets the kernel choose.
    pub address: SocketAddr,
    /// Whether it is https, with the certificate of `[tls]`; whoever calls shows a certificate, or a token.
    pub encrypted: bool,
    /// What clients call it, without a slash at the end: what Retrieve URL (0008,1190) and URIs of bulk data begin with. `None`
    /// where nothing is written and the address does not tell.
    pub url: Option<String>,
    /// Origins of pages that may ask from a browser (`https://viewer.example`).
    pub origins: Vec<String>,
}

/// `[intake]`: when a received instance counts, and what is too much.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Intake {
    /// When the sender hears "success".
    pub acknowledge: Acknowledge,
    /// Bytes of the spool's disk that intake leaves free; below it a C-STORE is answered A700 (out of resources).
    ///
    /// Index, log and the object being moved out of the spool usually share the disk: were it full, what drains the
    /// spool would stop too, and nothing would ever free it.
    pub reserve: u64,
    /// How full the spool may get before C-STORE is answered A700: what stands between an object store that is down and
    /// a disk that is full.
    pub high_water: HighWater,
    /// Bytes beyond the high-water mark that emergencies may still use.
    pub emergency_reserve: u64,
    /// Bytes of the longest data set taken in.
    pub max_instance_size: u64,
}

impl Default for Intake {
    fn default() -> Self {
        Self {
            acknowledge: Acknowledge::Durable,
            reserve: 1 << 30,
            high_water: HighWater::Percent(95),
            emergency_reserve: 1 << 30,
            max_instance_size: 8 << 30,
        }
    }
}

/// `[intake] acknowledge`.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum Acknowledge {
    /// Once it is on the disk: what was acknowledged survives a power cut.
    #[default]
    Durable,
    /// Once it is received: faster, and what was acknowledged in the last seconds may not survive a power cut.
    Received,
}

/// `[association]`: bounds of every association, whoever asked for it.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Limits {
    /// Bytes of the longest PDU this node offers to receive; what an association may make it hold in memory.
    pub max_pdu: u32,
    /// How long a peer may be silent before the association is aborted.
    pub idle_timeout: Duration,
    /// How long TLS handshake and association request may take together (the ARTIM timer of PS3.8 9.1.4).
    pub handshake_timeout: Duration,
    /// How long to wait for the answer to a release, or for the peer to close, before closing.
    pub release_timeout: Duration,
}

impl Limits {
    /// Below it a PDU's header and the round trips outweigh what it carries.
    pub const MAX_PDU_FLOOR: u32 = 4 << 10;
    /// Above it nothing gets faster, and an association could hold much memory.
    pub const MAX_PDU_CEILING: u32 = 1 << 20;
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            max_pdu: 128 << 10,
            idle_timeout: Duration::from_mins(1),
            handshake_timeout: Duration::from_secs(10),
            release_timeout: Duration::from_secs(5),
        }
    }
}

/// `[object-store]`.
#[derive(Clone, Debug, Default, PartialEq)]
pub enum ObjectStore {
    /// Files below [`Node::objects_dir`].
    #[default]
    File,
    /// A bucket.
    S3(Box<gantry_store::object::s3::Settings>),
}

/// `[database]`.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub enum Database {
    /// [`Node::index_path`].
    #[default]
    Sqlite,
    /// A server, which several nodes may share.
    Postgres(Box<PostgresSettings>),
}

/// `[delivery]`: how a partner is called, and called again. Nothing is ever given up on by itself.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Delivery {
    /// The wait after a first failure; it doubles with each further one.
    pub retry_floor: Duration,
    /// The longest wait between two tries, for routine and urgent.
    pub retry_ceiling: Duration,
    /// The longest wait between two tries while an emergency waits for the partner.
    pub emergency_retry_ceiling: Duration,
    /// How long what is no emergency is tried before it is set aside for a person; `None`: for ever.
    pub give_up_after: Option<Duration>,
    /// How long an association without work stays open for the next instance.
    pub association_idle: Duration,
    /// How long connecting, the TLS handshake and the association request may take.
    pub connect_timeout: Duration,
    /// How long a partner may take to answer a DIMSE message.
    pub response_timeout: Duration,
    /// For how long a sender is called that asked for storage commitment, until it takes the report.
    pub report_for: Duration,
}

impl Default for Delivery {
    fn default() -> Self {
        Self {
            retry_floor: Duration::from_secs(5),
            retry_ceiling: Duration::from_mins(15),
            emergency_retry_ceiling: Duration::from_secs(30),
            give_up_after: Some(Duration::from_hours(7 * 24)),
            association_idle: Duration::from_secs(10),
            connect_timeout: Duration::from_secs(10),
            response_timeout: Duration::from_mins(2),
            report_for: Duration::from_hours(72),
        }
    }
}

/// `[log]`.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Log {
    /// For people or for machines.
    pub format: LogFormat,
    /// The least important that is still written.
    pub level: tracing::Level,
}

impl Default for Log {
    fn default() -> Self {
        Self { format: LogFormat::Text, level: tracing::Level::INFO }
    }
}

/// `[log] format`.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum LogFormat {
    /// Lines for people.
    #[default]
    Text,
    /// One JSON object a line.
    Json,
}

/// `[[source]]`: a local application entity that may send.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Source {
    /// What routes, pages and logs call it.
    pub name: String,
    /// What it calls itself.
    pub ae_title: AeTitle,
    /// The AE titles it may call here. Empty: any.
    pub called: Vec<AeTitle>,
    /// Where it answers queries, and takes moves.
    pub address: Option<HostPort>,
    /// Whether what came from it is counted against what it has, by queries there. Only with an address.
    pub counted: bool,
    /// Whether it is asked to send what is missing (C-MOVE to this node). Only what is counted.
    pub fetch: bool,
    /// Certificates it may show. `None`: any of the authorities', or none on a plaintext listener.
    pub certificate: Option<Vec<Fingerprint>>,
    /// What it shows as a bearer token at DICOMweb (RFC 6750); `None`: it shows a certificate there, or nothing opens.
    pub token: Option<Secret>,
    /// What it may do beside storing: query and retrieve what it sent.
    pub may: BTreeSet<Permission>,
    /// Names of sources and partners to whom it may have something sent by C-MOVE, beside itself.
    pub move_to: Vec<String>,
}

impl Source {
    /// Whether it may do that.
    pub fn may(&self, permission: Permission) -> bool {
        self.may.contains(&permission)
    }
}

/// `[[partner]]`: another organisation's node.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Partner {
    /// What routes, logs and the command line call it.
    pub name: String,
    /// What pages call it; the name, unless the file says otherwise.
    pub display_name: String,
    /// What it calls itself, and is called.
    pub ae_title: AeTitle,
    /// Where it takes associations.
    pub address: HostPort,
    /// Whether both show a certificate.
    pub tls: PartnerTls,
    /// The certificates it may show, both when it calls and when it is called. With any, the certificate is its
    /// identity and the AE title a claim; with none, its certificate must be an authority's and bear its host name.
    pub certificates: Vec<Fingerprint>,
    /// What it shows as a bearer token at DICOMweb (RFC 6750); `None`: it shows a certificate there, or nothing opens.
    pub token: Option<Secret>,
    /// When the last of these certificates expires.
    pub certificates_until: Option<Timestamp>,
    /// How many associations to it at once; one more is kept for emergencies.
    pub associations: Associations,
    /// When and how fast what is no emergency goes to it.
    pub pace: Pace,
    /// Whether what goes to it is compressed on the way, without loss.
    pub compress: Compress,
    /// What may happen between it and this node.
    pub may: BTreeSet<Permission>,
    /// Names of sources and partners to whom it may have something sent by C-MOVE, beside itself.
    pub move_to: Vec<String>,
    /// How it is asked whether it holds what it accepted.
    pub proof: ProofMeans,
    /// How it hears that it should not have had something.
    pub recall: RecallMeans,
    /// Whom to phone there when images do not arrive.
    pub phone: Option<String>,
    /// Files of the certificates to which identity is encrypted for it.
    pub seal_to: Vec<PathBuf>,
}

impl Partner {
    /// Whether that may happen.
    pub fn may(&self, permission: Permission) -> bool {
        self.may.contains(&permission)
    }
}

/// `proof` of a partner: by what it may be asked whether it holds what it accepted.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum ProofMeans {
    /// By what it offers: storage commitment, else a query.
    #[default]
    Auto,
    /// By storage commitment alone.
    StorageCommitment,
    /// By queries alone.
    Query,
    /// It is not asked.
    None,
}

/// `recall` of a partner: how it hears that it should not have had something.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum RecallMeans {
    /// A person phones.
    #[default]
    Phone,
    /// It is sent a note of rejection (IHE RAD IOCM).
    Iocm,
}

/// `tls` of a partner.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum PartnerTls {
    /// Both sides show a certificate.
    #[default]
    Mutual,
    /// Plain TCP.
    Off,
}

/// `compress` of a partner.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum Compress {
    /// Where the link to it is slower than this node compresses, and where it takes nothing else.
    #[default]
    Auto,
    /// Nothing.
    Never,
    /// Whatever is not compressed, if it takes that.
    Always,
}

impl Compress {
    /// As it is written.
    pub fn word(self) -> &'static str {
        match self {
            Self::Auto => "auto",
            Self::Never => "never",
            Self::Always => "always",
        }
    }
}

/// One word of `may`, said of the partner, or of the source.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub enum Permission {
    /// It may be sent what a route or a person addresses to it. The default, and the only one.
    Receive,
    /// It may ask what was addressed or shared to it (C-FIND).
    Query,
    /// It may fetch that (C-MOVE, C-GET).
    Retrieve,
    /// It may send here (C-STORE).
    Send,
}

/// `[[route]]`: what goes where.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Route {
    /// What `route explain` and the timeline of a transfer call it.
    pub name: String,
    /// All of these must hold; never empty.
    pub when: Vec<Condition>,
    /// Names of partners, each of which may receive.
    pub to: Vec<String>,
    /// Why.
    pub purpose: Purpose,
    /// How soon.
    pub priority: Priority,
    /// Under which protection.
    pub protect: Protect,
    /// Whether protection is at intake: then only the protected copy is kept.
    pub at_intake: bool,
}

/// `protect` of a route, the strictest last.
#[derive(Clone, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub enum Protect {
    /// With identity, bit for bit: for direct care.
    AsReceived,
    /// Identity encrypted to the receiving partner (PS3.15 E.1.1).
    Seal,
    /// De-identified by this project: who holds its key can say whose it is, and objects of a patient belong together.
    Pseudonymise(String),
    /// De-identified by this project's profile, with nothing that links two studies.
    Anonymise(String),
}

impl Protect {
    /// The name of what goes to this partner under it, among [`Config::protections`]; none: as it was received.
    pub fn under(&self, partner: &str) -> Option<String> {
        match self {
            Self::AsReceived => None,
            Self::Seal => Some(format!("seal:{partner}")),
            Self::Pseudonymise(project) => Some(format!("pseudonymise:{project}")),
            Self::Anonymise(project) => Some(format!("anonymise:{project}")),
        }
    }
}

/// As it is written, as far as words go.
impl fmt::Display for Protect {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::AsReceived => f.write_str("as-received"),
            Self::Seal => f.write_str("seal"),
            Self::Pseudonymise(project) => write!(f, "pseudonymise = {project}"),
            Self::Anonymise(project) => write!(f, "anonymise = {project}"),
        }
    }
}

/// One entry of a route's `when`: the value must be like any of the patterns. An absent value is like none.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Condition {
    /// What is looked at.
    pub on: Fact,
    /// What it may be; never empty.
    pub any_of: Vec<Pattern>,
}

impl Condition {
    /// Whether the value is like any of the patterns.
    pub fn admits(&self, value: &str) -> bool {
        self.any_of.iter().any(|pattern| pattern.matches(value))
    }
}

/// What a route may look at; it prints as it is written in `when`.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Fact {
    /// The listener it came through, by its address as written.
    Listener,
    /// What the sender called itself.
    CallingAeTitle,
    /// What the sender called.
    CalledAeTitle,
    /// The source it came from, by name. Never matches what a partner sent.
    Source,
    /// The partner it came from, by name. Never matches what a source sent.
    Partner,
    /// An indexed attribute, with its keyword (PS3.6), such as `BodyPartExamined`. Numbers count as their decimal text.
    Attribute(Tag, &'static str),
}

impl fmt::Display for Fact {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Listener => f.write_str("listener"),
            Self::CallingAeTitle => f.write_str("calling-ae-title"),
            Self::CalledAeTitle => f.write_str("called-ae-title"),
            Self::Source => f.write_str("source"),
            Self::Partner => f.write_str("partner"),
            Self::Attribute(_, keyword) => f.write_str(&values::kebab(keyword)),
        }
    }
}
