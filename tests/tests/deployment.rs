//! What deploy/ ships fits together: the node's configuration, the services around it, the images and the first step. A host
//! name, a port, a path or a user that two files name is the same in both.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)] // a panic is how a test fails

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, chown};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::Duration;

use gantry_gateway::config::{Config, Database, ListenerTls, ObjectStore, Style, WebTls};
use gantry_gateway::tls::Authority;
use gantry_store::index::PostgresHost;
use gantry_store::object::s3::{Credentials, Settings};
use gantry_tests::gateway::program;
use gantry_tests::skip;
use serde_json::Value;
use tempfile::TempDir;

/// The user of both images.
const USER: u32 = 10001;

fn shipped(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(name)
}

fn read(name: &str) -> String {
    let path = shipped(name);
    fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

fn compose() -> Value {
    serde_saphyr::from_str(&read("deploy/compose/compose.yaml")).unwrap()
}

fn texts(list: &Value) -> Vec<&str> {
    list.as_array().unwrap().iter().map(|text| text.as_str().unwrap()).collect()
}

/// Where each of a service's mounts comes from, by its place in the container.
fn mounts(service: &Value) -> Vec<(&str, &str)> {
    texts(&service["volumes"])
        .into_iter()
        .map(|mount| {
            let mut parts = mount.split(':');
            let (from, to) = (parts.next().unwrap(), parts.next().unwrap());
            (to, from)
        })
        .collect()
}

/// The mount that a path inside a container lies in.
fn mount_of<'a>(service: &'a Value, path: &Path) -> &'a str {
    let found = mounts(service).into_iter().find(|(to, _)| path.starts_with(to));
    found.unwrap_or_else(|| panic!("{} is in no mount of {service}", path.display())).1
}

/// Ports that are published, by the port inside: the address outside, and its port.
fn published(service: &Value) -> Vec<(u16, Option<&str>, u16)> {
    texts(&service["ports"])
        .into_iter()
        .map(|port| {
            let parts: Vec<_> = port.split(':').collect();
            let address = (parts.len() == 3).then(|| parts[0]);
            (
                parts[parts.len() - 1].parse().unwrap(),
                address,
                parts[parts.len() - 2].parse().unwrap(),
            )
        })
        .collect()
}

fn seconds(time: &str) -> u64 {
    let (number, unit) = time.split_at(time.find(|c: char| !c.is_ascii_digit()).unwrap());
    number.parse::<u64>().unwrap()
        * match unit {
            "s" => 1,
            "m" => 60,
            _ => panic!("a time in {unit:?}"),
        }
}

/// How long `gantry serve` takes to finish, unless it is told otherwise.
fn grace() -> u64 {
    let help = said(Command::new(program()).args(["serve", "--help"]));
    let help = String::from_utf8(help.stdout).unwrap();
    let after = help.split("--grace").nth(1).unwrap().split("[default: ").nth(1).unwrap();
    seconds(after.split(']').next().unwrap())
}

fn said(command: &mut Command) -> Output {
    let output = command.output().unwrap();
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
    output
}

/// What stands in the containers, below a folder of the test's: what is mounted there, and what the first step made.
struct Containers(TempDir);

