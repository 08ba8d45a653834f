//! One node: containerd, kubelet and kube-proxy in the node's network namespace and cgroup.

use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use serde_json::json;

use super::daemons;
use super::layout::{DNS_SERVICE, Layout, Node, POD_RANGE};
use crate::deps::cache::Cache;
use crate::host::cgroup;
use crate::host::process::Spec;
use crate::host::run::{find_program, run};
use crate::images::{Image, PAUSE, template};

/// Where every kubelet of a machine makes its socket for device plugins, whatever its root directory is.
const DEVICE_PLUGINS: &str = "/var/lib/kubelet/device-plugins/kubelet.sock";

/// Starts the node's containerd with the images of `template` and waits for its socket.
pub fn start_containerd(layout: &Layout, node: &Node, template: &Path) -> Result<()> {
    let folder = node.containerd();
    let networks = node.folder.join("cni");
    fs::create_dir_all(&folder)?;
    fs::create_dir_all(&networks)?;
    cgroup::create(&node.system_cgroup())?;
    template::copy(template, &folder.join("root"))?;
    // Point-to-point links, not a bridge: all traffic of a pod is then routed, so that Services between pods of one node
    // work without br_netfilter and iptables can cut any pair of pods.
    let network = json!({
        "cniVersion": "1.0.0",
        "name": format!("matriarch-{}-{}", layout.name, node.number),
        "plugins": [{
            "type": "ptp",
            "ipMasq": false,
            "ipam": {
                "type": "host-local",
                "dataDir": node.folder.join("ipam"),
                "ranges": [[{"subnet": node.pods}]],
                "routes": [{"dst": "0.0.0.0/0"}],
            },
        }],
    });
    fs::write(networks.join("10-pods.conflist"), serde_json::to_string_pretty(&network)?)?;
    let config = folder.join("config.toml");
    fs::write(&config, containerd_config(&folder, &networks))?;
    let program = find_program("containerd").context("containerd is not installed")?;
    // tini adopts and reaps the shims, which matters where the machine's own init does not. containerd dies with it.
    let argv = ["tini", "-s", "--", "setpriv", "--pdeathsig", "KILL", &program.display().to_string(), "--config"];
    let argv = argv.iter().map(|word| (*word).to_owned()).chain([config.display().to_string()]).collect();
    start(layout, node, "containerd", argv, Vec::new())?;

    let begin = Instant::now();
    while ctr(node, &["version"]).is_err() {
        if begin.elapsed() > Duration::from_secs(30) {
            daemons::check(layout)?;
            bail!("containerd of {} does not answer after 30 s", node.name);
        }
        std::thread::sleep(Duration::from_millis(50));
    }
    Ok(())
}

/// Makes an image known to the node.
pub fn import(node: &Node, image: &Image) -> Result<()> {
    ctr(node, &["images", "import", &image.archive.display().to_string()])
        .with_context(|| format!("unable to import {}", image.reference))?;
    Ok(())
}

/// Whether the node has an image.
pub fn has_image(node: &Node, reference: &str) -> Result<bool> {
    Ok(ctr(node, &["images", "list", "--quiet"])?.lines().any(|line| line == reference))
}

