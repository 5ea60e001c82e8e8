//! One worker: claims, sends, reports, on one association at a time.
//!
//! A partner has as many workers as it may have associations, and one more that sends nothing but emergencies, unless the
//! partner serves too few associations for that. Those beyond what the link needs (`breadth`) rest. After each instance a worker asks whether something more urgent
//! waits or is in another's hands; if so it gives back what it has not begun. When the partner as a whole cannot be had,
//! all of its workers wait together, and a person's retry or the time ends the wait.

use std::mem;
use std::sync::{Arc, PoisonError};
use std::time::{Duration, Instant};

use gantry_store::dicom::{SopClassUid, TransferSyntax};
use gantry_store::facts::Priority;
use gantry_store::index::{Claim, Event, Failure, FailureKind, Index, IndexError, Receipt};
use gantry_store::sealed::SealedError;
use jiff::Timestamp;
use tokio::sync::mpsc;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

use super::recorder::Outcome;
use super::schedule;
use super::team::{InHand, Place, Team};
use crate::association::requestor::MAX_CONTEXTS;
use crate::association::status::Status;
use crate::config::Config;
use crate::partner::capabilities::Capabilities;
use crate::partner::connect::{self, Association};
use crate::partner::held;
use crate::partner::library::{self, CONVERTIBLE, Library};
use crate::partner::link::Encoder;
use crate::partner::store_scu::{self, Choice, Description, Encoding, Piece, Sent, Wanted};
use crate::partner::transcode::{self, TranscodeError};
use crate::protect::Outgoing;
use crate::telemetry::chain;
use crate::telemetry::metrics::{ByPartner, Metrics};

/// How many deliveries are claimed at once: enough to read ahead, few enough that others find work too.
const CLAIM: u32 = 8;
/// How long a claim is valid without being renewed. An instance of several GB on a slow line takes long.
const LEASE: Duration = Duration::from_mins(30);
/// Pieces that are read ahead of the network, of at most 256 KiB each.
const READ_AHEAD: usize = 4;
/// How often a worker looks for work although nobody told it.
const LOOK: Duration = Duration::from_secs(2);
/// How long a partner that serves us already may take over each step towards a further association.
const FURTHER_ASSOCIATION: Duration = Duration::from_secs(3);
/// A data set that is no longer may be compressed while others are converted.
const SMALL: u64 = 16 << 20;

/// What all workers share.
#[derive(Debug)]
pub struct Shared {
    /// Who partners are.
    pub config: Arc<Config>,
    /// Where deliveries are.
    pub index: Index,
    /// Where instances are, and what may leave of them.
    pub library: Arc<Library>,
    /// Where outcomes go.
    pub outcomes: mpsc::Sender<Outcome>,
    /// What is counted.
    pub metrics: Arc<Metrics>,
    /// Names this node in leases.
    pub owner: String,
    /// What compresses, for all partners.
    pub encoder: Encoder,
    /// What partners were found to take.
    pub capabilities: Arc<Capabilities>,
    /// Said when the node stops.
    pub stop: CancellationToken,
}

/// An open association, with what it was asked for.
struct Line {
    association: Association,
    wanted: Wanted,
    used: Instant,
    /// Whether it has carried anything.
    served: bool,
    /// Whether that was an earlier batch, and it has lain idle since.
    rested: bool,
    /// Given up with it.
    _place: Place,
}

/// An instance that is to go, in which encoding, and in which where the fewest bytes are best. Without the one there is not the
/// other either: the partner takes nothing that it could be.
#[derive(Clone)]
struct Order {
    claim: Claim,
    plain: Option<Choice>,
    small: Option<Choice>,
}

/// What is still to be done with a batch after one instance.
enum Next {
    /// The next instance.
    GoOn,
    /// What is not dealt with yet, on a new association.
    Reconnect,
    /// Nothing: something more urgent waits, or the node stops.
    GiveBack,
    /// Nothing: the partner cannot be had.
    LeaveAlone,
}

