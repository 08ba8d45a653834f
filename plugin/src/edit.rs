//! `kubectl matriarch show-config` and `edit-config`: the dynamic configuration, by compare-and-swap.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::{Value, json};

use crate::access::Session;
use crate::ask::confirm;
use crate::completion;
use crate::config::{self, Edit};
use crate::error::Error;
use crate::output::{Data, say};
use crate::store::{Shared, Store};
use crate::style::{Style, Tone};

/// Of which cluster.
#[derive(clap::Args)]
pub struct ShowArgs {
    /// The cluster; may be left out where there is only one.
    #[arg(add = completion::clusters())]
    cluster: Option<String>,
    /// How it is printed.
    #[arg(short, long, value_enum, default_value_t = Data::Yaml)]
    output: Data,
}

/// What to change. Without --set, --pg, --apply and --replace, $EDITOR is opened.
#[derive(clap::Args)]
pub struct Args {
    /// The cluster.
    #[arg(add = completion::clusters())]
    cluster: String,
    /// A setting, with dots for sections, e.g. ttl=30 or standby_cluster.host=db; null removes one.
    #[arg(short, long = "set", value_name = "KEY=VALUE")]
    set: Vec<String>,
    /// A parameter of PostgreSQL, e.g. work_mem=8MB; null removes one.
    #[arg(short, long = "pg", value_name = "NAME=VALUE")]
    pg: Vec<String>,
    /// Merge this YAML file; - is standard input.
    #[arg(long, value_name = "FILE")]
    apply: Option<PathBuf>,
    /// Put this YAML file in the place of the whole configuration; - is standard input.
    #[arg(long, value_name = "FILE", conflicts_with = "apply")]
    replace: Option<PathBuf>,
    /// Only show the difference.
    #[arg(long)]
    dry_run: bool,
    /// Does not ask.
    #[arg(short, long, visible_alias = "force")]
    yes: bool,
}

/// The configuration as it was read.
pub struct Read {
    /// What it says.
    pub config: Value,
    /// The object that carries it.
    shared: Shared,
}

/// Reads it; one that is to be replaced need not be readable.
pub async fn read(store: &Store, replace: bool) -> Result<Read, Error> {
    let name = store.names.config();
    let shared = store.shared(&name).await?.unwrap_or_default();
    let text = shared.annotations.get("config").filter(|text| !text.is_empty());
    let Some(text) = text else {
        return Err(Error::NotFound(format!(
            "{} has no dynamic configuration yet: it is written when the cluster is made",
            store.names.scope()
        )));
    };
    let config = serde_json::from_str(text).map_err(|error| {
        Error::Refused(format!(
            "the configuration of {name} is no JSON ({error}): `edit-config --replace` writes it anew"
        ))
    });
    let config = if replace { config.unwrap_or(Value::Null) } else { config? };
    Ok(Read { config, shared })
}

/// Writes it, if nobody else did meanwhile.
pub async fn write(store: &Store, read: &Read, config: &Value) -> Result<(), Error> {
    let annotations = json!({"config": config.to_string()});
    store.annotate(&store.names.config(), Some(&read.shared), &annotations).await
}

/// Shows it.
pub async fn show(session: &Session, args: &ShowArgs) -> Result<(), Error> {
    let store = Store::open(session, args.cluster.as_deref()).await?;
    say(&args.output.print(&read(&store, false).await?.config)?)
}

