use std::fs;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio_rustls::{TlsAcceptor, TlsConnector};

use super::*;

static BOTH: [&[&SupportedProtocolVersion]; 2] =
    [&[&rustls::version::TLS12], &[&rustls::version::TLS13]];

/// One side's files.
struct Side {
    folder: tempfile::TempDir,
    tls: Tls,
}

impl Side {
    fn new(authority: &Authority, issued: &Issued) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name);
        fs::write(path("node.crt"), &issued.certificate_pem).unwrap();
        fs::write(path("node.key"), &issued.key_pem).unwrap();
        fs::write(path("ca.crt"), authority.certificate_pem()).unwrap();
        let identity = Identity { certificate: path("node.crt"), key: path("node.key") };
        let tls = Tls { identity, authorities: vec![path("ca.crt")] };
        Self { folder, tls }
    }

    fn pin(&self) -> Fingerprint {
        fingerprint(&read_certificates(&self.tls.identity.certificate).unwrap()[0])
    }
}

/// What each side makes of the connection; after a success each has sent and received a byte.
async fn connect(
    client: Arc<ClientConfig>,
    server: Arc<ServerConfig>,
    host: &str,
) -> (Result<Fingerprint, Trouble>, Result<Fingerprint, Trouble>) {
    let (near, far) = tokio::io::duplex(64 << 10);
    let name = ServerName::try_from(host.to_owned()).unwrap();
    let calling = async {
        let mut stream = TlsConnector::from(client).connect(name, near).await?;
        stream.write_all(b"?").await?;
        stream.flush().await?;
        stream.read_u8().await?;
        Ok(fingerprint(&stream.get_ref().1.peer_certificates().unwrap()[0]))
    };
    let called = async {
        let mut stream = TlsAcceptor::from(server).accept(far).await?;
        stream.read_u8().await?;
        stream.write_all(b"!").await?;
        stream.flush().await?;
        Ok(fingerprint(&stream.get_ref().1.peer_certificates().unwrap()[0]))
    };
    let (calling, called): (io::Result<_>, io::Result<_>) = tokio::join!(calling, called);
    (calling.map_err(|error| explain(&error)), called.map_err(|error| explain(&error)))
}

#[tokio::test]
async fn each_side_learns_the_others_certificate_with_both_versions() {
    let authority = Authority::new("ours").unwrap();
    let trust = Side::new(&authority, &authority.issue("TRUST", &["trust.example"]).unwrap());
    let clinic = Side::new(&authority, &authority.issue("CLINIC", &["clinic.example"]).unwrap());

    for versions in BOTH {
        let client = client_config_speaking(&trust.tls, &[clinic.pin()], versions).unwrap();
        // Twice: were the session resumed, the certificate would have to be visible again.
        for _ in 0..2 {
            let server = server_config(&clinic.tls).unwrap();
            let (calling, called) = connect(client.clone(), server, "whatever.example").await;

            assert_eq!((calling, called), (Ok(clinic.pin()), Ok(trust.pin())));
        }
    }
}

#[tokio::test]
async fn without_a_pin_the_host_name_must_be_the_certificates() {
    let authority = Authority::new("ours").unwrap();
    let trust = Side::new(&authority, &authority.issue("TRUST", &[]).unwrap());
    let clinic = Side::new(
        &authority,
        &authority.issue("CLINIC", &["clinic.example", "127.0.0.1"]).unwrap(),
    );

    for versions in BOTH {
        let client = client_config_speaking(&trust.tls, &[], versions).unwrap();
        for host in ["clinic.example", "127.0.0.1"] {
            let (calling, called) =
                connect(client.clone(), server_config(&clinic.tls).unwrap(), host).await;
            assert_eq!((calling, called), (Ok(clinic.pin()), Ok(trust.pin())));
        }

        let (calling, _) =
            connect(client, server_config(&clinic.tls).unwrap(), "other.example").await;
        let trouble = calling.unwrap_err().to_string();
        assert!(
            trouble.starts_with("their certificate is for another name than other.example"),
            "{trouble}"
        );
    }
}

#[tokio::test]
async fn a_certificate_of_the_same_authority_that_is_not_pinned_is_refused() {
    let authority = Authority::new("ours").unwrap();
    let trust = Side::new(&authority, &authority.issue("TRUST", &[]).unwrap());
    let clinic = Side::new(&authority, &authority.issue("CLINIC", &["clinic.example"]).unwrap());

    for versions in BOTH {
        let client = client_config_speaking(&trust.tls, &[trust.pin()], versions).unwrap();
        let (calling, called) =
            connect(client, server_config(&clinic.tls).unwrap(), "clinic.example").await;

        assert_eq!(
            calling,
            Err(Trouble::TheirsNotPinned { shown: NotPinned { shown: clinic.pin() } })
        );
        assert!(matches!(called, Err(Trouble::OursRefused(_))), "{called:?}");
    }
}

