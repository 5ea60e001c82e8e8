//! The back end against a server in this process; a real one is asked in `tests/`.

use std::net::SocketAddr;
use std::path::Path;

use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto::Builder as Http;
use s3s::auth::SimpleAuth;
use s3s::service::S3ServiceBuilder;
use tokio::net::TcpListener;

use super::super::suite;
use super::*;

/// S3 with a folder behind it, and one bucket, `images`.
struct Server {
    address: SocketAddr,
    _runtime: Runtime,
    folder: tempfile::TempDir,
}

impl Server {
    fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        std::fs::create_dir(folder.path().join("images")).unwrap();
        let mut service = S3ServiceBuilder::new(s3s_fs::FileSystem::new(folder.path()).unwrap());
        service.set_auth(SimpleAuth::from_single("key", "secret"));
        let service = service.build();
        let runtime = Runtime::new().unwrap();
        let listener = runtime.block_on(TcpListener::bind("127.0.0.1:0")).unwrap();
        let address = listener.local_addr().unwrap();
        runtime.spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let service = service.clone();
                tokio::spawn(async move {
                    let http = Http::new(TokioExecutor::new());
                    let _ = http.serve_connection(TokioIo::new(stream), service).await;
                });
            }
        });
        Self { address, _runtime: runtime, folder }
    }

    fn settings(&self) -> Settings {
        Settings::new(
            "images",
            &format!("http://{}", self.address),
            Credentials::key("key", "secret"),
        )
    }

    fn store(&self) -> S3Objects {
        S3Objects::open(self.settings()).unwrap()
    }
}

fn file(folder: &Path, content: &[u8]) -> PathBuf {
    let path = folder.join(ObjectId::new().to_string());
    std::fs::write(&path, content).unwrap();
    path
}

#[test]
fn the_s3_back_end_passes_the_suite() {
    suite::every_back_end_passes(&Server::start().store());
}

#[test]
fn it_passes_the_suite_below_a_prefix_with_checksums_and_leaves_others_alone() {
    let server = Server::start();
    let settings = Settings {
        prefix: "trust/rxx".to_owned(),
        checksum: Checksum::Always,
        ..server.settings()
    };
    let neighbour = server.folder.path().join("images/trust/neighbour");
    std::fs::create_dir_all(neighbour.parent().unwrap()).unwrap();
    std::fs::write(&neighbour, "not ours").unwrap();

    suite::every_back_end_passes(&S3Objects::open(settings).unwrap());

    assert_eq!(std::fs::read_to_string(neighbour).unwrap(), "not ours");
}

#[test]
fn what_a_server_does_is_found_out() {
    let abilities = Server::start().store().probe().unwrap();
    assert!(abilities.conditional_create && abilities.ranges, "{abilities:?}");
}

#[test]
fn an_object_of_another_hand_is_not_taken_for_ours() {
    let server = Server::start();
    let (store, folder) = (server.store(), tempfile::tempdir().unwrap());
    let (object, path) = (ObjectId::new(), file(folder.path(), b"sealed"));
    // As long, and without the digest that ours carry.
    let there = server.folder.path().join("images").join(name(object));
    std::fs::create_dir_all(there.parent().unwrap()).unwrap();
    std::fs::write(&there, b"forged").unwrap();

    let answer = store.put(&[(object, path)]).remove(0);

    assert!(matches!(answer, Err(ObjectError::Differs(_))), "{answer:?}");
    assert_eq!(std::fs::read(there).unwrap(), b"forged");
}

#[test]
fn trouble_is_told_by_its_cause() {
    let server = Server::start();
    let trouble = |change: &dyn Fn(&mut Settings)| {
        let mut settings = server.settings();
        change(&mut settings);
        match S3Objects::open(settings).unwrap().probe() {
            Err(ObjectError::Remote { source, .. }) => source,
            other => panic!("{other:?}"),
        }
    };
    let nobody = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();

    let refused = trouble(&|settings| settings.endpoint = Some(format!("http://{nobody}")));
    let plain =
        trouble(&|settings| settings.endpoint = Some(format!("https://{}", server.address)));
    let no_host =
        trouble(&|settings| settings.endpoint = Some("http://nowhere.invalid".to_owned()));
    let wrong = trouble(&|settings| settings.credentials = Credentials::key("key", "wrong"));

    assert_eq!(refused, Trouble::Refused);
    assert!(matches!(plain, Trouble::Tls(_)), "{plain:?}");
    assert_eq!(no_host, Trouble::NoSuchHost);
    assert!(matches!(wrong, Trouble::WrongKey(_)), "{wrong:?}");
}

#[test]
fn a_store_that_is_down_is_not_asked_for_every_object() {
    let folder = tempfile::tempdir().unwrap();
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let asked = std::thread::spawn(move || {
        let connections = listener.incoming().take_while(|stream| {
            // Closed at once; a connection that says so ends the count.
            let mut first = [0; 1];
            let stream = stream.as_ref().unwrap();
            !(stream.peek(&mut first).is_ok() && first == *b"!")
        });
        connections.count()
    });
    let settings =
        Settings::new("images", &format!("http://{address}"), Credentials::key("key", "secret"));
    let files: Vec<_> =
        (0..200).map(|_| (ObjectId::new(), file(folder.path(), b"sealed"))).collect();

    let answers = S3Objects::open(settings).unwrap().put(&files);
    std::io::Write::write_all(&mut std::net::TcpStream::connect(address).unwrap(), b"!").unwrap();

    assert!(answers.iter().all(|answer| answer.as_ref().is_err_and(ObjectError::concerns_all)));
    assert!(matches!(answers[199], Err(ObjectError::NotTried)));
    let asked = asked.join().unwrap();
    assert!(asked < 50, "{asked} connections for 200 objects");
}
