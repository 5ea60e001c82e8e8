//! Intake: makes a received instance durable before its sender hears "success", then makes it findable.
//!
//! `receive` is what a sender waits for: the data set streams through the scanner into a sealed spool file; the order is
//! segments, completeness, header, sync, rename, sync of the folder, answer. `drain` follows behind: spool entries become
//! rows and deliveries, which `storing` then makes objects. `sweep` is what happens first after a crash. Between `receive` and `drain` lies
//! only what is durable, so either may stop at any point. Knows nothing of associations or of how partners are reached.

pub mod backlog;
pub mod drain;
pub mod fetching;
pub mod protecting;
mod receive;
mod storing;
pub mod sweep;

pub use backlog::Backlog;
pub use drain::{Arrived, Drain, Handoff, OpenStudies};
pub use fetching::Fetching;
pub use receive::{Announced, Intake, IntakeError, Receiver};

#[cfg(test)]
mod tests {
    use std::collections::HashMap;
    use std::sync::{Arc, Mutex};

    use bytes::Bytes;
    use gantry_store::delivered::Delivered;
    use gantry_store::facts::Priority;
    use gantry_store::index::{Index, TransferFilter};
    use gantry_store::object::FileObjects;
    use gantry_store::sealed::{Keyring, SealedError};
    use gantry_store::spool::{Durability, Spool};
    use tokio_util::sync::CancellationToken;

    use super::drain::Wake;
    use super::*;
    use crate::association::status::Status;
    use crate::testing::{config_in, facts};

    #[derive(Debug, Default)]
    struct Rung(Mutex<HashMap<String, usize>>);

    impl Wake for Rung {
        fn work_for(&self, partner: &str, _: Priority) {
            *self.0.lock().unwrap().entry(partner.to_owned()).or_default() += 1;
        }
        fn try_now(&self, _: &str) {}
        fn changed(&self) {}
    }

    struct Bench {
        folder: tempfile::TempDir,
        spool: Arc<Spool>,
        index: Index,
        rung: Arc<Rung>,
    }

    impl Bench {
        async fn new() -> Self {
            let folder = tempfile::tempdir().unwrap();
            let keyring = Arc::new(Keyring::create(&folder.path().join("keys")).unwrap());
            let spool = Arc::new(Spool::open(&folder.path().join("spool"), keyring, 0).unwrap());
            let index = Index::open(&folder.path().join("index.sqlite")).await.unwrap();
            Self { spool, index, rung: Arc::default(), folder }
        }

        fn intake(&self, handoff: Handoff) -> Arc<Intake> {
            Intake::new(self.spool.clone(), Durability::Durable, 1 << 30, [].into(), handoff)
        }

        fn drain(&self, handoff: Handoff) -> Drain {
            Drain {
                spool: self.spool.clone(),
                index: self.index.clone(),
                objects: Arc::new(FileObjects::open(&self.folder.path().join("objects")).unwrap()),
                delivered: Arc::new(
                    Delivered::open(&self.folder.path().join("delivered")).unwrap(),
                ),
                durability: Durability::Durable,
                routes: config_in(self.folder.path(), &[("a", "A", &[]), ("b", "B", &[])])
                    .routes
                    .into(),
                protections: std::collections::BTreeMap::new(),
                handoff,
                wake: self.rung.clone(),
            }
        }

        /// Lets the drain work through what is there, as a node that is stopped at once would.
        async fn drain_once(&self) {
            let (handoff, arrivals) = Handoff::new();
            let stop = CancellationToken::new();
            let running = tokio::spawn(self.drain(handoff).run(arrivals, stop.clone()));
            stop.cancel();
            running.await.unwrap();
        }
    }

    async fn send(
        receiver: &mut Receiver,
        data_set: &[u8],
        step: usize,
    ) -> Result<Box<gantry_store::facts::Facts>, IntakeError> {
        let announced = Announced {
            origin: facts(1).origin,
            transfer_syntax: gantry_store::dicom::TransferSyntax::explicit_vr_little_endian(),
            named: None,
            study: None,
        };
        receiver.begin(announced).await?;
        for chunk in data_set.chunks(step) {
            receiver.data(vec![Bytes::copy_from_slice(chunk)]).await?;
        }
        receiver.end().await
    }

