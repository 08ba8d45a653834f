//! What every part reads of a member's pod in the same way.

use k8s_openapi::api::core::v1::Pod;

use crate::names::AGENT_CONTAINER;

/// The image of the agent, as the pod's spec names it.
pub fn agent_image(pod: &Pod) -> Option<&str> {
    let containers = pod.spec.as_ref()?.init_containers.as_ref()?;
    containers.iter().find(|c| c.name == AGENT_CONTAINER)?.image.as_deref()
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::core::v1::{Container, PodSpec};

    use super::*;

    #[test]
    fn the_agent_is_an_init_container_among_others() {
        let container = |name: &str, image: &str| Container {
            name: name.to_owned(),
            image: Some(image.to_owned()),
            ..Container::default()
        };
        let mut pod = Pod { spec: Some(PodSpec::default()), ..Pod::default() };
        assert_eq!(agent_image(&pod), None);
        let all = vec![container("install", "sidecar:2"), container(AGENT_CONTAINER, "sidecar:1")];
        pod.spec = Some(PodSpec { init_containers: Some(all), ..PodSpec::default() });
        assert_eq!(agent_image(&pod), Some("sidecar:1"));
    }
}