/// One worker.
#[derive(Debug)]
pub struct Worker {
    shared: Arc<Shared>,
    team: Arc<Team>,
    post: Post,
}

/// What a worker is for.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Post {
    /// For whatever is to be sent, while so many others are not enough.
    Beyond(usize),
    /// For emergencies alone.
    Emergencies,
}

impl Worker {
    /// A worker of a team.
    pub fn new(shared: Arc<Shared>, team: Arc<Team>, post: Post) -> Self {
        Self { shared, team, post }
    }

    /// Whether the others are enough.
    fn rests(&self) -> bool {
        matches!(self.post, Post::Beyond(others) if others >= self.team.breadth())
    }

    /// Works until the node stops; the instance in hand is finished.
    pub async fn run(self) {
        let mut line: Option<Line> = None;
        let stop = self.shared.stop.clone();
        let idle = self.shared.config.delivery.association_idle;
        while !stop.is_cancelled() {
            let left_alone = self.team.left_alone_for();
            let may =
                left_alone.is_none() && !self.rests() && (line.is_some() || self.team.has_room());
            let batch = if may { self.claim().await } else { None };
            if let Some((claims, in_hand)) = batch {
                self.send_all(&claims, in_hand, &mut line).await;
                continue;
            }
            tokio::select! {
                () = stop.cancelled() => {}
                () = self.team.call().rung() => {}
                () = sleep(left_alone.unwrap_or(LOOK).min(LOOK)) => {}
            }
            if line.as_ref().is_some_and(|line| line.used.elapsed() >= idle) {
                self.hang_up(&mut line).await;
            }
        }
        self.hang_up(&mut line).await;
    }

    /// The most urgent of what waits, if nobody has something more urgent in hand.
    async fn claim(&self) -> Option<(Vec<Claim>, InHand<'_>)> {
        match self.try_claim().await {
            Ok(batch) => batch,
            Err(error) => {
                tracing::error!(partner = self.team.partner().name, error = %chain(&error), "deliveries cannot be claimed");
                None
            }
        }
    }

    async fn try_claim(&self) -> Result<Option<(Vec<Claim>, InHand<'_>)>, IndexError> {
        let (index, partner) = (&self.shared.index, &self.team.partner().name);
        // What a lost answer left in this node's name would show nobody that it waits.
        index.give_back_unsure(&self.shared.owner).await?;
        let now = Timestamp::now();
        let Some(urgency) = index.most_urgent(partner, now).await? else { return Ok(None) };
        let not_mine = self.post == Post::Emergencies
            && urgency != Priority::Emergency
            && !self.team.is_limited();
        if not_mine || self.team.holds(urgency) || self.team.has_in_hand_before(urgency) {
            return Ok(None);
        }
        // Before they are claimed, as from then on the rows do not show others that something urgent is there.
        let mut in_hand = self.team.take_in_hand(urgency);
        let claims = index.claim(partner, &self.shared.owner, CLAIM, LEASE, now).await?;
        // Of a mixed batch only the most urgent part is sent: what is behind it may not hold anything up.
        let Some(claimed) = claims.first().map(|claim| claim.priority) else { return Ok(None) };
        let (now, later): (Vec<_>, Vec<_>) =
            claims.into_iter().partition(|claim| claim.priority == claimed);
        self.give_back(&later).await;
        if claimed != urgency {
            in_hand = self.team.take_in_hand(claimed);
            // Another was faster, and has in hand what this one saw waiting.
            if self.team.has_in_hand_before(claimed) {
                self.give_back(&now).await;
                return Ok(None);
            }
        }
        Ok(Some((now, in_hand)))
    }

