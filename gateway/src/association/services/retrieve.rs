//! Retrieval (PS3.4 Annex C): C-GET, which sends back on the association it came on, and C-MOVE, which sends to somebody whom
//! the asker may have sent something to.
//!
//! What is sent is opened, protected and converted on a thread of its own while what comes before it is on the line; nothing
//! is in memory whole that would not be otherwise. An instance that cannot be sent fails for itself, and is in the list of
//! those that did. A cancellation is heard between two instances.

use std::collections::BTreeSet;
use std::pin::pin;
use std::str::FromStr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use dicom_core::Tag;
use dicom_dictionary_std::tags;
use gantry_store::dicom::{
    SeriesInstanceUid, SopClassUid, SopInstanceUid, StudyInstanceUid, TransferSyntax,
};
use gantry_store::facts::ObjectId;
use gantry_store::index::{Failure, FailureKind, Index, IndexError, Object, Page, Scope, Wanted};
use gantry_store::query::{Extended, Level, Model as Root, Query};
use jiff::Timestamp;
use tokio::sync::mpsc;
use tokio::time::timeout;

use super::identifier::{Identifier, MAX_IDENTIFIER};
use super::storage;
use crate::access;
use crate::association::acceptor::{self, Session};
use crate::association::data_set::DataSet;
use crate::association::dimse::{
    CGetRq, CMoveRq, CStoreRq, Progress, Request, Response, SubOperations,
};
use crate::association::negotiation::{Contexts, Model, PresentationContext};
use crate::association::requestor::RequestError;
use crate::association::status::Status;
use crate::association::wire::{Stream, Wire, WireError};
use crate::config::{Compress, Config};
use crate::partner::connect::{self, Association, Callee};
use crate::partner::library::Library;
use crate::partner::store_scu::{self, Description, Piece};
use crate::telemetry::chain;

/// Pieces that are read ahead of the network, of at most 256 KiB each.
const READ_AHEAD: usize = 4;
/// How often the asker hears how far it has come.
const TELL: Duration = Duration::from_secs(1);
/// The most instances of one retrieval; what is known of each is in memory.
const MOST_SENT: usize = 200_000;
/// The most UIDs that one identifier may name.
const MOST_UIDS: usize = 10_000;
/// As many UIDs as the index takes at once.
const UIDS_AT_ONCE: usize = 1000;
/// Rows of one page.
const PAGE: u32 = 1000;
/// The most failed instances that are named: as many as a value of VR UI holds in explicit VR, 65,534 bytes (PS3.5 7.1.2).
const MOST_NAMED: usize = 1000;

/// An instance that is to be sent.
#[derive(Clone, Debug)]
pub struct Item {
    /// Where its bytes are.
    pub object: ObjectId,
    /// What it is.
    pub sop_class: SopClassUid,
    /// Which one it is here.
    pub sop_instance: SopInstanceUid,
    /// Its study here.
    pub study: StudyInstanceUid,
    /// How it is kept.
    pub transfer_syntax: TransferSyntax,
    /// Under which protection it leaves.
    pub protection: Option<String>,
}

/// The context that an instance goes on, and what it has to be converted to for that.
pub type Way = (u8, Option<TransferSyntax>);

/// How the sub-operations of one retrieval go.
#[derive(Debug)]
pub struct Tally {
    remaining: usize,
    completed: usize,
    failed: usize,
    warning: usize,
    failed_instances: Vec<SopInstanceUid>,
    told: Instant,
}

impl Tally {
    /// Nothing is sent yet of so many.
    pub fn new(count: usize) -> Self {
        Self {
            remaining: count,
            completed: 0,
            failed: 0,
            warning: 0,
            failed_instances: Vec::new(),
            told: Instant::now(),
        }
    }

    /// One was answered like this.
    pub fn answered(&mut self, instance: &SopInstanceUid, status: Status) {
        use crate::association::status::Meaning;
        match status.meaning() {
            Meaning::Success => self.completed += 1,
            Meaning::Warning => self.warning += 1,
            _ => return self.failed(instance),
        }
        self.remaining = self.remaining.saturating_sub(1);
    }

