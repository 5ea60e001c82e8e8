//! Promise 4: an emergency study does not wait behind routine ones.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)] // a panic is how a test fails

use gantry_tests::{Dcmtk, Gateway, ScriptedPartner, Sender, Setup, eventually};
use sample_studies::{HeadCt, Study, small_objects};

const ROUTINE: u32 = 300;
/// As many associations as a partner gets unless the configuration says otherwise.
const LANES: usize = 4;

async fn send(gateway: &Gateway, called: &str, study: &Study) {
    let mut sender =
        Sender::connect_as("PACS", called, gateway.plaintext(), &study.instances).await.unwrap();
    sender.store_all(&study.instances).await;
    sender.release().await;
}

async fn scene(port: u16, delivery: &str) -> Gateway {
    Setup::new()
        .source("pacs", "PACS")
        .delivery(delivery)
        .partner("partner", "PARTNER", port)
        .route("ROUTINE", &["partner"], "routine")
        .route("EMERGENCY", &["partner"], "emergency")
        .start()
        .await
}

/// How many routine instances arrived after the moment and before the last of the emergency.
fn overtaken_by(order: &[String], at: usize, emergency: &Study) -> usize {
    let emergency = emergency.sop_instance_uids();
    let after = &order[at..];
    let last = after
        .iter()
        .rposition(|uid| emergency.contains(uid))
        .expect("the emergency arrived after the moment");
    let arrived = after.iter().filter(|uid| emergency.contains(*uid)).count();
    assert_eq!(arrived, emergency.len(), "the emergency did not arrive whole after the moment");
    after[..last].iter().filter(|uid| !emergency.contains(*uid)).count()
}

#[tokio::test]
async fn an_emergency_overtakes_a_routine_backlog_at_the_next_instance() {
    let partner = ScriptedPartner::start().await;
    partner.allow(10);
    let gateway = scene(partner.port(), "").await;
    // Of the same size, so that counting them is counting what they had of the line.
    let (routine, emergency) = (small_objects(1, ROUTINE), small_objects(2, 40));
    send(&gateway, "ROUTINE", &routine).await;
    eventually("the partner to be busy", async || (partner.received().len() == 10).then_some(()))
        .await;

    send(&gateway, "EMERGENCY", &emergency).await;
    eventually("the emergency to be ordered", async || {
        let ordered = gateway.conservation("partner").await.ordered;
        (ordered == u64::from(ROUTINE) + emergency.len() as u64).then_some(())
    })
    .await;
    partner.allow(usize::MAX);

    gateway.delivered("partner", ROUTINE as usize + emergency.len()).await;
    let order: Vec<_> =
        partner.received().into_iter().map(|received| received.sop_instance_uid).collect();
    // One on each association is on the wire already.
    let overtaken_by = overtaken_by(&order, 10, &emergency);
    assert!(
        overtaken_by <= LANES,
        "{overtaken_by} routine instances came before the emergency was through"
    );
}

#[tokio::test]
async fn dcmtk_gets_an_emergency_first_although_it_serves_one_association_at_a_time() {
    let partner = Dcmtk::storescp("PARTNER")
        .one_association_at_a_time()
        .remembering_the_order()
        .start()
        .await;
    // It answers nothing while it is paused, and must not be given up on meanwhile.
    let gateway = scene(partner.port(), "connect-timeout = \"60s\"").await;
    let (routine, emergency) = (small_objects(3, ROUTINE), HeadCt::small(4).build());
    send(&gateway, "ROUTINE", &small_objects(5, 1)).await;
    gateway.delivered("partner", 1).await;
    partner.pause();
    send(&gateway, "ROUTINE", &routine).await;

    send(&gateway, "EMERGENCY", &emergency).await;
    let ordered = 1 + u64::from(ROUTINE) + emergency.len() as u64;
    eventually("the emergency to be ordered", async || {
        (gateway.conservation("partner").await.ordered == ordered).then_some(())
    })
    .await;
    partner.resume();

    gateway.delivered("partner", ordered as usize).await;
    let overtaken_by = overtaken_by(&partner.order_of_arrival(), 1, &emergency);
    assert!(
        overtaken_by <= LANES,
        "{overtaken_by} routine instances came before the emergency was through"
    );
}

#[tokio::test]
async fn what_decides_comes_before_the_thin_slices_although_the_scanner_sent_those_first() {
    let partner = Dcmtk::storescp("PARTNER")
        .one_association_at_a_time()
        .remembering_the_order()
        .start()
        .await;
    let gateway = scene(partner.port(), "connect-timeout = \"60s\"").await;
    let (thick, thin) = (6, 90);
    let mut emergency =
        HeadCt { thick_slices: thick, thin_slices: thin, ..HeadCt::small(6) }.build();
    emergency.instances.reverse();
    let first: Vec<_> = emergency.instances[thin as usize..]
        .iter()
        .map(|instance| instance.sop_instance_uid.clone())
        .collect();
    assert_eq!(first.len(), thick as usize + 1, "the thick slices and the scout");
    partner.pause();

    send(&gateway, "EMERGENCY", &emergency).await;
    eventually("the emergency to be ordered", async || {
        let ordered = gateway.conservation("partner").await.ordered;
        (ordered == emergency.len() as u64).then_some(())
    })
    .await;
    partner.resume();

    gateway.delivered("partner", emergency.len()).await;
    let order = partner.order_of_arrival();
    let last = order.iter().rposition(|uid| first.contains(uid)).unwrap();
    // What each association had claimed before the others came goes first: eight at a time, the reserved one's too.
    let before = last + 1 - first.len();
    assert!(before <= (LANES + 1) * 8, "{before} thin slices came before the last thick one");
}

#[tokio::test]
async fn an_emergency_takes_no_notice_of_a_rate_that_holds_routine_back() {
    let partner = Dcmtk::storescp("PARTNER").start().await;
    let gateway = Setup::new()
        .source("pacs", "PACS")
        .partner("partner", "PARTNER", partner.port())
        .and("rate = \"64KiB\"")
        .route("ROUTINE", &["partner"], "routine")
        .route("EMERGENCY", &["partner"], "emergency")
        .start()
        .await;
    let (routine, emergency) =
        (sample_studies::ct_series(60, 12), sample_studies::ct_series(61, 12));
    send(&gateway, "ROUTINE", &routine).await;
    send(&gateway, "EMERGENCY", &emergency).await;

    // At the rate it would take a minute and a half.
    let of = async |priority: &str| {
        let address = format!("/api/v1/transfers?priority={priority}");
        gateway.api(&address).await[0]["counts"]["delivered"].as_u64()
    };
    eventually("the emergency to be there", async || {
        (of("emergency").await == Some(12)).then_some(())
    })
    .await;
    let sent = of("routine").await.unwrap_or_default();
    assert!(sent < 12, "the rate held nothing back");
}