    async fn give_back(&self, claims: &[Claim]) {
        if claims.is_empty() {
            return;
        }
        if let Err(error) = self.shared.index.give_back(claims, &self.shared.owner).await {
            // That is done with the next look.
            tracing::error!(partner = self.team.partner().name, error = %chain(&error), "claims cannot be given back");
        }
        self.team.call().ring();
    }

    async fn hang_up(&self, line: &mut Option<Line>) {
        if let Some(Line { association, _place, .. }) = line.take() {
            association.release(self.shared.config.limits.release_timeout).await;
        }
    }

    /// Sends what was claimed, in order; what cannot be begun is given back.
    async fn send_all(&self, claims: &[Claim], in_hand: InHand<'_>, line: &mut Option<Line>) {
        let claims = self.not_there_yet(claims).await;
        if let Some(line) = line {
            line.rested = line.served;
        }
        let mut rest = claims.as_slice();
        while !rest.is_empty() {
            let needed = kinds(rest);
            if line.as_ref().is_some_and(|line| !line.wanted.is_superset(&needed)) {
                self.hang_up(line).await;
            }
            if line.is_none() {
                match self.team.place() {
                    Some(place) if place.is_first() => {
                        let patience = self.shared.config.delivery.connect_timeout;
                        match self.open(needed, patience, place).await {
                            Ok(opened) => *line = Some(opened),
                            Err(why) => return self.defer(rest, why).await,
                        }
                    }
                    place => {
                        // Nobody waits for a further association beside those that others have: who is ready takes this.
                        self.give_back(rest).await;
                        drop(in_hand);
                        if let Some(place) = place {
                            *line = self.open_further(needed, place).await;
                        }
                        return;
                    }
                }
            }
            let Some(ready) = line else { return };
            let (next, done) = self.send_on(rest, ready).await;
            rest = rest.get(done..).unwrap_or_default();
            match next {
                Next::GoOn => {}
                Next::Reconnect => abort(line).await,
                Next::GiveBack => return self.give_back(rest).await,
                Next::LeaveAlone => {
                    abort(line).await;
                    return self.give_back(rest).await;
                }
            }
        }
    }

    /// What of these is to be sent; the rest the partner was found to hold.
    async fn not_there_yet(&self, claims: &[Claim]) -> Vec<Claim> {
        let mut missing = Vec::with_capacity(claims.len());
        for claim in claims {
            if !self.is_there_already(claim).await {
                missing.push(claim.clone());
            }
        }
        missing
    }

    /// Whether the partner holds an instance that it was sent before, which is then on record as accepted.
    async fn is_there_already(&self, claim: &Claim) -> bool {
        let (config, partner) = (&self.shared.config, self.team.partner());
        if !held::is_worth_asking(partner, claim, self.team.link_rate()) {
            return false;
        }
        let Ok(Some(at)) = self.shared.index.whereabouts(claim.delivery).await else {
            return false;
        };
        if !held::lists(config, partner, claim, &at).await {
            return false;
        }
        tracing::info!(partner = partner.name, instance = %claim.sop_instance, "partner lists it already; it is not sent again");
        self.shared.metrics.found_there.get_or_create(&self.label()).inc();
        let receipt = Receipt {
            status: Status::SUCCESS.0,
            transfer_syntax: claim.transfer_syntax.clone(),
            digest: at.digest,
            at: Timestamp::now(),
        };
        self.report(claim, Event::Accept(receipt)).await;
        true
    }

    /// Asks for an association beside those that the others have. If the partner takes none, that is no fault of it.
    async fn open_further(&self, needed: Wanted, place: Place) -> Option<Line> {
        let patience = self.shared.config.delivery.connect_timeout.min(FURTHER_ASSOCIATION);
        match self.open(needed, patience, place).await {
            Ok(line) => Some(line),
            Err(why) => {
                if let Some(limit) = self.team.is_full() {
                    tracing::info!(partner = self.team.partner().name, limit, why = %why, "partner serves no further association at the same time");
                }
                None
            }
        }
    }

