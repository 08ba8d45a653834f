//! Every screen, made from recorded objects, is what is committed in `tests/golden`, and docs/plugin.md shows just that.
//! `MATRIARCH_GENERATE=1 cargo test -p kubectl-matriarch` makes both anew.

use std::path::{Path, PathBuf};

use clap::CommandFactory;
use jiff::Timestamp;
use serde_json::{Value, json};

use crate::error::CODES;
use crate::list::{print, topology};
use crate::output::{Data, Format};
use crate::style::Style;
use crate::view::{Cluster, Objects};
use crate::{Cli, findings, history, live, rights, status, version};

/// A while after the recording.
const NOW: &str = "2026-11-23T08:00:03Z";

fn here(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}

fn generate() -> bool {
    std::env::var_os("MATRIARCH_GENERATE").is_some()
}

fn committed(path: &Path, wanted: &str) {
    if generate() {
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, wanted).unwrap();
    }
    let is = std::fs::read_to_string(path).unwrap_or_default();
    let name = path.display();
    assert!(
        is == wanted,
        "{name} is stale: run `MATRIARCH_GENERATE=1 cargo test -p kubectl-matriarch`, and look at:\n{wanted}"
    );
}

fn recorded(name: &str) -> Cluster {
    let read = |path: &str| std::fs::read_to_string(here(path)).unwrap();
    let objects: Objects = serde_json::from_str(&read(&format!("tests/objects/{name}.json"))).unwrap();
    let mut cluster = Cluster::of(&objects);
    if let Ok(text) = std::fs::read_to_string(here(&format!("tests/objects/{name}-cluster.json"))) {
        live::apply(&mut cluster, &serde_json::from_str(&text).unwrap());
    }
    cluster
}

fn status_of(cluster: &Cluster, style: Style) -> String {
    let now: Timestamp = NOW.parse().unwrap();
    status::screen(cluster, &findings::of(cluster, now), now, style)
}

/// Name, the line that shows it, and the screen.
fn screens() -> Vec<(&'static str, &'static str, String)> {
    let (calm, trouble) = (recorded("calm"), recorded("trouble"));
    let now: Timestamp = NOW.parse().unwrap();
    let both = [calm.clone(), trouble.clone()];
    let one = std::slice::from_ref(&calm);
    let versions = json!({"client": "0.1.0", "kubernetes": "v1.34.2", "members": [
        {"name": "orders-0", "agent": "matriarch-sidecar:0.1.0", "postgresql": "17.4"}]});
    vec![
        ("list", "list -A", print(&both, Format::Pretty).unwrap()),
        ("list-wide", "list orders -o wide", print(one, Format::Wide).unwrap()),
        ("list-json", "list orders -o json", print(one, Format::Json).unwrap()),
        ("list-yaml", "list orders -o yaml", print(one, Format::Yaml).unwrap()),
        ("list-tsv", "list orders -o tsv", print(one, Format::Tsv).unwrap()),
        ("list-name", "list -A -o name", print(&both, Format::Name).unwrap()),
        ("status", "status orders", status_of(&calm, Style::default())),
        ("status-trouble", "status lines", status_of(&trouble, Style::default())),
        ("status-colour", "status lines (on a terminal)", status_of(&trouble, Style { on: true })),
        (
            "status-json",
            "status lines -o json",
            Data::Json.print(&status::document(&trouble, &findings::of(&trouble, now))).unwrap(),
        ),
        ("topology", "topology orders", topology(&calm)),
        ("history", "history orders", history::screen(&calm)),
        ("history-none", "history lines", history::screen(&Cluster { history: Vec::new(), ..trouble })),
        ("show-config", "show-config orders", Data::Yaml.print(&calm.config).unwrap()),
        ("version", "version orders", version::screen(&versions)),
    ]
}

#[test]
fn the_screens_are_as_committed() {
    for (name, _, screen) in screens() {
        committed(&here(&format!("tests/golden/{name}.txt")), &format!("{screen}\n"));
    }
}

#[test]
fn the_rights_are_as_committed() {
    committed(&here("../rbac/plugin.yaml"), &rights::yaml());
}

