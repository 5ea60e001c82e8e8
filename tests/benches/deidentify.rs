//! How fast de-identification is: files in, files out, beside gdcmanon, dicom-anonymizer and Orthanc; and what it costs on the
//! path. In each round every contender does the same job; medians and their ratios are printed.
//!
//! What is compared is not the same work: gdcmanon changes some thirty attributes of the top level, and none of the others looks at
//! what it wrote. `GANTRY_BENCH_ROUNDS` (3) and `GANTRY_BENCH_ONLY` (a part of a job's name) change what is run.
//! dicom-anonymizer is asked for where `python3 -m dicomanonymizer` is there (`pip install dicom-anonymizer`).

#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "a bench that cannot run fails"
)]

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Instant;

use gantry_deidentify::keys::ProjectKey;
use gantry_tests::board::{Against, Board, Target, settle_the_disk, spread_folder};
use gantry_tests::gateway::program;
use gantry_tests::{Dcmtk, Orthanc, Sender, Setup};
use sample_studies::Instance;

const CT: u32 = 1000;

const FILES: &str = "de-identify 1,000 CT of 525 kB, files to files (files/s)";
const PATH: &str = "store and forward 1,000 CT (ms)";

const OURS: &str = "gantry deid apply, basic, verified";
const OURS_RESEARCH: &str = "gantry deid apply, research, verified";
const GDCMANON: &str = "gdcmanon, header only, nothing verified";
const ANONYMIZER: &str = "dicom-anonymizer";
const ORTHANC: &str = "Orthanc /anonymize, two at once";
const AS_RECEIVED: &str = "as received";
const PSEUDONYMISED: &str = "pseudonymised, verified";

fn targets() -> Vec<Target> {
    let files = |factor, theirs| Target {
        job: FILES,
        ours: OURS,
        against: Against::AtLeast(factor, theirs),
    };
    vec![
        files(8.0, ANONYMIZER),
        files(5.0, ORTHANC),
        files(1.2, GDCMANON),
        // Both are times, so the slower one stands below.
        Target { job: PATH, ours: AS_RECEIVED, against: Against::AtLeast(0.85, PSEUDONYMISED) },
    ]
}

#[tokio::main]
async fn main() {
    let rounds =
        std::env::var("GANTRY_BENCH_ROUNDS").ok().and_then(|n| n.parse().ok()).unwrap_or(3);
    let only = std::env::var("GANTRY_BENCH_ONLY").unwrap_or_default();
    let folder = spread_folder();
    let key = folder.path().join("bench.key");
    ProjectKey::generate().unwrap().write_new(&key).unwrap();
    let mut board = Board::default();
    for round in 0..rounds {
        eprintln!("round {} of {rounds}", round + 1);
        let instances = sample_studies::ct_series(round, CT).instances;
        if FILES.contains(&only) {
            files(&mut board, &instances, &key).await;
        }
        if PATH.contains(&only) {
            board.note(PATH, AS_RECEIVED, path(&instances, "").await);
            let protect = format!(
                "[[project]]\nname = \"lung\"\nprofile = \"research\"\nkey = \"{}\"\n",
                key.display()
            );
            board.note(PATH, PSEUDONYMISED, path(&instances, &protect).await);
        }
    }
    board.print(&targets());
}

