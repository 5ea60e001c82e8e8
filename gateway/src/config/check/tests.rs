use std::fs;
use std::os::unix::fs::PermissionsExt as _;

use gantry_store::facts::{Priority, Purpose};
use jiff::{SignedDuration, Timestamp};

use super::super::report::Style;
use super::super::{
    Acknowledge, Fact, HostPort, ListenerTls, PartnerTls, Permission, Protect, WebTls,
};
use super::*;
use crate::tls::Authority;

/// What the design's example says, with two partners.
const GANTRY_TOML: &str = r#"[node]
ae-title = "GANTRY"
organisation = "RXX"
data-dir = "data"

[[listener]]
address = "0.0.0.0:2762"

[[listener]]
address = "127.0.0.1:11112"
tls = "off"
allow = ["127.0.0.0/8"]

[tls]
certificate = "tls/node.crt"
key = "tls/node.key"
authorities = ["tls/ca.crt"]

[web]
address = "127.0.0.1:8080"

[intake]
acknowledge = "durable"

[object-store]
kind = "file"

[database]
url = "sqlite"

[[source]]
name = "pacs"
ae-title = "PACS"
address = "127.0.0.1:11113"

[[partner]]
name = "royal-infirmary"
ae-title = "RI_IEP"
address = "127.0.0.1:2763"
certificate = "tls/royal-infirmary.crt"
associations = 4
may = ["receive", "query", "retrieve", "send"]

[[partner]]
name = "york-ed"
ae-title = "YORK"
address = "york.example:104"
tls = "off"

[[route]]
name = "emergency to the royal infirmary"
when = { called-ae-title = "RI_EMERG" }
to = ["royal-infirmary"]
purpose = "emergency-transfer"
priority = "emergency"
protect = "as-received"
"#;

struct Folder(tempfile::TempDir);

impl Folder {
    fn new() -> Self {
        let folder = Self(tempfile::tempdir().unwrap());
        let (ours, theirs) = (Authority::new("ours").unwrap(), Authority::new("theirs").unwrap());
        let node = ours.issue("GANTRY", &["localhost"]).unwrap();
        let partner = ours.issue("RI", &[]).unwrap();
        let between = |name, days: [i64; 2]| {
            let [from, until] =
                days.map(|days| Timestamp::now() + SignedDuration::from_hours(24 * days));
            ours.issue_between(name, &[], from, until).unwrap()
        };
        let (old, soon, future) =
            (between("OLD", [-9, -2]), between("SOON", [-9, 9]), between("FUTURE", [9, 99]));
        let stranger = theirs.issue("STRANGER", &[]).unwrap();

        folder.write("tls/ca.crt", &ours.certificate_pem());
        for (name, issued) in [("node", &node), ("old", &old), ("soon", &soon), ("future", &future)]
        {
            folder.write(&format!("tls/{name}.crt"), &issued.certificate_pem);
            folder.write(&format!("tls/{name}.key"), &issued.key_pem);
            folder.chmod(&format!("tls/{name}.key"), 0o600);
        }
        folder.write("tls/royal-infirmary.crt", &partner.certificate_pem);
        folder.write("tls/both.crt", &(old.certificate_pem + &partner.certificate_pem));
        folder.write("tls/stranger.crt", &stranger.certificate_pem);
        folder.write("tls/open.key", &node.key_pem);
        folder.chmod("tls/open.key", 0o640);
        folder.write("tls/empty.crt", "");
        folder
    }

    fn write(&self, name: &str, text: &str) {
        let path = self.0.path().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }

    fn chmod(&self, name: &str, mode: u32) {
        fs::set_permissions(self.0.path().join(name), fs::Permissions::from_mode(mode)).unwrap();
    }

    fn load(&self, text: &str) -> Result<(Config, Vec<Warning>), Problems> {
        self.write("gantry.toml", text);
        Config::load(&self.0.path().join("gantry.toml"))
    }