impl Containers {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        for name in ["run/secrets", "etc/gantry/conf.d", "var/lib/gantry"] {
            fs::create_dir_all(folder.path().join(name)).unwrap();
        }
        Self(folder)
    }

    /// With secrets and a node of the test's making.
    fn prepared() -> Self {
        let containers = Self::new();
        for (name, text) in [("postgres-password", "hunter2\n"), ("s3-key", "GK0\nsecret\n")] {
            let path = containers.path(&format!("/run/secrets/{name}"));
            fs::write(&path, text).unwrap();
            fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
        }
        let state = containers.path("/var/lib/gantry");
        said(Command::new(program()).arg("init").arg(state).arg("--non-interactive"));
        containers
    }

    fn path(&self, inside: &str) -> PathBuf {
        self.0.path().join(inside.strip_prefix('/').unwrap())
    }

    /// The node's configuration as the container has it, every path in it below this folder.
    fn config(&self, change: impl FnOnce(String) -> String) -> (Config, Vec<String>) {
        let mut text = change(read("deploy/compose/gantry.toml"));
        for inside in ["/var/lib/gantry/", "/run/secrets/"] {
            assert!(text.contains(inside), "{inside}");
            text = text
                .replace(&format!("\"{inside}"), &format!("\"{}/", self.path(inside).display()));
        }
        let path = self.path("/etc/gantry/gantry.toml");
        fs::write(&path, text).unwrap();
        let (config, warnings) = Config::load(&path)
            .unwrap_or_else(|problems| panic!("{}", problems.render(Style::Plain)));
        (config, warnings.iter().map(|warning| warning.render(Style::Plain)).collect())
    }

    /// What a path of the configuration is in the container.
    fn inside(&self, path: &Path) -> PathBuf {
        Path::new("/").join(path.strip_prefix(self.0.path()).unwrap())
    }
}

#[test]
fn the_node_of_compose_can_be_run_and_warns_of_nothing() {
    let (config, warnings) = Containers::prepared().config(|text| text);

    assert_eq!(warnings, [""; 0]);
    assert!(matches!(config.object_store, ObjectStore::S3(_)));
    assert!(matches!(config.database, Database::Postgres(_)));
    assert!(config.listeners.iter().any(|listener| listener.tls == ListenerTls::Mutual));
    assert!(matches!(config.web.unwrap().tls, WebTls::ServerOnly(_)));
}

#[test]
fn the_node_finds_the_bucket_where_compose_starts_its_server() {
    let containers = Containers::prepared();
    let (config, compose) = (containers.config(|text| text).0, compose());
    let ObjectStore::S3(settings) = &config.object_store else { panic!("no bucket") };
    let garage: toml::Table = read("deploy/compose/s3/garage.toml").parse().unwrap();
    let (gantry, s3) = (&compose["services"]["gantry"], &compose["services"]["s3"]);

    let listens = garage["s3_api"]["api_bind_addr"].as_str().unwrap();
    let port = listens.strip_prefix("0.0.0.0:").expect("it listens beyond its own container");
    assert_eq!(settings.endpoint.as_deref(), Some(&*format!("http://s3:{port}")));
    assert_eq!(Some(&*settings.region), garage["s3_api"]["s3_region"].as_str());
    assert_eq!(Some(&*settings.bucket), s3["environment"]["S3_BUCKET"].as_str());
    assert!(settings.path_style, "nobody resolves gantry.s3");
    // Both see the network, which has no way out; nobody else can ask the server.
    assert_eq!(compose["networks"]["store"]["internal"], true);
    assert_eq!(texts(&s3["networks"]), ["store"]);
    assert!(texts(&gantry["networks"]).contains(&"store") && s3["ports"].is_null());
    // An image that is confirmed is on the disk, and in a volume.
    for key in ["data_fsync", "metadata_fsync"] {
        assert_eq!(garage[key].as_bool(), Some(true), "{key}");
    }
    for key in ["data_dir", "metadata_dir"] {
        let from = mount_of(s3, Path::new(garage[key].as_str().unwrap()));
        assert!(compose["volumes"].as_object().unwrap().contains_key(from), "{key} is in {from}");
    }
    // Its key is the node's.
    let start = read("deploy/compose/s3/start");
    assert!(start.contains("/run/secrets/s3-key"));
    assert_eq!(garage["rpc_secret_file"].as_str(), Some("/run/secrets/s3-rpc"));
    assert_eq!(BTreeSet::from_iter(texts(&s3["secrets"])), BTreeSet::from(["s3-key", "s3-rpc"]));
    assert!(
        read("deploy/compose/gantry.toml").contains("credentials-file = \"/run/secrets/s3-key\"")
    );
}

