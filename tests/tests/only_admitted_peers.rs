//! Nobody gets in whom the configuration does not name, and being refused disturbs nobody else.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)] // a panic is how a test fails

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use gantry_gateway::association::requestor::RequestError;
use gantry_gateway::association::status::Status;
use gantry_tests::raw::{Reply, associate_rq};
use gantry_tests::{Certificates, Dcmtk, Gateway, Identity, RawDicom, Sender, Setup};
use rustls::ClientConfig;
use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpSocket;

const VERIFICATION: (&str, &str) = ("1.2.840.10008.1.1", "1.2.840.10008.1.2");
/// A-ASSOCIATE-RJ (PS3.8 Table 9-21): rejected permanent, service user.
const CALLING_NOT_RECOGNISED: Reply = Reply::Rejected(1, 1, 3);
const CALLED_NOT_RECOGNISED: Reply = Reply::Rejected(1, 1, 7);
/// Rejected transient, service provider (presentation), local limit exceeded.
const LOCAL_LIMIT_EXCEEDED: Reply = Reply::Rejected(2, 3, 2);

/// A node that knows A and B by their certificates and PACS by its name, and an association of A's that stays open.
struct Scene {
    certificates: Arc<Certificates>,
    a: Identity,
    gateway: Gateway,
    bystander: Sender,
}

impl Scene {
    async fn set() -> Self {
        let certificates = Arc::new(Certificates::new());
        let (a, b) = (certificates.issue("a"), certificates.issue("b"));
        let gateway = Setup::new()
            .tls(&certificates)
            .allow("127.0.0.1/32")
            .association("handshake-timeout = \"2s\"\nrelease-timeout = \"1s\"")
            .source_with_certificate("a", "TRUST_A", &a)
            .source_with_certificate("b", "TRUST_B", &b)
            .source("pacs", "PACS")
            .start()
            .await;
        let client = certificates.client(Some(&a));
        let bystander =
            Sender::connect_tls("TRUST_A", "GANTRY", gateway.tls(), client, &[]).await.unwrap();
        Self { certificates, a, gateway, bystander }
    }

    async fn tls(
        &self,
        calling: &str,
        called: &str,
        client: Arc<ClientConfig>,
    ) -> Result<Sender, RequestError> {
        Sender::connect_tls(calling, called, self.gateway.tls(), client, &[]).await
    }

    async fn plain(&self, calling: &str, called: &str) -> Reply {
        let mut peer = RawDicom::connect(self.gateway.plaintext()).await;
        peer.send(&associate_rq(calling, called, &[VERIFICATION])).await.unwrap();
        peer.reply().await.unwrap()
    }

    /// Whoever was refused meanwhile, those who were let in are served as before, and others are let in.
    async fn others_are_unaffected(mut self) {
        assert_eq!(self.bystander.echo().await.unwrap(), Status::SUCCESS);
        self.bystander.release().await;
        let tls = Dcmtk::echoscu().calling("TRUST_A").tls(&self.certificates, Some(&self.a));
        tls.send_to(self.gateway.tls()).await.expect_success();
        Dcmtk::echoscu().send_to(self.gateway.plaintext()).await.expect_success();
        assert_eq!(self.gateway.instances().await, 0);
        assert!(self.gateway.is_alive());
    }
}

/// What ended the handshake or the association request, with all its causes.
fn refusal(outcome: Result<Sender, RequestError>) -> String {
    gantry_gateway::telemetry::chain(&outcome.expect_err("the peer was let in")).to_string()
}

#[tokio::test]
async fn a_certificate_is_asked_for_and_must_be_one_of_the_authoritys() {
    let scene = Scene::set().await;
    let stranger =
        Certificates::of("Another authority").issue_into(&scene.certificates, "stranger");
    let forged = Certificates::new().issue_into(&scene.certificates, "forged");
    let expired = scene.certificates.issue_expired("expired");
    let client = |identity: Option<&Identity>| scene.certificates.client(identity);

    let none = refusal(scene.tls("TRUST_A", "GANTRY", client(None)).await);
    let of_another_authority =
        refusal(scene.tls("TRUST_A", "GANTRY", client(Some(&stranger))).await);
    let of_its_namesake = refusal(scene.tls("TRUST_A", "GANTRY", client(Some(&forged))).await);
    let too_old = refusal(scene.tls("TRUST_A", "GANTRY", client(Some(&expired))).await);

    // The alerts of RFC 8446 6.2, as rustls names them.
    assert!(none.contains("CertificateRequired"), "{none}");
    assert!(of_another_authority.contains("UnknownCA"), "{of_another_authority}");
    assert!(of_its_namesake.contains("DecryptError"), "{of_its_namesake}");
    assert!(too_old.contains("CertificateExpired"), "{too_old}");
    let dcmtk = Dcmtk::echoscu().calling("TRUST_A").tls(&scene.certificates, None);
    dcmtk.send_to(scene.gateway.tls()).await.expect_refusal("");
    scene.others_are_unaffected().await;
}

