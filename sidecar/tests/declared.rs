//! Declared roles, databases, schemas and extensions in a real PostgreSQL.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by a panic")]

mod common;

use common::{Member, Tools, server};
use matriarch_ha::effect::Task;
use matriarch_sidecar::config::{Credentials, User};
use matriarch_sidecar::declared::Desired;
use matriarch_sidecar::postgres::local;
use serde_json::{Value, json};

/// Applies and tells how many statements that took and what failed.
async fn apply(member: &Member, desired: &Value) -> (usize, Vec<(String, String)>) {
    let applied = member.postgres.apply_declared(&Desired::parse(&desired.to_string()).unwrap()).await;
    (applied.statements, applied.failed.into_iter().collect())
}

async fn one(member: &Member, database: &str, sql: &str) -> String {
    member.sql_in(database, sql).await[0][0].clone().unwrap_or_default()
}

#[tokio::test(flavor = "current_thread")]
async fn what_is_declared_is_made_once_and_drift_is_corrected() {
    let Some(tools) = Tools::find() else { return };
    let mut member = Member::new(&tools, "one").await;
    member.permit_ms(600_000);
    let config = server(&[("log_statement", "all")]);
    for task in [Task::Initdb, Task::StartPrimary { config }, Task::PostBootstrap] {
        member.task(task).await.unwrap();
    }
    let mut desired = json!({
        "generation": "g1",
        "roles": [
            {"name": "team", "comment": "it's the \\ team"},
            {"name": "Ann \"A\"", "login": true, "createDb": true, "connectionLimit": 5, "inRoles": ["team", "pg_monitor"],
             "validUntil": "2030-01-31T00:00:00+02:00", "password": "s3cr'et\\"},
            {"name": "maker", "createRole": true, "password": "x", "inherit": false},
            {"name": "gone", "ensure": "absent"},
        ],
        "databases": [
            {"name": "re ports", "owner": "team", "connectionLimit": 7, "encoding": "UTF8",
             "extensions": [{"name": "plpgsql"}], "schemas": [{"name": "sales", "owner": "Ann \"A\""}, {"name": "plain"}]},
            {"name": "left", "ensure": "absent"},
        ],
    });
    let (made, failed) = apply(&member, &desired).await;
    assert!(made > 8 && failed.is_empty(), "{made} {failed:?}");
    assert_eq!(apply(&member, &desired).await, (0, Vec::new()), "again: nothing to do");
    for secret in ["SCRAM-SHA-256$", "s3cr"] {
        assert!(!member.log().contains(secret), "the log has {secret}");
    }
    let ann = Credentials { username: "Ann \"A\"".into(), password: "s3cr'et\\".into(), ..Credentials::default() };
    assert!(local::connect_as(&member.config, &ann, "re ports", "").await.is_ok());
    assert_eq!(
        one(
            &member,
            "re ports",
            "SELECT string_agg(nspname || ' ' || nspowner::regrole, ',' ORDER BY nspname) FROM pg_namespace
        WHERE nspname IN ('sales', 'plain')"
        )
        .await,
        "plain team,sales \"Ann \"\"A\"\"\""
    );

    // Somebody changes things by hand.
    member.sql("ALTER ROLE maker SUPERUSER LOGIN PASSWORD 'other' CONNECTION LIMIT 2 VALID UNTIL '2031-01-01'").await;
    member.sql("GRANT team TO maker").await;
    member.sql("REVOKE team FROM \"Ann \"\"A\"\"\"").await;
    member.sql("COMMENT ON ROLE team IS NULL").await;
    member.sql("ALTER DATABASE \"re ports\" OWNER TO shop").await;
    member.sql_in("re ports", "DROP SCHEMA plain").await;
    member.sql_in("re ports", "ALTER SCHEMA sales OWNER TO shop").await;

    let (corrected, failed) = apply(&member, &desired).await;
    assert!(corrected == 7 && failed.is_empty(), "{corrected} {failed:?}");
    assert_eq!(apply(&member, &desired).await, (0, Vec::new()));
    let state =
        "SELECT rolsuper::text || rolcanlogin || rolconnlimit || coalesce(rolvaliduntil::text, '-') FROM pg_roles
                  WHERE rolname = 'maker'";
    assert_eq!(one(&member, "postgres", state).await, "falsefalse-1infinity");

    // What cannot be done is told, and keeps nothing else from being done.
    member.sql("CREATE ROLE gone").await;
    member.sql_in("re ports", "CREATE TABLE kept AS SELECT 1").await;
    member.sql_in("re ports", "ALTER TABLE kept OWNER TO gone").await;
    member.sql("CREATE DATABASE \"left\"").await;
    desired["roles"].as_array_mut().unwrap().extend([
        json!({"name": "postgres", "login": true}),
        json!({"name": "pg_monitor", "ensure": "absent"}),
        json!({"name": "rewinder", "ensure": "absent"}),
        json!({"name": "late", "inRoles": ["nobody-made"], "validUntil": "soon"}),
        json!({"name": "member", "inRoles": ["nobody-made"]}),
    ]);
    desired["databases"].as_array_mut().unwrap().extend([
        json!({"name": "postgres", "ensure": "absent"}),
        json!({"name": "template1", "ensure": "absent"}),
        json!({"name": "after", "extensions": [{"name": "no_such_thing"}], "schemas": [{"name": "s"}]}),
    ]);
    let (_, failed) = apply(&member, &desired).await;
    let why =
        |object: &str| failed.iter().find(|(name, _)| name == object).map(|(_, why)| why.as_str()).unwrap_or_default();
    for object in ["role/postgres", "role/pg_monitor", "role/rewinder", "database/postgres", "database/template1"] {
        assert!(why(object).contains("own"), "{object}: {failed:?}");
    }
    assert!(why("role/gone").contains("re ports") && why("role/gone").contains("REASSIGN OWNED"), "{failed:?}");
    assert!(why("role/late").contains("validUntil") && why("role/member").contains("nobody-made"), "{failed:?}");
    assert!(why("extension/after/no_such_thing").contains("no_such_thing"), "{failed:?}");
    assert_eq!(failed.len(), 9, "{failed:?}");
    assert_eq!(one(&member, "after", "SELECT count(*) FROM pg_namespace WHERE nspname = 's'").await, "1");
    let databases = "SELECT string_agg(datname, ',' ORDER BY datname) FROM pg_database";
    assert_eq!(one(&member, "postgres", databases).await, "after,postgres,re ports,shop,template0,template1");
    // Once it owns nothing it goes.
    member.sql_in("re ports", "DROP OWNED BY gone").await;
    let (_, failed) = apply(&member, &desired).await;
    assert!(!failed.iter().any(|(object, _)| object == "role/gone"), "{failed:?}");
    assert_eq!(one(&member, "postgres", "SELECT count(*) FROM pg_roles WHERE rolname = 'gone'").await, "0");
    assert!(member.config.credentials(User::App).is_ok());
    member.task(Task::Stop { immediate: false, checkpoint: false, timeout_ms: 10_000 }).await.unwrap();
}