#[test]
fn the_node_finds_the_database_that_compose_makes() {
    let containers = Containers::prepared();
    let (config, compose) = (containers.config(|text| text).0, compose());
    let Database::Postgres(settings) = &config.database else { panic!("no server") };
    let (gantry, postgres) = (&compose["services"]["gantry"], &compose["services"]["postgres"]);
    let environment = &postgres["environment"];

    assert_eq!(Some(&*settings.database), environment["POSTGRES_DB"].as_str());
    assert_eq!(Some(&*settings.user), environment["POSTGRES_USER"].as_str());
    let PostgresHost::Socket(folder, 5432) = &settings.host else { panic!("{:?}", settings.host) };
    let volume = mount_of(gantry, folder);
    // Where the image has its socket.
    assert_eq!(mount_of(postgres, Path::new("/var/run/postgresql")), volume);
    assert!(compose["volumes"].as_object().unwrap().contains_key(volume));
    // So no network carries rows.
    assert_eq!(postgres["network_mode"], "none");
    assert!(texts(&postgres["command"]).contains(&"listen_addresses="));
    // The password is asked for, there too.
    let asks = environment["POSTGRES_INITDB_ARGS"].as_str().unwrap();
    assert!(asks.contains("--auth-local=scram-sha-256"), "{asks}");
    let secret = "/run/secrets/postgres-password";
    assert_eq!(environment["POSTGRES_PASSWORD_FILE"], secret);
    assert!(read("deploy/compose/gantry.toml").contains(&format!("password-file = \"{secret}\"")));
    for service in [gantry, postgres] {
        assert!(texts(&service["secrets"]).contains(&"postgres-password"));
    }
    let health = texts(&postgres["healthcheck"]["test"]).join(" ");
    assert!(health.contains(&format!("--username={}", settings.user)), "{health}");
    assert!(health.contains(&format!("--dbname={}", settings.database)), "{health}");
    let (_, tag) = postgres["image"].as_str().unwrap().split_once(':').unwrap();
    assert!(
        tag.starts_with(|c: char| c.is_ascii_digit()),
        "{tag}: data of another major version is not read"
    );
}

#[test]
fn what_listens_is_published_and_plain_text_stays_on_the_machine() {
    let containers = Containers::prepared();
    let (config, compose) = (containers.config(|text| text).0, compose());
    let gantry = &compose["services"]["gantry"];
    let web = config.web.unwrap();
    let mut listening: Vec<_> =
        config.listeners.iter().map(|one| (one.address, one.tls == ListenerTls::Off)).collect();
    listening.push((web.address, web.tls == WebTls::Off));

    for (address, plain) in &listening {
        assert!(address.ip().is_unspecified(), "{address} cannot be reached from outside");
        let ports = published(gantry);
        let (_, outside, port) =
            ports.iter().find(|(inside, ..)| *inside == address.port()).unwrap();
        assert_eq!(*port, address.port());
        let expected = plain.then_some("127.0.0.1");
        assert_eq!(*outside, expected, "{address}");
    }
    assert_eq!(published(gantry).len(), listening.len(), "nothing else is published");
    for name in ["postgres", "s3", "setup"] {
        assert!(compose["services"][name]["ports"].is_null(), "{name}");
    }
    // What connects from this machine comes from the network's gateway, and is let in.
    let network = &compose["networks"]["edge"]["ipam"]["config"][0];
    let gateway: std::net::IpAddr = network["gateway"].as_str().unwrap().parse().unwrap();
    let subnet = network["subnet"].as_str().unwrap().parse::<ipnet::IpNet>().unwrap();
    assert!(subnet.contains(&gateway) && texts(&gantry["networks"]).contains(&"edge"));
    let plain = config.listeners.iter().find(|one| one.tls == ListenerTls::Off).unwrap();
    assert!(plain.allow.iter().any(|network| network.contains(&gateway)));
    assert!(
        plain.allow.iter().all(|network| !network.contains(&subnet.broadcast())),
        "its neighbours"
    );
    assert!(web.url.unwrap().ends_with(&format!(":{}", web.address.port())));
}