/// Starts the kubelet and kube-proxy; they want a ready API server. Waits until the kubelet has made the socket that all of
/// them share: two that do so at once end with "address already in use".
pub fn start_kubelet(layout: &Layout, node: &Node, cache: &Cache) -> Result<()> {
    let root = node.folder.join("kubelet");
    fs::create_dir_all(&root)?;
    let socket = format!("unix://{}", node.containerd_socket().display());
    let config = json!({
        "apiVersion": "kubelet.config.k8s.io/v1beta1",
        "kind": "KubeletConfiguration",
        "cgroupDriver": "cgroupfs",
        "cgroupRoot": Path::new("/").join(&node.cgroup),
        "failCgroupV1": false,
        "failSwapOn": false,
        "containerRuntimeEndpoint": socket,
        "clusterDNS": [DNS_SERVICE],
        "clusterDomain": "cluster.local",
        "authentication": {"anonymous": {"enabled": false}, "webhook": {"enabled": false}, "x509": {"clientCAFile": layout.pki().join("ca.crt")}},
        "authorization": {"mode": "AlwaysAllow"},
        "podLogsDir": node.folder.join("pod-logs"),
        "nodeStatusUpdateFrequency": "4s",
        "evictionHard": {"memory.available": "100Mi", "nodefs.available": "1%", "imagefs.available": "1%",
            "nodefs.inodesFree": "1%"},
        "imageGCHighThresholdPercent": 100,
        "maxPods": 200,
        "serializeImagePulls": false,
        "registryPullQPS": 0,
        "resolvConf": "", // pods resolve names of the cluster and none of the host
        "shutdownGracePeriod": "0s",
    });
    let config_file = node.folder.join("kubelet.json");
    fs::write(&config_file, serde_json::to_string_pretty(&config)?)?;
    let kubeconfig = layout.kubeconfig(&format!("kubelet-{}", node.name));
    let argv = vec![
        cache.program("kubelet"),
        format!("--config={}", config_file.display()),
        format!("--kubeconfig={}", kubeconfig.display()),
        format!("--root-dir={}", root.display()),
        format!("--cert-dir={}", root.join("pki").display()),
        format!("--hostname-override={}", node.name),
        format!("--node-ip={}", node.address),
    ];
    let _ = fs::remove_file(DEVICE_PLUGINS); // an earlier kubelet's, which needs it no more
    start(layout, node, "kubelet", argv, Vec::new())?;
    let begin = Instant::now();
    while !Path::new(DEVICE_PLUGINS).exists() {
        if begin.elapsed() > Duration::from_secs(30) {
            daemons::check(layout)?;
            bail!("the kubelet of {} has not begun to work after 30 s", node.name);
        }
        std::thread::sleep(Duration::from_millis(50));
    }
    let argv = vec![
        cache.program("kube-proxy"),
        format!("--kubeconfig={}", layout.kubeconfig("kube-proxy").display()),
        "--proxy-mode=iptables".to_owned(),
        format!("--cluster-cidr={POD_RANGE}"),
        format!("--hostname-override={}", node.name),
        "--conntrack-max-per-core=0".to_owned(),
        "--conntrack-tcp-timeout-established=0".to_owned(),
        "--conntrack-tcp-timeout-close-wait=0".to_owned(),
    ];
    start(layout, node, "kube-proxy", argv, Vec::new())
}

/// Runs containerd's client against the node, in the kubelet's namespace of images and containers.
pub fn ctr(node: &Node, args: &[&str]) -> Result<String> {
    let socket = node.containerd_socket().display().to_string();
    run(&[&["ctr", "--address", &socket, "--namespace", "k8s.io"], args].concat())
}

fn start(layout: &Layout, node: &Node, name: &str, argv: Vec<String>, env: Vec<(String, String)>) -> Result<()> {
    let name = format!("{name}-{}", node.name);
    let log = layout.logs().join(format!("{name}.log"));
    daemons::start(layout, Spec { name, argv, env, netns: node.netns.clone(), cgroup: node.system_cgroup(), log })?;
    Ok(())
}

fn containerd_config(folder: &Path, networks: &Path) -> String {
    let folder = folder.display();
    format!(
        r#"version = 2
root = "{folder}/root"
state = "{folder}/state"
disabled_plugins = [
  "io.containerd.snapshotter.v1.aufs", "io.containerd.snapshotter.v1.btrfs", "io.containerd.snapshotter.v1.devmapper",
  "io.containerd.snapshotter.v1.zfs", "io.containerd.tracing.processor.v1.otlp", "io.containerd.internal.v1.tracing",
]
[grpc]
  address = "{folder}/containerd.sock"
[plugins."io.containerd.internal.v1.opt"]
  path = "{folder}/opt"
[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = "{PAUSE}"
  restrict_oom_score_adj = true
  netns_mounts_under_state_dir = true
  stream_server_address = "127.0.0.1"
[plugins."io.containerd.grpc.v1.cri".cni]
  bin_dir = "/usr/lib/cni"
  conf_dir = "{networks}"
[plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
  runtime_type = "io.containerd.runc.v2"
"#,
        networks = networks.display()
    )
}