    /// Opens an association that is asked for all that is needed, and for what was needed lately.
    async fn open(
        &self,
        needed: Wanted,
        patience: Duration,
        mut place: Place,
    ) -> Result<Line, Failure> {
        let (config, partner) = (&self.shared.config, self.team.partner());
        let contexts = |kinds: &Wanted| store_scu::contexts(kinds, partner.compress);
        let wanted = self.team.kinds_with(needed, |kinds| contexts(kinds).len() < MAX_CONTEXTS);
        let contexts = contexts(&wanted);
        let association = if self.team.is_on_trial() {
            connect::connect_on_trial(config, partner, contexts.clone(), patience).await?
        } else {
            connect::connect(config, partner, contexts.clone(), patience).await?
        };
        place.opened();
        self.note_answers(&association, contexts);
        Ok(Line {
            association,
            wanted,
            used: Instant::now(),
            served: false,
            rested: false,
            _place: place,
        })
    }

    /// Remembers what the partner takes, beside the sending.
    fn note_answers(
        &self,
        association: &Association,
        contexts: Vec<(SopClassUid, Vec<TransferSyntax>)>,
    ) {
        let answer = |(sop_class, syntaxes): (SopClassUid, Vec<TransferSyntax>)| {
            let syntax = syntaxes.into_iter().next()?;
            let accepted = association.context_for(&sop_class, &syntax).is_some();
            Some((sop_class, syntax, accepted))
        };
        let answers: Vec<_> = contexts.into_iter().filter_map(answer).collect();
        let (capabilities, partner) =
            (self.shared.capabilities.clone(), self.team.partner().name.clone());
        tokio::task::spawn_blocking(move || {
            if let Err(error) = capabilities.note(&partner, &answers, Timestamp::now()) {
                tracing::warn!(partner, %error, "what the partner takes cannot be remembered");
            }
        });
    }

    /// Defers what cannot be sent because the partner cannot be had.
    async fn defer(&self, claims: &[Claim], why: Failure) {
        let priority = claims.iter().map(|claim| claim.priority).min().unwrap_or_default();
        let until = self.team.failed(&self.shared.config, priority);
        tracing::warn!(partner = self.team.partner().name, why = %why, %until, "partner cannot be had");
        for claim in claims {
            self.come_back(claim, until, why.clone()).await;
        }
    }

    fn count_failure(&self) {
        self.shared.metrics.failed_tries.get_or_create(&self.label()).inc();
    }

    fn label(&self) -> ByPartner {
        ByPartner { partner: self.team.partner().name.clone() }
    }

    async fn report(&self, claim: &Claim, event: Event) {
        let outcome = Outcome {
            delivery: claim.delivery,
            object: claim.object,
            partner: self.team.partner().name.clone(),
            event,
        };
        if self.shared.outcomes.send(outcome).await.is_err() {
            tracing::error!(delivery = %claim.delivery, "recorder has stopped; the delivery is made again after a restart");
        }
    }

    /// Sends a batch on an open association, and says what comes next and how many are dealt with.
    async fn send_on(&self, claims: &[Claim], line: &mut Line) -> (Next, usize) {
        let orders = self.orders(claims, &line.association);
        let mut pieces = self.read_ahead(orders.clone());
        for (position, order) in orders.iter().enumerate() {
            let claim = &order.claim;
            if order.plain.is_none() {
                self.set_aside(claim, no_context(claim)).await;
                continue;
            }
            let rate = self.team.rate_for(claim.priority);
            let mut throttle = self.team.throttle(rate);
            let sent = store_scu::send(&mut line.association, &mut pieces, &mut throttle).await;
            line.used = Instant::now();
            // The partner may have gone, or hung up, since the last batch. That is nobody's failure, and nothing waits for it.
            if mem::take(&mut line.rested)
                && let Sent::Broken(why) = &sent
                && why.kind != FailureKind::TimedOut
                && self.team.spares(claim.delivery)
            {
                tracing::info!(partner = self.team.partner().name, why = %why, "association broke while it was idle; a new one is opened");
                return (Next::Reconnect, position);
            }
            line.served |= matches!(sent, Sent::Answered(..));
            if let (Sent::Answered(_, description, begun), None) = (&sent, rate) {
                self.team.passed(*begun, description.length);
            }
            match self.settle(claim, sent).await {
                Next::GoOn => {}
                next => return (next, position + 1),
            }
            let last = position + 1 == orders.len();
            if !last
                && (self.shared.stop.is_cancelled()
                    || self.team.holds(claim.priority)
                    || self.something_more_urgent(claim.priority).await)
            {
                return (Next::GiveBack, position + 1);
            }
        }
        (Next::GoOn, orders.len())
    }