#[test]
fn what_the_node_writes_and_reads_is_mounted_where_it_looks() {
    let containers = Containers::prepared();
    let (config, compose) = (containers.config(|text| text).0, compose());
    let (gantry, setup) = (&compose["services"]["gantry"], &compose["services"]["setup"]);
    let own = config.tls.unwrap();

    let data_dir = containers.inside(&config.node.data_dir);
    for path in [&config.node.data_dir, &own.identity.certificate, &own.identity.key] {
        let inside = containers.inside(path);
        assert_eq!(mount_of(gantry, &inside), "state", "{}", inside.display());
        assert_eq!(mount_of(setup, &inside), "state", "{}", inside.display());
    }
    assert!(data_dir.join("admin.sock").as_os_str().len() < 108);
    let image = read("deploy/container/Dockerfile");
    let looks = image.lines().find_map(|line| line.strip_prefix("ENV GANTRY_CONFIG=")).unwrap();
    for (inside, here) in [(looks, "./gantry.toml"), ("/etc/gantry/conf.d", "./conf.d")] {
        assert!(mounts(gantry).contains(&(inside, here)), "{inside}");
        assert!(shipped("deploy/compose").join(here).exists(), "{here}");
    }
    // Nothing else of the container can be written to.
    assert_eq!(gantry["read_only"], true);
    assert!(mounts(gantry).iter().all(|(to, from)| *from != "state" || *to == "/var/lib/gantry"));
    // Each secret that a service gets is a file that the first step makes.
    let step = read("deploy/compose/setup.sh");
    let secrets = compose["secrets"].as_object().unwrap();
    for (name, secret) in secrets {
        assert_eq!(secret["file"], format!("./secrets/{name}"));
        assert!(step.contains(&format!("\nsecret {name} ")), "{name} is not made");
    }
    assert_eq!(
        fs::read_to_string(shipped("deploy/compose/secrets/.gitignore")).unwrap(),
        "*\n!.gitignore\n"
    );
}

#[test]
fn images_and_services_are_of_one_user_one_version_and_patient_enough() {
    let compose = compose();
    let services = &compose["services"];
    let (image, s3) = (read("deploy/container/Dockerfile"), read("deploy/compose/s3/Dockerfile"));
    let step = read("deploy/compose/setup.sh");

    for text in [&image, &s3] {
        let users: Vec<_> = text.lines().filter_map(|line| line.strip_prefix("USER ")).collect();
        assert_eq!(users, [format!("{USER}:{USER}")]);
        assert!(text.contains(&format!("install -d -o {USER} -g {USER} -m 0700 /var/lib/")));
    }
    assert!(step.contains(&format!("${{RUN_AS:-{USER}}}")));
    let version = format!("gantry:{}", env!("CARGO_PKG_VERSION"));
    for name in ["gantry", "setup"] {
        assert_eq!(services[name]["image"], version, "{name}");
    }
    let garage = s3.lines().find_map(|line| line.strip_prefix("FROM dxflrs/garage:v")).unwrap();
    let garage = garage.split(' ').next().unwrap();
    assert_eq!(services["s3"]["image"], format!("gantry-s3:{garage}"));
    let cargo: toml::Table = read("Cargo.toml").parse().unwrap();
    let release = cargo["workspace"]["package"]["rust-version"].as_str().unwrap();
    assert!(image.contains(&format!("\nFROM rust:{release}-")), "{release}");
    // The program is linked to the C library of the Debian that it was built on.
    let debian = image.split(&format!("FROM rust:{release}-")).nth(1).unwrap();
    let debian = debian.split_whitespace().next().unwrap();
    assert!(image.contains(&format!("\nFROM debian:{debian}-slim\n")), "{debian}");
    // The image names the ports that its node has.
    let exposed: BTreeSet<u16> = image
        .lines()
        .filter_map(|line| line.strip_prefix("EXPOSE "))
        .flat_map(|ports| ports.split(' ').map(|port| port.parse().unwrap()))
        .collect();
    let inside = published(&services["gantry"]).into_iter().map(|(inside, ..)| inside).collect();
    assert_eq!(exposed, inside);
    // Whoever ends the node gives it time to finish.
    assert!(seconds(services["gantry"]["stop_grace_period"].as_str().unwrap()) > grace());
    // A node without its database receives; so nothing waits for a healthy one.
    for name in ["postgres", "s3"] {
        let condition = &services["gantry"]["depends_on"][name]["condition"];
        assert_eq!(condition, "service_started", "{name}");
    }
}

