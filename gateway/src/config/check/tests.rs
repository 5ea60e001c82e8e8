use std::fs;
use std::os::unix::fs::PermissionsExt as _;

use gantry_store::facts::{Priority, Purpose};
use gantry_store::object::s3::{Credentials, Settings};
use jiff::{SignedDuration, Timestamp};

use super::super::report::Style;
use super::super::{
    Acknowledge, Associations, Compress, Fact, HostPort, ListenerTls, PartnerTls, Permission,
    Protect, WebTls,
};
use super::super::{Database, Delivery, Intake, Limits, Log, ObjectStore};
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
        folder.write("s3-key", "AKIA1\nsecret\n");
        folder.chmod("s3-key", 0o600);
        folder.write("s3-open", "AKIA1\nsecret\n");
        folder.chmod("s3-open", 0o644);
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
        let place = match finding.line_and_column() {
            Some((line, column)) => format!("{line}:{column} {}", part("text")),
            None => "whole file".to_owned(),
        };
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
fn every_mistake_is_told_with_its_place_and_its_remedy() {
    let folder = Folder::new();
    assert_eq!(folder.findings(GANTRY_TOML), [""; 0]);

    let cases = include_str!("problems.txt").split("\n\n").skip(1);
    for case in cases {
        let lines = |mark: &str| -> Vec<&str> {
            case.lines()
                .filter_map(|line| line.strip_prefix(mark))
                .map(|line| line.trim_start_matches(' '))
                .collect()
        };
        let (before, after) = (lines("-").join("\n") + "\n", lines("+").join("\n") + "\n");
        let text = format!("\n{GANTRY_TOML}");
        assert_eq!(text.matches(&format!("\n{before}")).count(), 1, "{before}");
        let text =
            text.replace(&format!("\n{before}"), &format!("\n{}", after.trim_start_matches('\n')));

        assert_eq!(folder.findings(&text[1..]), lines("="), "{after}");
    }
}

#[test]
fn all_is_told_at_once_in_the_order_of_the_files() {
    let folder = Folder::new();
    folder.write("conf.d/20-york.toml", "[[partner]]\nname = \"x\"\nae-title = \"X\\\\\"\naddress = \"x:1\"\ntls = \"off\"\n[log]\n");
    folder.write(
        "conf.d/10-hull.toml",
        "[[route]]\nname = \"to hull\"\nwhen.modality = \"CT\"\nto = \"hul\"\n",
    );
    folder.write("conf.d/ignored.toml~", "=");
    let text = GANTRY_TOML.replace("\"durable\"", "\"fast\"").replace("data-dir", "data-folder");

    let problems = folder.load(&text).unwrap_err();

    let places: Vec<_> = problems
        .iter()
        .map(|finding| {
            (
                finding.file().unwrap().rsplit('/').next().unwrap(),
                finding.line_and_column().unwrap(),
            )
        })
        .collect();
    let expected = [
        ("gantry.toml", (4, 1)),
        ("gantry.toml", (23, 15)),
        ("10-hull.toml", (4, 6)),
        ("20-york.toml", (3, 12)),
        ("20-york.toml", (6, 1)),
    ];
    assert_eq!(places, expected);
    assert_eq!(problems.to_string(), "the configuration has 5 problems");
    assert_eq!(problems.render(Style::Plain).matches("help: ").count(), 5);
}

#[test]
fn parts_add_sources_partners_and_routes_with_files_beside_them() {
    let folder = Folder::new();
    let certificate = fs::read_to_string(folder.0.path().join("tls/royal-infirmary.crt")).unwrap();
    folder.write("conf.d/ri.crt", &certificate);
    let (from, until) = (
        GANTRY_TOML.find("[[partner]]").unwrap(),
        GANTRY_TOML.find("[[partner]]\nname = \"york").unwrap(),
    );
    let partner = GANTRY_TOML[from..until].replace("tls/royal-infirmary.crt", "ri.crt");
    folder.write("conf.d/ri.toml", &partner);

    let (config, warnings) =
        folder.load(&(GANTRY_TOML[..from].to_owned() + &GANTRY_TOML[until..])).unwrap();

    assert!(warnings.is_empty());
    let names: Vec<_> = config.partners.iter().map(|partner| partner.name.as_str()).collect();
    assert_eq!(names, ["york-ed", "royal-infirmary"]);
    assert_eq!(config.partner("royal-infirmary").unwrap().certificates.len(), 1);
}