    /// In which encoding each instance may go.
    fn orders(&self, claims: &[Claim], association: &Association) -> Vec<Order> {
        let order = |claim: &Claim| {
            let takes = |syntax: &TransferSyntax| association.context_for(&claim.sop_class, syntax);
            let choose = |pays| store_scu::choose(takes, claim, self.team.partner().compress, pays);
            Order { claim: claim.clone(), plain: choose(false), small: choose(true) }
        };
        claims.iter().map(order).collect()
    }

    async fn something_more_urgent(&self, than: Priority) -> bool {
        if than == Priority::Emergency {
            return false;
        }
        if self.team.has_in_hand_before(than) {
            return true;
        }
        let most = self.shared.index.most_urgent(&self.team.partner().name, Timestamp::now()).await;
        matches!(most, Ok(Some(urgency)) if urgency < than)
    }

    async fn settle(&self, claim: &Claim, sent: Sent) -> Next {
        let config = &self.shared.config;
        match sent {
            Sent::Answered(status, description, _) => {
                if self.team.succeeded() {
                    self.bring_forward().await;
                }
                let now = Timestamp::now();
                let come_back =
                    schedule::next_try(&config.delivery, claim.priority, claim.attempt, now);
                let event = store_scu::outcome(status, &description, now, come_back);
                if let Event::Accept(_) = &event {
                    self.shared.metrics.sent.get_or_create(&self.label()).inc();
                } else {
                    tracing::warn!(partner = self.team.partner().name, instance = %claim.sop_instance, %status, "partner did not take an instance");
                }
                match event {
                    Event::Defer { until, why } => self.come_back(claim, until, why).await,
                    Event::Reject { why } => self.set_aside(claim, why).await,
                    event => self.report(claim, event).await,
                }
                Next::GoOn
            }
            Sent::NotReadable { why, mid_way } => {
                if why.kind == FailureKind::SourceUnavailable {
                    let now = Timestamp::now();
                    let until =
                        schedule::next_try(&config.delivery, claim.priority, claim.attempt, now);
                    tracing::warn!(instance = %claim.sop_instance, why = %why, %until, "instance cannot be read for now");
                    self.come_back(claim, until, why).await;
                } else {
                    self.set_aside(claim, why).await;
                }
                if mid_way { Next::Reconnect } else { Next::GoOn }
            }
            Sent::Broken(why) => {
                // A break may be this instance's fault, so only it waits, and the others go on over a new association. A
                // partner that hangs, or breaks at one instance after the other, is left alone; then too this instance
                // waits longer than the others, of which one is to find out whether the partner is back.
                let alone = if why.kind == FailureKind::TimedOut {
                    Some(self.team.failed(config, claim.priority))
                } else {
                    self.team.broke(config, claim.priority, claim.attempt)
                };
                let from = alone.unwrap_or_else(Timestamp::now);
                let until =
                    schedule::next_try(&config.delivery, claim.priority, claim.attempt, from);
                tracing::warn!(partner = self.team.partner().name, instance = %claim.sop_instance, why = %why, %until, "association with partner broke");
                self.come_back(claim, until, why).await;
                if alone.is_some() { Next::LeaveAlone } else { Next::Reconnect }
            }
        }
    }