    /// One was not sent, or not taken.
    pub fn failed(&mut self, instance: &SopInstanceUid) {
        self.remaining = self.remaining.saturating_sub(1);
        self.failed += 1;
        if self.failed_instances.len() < MOST_NAMED {
            self.failed_instances.push(instance.clone());
        }
    }

    /// How far it has come, if it is time to say so.
    pub fn pending(&mut self) -> Option<Progress<'static>> {
        if self.told.elapsed() < TELL {
            return None;
        }
        self.told = Instant::now();
        let status = Status::PENDING;
        Some(Progress { status, so_far: self.counts(), has_list: false, comment: "" })
    }

    /// In how long it is time to say so.
    fn due(&self) -> Duration {
        TELL.saturating_sub(self.told.elapsed())
    }

    /// How it ended (PS3.4 Tables C.4-2 and C.4-3), and which failed.
    pub fn ended(&self, cancelled: bool) -> (Progress<'static>, Option<DataSet>) {
        let sent = self.completed + self.warning;
        let (status, comment) = match (cancelled, self.failed, sent) {
            (true, _, _) => (Status::CANCELLED, ""),
            (false, 0, _) if self.warning > 0 => {
                (Status::SOME_FAILED, "some were taken with a warning")
            }
            (false, 0, _) => (Status::SUCCESS, ""),
            (false, _, 0) => (Status::CANNOT_SEND, "none could be sent"),
            (false, _, _) => (Status::SOME_FAILED, "some could not be sent"),
        };
        let list = (!self.failed_instances.is_empty()).then(|| {
            let uids: Vec<_> = self.failed_instances.iter().map(SopInstanceUid::as_str).collect();
            DataSet::default().with(FAILED_LIST, &uids.join("\\"))
        });
        (Progress { status, so_far: self.counts(), has_list: list.is_some(), comment }, list)
    }

    fn counts(&self) -> SubOperations {
        // A number of VR US; more than that is as many as can be said.
        let number = |count: usize| u16::try_from(count).unwrap_or(u16::MAX);
        SubOperations {
            remaining: number(self.remaining),
            completed: number(self.completed),
            failed: number(self.failed),
            warning: number(self.warning),
        }
    }
}

/// Failed SOP Instance UID List (0008,0058).
const FAILED_LIST: Tag = tags::FAILED_SOP_INSTANCE_UID_LIST;

/// What is to be sent of what a peer may have.
async fn items(
    session: &Session,
    bytes: &[u8],
    model: &SopClassUid,
    syntax: &TransferSyntax,
) -> Result<Vec<Item>, Refused> {
    let root = Model::of(model.as_str()).ok_or(Refused(Status::SOP_CLASS_NOT_SUPPORTED, ""))?;
    let identifier = Identifier::read(bytes, syntax).map_err(|_| {
        Refused(Status::DATA_SET_MISMATCH, "the identifier cannot be read, or has no level")
    })?;
    let scope = access::scope(&(&session.sender).into());
    let index = &session.node.commitments.index;
    let wanted = if identifier.level == Level::Patient {
        let studies = studies_of_patient(index, &identifier, root.patient_root, &scope).await?;
        pages(&studies, |studies| Wanted { studies, ..Wanted::default() })
    } else {
        wanted(&identifier)?
    };
    let mut items = Vec::new();
    for wanted in wanted {
        let mut after = 0;
        loop {
            let page = index.objects(&wanted, &scope, after, PAGE, Timestamp::now()).await;
            let page = page.map_err(|error| away(&error))?;
            let Some(last) = page.last() else { break };
            after = last.place;
            items.extend(page.into_iter().map(Item::from));
            if items.len() > MOST_SENT {
                return Err(Refused(Status::CANNOT_COUNT, "that is more than is sent at once"));
            }
        }
    }
    Ok(items)
}

fn away(error: &IndexError) -> Refused {
    tracing::warn!(error = %chain(error), "index cannot be asked what is to be sent");
    Refused(Status::CANNOT_COUNT, "the index cannot be asked now; try again later")
}

