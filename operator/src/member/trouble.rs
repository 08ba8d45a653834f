//! Why a container cannot run, in the kubelet's words, and what to do about it.

use k8s_openapi::api::core::v1::ContainerStatus;

/// A container that cannot run, in the kubelet's words.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Trouble {
    /// One word for programs.
    pub reason: &'static str,
    /// What the kubelet or the scheduler said.
    pub message: String,
}

pub(super) fn trouble(status: &ContainerStatus) -> Option<Trouble> {
    let state = status.state.as_ref()?;
    let waiting = state.waiting.as_ref()?;
    let kubelet = waiting.message.clone().unwrap_or_default();
    let (container, image) = (&status.name, &status.image);
    let (reason, advice) = match waiting.reason.as_deref()? {
        "ErrImagePull" | "ImagePullBackOff" | "InvalidImageName" | "ErrImageNeverPull" => (
            "ImagePullFailed",
            format!(
                "the image {image} cannot be pulled: correct spec.image (or the operator's sidecar image), or give spec.imagePullSecrets"
            ),
        ),
        "CreateContainerConfigError" | "CreateContainerError" | "RunContainerError" => {
            ("ContainerCreateFailed", format!("the container {container} cannot be started from the image {image}"))
        }
        "CrashLoopBackOff" => {
            let last = status.last_state.as_ref().and_then(|s| s.terminated.as_ref());
            let exit = last.map(|t| format!(" (exit code {})", t.exit_code)).unwrap_or_default();
            (
                "CrashLooping",
                format!(
                    "the container {container} keeps failing{exit}: look at `kubectl logs -c {container}` of the pod"
                ),
            )
        }
        _ => return None,
    };
    // Of a crash loop the kubelet says only how long it waits now, which would change the status each time.
    let message = if kubelet.is_empty() || reason == "CrashLooping" {
        advice
    } else {
        format!("{advice}; the kubelet says: {kubelet}")
    };
    Some(Trouble { reason, message })
}