async fn files(board: &mut Board, instances: &[Instance], key: &Path) {
    let place = tempfile::tempdir().unwrap();
    let from = place.path().join("in");
    fs::create_dir(&from).unwrap();
    for (number, instance) in instances.iter().enumerate() {
        fs::write(from.join(format!("{number:04}.dcm")), instance.part10()).unwrap();
    }
    let profile = |name: &str, to: &Path| {
        let mut command = Command::new(program());
        command.args(["deid", "apply"]).arg(&from).args(["--profile", name, "--to"]).arg(to);
        command.arg("--key").arg(key);
        command
    };
    let to = |name: &str| place.path().join(name);
    board.note(FILES, OURS, rate(profile("basic", &to("basic")), &to("basic"), instances.len()));
    let research = profile("research", &to("research"));
    board.note(FILES, OURS_RESEARCH, rate(research, &to("research"), instances.len()));
    let certificate = certificate(place.path());
    let mut gdcmanon = Command::new("gdcmanon");
    gdcmanon
        .args(["-e", "-r", "-c"])
        .arg(certificate)
        .arg("-i")
        .arg(&from)
        .arg("-o")
        .arg(to("gdcm"));
    board.note(FILES, GDCMANON, rate(gdcmanon, &to("gdcm"), instances.len()));
    let asked = Command::new("python3")
        .args(["-c", "import dicomanonymizer"])
        .stderr(Stdio::null())
        .status();
    if asked.is_ok_and(|status| status.success()) {
        fs::create_dir(to("python")).unwrap();
        let mut anonymizer = Command::new("dicom-anonymizer");
        anonymizer.arg(&from).arg(to("python"));
        board.note(FILES, ANONYMIZER, rate(anonymizer, &to("python"), instances.len()));
    }
    board.note(FILES, ORTHANC, orthanc(instances).await);
}

/// Runs it; so many files a second.
fn rate(mut command: Command, to: &Path, count: usize) -> f64 {
    settle_the_disk();
    let begun = Instant::now();
    let output = command.output().expect("the contender is installed");
    let seconds = begun.elapsed().as_secs_f64();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let written = files_in(to);
    assert!(written >= count, "{written} of {count} files were written");
    fs::remove_dir_all(to).unwrap();
    count as f64 / seconds
}

fn files_in(folder: &Path) -> usize {
    let entries = fs::read_dir(folder).unwrap().flatten();
    entries.map(|entry| if entry.path().is_dir() { files_in(&entry.path()) } else { 1 }).sum()
}

fn certificate(folder: &Path) -> std::path::PathBuf {
    let path = folder.join("bench.crt");
    let made = Command::new("openssl")
        .args(["req", "-x509", "-newkey", "rsa:3072", "-nodes", "-days", "2", "-subj", "/CN=bench"])
        .args(["-out".as_ref(), path.as_os_str(), "-keyout".as_ref(), folder.join("k").as_os_str()])
        .output()
        .unwrap();
    assert!(made.status.success());
    path
}

/// Instances that it has already, anonymised into files that are fetched.
async fn orthanc(instances: &[Instance]) -> f64 {
    let orthanc = Orthanc::start().await;
    orthanc.has(instances).await;
    let ids = orthanc.ids().await;
    let (one, other) = ids.split_at(ids.len() / 2);
    let begun = Instant::now();
    let (first, second) = tokio::join!(orthanc.anonymises(one), orthanc.anonymises(other));
    assert_eq!(first + second, instances.len());
    instances.len() as f64 / begun.elapsed().as_secs_f64()
}

/// From the first byte sent to the last instance at the partner, in ms.
async fn path(instances: &[Instance], project: &str) -> f64 {
    let partner = Dcmtk::storescp("PARTNER").options(&["+B", "--fork"]).start().await;
    let protect = if project.is_empty() {
        "purpose = \"direct-care\"\nprotect = \"as-received\""
    } else {
        "purpose = \"research\"\nprotect = { pseudonymise = \"lung\" }"
    };
    let node = Setup::new()
        .source("pacs", "PACS")
        .partner("partner", "PARTNER", partner.port())
        .and("proof = \"none\"\n")
        .and(project)
        .rule(&format!(
            "[[route]]\nname = \"all\"\nwhen = {{ called-ae-title = \"GANTRY\" }}\nto = [\"partner\"]\n{protect}\n\
             priority = \"routine\"\n"
        ))
        .start()
        .await;
    settle_the_disk();
    let begun = Instant::now();
    let mut sender = Sender::connect(node.plaintext(), &instances[..1]).await.unwrap();
    sender.store_all(instances).await;
    sender.release().await;
    node.delivered("partner", instances.len()).await;
    begun.elapsed().as_secs_f64() * 1000.0
}