/// Between `<!-- NAME -->` and `<!-- end -->`.
#[test]
fn the_manual_shows_what_the_commands_show() {
    let path = here("../docs/plugin.md");
    let text = std::fs::read_to_string(&path).unwrap();
    let codes = CODES.iter().map(|(code, what)| format!("| {code} | {what} |")).collect::<Vec<_>>().join("\n");
    let mut blocks = vec![
        ("rights".to_owned(), rights::table()),
        ("codes".to_owned(), format!("| code | meaning |\n|---|---|\n{codes}")),
    ];
    for (name, line, screen) in screens() {
        blocks.push((name.to_owned(), format!("```\n$ kubectl matriarch {line}\n{screen}\n```")));
    }
    for command in Cli::command().get_subcommands().filter(|c| !c.is_hide_set()) {
        let mut command = command.clone().bin_name(format!("kubectl matriarch {}", command.get_name())).term_width(110);
        let usage = command.render_help().to_string();
        blocks.push((format!("help {}", command.get_name()), format!("```\n{}\n```", usage.trim_end())));
    }
    let mut rest = text.as_str();
    let mut wanted = String::new();
    while let Some(at) = rest.find("<!-- ") {
        let name = rest[at + 5..].split(" -->").next().unwrap();
        let (_, block) = blocks.iter().find(|(n, _)| n == name).unwrap_or_else(|| panic!("no screen is called {name}"));
        let end = rest[at..].find("<!-- end -->").expect("no <!-- end -->") + at;
        wanted.push_str(&format!("{}<!-- {name} -->\n{block}\n", &rest[..at]));
        wanted.push_str("<!-- end -->");
        rest = &rest[end + "<!-- end -->".len()..];
    }
    wanted.push_str(rest);
    committed(&path, &wanted);
    for command in Cli::command().get_subcommands().filter(|c| !c.is_hide_set()) {
        let name = command.get_name();
        assert!(text.contains(&format!("<!-- help {name} -->")), "docs/plugin.md says nothing of {name}");
        let listed = rights::ALL.iter().any(|n| n.commands.split([',', ' ']).any(|word| word == name));
        assert!(listed || name == "completion", "rights.rs says nothing of {name}");
    }
}

#[test]
fn the_command_line_is_sound() {
    Cli::command().debug_assert();
    let parse = |line: &str| Cli::command().try_get_matches_from(line.split(' ')).map(drop).map_err(|e| e.exit_code());
    for fine in [
        "x list -A -o wide",
        "x list -l team=shop",
        "x status",
        "x -n shop status orders --exit-code",
        "x switchover orders --at 2030-01-01T00:00:00Z --yes",
        "x switchover orders --scheduled 2030-01-01T00:00:00Z --force",
        "x failover orders --candidate orders-1",
        "x restart orders orders-1 --role replica --pending",
        "x edit-config orders -s ttl=30 -p work_mem=8MB --dry-run",
        "x psql orders --replica -- -c select",
        "x logs orders orders-1 -f --tail 5",
        "x flush restart orders",
        "x flush switchover orders -y",
        "x completion kubectl",
        "x version --client -o json",
    ] {
        assert_eq!(parse(fine), Ok(()), "{fine}");
    }
    for wrong in [
        "x",
        "x lst",
        "x switchover",
        "x failover orders",
        "x switchover orders --cancel --candidate orders-1",
        "x reinit orders",
        "x list -o xml",
        "x edit-config orders --apply a --replace b",
        "x watch orders --interval 0",
        "x logs orders orders-1 --all",
    ] {
        assert!(matches!(parse(wrong), Err(2)), "{wrong}");
    }
}

#[test]
fn recorded_objects_hold_no_secret() {
    for name in ["calm", "trouble"] {
        let text = std::fs::read_to_string(here(&format!("tests/objects/{name}.json"))).unwrap();
        let objects: Value = serde_json::from_str(&text).unwrap();
        assert!(objects["pods"].is_array() && !text.contains("password"), "{name}");
    }
}
