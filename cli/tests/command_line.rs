//! The built program, as scripts see it: exit codes, what goes to which stream, and help.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a test that cannot have what it asks for fails there"
)]

use std::path::Path;
use std::process::{Command, Output, Stdio};

use serde_json::Value;

fn gantry(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_gantry"));
    command.args(arguments).env_remove("GANTRY_CONFIG").env_remove("RUST_LOG").stdin(Stdio::null());
    command
}

fn run(arguments: &[&str]) -> Output {
    gantry(arguments).output().unwrap()
}

fn stdout(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).unwrap()
}

fn stderr(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).unwrap()
}

/// A node's files, and the path of its configuration.
fn initialised(folder: &Path) -> String {
    let made =
        run(&["init", folder.to_str().unwrap(), "--non-interactive", "--organisation", "RXX"]);
    assert_eq!(made.status.code(), Some(0), "{}", stderr(&made));
    folder.join("gantry.toml").to_str().unwrap().to_owned()
}

/// The commands in a help text, one a line below "Commands:".
fn commands(help: &str) -> Vec<String> {
    help.lines()
        .skip_while(|line| !line.starts_with("Commands:"))
        .skip(1)
        .take_while(|line| line.starts_with("  "))
        .filter(|line| !line.starts_with("   "))
        .filter_map(|line| line.split_whitespace().next())
        .filter(|name| *name != "help")
        .map(str::to_owned)
        .collect()
}

#[test]
fn the_help_of_every_command_begins_with_an_example() {
    let mut to_visit: Vec<Vec<String>> = vec![Vec::new()];
    let mut visited = 0;
    while let Some(path) = to_visit.pop() {
        let mut arguments: Vec<_> = path.iter().map(String::as_str).collect();
        arguments.push("--help");

        let help = run(&arguments);

        let text = stdout(&help);
        assert_eq!(help.status.code(), Some(0), "{path:?}");
        let example =
            text.find("\n  gantry ").unwrap_or_else(|| panic!("no example for {path:?}:\n{text}"));
        assert!(
            Some(example) < text.find("Usage:"),
            "the example of {path:?} is not first:\n{text}"
        );
        to_visit
            .extend(commands(&text).into_iter().map(|name| [path.clone(), vec![name]].concat()));
        visited += 1;
    }
    assert!(visited > 25, "{visited} commands were found");
}

#[test]
fn a_command_that_is_misspelt_is_a_usage_error_with_a_suggestion() {
    let misspelt = run(&["trasnfer", "list"]);

    assert_eq!(misspelt.status.code(), Some(2));
    assert!(stderr(&misspelt).contains("transfer"), "{}", stderr(&misspelt));
    assert_eq!(stdout(&misspelt), "");
}

#[test]
fn what_init_makes_check_finds_right() {
    let folder = tempfile::tempdir().unwrap();
    let config = initialised(folder.path());

    let checked = run(&["check", "--config", &config, "--json"]);

    assert_eq!(checked.status.code(), Some(0), "{}", stderr(&checked));
    let report: Value = serde_json::from_slice(&checked.stdout).unwrap();
    assert_eq!(
        (&report["ok"], &report["findings"]),
        (&Value::Bool(true), &Value::Array(Vec::new())),
        "{report}"
    );
    assert_eq!(report["node"]["organisation"], "RXX");
    let people = run(&["check", "--config", &config]);
    assert!(stdout(&people).contains("is right"), "{}", stdout(&people));
    assert!(!stdout(&people).contains('\x1b'), "colours in a pipe");
}

#[test]
fn init_overwrites_nothing() {
    let folder = tempfile::tempdir().unwrap();
    initialised(folder.path());

    let again = run(&["init", folder.path().to_str().unwrap(), "--non-interactive"]);

    assert_eq!(again.status.code(), Some(2));
    assert!(
        stderr(&again).lines().any(|line| line.starts_with("hint: nothing was changed")),
        "{}",
        stderr(&again)
    );
}

