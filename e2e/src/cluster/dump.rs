//! Everything that explains a failure, written to a folder.

use std::fmt::Write as _;
use std::fs;
use std::path::Path;

use anyhow::{Context as _, Result};
use k8s_openapi::api::core::v1::{Event, Pod};
use kube::api::{Api, DynamicObject, ListParams, ResourceExt as _};
use kube::discovery::{Discovery, Scope, verbs};

use super::Cluster;

/// Lines of each component's log that are kept.
const LOG_LINES: usize = 2000;

impl Cluster {
    /// Writes the namespace's objects, events and containers' logs, and the components' logs. What cannot be had is left
    /// out with a note: a dump is taken when things are broken.
    pub async fn dump(&self, namespace: &str, folder: &Path) -> Result<()> {
        if folder.exists() {
            fs::remove_dir_all(folder)?; // of the run before
        }
        fs::create_dir_all(folder).with_context(|| folder.display().to_string())?;
        let mut notes = String::new();
        if let Err(error) = self.dump_objects(namespace, folder).await {
            let _ = writeln!(notes, "objects: {error:#}");
        }
        if let Err(error) = self.dump_events(namespace, folder).await {
            let _ = writeln!(notes, "events: {error:#}");
        }
        if let Err(error) = self.dump_containers(namespace, folder).await {
            let _ = writeln!(notes, "containers: {error:#}");
        }
        if let Err(error) = self.dump_components(folder) {
            let _ = writeln!(notes, "components: {error:#}");
        }
        if !notes.is_empty() {
            fs::write(folder.join("not-dumped.txt"), notes)?;
        }
        Ok(())
    }

    async fn dump_objects(&self, namespace: &str, folder: &Path) -> Result<()> {
        let discovery = Discovery::new(self.client()).run().await?;
        for group in discovery.groups() {
            for (resource, capabilities) in group.recommended_resources() {
                if capabilities.scope != Scope::Namespaced || !capabilities.supports_operation(verbs::LIST) {
                    continue;
                }
                let api: Api<DynamicObject> = Api::namespaced_with(self.client(), namespace, &resource);
                let Ok(list) = api.list(&ListParams::default()).await else { continue };
                if resource.plural == "events" || list.items.is_empty() {
                    continue;
                }
                let mut text = String::new();
                for mut object in list.items {
                    object.managed_fields_mut().clear();
                    let _ = writeln!(text, "---\n{}", serde_saphyr::to_string(&object)?);
                }
                fs::write(folder.join(format!("{}.yaml", resource.plural)), text)?;
            }
        }
        Ok(())
    }

    async fn dump_events(&self, namespace: &str, folder: &Path) -> Result<()> {
        let api: Api<Event> = Api::namespaced(self.client(), namespace);
        let mut lines = Vec::new();
        for event in api.list(&ListParams::default()).await?.items {
            let time = event
                .last_timestamp
                .map(|time| time.0.to_string())
                .or_else(|| event.event_time.map(|time| time.0.to_string()))
                .unwrap_or_default();
            let object = event.involved_object;
            lines.push(format!(
                "{time} {}/{} {}: {} (x{})",
                object.kind.unwrap_or_default(),
                object.name.unwrap_or_default(),
                event.reason.unwrap_or_default(),
                event.message.unwrap_or_default(),
                event.count.unwrap_or(1),
            ));
        }
        lines.sort();
        fs::write(folder.join("events.txt"), lines.join("\n"))?;
        Ok(())
    }

    async fn dump_containers(&self, namespace: &str, folder: &Path) -> Result<()> {
        let api: Api<Pod> = Api::namespaced(self.client(), namespace);
        for pod in api.list(&ListParams::default()).await?.items {
            let name = pod.name_any();
            let spec = pod.spec.unwrap_or_default();
            let init = spec.init_containers.unwrap_or_default();
            for container in spec.containers.iter().chain(&init).map(|container| &container.name) {
                for (previous, suffix) in [(false, ""), (true, ".previous")] {
                    if let Ok(text) = self.logs(namespace, &name, container, previous).await {
                        fs::write(folder.join(format!("{name}.{container}{suffix}.log")), text)?;
                    }
                }
            }
        }
        Ok(())
    }

    fn dump_components(&self, folder: &Path) -> Result<()> {
        let target = folder.join("components");
        fs::create_dir_all(&target)?;
        for entry in fs::read_dir(self.layout().logs())?.flatten() {
            let text = String::from_utf8_lossy(&fs::read(entry.path())?).into_owned();
            let lines: Vec<&str> = text.lines().collect();
            let end = lines[lines.len().saturating_sub(LOG_LINES)..].join("\n");
            fs::write(target.join(entry.file_name()), end)?;
        }
        Ok(())
    }
}
