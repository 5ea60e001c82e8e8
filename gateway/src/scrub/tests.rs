use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use gantry_store::facts::{Digest, Facts, ObjectId};
use gantry_store::index::{Arrival, RecordedAs, Remover};
use gantry_store::object::{Abilities, ObjectError, ObjectStore};
use gantry_store::sealed::{Keyring, ReadAt};
use gantry_store::spool::Durability;
use tokio_util::sync::CancellationToken;

use super::round::State;
use super::walk::PAGE;
use super::*;
use crate::outbox::Bell;
use crate::run::Store;
use crate::testing::{config_in, facts};

struct Bench {
    folder: tempfile::TempDir,
    scrub: Scrub,
}

impl Bench {
    async fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let config = config_in(folder.path(), &[("a", "A", &[])]);
        Keyring::create(&config.node.keys_dir()).unwrap();
        let store = Store::open(&config).await.unwrap();
        let scrub = Scrub {
            store,
            routes: config.routes,
            wake: Arc::new(Bell::new(std::iter::empty())),
            pace: Arc::new(Pace::new(None)),
            settling: Duration::ZERO,
            progress: Arc::new(Progress::load(folder.path().join("scrub.json"))),
            metrics: Arc::default(),
            stop: CancellationToken::new(),
        };
        Self { folder, scrub }
    }

    fn path(&self) -> PathBuf {
        self.folder.path().join("scrub.json")
    }

    /// As a process finds it that has just started.
    fn state(&self) -> State {
        Progress::load(self.path()).state()
    }

    /// The process is another one.
    fn restart(&mut self) {
        self.scrub.progress = Arc::new(Progress::load(self.path()));
    }

    /// Received: it is in the spool, and nowhere else.
    fn spooled(&self, number: u64) -> Facts {
        let bytes = number.to_le_bytes().repeat(40_000);
        let mut incoming = self.scrub.store.spool.begin(Vec::new()).unwrap();
        incoming.write(&bytes).unwrap();
        let mut facts = Facts { object: incoming.object(), ..facts(number) };
        facts.length = bytes.len() as u64;
        facts.digest = Digest::of(&bytes);
        incoming.commit(&facts, Durability::Received).unwrap();
        facts
    }

    /// In the store too.
    fn put(&self, facts: &Facts) {
        let file = self.scrub.store.spool.path(facts.object);
        self.scrub.store.objects.put(&[(facts.object, file)]).pop().unwrap().unwrap();
    }

    async fn record(&self, facts: &Facts) {
        let arrival = Arrival { facts: facts.clone(), routed: Vec::new() };
        self.scrub.store.index.record(&[arrival]).await.unwrap();
        self.scrub.store.index.mark_stored(&[facts.object]).await.unwrap();
    }

    /// As it is when all is well: object and row, and nothing in the spool.
    async fn kept(&self, number: u64) -> Facts {
        let facts = self.spooled(number);
        self.put(&facts);
        self.record(&facts).await;
        self.scrub.store.spool.remove(facts.object).unwrap();
        facts
    }

    /// Puts the object's bytes with one flipped in its place.
    fn damage(&self, object: ObjectId) {
        let source = self.scrub.store.objects.open(object).unwrap();
        let mut bytes = vec![0; source.length().unwrap() as usize];
        source.read_exact_at(&mut bytes, 0).unwrap();
        *bytes.last_mut().unwrap() ^= 1;
        let file = self.folder.path().join("damaged");
        std::fs::write(&file, bytes).unwrap();
        self.scrub.store.objects.delete(object).unwrap();
        self.scrub.store.objects.put(&[(object, file)]).pop().unwrap().unwrap();
    }

    async fn run(&self) -> Round {
        self.scrub.run().await.unwrap();
        self.state().last.unwrap()
    }

    /// What a round finds, and then what the next one still does.
    async fn found(&self) -> [Vec<(ObjectId, Kind, bool)>; 2] {
        let brief = |round: Round| {
            let brief = |finding: &Finding| (finding.object, finding.kind, finding.mended);
            round.findings.iter().map(brief).collect()
        };
        [brief(self.run().await), brief(self.run().await)]
    }
}

#[tokio::test]
async fn nothing_is_found_where_all_is_well_and_everything_was_read() {
    let bench = Bench::new().await;
    let count = u64::from(PAGE) + 6;
    for number in 0..count {
        bench.kept(number).await;
    }

    let round = bench.run().await;

    assert_eq!(round.findings, []);
    assert_eq!((round.verified, round.bytes), (count, count * 320_000));
}

