use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;

use kube::runtime::{reflector, watcher};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::*;

const GOLDEN: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/src/metrics/golden.txt");

fn a_cluster() -> PostgresCluster {
    let mut seen = crate::plan::example(crate::plan::example_spec(false));
    let step = crate::next_step::Step::Create;
    seen.cluster.status = Some(crate::status::status(&seen, &step, &crate::status::Outcome::Done));
    seen.cluster
}

fn counted() -> Metrics {
    let metrics = Metrics::default();
    let mut writer = reflector::store::Writer::<PostgresCluster>::default();
    writer.apply_watcher_event(&watcher::Event::Apply(a_cluster()));
    metrics.show(writer.as_reader());
    drop(metrics.begin());
    metrics.reconciled("done");
    metrics.error("ApplyFailed");
    let labels = [("verb", "patch".to_owned()), ("resource", "pods".to_owned()), ("status", "200".to_owned())];
    metrics.requests.get_or_create(&labels).inc();
    metrics
}

/// Alerts, the dashboard and docs name only what is in this list: `MATRIARCH_GENERATE=1` writes it.
#[test]
fn the_list_of_metrics_is_current() {
    let text = counted().text().unwrap();
    // Values of counts are the same each time; durations are not.
    let mut kept: Vec<&str> = text.lines().filter(|line| !line.contains("_duration_seconds_")).collect();
    kept.sort_unstable();
    let current = kept.join("\n") + "\n";
    if std::env::var_os("MATRIARCH_GENERATE").is_some() {
        std::fs::write(GOLDEN, &current).unwrap();
    }
    let committed = std::fs::read_to_string(GOLDEN).unwrap_or_default();
    assert!(committed == current, "{GOLDEN} is stale: run `make generate`\n{current}");
}

#[test]
fn a_cluster_that_is_gone_is_not_shown() {
    let metrics = Metrics::default();
    let mut writer = reflector::store::Writer::<PostgresCluster>::default();
    metrics.show(writer.as_reader());
    let line = "matriarch_cluster_instances{namespace=\"shop\",cluster=\"orders\"} 3";
    writer.apply_watcher_event(&watcher::Event::Apply(a_cluster()));
    assert!(metrics.text().unwrap().contains(line), "{}", metrics.text().unwrap());
    writer.apply_watcher_event(&watcher::Event::Delete(a_cluster()));
    assert!(!metrics.text().unwrap().contains(line));
}

#[tokio::test]
async fn it_is_alive_at_once_and_ready_when_told() {
    let metrics = Arc::new(counted());
    let address = serve(SocketAddr::from((Ipv4Addr::LOCALHOST, 0)), metrics.clone()).await.unwrap();
    let get = async |path: &str| {
        let mut stream = TcpStream::connect(address).await.unwrap();
        let request = format!("GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        answer
    };
    assert!(get("/healthz").await.starts_with("HTTP/1.1 200"));
    assert!(get("/readyz").await.starts_with("HTTP/1.1 503"));
    metrics.set_ready();
    assert!(get("/readyz").await.starts_with("HTTP/1.1 200"));
    let answer = get("/metrics").await;
    assert!(answer.contains("matriarch_operator_leader 0"), "{answer}");
    assert!(answer.contains("openmetrics-text"), "{answer}");
    assert!(get("/nothing").await.starts_with("HTTP/1.1 404"));
}
