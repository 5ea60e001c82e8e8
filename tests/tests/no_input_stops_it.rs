//! Promise 10: no byte sequence crashes the node, fills its memory or its disk, or makes it say what it should not.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)] // a panic is how a test fails

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

use gantry_tests::raw::{Reply, associate_rq, c_store_rq, command, p_data, pdu};
use gantry_tests::{
    Dcmtk, Gateway, Held, RawDicom, ScriptedPartner, Sender, Setup, Storescp, digest_on_arrival,
    eventually,
};
use sample_studies::malformed::{self, Verdict};
use sample_studies::{HeadCt, Study, small_objects};

const SECONDARY_CAPTURE: &str = "1.2.840.10008.5.1.4.1.1.7";
const EXPLICIT: &str = "1.2.840.10008.1.2.1";
/// What the node may have had in memory at once, whatever was sent to it.
const MEMORY: u64 = 256 << 20;

/// What is wrong with what came in, in the words of PS3.4 Table B.2-1 and PS3.7 Annex C.
const SUCCESS: u16 = 0x0000;
const SOP_CLASS_NOT_SUPPORTED: u16 = 0x0122;
const MISTYPED_ARGUMENT: u16 = 0x0212;
const UNRECOGNISED_OPERATION: u16 = 0x0211;
const INVALID_SOP_INSTANCE: u16 = 0x0117;
const DATA_SET_MISMATCH: u16 = 0xA900;
const CANNOT_UNDERSTAND: u16 = 0xC000;

/// A node that says all it can say, and what it forwards to.
async fn scene() -> (Storescp, Gateway) {
    let clinic = Dcmtk::storescp("CLINIC").start().await;
    let gateway = forwarding_to(&clinic).log_level("trace").start().await;
    (clinic, gateway)
}

fn forwarding_to(clinic: &Storescp) -> Setup {
    Gateway::forwarding_to(clinic).route("CLINIC", &["partner"], "routine")
}

/// Afterwards: alive, of normal size, nothing left lying about, nothing said that should not be, and still at work.
async fn is_unharmed(mut gateway: Gateway, clinic: &Storescp, seen: &[Study]) {
    assert!(gateway.is_alive(), "the node died");
    let good = HeadCt::small(4711).build();
    Dcmtk::storescu(&good).called("CLINIC").send_to(gateway.plaintext()).await.expect_success();
    eventually("a good study to go through", async || {
        let held = clinic.try_holds()?;
        good.instances.iter().all(|image| held.contains_key(&image.sop_instance_uid)).then_some(())
    })
    .await;

    let peak = gateway.peak_memory();
    assert!(peak < MEMORY, "the node had {} MiB in memory", peak >> 20);
    assert!(gateway.stop().await.success());
    let held = Held::in_data_dir(gateway.data_dir());
    assert!(held.leftovers.is_empty(), "left in the spool: {:?}", held.leftovers);
    let log = gateway.log();
    assert!(!log.contains("panicked"), "something panicked");
    for planted in
        seen.iter().chain([&good]).flat_map(Study::planted).filter(|planted| planted.text.len() > 4)
    {
        assert!(
            !log.contains(&planted.text),
            "the log has the {} {:?}",
            planted.attribute,
            planted.text
        );
    }
}

#[tokio::test]
async fn dcmtk_gets_a_data_set_of_odd_length_as_an_even_one() {
    let (clinic, gateway) = scene().await;
    let odd = malformed::lengths(9).into_iter().find(|one| one.name == "odd-length").unwrap();
    let mut peer = RawDicom::associate(gateway.plaintext(), &odd.sop_class_uid, EXPLICIT).await;

    let status = peer.store(&odd.sop_class_uid, &odd.sop_instance_uid, &odd.data_set).await;

    assert_eq!(status.unwrap(), SUCCESS);
    peer.release().await;
    let arrives = digest_on_arrival(&odd.data_set, EXPLICIT);
    clinic.comes_to_hold(&BTreeMap::from([(odd.sop_instance_uid.clone(), arrives)])).await;
    is_unharmed(gateway, &clinic, &[]).await;
}