/// What a request at the patient level is for: the studies of one patient (PS3.4 C.4.2.2.1), as far as the asker may see them.
async fn studies_of_patient(
    index: &Index,
    identifier: &Identifier,
    patient_root: bool,
    scope: &Scope,
) -> Result<Vec<StudyInstanceUid>, Refused> {
    if !patient_root {
        let why = "there is no PATIENT level in the Study Root model";
        return Err(Refused(Status::DATA_SET_MISMATCH, why));
    }
    let one = Refused(Status::DATA_SET_MISMATCH, "it has to name one patient, without wild cards");
    let patient = identifier.keys.iter().find(|(tag, _)| *tag == tags::PATIENT_ID);
    let patient = patient.map(|(_, text)| text.as_str()).unwrap_or_default();
    if patient.is_empty() || patient.contains(['*', '?', '\\']) {
        return Err(one);
    }
    let keys = [(tags::PATIENT_ID, patient), (tags::STUDY_INSTANCE_UID, "")];
    let extended = Extended { relational: true, combined_datetime: false };
    let query = Query::new(Root::PatientRoot, Level::Study, extended, keys).map_err(|_| one)?;
    let most = MOST_UIDS as u64;
    let mut search = index.find_all(&query, scope, Page::default(), most, Timestamp::now());
    let mut studies = Vec::new();
    loop {
        let page = search.next().await.map_err(|error| away(&error))?;
        if page.is_empty() {
            break;
        }
        studies.extend(page.into_iter().filter_map(|found| found.study));
    }
    if search.was_cut() {
        return Err(Refused(Status::CANNOT_COUNT, "that is more than is sent at once"));
    }
    Ok(studies)
}

/// What an identifier wants below the patient, in lists that the index takes. A retrieval names what it wants by unique keys, lists
/// of which are allowed at its level (PS3.4 C.4.2.2.1); those of the levels above narrow it, those below are not looked at.
fn wanted(identifier: &Identifier) -> Result<Vec<Wanted>, Refused> {
    let level = identifier.level;
    let studies: Vec<StudyInstanceUid> = uids(identifier, tags::STUDY_INSTANCE_UID, true)?;
    let series: Vec<SeriesInstanceUid> =
        uids(identifier, tags::SERIES_INSTANCE_UID, level >= Level::Series)?;
    let instances: Vec<SopInstanceUid> =
        uids(identifier, tags::SOP_INSTANCE_UID, level >= Level::Image)?;
    let (own, above) = match level {
        Level::Series => (series.len(), studies.len()),
        Level::Image => (instances.len(), studies.len().max(series.len())),
        Level::Patient | Level::Study => (studies.len(), 0),
    };
    if own == 0 {
        return Err(Refused(Status::DATA_SET_MISMATCH, "the unique key of its level is empty"));
    }
    if own > MOST_UIDS || above > UIDS_AT_ONCE {
        return Err(Refused(Status::CANNOT_COUNT, "it names too many UIDs"));
    }
    Ok(match level {
        Level::Series => pages(&series, |series| Wanted {
            studies: studies.clone(),
            series,
            instances: Vec::new(),
        }),
        Level::Image => pages(&instances, |instances| Wanted {
            studies: studies.clone(),
            series: series.clone(),
            instances,
        }),
        Level::Patient | Level::Study => {
            pages(&studies, |studies| Wanted { studies, ..Wanted::default() })
        }
    })
}

/// The UIDs of a key, each once.
fn uids<U: FromStr + Ord>(
    identifier: &Identifier,
    tag: Tag,
    is_looked_at: bool,
) -> Result<Vec<U>, Refused> {
    let key = identifier.keys.iter().find(|(of, _)| *of == tag && is_looked_at);
    let text = key.map(|(_, text)| text.as_str()).unwrap_or_default();
    let each = text.split('\\').map(str::trim).filter(|uid| !uid.is_empty()).map(str::parse);
    let uids: BTreeSet<U> = each
        .collect::<Result<_, _>>()
        .map_err(|_| Refused(Status::DATA_SET_MISMATCH, "a unique key is not a UID"))?;
    Ok(uids.into_iter().collect())
}

