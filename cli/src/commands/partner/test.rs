//! `gantry partner test`: goes the way of a delivery to a partner, layer by layer, and says what the first thing that does
//! not work means.
//!
//! Uses what the node uses (addresses, certificates, AE titles), from this process: the node need not run. Sends nothing
//! but a C-ECHO, and asks which kinds of object would be taken in which encodings; `gantry partner show` lists the answers.

use std::collections::BTreeSet;
use std::io;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use clap::Args;
use dicom_dictionary_std::uids;
use dicom_ul::pdu::{
    AssociationRJ, AssociationRJServiceProviderPresentationReason, AssociationRJServiceUserReason,
    AssociationRJSource,
};
use gantry_gateway::association::requestor::{MAX_CONTEXTS, Proposal, RequestError, Requestor};
use gantry_gateway::association::status::Status;
use gantry_gateway::association::wire::{Stream, Tcp, WireError};
use gantry_gateway::config::{Compress, Config, Partner, PartnerTls};
use gantry_gateway::partner::capabilities::Capabilities;
use gantry_gateway::telemetry::chain;
use gantry_gateway::tls::{self, CertificateFacts, Trouble};
use gantry_store::dicom::{AeTitle, SopClassUid, TransferSyntax};
use jiff::Timestamp;
use serde::Serialize;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpStream, lookup_host};
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use crate::client::Client;
use crate::exit::{Exit, Failure};
use crate::output::{Output, Paint};
use crate::views::Status as NodeStatus;
use crate::words;

/// The kinds of object that hospitals send most.
const USUAL: [&str; 9] = [
    uids::CT_IMAGE_STORAGE,
    uids::MR_IMAGE_STORAGE,
    uids::COMPUTED_RADIOGRAPHY_IMAGE_STORAGE,
    uids::DIGITAL_X_RAY_IMAGE_STORAGE_FOR_PRESENTATION,
    uids::ULTRASOUND_IMAGE_STORAGE,
    uids::X_RAY_ANGIOGRAPHIC_IMAGE_STORAGE,
    uids::SECONDARY_CAPTURE_IMAGE_STORAGE,
    uids::ENHANCED_CT_IMAGE_STORAGE,
    uids::ENHANCED_MR_IMAGE_STORAGE,
];

/// Can a partner be reached, and does it know us?
///
/// Goes from name to address, TCP, TLS, DICOM association, C-ECHO and what it takes, and explains the first step that fails. Exit code 8
/// says that the partner refused, 9 that it cannot be reached.
#[derive(Args, Debug)]
#[command(before_help = "\
Examples:
  gantry partner test york-ed
  gantry partner test york-ed --json | jq '{ok, meaning, do}'")]
pub(super) struct Arguments {
    /// The partner, by its name in the configuration
    name: String,
}

/// What `--json` prints.
#[derive(Debug, Serialize)]
struct Report<'a> {
    ok: bool,
    partner: &'a str,
    steps: Vec<Step>,
    #[serde(skip_serializing_if = "Option::is_none")]
    meaning: Option<String>,
    #[serde(rename = "do", skip_serializing_if = "Option::is_none")]
    what_to_do: Option<String>,
    /// Deliveries that wait for it; null where the node does not run.
    waiting: Option<u64>,
}

#[derive(Debug, Serialize)]
struct Step {
    layer: &'static str,
    ok: bool,
    text: String,
    milliseconds: u64,
}

/// Why a step did not work.
#[derive(Debug)]
struct Obstacle {
    exit: Exit,
    /// The technical text, on the step's own line.
    text: String,
    meaning: String,
    what_to_do: String,
}