    /// What waits for a later try because the partner could not be had need not wait any longer.
    async fn bring_forward(&self) {
        let partner = &self.team.partner().name;
        match self.shared.index.bring_forward(partner, Timestamp::now()).await {
            Ok(0) => {}
            Ok(deliveries) => {
                tracing::info!(partner, deliveries, "partner answers again");
                self.team.call().ring();
            }
            Err(error) => {
                tracing::error!(partner, error = %chain(&error), "deliveries cannot be brought forward");
            }
        }
    }

    async fn set_aside(&self, claim: &Claim, why: Failure) {
        self.count_failure();
        tracing::error!(partner = self.team.partner().name, instance = %claim.sop_instance, why = %why, "instance set aside");
        self.report(claim, Event::Reject { why }).await;
    }

    /// Has it tried again, unless that has gone on for too long.
    async fn come_back(&self, claim: &Claim, until: Timestamp, why: Failure) {
        match schedule::given_up(&self.shared.config.delivery, claim, &why, Timestamp::now()) {
            None => {
                self.count_failure();
                self.report(claim, Event::Defer { until, why }).await;
            }
            Some(why) => self.set_aside(claim, why).await,
        }
    }

    /// Reads the batch on a thread that may block, ahead of the network, and converts what must be converted. Ends early
    /// when nobody takes the pieces any more.
    fn read_ahead(&self, orders: Vec<Order>) -> mpsc::Receiver<Piece> {
        let (pieces, taken) = mpsc::channel(READ_AHEAD);
        let (shared, team) = (self.shared.clone(), self.team.clone());
        tokio::task::spawn_blocking(move || {
            for Order { claim, plain, small } in orders {
                // As late as can be: what is known of the link has come from the instances before it.
                let pays = plain != small && team.compresses(&shared.encoder, claim.priority);
                let Some(choice) = (if pays { small } else { plain }) else { continue };
                match read(&shared, &claim, &choice, &pieces) {
                    Ok(()) => {}
                    Err(Stop::NobodyListens) => return,
                    Err(Stop::Failed(why)) => {
                        if pieces.blocking_send(Piece::Failed(why)).is_err() {
                            return;
                        }
                    }
                }
            }
        });
        taken
    }
}

fn kinds(claims: &[Claim]) -> Wanted {
    claims.iter().map(|claim| (claim.sop_class.clone(), claim.transfer_syntax.clone())).collect()
}

async fn abort(line: &mut Option<Line>) {
    if let Some(line) = line.take() {
        line.association.abort().await;
    }
}

/// Why reading an instance ended early.
enum Stop {
    NobodyListens,
    Failed(Failure),
}

impl From<SealedError> for Stop {
    fn from(error: SealedError) -> Self {
        Self::Failed(library::unread(&error))
    }
}

impl From<Failure> for Stop {
    fn from(why: Failure) -> Self {
        Self::Failed(why)
    }
}

fn no_context(claim: &Claim) -> Failure {
    let text = format!(
        "partner takes SOP class {} neither in transfer syntax {} nor uncompressed",
        claim.sop_class, claim.transfer_syntax
    );
    Failure { kind: FailureKind::NoPresentationContext, status: None, text }
}

fn read(
    shared: &Shared,
    claim: &Claim,
    choice: &Choice,
    pieces: &mpsc::Sender<Piece>,
) -> Result<(), Stop> {
    let Choice { encoding, instead, uncompressed } = choice;
    let compressed = match instead {
        Some(plain) => {
            compress(shared, claim, encoding, plain)?.map(|outgoing| (outgoing, encoding))
        }
        None => None,
    };
    let (outgoing, encoding) = if let Some(compressed) = compressed {
        compressed
    } else {
        let encoding = instead.as_ref().unwrap_or(encoding);
        plain(shared, claim, encoding, uncompressed.as_ref())?
    };
    let say = |piece| pieces.blocking_send(piece).map_err(|_| Stop::NobodyListens);
    say(Piece::Begin(Box::new(Description::new(&outgoing, encoding.context())?)))?;
    outgoing.pieces(|bytes, last| say(Piece::Data(bytes, last)))
}

