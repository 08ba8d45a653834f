//! Certificates: an authority for each cluster, and one certificate for its members and Services, issued here and
//! renewed long before it expires.

use jiff::{Timestamp, ToSpan, tz::TimeZone};
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose,
    date_time_ymd,
};
use x509_parser::pem::parse_x509_pem;

use crate::kinds::Kind;
use crate::observe::{Seen, entry};

/// For how many days the authority is valid.
const AUTHORITY_DAYS: i32 = 3650;
/// For how many days a member's certificate is valid.
const MEMBER_DAYS: i32 = 90;
/// It is renewed when fewer days are left: a month in which the operator may be away.
const RENEW_DAYS: i64 = 30;

/// Why there is no certificate.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Making a key or signing.
    #[error("cannot issue a certificate: {0}")]
    Issue(#[from] rcgen::Error),
    /// Today, as rcgen wants it.
    #[error("cannot compute the time of validity: {0}")]
    Time(#[from] jiff::Error),
}

impl Error {
    /// For metrics and conditions.
    pub fn category(&self) -> &'static str {
        match self {
            Self::Issue(_) => "IssueCertificate",
            Self::Time(_) => "CertificateTime",
        }
    }
}

/// A certificate and its key, in PEM.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pair {
    /// The certificate.
    pub certificate: String,
    /// Its private key.
    pub key: String,
}

/// What has to be issued.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Need {
    /// The authority that exists; None: it has to be made first.
    pub authority: Option<Pair>,
    /// Whether the members have a certificate (which is then replaced, if its resourceVersion is still this one).
    pub replaces: Option<String>,
}

/// What has to be issued now, if anything.
pub fn need(seen: &Seen) -> Option<Need> {
    let names = seen.names();
    let authority = seen.object(Kind::Secret, &names.ca_secret());
    let member = seen.object(Kind::Secret, &names.tls_secret());
    let pair = authority.and_then(|a| Some(Pair { certificate: entry(a, "tls.crt")?, key: entry(a, "tls.key")? }));
    let good = match (&pair, member) {
        (Some(pair), Some(member)) => {
            entry(member, "ca.crt").as_deref() == Some(&pair.certificate)
                && entry(member, "tls.key").is_some()
                && entry(member, "tls.crt").and_then(|c| days_left(&c, seen.now)).is_some_and(|d| d >= RENEW_DAYS)
        }
        _ => false,
    };
    let replaces = member.map(|m| m["metadata"]["resourceVersion"].as_str().unwrap_or_default().to_owned());
    (!good).then_some(Need { authority: pair, replaces })
}

/// For how many whole days the first certificate of `pem` is still valid; None if it is not a certificate.
pub fn days_left(pem: &str, now: Timestamp) -> Option<i64> {
    let (_, pem) = parse_x509_pem(pem.as_bytes()).ok()?;
    let certificate = pem.parse_x509().ok()?;
    Some((certificate.validity().not_after.timestamp() - now.as_second()).div_euclid(86_400))
}

fn valid_for(params: &mut CertificateParams, now: Timestamp, days: i32) -> Result<(), Error> {
    let today = now.to_zoned(TimeZone::UTC).date();
    // A day earlier, for clocks that are behind ours.
    let (from, to) = (today.checked_sub(1.day())?, today.checked_add(days.days())?);
    let month = |m: i8| u8::try_from(m).unwrap_or(1);
    params.not_before = date_time_ymd(i32::from(from.year()), month(from.month()), month(from.day()));
    params.not_after = date_time_ymd(i32::from(to.year()), month(to.month()), month(to.day()));
    Ok(())
}

/// A new authority for the cluster.
pub fn issue_authority(cluster: &str, now: Timestamp) -> Result<Pair, Error> {
    let key = KeyPair::generate()?;
    let mut params = CertificateParams::default();
    valid_for(&mut params, now, AUTHORITY_DAYS)?;
    params.distinguished_name.push(DnType::CommonName, format!("{cluster} (Matriarch)"));
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    let certificate = params.self_signed(&key)?;
    Ok(Pair { certificate: certificate.pem(), key: key.serialize_pem() })
}

/// Names that the members' certificate is good for.
pub fn member_names(cluster: &str, namespace: &str) -> Vec<String> {
    let mut names = vec!["localhost".to_owned()];
    for service in [format!("*.{cluster}-pods"), cluster.to_owned(), format!("{cluster}-ro")] {
        for domain in ["svc", "svc.cluster.local"] {
            names.push(format!("{service}.{namespace}.{domain}"));
        }
        if !service.starts_with('*') {
            names.push(format!("{service}.{namespace}"));
            names.push(service);
        }
    }
    names
}

/// A certificate for the members and Services, for server and client.
pub fn issue_member(authority: &Pair, cluster: &str, namespace: &str, now: Timestamp) -> Result<Pair, Error> {
    let issuer = Issuer::from_ca_cert_pem(&authority.certificate, KeyPair::from_pem(&authority.key)?)?;
    let key = KeyPair::generate()?;
    let mut params = CertificateParams::new(member_names(cluster, namespace))?;
    params.subject_alt_names.push(rcgen::SanType::IpAddress(std::net::IpAddr::from([127, 0, 0, 1])));
    valid_for(&mut params, now, MEMBER_DAYS)?;
    params
        .distinguished_name
        .push(DnType::CommonName, format!("{cluster}.{namespace}.svc").chars().take(64).collect::<String>());
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
    params.use_authority_key_identifier_extension = true;
    let certificate = params.signed_by(&key, &issuer)?;
    Ok(Pair { certificate: certificate.pem(), key: key.serialize_pem() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_member_certificate_is_signed_by_the_authority_and_names_the_members() {
        let now: Timestamp = "2026-02-28T12:00:00Z".parse().unwrap();
        let authority = issue_authority("orders", now).unwrap();
        let member = issue_member(&authority, "orders", "shop", now).unwrap();
        assert_eq!(days_left(&member.certificate, now), Some(i64::from(MEMBER_DAYS) - 1));

        let (_, ca) = parse_x509_pem(authority.certificate.as_bytes()).unwrap();
        let (_, cert) = parse_x509_pem(member.certificate.as_bytes()).unwrap();
        let (ca, cert) = (ca.parse_x509().unwrap(), cert.parse_x509().unwrap());
        cert.verify_signature(Some(ca.public_key())).unwrap();
        assert!(ca.is_ca() && !cert.is_ca());
        let names = format!("{:?}", cert.subject_alternative_name().unwrap().unwrap().value);
        for name in ["*.orders-pods.shop.svc", "orders.shop.svc", "orders-ro.shop.svc", "localhost"] {
            assert!(names.contains(&format!("DNSName(\"{name}\")")), "{name} is not in {names}");
        }
    }
}