pub(super) async fn run(
    arguments: &Arguments,
    config: &Config,
    output: Output,
) -> Result<Exit, Failure> {
    let partner = config
        .partner(&arguments.name)
        .ok_or_else(|| super::super::unknown_partner(config, &arguments.name))?;
    let mut walk = Walk { config, partner, output, steps: Vec::new() };
    let walked = walk.all().await?;
    let waiting = waiting(config, partner).await;
    let exit = walked.as_ref().err().map_or(Exit::Done, |obstacle| obstacle.exit);
    let steps = walk.steps;
    if output.is_json() {
        let (meaning, what_to_do) =
            walked.err().map(|obstacle| (obstacle.meaning, obstacle.what_to_do)).unzip();
        let ok = exit == Exit::Done;
        output.json(&Report { ok, partner: &partner.name, steps, meaning, what_to_do, waiting })?;
        return Ok(exit);
    }
    if let Err(obstacle) = walked {
        output.line(format_args!("meaning  {}", obstacle.meaning))?;
        output.line(format_args!("do       {}", obstacle.what_to_do))?;
        if let Some(waiting @ 1..) = waiting {
            let images = words::count(waiting, "image stays", "images stay");
            output.line(format_args!("         {images} queued until then."))?;
        }
    }
    Ok(exit)
}

async fn waiting(config: &Config, partner: &Partner) -> Option<u64> {
    let mut node = Client::connect(config).await.ok()?;
    let status: NodeStatus = node.get("/api/v1/status").await.ok()?;
    status.partners.iter().find(|counts| counts.name == partner.name).map(|counts| counts.waiting)
}

/// The steps, told as they are taken.
struct Walk<'a> {
    config: &'a Config,
    partner: &'a Partner,
    output: Output,
    steps: Vec<Step>,
}

type Walked<T> = Result<T, Obstacle>;

impl Walk<'_> {
    async fn all(&mut self) -> Result<Walked<()>, Failure> {
        macro_rules! step {
            ($layer:literal, $taken:expr) => {{
                let began = Instant::now();
                match self.told($layer, began, $taken.await)? {
                    Ok(reached) => reached,
                    Err(obstacle) => return Ok(Err(obstacle)),
                }
            }};
        }
        let (config, partner) = (self.config, self.partner);
        let way = Way { config, partner, patience: config.delivery.connect_timeout };
        let addresses = step!("name", way.name());
        let (address, stream) = step!("tcp", way.tcp(&addresses));
        let stream: Box<dyn Stream> = match partner.tls {
            PartnerTls::Off => Box::new(stream),
            PartnerTls::Mutual => Box::new(step!("tls", way.tls(address, stream))),
        };
        let mut association = step!("dicom", way.dicom(address, stream));
        step!("echo", way.echo(&mut association));
        step!("takes", way.takes(&association));
        association.release(Duration::from_secs(2)).await;
        Ok(Ok(()))
    }

    /// Notes a step, and says it.
    fn told<T>(
        &mut self,
        layer: &'static str,
        began: Instant,
        taken: Walked<(T, String)>,
    ) -> Result<Walked<T>, Failure> {
        let milliseconds = began.elapsed().as_millis().try_into().unwrap_or(u64::MAX);
        let (taken, text) = match taken {
            Ok((reached, text)) => (Ok(reached), text),
            Err(obstacle) => {
                let text = obstacle.text.clone();
                (Err(obstacle), text)
            }
        };
        let ok = taken.is_ok();
        if !self.output.is_json() {
            let sign = if ok {
                self.output.paint(Paint::Green, "✓")
            } else {
                self.output.paint(Paint::Red, "✗")
            };
            self.output.line(format_args!("{layer:<8} {text:<72} {sign} {milliseconds:>5} ms"))?;
        }
        self.steps.push(Step { layer, ok, text, milliseconds });
        Ok(taken)
    }
}

/// How the partner is reached: one function a layer, each with what it found in words.
struct Way<'a> {
    config: &'a Config,
    partner: &'a Partner,
    patience: Duration,
}

