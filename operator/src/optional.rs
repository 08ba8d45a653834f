//! A kind that a cluster may or may not have: it is asked for once in a while, and watched as long as it is there.

use std::time::Duration;

use kube::Client;
use kube::core::ApiResource;
use tokio::time::sleep;
use tracing::{info, warn};

/// How soon a definition that is installed later is noticed.
const ASK_AGAIN: Duration = Duration::from_mins(1);

/// Whether the cluster knows a kind, by its API discovery, which every account may read.
async fn exists(client: &Client, resource: &ApiResource) -> Result<bool, kube::Error> {
    match client.list_api_group_resources(&resource.api_version).await {
        Ok(list) => Ok(list.resources.iter().any(|one| one.name == resource.plural)),
        Err(kube::Error::Api(status)) if status.code == 404 => Ok(false),
        Err(error) => Err(error),
    }
}

/// Returns when the kind is there.
pub async fn appears(client: &Client, resource: &ApiResource) {
    loop {
        match exists(client, resource).await {
            Ok(true) => {
                info!(kind = resource.kind, "the cluster knows this kind");
                return;
            }
            Ok(false) => {}
            Err(error) => warn!(%error, kind = resource.kind, "cannot ask whether the cluster knows this kind"),
        }
        sleep(ASK_AGAIN).await;
    }
}