    /// `line:column text | message | label | help`, one for each finding.
    fn findings(&self, text: &str) -> Vec<String> {
        let findings = match self.load(text) {
            Ok((_, warnings)) => warnings,
            Err(problems) => problems.iter().cloned().collect(),
        };
        findings.iter().map(|finding| self.in_a_line(finding)).collect()
    }

    fn in_a_line(&self, finding: &Finding) -> String {
        let json = serde_json::to_value(finding).unwrap();
        let part = |key: &str| json[key].as_str().unwrap_or_default().to_owned();
        let place = format!("{}:{} {}", json["line"], json["column"], part("text"));
        let severity = if finding.severity() == Severity::Warning { "warning: " } else { "" };
        let shown = format!(
            "{place} | {severity}{} | {} | {}",
            part("message"),
            part("label"),
            part("help")
        );
        let shown = shown.replace(&format!("{}/", self.0.path().display()), "");
        let today = Timestamp::now();
        (-10..100_i64).fold(shown, |shown, days| {
            let day =
                (today + SignedDuration::from_hours(24 * days)).strftime("%Y-%m-%d").to_string();
            shown.replace(&day, &format!("<today{days:+}>"))
        })
    }
}

#[test]
fn dump() {
    let folder = Folder::new();
    for (from, to) in CASES {
        assert_eq!(GANTRY_TOML.matches(from).count(), 1, "{from}");
        println!("CASE {from:?} -> {to:?}");
        for f in folder.findings(&GANTRY_TOML.replace(from, to)) {
            println!("   {f}");
        }
    }
}

