//! One network namespace for each node and one for the control plane, joined by a bridge. The host has a cable into it
//! for kubectl and the tests; no route leads from there anywhere else.

use anyhow::Result;

use super::layout::{Layout, Node, netns_prefix};
use crate::host::run::{run, run_with_input};

/// Makes the namespaces, cables, addresses and routes.
pub fn create(layout: &Layout) -> Result<()> {
    let fabric = layout.fabric();
    run(&["ip", "netns", "add", &fabric])?;
    let mut lines = vec![
        "link set lo up".to_owned(),
        "link add cluster type bridge stp_state 0 forward_delay 0".to_owned(),
        format!("addr add {}/24 dev cluster", layout.control_plane_address()),
        "link set cluster up".to_owned(),
        format!("link add host type veth peer name {} netns {}", layout.host_link(), std::process::id()),
        "link set host master cluster up".to_owned(),
    ];
    for node in layout.all_nodes() {
        run(&["ip", "netns", "add", &node.netns])?;
        lines.push(format!("link add {} type veth peer name eth0 netns {}", node.port, node.netns));
        lines.push(format!("link set {} master cluster up", node.port));
        lines.push(format!("route add {} via {}", node.pods, node.address));
    }
    ip_batch(Some(&fabric), &lines)?;
    ip_batch(
        None,
        &[
            format!("addr add {}/24 dev {}", layout.host_address(), layout.host_link()),
            format!("link set {} up", layout.host_link()),
        ],
    )?;
    sysctl(&fabric, "net.ipv4.ip_forward", "1")?;
    for node in layout.all_nodes() {
        let mut lines = vec![
            "link set lo up".to_owned(),
            format!("addr add {}/24 dev eth0", node.address),
            "link set eth0 up".to_owned(),
            format!("route add default via {}", layout.control_plane_address()),
        ];
        for other in layout.all_nodes().iter().filter(|other| other.number != node.number) {
            lines.push(format!("route add {} via {}", other.pods, other.address));
        }
        ip_batch(Some(&node.netns), &lines)?;
        sysctl(&node.netns, "net.ipv4.ip_forward", "1")?;
    }
    Ok(())
}

/// Removes all namespaces of the cluster (their links go with them) and the host's end. Fine when there is nothing.
pub fn destroy(name: &str, host_link: Option<&str>) -> Result<()> {
    for entry in std::fs::read_dir("/run/netns").into_iter().flatten().flatten() {
        let netns = entry.file_name().to_string_lossy().into_owned();
        if netns.starts_with(&netns_prefix(name)) {
            run(&["ip", "netns", "delete", &netns])?;
        }
    }
    if let Some(link) = host_link
        && std::path::Path::new("/sys/class/net").join(link).exists()
    {
        // The kernel removes a namespace's links a moment later, so the link may be gone by now.
        let _ = run(&["ip", "link", "delete", link]);
    }
    Ok(())
}

/// Pulls or plugs the cable of a whole node.
pub fn set_node_link(layout: &Layout, node: &Node, up: bool) -> Result<()> {
    in_netns(&layout.fabric(), &["ip", "link", "set", &node.port, if up { "up" } else { "down" }])?;
    Ok(())
}

/// Runs a command in a network namespace. (`ip netns exec` would remount /sys as well.)
pub fn in_netns(netns: &str, argv: &[&str]) -> Result<String> {
    let enter = format!("--net=/run/netns/{netns}");
    run(&[&["nsenter", &enter], argv].concat())
}

fn ip_batch(netns: Option<&str>, lines: &[String]) -> Result<()> {
    let input = lines.join("\n") + "\n";
    match netns {
        // `-n` would do the same as `exec` does.
        Some(netns) => {
            let enter = format!("--net=/run/netns/{netns}");
            run_with_input(&["nsenter", &enter, "ip", "-batch", "-"], &input)?
        }
        None => run_with_input(&["ip", "-batch", "-"], &input)?,
    };
    Ok(())
}

fn sysctl(netns: &str, key: &str, value: &str) -> Result<()> {
    let file = format!("/proc/sys/{}", key.replace('.', "/"));
    in_netns(netns, &["sh", "-c", "echo \"$1\" > \"$2\"", "sh", value, &file])?;
    Ok(())
}