fn pages<T: Clone>(all: &[T], wanted: impl Fn(Vec<T>) -> Wanted) -> Vec<Wanted> {
    all.chunks(UIDS_AT_ONCE).map(|some| wanted(some.to_vec())).collect()
}

impl From<Object> for Item {
    fn from(object: Object) -> Self {
        Self {
            object: object.object,
            sop_class: object.sop_class,
            sop_instance: object.instance,
            study: object.study,
            transfer_syntax: object.transfer_syntax,
            protection: object.protection,
        }
    }
}

/// Why nothing is sent: the status, and a comment for people.
struct Refused(Status, &'static str);

impl Refused {
    fn progress(&self) -> Progress<'static> {
        let so_far = SubOperations::default();
        Progress { status: self.0, so_far, has_list: false, comment: self.1 }
    }
}

/// Answers a C-GET: sends back on this association.
pub async fn get<S: Stream>(
    session: &mut Session,
    wire: &mut Wire<S>,
    context: u8,
    contexts: &Contexts,
    request: &CGetRq,
) -> Result<(), WireError> {
    let syntax = syntax_of(contexts, context)?;
    let items = match collect(session, wire, context, &request.sop_class, &syntax).await? {
        Ok(items) => items,
        Err(refused) => {
            return wire.send_command(context, &request.response(refused.progress())).await;
        }
    };
    let ways = ways_back(contexts, &session.provides);
    let mut tally = Tally::new(items.len());
    let mut pieces = read_ahead(session.node.library.clone(), items.clone(), ways);
    let (mut message_id, mut cancelled) = (request.message_id, false);
    for item in &items {
        if acceptor::is_cancelled(wire, request.message_id, Duration::ZERO).await? {
            cancelled = true;
            break;
        }
        message_id = message_id.wrapping_add(1).max(1);
        match send_back(wire, &mut pieces, message_id, request.message_id).await? {
            Back::Answered(status, wants_no_more) => {
                tally.answered(&item.sop_instance, status);
                cancelled = wants_no_more;
            }
            Back::NotSent => tally.failed(&item.sop_instance),
        }
        if cancelled {
            break;
        }
        if let Some(progress) = tally.pending() {
            wire.send_command(context, &request.response(progress)).await?;
        }
    }
    end(session, wire, context, &syntax, &tally, cancelled, |progress| request.response(progress))
        .await
}

/// Answers a C-MOVE: sends to somebody to whom the asker may have something sent.
pub async fn move_to<S: Stream>(
    session: &mut Session,
    wire: &mut Wire<S>,
    context: u8,
    negotiated: &PresentationContext,
    request: &CMoveRq,
) -> Result<(), WireError> {
    let syntax = negotiated.transfer_syntax.clone();
    let items = collect(session, wire, context, &request.sop_class, &syntax).await?;
    let config = session.node.config.clone();
    let destination = access::destination(&config, &session.sender, &request.destination).ok_or(
        Refused(Status::MOVE_DESTINATION_UNKNOWN, "not one to whom you may have something sent"),
    );
    let (items, callee) = match items.and_then(|items| Ok((items, destination?))) {
        Ok(both) => both,
        Err(refused) => {
            tracing::info!(association = session.number, sender = session.sender.name, status = %refused.0, "C-MOVE refused");
            return wire.send_command(context, &request.response(refused.progress())).await;
        }
    };
    let mut tally = Tally::new(items.len());
    let mut cancelled = false;
    let asked = (context, request);
    let calling = call(session, &config, callee, request, &items);
    let mut line = meanwhile(wire, asked, &mut tally, calling).await?;
    let ways = line.as_ref().map(|line| line.ways.clone()).unwrap_or_default();
    let mut pieces =
        line.is_some().then(|| read_ahead(session.node.library.clone(), items.clone(), ways));
    for item in &items {
        if acceptor::is_cancelled(wire, request.message_id, Duration::ZERO).await? {
            cancelled = true;
            break;
        }
        let sent = match (&mut line, &mut pieces) {
            (Some(line), Some(pieces)) => {
                meanwhile(wire, asked, &mut tally, line.send(pieces)).await?
            }
            _ => Sent::Not,
        };
        match sent {
            Sent::Answered(status) => tally.answered(&item.sop_instance, status),
            Sent::Not => tally.failed(&item.sop_instance),
            Sent::Broken(why) => {
                tracing::warn!(association = session.number, destination = %request.destination, error = why.text, "association of a C-MOVE broke");
                tally.failed(&item.sop_instance);
                // What is left fails with it, and the asker asks again.
                (line, pieces) = (None, None);
            }
        }
        if let Some(progress) = tally.pending() {
            wire.send_command(context, &request.response(progress)).await?;
        }
    }
    if let Some(line) = line {
        let releasing = line.association.release(config.limits.release_timeout);
        meanwhile(wire, asked, &mut tally, releasing).await?;
    }
    end(session, wire, context, &syntax, &tally, cancelled, |progress| request.response(progress))
        .await
}