#[test]
fn a_partner_is_compressed_for_as_its_word_says() {
    let folder = Folder::new();
    for (word, expected) in
        [("auto", Compress::Auto), ("never", Compress::Never), ("always", Compress::Always)]
    {
        let text = GANTRY_TOML
            .replace("associations = 4\n", &format!("associations = 4\ncompress = \"{word}\"\n"));
        let (config, _) = folder.load(&text).unwrap();
        assert_eq!(config.partner("royal-infirmary").unwrap().compress, expected);
    }
    let text = GANTRY_TOML.replace("associations = 4\n", "compress = \"lossy\"\n");
    let findings = folder.findings(&text).concat();
    assert!(findings.contains("compress of a partner cannot be \"lossy\""), "{findings}");
}

#[test]
fn a_partner_is_sent_what_is_no_emergency_when_and_as_fast_as_its_words_say() {
    let folder = Folder::new();
    let with = |lines: &str| GANTRY_TOML.replace("associations = 4\n", lines);
    let pace = |lines: &str| {
        let (config, _) = folder.load(&with(lines)).unwrap();
        let partner = config.partner("royal-infirmary").unwrap();
        let pace = partner.pace.clone();
        let hours = pace.off_peak.map(|hours| hours.to_string());
        (partner.associations, pace.rate, hours, pace.routine_waits)
    };
    assert_eq!(pace(""), (Associations::Auto, None, None, false));
    assert_eq!(pace("associations = \"auto\"\nrate = \"2MiB\"\n").1, Some(2 << 20));
    let night = "associations = 9\noff-peak = \"19:00-07:00\"\nroutine = \"off-peak\"\n";
    assert_eq!(pace(night), (Associations::Fixed(9), None, Some("19:00-07:00".into()), true));

    for (lines, words) in [
        ("associations = 0\n", "0 is not a number that can stand here"),
        ("associations = \"many\"\n", "neither a number nor \"auto\""),
        ("rate = \"1B\"\n", "too small"),
        ("rate = \"1MiB\"\noff-peak = \"7-19\"\n", "two digits"),
        ("routine = \"off-peak\"\n", "off-peak is missing"),
        ("off-peak = \"19:00-07:00\"\n", "change nothing here"),
        ("rate = \"1MiB\"\nroutine = \"never\"\n", "routine of a partner cannot be"),
    ] {
        let findings = folder.findings(&with(lines)).concat();
        assert!(findings.contains(words), "{lines}: {findings}");
    }
}

