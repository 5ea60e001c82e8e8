//! throw-away
use super::*;

#[tokio::test(flavor = "multi_thread")]
#[ignore = "serves"]
async fn serve_to_look_at() {
    let node = Node::start().await;
    let i = &node.state.index;
    let e = Priority::Emergency;
    let refused = Patient { study: 201, name: "O'BRIEN^SEAN^^MR", id: "4010232137", born: "19450921", description: "CT Angiogram aorta", ago: 760, ..ANNA };
    node.images(&refused, 0..612, INFIRMARY, e).await;
    let c = node.claim(INFIRMARY, 1000).await;
    node.settle(&c[..200], &accepted()).await;
    node.settle(&c[200..], &Event::Reject { why: failure(FailureKind::AssociationRejected, "association rejected: permanent, calling AE title not recognised") }).await;
    let delayed = Patient { study: 202, name: "NG^WEI LING^^MS", id: "RXX00123", born: "19880102", description: "CT Head and cervical spine, trauma", ago: 1250, ..ANNA };
    let d = node.images(&delayed, 0..320, INFIRMARY, e).await;
    let c = node.claim(INFIRMARY, 1000).await;
    node.settle(&c, &Event::Defer { until: Timestamp::now() + Duration::from_secs(150), why: failure(FailureKind::Unreachable, "10.20.0.7:2762 did not answer within 10s") }).await;
    let sent = Patient { study: 203, name: "ABUBAKAR-WILLIAMS^OLUWASEUN^MARY^DR", id: "9876543210", born: "19620707", description: "MR Brain stroke protocol", modality: "MR", ago: 4000 };
    let s = node.images(&sent, 0..412, INFIRMARY, e).await;
    let c = node.claim(INFIRMARY, 1000).await;
    node.settle(&c, &accepted()).await;
    i.note_received_all(&[s], Timestamp::now()).await.unwrap();
    let m = node.images(&ANNA, 0..412, INFIRMARY, e).await;
    i.note_received_all(&[m], Timestamp::now()).await.unwrap();
    let c = node.claim(INFIRMARY, 280).await;
    node.settle(&c[..100], &accepted()).await;
    tokio::time::sleep(Duration::from_secs(2)).await;
    node.settle(&c[100..], &accepted()).await;
    let _ = node.claim(INFIRMARY, 20).await;
    let q = Patient { study: 204, name: "<script>alert(1)</script>^Eve", id: "123", born: "", description: "<b>XR</b> pelvis & more", modality: "DX", ago: 20 };
    node.images(&q, 0..2, INFIRMARY, e).await;
    let r = Patient { study: 205, name: "JONES^GARETH", id: "9434765870", born: "19510505", description: "US Abdomen", modality: "US", ago: 20 };
    node.images(&r, 0..30, "york-ed", Priority::Routine).await;
    let r = Patient { study: 206, name: "TAYLOR^JO", id: "", born: "20240505", description: "", modality: "US", ago: 7200 };
    let p = node.images(&r, 0..30, "york-ed", Priority::Urgent).await;
    i.pause(p, "A Registrar", "Patient is already back", Timestamp::now()).await.unwrap();
    let r = Patient { study: 207, name: "BROWN^LEE", id: "", born: "20240505", description: "CT Chest", modality: "CT", ago: 9200 };
    let p = node.images(&r, 0..30, INFIRMARY, e).await;
    i.cancel(p, "A Registrar", "Sent to the wrong trust", Timestamp::now()).await.unwrap();
    let listener = tokio::net::TcpListener::bind("127.0.0.1:8089").await.unwrap();
    let t = node.state.index.transfers(&gantry_store::index::TransferFilter::default()).await.unwrap();
    let all: Vec<_> = t.iter().map(|t| format!("{} {}", t.id, t.study.study_instance_uid)).collect();
    std::fs::write("/tmp/web-look.txt", format!("{}\n{}\n{}\n", node.state.sessions.issue_link(), node.cookie("Dr A Registrar"), all.join("\n"))).unwrap();
    let _ = d;
    let bell = node.bell.clone();
    tokio::spawn(async move { loop { tokio::time::sleep(Duration::from_secs(3)).await; bell.changed(); } });
    serve(listener, None, public_router(node.state.clone()), node.state.stop.clone()).await;
}