    #[tokio::test]
    async fn what_was_taken_in_becomes_rows_deliveries_and_objects_and_leaves_the_spool() {
        let bench = Bench::new().await;
        let (handoff, _arrivals) = Handoff::new();
        let mut receiver = bench.intake(handoff).receiver();
        let study = sample_studies::ct_series(1, 3);
        for instance in &study.instances {
            send(&mut receiver, &instance.data_set, 100_000).await.unwrap();
        }
        assert_eq!(bench.spool.entries().unwrap().len(), 3);

        bench.drain_once().await;
        bench.drain_once().await;

        assert!(bench.spool.entries().unwrap().is_empty());
        let totals = bench.index.totals().await.unwrap();
        assert_eq!((totals.instances, totals.unstored), (3, 0));
        let transfers = bench.index.transfers(&TransferFilter::default()).await.unwrap();
        assert_eq!(
            transfers.iter().map(|transfer| transfer.counts.queued).collect::<Vec<_>>(),
            [3, 3]
        );
        assert_eq!(bench.rung.0.lock().unwrap().len(), 2);
    }

    #[tokio::test]
    async fn a_damaged_data_set_is_refused_leaves_nothing_and_the_next_one_is_taken() {
        let bench = Bench::new().await;
        let (handoff, _arrivals) = Handoff::new();
        let mut receiver = bench.intake(handoff).receiver();
        let whole = &sample_studies::small_objects(1, 1).instances[0].data_set;

        let cut = send(&mut receiver, &whole[..whole.len() - 3], 1000).await.unwrap_err();
        let taken = send(&mut receiver, whole, 7).await.unwrap();
        // The thread that spools does one thing after the other, so it is through with the first.
        let left = std::fs::read_dir(bench.folder.path().join("spool")).unwrap().count();

        assert_eq!(Status::from(&cut), Status::CANNOT_UNDERSTAND);
        assert_eq!(left, 2, "the lock, and what was taken");
        let mut read = Vec::new();
        let entry = bench.spool.read(taken.object).unwrap();
        let gather = |plain: &[u8]| {
            read.extend_from_slice(plain);
            Ok::<_, SealedError>(())
        };
        entry.copy_to(gather).unwrap();
        assert!(read == *whole);
    }

    #[tokio::test]
    async fn a_sender_that_goes_away_in_mid_instance_leaves_nothing() {
        let bench = Bench::new().await;
        let (handoff, _arrivals) = Handoff::new();
        let intake = bench.intake(handoff);
        let mut receiver = intake.receiver();
        let announced = Announced {
            origin: facts(1).origin,
            transfer_syntax: gantry_store::dicom::TransferSyntax::explicit_vr_little_endian(),
            named: None,
            study: None,
        };
        receiver.begin(announced).await.unwrap();
        receiver.data(vec![Bytes::from_static(&[8, 0, 5, 0])]).await.unwrap();

        drop(receiver);
        // The thread holds the intake until it is through with what was begun.
        while Arc::strong_count(&intake) > 1 {
            tokio::task::yield_now().await;
        }

        assert_eq!(
            std::fs::read_dir(bench.folder.path().join("spool")).unwrap().count(),
            1,
            "only the lock"
        );
    }

    #[tokio::test]
    async fn a_repeat_is_recognised_and_its_copy_goes() {
        let bench = Bench::new().await;
        let (handoff, _arrivals) = Handoff::new();
        let mut receiver = bench.intake(handoff).receiver();
        let data_set = &sample_studies::small_objects(1, 1).instances[0].data_set;
        send(&mut receiver, data_set, 1000).await.unwrap();
        bench.drain_once().await;

        send(&mut receiver, data_set, 1000).await.unwrap();
        bench.drain_once().await;

        assert!(bench.spool.entries().unwrap().is_empty());
        assert_eq!(bench.index.totals().await.unwrap().instances, 1);
        let ordered: u64 =
            bench.index.conservation().await.unwrap().iter().map(|partner| partner.ordered).sum();
        assert_eq!(ordered, 2);
    }

    #[tokio::test]
    async fn a_damaged_spool_entry_is_set_aside_and_the_others_go_on() {
        let bench = Bench::new().await;
        let (handoff, _arrivals) = Handoff::new();
        let mut receiver = bench.intake(handoff).receiver();
        let study = sample_studies::small_objects(1, 2);
        let broken = send(&mut receiver, &study.instances[0].data_set, 1000).await.unwrap();
        send(&mut receiver, &study.instances[1].data_set, 1000).await.unwrap();
        let path = bench.spool.path(broken.object);
        let mut bytes = std::fs::read(&path).unwrap();
        bytes[200] ^= 1;
        std::fs::write(&path, bytes).unwrap();

        bench.drain_once().await;

        assert_eq!(bench.index.totals().await.unwrap().instances, 1);
        assert!(path.with_extension("damaged").exists());
    }
}