#[tokio::test]
async fn a_certificate_is_the_identity_and_the_ae_title_only_a_claim() {
    let scene = Scene::set().await;
    let unpinned = scene.certificates.issue("unpinned");
    let (a, unpinned) =
        (scene.certificates.client(Some(&scene.a)), scene.certificates.client(Some(&unpinned)));

    for (calling, client) in [("TRUST_B", &a), ("PACS", &a), ("NOBODY", &a), ("TRUST_A", &unpinned)]
    {
        let refused = refusal(scene.tls(calling, "GANTRY", client.clone()).await);
        assert!(
            refused.contains("permanent, calling AE title not recognised"),
            "{calling}: {refused}"
        );
    }
    let refused = refusal(scene.tls("TRUST_A", "ELSEWHERE", a).await);
    assert!(refused.contains("permanent, called AE title not recognised"), "{refused}");

    let dcmtk = Dcmtk::echoscu().calling("TRUST_B").tls(&scene.certificates, Some(&scene.a));
    dcmtk.send_to(scene.gateway.tls()).await.expect_refusal("Calling AE Title Not Recognized");
    // Nor does a name alone help those who have a certificate.
    assert_eq!(scene.plain("TRUST_A", "GANTRY").await, CALLING_NOT_RECOGNISED);
    scene.others_are_unaffected().await;
}

#[tokio::test]
async fn names_that_nobody_has_are_refused_in_the_standards_words() {
    let scene = Scene::set().await;

    assert_eq!(scene.plain("NOBODY", "GANTRY").await, CALLING_NOT_RECOGNISED);
    assert_eq!(scene.plain("PACS", "ELSEWHERE").await, CALLED_NOT_RECOGNISED);
    assert_eq!(scene.plain("", "GANTRY").await, CALLING_NOT_RECOGNISED);
    assert_eq!(scene.plain("PACS", "").await, CALLED_NOT_RECOGNISED);
    assert_eq!(scene.plain("PA\\CS", "GANTRY").await, CALLING_NOT_RECOGNISED);

    let dcmtk = Dcmtk::echoscu().calling("NOBODY").send_to(scene.gateway.plaintext()).await;
    dcmtk.expect_refusal("Calling AE Title Not Recognized");
    let dcmtk = Dcmtk::echoscu().called("ELSEWHERE").send_to(scene.gateway.plaintext()).await;
    dcmtk.expect_refusal("Called AE Title Not Recognized");
    scene.others_are_unaffected().await;
}

#[tokio::test]
async fn a_plaintext_listener_hears_only_the_networks_it_allows() {
    let scene = Scene::set().await;

    let mut outside = connect_from([127, 0, 0, 2], scene.gateway.plaintext()).await;
    // The node may have closed before it reads a byte.
    let _ = outside.write_all(&associate_rq("PACS", "GANTRY", &[VERIFICATION])).await;

    let mut outside = RawDicom::from(outside);
    assert_eq!(outside.reply().await.unwrap(), Reply::Closed);
    scene.others_are_unaffected().await;
}

async fn connect_from(address: [u8; 4], to: SocketAddr) -> tokio::net::TcpStream {
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind(SocketAddr::from((address, 0))).unwrap();
    socket.connect(to).await.unwrap()
}

#[tokio::test]
async fn other_protocols_are_shown_the_door() {
    let scene = Scene::set().await;
    let tls_hello = [&[0x16, 3, 1, 0, 0x70, 1, 0, 0, 0x6C, 3, 3][..], &[7; 64]].concat();
    let talk: [(&str, SocketAddr, Vec<u8>); 4] = [
        (
            "DICOM in plain text to TLS",
            scene.gateway.tls(),
            associate_rq("TRUST_A", "GANTRY", &[VERIFICATION]),
        ),
        ("HTTP to TLS", scene.gateway.tls(), b"GET / HTTP/1.1\r\nHost: gantry\r\n\r\n".to_vec()),
        (
            "HTTP to DICOM",
            scene.gateway.plaintext(),
            b"GET / HTTP/1.1\r\nHost: gantry\r\n\r\n".to_vec(),
        ),
        ("TLS to DICOM in plain text", scene.gateway.plaintext(), tls_hello),
    ];

    for (what, address, bytes) in talk {
        let mut peer = RawDicom::connect(address).await;
        peer.send(&bytes).await.unwrap();
        peer.closed_because(what, Duration::from_secs(5)).await;
    }

    scene.others_are_unaffected().await;
}

#[tokio::test]
async fn a_full_listener_says_so_and_takes_the_next_when_one_has_left() {
    let gateway = Setup::new().source("pacs", "PACS").max_associations(2).start().await;
    let first = Sender::connect(gateway.plaintext(), &[]).await.unwrap();
    let mut second = Sender::connect(gateway.plaintext(), &[]).await.unwrap();

    let mut third = RawDicom::connect(gateway.plaintext()).await;
    third.send(&associate_rq("PACS", "GANTRY", &[VERIFICATION])).await.unwrap();

    assert_eq!(third.reply().await.unwrap(), LOCAL_LIMIT_EXCEEDED);
    assert_eq!(second.echo().await.unwrap(), Status::SUCCESS);
    first.release().await;
    gantry_tests::eventually("a seat to be free", async || {
        Sender::connect(gateway.plaintext(), &[])
            .await
            .ok()?
            .release()
            .await
            .is_empty()
            .then_some(())
    })
    .await;
}