#[tokio::test]
async fn a_stranger_is_refused_on_both_sides_and_told_why() {
    let (ours, theirs) =
        (Authority::new("same name").unwrap(), Authority::new("same name").unwrap());
    let trust = Side::new(&ours, &ours.issue("TRUST", &[]).unwrap());
    let stranger = Side::new(&theirs, &theirs.issue("TRUST", &[]).unwrap());
    let credulous = Side::new(&ours, &theirs.issue("TRUST", &[]).unwrap());

    for versions in BOTH {
        let client = client_config_speaking(&trust.tls, &[stranger.pin()], versions).unwrap();
        let (calling, called) = connect(client, server_config(&stranger.tls).unwrap(), "x").await;
        assert_eq!(
            calling,
            Err(Trouble::TheirsUnknownAuthority),
            "a pin does not replace the authority"
        );
        assert!(matches!(called, Err(Trouble::OursRefused(_))), "{called:?}");

        let client = client_config_speaking(&credulous.tls, &[trust.pin()], versions).unwrap();
        let (calling, called) = connect(client, server_config(&trust.tls).unwrap(), "x").await;
        assert_eq!(called, Err(Trouble::TheirsUnknownAuthority));
        assert!(matches!(calling, Err(Trouble::OursRefused(_))), "{calling:?}");
    }
}

#[tokio::test]
async fn an_expired_certificate_is_refused_on_both_sides_even_when_it_is_pinned() {
    let authority = Authority::new("ours").unwrap();
    let trust = Side::new(&authority, &authority.issue("TRUST", &[]).unwrap());
    let (from, until) =
        ("2020-01-01T00:00:00Z".parse().unwrap(), "2021-02-03T04:05:06Z".parse().unwrap());
    let late = Side::new(&authority, &authority.issue_between("LATE", &[], from, until).unwrap());

    for versions in BOTH {
        let client = client_config_speaking(&trust.tls, &[late.pin()], versions).unwrap();
        let (calling, called) = connect(client, server_config(&late.tls).unwrap(), "x").await;
        assert_eq!(
            calling.unwrap_err().to_string(),
            "their certificate has expired (on 2021-02-03)"
        );
        assert_eq!(called, Err(Trouble::OursRefused("they say that it has expired")));

        let client = client_config_speaking(&late.tls, &[trust.pin()], versions).unwrap();
        let (calling, called) = connect(client, server_config(&trust.tls).unwrap(), "x").await;
        assert_eq!(called, Err(Trouble::TheirsExpired { since: Some(until) }));
        assert_eq!(calling, Err(Trouble::OursRefused("they say that it has expired")));
    }
}

#[tokio::test]
async fn a_caller_without_a_certificate_is_refused() {
    let authority = Authority::new("ours").unwrap();
    let clinic = Side::new(&authority, &authority.issue("CLINIC", &["clinic.example"]).unwrap());

    for versions in BOTH {
        let client = ClientConfig::builder_with_provider(provider())
            .with_protocol_versions(versions)
            .unwrap()
            .with_root_certificates(read_authorities(&clinic.tls.authorities).unwrap())
            .with_no_client_auth();
        let (calling, called) =
            connect(client.into(), server_config(&clinic.tls).unwrap(), "clinic.example").await;

        assert_eq!(called, Err(Trouble::TheirsMissing));
        assert_eq!(calling, Err(Trouble::OursRefused("they say that they got none")));
    }
}

