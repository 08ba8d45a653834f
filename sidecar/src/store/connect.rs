//! The client of the API server: kube's TLS and authentication over a connector whose dead connections are noticed.
//!
//! HTTP/1.1 on purpose: every call in flight has a connection of its own, so a renewal of the lock never queues behind a
//! watch or a stuck call, and a call given up takes its connection with it.

use std::time::Duration;

use hyper_util::client::legacy;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use kube::client::{Body, ClientBuilder, ConfigExt};
use kube::config::{KubeConfigOptions, KubeconfigError};
use kube::{Client, Config};
use tower::{BoxError, ServiceBuilder};

/// No client could be made.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A pod without a service account's token.
    #[error("this pod cannot speak to the Kubernetes API: {0}; is automountServiceAccountToken off?")]
    InCluster(#[from] kube::config::InClusterError),
    /// No usable kubeconfig.
    #[error("no usable kubeconfig: {0}; set KUBECONFIG to one")]
    Kubeconfig(#[from] KubeconfigError),
    /// TLS or authentication.
    #[error("the Kubernetes client cannot be made: {0}")]
    Client(#[from] kube::Error),
}

/// How long a TCP connection may take.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);
/// Data unacknowledged for so long breaks a connection (Patroni: ttl).
const USER_TIMEOUT: Duration = Duration::from_secs(10);
/// A watch that is silent for so long is asked for a sign of life by the kernel.
const KEEPALIVE: Duration = Duration::from_secs(10);
/// Idle connections are kept so long: longer than `loop_wait`, so that renewals need no new handshake.
const IDLE: Duration = Duration::from_mins(1);

/// In a pod by its service account, elsewhere by the kubeconfig.
pub async fn client(context: Option<&str>) -> Result<Client, Error> {
    let config = if std::env::var_os("KUBERNETES_SERVICE_HOST").is_some() {
        Config::incluster()?
    } else {
        let options = KubeConfigOptions { context: context.map(ToOwned::to_owned), ..KubeConfigOptions::default() };
        Config::from_kubeconfig(&options).await?
    };
    Ok(with_config(&config)?)
}

/// The client for a configuration.
pub fn with_config(config: &Config) -> Result<Client, kube::Error> {
    let mut tcp = HttpConnector::new();
    tcp.enforce_http(false);
    tcp.set_nodelay(true);
    tcp.set_connect_timeout(Some(CONNECT_TIMEOUT));
    tcp.set_keepalive(Some(KEEPALIVE));
    tcp.set_keepalive_interval(Some(Duration::from_secs(3)));
    tcp.set_keepalive_retries(Some(3));
    tcp.set_tcp_user_timeout(Some(USER_TIMEOUT));
    let tls = config.rustls_https_connector_with_connector(tcp)?;
    let http = legacy::Client::builder(TokioExecutor::new())
        .pool_timer(TokioTimer::new())
        .pool_idle_timeout(IDLE)
        .pool_max_idle_per_host(2)
        .http1_max_buf_size(1 << 16)
        .build::<_, Body>(tls);
    let stack = ServiceBuilder::new()
        .option_layer(config.auth_layer()?)
        .layer(config.extra_headers_layer()?)
        .layer(config.base_uri_layer())
        .map_err(BoxError::from)
        .service(http);
    Ok(ClientBuilder::new(stack, config.default_namespace.clone()).build())
}