/// Changes it: shows the difference, asks, writes.
pub async fn run(session: &Session, args: &Args) -> Result<(), Error> {
    let store = Store::open(session, Some(&args.cluster)).await?;
    let read = read(&store, args.replace.is_some()).await?;
    let before = &read.config;
    let edits = args.set.iter().map(|s| Edit::set(s)).chain(args.pg.iter().map(|s| Edit::parameter(s)));
    let edits = edits.collect::<Result<Vec<_>, _>>().map_err(Error::Refused)?;
    let mut after = match (&args.replace, &args.apply) {
        (Some(path), _) => config::parse(&file(path)?).map_err(Error::Refused)?,
        (None, Some(path)) => {
            let mut merged = before.clone();
            config::merge(&mut merged, &config::parse(&file(path)?).map_err(Error::Refused)?);
            merged
        }
        (None, None) if edits.is_empty() => by_editor(session, before)?,
        (None, None) => before.clone(),
    };
    for edit in edits {
        edit.apply(&mut after);
    }
    if after == *before {
        return say("not changed");
    }
    config::check(&after).map_err(Error::Refused)?;
    let style = Style::of_stdout();
    say(&difference(before, &after, style)?)?;
    for warning in config::warnings(before, &after, &store.resource.spec) {
        eprintln!("{}", style.paint(Tone::Warn, &format!("Note: {warning}")));
    }
    if args.dry_run {
        return Ok(());
    }
    confirm(session, args.yes, "Apply these changes?")?;
    write(&store, &read, &after).await?;
    say("configuration changed")
}

fn file(path: &Path) -> Result<String, Error> {
    let read =
        if path.as_os_str() == "-" { std::io::read_to_string(std::io::stdin()) } else { std::fs::read_to_string(path) };
    read.map_err(|error| Error::Refused(format!("cannot read {}: {error}", path.display())))
}

/// In $EDITOR, as kubectl does it; the file is kept if what came back cannot be used.
fn by_editor(session: &Session, before: &Value) -> Result<Value, Error> {
    if !session.keyboard {
        return Err(Error::NotConfirmed(
            "there is no terminal for an editor: give --set, --pg, --apply or --replace".to_owned(),
        ));
    }
    let editor = ["MATRIARCH_EDITOR", "KUBE_EDITOR", "VISUAL", "EDITOR"]
        .iter()
        .find_map(|name| std::env::var(name).ok().filter(|editor| !editor.trim().is_empty()))
        .unwrap_or_else(|| "vi".to_owned());
    let words = shlex::split(&editor).filter(|words| !words.is_empty());
    let words = words.ok_or_else(|| Error::Refused(format!("cannot understand the editor {editor:?}")))?;
    let mut temporary =
        tempfile::Builder::new().prefix("matriarch-").suffix(".yaml").tempfile().map_err(Error::output)?;
    writeln!(temporary, "{}", Data::Yaml.print(before)?).map_err(Error::output)?;
    let status = Command::new(&words[0]).args(&words[1..]).arg(temporary.path()).status();
    match status {
        Ok(status) if status.success() => {}
        Ok(status) => return Err(Error::NotConfirmed(format!("not changed: the editor ended with {status}"))),
        Err(error) => return Err(Error::Refused(format!("cannot start the editor {editor:?}: {error}; set EDITOR"))),
    }
    let text = std::fs::read_to_string(temporary.path()).map_err(Error::output)?;
    config::parse(&text).map_err(|why| match temporary.keep() {
        Ok((_, path)) => Error::Refused(format!("{why}; what you wrote is in {}", path.display())),
        Err(_) => Error::Refused(why),
    })
}

/// As `diff -u` shows it.
fn difference(before: &Value, after: &Value, style: Style) -> Result<String, Error> {
    let (before, after) = (Data::Yaml.print(before)? + "\n", Data::Yaml.print(after)? + "\n");
    let diff = similar::TextDiff::from_lines(&before, &after);
    let text = diff.unified_diff().context_radius(2).header("now", "then").to_string();
    let painted = text.trim_end().lines().map(|line| match line.as_bytes().first() {
        Some(b'+') => style.paint(Tone::Good, line),
        Some(b'-') => style.paint(Tone::Bad, line),
        _ => line.to_owned(),
    });
    Ok(painted.collect::<Vec<_>>().join("\n"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_difference_names_what_changes() {
        let text =
            difference(&json!({"loop_wait": 2, "ttl": 10}), &json!({"loop_wait": 2, "ttl": 30}), Style::default())
                .unwrap();
        assert!(text.contains("-ttl: 10\n+ttl: 30") && text.starts_with("--- now\n+++ then"), "{text}");
    }
}