const CASES: &[(&str, &str)] = &[
    ("organisation = \"RXX\"", "organisation = \"RXX\""),
    // node
    ("ae-title = \"GANTRY\"", "ae-title = \"RXX_GATEWAY_LONG_NAME\""),
    ("ae-title = \"GANTRY\"", "ae_title = \"GANTRY\""),
    ("ae-title = \"GANTRY\"", "ae-title = 7"),
    ("ae-title = \"GANTRY\"\n", ""),
    ("organisation = \"RXX\"\n", ""),
    ("organisation = \"RXX\"", "organisation = \"\""),
    ("[node]\nae-title = \"GANTRY\"\norganisation = \"RXX\"\ndata-dir = \"data\"\n", ""),
    ("[node]", "[nod]"),
    ("[node]", "[[node]]"),
    (
        "data-dir = \"data\"",
        "data-dir = \"/srv/abcdefghijklmnopqrstuvwxyz/abcdefghijklmnopqrstuvwxyz/abcdefghijklmnopqrstuvwxyz/abcdefghijklmnop\"",
    ),
    ("[node]\n", "[node\n"),
    // listener
    (
        "[[listener]]\naddress = \"0.0.0.0:2762\"\n\n[[listener]]\naddress = \"127.0.0.1:11112\"\ntls = \"off\"\nallow = [\"127.0.0.0/8\"]\n",
        "",
    ),
    ("address = \"0.0.0.0:2762\"", "address = \"localhost:2762\""),
    ("address = \"0.0.0.0:2762\"", "address = \"2762\""),
    ("address = \"0.0.0.0:2762\"", "addres = \"0.0.0.0:2762\""),
    ("address = \"0.0.0.0:2762\"", "address = \"127.0.0.1:11112\""),
    ("address = \"0.0.0.0:2762\"\n", ""),
    ("tls = \"off\"\nallow", "tls = \"of\"\nallow"),
    ("tls = \"off\"\nallow", "tls = \"server-only\"\nallow"),
    ("allow = [\"127.0.0.0/8\"]\n", ""),
    ("allow = [\"127.0.0.0/8\"]\n", "allow = []\n"),
    ("allow = [\"127.0.0.0/8\"]\n", "allow = [\"10.0.0.0/8\", \"lan\"]\n"),
    ("allow = [\"127.0.0.0/8\"]\n", "allow = \"0.0.0.0/0\"\nmax-associations = 0\n"),
    ("address = \"0.0.0.0:2762\"\n", "address = \"0.0.0.0:2762\"\nmax-associations = \"64\"\n"),
    // tls
    (
        "[tls]\ncertificate = \"tls/node.crt\"\nkey = \"tls/node.key\"\nauthorities = [\"tls/ca.crt\"]\n",
        "",
    ),
    ("certificate = \"tls/node.crt\"", "certificate = \"tls/nod.crt\""),
    ("certificate = \"tls/node.crt\"", "certificate = \"tls/old.crt\""),
    (
        "certificate = \"tls/node.crt\"\nkey = \"tls/node.key\"",
        "certificate = \"tls/old.crt\"\nkey = \"tls/old.key\"",
    ),
    (
        "certificate = \"tls/node.crt\"\nkey = \"tls/node.key\"",
        "certificate = \"tls/soon.crt\"\nkey = \"tls/soon.key\"",
    ),
    (
        "certificate = \"tls/node.crt\"\nkey = \"tls/node.key\"",
        "certificate = \"tls/future.crt\"\nkey = \"tls/future.key\"",
    ),
    ("key = \"tls/node.key\"", "key = \"tls/open.key\""),
    ("key = \"tls/node.key\"", "key = \"tls/node.crt\""),
    ("key = \"tls/node.key\"\n", ""),
    ("authorities = [\"tls/ca.crt\"]", "authorities = []"),
    ("authorities = [\"tls/ca.crt\"]", "authorities = [\"tls/ca.crt\", \"tls/empty.crt\"]"),
    // web
    ("address = \"127.0.0.1:8080\"", "address = \"127.0.0.1:11112\""),
    ("address = \"127.0.0.1:8080\"", "address = \"0.0.0.0:8080\"\ntls = \"off\""),
    (
        "address = \"127.0.0.1:8080\"",
        "address = \"127.0.0.1:8080\"\ntls = \"mutual\"\nurl = \"images.trust.example\"",
    ),
    ("address = \"127.0.0.1:8080\"", "address = \"127.0.0.1:8080\"\nkey = \"tls/node.key\""),
    (
        "address = \"127.0.0.1:8080\"",
        "address = \"127.0.0.1:8080\"\nkey = \"tls/node.key\"\ncertificate = \"tls/node.crt\"\ntls = \"off\"",
    ),
    // intake, association, delivery, log
    (
        "acknowledge = \"durable\"",
        "acknowledge = \"fast\"\nreserve = 5\nmax-instance-size = \"2GB\"",
    ),
    ("acknowledge = \"durable\"", "reserve = \"5\"\nmax-instance-size = \"2KiB\""),
    (
        "[web]",
        "[association]\nmax-pdu = \"1KiB\"\nidle-timeout = \"60\"\nhandshake-timeout = \"soon\"\nrelease-timeout = \"1h\"\n[web]",
    ),
    (
        "[web]",
        "[delivery]\nretry-floor = \"1m\"\nretry-ceiling = \"30s\"\nassociation-idle = \"0s\"\n[web]",
    ),
    ("[web]", "[log]\nformat = \"xml\"\nlevel = \"verbose\"\n[web]"),
    // object store, database
    ("kind = \"file\"", "kind = \"s3\"\nbucket = \"b\"\npath-style = true"),
    ("kind = \"file\"", "kind = \"file\"\nbucket = \"b\""),
    ("kind = \"file\"", "kind = \"azure\""),
    ("url = \"sqlite\"", "url = \"postgres://gantry:secret@db/gantry\""),
    ("url = \"sqlite\"", "url = \"mysql://gantry:secret@db/gantry\""),
    // source
    ("name = \"pacs\"", "name = \"our pacs\""),
    ("name = \"pacs\"", "name = \"york-ed\""),
    ("name = \"pacs\"\n", ""),
    ("ae-title = \"PACS\"", "ae-title = \"YORK\"\ncalled = [\"A\\\\B\"]"),
    ("address = \"127.0.0.1:11113\"", "address = \"127.0.0.1\""),
    ("address = \"127.0.0.1:11113\"", "certificate = \"tls/royal-infirmary.crt\""),
    // partner
    ("name = \"royal-infirmary\"", "nmae = \"royal-infirmary\""),
    ("ae-title = \"RI_IEP\"", "ae-title = \"GANTRY\""),
    ("ae-title = \"RI_IEP\"", "ae-title = \"YORK\""),
    ("certificate = \"tls/royal-infirmary.crt\"\n", ""),
    ("certificate = \"tls/royal-infirmary.crt\"", "certificate = \"tls/none.crt\""),
    ("certificate = \"tls/royal-infirmary.crt\"", "certificate = \"tls/old.crt\""),
    ("certificate = \"tls/royal-infirmary.crt\"", "certificate = \"tls/both.crt\""),
    ("certificate = \"tls/royal-infirmary.crt\"", "certificate = \"tls/soon.crt\""),
    ("certificate = \"tls/royal-infirmary.crt\"", "certificate = \"tls/future.crt\""),
    ("certificate = \"tls/royal-infirmary.crt\"", "certificate = \"tls/stranger.crt\""),
    ("certificate = \"tls/royal-infirmary.crt\"", "certificate = \"tls/node.crt\""),
    ("certificate = \"tls/royal-infirmary.crt\"", "certificate = \"tls/ca.crt\""),
    ("associations = 4", "associations = 100"),
    ("may = [\"receive\", \"query\", \"retrieve\", \"send\"]", "may = [\"send\", \"recieve\"]"),
    ("tls = \"off\"\n\n[[route]]", "tls = \"server-only\"\n\n[[route]]"),
    ("tls = \"off\"\n\n[[route]]", "tls = \"off\"\ncertificate = \"tls/ca.crt\"\n\n[[route]]"),
    // route
    ("name = \"emergency to the royal infirmary\"\n", ""),
    ("when = { called-ae-title = \"RI_EMERG\" }\n", ""),
    ("when = { called-ae-title = \"RI_EMERG\" }", "when = {}"),
    ("when = { called-ae-title = \"RI_EMERG\" }", "when = \"always\""),
    (
        "when = { called-ae-title = \"RI_EMERG\" }",
        "when = { called-aet = \"RI_EMERG\", pixel-data = \"x\" }",
    ),
    (
        "when = { called-ae-title = \"RI_EMERG\" }",
        "when = { called-ae-title = \"RI_EMERGENCY_LONG\", modality = [], rows = 512 }",
    ),
    (
        "when = { called-ae-title = \"RI_EMERG\" }",
        "when = { source = \"pac\", partner = \"*edinburgh\", listener = \"0.0.0.0:2726\", modality = \"\" }",
    ),
    ("to = [\"royal-infirmary\"]", "to = [\"royal-infirmry\", \"york-ed\", \"york-ed\"]"),
    ("to = [\"royal-infirmary\"]", "to = []"),
    ("to = [\"royal-infirmary\"]\n", ""),
    ("purpose = \"emergency-transfer\"", "purpose = \"emergency\""),
    ("purpose = \"emergency-transfer\"", "purpose = \"research\""),
    ("priority = \"emergency\"", "priority = \"stat\""),
    ("protect = \"as-received\"", "protect = \"seal\""),
    ("protect = \"as-received\"", "protect = { pseudonymise = \"trial\" }"),
    ("protect = \"as-received\"", "protect = { anonymise = \"teaching\" }"),
    ("protect = \"as-received\"", "protect = \"as-is\""),
    (
        "tls = \"off\"\n\n[[route]]",
        "tls = \"off\"\nmay = [\"send\"]\n[[route]]\nname = \"emergency to the royal infirmary\"\nto = \"york-ed\"\nwhen.partner = \"r*\"\n\n[[route]]",
    ),
];
