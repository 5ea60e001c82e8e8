//! Fetching what is missing: C-MOVE to ourselves, by image where the names are known, else by series.

use std::fmt::Write as _;
use std::time::Duration;

use gantry_store::dicom::StudyInstanceUid;
use gantry_store::index::{CountDue, IndexError};
use jiff::{SignedDuration, Timestamp};
use tokio::time::timeout;

use super::ask::{self, AskError, Missing};
use super::{Counter, association};
use crate::association::dimse::SubOperations;
use crate::association::query::{self, FIND, MOVE};
use crate::association::services::storage_commitment::known;
use crate::association::status::{Meaning, Status};
use crate::config::{Config, ListenerTls, Source};
use crate::partner::connect::Association;
use crate::telemetry::chain;
use crate::telemetry::metrics::BySourceAndResult;

/// Images of one C-MOVE. Each name has up to 64 characters, and some archives take no long lists.
const BATCH: usize = 100;
/// How long a source may be silent in the middle of a C-MOVE. Some have to load a tape.
const SILENCE: Duration = Duration::from_mins(10);
/// How long the C-MOVEs of one study may take.
const MOVING: Duration = Duration::from_mins(50);
/// How long a study that is being fetched is left alone by others.
const LEASE: SignedDuration = SignedDuration::from_mins(60);

/// What came of the C-MOVEs of one study.
#[derive(Debug, Default)]
struct Moves {
    asked: u64,
    whole_series: u64,
    images: SubOperations,
    came: u64,
    failed: u64,
    /// Why it was of no use to go on, or why something did not come.
    why: Option<String>,
}

impl Counter {
    /// Has a source send what is missing of a study, and has it counted again.
    pub(super) async fn fetch(&self, source: &Source, due: &CountDue) -> Result<(), IndexError> {
        let study = &due.study;
        let now = Timestamp::now();
        let lease = now.saturating_add(LEASE).unwrap_or(Timestamp::MAX);
        if !self.index.take_fetch(study, now, lease).await? {
            return Ok(());
        }
        let moves = match timeout(MOVING, self.fetch_missing(source, study)).await {
            Ok(Ok(moves)) => moves,
            Ok(Err(AskError::Index(error))) => return Err(error),
            Ok(Err(error)) => {
                let why =
                    format!("{} could not be asked for the rest: {}", source.name, chain(&error));
                Moves { why: Some(why), ..Moves::default() }
            }
            Err(_) => {
                let why = format!(
                    "{} took more than {} min to send the rest",
                    source.name,
                    MOVING.as_secs() / 60
                );
                Moves { why: Some(why), ..Moves::default() }
            }
        };
        for (result, count) in [("came", moves.came), ("failed", moves.failed)] {
            let label = BySourceAndResult { source: source.name.clone(), result };
            self.metrics.fetched.get_or_create(&label).inc_by(count);
        }
        let detail = detail(source, &moves);
        tracing::info!(
            source = source.name, %study, asked = moves.asked, came = moves.came, failed = moves.failed,
            why = moves.why, "what was missing was asked for"
        );
        self.index.settle_fetch(study, moves.why.as_deref(), &detail, Timestamp::now()).await?;
        self.wake.changed();
        Ok(())
    }

    async fn fetch_missing(
        &self,
        source: &Source,
        study: &StudyInstanceUid,
    ) -> Result<Moves, AskError> {
        let mut open = association(&self.config, source, vec![known(FIND), known(MOVE)]).await?;
        let done = self.on(&mut open, source, study).await;
        match &done {
            Ok(_) => open.release(self.config.limits.release_timeout).await,
            Err(_) => open.abort().await,
        }
        done
    }

    async fn on(
        &self,
        open: &mut Association,
        source: &Source,
        study: &StudyInstanceUid,
    ) -> Result<Moves, AskError> {
        let context = open.context_of(MOVE).ok_or(AskError::NotOffered("C-MOVE"))?;
        let listed = ask::list(open, study, &self.index.held_images(study).await?).await?;
        let (_, missing) = ask::compare(&listed, &self.index.held_images(study).await?);
        let destination = &self.config.node.ae_title;
        self.fetching.begin(study, destination, self.index.ways(study).await?);
        open.set_patience(SILENCE);
        let mut moves = Moves::default();
        for identifier in identifiers(study, &missing, &mut moves) {
            let moved =
                open.move_to(context, &known(MOVE), destination, &identifier, |_| {}).await?;
            moves.add(moved.images);
            match moved.status.meaning() {
                Meaning::Success | Meaning::Warning => {}
                _ => {
                    moves.why = Some(refusal(&self.config, source, moved.status, moved.images));
                    break;
                }
            }
        }
        if moves.why.is_none() && moves.failed > 0 {
            moves.why = Some(not_all(source, &moves));
        }
        // Some answer first and send later.
        self.fetching.begin(study, destination, self.index.ways(study).await?);
        Ok(moves)
    }
}