/// The instance as kept, or converted because the partner takes nothing else; and how that is.
fn plain<'a>(
    shared: &Shared,
    claim: &Claim,
    encoding: &'a Encoding,
    uncompressed: Option<&'a Encoding>,
) -> Result<(Outgoing, &'a Encoding), Stop> {
    let outgoing = outgoing(shared, claim)?;
    // Protection may have brought it into another encoding than it is kept in.
    let as_made = *outgoing.transfer_syntax() == claim.transfer_syntax;
    let encoding = match encoding {
        Encoding::AsKept(_) if !as_made => {
            uncompressed.ok_or_else(|| Stop::Failed(no_context(claim)))?
        }
        chosen => chosen,
    };
    let Encoding::Converted(_, to) = encoding else { return Ok((outgoing, encoding)) };
    Ok((shared.library.converted(outgoing, to)?, encoding))
}

/// The instance in fewer bytes; `None` if that cannot be had, and it goes uncompressed. Routine work waits for its turn,
/// an emergency does not.
fn compress(
    shared: &Shared,
    claim: &Claim,
    encoding: &Encoding,
    plain: &Encoding,
) -> Result<Option<Outgoing>, Stop> {
    let Encoding::Converted(_, to) = encoding else { return Ok(None) };
    if claim.length > CONVERTIBLE {
        return Ok(None);
    }
    let Some(_place) = shared.encoder.place(claim.priority) else { return Ok(None) };
    let _one_at_a_time = match claim.length > SMALL {
        false => None,
        true if claim.priority == Priority::Emergency => match shared.library.converting.try_lock()
        {
            Ok(turn) => Some(turn),
            Err(_) => return Ok(None),
        },
        true => Some(shared.library.converting.lock().unwrap_or_else(PoisonError::into_inner)),
    };
    let outgoing = outgoing(shared, claim)?;
    let (length, begun) = (outgoing.length(), Instant::now());
    let compressed = outgoing.converted(to.clone(), |data_set, from| {
        transcode::convert(data_set, from, to).map_err(Uncompressed::Encoder)
    });
    match compressed {
        // What is kept compressed, in a way that the partner does not take, would grow when it goes plain.
        Ok(compressed) if compressed.length() < length || !matches!(plain, Encoding::AsKept(_)) => {
            shared.encoder.note(length, begun.elapsed());
            Ok(Some(compressed))
        }
        Ok(_) => Ok(None),
        Err(Uncompressed::Source(error)) => Err(error.into()),
        Err(Uncompressed::Encoder(error)) => {
            // Nothing is lost by it but time. A frame that did not come back as it was is our mistake, though.
            if let TranscodeError::Encoder { .. } = error {
                tracing::error!(instance = %claim.sop_instance, error = %chain(&error), "instance cannot be compressed and goes uncompressed");
            } else {
                tracing::info!(instance = %claim.sop_instance, reason = %chain(&error), "instance is not compressed");
            }
            Ok(None)
        }
    }
}

/// Why there is nothing in fewer bytes.
enum Uncompressed {
    Source(SealedError),
    Encoder(TranscodeError),
}

impl From<SealedError> for Uncompressed {
    fn from(error: SealedError) -> Self {
        Self::Source(error)
    }
}

/// What may leave of an instance, under the protection that it was ordered under.
fn outgoing(shared: &Shared, claim: &Claim) -> Result<Outgoing, Failure> {
    shared.library.outgoing(claim.object, claim.protection.as_deref())
}