#[tokio::test]
async fn malformed_data_sets_are_answered_each_as_it_deserves() {
    // DCMTK aborts on some of what is accepted here; this partner takes and remembers every byte.
    let partner = ScriptedPartner::start().await;
    let clinic = Dcmtk::storescp("CLINIC").start().await;
    let gateway = Setup::new()
        .source("pacs", "PACS")
        .partner("clinic", clinic.ae_title(), clinic.port())
        .partner("partner", "PARTNER", partner.port())
        .route("GANTRY", &["partner"], "routine")
        .route("CLINIC", &["clinic"], "routine")
        .log_level("trace")
        .start()
        .await;

    let mut wrong = Vec::new();
    let mut accepted = BTreeMap::new();
    for one in malformed::all(1) {
        let mut peer =
            RawDicom::associate(gateway.plaintext(), &one.sop_class_uid, one.transfer_syntax_uid)
                .await;
        let status = peer.store(&one.sop_class_uid, &one.sop_instance_uid, &one.data_set).await;
        let as_it_deserves = match (&status, one.verdict) {
            (Ok(SUCCESS), Verdict::Accepted | Verdict::Either) => true,
            (Ok(status), Verdict::Refused | Verdict::Either) => {
                matches!(status, &INVALID_SOP_INSTANCE | &DATA_SET_MISMATCH | &CANNOT_UNDERSTAND)
            }
            _ => false,
        };
        if !as_it_deserves {
            wrong.push(format!(
                "{} ({}): {:?}, answered {status:04X?}",
                one.name, one.what, one.verdict
            ));
        }
        if matches!(status, Ok(SUCCESS)) {
            let arrives = digest_on_arrival(&one.data_set, one.transfer_syntax_uid);
            accepted.insert(one.sop_instance_uid.clone(), arrives);
        }
        if status.is_ok() {
            peer.release().await;
        }
    }

    assert!(wrong.is_empty(), "{wrong:#?}");
    assert!(accepted.len() > 10, "only {} were accepted", accepted.len());
    eventually("what was accepted to arrive", async || {
        let arrived = partner.received();
        let arrived: BTreeMap<_, _> = arrived
            .into_iter()
            .map(|received| (received.sop_instance_uid, received.digest))
            .collect();
        (arrived == accepted).then_some(())
    })
    .await;
    is_unharmed(gateway, &clinic, &[]).await;
}

#[tokio::test]
async fn a_request_that_lies_about_its_data_set_is_told_so() {
    let (clinic, gateway) = scene().await;
    let study = small_objects(2, 2);
    let [one, other] = &study.instances[..] else { panic!("two were asked for") };
    let store = async |class: &str, uid: &str, data_set: &[u8]| {
        let mut peer = RawDicom::associate(gateway.plaintext(), SECONDARY_CAPTURE, EXPLICIT).await;
        peer.store(class, uid, data_set).await.unwrap()
    };

    assert_eq!(
        store(SECONDARY_CAPTURE, &other.sop_instance_uid, &one.data_set).await,
        DATA_SET_MISMATCH
    );
    let ct = "1.2.840.10008.5.1.4.1.1.2";
    assert_eq!(store(ct, &one.sop_instance_uid, &one.data_set).await, SOP_CLASS_NOT_SUPPORTED);
    assert_eq!(
        store(SECONDARY_CAPTURE, "../../etc/passwd", &one.data_set).await,
        INVALID_SOP_INSTANCE
    );
    assert_eq!(store(SECONDARY_CAPTURE, "", &one.data_set).await, INVALID_SOP_INSTANCE);
    assert_eq!(store("not a uid", &one.sop_instance_uid, &one.data_set).await, MISTYPED_ARGUMENT);
    assert_eq!(store(SECONDARY_CAPTURE, &one.sop_instance_uid, &[]).await, CANNOT_UNDERSTAND);

    assert_eq!(store(SECONDARY_CAPTURE, &one.sop_instance_uid, &one.data_set).await, SUCCESS);
    is_unharmed(gateway, &clinic, &[study]).await;
}