/// The line to the destination of a C-MOVE. None if it cannot be had; and nobody is called for nothing.
async fn call(
    session: &Session,
    config: &Config,
    callee: Callee<'_>,
    request: &CMoveRq,
    items: &[Item],
) -> Option<Line> {
    if items.is_empty() {
        return None;
    }
    match Line::open(config, callee, items).await {
        Ok(line) => Some(line),
        Err(why) => {
            tracing::warn!(association = session.number, sender = session.sender.name, destination = %request.destination, error = why.text, "destination of a C-MOVE cannot be had");
            None
        }
    }
}

/// Waits for something at the destination of a C-MOVE. One instance may take minutes on a slow line, in which the asker hears
/// how far it has come, lest it think that this node is gone.
async fn meanwhile<S: Stream, T>(
    wire: &mut Wire<S>,
    (context, request): (u8, &CMoveRq),
    tally: &mut Tally,
    work: impl Future<Output = T>,
) -> Result<T, WireError> {
    let mut work = pin!(work);
    loop {
        if let Ok(done) = timeout(tally.due(), &mut work).await {
            return Ok(done);
        }
        if let Some(progress) = tally.pending() {
            wire.send_command(context, &request.response(progress)).await?;
        }
    }
}

/// An association with the destination of a C-MOVE.
struct Line {
    association: Association,
    ways: Vec<(SopClassUid, TransferSyntax, u8)>,
}

/// What became of one C-STORE at a destination.
enum Sent {
    Answered(Status),
    /// It cannot be read, or the destination takes nothing of its kind.
    Not,
    Broken(Failure),
}

impl Line {
    async fn open(config: &Config, callee: Callee<'_>, items: &[Item]) -> Result<Self, Failure> {
        let kinds: store_scu::Wanted = items
            .iter()
            .map(|item| (item.sop_class.clone(), item.transfer_syntax.clone()))
            .collect();
        let contexts = store_scu::contexts(&kinds, Compress::Never);
        let patience = config.delivery.connect_timeout;
        let association = connect::call(config, callee, contexts.clone(), None, patience).await?;
        let taken = contexts.into_iter().filter_map(|(class, syntaxes)| {
            let syntax = syntaxes.into_iter().next()?;
            let context = association.context_for(&class, &syntax)?;
            Some((class, syntax, context))
        });
        let ways = taken.collect();
        Ok(Self { association, ways })
    }