#[test]
fn every_member_of_the_workspace_reaches_the_build_and_no_secret_does() {
    let ignored = read(".dockerignore");
    let cargo: toml::Table = read("Cargo.toml").parse().unwrap();
    let mut lines = ignored.lines().filter(|line| !line.starts_with('#'));

    assert_eq!(lines.next(), Some("*"), "what is not named stays out");
    let named: Vec<_> = lines.filter_map(|line| line.strip_prefix('!')).collect();
    let members = cargo["workspace"]["members"].as_array().unwrap();
    let members = members.iter().map(|member| member.as_str().unwrap());
    for needed in members.chain(["Cargo.toml", "Cargo.lock"]) {
        let inside = |name: &&str| {
            needed.strip_prefix(*name).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
        };
        assert!(named.iter().any(inside), "{needed}");
    }
    // What the last stage copies from the source.
    for line in read("deploy/container/Dockerfile").lines() {
        let Some(copied) = line.strip_prefix("COPY ").filter(|copied| !copied.starts_with("--"))
        else {
            continue;
        };
        let files: Vec<_> =
            copied.split(' ').filter(|file| *file != "." && !file.starts_with('/')).collect();
        for file in files {
            assert!(named.contains(&file) && shipped(file).exists(), "{file}");
        }
    }
    assert!(!named.iter().any(|name| "deploy/compose".starts_with(name)), "secrets/ and conf.d/");
}

#[test]
fn the_example_of_a_partner_is_right_once_its_certificate_is_there() {
    let containers = Containers::prepared();
    let region = Authority::new("region").unwrap();
    let issued = region.issue("RI_GATEWAY", &["gateway.ri.example"]).unwrap();
    let parts = containers.path("/etc/gantry/conf.d");
    fs::write(parts.join("region-ca.crt"), region.certificate_pem()).unwrap();
    fs::write(parts.join("royal-infirmary.crt"), issued.certificate_pem).unwrap();
    let example = read("deploy/compose/conf.d/royal-infirmary.toml.example");
    fs::write(parts.join("royal-infirmary.toml"), example).unwrap();

    let (config, warnings) = containers.config(|text| {
        let own = "authorities = [\"/var/lib/gantry/tls/ca.crt\"";
        assert!(text.contains(own));
        text.replace(own, &format!("{own}, \"conf.d/region-ca.crt\""))
    });

    assert_eq!(warnings, [""; 0]);
    assert_eq!((config.partners.len(), config.routes.len()), (1, 1));
}