#[tokio::test]
async fn an_association_that_is_not_one_ends() {
    let (clinic, gateway) = scene().await;
    let request = || associate_rq("PACS", "GANTRY", &[(SECONDARY_CAPTURE, EXPLICIT)]);
    let with = |at: usize, bytes: &[u8]| {
        let mut request = request();
        request[at..at + bytes.len()].copy_from_slice(bytes);
        request
    };
    let cut = |at: usize| pdu(1, &request()[6..at]);
    let before_acceptance = [
        ("bytes of no meaning", vec![0xA5; 4096]),
        ("zeros", vec![0; 4096]),
        ("a request of 4 GB", [&[1, 0, 0xFF, 0xFF, 0xFF, 0xF0][..], &[0; 512]].concat()),
        ("a request of no length", pdu(1, &[])),
        ("a request cut in its titles", cut(40)),
        ("a request cut in a context", cut(120)),
        ("an item longer than the request", with(76, &[0xFF, 0xF0])),
        (
            "data before the request",
            p_data(1, true, true, &c_store_rq(1, SECONDARY_CAPTURE, "1.2")),
        ),
        ("data of 4 GB before the request", vec![4, 0, 0xFF, 0xFF, 0xFF, 0xF0]),
        ("release before the request", pdu(5, &[0; 4])),
        ("an acceptance", pdu(2, &request()[6..])),
        ("an abort", pdu(7, &[0, 0, 2, 0])),
        ("a PDU of an unknown type", pdu(9, &[0; 16])),
    ];
    for (what, bytes) in before_acceptance {
        let mut peer = RawDicom::connect(gateway.plaintext()).await;
        // The node may hang up before all is sent.
        let _ = peer.send(&bytes).await;
        peer.closed_because(what, Duration::from_secs(20)).await;
    }

    let mut long_command = Vec::new();
    for _ in 0..40 {
        long_command.extend(p_data(1, true, false, &[0; 4096]));
    }
    let store = p_data(1, true, true, &c_store_rq(1, SECONDARY_CAPTURE, "1.2.3"));
    let after_acceptance = [
        ("the request again", request()),
        ("a PDU of an unknown type", pdu(9, &[0; 16])),
        ("a PDU longer than was offered", [&[4, 0, 0, 0x20, 0, 0][..], &[0; 512]].concat()),
        ("a PDU of 4 GB", [&[4, 0, 0xFF, 0xFF, 0xFF, 0xF0][..], &[0; 512]].concat()),
        ("a P-DATA-TF without a value", pdu(4, &[])),
        ("a value of no length", pdu(4, &[0, 0, 0, 0])),
        ("a value without its control byte", pdu(4, &[0, 0, 0, 1, 1])),
        ("a value longer than its PDU", pdu(4, &[0, 0, 1, 0, 1, 3, 0, 0])),
        ("a value shorter than its PDU", pdu(4, &[0, 0, 0, 3, 1, 1, 0, 9, 9])),
        (
            "a context that was not asked for",
            p_data(77, true, true, &c_store_rq(1, SECONDARY_CAPTURE, "1.2")),
        ),
        ("context 0", p_data(0, true, true, &c_store_rq(1, SECONDARY_CAPTURE, "1.2"))),
        ("a data set without a command", p_data(1, false, true, &[0; 100])),
        ("a command of zeros", p_data(1, true, true, &[0; 100])),
        (
            "a command that is text",
            p_data(1, true, true, b"this is no command set, however long one looks at it"),
        ),
        (
            "a command whose element is 4 GB",
            p_data(1, true, true, &[0, 0, 0, 1, 0xFF, 0xFF, 0xFF, 0xFF, 1, 0]),
        ),
        (
            "a command with a data element",
            p_data(1, true, true, &[8, 0, 5, 0, 2, 0, 0, 0, 0x41, 0x42]),
        ),
        ("an empty command", p_data(1, true, true, &[])),
        ("a command without end", long_command),
        ("a command in a data set", [&store[..], &store].concat()),
        (
            "a release in a data set",
            [&store[..], &p_data(1, false, false, &[8, 0]), &pdu(5, &[0; 4])].concat(),
        ),
        ("a data set on another context", [&store[..], &p_data(3, false, true, &[8, 0])].concat()),
    ];
    for (what, bytes) in after_acceptance {
        let mut peer = RawDicom::associate(gateway.plaintext(), SECONDARY_CAPTURE, EXPLICIT).await;
        let _ = peer.send(&bytes).await;
        match peer.reply().await {
            Ok(Reply::Aborted(2, _) | Reply::Closed) => {}
            other => panic!("{what}: the node answered {other:?}"),
        }
        peer.closed_because(what, Duration::from_secs(20)).await;
    }

    assert_eq!(gateway.instances().await, 0);
    is_unharmed(gateway, &clinic, &[]).await;
}