impl Way<'_> {
    async fn name(&self) -> Walked<(Vec<SocketAddr>, String)> {
        let (host, port) = (self.partner.address.host.as_str(), self.partner.address.port);
        let unknown = |text: String| Obstacle {
            exit: Exit::Unreachable,
            text,
            meaning: format!("This machine finds no address for {host}."),
            what_to_do: format!(
                "Check `address` of {} in the configuration, and this machine's DNS: `getent hosts {host}`.",
                self.partner.name
            ),
        };
        match timeout(self.patience, lookup_host((host, port))).await {
            Err(_) => Err(unknown(format!("no answer about {host} within {:?}", self.patience))),
            Ok(Err(error)) => Err(unknown(format!("{host}: {error}"))),
            Ok(Ok(addresses)) => {
                let addresses: Vec<_> = addresses.collect();
                let ips: Vec<_> =
                    addresses.iter().map(|address| address.ip().to_string()).collect();
                let text = match ips.as_slice() {
                    [] => return Err(unknown(format!("{host} has no address"))),
                    [ip] if ip == host => format!("{} → {ip}", self.partner.name),
                    ips => format!("{} → {host} → {}", self.partner.name, ips.join(", ")),
                };
                Ok((addresses, text))
            }
        }
    }

    async fn tcp(&self, addresses: &[SocketAddr]) -> Walked<((SocketAddr, Tcp), String)> {
        let mut last = None;
        for address in addresses {
            let error = match timeout(self.patience, TcpStream::connect(address)).await {
                Ok(connected) => match connected.and_then(Tcp::new) {
                    Ok(stream) => return Ok(((*address, stream), format!("{address} open"))),
                    Err(error) => error,
                },
                Err(_) => io::ErrorKind::TimedOut.into(),
            };
            last = Some((*address, error));
        }
        let (address, error) = last.unwrap_or_else(|| {
            (SocketAddr::from(([0, 0, 0, 0], 0)), io::ErrorKind::AddrNotAvailable.into())
        });
        let who = &self.partner.display_name;
        let (text, meaning, what_to_do) = match error.kind() {
            io::ErrorKind::ConnectionRefused => (
                format!("{address} closed"),
                format!("The machine answers, and nothing listens on port {}.", address.port()),
                format!("Ask {who} whether their system runs, and on which port.{}", self.phone()),
            ),
            io::ErrorKind::TimedOut => (
                format!("{address} does not answer within {:?}", self.patience),
                "The packets get lost: a firewall drops them, or the machine is off.".to_owned(),
                format!(
                    "Ask your network team and {who} for a rule from this machine to {}, TCP port {}.{}",
                    address.ip(),
                    address.port(),
                    self.phone()
                ),
            ),
            _ => (
                format!("{address}: {error}"),
                "This machine has no way to that address.".to_owned(),
                format!("Ask your network team for a route to {}.", address.ip()),
            ),
        };
        Err(Obstacle { exit: Exit::Unreachable, text, meaning, what_to_do })
    }

    async fn tls(&self, address: SocketAddr, stream: Tcp) -> Walked<(TlsStream<Tcp>, String)> {
        let ours = |error: &dyn std::error::Error| Obstacle {
            exit: Exit::Usage,
            text: chain(error).to_string(),
            meaning: "Our own TLS files cannot be used.".to_owned(),
            what_to_do: "Run `gantry check`.".to_owned(),
        };
        let Some(identity) = &self.config.tls else {
            return Err(ours(&io::Error::other("there is no [tls] section")));
        };
        let client = tls::client_config(identity, &self.partner.certificates)
            .map_err(|error| ours(&error))?;
        let name = tls::server_name(&self.partner.address).map_err(|error| ours(&error))?;
        match timeout(self.patience, TlsConnector::from(client).connect(name, stream)).await {
            Ok(Ok(stream)) => {
                let text = secured(&stream);
                Ok((stream, text))
            }
            Ok(Err(error)) => Err(self.tls_trouble(address, &tls::explain(&error)).await),
            Err(_) => Err(Obstacle {
                exit: Exit::Unreachable,
                text: format!("no TLS handshake within {:?}", self.patience),
                meaning: "Something listens there and does not speak TLS, or hangs.".to_owned(),
                what_to_do: format!(
                    "Ask {} which port takes DICOM over TLS.{}",
                    self.partner.display_name,
                    self.phone()
                ),
            }),
        }
    }

    async fn tls_trouble(&self, address: SocketAddr, trouble: &Trouble) -> Obstacle {
        let who = &self.partner.display_name;
        let name = &self.partner.name;
        let phone = self.phone();
        let (exit, meaning, what_to_do) = match trouble {
            Trouble::TheirsExpired { .. } => (
                Exit::Unreachable,
                "Their certificate is past its time, so nobody can know that it is them.".to_owned(),
                format!("Ask {who} for their new certificate, and put it where `certificate` of {name} says.{phone}"),
            ),
            Trouble::TheirsNotYetValid => (
                Exit::Unreachable,
                "Their certificate is for a later time, or one of the two clocks is wrong.".to_owned(),
                format!("Compare the clocks: here it is {}.", Timestamp::now().strftime("%Y-%m-%d %H:%M UTC")),
            ),
            Trouble::TheirsUnknownAuthority => (
                Exit::Unreachable,
                "They show a certificate of an authority that this node does not believe.".to_owned(),
                format!("Ask {who} for their authority's certificate, and add it to `authorities` under [tls].{phone}"),
            ),
            Trouble::TheirsWrongName { expected, .. } => (
                Exit::Unreachable,
                format!("Their certificate does not bear the name {expected}, by which this node calls them."),
                format!("Pin it with `certificate` of {name}, or ask {who} for one that bears that name.{phone}"),
            ),
            Trouble::TheirsNotPinned { shown } => (
                Exit::Unreachable,
                "They show another certificate than the one that is pinned: a new one, or somebody else.".to_owned(),
                format!(
                    "Ask {who}, by phone, whether theirs has fingerprint {}. If so, put it where `certificate` of {name} \
                     says.{phone}",
                    shown.shown
                ),
            ),
            Trouble::TheirsMissing | Trouble::TheirsWrongUse | Trouble::TheirsUnfit(_) => (
                Exit::Unreachable,
                "Their certificate cannot be used to know them by.".to_owned(),
                format!("Ask {who} for a certificate for server and client authentication.{phone}"),
            ),
            Trouble::OursRefused(_) => self.ours_refused(),
            Trouble::NothingInCommon => (
                Exit::Unreachable,
                "They speak only TLS versions or ciphers that are not safe any more.".to_owned(),
                format!("Ask {who} to allow TLS 1.2 with forward secrecy, or TLS 1.3 (PS3.15 B.12).{phone}"),
            ),
            Trouble::Plaintext | Trouble::Closed | Trouble::Other(_) => match self.speaks(address).await {
                Speaks::Http => self.wrong_port("That port speaks HTTP: it is a web page, not a DICOM node."),
                Speaks::Dicom => self.wrong_port("That port speaks DICOM without TLS, and this node wants TLS."),
                Speaks::Tls | Speaks::Else if *trouble == Trouble::Plaintext => {
                    self.wrong_port("That port does not speak TLS.")
                }
                Speaks::Tls | Speaks::Else => (
                    Exit::Unreachable,
                    "They ended the handshake without a reason: many systems do so to certificates that they do not know."
                        .to_owned(),
                    format!(
                        "Ask {who} whether they have our certificate ({}), and what their log says.{phone}",
                        self.ours()
                    ),
                ),
            },
        };
        Obstacle { exit, text: trouble.to_string(), meaning, what_to_do }
    }

    fn wrong_port(&self, meaning: &str) -> (Exit, String, String) {
        let what_to_do = format!(
            "Ask {} which port takes DICOM{}, and correct `address` of {}.{}",
            self.partner.display_name,
            if self.partner.tls == PartnerTls::Mutual { " over TLS" } else { "" },
            self.partner.name,
            self.phone()
        );
        (Exit::Unreachable, meaning.to_owned(), what_to_do)
    }

    fn ours_refused(&self) -> (Exit, String, String) {
        (
            Exit::Refused,
            "They do not accept our certificate.".to_owned(),
            format!(
                "Send {} our certificate, and its authority's: {}.{}",
                self.partner.display_name,
                self.ours(),
                self.phone()
            ),
        )
    }

    /// The file that a partner needs of us.
    fn ours(&self) -> String {
        self.config
            .tls
            .as_ref()
            .map(|tls| tls.identity.certificate.display().to_string())
            .unwrap_or_default()
    }

    async fn dicom(
        &self,
        address: SocketAddr,
        stream: Box<dyn Stream>,
    ) -> Walked<(Requestor<Box<dyn Stream>>, String)> {
        let mut proposal = self.proposal();
        proposal
            .contexts
            .extend(self.kinds().into_iter().map(|(class, syntax)| (class, vec![syntax])));
        match Requestor::associate(stream, &proposal).await {
            Ok(association) => {
                Ok((association, format!("{} accepted {}", proposal.called, proposal.calling)))
            }
            Err(RequestError::Rejected(rejection)) => Err(self.rejected(&rejection)),
            Err(error) => Err(self.associate_broke(address, &error).await),
        }
    }

    /// What is asked for: the kinds of object that hospitals send most, and those that this partner was asked for before, as
    /// they go.
    fn kinds(&self) -> Vec<(SopClassUid, TransferSyntax)> {
        let known = Capabilities::of(&self.config.node.data_dir)
            .known(&self.partner.name, Timestamp::now());
        let jpeg_ls = (self.partner.compress != Compress::Never).then_some(uids::JPEGLS_LOSSLESS);
        let common = USUAL.iter().flat_map(|class| {
            [Some(uids::EXPLICIT_VR_LITTLE_ENDIAN), jpeg_ls]
                .into_iter()
                .flatten()
                .map(|syntax| ((*class).to_owned(), syntax.to_owned()))
        });
        let known = known.into_iter().map(|known| (known.sop_class, known.transfer_syntax));
        let mut kinds: Vec<(SopClassUid, TransferSyntax)> = Vec::new();
        for (class, syntax) in common.chain(known) {
            let (Ok(class), Ok(syntax)) = (class.parse(), syntax.parse()) else { continue };
            let kind = (class, syntax);
            if !kinds.contains(&kind) {
                kinds.push(kind);
            }
        }
        // Beside that for C-ECHO.
        kinds.truncate(MAX_CONTEXTS - 1);
        kinds
    }

    /// Which of these it takes; noted for those who ask later.
    async fn takes(&self, association: &Requestor<Box<dyn Stream>>) -> Walked<((), String)> {
        let answers: Vec<_> = self
            .kinds()
            .into_iter()
            .map(|(class, syntax)| {
                let accepted = association.context_for(&class, &syntax).is_some();
                (class, syntax, accepted)
            })
            .collect();
        let classes = |accepted_only: bool| {
            let of = answers.iter().filter(|(.., accepted)| *accepted || !accepted_only);
            of.map(|(class, ..)| class).collect::<BTreeSet<_>>().len()
        };
        let compressed = answers
            .iter()
            .any(|(_, syntax, accepted)| *accepted && syntax.uid() == uids::JPEGLS_LOSSLESS);
        let text = format!(
            "{} of {} kinds of object{}",
            classes(true),
            classes(false),
            if compressed { ", JPEG-LS too" } else { "" }
        );
        let (data_dir, name) = (self.config.node.data_dir.clone(), self.partner.name.clone());
        // What cannot be noted is asked again next time.
        let _ = tokio::task::spawn_blocking(move || {
            Capabilities::of(&data_dir).note(&name, &answers, Timestamp::now())
        })
        .await;
        Ok(((), text))
    }

    /// An association for C-ECHO.
    fn proposal(&self) -> Proposal {
        let syntaxes = vec![
            TransferSyntax::explicit_vr_little_endian(),
            TransferSyntax::implicit_vr_little_endian(),
        ];
        Proposal {
            calling: self.config.node.ae_title.clone(),
            called: self.partner.ae_title.clone(),
            contexts: uids::VERIFICATION
                .parse()
                .ok()
                .map(|class| (class, syntaxes))
                .into_iter()
                .collect(),
            provides: None,
            max_pdu: self.config.limits.max_pdu,
            patience: self.patience,
        }
    }

    fn rejected(&self, rejection: &AssociationRJ) -> Obstacle {
        use AssociationRJServiceProviderPresentationReason as Presentation;
        use AssociationRJServiceUserReason as User;
        let who = &self.partner.display_name;
        let (ours, theirs): (&AeTitle, &AeTitle) =
            (&self.config.node.ae_title, &self.partner.ae_title);
        let phone = self.phone();
        let (exit, meaning, what_to_do) = match &rejection.source {
            AssociationRJSource::ServiceUser(User::CallingAETitleNotRecognized) => (
                Exit::Refused,
                format!("They have no entry for {ours}."),
                format!(
                    "Ask {who} to add AE title {ours}, at the address they see us come from.{phone}"
                ),
            ),
            AssociationRJSource::ServiceUser(User::CalledAETitleNotRecognized) => (
                Exit::Refused,
                format!("The host answers DICOM, but nothing there is called {theirs}."),
                format!(
                    "Ask {who} for their AE title, and correct `ae-title` of {}.{phone}",
                    self.partner.name
                ),
            ),
            AssociationRJSource::ServiceProviderPresentation(
                Presentation::TemporaryCongestion | Presentation::LocalLimitExceeded,
            ) => (
                Exit::Temporary,
                "They have no association free at the moment.".to_owned(),
                format!(
                    "Nothing; it is tried again by itself. If it lasts, lower `associations` of {}.",
                    self.partner.name
                ),
            ),
            _ => (
                Exit::Refused,
                "They refused the association and gave no reason that says more.".to_owned(),
                format!("Ask {who} what their log says of {ours}.{phone}"),
            ),
        };
        Obstacle {
            exit,
            text: RequestError::Rejected(rejection.clone()).to_string(),
            meaning,
            what_to_do,
        }
    }

    async fn associate_broke(&self, address: SocketAddr, error: &RequestError) -> Obstacle {
        let tls_expected = self.partner.tls == PartnerTls::Mutual;
        // With TLS 1.3 a caller hears only after the handshake that its certificate was refused.
        let refused = match error {
            RequestError::Wire(WireError::Lost(source)) if tls_expected => {
                Some(tls::explain(source))
            }
            _ => None,
        };
        if let Some(trouble @ Trouble::OursRefused(_)) = refused {
            let (exit, meaning, what_to_do) = self.ours_refused();
            return Obstacle { exit, text: trouble.to_string(), meaning, what_to_do };
        }
        let text = chain(error).to_string();
        match error {
            RequestError::Wire(WireError::NotDicom(_)) => match self.speaks(address).await {
                Speaks::Http => {
                    let meaning = "That port speaks HTTP: it is a web page, not a DICOM node.";
                    let (exit, meaning, what_to_do) = self.wrong_port(meaning);
                    Obstacle { exit, text, meaning, what_to_do }
                }
                Speaks::Tls => Obstacle {
                    exit: Exit::Unreachable,
                    text,
                    meaning: "That port wants TLS, and this node speaks without.".to_owned(),
                    what_to_do: format!(
                        "Remove `tls = \"off\"` of {} from the configuration.",
                        self.partner.name
                    ),
                },
                Speaks::Dicom | Speaks::Else => {
                    self.broken(address, &text, "What answers there does not speak DICOM.")
                }
            },
            RequestError::Wire(WireError::TimedOut(_)) => {
                self.broken(address, &text, "It took the connection and does not answer: it hangs, or wants TLS.")
            }
            _ if tls_expected => self.broken(
                address,
                &text,
                "They ended the connection instead of answering: many systems do so to certificates or addresses that they \
                 do not know.",
            ),
            _ => self.broken(
                address,
                &text,
                "They ended the connection instead of answering: the port may want TLS, or our address is not on their list.",
            ),
        }
    }

    fn broken(&self, address: SocketAddr, text: &str, meaning: &str) -> Obstacle {
        Obstacle {
            exit: Exit::Unreachable,
            text: text.to_owned(),
            meaning: meaning.to_owned(),
            what_to_do: format!(
                "Ask {} what their log says of our connection to {address}.{}",
                self.partner.display_name,
                self.phone()
            ),
        }
    }

    async fn echo(&self, association: &mut Requestor<Box<dyn Stream>>) -> Walked<((), String)> {
        if !association.has_contexts() {
            return Err(Obstacle {
                exit: Exit::Refused,
                text: "no presentation context for verification".to_owned(),
                meaning: "They know us, and do not offer C-ECHO, which every DICOM node should (PS3.4 A).".to_owned(),
                what_to_do: "Nothing, if images arrive. Otherwise ask them which SOP classes they take from us.".to_owned(),
            });
        }
        match association.echo().await {
            Ok(Status::SUCCESS) => Ok(((), "C-ECHO answered".to_owned())),
            Ok(status) => Err(Obstacle {
                exit: Exit::Refused,
                text: format!("C-ECHO was answered {status}"),
                meaning: "They know us, and refuse even a test.".to_owned(),
                what_to_do: format!(
                    "Ask {} what their log says.{}",
                    self.partner.display_name,
                    self.phone()
                ),
            }),
            Err(error) => Err(Obstacle {
                exit: Exit::Unreachable,
                text: chain(&error).to_string(),
                meaning: "The association broke before C-ECHO was answered.".to_owned(),
                what_to_do: format!(
                    "Ask {} what their log says.{}",
                    self.partner.display_name,
                    self.phone()
                ),
            }),
        }
    }

    /// Whom to call, behind a sentence.
    fn phone(&self) -> String {
        self.partner
            .phone
            .as_ref()
            .map(|phone| format!(" Their number: {phone}."))
            .unwrap_or_default()
    }
}