#[tokio::test]
async fn an_object_without_a_row_gets_one_with_its_deliveries() {
    let bench = Bench::new().await;
    bench.kept(1).await;
    let orphan = bench.spooled(2);
    bench.put(&orphan);
    bench.scrub.store.spool.remove(orphan.object).unwrap();

    let [first, second] = bench.found().await;

    assert_eq!(first, [(orphan.object, Kind::WithoutRow, true)]);
    assert_eq!(second, []);
    let rows = bench.scrub.store.index.instance(&orphan.sop_instance).await.unwrap();
    assert!(rows.iter().any(|row| row.object == orphan.object && row.stored));
    let owed = bench.scrub.store.index.partners_with_work().await.unwrap();
    assert_eq!(owed, ["a"]);
}

#[tokio::test]
async fn an_object_that_is_gone_comes_back_from_the_spool() {
    let bench = Bench::new().await;
    bench.kept(1).await;
    let gone = bench.spooled(2);
    bench.record(&gone).await;

    let [first, second] = bench.found().await;

    assert_eq!(first, [(gone.object, Kind::Missing, true)]);
    assert_eq!(second, []);
}

#[tokio::test]
async fn an_object_that_is_nowhere_is_reported_in_every_round() {
    let bench = Bench::new().await;
    bench.kept(1).await;
    let lost = bench.kept(2).await;
    bench.scrub.store.objects.delete(lost.object).unwrap();

    let [first, second] = bench.found().await;

    assert_eq!(first, [(lost.object, Kind::Missing, false)]);
    assert_eq!(second, first);
}

#[tokio::test]
async fn what_the_last_round_found_is_in_the_figures_after_a_restart_too() {
    let mut bench = Bench::new().await;
    bench.kept(1).await;
    let lost = bench.kept(2).await;
    bench.scrub.store.objects.delete(lost.object).unwrap();
    bench.run().await;

    bench.restart();
    bench.scrub.metrics = Arc::default();
    bench.scrub.show();

    let figures = bench.scrub.metrics.print();
    assert!(figures.contains("gantry_scrub_unresolved{kind=\"missing\"} 1"), "{figures}");
    assert!(!figures.contains("gantry_scrub_last_end_seconds 0"), "{figures}");
}

#[tokio::test]
async fn a_damaged_object_is_replaced_from_the_spool() {
    let bench = Bench::new().await;
    let facts = bench.spooled(1);
    bench.put(&facts);
    bench.record(&facts).await;
    bench.damage(facts.object);

    let [first, second] = bench.found().await;

    assert_eq!(first, [(facts.object, Kind::Damaged, true)]);
    assert_eq!(second, []);
}

#[tokio::test]
async fn a_damaged_object_without_a_whole_copy_is_reported_and_left_as_it_is() {
    let bench = Bench::new().await;
    let facts = bench.kept(1).await;
    bench.damage(facts.object);

    let [first, second] = bench.found().await;

    assert_eq!(first, [(facts.object, Kind::Damaged, false)]);
    assert_eq!(second, first);
    assert_eq!(bench.scrub.store.objects.list(None, 10).unwrap(), [facts.object]);
}

#[tokio::test]
async fn a_store_that_is_suddenly_empty_is_not_a_store_that_lost_everything() {
    let bench = Bench::new().await;
    for number in 0..3 {
        let facts = bench.kept(number).await;
        bench.scrub.store.objects.delete(facts.object).unwrap();
    }

    let ended = bench.scrub.run().await;

    assert!(matches!(ended, Err(ScrubError::Empty)), "{ended:?}");
    assert_eq!(bench.state().findings().count(), 0);
    assert!(bench.state().unresolved().is_empty());
}

#[tokio::test]
async fn what_is_young_is_left_to_the_next_round() {
    let mut bench = Bench::new().await;
    let facts = bench.kept(1).await;
    bench.damage(facts.object);
    bench.scrub.settling = Duration::from_mins(10);

    let round = bench.run().await;

    assert_eq!((round.findings, round.verified), (Vec::new(), 0));
}

#[tokio::test]
async fn a_round_goes_on_where_it_was_and_an_unreadable_state_begins_anew() {
    let mut bench = Bench::new().await;
    let mut objects = Vec::new();
    for number in 0..6 {
        objects.push(bench.kept(number).await.object);
    }
    objects.sort_unstable();
    bench.scrub.progress.begin();
    bench.scrub.progress.round(|round| round.cursor = Some(objects[3]));
    bench.scrub.progress.save().unwrap();
    bench.restart();

    assert_eq!(bench.run().await.verified, 2);

    std::fs::write(bench.path(), "{").unwrap();
    bench.restart();
    assert_eq!(bench.run().await.verified, 6);
}