#[tokio::test]
async fn an_operation_that_is_not_served_is_refused_and_the_association_goes_on() {
    let (clinic, gateway) = scene().await;
    let study = small_objects(3, 1);
    let instance = &study.instances[0];
    let mut peer = RawDicom::associate(gateway.plaintext(), SECONDARY_CAPTURE, EXPLICIT).await;

    // C-GET, C-FIND, C-MOVE, C-ECHO (on a storage context), N-EVENT-REPORT, N-ACTION, and one that does not exist.
    for field in [0x0010_u16, 0x0020, 0x0021, 0x0030, 0x0100, 0x0130, 0x0666] {
        let fields = [
            (0x0100, &field.to_le_bytes()[..]),
            (0x0110, &7_u16.to_le_bytes()),
            (0x0800, &0x0101_u16.to_le_bytes()),
        ];
        peer.send(&p_data(1, true, true, &command(&fields))).await.unwrap();
        assert_eq!(peer.status().await.unwrap(), UNRECOGNISED_OPERATION, "command {field:04X}H");
    }

    let status = peer
        .store(SECONDARY_CAPTURE, &instance.sop_instance_uid, &instance.data_set)
        .await
        .unwrap();
    assert_eq!(status, SUCCESS);
    peer.release().await;
    is_unharmed(gateway, &clinic, &[study]).await;
}

#[tokio::test]
async fn a_sender_that_goes_away_in_a_data_set_leaves_nothing() {
    let (clinic, gateway) = scene().await;
    let study = small_objects(4, 1);
    let instance = &study.instances[0];
    let store =
        p_data(1, true, true, &c_store_rq(1, SECONDARY_CAPTURE, &instance.sop_instance_uid));
    let conversation = [store, p_data(1, false, true, &instance.data_set)].concat();

    for at in (0..conversation.len()).step_by(61) {
        let mut peer = RawDicom::associate(gateway.plaintext(), SECONDARY_CAPTURE, EXPLICIT).await;
        peer.send(&conversation[..at]).await.unwrap();
    }

    eventually("the spool to be empty", async || {
        Held::in_data_dir(gateway.data_dir()).leftovers.is_empty().then_some(())
    })
    .await;
    assert_eq!(gateway.instances().await, 0);
    is_unharmed(gateway, &clinic, &[study]).await;
}