/// Version, and whose certificate; the peer's was checked before.
fn secured(stream: &TlsStream<Tcp>) -> String {
    let (_, session) = stream.get_ref();
    let version = match session.protocol_version() {
        Some(tokio_rustls::rustls::ProtocolVersion::TLSv1_3) => "TLS 1.3",
        Some(tokio_rustls::rustls::ProtocolVersion::TLSv1_2) => "TLS 1.2",
        _ => "TLS",
    };
    let theirs =
        session.peer_certificates().and_then(|chain| CertificateFacts::of(chain.first()?).ok());
    match theirs {
        Some(theirs) => {
            format!("{version}, {}, until {}", theirs.subject, words::day(theirs.not_after))
        }
        None => version.to_owned(),
    }
}

/// What a port speaks that does not speak what it should.
enum Speaks {
    Http,
    Tls,
    Dicom,
    Else,
}

impl Way<'_> {
    /// Finds out by asking in two languages.
    async fn speaks(&self, address: SocketAddr) -> Speaks {
        match timeout(self.patience, first_bytes(address)).await {
            Ok(Ok(bytes)) if bytes.starts_with(b"HTTP/") => return Speaks::Http,
            // An alert, which is how TLS answers what is not TLS.
            Ok(Ok([0x15, ..])) => return Speaks::Tls,
            Ok(Ok([1..=7, ..])) => return Speaks::Dicom,
            _ => {}
        }
        let asked = async {
            let stream =
                TcpStream::connect(address).await.and_then(Tcp::new).map_err(WireError::from)?;
            Requestor::associate(stream, &self.proposal()).await
        };
        match timeout(self.patience, asked).await {
            Ok(Ok(association)) => {
                association.abort().await;
                Speaks::Dicom
            }
            Ok(Err(RequestError::Rejected(_) | RequestError::Wire(WireError::Aborted(_)))) => {
                Speaks::Dicom
            }
            _ => Speaks::Else,
        }
    }
}

/// How a port answers a browser. A DICOM node aborts (PS3.8 9.3.8) or hangs up.
async fn first_bytes(address: SocketAddr) -> io::Result<[u8; 5]> {
    let mut stream = TcpStream::connect(address).await?;
    stream.write_all(b"HEAD / HTTP/1.0\r\n\r\n").await?;
    let mut first = [0; 5];
    stream.read_exact(&mut first).await?;
    Ok(first)
}
