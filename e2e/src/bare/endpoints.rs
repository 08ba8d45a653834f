//! A team that keeps its lock in the Endpoints of its Service: where that leads.

use anyhow::Result;
use k8s_openapi::api::core::v1::Endpoints;
use kube::api::Api;

use super::team::Team;

impl Team<'_> {
    /// Where the Service leads.
    pub async fn service_addresses(&self) -> Result<Vec<String>> {
        let name = &self.plan.name;
        let endpoints: Api<Endpoints> = Api::namespaced(self.pods().into_client(), name);
        let subsets = endpoints.get(name).await?.subsets.unwrap_or_default();
        let addresses = subsets.into_iter().flat_map(|subset| subset.addresses.unwrap_or_default());
        Ok(addresses.map(|address| address.ip).collect())
    }
}
