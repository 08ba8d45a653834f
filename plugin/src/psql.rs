//! `kubectl matriarch psql`: psql in a member's own container, over its unix socket, by `kubectl exec`.
//!
//! The password comes from the cluster's Secret with the user's own right. It goes into the container on standard input, never on a
//! command line (which audit logs keep), into a file that psql's shell removes before psql starts.

use std::io::IsTerminal;
use std::process::{Command, Stdio};
use std::time::Duration;

use clap::ValueEnum;
use k8s_openapi::api::core::v1::Secret;
use matriarch_crds::names::{POSTGRES_CONTAINER, POSTGRES_SOCKET_DIR};

use crate::access::Session;
use crate::completion;
use crate::ctl;
use crate::error::Error;
use crate::members;
use crate::store::Store;
use crate::view::Cluster;

/// For one short command.
const PATIENCE: Duration = Duration::from_secs(20);
/// Keeps standard input where nobody but postgres can read it, and says where.
const KEEP: &str = "umask 077; f=$(mktemp /tmp/.matriarch-psql-XXXXXX) && IFS= read -r p && printf %s \"$p\" > \"$f\" && printf %s \"$f\"";
/// `sh -c USE sh FILE …`: psql from where the images have it.
const USE: &str = "PGPASSWORD=$(cat \"$1\"); rm -f \"$1\"; shift; export PGPASSWORD; \
                   command -v psql >/dev/null || PATH=$PATH:$(echo /usr/lib/postgresql/*/bin | tr ' ' :); exec psql \"$@\"";

/// As whom.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum User {
    /// postgres.
    Superuser,
    /// The application's.
    App,
}

/// Where, as whom, and psql's own arguments.
#[derive(clap::Args)]
pub struct Args {
    /// The cluster; may be left out where there is only one.
    #[arg(add = completion::clusters())]
    cluster: Option<String>,
    /// On a standby, which only reads.
    #[arg(long, conflicts_with = "member")]
    replica: bool,
    /// On this member; otherwise on the leader.
    #[arg(long, add = completion::members())]
    member: Option<String>,
    /// As whom.
    #[arg(short = 'U', long, value_enum, default_value_t = User::Superuser)]
    user: User,
    /// The database. Default: postgres, or the application's.
    #[arg(short, long)]
    dbname: Option<String>,
    /// psql's own, after --, e.g. -- -c 'SELECT 1'.
    #[arg(last = true)]
    psql: Vec<String>,
}

/// Starts psql; its exit code is ours.
pub async fn run(session: &Session, args: &Args) -> Result<(), Error> {
    let store = Store::open(session, args.cluster.as_deref()).await?;
    let cluster = store.stored().await?;
    let member = place(&cluster, args)?;
    let kubectl = std::env::var("KUBECTL").unwrap_or_else(|_| "kubectl".to_owned());
    let there =
        Command::new(&kubectl).args(["version", "--client"]).stdout(Stdio::null()).stderr(Stdio::null()).status();
    if let Err(error) = there {
        return Err(Error::Refused(format!(
            "psql needs kubectl for the terminal, and {kubectl} cannot be started: {error}; set KUBECTL"
        )));
    }
    let (user, password) = credentials(&store, args.user).await?;
    let kept =
        ctl::run(&store, &member, POSTGRES_CONTAINER, &["sh", "-c", KEEP], &format!("{password}\n"), PATIENCE).await?;
    let file = kept.stdout.trim();
    if !kept.success || !file.starts_with("/tmp/") {
        return Err(Error::Agent(format!("cannot prepare psql in {member}: {}", kept.stderr.trim())));
    }
    let dbname = args.dbname.clone().unwrap_or_else(|| match args.user {
        User::Superuser => "postgres".to_owned(),
        User::App => store.resource.spec.application.database.clone(),
    });
    let terminal = std::io::stdin().is_terminal() && std::io::stdout().is_terminal();
    let status = Command::new(&kubectl)
        .args(session.kubectl())
        .args(["exec", if terminal { "-it" } else { "-i" }, &member, "-c", POSTGRES_CONTAINER])
        .args(["--", "sh", "-c", USE, "sh", file, "-h", POSTGRES_SOCKET_DIR, "-U", &user, "-d", &dbname])
        .args(&args.psql)
        .status();
    match status.map(|s| s.code()) {
        Ok(Some(0)) => Ok(()),
        Ok(code) => {
            // Nothing is left behind when psql did not start; an error says that it is gone already, or the pod is.
            let _ = ctl::run(&store, &member, POSTGRES_CONTAINER, &["rm", "-f", file], "", PATIENCE).await;
            Err(Error::Code(code.and_then(|c| u8::try_from(c).ok()).unwrap_or(1)))
        }
        Err(error) => Err(Error::Refused(format!("cannot start {kubectl}: {error}"))),
    }
}

/// The member to log in to.
fn place(cluster: &Cluster, args: &Args) -> Result<String, Error> {
    let leads = |name: &str| cluster.leader.as_deref() == Some(name);
    let member = match &args.member {
        Some(name) => members::one(cluster, name)?,
        None if args.replica => {
            let fit =
                cluster.members.iter().filter(|m| m.ready && !leads(&m.name)).min_by_key(|m| m.lag.unwrap_or(i64::MAX));
            fit.ok_or_else(|| {
                Error::Refused(format!("{} has no standby that is ready{}", cluster.title(), cluster.reasons()))
            })?
        }
        None => members::leader(cluster)?,
    };
    Ok(member.name.clone())
}

async fn credentials(store: &Store, user: User) -> Result<(String, String), Error> {
    let own = &store.resource.spec.secrets;
    let (word, named) = match user {
        User::Superuser => ("superuser", &own.superuser),
        User::App => ("app", &own.application),
    };
    let name = named.clone().unwrap_or_else(|| store.names.secret(word));
    let failed = Error::call("get", "secrets", format!("the password in {name}"));
    let secret = store.api::<Secret>().get(&name).await.map_err(failed)?;
    let text = |key: &str| {
        let bytes = secret.data.as_ref().and_then(|data| data.get(key));
        let text = bytes.and_then(|b| String::from_utf8(b.0.clone()).ok());
        text.ok_or_else(|| Error::Refused(format!("the Secret {name} has no {key}")))
    };
    Ok((text("username")?, text("password")?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::view::Member;

    #[test]
    fn the_leader_unless_said_otherwise() {
        let member = |name: &str, ready, lag| Member { name: name.into(), ready, lag, ..Member::default() };
        let members = vec![member("o-0", true, None), member("o-1", true, Some(9)), member("o-2", true, Some(3))];
        let cluster = Cluster { leader: Some("o-0".into()), members, ..Cluster::default() };
        let at = |replica: bool, named: Option<&str>| {
            let args = Args {
                cluster: None,
                replica,
                member: named.map(str::to_owned),
                user: User::App,
                dbname: None,
                psql: Vec::new(),
            };
            place(&cluster, &args).map_err(|e| e.code())
        };
        assert_eq!((at(false, None), at(true, None)), (Ok("o-0".into()), Ok("o-2".into())));
        assert_eq!((at(false, Some("o-1")), at(false, Some("o-5"))), (Ok("o-1".into()), Err(3)));
    }
}
