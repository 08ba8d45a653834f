//! `kubectl matriarch logs`: what agents and PostgreSQL of one member or of all write, in one stream.

use clap::ValueEnum;
use futures::io::AsyncBufReadExt;
use futures::stream::{self, StreamExt};
use k8s_openapi::api::core::v1::Pod;
use kube::Api;
use kube::api::LogParams;
use matriarch_crds::names::{AGENT_CONTAINER, POSTGRES_CONTAINER};

use crate::access::Session;
use crate::completion;
use crate::error::Error;
use crate::members;
use crate::output::say;
use crate::store::Store;

/// Whose.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Container {
    /// Why things are done.
    Agent,
    /// PostgreSQL and its supervisor.
    Postgres,
    /// Both.
    All,
}

/// Of whom, and how much.
#[derive(clap::Args)]
pub struct Args {
    /// The cluster; may be left out where there is only one.
    #[arg(add = completion::clusters())]
    cluster: Option<String>,
    /// The member; otherwise the leader.
    #[arg(add = completion::members(), conflicts_with = "all")]
    member: Option<String>,
    /// All members.
    #[arg(long)]
    all: bool,
    /// Which container.
    #[arg(short, long, value_enum, default_value_t = Container::All)]
    container: Container,
    /// Go on as they write.
    #[arg(short, long)]
    follow: bool,
    /// Only so many lines of each.
    #[arg(long)]
    tail: Option<i64>,
    /// Only of the last so many seconds.
    #[arg(long, value_name = "SECONDS")]
    since: Option<i64>,
    /// Of the containers before their last restart.
    #[arg(long, conflicts_with = "follow")]
    previous: bool,
}

/// Shows them; with more than one source each line says whose it is.
pub async fn run(session: &Session, args: &Args) -> Result<(), Error> {
    let store = Store::open(session, args.cluster.as_deref()).await?;
    let cluster = store.stored().await?;
    let names: Vec<String> = match &args.member {
        Some(name) => vec![members::one(&cluster, name)?.name.clone()],
        None if args.all => cluster.members.iter().map(|m| m.name.clone()).collect(),
        None => vec![members::leader(&cluster)?.name.clone()],
    };
    let containers: &[&str] = match args.container {
        Container::Agent => &[AGENT_CONTAINER],
        Container::Postgres => &[POSTGRES_CONTAINER],
        Container::All => &[AGENT_CONTAINER, POSTGRES_CONTAINER],
    };
    let sources: Vec<(String, &str)> =
        names.iter().flat_map(|name| containers.iter().map(|c| (name.clone(), *c))).collect();
    let many = sources.len() > 1;
    let pods: Api<Pod> = Api::namespaced(store.session.patient.clone(), &store.session.namespace);
    let mut streams = Vec::new();
    for (name, container) in &sources {
        let params = LogParams {
            container: Some((*container).to_owned()),
            follow: args.follow,
            tail_lines: args.tail,
            since_seconds: args.since,
            previous: args.previous,
            ..LogParams::default()
        };
        let failed = Error::call("get", "pods/log", format!("the log of {name} {container}"));
        match pods.log_stream(name, &params).await.map_err(failed) {
            Ok(stream) => {
                let head = if many { format!("{name} {container}: ") } else { String::new() };
                streams.push(stream.lines().map(move |line| (head.clone(), line)));
            }
            // A container that has not started is no reason to hide the others.
            Err(error) if many && !error.forbidden() => eprintln!("{error}"),
            Err(error) => return Err(error),
        }
    }
    let mut lines = stream::select_all(streams);
    loop {
        let next = tokio::select! {
            next = lines.next() => next,
            _ = tokio::signal::ctrl_c() => return Ok(()),
        };
        match next {
            Some((head, Ok(line))) => say(&format!("{head}{line}"))?,
            Some((head, Err(error))) => eprintln!("{head}the stream broke: {error}"),
            None => return Ok(()),
        }
    }
}
