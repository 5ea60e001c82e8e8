//! What is sent together of one patient has one status: the study, its report and the letter; and nobody else's is in it.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)] // a panic is how a test fails

use gantry_tests::http::Ask;
use gantry_tests::{Dcmtk, Gateway, digests, eventually};
use sample_studies::{HeadCt, Study, encapsulated_pdf, small_objects, structured_report};
use serde_json::Value;

#[tokio::test]
async fn a_study_with_its_report_and_letter_is_one_parcel_until_all_of_it_is_there() {
    let mut partner = Dcmtk::storescp("PARTNER");
    let mut gateway = Gateway::forwarding_to(&partner).start().await;
    let folder = tempfile::tempdir().unwrap();
    let head = HeadCt { thin_slices: 4, ..HeadCt::new(7) }.build();
    let (report, letter, stranger) =
        (structured_report(7), encapsulated_pdf(7), small_objects(8, 3));
    let studies = [&head, &report, &letter, &stranger];
    for study in studies {
        study.write_to(folder.path()).unwrap();
    }

    let path = folder.path().to_str().unwrap().to_owned();
    let sent = gateway.command(&["send", &path, "--to", "partner", "--emergency", "--json"]).await;
    assert!(sent.status.success(), "{}", String::from_utf8_lossy(&sent.stderr));

    let transfers = gateway.api("/api/v1/transfers").await;
    let of = |study: &Study| {
        let all = transfers.as_array().unwrap().iter();
        let mut of =
            all.filter(|it| it["study"]["study_instance_uid"] == study.study_instance_uid());
        of.next().unwrap().clone()
    };
    let parcel = of(&head)["parcel"].as_str().expect("a parcel").to_owned();
    assert!([&report, &letter].iter().all(|study| of(study)["parcel"] == parcel.as_str()));
    assert_eq!(of(&stranger)["parcel"], Value::Null);

    let address = format!("/api/v1/parcels/{parcel}");
    let images = (head.len() + report.len() + letter.len()) as u64;
    let waits = eventually("the partner to be found absent", async || {
        let now = gateway.api(&address).await;
        (now["state"] == "delayed").then_some(now)
    })
    .await;
    assert_eq!(waits["counts"]["total"], images, "{waits:#}");
    assert_eq!(waits["transfers"].as_array().unwrap().len(), 3);

    partner.run().await;
    let done = eventually("the parcel to be sent", async || {
        let now = gateway.api(&address).await;
        (now["state"] == "sent").then_some(now)
    })
    .await;
    assert_eq!(done["counts"]["delivered"], images, "{done:#}");
    let id = of(&letter)["id"].as_str().unwrap().to_owned();
    let shown = gateway.command(&["transfer", "show", &id]).await;
    let shown = String::from_utf8_lossy(&shown.stdout).into_owned();
    assert!(shown.contains(&format!("All {images} images of 3 studies were accepted.")), "{shown}");

    let mut all = digests(&head);
    for study in &studies[1..] {
        all.extend(digests(study));
    }
    partner.comes_to_hold(&all).await;

    // Rows that are made anew know it too, by the sealed headers.
    gateway.stop().await;
    for end in ["", "-wal", "-shm"] {
        let _ = std::fs::remove_file(gateway.data_dir().join(format!("index.sqlite{end}")));
    }
    gateway.start().await;
    eventually("the parcel to be known again", async || {
        let now = gateway.ask(Ask::get(&address)).await;
        (now.status == 200 && now.json()["counts"]["delivered"] == images).then_some(())
    })
    .await;
}