#[tokio::test]
async fn plaintext_on_either_side_is_called_by_its_name() {
    let authority = Authority::new("ours").unwrap();
    let trust = Side::new(&authority, &authority.issue("TRUST", &[]).unwrap());
    let name = ServerName::try_from("x").unwrap();

    // A-ABORT (PS3.8 9.3.8), as a DICOM peer answers what it cannot read, and what an HTTP server says.
    for answer in [&[7, 0, 0, 0, 0, 4, 0, 0, 2, 1][..], b"HTTP/1.1 400 Bad Request\r\n\r\n"] {
        let (near, mut far) = tokio::io::duplex(64 << 10);
        let client = TlsConnector::from(client_config(&trust.tls, &[]).unwrap());
        let (result, _) = tokio::join!(client.connect(name.clone(), near), far.write_all(answer));
        assert_eq!(explain(&result.unwrap_err()), Trouble::Plaintext);
    }

    let (mut near, far) = tokio::io::duplex(64 << 10);
    near.write_all(&[1, 0, 0, 0, 0, 205, 0, 1, 0, 0]).await.unwrap();
    let result = TlsAcceptor::from(server_config(&trust.tls).unwrap()).accept(far).await;
    assert_eq!(explain(&result.unwrap_err()), Trouble::Plaintext);

    let (near, far) = tokio::io::duplex(64 << 10);
    drop(near);
    let result = TlsAcceptor::from(server_config(&trust.tls).unwrap()).accept(far).await;
    assert_eq!(explain(&result.unwrap_err()), Trouble::Closed);
}

#[tokio::test]
async fn a_browser_needs_no_certificate() {
    let authority = Authority::new("ours").unwrap();
    let trust = Side::new(&authority, &authority.issue("TRUST", &["localhost"]).unwrap());
    let mut client = ClientConfig::builder_with_provider(provider())
        .with_protocol_versions(VERSIONS)
        .unwrap()
        .with_root_certificates(read_authorities(&trust.tls.authorities).unwrap())
        .with_no_client_auth();
    client.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];

    let (near, far) = tokio::io::duplex(64 << 10);
    let name = ServerName::try_from("localhost").unwrap();
    let acceptor = TlsAcceptor::from(https_config(&trust.tls.identity).unwrap());
    let connector = TlsConnector::from(Arc::new(client));
    let (called, calling) = tokio::join!(acceptor.accept(far), connector.connect(name, near));

    called.unwrap();
    assert_eq!(calling.unwrap().get_ref().1.alpn_protocol(), Some(&b"http/1.1"[..]));
}

#[test]
fn a_new_certificate_is_found_by_asking_again() {
    let authority = Authority::new("ours").unwrap();
    let trust = Side::new(&authority, &authority.issue("TRUST", &[]).unwrap());
    let before = trust.pin();

    let renewed = authority.issue("TRUST", &[]).unwrap();
    fs::write(&trust.tls.identity.certificate, renewed.certificate_pem).unwrap();
    assert!(matches!(server_config(&trust.tls), Err(TlsError::KeyMismatch { .. })));
    fs::write(&trust.tls.identity.key, renewed.key_pem).unwrap();

    assert!(server_config(&trust.tls).is_ok());
    assert_ne!(trust.pin(), before);
}

#[test]
fn files_that_are_not_what_they_should_be_are_named() {
    let authority = Authority::new("ours").unwrap();
    let issued = authority.issue("TRUST", &[]).unwrap();
    let side = Side::new(&authority, &issued);
    let message = |certificate: &str, key: &str| {
        fs::write(&side.tls.identity.certificate, certificate).unwrap();
        fs::write(&side.tls.identity.key, key).unwrap();
        let message = server_config(&side.tls).unwrap_err().to_string();
        message.replace(&format!("{}/", side.folder.path().display()), "")
    };
    let (certificate, key) = (issued.certificate_pem.as_str(), issued.key_pem.as_str());

    assert_eq!(message("", key), "there is no certificate in node.crt");
    assert_eq!(message(certificate, certificate), "there is no private key in node.key");
    assert_eq!(
        message("-----BEGIN CERTIFICATE-----\nAAAA", key),
        "node.crt is not a PEM file: a section has no end"
    );
    assert_eq!(
        message(certificate, &Authority::new("x").unwrap().key_pem()),
        "the key in node.key does not belong to the certificate in node.crt"
    );
    fs::remove_file(&side.tls.identity.key).unwrap();
    assert!(server_config(&side.tls).unwrap_err().to_string().starts_with("cannot read"));
}

#[test]
fn a_certificate_says_what_it_is_for() {
    let authority = Authority::new("ours").unwrap();
    let side = Side::new(&authority, &authority.issue("TRUST", &[]).unwrap());
    let node = CertificateFacts::of(&read_certificates(&side.tls.identity.certificate).unwrap()[0])
        .unwrap();
    let ca =
        CertificateFacts::of(&read_certificates(&side.tls.authorities[0]).unwrap()[0]).unwrap();

    assert_eq!((node.subject.as_str(), node.issuer.as_str()), ("CN=TRUST", "CN=ours"));
    assert!(node.for_servers && node.for_clients && !node.is_authority && ca.is_authority);
    assert_eq!(node.fingerprint, side.pin());
}
