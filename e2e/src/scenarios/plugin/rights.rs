//! Users with the shipped roles can do what these say, and are told what they lack.

use anyhow::Result;

use super::Stage;

/// The roles, each bound to a user of its name.
const ROLES: &str = include_str!("../../../../rbac/plugin.yaml");

/// What each may and may not.
pub async fn all(stage: &Stage<'_>) -> Result<()> {
    let (kubectl, name) = (&stage.kubectl, stage.herd.name());
    stage.world.cluster.apply(ROLES).await?;
    for role in ["view", "admin", "login"] {
        let binding = format!(
            "{{apiVersion: rbac.authorization.k8s.io/v1, kind: RoleBinding, metadata: {{name: matriarch-{role}}}, \
             roleRef: {{apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: matriarch-{role}}}, \
             subjects: [{{apiGroup: rbac.authorization.k8s.io, kind: User, name: {role}}}]}}"
        );
        stage.herd.namespace.apply(&binding).await?;
    }
    let standbys = stage.herd.standbys().await?;
    let standby = &standbys[0].name;
    kubectl.run("--as nobody list").await?.is(4, &["you may not list postgresclusters"])?;
    kubectl.run(&format!("--as nobody status {name}")).await?.is(4, &["you may not get postgresclusters"])?;

    for line in ["list", "status", "topology", "history", "show-config", "watch --count 1", "logs --tail 1", "version"]
    {
        kubectl.run(&format!("--as view {line}")).await?.is(0, &[])?;
    }
    kubectl
        .run(&format!("--as view status {name}"))
        .await?
        .is(0, &["as last published: you may not get and create pods/exec"])?;
    let report = kubectl.run(&format!("--as view report {name} -f -")).await?.is(0, &["missing.txt", "pods/exec"])?;
    drop(report);
    kubectl
        .run(&format!("--as view restart {name} {standby} --yes"))
        .await?
        .is(4, &["you may not get and create pods/exec"])?;
    kubectl.run(&format!("--as view switchover {name} --yes")).await?.is(4, &["you may not patch configmaps"])?;
    kubectl.run(&format!("--as view pause {name} --yes")).await?.is(4, &["you may not patch configmaps"])?;
    kubectl.run(&format!("--as view psql {name} -- -c 'SELECT 1'")).await?.is(4, &["you may not get secrets"])?;

    kubectl.run(&format!("--as admin reload {name} {standby}")).await?.is(0, &[])?;
    kubectl.run(&format!("--as admin restart {name} {standby} --yes")).await?.is(0, &["restarted"])?;
    kubectl.run(&format!("--as admin edit-config {name} -s loop_wait=2 -y")).await?.is(0, &["not changed"])?;
    kubectl.run(&format!("--as admin pause {name} --yes")).await?.is(0, &["is paused"])?;
    kubectl.run(&format!("--as admin resume {name}")).await?.is(0, &["resumed"])?;
    kubectl.run(&format!("--as admin psql {name} -- -c 'SELECT 1'")).await?.is(4, &["you may not get secrets"])?;
    kubectl.run(&format!("--as login psql {name} -- -Atc 'SELECT 41 + 1'")).await?.is(0, &["42"])?;
    kubectl.run(&format!("--as login pause {name} --yes")).await?.is(4, &["you may not patch configmaps"])?;
    unreachable(stage).await
}

/// An API server that is not there.
async fn unreachable(stage: &Stage<'_>) -> Result<()> {
    let file = std::env::temp_dir().join(format!("matriarch-nowhere-{}.yaml", std::process::id()));
    let text = "{apiVersion: v1, kind: Config, current-context: x, contexts: [{name: x, context: {cluster: x, user: x}}], \
                clusters: [{name: x, cluster: {server: 'http://127.0.0.1:9'}}], users: [{name: x, user: {}}]}";
    std::fs::write(&file, text)?;
    let said = stage.kubectl.run(&format!("--kubeconfig {} list", file.display())).await;
    std::fs::remove_file(&file)?;
    said?.is(7, &["cannot list the clusters"]).map(drop)
}