    async fn send(&mut self, pieces: &mut mpsc::Receiver<Piece>) -> Sent {
        let description = match pieces.recv().await {
            Some(Piece::Begin(description)) => description,
            Some(Piece::Failed(_) | Piece::Data(..)) | None => return Sent::Not,
        };
        let broken = |error: &RequestError| Sent::Broken(connect::explain(error));
        let begun =
            self.association.store_begin(description.context, description.request.clone()).await;
        let mut storing = match begun {
            Ok(storing) => storing,
            Err(error) => return broken(&error),
        };
        loop {
            match pieces.recv().await {
                Some(Piece::Data(bytes, false)) => {
                    if let Err(error) = storing.data(&bytes).await {
                        return broken(&error);
                    }
                }
                Some(Piece::Data(bytes, true)) => {
                    return match storing.end(&bytes).await {
                        Ok(status) => Sent::Answered(status),
                        Err(error) => broken(&error),
                    };
                }
                Some(Piece::Failed(why)) => return Sent::Broken(why),
                Some(Piece::Begin(_)) | None => {
                    return Sent::Broken(Failure {
                        kind: FailureKind::SourceUnreadable,
                        status: None,
                        text: "reader stopped".to_owned(),
                    });
                }
            }
        }
    }
}

/// What became of one C-STORE on the asker's own association.
enum Back {
    /// It was answered; and whether the asker wants no more meanwhile.
    Answered(Status, bool),
    /// It cannot be read, or the asker takes nothing of its kind.
    NotSent,
}

async fn send_back<S: Stream>(
    wire: &mut Wire<S>,
    pieces: &mut mpsc::Receiver<Piece>,
    message_id: u16,
    asked_by: u16,
) -> Result<Back, WireError> {
    let description = match pieces.recv().await {
        Some(Piece::Begin(description)) => description,
        Some(Piece::Failed(_)) | None => return Ok(Back::NotSent),
        Some(Piece::Data(..)) => return Err(WireError::NotReadable),
    };
    let context = description.context;
    let request = CStoreRq { message_id, ..description.request };
    wire.send_command(context, &request.encode()).await?;
    loop {
        match pieces.recv().await {
            Some(Piece::Data(bytes, last)) => {
                wire.send_data(context, &bytes, last).await?;
                if last {
                    break;
                }
            }
            // Half of it is out: the asker is told by the end of the association.
            _ => return Err(WireError::NotReadable),
        }
    }
    let mut cancelled = false;
    loop {
        let Some((_, command)) = acceptor::next_command(wire).await? else {
            return Err(WireError::Unexpected("a release while a request is answered"));
        };
        if let Ok(Request::Cancel(cancel)) = Request::parse(&command) {
            cancelled |= cancel.message_id == asked_by;
            continue;
        }
        let response =
            Response::parse(&command).map_err(|_| WireError::Malformed("command set"))?;
        if response.message_id != message_id {
            return Err(WireError::Unexpected("the response to another request"));
        }
        return Ok(Back::Answered(response.status, cancelled));
    }
}

fn syntax_of(contexts: &Contexts, context: u8) -> Result<TransferSyntax, WireError> {
    let accepted = contexts.get(&context).map(|context| context.transfer_syntax.clone());
    accepted.ok_or(WireError::Unexpected("a message on a context that was not accepted"))
}

/// Reads the identifier, and looks up what it wants.
async fn collect<S: Stream>(
    session: &Session,
    wire: &mut Wire<S>,
    context: u8,
    model: &SopClassUid,
    syntax: &TransferSyntax,
) -> Result<Result<Vec<Item>, Refused>, WireError> {
    let Some(bytes) = storage::collect(wire, context, MAX_IDENTIFIER).await? else {
        return Ok(Err(Refused(Status::CANNOT_UNDERSTAND, "the identifier is too long")));
    };
    let items = items(session, &bytes, model, syntax).await;
    if let Err(Refused(status, comment)) = &items {
        tracing::info!(association = session.number, sender = session.sender.name, %status, reason = comment, "retrieval refused");
    }
    Ok(items)
}

