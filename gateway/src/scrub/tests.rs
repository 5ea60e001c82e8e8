use gantry_store::sealed::Keyring;
use gantry_store::spool::Durability;
use ring::digest::{SHA256, digest};

use super::*;
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
            rate: None,
            settling: Duration::ZERO,
            stop: CancellationToken::new(),
        };
        Self { folder, scrub }
    }

    fn state(&self) -> std::path::PathBuf {
        self.folder.path().join("scrub.json")
    }

    /// Received: it is in the spool, and nowhere else.
    fn spooled(&self, number: u64) -> Facts {
        let bytes = number.to_le_bytes().repeat(40_000);
        let mut incoming = self.scrub.store.spool.begin(Vec::new()).unwrap();
        incoming.write(&bytes).unwrap();
        let mut facts = Facts { object: incoming.object(), ..facts(number) };
        facts.length = bytes.len() as u64;
        facts.digest.0.copy_from_slice(digest(&SHA256, &bytes).as_ref());
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
        self.scrub.run(&self.state()).await.unwrap()
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

    let ended = bench.scrub.run(&bench.state()).await;

    assert!(matches!(ended, Err(ScrubError::Empty)), "{ended:?}");
    assert_eq!(Round::load(&bench.state()), None);
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
async fn a_run_goes_on_where_the_last_one_ended() {
    let bench = Bench::new().await;
    let mut objects = Vec::new();
    for number in 0..6 {
        objects.push(bench.kept(number).await.object);
    }
    objects.sort_unstable();
    Round { cursor: Some(objects[3]), ..Round::new() }.save(&bench.state()).unwrap();

    assert_eq!(bench.run().await.verified, 2);

    std::fs::write(bench.state(), "{").unwrap();
    assert_eq!(bench.run().await.verified, 6);
}

#[tokio::test]
async fn a_run_that_is_stopped_ends_and_finds_nothing_wrong() {
    let bench = Bench::new().await;
    bench.kept(1).await;
    bench.scrub.stop.cancel();

    let ended = bench.scrub.run(&bench.state()).await;

    assert!(matches!(ended, Err(ScrubError::Stopped)), "{ended:?}");
    assert_eq!(Round::load(&bench.state()), None);
}

#[tokio::test]
async fn objects_are_read_no_faster_than_they_may_be() {
    let mut bench = Bench::new().await;
    bench.kept(1).await;
    bench.scrub.rate = Some(640_000);
    let begun = Instant::now();

    bench.run().await;

    assert!(begun.elapsed() >= Duration::from_millis(490));
}