#[tokio::test]
async fn a_run_that_is_stopped_ends_and_finds_nothing_wrong() {
    let bench = Bench::new().await;
    bench.kept(1).await;
    bench.scrub.stop.cancel();

    let ended = bench.scrub.run().await;

    assert!(matches!(ended, Err(ScrubError::Stopped)), "{ended:?}");
    assert_eq!((bench.state().last, bench.state().findings().count()), (None, 0));
}

#[tokio::test]
async fn the_rate_holds_over_all_objects_and_not_for_each() {
    let mut bench = Bench::new().await;
    for number in 0..4 {
        bench.kept(number).await;
    }
    bench.scrub.pace = Arc::new(Pace::new(Some(2 * 4 * 320_000)));
    let begun = Instant::now();

    bench.run().await;

    assert!(begun.elapsed() >= Duration::from_millis(500), "{:?}", begun.elapsed());
}

#[tokio::test]
async fn what_a_round_mended_is_known_although_it_was_cut_off_afterwards() {
    let mut bench = Bench::new().await;
    let flaky = bench.behind_a_flaky_store();
    let mut kept = Vec::new();
    for number in 0..3 {
        let facts = bench.spooled(number);
        bench.put(&facts);
        bench.record(&facts).await;
        kept.push(facts.object);
    }
    kept.sort_unstable();
    bench.damage(kept[0]);
    bench.scrub.store.spool.remove(kept[2]).unwrap();
    flaky.fails(kept[2], true);
    flaky.down.store(true, Ordering::Relaxed);

    let ended = bench.scrub.run().await;

    assert!(matches!(ended, Err(ScrubError::Read(object, _)) if object == kept[2]), "{ended:?}");
    bench.restart();
    flaky.heal();
    let round = bench.run().await;
    let found: Vec<_> = round.findings.iter().map(|found| (found.object, found.mended)).collect();
    assert_eq!(found, [(kept[0], true)]);
    assert_eq!(round.verified, 2);
}

#[tokio::test]
async fn an_object_that_its_disk_cannot_read_is_damaged_and_ends_no_round() {
    let mut bench = Bench::new().await;
    let flaky = bench.behind_a_flaky_store();
    let (bad, _) = (bench.kept(1).await, bench.kept(2).await);
    flaky.fails(bad.object, false);

    let [first, second] = bench.found().await;

    assert_eq!(first, [(bad.object, Kind::Damaged, false)]);
    assert_eq!(second, first);
    assert_eq!(bench.state().last.unwrap().verified, 1);
}

#[tokio::test]
async fn an_object_for_which_a_server_fails_again_and_again_is_damaged_at_last() {
    let mut bench = Bench::new().await;
    let flaky = bench.behind_a_flaky_store();
    let bad = bench.kept(1).await;
    bench.kept(2).await;
    flaky.fails(bad.object, true);

    for _ in 0..3 {
        assert!(matches!(bench.scrub.run().await, Err(ScrubError::Read(..))));
        assert_eq!(bench.state().findings().count(), 0);
    }

    assert_eq!(bench.run().await.counts[&Kind::Damaged].unresolved, 1);
}

#[tokio::test]
async fn while_the_store_is_down_nothing_is_lost_however_often_it_is_tried() {
    let mut bench = Bench::new().await;
    let flaky = bench.behind_a_flaky_store();
    let facts = bench.kept(1).await;
    flaky.fails(facts.object, true);
    flaky.down.store(true, Ordering::Relaxed);

    for _ in 0..6 {
        assert!(matches!(bench.scrub.run().await, Err(ScrubError::Read(..))));
    }

    assert_eq!(bench.state().findings().count(), 0);
    flaky.heal();
    let round = bench.run().await;
    assert_eq!((round.verified, round.findings), (1, Vec::new()));
}

#[tokio::test]
async fn a_repeat_goes_if_what_it_repeats_is_whole_and_stays_otherwise() {
    let bench = Bench::new().await;
    let twin = bench.kept(1).await;
    let repeat = bench.spooled(1);
    bench.put(&repeat);
    bench.scrub.store.spool.remove(repeat.object).unwrap();
    bench.damage(twin.object);

    // Marked as lost by the time that the repeat is met: so that is no repeat, and takes the row over.
    let first = bench.run().await;
    assert_eq!(first.removed, 0);
    let rows = bench.scrub.store.index.instance(&twin.sop_instance).await.unwrap();
    assert_eq!(rows.iter().map(|row| row.object).collect::<Vec<_>>(), [repeat.object]);

    let again = bench.spooled(1);
    bench.put(&again);
    bench.scrub.store.spool.remove(again.object).unwrap();
    assert_eq!(bench.run().await.removed, 2, "with what was left of the damaged one");
    assert_eq!(bench.scrub.store.objects.list(None, 10).unwrap(), [repeat.object]);
}