#[test]
fn the_first_step_makes_what_the_node_takes_and_keeps_what_is_there() {
    let test = "the_first_step_makes_what_the_node_takes_and_keeps_what_is_there";
    if !rustix::process::getuid().is_root() {
        return skip(test, "only root can give files to another user");
    }
    let containers = Containers::new();
    let (secrets, state) = (containers.path("/run/secrets"), containers.path("/var/lib/gantry"));
    // As the volume of the image belongs to its user.
    chown(&state, Some(USER), Some(USER)).unwrap();
    fs::set_permissions(containers.0.path(), fs::Permissions::from_mode(0o755)).unwrap();
    // Where that user can reach it.
    let bin = containers.path("/bin");
    fs::create_dir(&bin).unwrap();
    fs::copy(program(), bin.join("gantry")).unwrap();
    let path = format!("{}:{}", bin.display(), std::env::var("PATH").unwrap());
    let step = |arguments: &[&str]| {
        let mut command = Command::new("/bin/sh");
        command.arg(shipped("deploy/compose/setup.sh")).args(arguments).env("PATH", &path);
        let done = said(command.env("SECRETS", &secrets).env("STATE", &state));
        String::from_utf8(done.stdout).unwrap()
    };
    let made = || {
        let mut files = vec![state.join("data/keys/current"), state.join("tls/node.key")];
        files.extend(fs::read_dir(&secrets).unwrap().map(|entry| entry.unwrap().path()));
        files.sort();
        files.into_iter().map(|path| (fs::read(&path).unwrap(), path)).collect::<Vec<_>>()
    };

    let told = step(&["--organisation", "RXX", "--name", "gateway.rxx.example"]);

    assert!(told.contains("gateway.rxx.example") && told.contains("fingerprint"), "{told}");
    let first = made();
    assert_eq!(first.len(), 5);
    for (text, path) in &first {
        let file = fs::metadata(path).unwrap();
        let (owner, mode) = ((file.uid(), file.gid()), file.mode() & 0o777);
        assert_eq!((owner, mode), ((USER, USER), 0o600), "{}", path.display());
        assert!(!told.contains(String::from_utf8_lossy(text).trim()), "a secret is shown");
    }
    assert!(!state.join("gantry.toml").exists(), "there would be two configurations");
    let (config, warnings) = containers.config(|text| text);
    assert_eq!(warnings, [""; 0]);
    let Database::Postgres(database) = config.database else { panic!("no server") };
    assert_eq!(database.password.unwrap().len(), 64);
    let ObjectStore::S3(settings) = config.object_store else { panic!("no bucket") };
    let Settings { credentials: Credentials::Key { id, secret, .. }, .. } = *settings else {
        panic!("no key")
    };
    // The form that Garage asks for.
    assert!(id.starts_with("GK") && id.len() == 26 && secret.len() == 64, "{id}");

    let told = step(&["--organisation", "OTHER"]);

    assert_eq!(made(), first);
    assert_eq!(told.lines().filter(|line| line.starts_with("kept ")).count(), 4, "{told}");
}

#[test]
fn the_unit_of_systemd_is_one_that_it_understands() {
    let test = "the_unit_of_systemd_is_one_that_it_understands";
    let unit = read("deploy/systemd/gantry.service");
    let value = |key: &str| {
        let line = unit.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix('='));
        line.unwrap_or_else(|| panic!("no {key}"))
    };
    assert!(Duration::from_secs(seconds(value("TimeoutStopSec"))) > Duration::from_secs(grace()));
    // The configuration that is shipped as the example keeps its data where the unit lets it write.
    let example: toml::Table = read("deploy/gantry.toml").parse().unwrap();
    let data_dir = example["node"]["data-dir"].as_str().unwrap();
    assert_eq!(data_dir, format!("/var/lib/{}", value("StateDirectory")));

    if Command::new("systemd-analyze").arg("--version").output().is_err() {
        return skip(test, "systemd-analyze is not installed");
    }
    let installed = "/usr/local/bin/gantry";
    assert_eq!(value("ExecStart"), format!("{installed} serve --config /etc/gantry/gantry.toml"));
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("gantry.service");
    fs::write(&path, unit.replace(installed, program().to_str().unwrap())).unwrap();

    let verified = said(Command::new("systemd-analyze").args(["verify", "--man=no"]).arg(&path));

    // An unknown key is a line there, and no failure.
    assert_eq!(String::from_utf8_lossy(&verified.stderr), "");
}