#[test]
fn a_problem_looks_like_this() {
    let folder = Folder::new();
    let problems = folder
        .load(&GANTRY_TOML.replace("\"royal-infirmary\"]", "\"royal-infirmry\"]"))
        .unwrap_err();

    let shown =
        problems.render(Style::Plain).replace(&format!("{}/", folder.0.path().display()), "");
    let expected = "  × there is no partner \"royal-infirmry\"
    ╭─[gantry.toml:53:7]
 53 │ to = [\"royal-infirmry\"]
    ·       ────────┬───────
    ·               ╰── unknown
    ╰────
  help: Did you mean \"royal-infirmary\"? There is \"royal-infirmary\", \"york-ed\".
";
    assert_eq!(shown, expected);
}

#[test]
fn what_is_missing_as_a_whole_needs_no_frame() {
    let folder = Folder::new();
    let shown = folder.load("").unwrap_err().render(Style::Plain);

    let shown = shown.replace(&format!("{}/", folder.0.path().display()), "");
    assert!(
        shown.starts_with("  × gantry.toml has no [node] section\n  help: Write who this node is"),
        "{shown}"
    );
    assert!(!shown.contains('╭'), "{shown}");
}

#[test]
fn a_file_that_is_not_there_has_a_remedy() {
    let folder = tempfile::tempdir().unwrap();
    let problems = Config::load(&folder.path().join("gantry.toml")).unwrap_err();
    let shown = problems.render(Style::Plain);
    assert!(shown.contains("No such file") && shown.contains("`gantry init` makes one"), "{shown}");
}

#[test]
fn what_is_written_is_what_runs() {
    let folder = Folder::new();
    let text = GANTRY_TOML.replace(
        "when = { called-ae-title = \"RI_EMERG\" }",
        "when = { called-ae-title = [\"RI_*\", \"X\"], body-part-examined = \"*head*\" }",
    );

    let (config, _) = folder.load(&text).unwrap();

    let here = folder.0.path();
    assert_eq!(config.file, here.join("gantry.toml"));
    assert_eq!(
        (config.node.ae_title.as_str(), config.node.organisation.as_str()),
        ("GANTRY", "RXX")
    );
    assert_eq!(config.node.admin_socket(), here.join("data/admin.sock"));
    let plain = &config.listeners[1];
    assert_eq!((plain.name.as_str(), plain.tls), ("127.0.0.1:11112", ListenerTls::Off));
    assert_eq!(plain.allow, ["127.0.0.0/8".parse().unwrap()]);
    let tls = config.tls.as_ref().unwrap();
    assert_eq!(
        (&tls.identity.key, &tls.authorities),
        (&here.join("tls/node.key"), &vec![here.join("tls/ca.crt")])
    );
    let web = config.web.as_ref().unwrap();
    assert_eq!((&web.tls, web.url.as_deref()), (&WebTls::Off, Some("http://127.0.0.1:8080")));
    let source = config.source("pacs").unwrap();
    assert_eq!(source.address, Some(HostPort { host: "127.0.0.1".to_owned(), port: 11113 }));
    let partner = config.partner("royal-infirmary").unwrap();
    assert_eq!(
        (partner.tls, partner.certificates.len(), partner.associations),
        (PartnerTls::Mutual, 1, Associations::Fixed(4))
    );
    assert!(partner.may(Permission::Send) && partner.certificates_until.is_some());
    let route = &config.routes[0];
    assert_eq!((route.purpose, route.priority), (Purpose::EmergencyTransfer, Priority::Emergency));
    assert_eq!(route.to, ["royal-infirmary"]);
    let condition =
        |key: &str| route.when.iter().find(|condition| condition.on.to_string() == key).unwrap();
    let called = condition("called-ae-title");
    assert!(
        called.admits("RI_EMERG")
            && called.admits("X")
            && !called.admits("ri_emerg")
            && !called.admits("XX")
    );
    let part = condition("body-part-examined");
    assert!(part.admits("HEAD") && part.admits("Forehead") && !part.admits("CHEST"));
    assert!(matches!(part.on, Fact::Attribute(_, "BodyPartExamined")));
}

#[test]
fn what_is_not_written_is_the_safe_choice() {
    let folder = Folder::new();
    let text = r#"
[node]
ae-title = "GANTRY"
organisation = "RXX"
[[listener]]
address = "[::]:2762"
[tls]
certificate = "tls/node.crt"
key = "tls/node.key"
authorities = "tls/ca.crt"
[web]
address = "0.0.0.0:443"
[[partner]]
name = "ri"
ae-title = "RI"
address = "ri:104"
certificate = "tls/royal-infirmary.crt"
[[route]]
name = "all CT"
when.modality = "CT"
to = "ri"
"#;

    let (config, warnings) = folder.load(text).unwrap();

    assert!(warnings.is_empty());
    assert_eq!(config.node.data_dir, folder.0.path().join("data"));
    assert_eq!(
        (config.listeners[0].tls, config.listeners[0].max_associations),
        (ListenerTls::Mutual, 64)
    );
    let web = config.web.unwrap();
    assert!(matches!(web.tls, WebTls::ServerOnly(_)) && web.url.is_none());
    assert_eq!(config.intake, Intake::default());
    assert_eq!((config.intake.acknowledge, config.intake.reserve), (Acknowledge::Durable, 1 << 30));
    assert_eq!((config.limits, config.limits.max_pdu), (Limits::default(), 128 << 10));
    assert_eq!((config.delivery, config.log), (Delivery::default(), Log::default()));
    assert_eq!((config.object_store, config.database), (ObjectStore::File, Database::Sqlite));
    let partner = &config.partners[0];
    assert_eq!((partner.tls, &partner.may), (PartnerTls::Mutual, &[Permission::Receive].into()));
    assert_eq!(partner.compress, Compress::Auto);
    let route = &config.routes[0];
    assert_eq!(
        (route.priority, route.purpose, route.protect.clone()),
        (Priority::Routine, Purpose::DirectCare, Protect::AsReceived)
    );
}

/// All that the shipped example shows of a bucket, with `#` before it, is right too.
#[test]
fn the_shipped_example_of_a_bucket_is_right() {
    let folder = Folder::new();
    let shipped = include_str!("../../../../deploy/gantry.toml");
    let begin = shipped.find("[object-store]").unwrap();
    let section = &shipped[begin..begin + shipped[begin..].find("# Where rows").unwrap()];
    let shown: String = section
        .lines()
        .filter_map(|line| line.strip_prefix('#').filter(|key| !key.starts_with(' ')))
        .fold(String::new(), |lines, line| lines + line + "\n");
    folder.write("s3-key", "AKIA1\nsecret\n");
    folder.chmod("s3-key", 0o600);
    let authority = fs::read_to_string(folder.0.path().join("tls/ca.crt")).unwrap();
    folder.write("tls/s3-ca.crt", &authority);

    let (config, warnings) = folder
        .load(&GANTRY_TOML.replace("kind = \"file\"\n", &shown))
        .unwrap_or_else(|problems| panic!("{}", problems.render(Style::Plain)));

    assert!(warnings.is_empty(), "{warnings:?}");
    let ObjectStore::S3(settings) = config.object_store else { panic!("no bucket") };
    let defaults = Settings::new("", "", Credentials::Missing);
    assert_eq!(
        (settings.bucket.as_str(), settings.prefix.as_str(), settings.endpoint.as_deref()),
        ("rxx-images", "gantry/rxx", Some("https://s3.rxx.example:9000"))
    );
    assert!(matches!(settings.credentials, Credentials::Key { ref id, .. } if id == "AKIA1"));
    assert!(settings.authorities.is_some());
    // Where it states a default, it states the right one.
    assert_eq!(
        (settings.connect_timeout, settings.response_timeout, settings.parallel, settings.checksum),
        (defaults.connect_timeout, defaults.response_timeout, defaults.parallel, defaults.checksum)
    );
    let keys = shown.lines().filter_map(|line| line.split(" = ").next()).count();
    assert_eq!(keys, 16, "every key is shown");
}

#[test]
fn a_bucket_at_aws_needs_little() {
    let folder = Folder::new();
    let bucket =
        "kind = \"s3\"\nbucket = \"images\"\nregion = \"eu-west-2\"\ninstance-role = true\n";

    let (config, warnings) =
        folder.load(&GANTRY_TOML.replace("kind = \"file\"\n", bucket)).unwrap();

    assert!(warnings.is_empty(), "{warnings:?}");
    let ObjectStore::S3(settings) = config.object_store else { panic!("no bucket") };
    assert_eq!((settings.endpoint, settings.path_style), (None, false));
    assert_eq!(settings.credentials, Credentials::InstanceRole);
}

/// The example that is shipped names files that its reader has; here they are made, and then it must run.
#[test]
fn the_shipped_example_is_right() {
    let folder = Folder::new();
    let text = include_str!("../../../../deploy/gantry.toml");
    let ours = Authority::new("region").unwrap();
    for line in text.lines() {
        let (key, value) = line.split_once(" = ").unwrap_or_default();
        let name = value.trim_matches('"');
        if key == "certificate" {
            let issued = ours.issue(name, &[]).unwrap();
            let its_key = name.replace(".crt", ".key");
            folder.write(name, &issued.certificate_pem);
            folder.write(&its_key, &issued.key_pem);
            folder.chmod(&its_key, 0o600);
        }
    }
    folder.write("tls/region-ca.crt", &ours.certificate_pem());
    folder.write("tokens/pacs", "0123456789abcdef0123456789abcdef\n");
    folder.chmod("tokens/pacs", 0o600);

    let (config, warnings) =
        folder.load(text).unwrap_or_else(|problems| panic!("{}", problems.render(Style::Plain)));

    assert!(warnings.is_empty(), "{warnings:?}");
    assert!(config.partners.len() >= 2 && config.routes.len() >= 3 && !config.sources.is_empty());
    // Where it states a default, it states the right one.
    assert_eq!((config.intake, config.limits), (Intake::default(), Limits::default()));
    assert_eq!((config.delivery, config.log.level), (Delivery::default(), Log::default().level));
    assert_eq!(config.scrub, crate::config::Scrub::default());
    assert_eq!(config.completeness, crate::config::Completeness::default());
    assert_eq!(config.alarm, crate::config::Alarm::default());
}

#[test]
fn dicomweb_needs_tls_beyond_this_machine_and_everyone_a_token_of_its_own() {
    let folder = Folder::new();
    let token = "0123456789abcdef0123456789abcdef";
    for (name, text) in [
        ("one", token),
        ("same", token),
        ("short", "0123"),
        ("odd", "äöü 456789abcdef0123456789abcdef"),
    ] {
        folder.write(name, text);
        folder.chmod(name, 0o600);
    }
    folder.write("open", token);
    folder.chmod("open", 0o644);
    let source = |name: &str, file: &str| {
        format!("[[source]]\nname = \"{name}\"\nae-title = \"{name}\"\ntoken-file = \"{file}\"\n")
    };
    let here = "[dicomweb]\naddress = \"127.0.0.1:8444\"\ntls = \"off\"\nallow-origins = [\"https://viewer.example/\"]\n";
    let text = format!("{GANTRY_TOML}{here}{}", source("A", "one"));

    let (config, warnings) =
        folder.load(&text).unwrap_or_else(|problems| panic!("{}", problems.render(Style::Plain)));

    assert!(warnings.is_empty(), "{warnings:?}");
    let dicomweb = config.dicomweb.unwrap();
    assert_eq!(
        (dicomweb.encrypted, dicomweb.url.as_deref()),
        (false, Some("http://127.0.0.1:8444"))
    );
    assert_eq!(dicomweb.origins, ["https://viewer.example"]);
    let its = config.sources.iter().find(|source| source.name == "A").unwrap();
    assert!(its.token.is_some() && !format!("{its:?}").contains(token));

    let refused = [
        (source("A", "one") + &source("B", "same"), "A has the same token"),
        (source("A", "short"), "this token can be guessed"),
        (source("A", "odd"), "this token cannot be sent as a bearer token"),
        (source("A", "absent"), "cannot read"),
        (source("A", "open"), "others can read this token"),
        ("[dicomweb]\naddress = \"127.0.0.1:8080\"\n".to_owned(), "is listened on twice"),
        (
            "[dicomweb]\naddress = \"127.0.0.1:8444\"\nallow-origins = [\"*\"]\n".to_owned(),
            "is not the address of a web site",
        ),
    ];
    for (lines, expected) in refused {
        let said = match folder.load(&format!("{GANTRY_TOML}{lines}")) {
            Ok(_) => "nothing".to_owned(),
            Err(problems) => problems.render(Style::Plain),
        };
        assert!(said.contains(expected), "{expected}: {said}");
    }
}

/// All that the shipped example shows of who is told, with `#` before it, is right too.
#[test]
fn the_shipped_example_of_alarms_is_right() {
    let folder = Folder::new();
    let shipped = include_str!("../../../../deploy/gantry.toml");
    let begin = shipped.find("[alarm]").unwrap();
    let section = &shipped[begin..begin + shipped[begin..].find("# Reading again").unwrap()];
    let shown = section
        .lines()
        .map(|line| line.strip_prefix('#').filter(|key| !key.starts_with(' ')).unwrap_or(line))
        .fold(String::new(), |lines, line| lines + line + "\n");
    folder.write("webhook.secret", "0123456789abcdef\n");
    folder.chmod("webhook.secret", 0o600);
    let authority = fs::read_to_string(folder.0.path().join("tls/ca.crt")).unwrap();
    folder.write("tls/rxx-ca.crt", &authority);

    let (config, warnings) = folder
        .load(&format!("{GANTRY_TOML}\n{shown}"))
        .unwrap_or_else(|problems| panic!("{}", problems.render(Style::Plain)));

    assert!(warnings.is_empty(), "{warnings:?}");
    let [webhook] = config.alarm.webhooks.as_slice() else { panic!("one webhook") };
    assert_eq!((webhook.host.as_str(), webhook.port), ("alerts.rxx.example", 443));
    assert!(webhook.secret.is_some() && webhook.authority.is_some());
    let mail = config.alarm.mail.unwrap();
    assert_eq!((mail.tls, mail.port), (crate::config::MailTls::StartTls, 587));
    let keys = shown.lines().filter(|line| !line.starts_with('#') && line.contains(" = ")).count();
    assert_eq!(keys, 9, "every key is shown");
}

#[test]
fn what_is_wrong_with_alarms_is_told_with_its_remedy() {
    let folder = Folder::new();
    folder.write("short.secret", "hunter2\n");
    folder.chmod("short.secret", 0o600);
    folder.write("open.secret", "0123456789abcdef\n");
    folder.chmod("open.secret", 0o644);
    for (lines, expected) in [
        ("partner-silent = \"5\"", "the unit is missing"),
        ("emergency-stalled = \"never\"", "Or \"off\"."),
        ("webhook = \"http://alerts.example/x\"", "alarms would be sent in plain text"),
        ("webhook = \"alerts.example\"", "this is not the address of a webhook"),
        ("webhook-tls = \"off\"", "there is no webhook that this could be about"),
        (
            "webhook = \"https://a.example\"\nwebhook-secret-file = \"short.secret\"",
            "this secret can be guessed",
        ),
        (
            "webhook = \"https://a.example\"\nwebhook-secret-file = \"open.secret\"",
            "others can read this secret",
        ),
        ("mail = { server = \"a.example\", from = \"a@b.example\" }", "mail has no to"),
        ("mail = { servr = \"a.example\" }", "there is no key \"servr\" here"),
        (
            "mail = { server = \"a.example\", from = \"a\", to = \"a@b.example\" }",
            "\"a\" is not a mail address",
        ),
        (
            "mail = { server = \"a.example\", from = \"a@b.example\", to = [], user = \"u\" }",
            "nobody would read this mail",
        ),
        (
            "mail = { server = \"a.example\", tls = \"off\", from = \"a@b.example\", to = \"a@b.example\", \
             user = \"u\", password-file = \"open.secret\" }",
            "a password would be sent in plain text",
        ),
    ] {
        let findings = folder.findings(&format!("{GANTRY_TOML}[alarm]\n{lines}\n")).join("\n");
        assert!(findings.contains(expected), "{lines}:\n{findings}");
    }
    let here = "[alarm]\nwebhook = \"http://127.0.0.1:9/x\"\npartner-silent = \"off\"\n";
    let (config, _) = folder.load(&format!("{GANTRY_TOML}{here}")).unwrap();
    assert_eq!(config.alarm.partner_silent, None);
}