#[tokio::test]
async fn what_is_lost_is_kept_when_it_is_sent_again() {
    let bench = Bench::new().await;
    bench.kept(1).await;
    let lost = bench.kept(2).await;
    bench.scrub.store.objects.delete(lost.object).unwrap();
    bench.run().await;

    let again = bench.spooled(2);
    let arrival = Arrival { facts: again.clone(), routed: Vec::new() };
    let recorded = bench.scrub.store.index.record(&[arrival]).await.unwrap();

    assert_eq!(recorded[0].outcome, RecordedAs::Returned);
    bench.put(&again);
    bench.scrub.store.index.mark_stored(&[again.object]).await.unwrap();
    let round = bench.run().await;
    assert_eq!((round.verified, round.findings), (2, Vec::new()));
}

#[tokio::test]
async fn what_was_removed_is_not_missed_and_what_a_removal_left_is_deleted() {
    let bench = Bench::new().await;
    bench.kept(1).await;
    let gone = Facts { study: "2.25.7".parse().unwrap(), ..bench.spooled(2) };
    bench.put(&gone);
    bench.record(&gone).await;
    bench.scrub.store.spool.remove(gone.object).unwrap();
    let index = &bench.scrub.store.index;
    let study = index.study_at_rest(&gone.study).await.unwrap().unwrap();
    index.remove_images(&study, Remover::Rule("all"), Timestamp::now()).await.unwrap();

    let first = bench.run().await;
    let second = bench.run().await;

    assert_eq!((first.removed, first.verified, first.findings), (1, 1, Vec::new()));
    assert_eq!((second.removed, second.verified, second.findings), (0, 1, Vec::new()));
    assert!(index.unfinished_deletions(9).await.unwrap().is_empty());
}

/// A store of which one object cannot be read, or which is down.
#[derive(Debug)]
struct Flaky {
    inner: Arc<dyn ObjectStore>,
    bad: Mutex<Option<ObjectId>>,
    /// As if no other could be read either.
    like_all: AtomicBool,
    down: AtomicBool,
}

impl Flaky {
    fn fails(&self, object: ObjectId, like_all: bool) {
        *self.bad.lock().unwrap() = Some(object);
        self.like_all.store(like_all, Ordering::Relaxed);
    }

    fn heal(&self) {
        *self.bad.lock().unwrap() = None;
        self.down.store(false, Ordering::Relaxed);
    }
}

impl Bench {
    fn behind_a_flaky_store(&mut self) -> Arc<Flaky> {
        let flaky = Arc::new(Flaky {
            inner: self.scrub.store.objects.clone(),
            bad: Mutex::default(),
            like_all: AtomicBool::new(false),
            down: AtomicBool::new(false),
        });
        self.scrub.store.objects = flaky.clone();
        flaky
    }
}

impl ObjectStore for Flaky {
    fn put(&self, files: &[(ObjectId, PathBuf)]) -> Vec<Result<(), ObjectError>> {
        self.inner.put(files)
    }

    fn replace(&self, object: ObjectId, file: &Path) -> Result<(), ObjectError> {
        self.inner.replace(object, file)
    }

    fn open(&self, object: ObjectId) -> Result<Box<dyn ReadAt>, ObjectError> {
        match *self.bad.lock().unwrap() {
            Some(bad) if bad == object && self.like_all.load(Ordering::Relaxed) => {
                Err(ObjectError::NotTried)
            }
            Some(bad) if bad == object => Ok(Box::new(BadSector(self.inner.open(object)?))),
            _ => self.inner.open(object),
        }
    }

    fn delete(&self, object: ObjectId) -> Result<(), ObjectError> {
        self.inner.delete(object)
    }

    fn list(&self, after: Option<ObjectId>, limit: usize) -> Result<Vec<ObjectId>, ObjectError> {
        self.inner.list(after, limit)
    }

    fn probe(&self) -> Result<Abilities, ObjectError> {
        if self.down.load(Ordering::Relaxed) {
            return Err(ObjectError::NotTried);
        }
        self.inner.probe()
    }

    fn sweep(&self, ours: &dyn Fn(ObjectId) -> bool) -> Result<usize, ObjectError> {
        self.inner.sweep(ours)
    }

    fn is_near(&self) -> bool {
        self.inner.is_near()
    }
}

/// A file behind whose header its disk fails (EIO).
struct BadSector(Box<dyn ReadAt>);

impl ReadAt for BadSector {
    fn read_exact_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        match offset {
            0 => self.0.read_exact_at(buffer, offset),
            _ => Err(io::Error::from_raw_os_error(5)),
        }
    }

    fn length(&self) -> io::Result<u64> {
        self.0.length()
    }
}
