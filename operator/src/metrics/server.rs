//! `/metrics`, `/healthz`, `/readyz`.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;

use http::StatusCode;
use tokio::net::TcpListener;
use tracing::info;
use warp::{Filter, Reply};

use super::Metrics;

/// The only type of Prometheus' text format that every version of it takes.
const TEXT: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// Why nothing can be served.
#[derive(Debug, thiserror::Error)]
#[error("cannot listen on {address} for /metrics and probes: {source}; choose another with --listen")]
pub struct Error {
    address: SocketAddr,
    source: std::io::Error,
}

/// Binds, and serves in the background as long as the process lives.
pub async fn serve(address: SocketAddr, metrics: Arc<Metrics>) -> Result<SocketAddr, Error> {
    let listener = match TcpListener::bind(address).await {
        // A machine without IPv6.
        Err(_) if address.ip().is_unspecified() => {
            TcpListener::bind(SocketAddr::from((Ipv4Addr::UNSPECIFIED, address.port()))).await
        }
        other => other,
    };
    let listener = listener.map_err(|source| Error { address, source })?;
    let bound = listener.local_addr().map_err(|source| Error { address, source })?;
    info!(address = %bound, "serving metrics and probes");
    tokio::spawn(warp::serve(routes(metrics)).incoming(listener).run());
    Ok(bound)
}

fn routes(metrics: Arc<Metrics>) -> impl Filter<Extract = (impl Reply,), Error = warp::Rejection> + Clone {
    let ready = metrics.clone();
    let shown = warp::path!("metrics").map(move || match metrics.text() {
        Ok(text) => warp::reply::with_status(warp::reply::with_header(text, "content-type", TEXT), StatusCode::OK),
        Err(error) => {
            let text = warp::reply::with_header(error.to_string(), "content-type", "text/plain");
            warp::reply::with_status(text, StatusCode::INTERNAL_SERVER_ERROR)
        }
    });
    // That it answers is all that the liveness probe wants: without its Lease or its watches the process ends by itself.
    let alive = warp::path!("healthz").map(|| "alive\n");
    let ready = warp::path!("readyz").map(move || {
        if ready.is_ready() {
            return warp::reply::with_status("ready\n", StatusCode::OK);
        }
        let why = "neither an answer about the Lease nor full caches yet: see the log\n";
        warp::reply::with_status(why, StatusCode::SERVICE_UNAVAILABLE)
    });
    warp::get().and(shown.or(alive).or(ready))
}