/// The last word of a retrieval.
async fn end<S: Stream>(
    session: &Session,
    wire: &mut Wire<S>,
    context: u8,
    syntax: &TransferSyntax,
    tally: &Tally,
    cancelled: bool,
    response: impl FnOnce(Progress<'_>) -> Vec<u8>,
) -> Result<(), WireError> {
    let (progress, list) = tally.ended(cancelled);
    tracing::info!(
        association = session.number, sender = session.sender.name, status = %progress.status,
        sent = tally.completed + tally.warning, failed = tally.failed, "retrieval ended"
    );
    wire.send_command(context, &response(progress)).await?;
    match list {
        Some(list) => wire.send_data(context, &list.encode(syntax), true).await,
        None => Ok(()),
    }
}

/// The contexts of a C-GET on which the asker is the provider of a storage class.
pub fn ways_back(
    contexts: &Contexts,
    provides: &[SopClassUid],
) -> Vec<(SopClassUid, TransferSyntax, u8)> {
    let storage =
        contexts.iter().filter(|(_, context)| provides.contains(&context.abstract_syntax));
    storage
        .map(|(id, context)| {
            (context.abstract_syntax.clone(), context.transfer_syntax.clone(), *id)
        })
        .collect()
}

/// The way of an instance: as it is where that is taken, else uncompressed, else in the first encoding that is taken at all.
pub fn way(
    ways: &[(SopClassUid, TransferSyntax, u8)],
    class: &SopClassUid,
    made: &TransferSyntax,
    is_even: bool,
) -> Option<Way> {
    let taken: Vec<_> = ways.iter().filter(|(taken, ..)| taken == class).collect();
    let as_made = taken.iter().find(|(_, syntax, _)| syntax == made);
    if let Some((_, syntax, context)) = as_made {
        // PS3.5 7.1: data sets are of even length; conversion to its own encoding makes it so.
        return Some((*context, (!is_even).then(|| syntax.clone())));
    }
    let plain = taken.iter().find(|(_, syntax, _)| syntax.is_native());
    let (_, syntax, context) = plain.or(taken.first())?;
    Some((*context, Some(syntax.clone())))
}

/// Reads what is to be sent, ahead of the network. Ends when nobody listens any more.
pub fn read_ahead(
    library: Arc<Library>,
    items: Vec<Item>,
    ways: Vec<(SopClassUid, TransferSyntax, u8)>,
) -> mpsc::Receiver<Piece> {
    let (pieces, taken) = mpsc::channel(READ_AHEAD);
    tokio::task::spawn_blocking(move || {
        for item in items {
            match read(&library, &item, &ways, &pieces) {
                Ok(()) => {}
                Err(Stop::NobodyListens) => return,
                Err(Stop::Failed(why)) => {
                    tracing::warn!(instance = %item.sop_instance, error = why.text, "instance is not sent to whoever asked for it");
                    if pieces.blocking_send(Piece::Failed(why)).is_err() {
                        return;
                    }
                }
            }
        }
    });
    taken
}

/// Why reading an instance ended early.
enum Stop {
    NobodyListens,
    Failed(Failure),
}

impl From<Failure> for Stop {
    fn from(why: Failure) -> Self {
        Self::Failed(why)
    }
}

impl From<gantry_store::sealed::SealedError> for Stop {
    fn from(error: gantry_store::sealed::SealedError) -> Self {
        Self::Failed(crate::partner::library::unread(&error))
    }
}

fn read(
    library: &Library,
    item: &Item,
    ways: &[(SopClassUid, TransferSyntax, u8)],
    pieces: &mpsc::Sender<Piece>,
) -> Result<(), Stop> {
    let mut outgoing = library.outgoing(item.object, item.protection.as_deref())?;
    let even = outgoing.length().is_multiple_of(2);
    let way = way(ways, outgoing.sop_class(), outgoing.transfer_syntax(), even);
    let (context, to) = way.ok_or_else(|| Failure {
        kind: FailureKind::NoPresentationContext,
        status: None,
        text: format!("SOP class {} was not asked for", outgoing.sop_class()),
    })?;
    if let Some(to) = to {
        outgoing = library.converted(outgoing, &to)?;
    }
    let say = |piece| pieces.blocking_send(piece).map_err(|_| Stop::NobodyListens);
    say(Piece::Begin(Box::new(Description::new(&outgoing, context)?)))?;
    outgoing.pieces(|bytes, last| say(Piece::Data(bytes, last)))
}
