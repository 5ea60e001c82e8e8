//! Orthanc as a partner, with its REST API to look at what it holds.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use sample_studies::Instance;
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::digest;
use crate::eventually::eventually;
use crate::http::{Answer, Ask};
use crate::network::free_port;
use crate::part10::Part10;
use crate::process::{Process, leashed};

/// A running Orthanc with an empty database of its own.
#[derive(Debug)]
pub struct Orthanc {
    // Dropped before its folder.
    process: Process,
    folder: TempDir,
    dicom: u16,
    http: u16,
}

impl Orthanc {
    /// What it calls itself.
    pub const AE_TITLE: &'static str = "ORTHANC";

    /// Starts it, and returns when it answers.
    pub async fn start() -> Self {
        Self::start_with(json!({})).await
    }

    /// The same, with further settings.
    pub async fn start_with(settings: Value) -> Self {
        let folder = tempfile::tempdir().expect("a folder for Orthanc");
        let (dicom, http) = (free_port(), free_port());
        let mut config = json!({
            "Name": "Partner",
            "DicomAet": Self::AE_TITLE,
            "DicomPort": dicom,
            "HttpPort": http,
            "HttpServerEnabled": true,
            "RemoteAccessAllowed": false,
            "AuthenticationEnabled": false,
            "StorageDirectory": folder.path().join("storage"),
            "IndexDirectory": folder.path().join("storage"),
            "Plugins": [],
            "DicomAlwaysAllowStore": true,
            "UnknownSopClassAccepted": true,
            "SaveJobs": false,
            "SynchronousCMove": true,
            "StableAge": 1,
        });
        for (key, value) in settings.as_object().into_iter().flatten() {
            config[key] = value.clone();
        }
        let path = folder.path().join("orthanc.json");
        std::fs::write(&path, config.to_string()).expect("Orthanc's configuration can be written");
        // Debian has it in /usr/sbin, which not every PATH names.
        let program = if std::path::Path::new("/usr/sbin/Orthanc").exists() {
            "/usr/sbin/Orthanc"
        } else {
            "Orthanc"
        };
        let mut command = leashed(program);
        command.arg(&path).current_dir(folder.path()).env("TCP_NODELAY", "1");
        let process = Process::start("Orthanc", &mut command, &folder.path().join("log"), false);
        let mut orthanc = Self { process, folder, dicom, http };
        eventually("Orthanc to answer", async || {
            let ended = orthanc.process.exit_status();
            assert!(ended.is_none(), "Orthanc ended at once: {}", orthanc.process.log());
            let answer = Ask::get("/system").to(Self::address(orthanc.http)).await.ok()?;
            (answer.status == 200).then_some(())
        })
        .await;
        orthanc
    }

    /// Where it takes associations.
    pub fn port(&self) -> u16 {
        self.dicom
    }

    /// Where it takes associations.
    pub fn dicom(&self) -> SocketAddr {
        Self::address(self.dicom)
    }

    fn address(port: u16) -> SocketAddr {
        SocketAddr::from(([127, 0, 0, 1], port))
    }

    async fn ask(&self, ask: Ask) -> Answer {
        ask.to(Self::address(self.http)).await.expect("Orthanc answers")
    }

    /// How many instances it has.
    pub async fn count(&self) -> usize {
        self.ask(Ask::get("/instances")).await.json().as_array().map_or(0, Vec::len)
    }

    /// The digest of every data set that it holds, by SOP Instance UID.
    pub async fn holds(&self) -> BTreeMap<String, String> {
        let mut held = BTreeMap::new();
        let instances = self.ask(Ask::get("/instances")).await.json();
        for id in instances.as_array().into_iter().flatten().filter_map(|id| id.as_str()) {
            let file = self.ask(Ask::get(&format!("/instances/{id}/file"))).await;
            let file = Part10::parse(&file.body).expect("Orthanc gives DICOM files");
            held.insert(file.sop_instance_uid, digest(&file.data_set));
        }
        held
    }

    /// What it calls its instances.
    pub async fn ids(&self) -> Vec<String> {
        let ids = self.ask(Ask::get("/instances")).await.json();
        ids.as_array()
            .into_iter()
            .flatten()
            .filter_map(|id| id.as_str().map(str::to_owned))
            .collect()
    }