/// What is asked for, one identifier a C-MOVE.
fn identifiers(
    study: &StudyInstanceUid,
    missing: &Missing,
    moves: &mut Moves,
) -> Vec<crate::association::data_set::DataSet> {
    let mut identifiers = Vec::new();
    for (series, images) in missing {
        if images.is_empty() {
            moves.whole_series += 1;
            identifiers.push(query::wanted(study, series, &[]));
        }
        moves.asked += images.len() as u64;
        identifiers.extend(images.chunks(BATCH).map(|images| query::wanted(study, series, images)));
    }
    identifiers
}

impl Moves {
    fn add(&mut self, images: SubOperations) {
        self.images = images;
        self.came += u64::from(images.completed) + u64::from(images.warning);
        self.failed += u64::from(images.failed);
    }
}

/// "1 image asked for at pacs: 1 came."
fn detail(source: &Source, moves: &Moves) -> String {
    let images =
        |count: u64| if count == 1 { "1 image".to_owned() } else { format!("{count} images") };
    let mut asked = Vec::new();
    if moves.asked > 0 {
        asked.push(images(moves.asked));
    }
    if moves.whole_series > 0 {
        asked.push(format!("{} series", moves.whole_series));
    }
    let mut text = if asked.is_empty() {
        format!("nothing asked for at {}", source.name)
    } else {
        format!("{} asked for at {}: {} came", asked.join(" and "), source.name, moves.came)
    };
    // Writing to a string does not fail.
    if moves.failed > 0 {
        let _ = write!(text, ", {} failed", moves.failed);
    }
    if let Some(why) = &moves.why {
        let _ = write!(text, "; {why}");
    }
    text
}

fn not_all(source: &Source, moves: &Moves) -> String {
    format!(
        "{} could not send {} of the images to this gateway: its log, or this gateway's, says why",
        source.name, moves.failed
    )
}

/// Why a source does not send what was asked for, and what to do (PS3.4 C.4.2.1.5).
fn refusal(config: &Config, source: &Source, status: Status, images: SubOperations) -> String {
    let name = &source.name;
    match status.0 {
        0xA801 => {
            let tls = match source.certificate {
                Some(_) => ListenerTls::Mutual,
                None => ListenerTls::Off,
            };
            let listeners: Vec<_> = config
                .listeners
                .iter()
                .filter(|listener| listener.tls == tls)
                .map(|listener| listener.name.as_str())
                .collect();
            let port = match listeners.as_slice() {
                [] => String::new(),
                some => format!(" ({})", some.join(" or ")),
            };
            format!(
                "{name} does not know this gateway as a destination ({status}): add {} with host and port{port} to the \
                 PACS's list of destinations",
                config.node.ae_title
            )
        }
        0xA701 | 0xA702 => format!(
            "{name} has no means to send them now ({:04X}H, {} failed): if it stays so, its administrators must look",
            status.0, images.failed
        ),
        _ => format!(
            "{name} refused to send them ({status}): ask its administrators whether {} may retrieve from it, and is in its \
             list of destinations",
            config.node.ae_title
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::config_with;

    fn source() -> Source {
        Source {
            name: "pacs".to_owned(),
            ae_title: "PACS".parse().unwrap(),
            called: Vec::new(),
            address: None,
            counted: true,
            fetch: true,
            certificate: None,
            token: None,
            may: std::collections::BTreeSet::new(),
            move_to: Vec::new(),
        }
    }

    #[test]
    fn a_refusal_says_what_to_do() {
        let config = config_with(&[]);
        let says = |status| refusal(&config, &source(), Status(status), SubOperations::default());
        assert_eq!(
            says(0xA801),
            "pacs does not know this gateway as a destination (A801H (move destination unknown)): add GANTRY with host \
             and port to the PACS's list of destinations"
        );
        assert!(says(0xC001).contains("whether GANTRY may retrieve from it"));
    }

    #[test]
    fn what_was_asked_for_and_what_came_is_said_in_one_line() {
        let mut moves = Moves { asked: 2, whole_series: 1, ..Moves::default() };
        moves.add(SubOperations { completed: 1, warning: 1, failed: 1, remaining: 0 });
        assert_eq!(
            detail(&source(), &moves),
            "2 images and 1 series asked for at pacs: 2 came, 1 failed"
        );
        let nothing = Moves { why: Some("it is away".to_owned()), ..Moves::default() };
        assert_eq!(detail(&source(), &nothing), "nothing asked for at pacs; it is away");
    }

    #[test]
    fn a_long_list_is_asked_for_in_parts() {
        let images: Vec<_> =
            (0..250).map(|image| format!("2.25.{image}").parse().unwrap()).collect();
        let series = "2.25.1000".parse().unwrap();
        let missing = Missing::from([(series, images), ("2.25.1001".parse().unwrap(), Vec::new())]);
        let mut moves = Moves::default();

        let identifiers = identifiers(&"2.25.7".parse().unwrap(), &missing, &mut moves);

        assert_eq!((identifiers.len(), moves.asked, moves.whole_series), (4, 250, 1));
    }
}