#[test]
fn all_problems_of_a_configuration_are_shown_at_once_with_their_lines() {
    let folder = tempfile::tempdir().unwrap();
    let config = initialised(folder.path());
    let text = std::fs::read_to_string(&config).unwrap();
    let broken = text
        .replace("\"GANTRY\"", "\"A_NAME_THAT_IS_TOO_LONG\"")
        .replace("0.0.0.0:2762", "nowhere");
    std::fs::write(&config, broken).unwrap();

    for command in ["check", "serve", "status"] {
        let refused = run(&[command, "--config", &config]);

        assert_eq!(refused.status.code(), Some(2), "{command}");
        let said = stdout(&refused) + &stderr(&refused);
        assert!(
            said.contains("A_NAME_THAT_IS_TOO_LONG") && said.contains("nowhere"),
            "{command}: {said}"
        );
        assert!(said.contains("2 problems"), "{command}: {said}");
    }
    let json = run(&["check", "--config", &config, "--json"]);
    let report: Value = serde_json::from_slice(&json.stdout).unwrap();
    assert_eq!((report["findings"].as_array().unwrap().len(), json.status.code()), (2, Some(2)));
}

#[test]
fn a_configuration_that_is_not_there_is_a_usage_error_with_the_next_step() {
    let folder = tempfile::tempdir().unwrap();

    let nothing = gantry(&["check"]).current_dir(folder.path()).output().unwrap();

    assert_eq!(nothing.status.code(), Some(2));
    assert!(stderr(&nothing).contains("hint: make one with `gantry init`"), "{}", stderr(&nothing));
}

#[test]
fn a_node_that_does_not_run_is_unreachable() {
    let folder = tempfile::tempdir().unwrap();
    let config = initialised(folder.path());

    for command in [
        &["status"][..],
        &["status", "--alive"],
        &["transfer", "list"],
        &["study", "list"],
        &["web", "link"],
    ] {
        let asked = run(&[command, &["--config", &config]].concat());

        assert_eq!(asked.status.code(), Some(9), "{command:?}: {}", stderr(&asked));
        assert_eq!(stdout(&asked), "", "{command:?}");
        assert!(
            stderr(&asked).contains("hint: start it with `gantry serve`"),
            "{command:?}: {}",
            stderr(&asked)
        );
    }
}

#[test]
fn keys_and_routes_are_shown_without_a_node() {
    let folder = tempfile::tempdir().unwrap();
    let config = initialised(folder.path());

    let keys = run(&["keys", "status", "--json", "--config", &config]);
    let routes = run(&["route", "list", "--json", "--config", &config]);

    let keys: Value = serde_json::from_slice(&keys.stdout).unwrap();
    assert_eq!(keys["keys"][0]["id"], keys["current"]);
    assert_eq!(serde_json::from_slice::<Value>(&routes.stdout).unwrap(), Value::Array(Vec::new()));
}

#[test]
fn a_closed_pipe_is_success() {
    let mut child = gantry(&["completions", "bash"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    drop(child.stdout.take());

    let ended = child.wait_with_output().unwrap();

    assert_eq!((ended.status.code(), stderr(&ended).as_str()), (Some(0), ""));
}

#[test]
fn a_closed_pipe_does_not_make_a_wrong_configuration_right() {
    let folder = tempfile::tempdir().unwrap();
    let config = initialised(folder.path());
    std::fs::remove_file(folder.path().join("data/keys/current")).unwrap();
    let mut child = gantry(&["check", "--config", &config])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    drop(child.stdout.take());

    let ended = child.wait_with_output().unwrap();

    assert_eq!(ended.status.code(), Some(2), "{}", stderr(&ended));
    assert!(stderr(&ended).contains("would not start"), "{}", stderr(&ended));
}

#[test]
fn the_demonstration_delivers_every_image_unchanged_and_leaves_nothing_behind() {
    let temporary = tempfile::tempdir().unwrap();

    let demo = gantry(&["demo", "--once", "--json", "--thin-slices", "4"])
        .env("TMPDIR", temporary.path())
        .output()
        .unwrap();

    assert_eq!(demo.status.code(), Some(0), "{}", stderr(&demo));
    assert_eq!(stdout(&demo).lines().count(), 1, "{}", stdout(&demo));
    assert_eq!(stderr(&demo), "");
    let report: Value = serde_json::from_slice(&demo.stdout).unwrap();
    assert_eq!(report["ok"], true, "{report}");
    assert_eq!(
        (&report["instances"], &report["digests_verified"]),
        (&Value::from(35), &Value::from(35))
    );
    assert!(report["timings_ms"]["last_delivered"].is_u64(), "{report}");
    assert_eq!(std::fs::read_dir(temporary.path()).unwrap().count(), 0);
}
