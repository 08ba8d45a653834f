//! Passwords and certificates change under running servers.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use k8s_openapi::api::core::v1::Secret;
use kube::api::{Api, DeleteParams, Patch, PatchParams};
use matriarch_crds::names::{API_PORT, POSTGRES_PORT};
use serde_json::json;

use super::super::case::Case;
use super::changes::{postmasters, same};
use crate::host::run::run_with_input;
use crate::workload::Database;

const LONG_ENOUGH: Duration = Duration::from_mins(2);
/// The major that is Debian's own build; the others here know no TLS.
const WITH_TLS: &str = "15";
/// So many new connections are made with a password that has just begun to work.
const CONNECTIONS: usize = 12;

/// The application's password by its Secret, there and back; and a certificate that is issued anew.
pub async fn rotated(case: &Case) -> Result<()> {
    let before = postmasters(case).await?;
    let old = case.herd.database().await?;
    let new = Database { password: "another-one".to_owned(), ..old.clone() };
    password(case, &new).await.context("a new password")?;
    ensure!(!lets_in(case, &old).await?, "the old password still works");
    password(case, &old).await.context("the old password again")?;
    certificate(case).await.context("the certificate")?;
    same(case, &before).await
}

async fn password(case: &Case, wanted: &Database) -> Result<()> {
    let secrets: Api<Secret> = case.herd.namespace.api();
    let patch = json!({"stringData": {"password": wanted.password}});
    let begin = Instant::now();
    secrets.patch(&case.herd.names.secret("app"), &PatchParams::default(), &Patch::Merge(patch)).await?;
    let mut places = vec![wanted.clone()];
    places.extend(case.herd.members().await?.iter().map(|member| wanted.at(&member.address)));
    case.cluster()
        .wait("the new password works everywhere", LONG_ENOUGH, async || {
            for place in &places {
                if !lets_in(case, place).await? {
                    return Ok(Some(format!("refused at {}", place.address)));
                }
            }
            Ok(None)
        })
        .await?;
    case.note(format!("a password in {:.1} s", begin.elapsed().as_secs_f32()));
    for number in 0..CONNECTIONS {
        let place = &places[number % places.len()];
        ensure!(lets_in(case, place).await?, "connection {number} was refused at {}", place.address);
    }
    Ok(())
}

/// Whether the server lets a new connection in; one that has no time to answer is asked again.
async fn lets_in(case: &Case, place: &Database) -> Result<bool> {
    let begin = Instant::now();
    loop {
        match case.workload.ask(place, "SELECT 1").await {
            Ok(_) => return Ok(true),
            Err(error) => match error.downcast_ref::<tokio_postgres::Error>() {
                Some(said) if said.as_db_error().is_some() => return Ok(false),
                _ if begin.elapsed() > LONG_ENOUGH => return Err(error),
                _ => {}
            },
        }
    }
}

async fn certificate(case: &Case) -> Result<()> {
    let old = presented(case).await?;
    let secrets: Api<Secret> = case.herd.namespace.api();
    let begin = Instant::now();
    secrets.delete(&case.herd.names.tls_secret(), &DeleteParams::default()).await?;
    case.cluster()
        .wait("every server presents another certificate", LONG_ENOUGH, async || {
            let now = presented(case).await?;
            let left = now.intersection(&old).count();
            Ok((left > 0 || now.len() != 1).then(|| format!("{left} old, {} in all", now.len())))
        })
        .await?;
    case.note(format!("a certificate in {:.1} s", begin.elapsed().as_secs_f32()));
    Ok(())
}

/// The certificates that the members' agents present; and PostgreSQL's, where it was built with TLS.
async fn presented(case: &Case) -> Result<BTreeSet<String>> {
    let mut servers = vec![(API_PORT, None)];
    if case.world.major == WITH_TLS {
        servers.push((POSTGRES_PORT, Some(["-starttls", "postgres"])));
    }
    let mut all = BTreeSet::new();
    for member in case.herd.members().await? {
        let node = case.cluster().layout().node_named(&member.node)?;
        for (port, options) in &servers {
            let enter = format!("--net=/run/netns/{}", node.netns);
            let to = format!("{}:{port}", member.address);
            let options = *options;
            let text = tokio::task::spawn_blocking(move || {
                let mut words = vec!["nsenter", &enter, "openssl", "s_client", "-connect", &to];
                words.extend(options.into_iter().flatten());
                run_with_input(&words, "\n")
            })
            .await??;
            let (_, rest) = text.split_once("-----BEGIN CERTIFICATE-----").context("no certificate")?;
            let (certificate, _) = rest.split_once("-----END").context("half a certificate")?;
            all.insert(certificate.to_owned());
        }
    }
    Ok(all)
}
