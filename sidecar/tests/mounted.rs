//! Secrets and certificates that change while PostgreSQL runs: nobody restarts, nobody is locked out.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by a panic")]

mod common;

use std::sync::Arc;
use std::time::Duration;

use common::{Member, Tools, server, until};
use matriarch_ha::effect::{Change, Task};
use matriarch_sidecar::config::Config;
use matriarch_sidecar::postgres::{Postgres, local};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

const STOP: Task = Task::Stop { immediate: false, checkpoint: false, timeout_ms: 10_000 };

async fn primary(tools: &Tools, name: &str, postgresql: &str) -> Member {
    let mut one = Member::with(tools, name, "", postgresql).await;
    one.permit_ms(600_000);
    for task in [Task::Initdb, Task::StartPrimary { config: server(&[("log_statement", "all")]) }, Task::PostBootstrap]
    {
        one.task(task).await.unwrap();
    }
    one
}

fn mount(member: &Member, user: &str, password: &str) {
    std::fs::write(member.dir.join("secrets").join(user).join("password"), password).unwrap();
}

/// Another agent for the same server, which remembers nothing.
fn anew(member: &Member, own_supervisor: bool) -> Postgres {
    let config = Config { own_supervisor, ..Config::clone(&member.config) };
    Postgres::new(Arc::new(config), member.supervisor.clone())
}

async fn answers(postgres: &Postgres) {
    postgres.query(Duration::from_secs(5)).await.unwrap();
}

async fn closed(member: &Member) {
    let hba = || std::fs::read_to_string(member.dir.join("volume/pgdata/pg_hba.conf")).unwrap();
    until("the door is closed", async || (!hba().contains("trust") && !hba().contains("peer")).then_some(())).await;
}

#[tokio::test(flavor = "current_thread")]
async fn passwords_change_without_a_restart_and_nobody_is_locked_out() {
    let Some(tools) = Tools::find() else { return };
    let one = primary(&tools, "one", "").await;
    let two = Member::new(&tools, "two").await;
    two.task(one.copy(None)).await.unwrap();
    let mut config = server(&[]);
    config.upstream = Some(one.upstream(None));
    two.task(Task::StartStandby { config: config.clone() }).await.unwrap();
    let started = until("streaming", async || Some(two.status().await).filter(|s| s.streaming)).await.started;
    assert_eq!(one.postgres.differing_passwords(false).await.unwrap(), Vec::<String>::new());

    for user in ["superuser", "replication", "rewind", "app"] {
        mount(&one, user, &format!("new {user}'s\\"));
    }
    // The login with the former password is remembered.
    one.postgres.forget_connection();
    answers(&one.postgres).await;
    let all = ["shop", "rewinder", "replicator", "postgres"];
    assert_eq!(one.postgres.differing_passwords(false).await.unwrap(), all);
    assert_eq!(one.postgres.differing_passwords(true).await.unwrap(), all);
    assert_eq!(one.postgres.differing_passwords(true).await.unwrap(), Vec::<String>::new(), "again: nothing changes");
    one.postgres.forget_connection();
    answers(&one.postgres).await;
    local::connect(&one.config, "postgres", "").await.unwrap();
    for secret in ["SCRAM-SHA-256$", "new superuser"] {
        assert!(!one.log().contains(secret), "the log has {secret}");
    }
    assert!(one.log().contains("statement: CREATE DATABASE") || one.log().contains("execute"), "it logs statements");

    // A standby whose Secrets lag behind streams on, and is let in by a new agent as well.
    let status = two.status().await;
    assert!(status.streaming && status.started == started, "{status:?}");
    until("the new verifier is here", async || {
        local::connect(&two.config, "postgres", "").await.is_err().then_some(())
    })
    .await;
    let agent = anew(&two, false);
    assert!(agent.differing_passwords(true).await.unwrap().is_empty(), "a standby sets nothing");
    answers(&agent).await;
    closed(&two).await;
    // Its Secrets come: the next stream logs in with the new password, and PostgreSQL runs on.
    for user in ["superuser", "replication", "rewind", "app"] {
        mount(&two, user, &format!("new {user}'s\\"));
    }
    two.postgres.reconfigure(two.config.clone());
    assert_eq!(two.postgres.change(Change::Configure(config)).await, Ok(()));
    one.sql("SELECT pg_terminate_backend(pid) FROM pg_stat_replication").await;
    let status = until("streaming again", async || Some(two.status().await).filter(|s| s.streaming)).await;
    assert_eq!(status.started, started);

    // An agent that died between the change of the file and that of the role: nobody knows the server's password any more. In a pod
    // and elsewhere.
    for (password, own) in [("third", false), ("fourth", true)] {
        mount(&one, "superuser", password);
        assert!(local::connect(&one.config, "postgres", "").await.is_err());
        let agent = anew(&one, own);
        answers(&agent).await;
        closed(&one).await;
        assert_eq!(agent.differing_passwords(true).await.unwrap(), ["postgres"]);
        agent.forget_connection();
        answers(&agent).await;
        local::connect(&one.config, "postgres", "").await.unwrap();
    }
    let ident = std::fs::read_to_string(one.dir.join("volume/pgdata/pg_ident.conf")).unwrap();
    assert!(!ident.contains("matriarch_door"), "{ident}");

    // An agent that died while the door was open: the next one closes it.
    let hba = one.dir.join("volume/pgdata/pg_hba.conf");
    let rules = std::fs::read_to_string(&hba).unwrap();
    std::fs::write(&hba, format!("local all \"postgres\" trust\n{rules}")).unwrap();
    let agent = anew(&one, false);
    assert_eq!(agent.change(Change::Configure(server(&[("log_statement", "all")]))).await, Ok(()));
    closed(&one).await;
    two.task(STOP).await.unwrap();
    one.task(STOP).await.unwrap();
}

