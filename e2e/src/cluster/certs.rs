//! The cluster's own certificate authority, certificates and kubeconfigs; valid for this one cluster's life.

use std::fs;
use std::path::Path;

use anyhow::Result;
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose,
};
use serde_json::json;

use super::layout::{API_SERVICE, Layout};

/// Who speaks to the API server: file stem, user, group.
const USERS: &[(&str, &str, &str)] = &[
    ("admin", "admin", "system:masters"),
    ("coredns", "coredns", "system:masters"),
    ("csi-resizer", "csi-resizer", "system:masters"),
    ("controller-manager", "system:kube-controller-manager", ""),
    ("scheduler", "system:kube-scheduler", ""),
    ("kube-proxy", "system:kube-proxy", ""),
];

/// Writes everything below `pki` and a kubeconfig for each user and kubelet.
pub fn write(layout: &Layout) -> Result<()> {
    let pki = layout.pki();
    fs::create_dir_all(&pki)?;

    let ca_key = KeyPair::generate()?;
    let mut ca = CertificateParams::new(Vec::new())?;
    ca.distinguished_name.push(DnType::CommonName, format!("matriarch-e2e {}", layout.name));
    ca.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    ca.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::DigitalSignature, KeyUsagePurpose::CrlSign];
    let ca_pem = ca.self_signed(&ca_key)?.pem();
    fs::write(pki.join("ca.crt"), ca_pem)?;
    let issuer = Issuer::new(ca, ca_key);

    let mut server = CertificateParams::new(vec![
        "127.0.0.1".to_owned(),
        layout.control_plane_address().to_string(),
        API_SERVICE.to_owned(),
        "localhost".to_owned(),
        "kubernetes".to_owned(),
        "kubernetes.default".to_owned(),
        "kubernetes.default.svc".to_owned(),
        "kubernetes.default.svc.cluster.local".to_owned(),
    ])?;
    server.distinguished_name.push(DnType::CommonName, "kube-apiserver");
    server.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    let server_key = KeyPair::generate()?;
    write_pair(&pki, "apiserver", &server.signed_by(&server_key, &issuer)?.pem(), &server_key)?;

    let (pem, key) = client(&issuer, "kube-apiserver-kubelet-client", "system:masters")?;
    write_pair(&pki, "kubelet-client", &pem, &key)?;

    let service_accounts = KeyPair::generate()?;
    fs::write(pki.join("service-accounts.key"), service_accounts.serialize_pem())?;
    fs::write(pki.join("service-accounts.pub"), service_accounts.public_key_pem())?;

    for (file, user, group) in USERS {
        write_kubeconfig(layout, &issuer, file, user, group)?;
    }
    for node in layout.all_nodes() {
        let user = format!("system:node:{}", node.name);
        write_kubeconfig(layout, &issuer, &format!("kubelet-{}", node.name), &user, "system:nodes")?;
    }
    Ok(())
}

fn client(issuer: &Issuer<'_, KeyPair>, user: &str, group: &str) -> Result<(String, KeyPair)> {
    let mut params = CertificateParams::new(Vec::new())?;
    params.distinguished_name.push(DnType::CommonName, user);
    if !group.is_empty() {
        params.distinguished_name.push(DnType::OrganizationName, group);
    }
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
    let key = KeyPair::generate()?;
    Ok((params.signed_by(&key, issuer)?.pem(), key))
}

fn write_pair(pki: &Path, name: &str, certificate: &str, key: &KeyPair) -> Result<()> {
    fs::write(pki.join(format!("{name}.crt")), certificate)?;
    fs::write(pki.join(format!("{name}.key")), key.serialize_pem())?;
    Ok(())
}

/// JSON is YAML, so a kubeconfig may be JSON.
fn write_kubeconfig(layout: &Layout, issuer: &Issuer<'_, KeyPair>, file: &str, user: &str, group: &str) -> Result<()> {
    let (certificate, key) = client(issuer, user, group)?;
    write_pair(&layout.pki(), file, &certificate, &key)?;
    let name = format!("matriarch-{}", layout.name);
    let pki = layout.pki();
    let config = json!({
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": name,
        "clusters": [{"name": name, "cluster": {
            "server": layout.api_url(),
            "certificate-authority": pki.join("ca.crt"),
        }}],
        "users": [{"name": name, "user": {
            "client-certificate": pki.join(format!("{file}.crt")),
            "client-key": pki.join(format!("{file}.key")),
        }}],
        "contexts": [{"name": name, "context": {"cluster": name, "user": name}}],
    });
    fs::write(layout.kubeconfig(file), serde_json::to_string_pretty(&config)?)?;
    Ok(())
}