    /// Has it de-identify these, one after the other, by its defaults; says how many files came back.
    pub async fn anonymises(&self, ids: &[String]) -> usize {
        let mut files = 0;
        for id in ids {
            let ask =
                Ask::post(&format!("/instances/{id}/anonymize")).body("application/json", b"{}");
            let answer = self.ask(ask).await;
            files += usize::from(answer.status == 200 && answer.body.len() > 132);
        }
        files
    }

    /// Gives it instances, as if a scanner had sent them.
    pub async fn has(&self, instances: &[Instance]) {
        for instance in instances {
            let ask = Ask::post("/instances").body("application/dicom", &instance.part10());
            assert_eq!(self.ask(ask).await.status, 200, "Orthanc takes an instance");
        }
    }

    /// Removes all that it holds.
    pub async fn forget(&self) {
        let patients = self.ask(Ask::get("/patients")).await.json();
        for id in patients.as_array().into_iter().flatten().filter_map(|id| id.as_str()) {
            let path = format!("/patients/{id}");
            assert_eq!(self.ask(Ask::with_method(hyper::Method::DELETE, &path)).await.status, 200);
        }
    }

    /// Makes a node known to it, under what it may do.
    pub async fn knows(&self, node: SocketAddr, commitment: bool, find: bool) {
        self.lets(node, commitment, find, false).await;
    }

    /// Makes a node known to it that may ask what it has, and have that sent to itself.
    pub async fn serves(&self, node: SocketAddr) {
        self.lets(node, false, true, true).await;
    }

    async fn lets(&self, node: SocketAddr, commitment: bool, find: bool, moves: bool) {
        let body = json!({
            "AET": "GANTRY", "Host": node.ip().to_string(), "Port": node.port(),
            "AllowEcho": true, "AllowStore": true, "AllowFind": find, "AllowMove": moves,
            "AllowGet": false, "AllowStorageCommitment": commitment, "AllowTranscoding": false,
        });
        let ask = Ask::with_method(hyper::Method::PUT, "/modalities/gantry");
        let answer = self.ask(ask.body("application/json", body.to_string().as_bytes())).await;
        assert_eq!(answer.status, 200, "Orthanc takes a modality");
    }

    /// Asks the node that it knows to commit to instances (class, instance). Returns the transaction.
    pub async fn asks_to_commit(&self, instances: &[(String, String)]) -> String {
        let pair = |(class, instance): &(String, String)| json!({ "SOPClassUID": class, "SOPInstanceUID": instance });
        let body = json!({ "DicomInstances": instances.iter().map(pair).collect::<Vec<_>>() });
        let ask = Ask::post("/modalities/gantry/storage-commitment")
            .body("application/json", body.to_string().as_bytes());
        let answer = self.ask(ask).await;
        assert_eq!(answer.status, 200, "the node takes the request: {:?}", answer.body);
        answer.json()["ID"].as_str().expect("Orthanc names the transaction").to_owned()
    }

    /// What it was told of a transaction.
    pub async fn was_told(&self, transaction: &str) -> Value {
        self.ask(Ask::get(&format!("/storage-commitment/{transaction}"))).await.json()
    }

    /// Has it query the node that it knows for studies, and retrieve what it finds, by C-MOVE to itself. How many it found.
    pub async fn queries_and_retrieves(&self, study_instance_uid: &str) -> usize {
        let query =
            json!({ "Level": "Study", "Query": { "StudyInstanceUID": study_instance_uid } });
        let ask = Ask::post("/modalities/gantry/query")
            .body("application/json", query.to_string().as_bytes());
        let answer = self.ask(ask).await;
        assert_eq!(answer.status, 200, "the node answers: {:?}", answer.body);
        let path = answer.json()["Path"].as_str().expect("a query").to_owned();
        let found = self.ask(Ask::get(&format!("{path}/answers"))).await.json();
        let body = json!({ "TargetAet": Self::AE_TITLE, "Synchronous": true, "Timeout": 60 });
        let ask = Ask::post(&format!("{path}/retrieve"))
            .body("application/json", body.to_string().as_bytes());
        let answer = self.ask(ask).await;
        assert_eq!(answer.status, 200, "the node sends: {:?}", answer.body);
        found.as_array().map_or(0, Vec::len)
    }

    /// Its folder, which lives as long as it does.
    pub fn folder(&self) -> &std::path::Path {
        self.folder.path()
    }
}