/// An authority and a certificate in a folder; returns what of it clients see.
fn certificate(folder: &std::path::Path, name: &str) -> Vec<u8> {
    let key = rcgen::KeyPair::generate().unwrap();
    let params = rcgen::CertificateParams::new(vec![name.to_owned()]).unwrap();
    let cert = params.self_signed(&key).unwrap();
    std::fs::write(folder.join("tls.crt"), cert.pem()).unwrap();
    std::fs::write(folder.join("tls.key"), key.serialize_pem()).unwrap();
    std::fs::write(folder.join("ca.crt"), cert.pem()).unwrap();
    cert.der().to_vec()
}

/// The certificate that PostgreSQL shows to a new connection; none: it refuses TLS. (Protocol: `SSLRequest`.)
async fn shown(member: &Member) -> Option<Vec<u8>> {
    let mut stream = tokio::net::TcpStream::connect(("127.0.0.1", member.port)).await.unwrap();
    stream.write_all(&[0, 0, 0, 8, 4, 210, 22, 47]).await.unwrap();
    if stream.read_u8().await.unwrap() != b'S' {
        return None;
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = rustls::ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
    let mut roots = rustls::RootCertStore::empty();
    let folder = member.dir.join("tls");
    for cert in rustls::pki_types::pem::PemObject::pem_file_iter(folder.join("seen.crt")).unwrap() {
        let cert: rustls::pki_types::CertificateDer<'static> = cert.unwrap();
        roots.add(cert).unwrap();
    }
    let config = config.with_root_certificates(roots).with_no_client_auth();
    let name = rustls::pki_types::ServerName::try_from("one.test").unwrap();
    let stream = tokio_rustls::TlsConnector::from(Arc::new(config)).connect(name, stream).await.ok()?;
    Some(stream.get_ref().1.peer_certificates().unwrap()[0].to_vec())
}

#[tokio::test(flavor = "current_thread")]
async fn certificates_are_renewed_without_a_restart() {
    let Some(tools) = Tools::find() else { return };
    let tls = "}\nrestapi: {certfile: DIR/tls/tls.crt, keyfile: DIR/tls/tls.key, cafile: DIR/tls/ca.crt";
    let mut one = Member::with(&tools, "one", "", tls).await;
    let folder = one.dir.join("tls");
    std::fs::create_dir_all(&folder).unwrap();
    let trust = || std::fs::copy(folder.join("tls.crt"), folder.join("seen.crt")).unwrap();
    let first = certificate(&folder, "one.test");
    trust();
    one.permit_ms(600_000);
    for task in [Task::Initdb, Task::StartPrimary { config: server(&[]) }, Task::PostBootstrap] {
        one.task(task).await.unwrap();
    }
    let Some(seen) = shown(&one).await else { return eprintln!("*** SKIPPED: this PostgreSQL has no TLS") };
    assert_eq!(seen, first);
    let started = one.status().await.started;
    let renewed = certificate(&folder, "one.test");
    trust();
    // As the agent does when it finds the files changed.
    one.postgres.reconfigure(one.config.clone());
    assert_eq!(one.postgres.change(Change::Configure(server(&[]))).await, Ok(()));
    until("the new certificate", async || (shown(&one).await.as_ref() == Some(&renewed)).then_some(())).await;
    assert_eq!(one.status().await.started, started);
    // A key that does not belong to the certificate is not given to PostgreSQL, which would not start with it.
    std::fs::write(folder.join("tls.key"), rcgen::KeyPair::generate().unwrap().serialize_pem()).unwrap();
    one.task(STOP).await.unwrap();
    one.task(Task::StartPrimary { config: server(&[]) }).await.unwrap();
    assert_eq!(shown(&one).await.as_ref(), Some(&renewed));
    one.task(STOP).await.unwrap();
}