#[tokio::test]
async fn a_peer_that_falls_silent_is_given_up_on() {
    let clinic = Dcmtk::storescp("CLINIC").start().await;
    let certificates = std::sync::Arc::new(gantry_tests::Certificates::new());
    let gateway = forwarding_to(&clinic)
        .tls(&certificates)
        .association("handshake-timeout = \"1s\"\nidle-timeout = \"1s\"\nrelease-timeout = \"1s\"")
        .start()
        .await;
    let request = associate_rq("PACS", "GANTRY", &[(SECONDARY_CAPTURE, EXPLICIT)]);
    let store = p_data(1, true, true, &c_store_rq(1, SECONDARY_CAPTURE, "1.2.3"));
    let some_data = p_data(1, false, false, &small_objects(5, 1).instances[0].data_set[..1000]);
    let after_request = |bytes: &[u8]| [&request[..], bytes].concat();
    let halves: [(&str, SocketAddr, Vec<u8>); 8] = [
        ("nothing at all", gateway.plaintext(), Vec::new()),
        ("nothing at all to TLS", gateway.tls(), Vec::new()),
        ("half a TLS hello", gateway.tls(), vec![0x16, 3, 1, 1, 0, 1]),
        ("half a request", gateway.plaintext(), request[..50].to_vec()),
        ("a request and no more", gateway.plaintext(), request.clone()),
        ("half a command", gateway.plaintext(), after_request(&store[..20])),
        ("a command without its data set", gateway.plaintext(), after_request(&store)),
        (
            "half a data set",
            gateway.plaintext(),
            after_request(&[&store[..], &some_data, &some_data[..500]].concat()),
        ),
    ];

    let mut peers = Vec::new();
    for (what, address, bytes) in halves {
        let mut peer = RawDicom::connect(address).await;
        peer.send(&bytes).await.unwrap();
        peers.push((what, peer));
    }

    for (what, peer) in &mut peers {
        peer.closed_because(what, Duration::from_secs(10)).await;
    }
    is_unharmed(gateway, &clinic, &[]).await;
}

#[tokio::test]
async fn a_peer_that_sends_a_byte_now_and_then_is_given_up_on() {
    let gateway = Setup::new()
        .source("pacs", "PACS")
        .association("handshake-timeout = \"1s\"\nidle-timeout = \"1s\"")
        .start()
        .await;
    let request = associate_rq("PACS", "GANTRY", &[(SECONDARY_CAPTURE, EXPLICIT)]);
    let mut peer = RawDicom::connect(gateway.plaintext()).await;

    let begun = std::time::Instant::now();
    let mut sent = 0;
    // Each byte is sent a tenth of a second after the one before: the pace is what is tested.
    while sent < request.len() && peer.is_open().await {
        if peer.send(&request[sent..=sent]).await.is_err() {
            break;
        }
        sent += 1;
        tokio::time::sleep(Duration::from_millis(50)).await;
    }

    assert!(sent < request.len(), "the node waited for the whole request, {:?}", begun.elapsed());
}

#[tokio::test]
async fn conversations_with_flipped_bytes_harm_nobody() {
    let (clinic, mut gateway) = scene().await;
    let study = small_objects(6, 1);
    let instance = &study.instances[0];
    let store =
        p_data(1, true, true, &c_store_rq(1, SECONDARY_CAPTURE, &instance.sop_instance_uid));
    let request = associate_rq("PACS", "GANTRY", &[(SECONDARY_CAPTURE, EXPLICIT)]);
    let conversation = [&request[..], &store, &p_data(1, false, true, &instance.data_set)].concat();
    let seed = std::env::var("GANTRY_SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or(1);
    println!("seed {seed} (GANTRY_SEED)");
    let mut random = gantry_tests::random::Random::new(seed);

    for round in 0..300 {
        let mut bytes = conversation.clone();
        for _ in 0..=random.below(4) {
            // Half of them where headers are, as most of the bytes are pixels.
            let end = if random.below(2) == 0 { 1200 } else { bytes.len() };
            let at = random.below(end);
            bytes[at] ^= 1 << random.below(8);
        }
        let mut peer = RawDicom::connect(gateway.plaintext()).await;
        let _ = peer.send(&bytes).await;
        peer.hang_up();
        assert!(gateway.is_alive(), "the node died in round {round} of seed {seed}");
    }

    // Its seats may still be taken by those who have just left.
    eventually("a seat to be free", async || {
        Sender::connect(gateway.plaintext(), &[])
            .await
            .ok()?
            .release()
            .await
            .is_empty()
            .then_some(())
    })
    .await;
    is_unharmed(gateway, &clinic, &[study]).await;
}
