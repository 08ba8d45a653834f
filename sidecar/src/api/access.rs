//! Who may change something, in Patroni's order: `restapi.allowlist`, client certificate, password.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use matriarch_ha::view::View;
use serde_json::Value;
use subtle::ConstantTimeEq;

use super::Answer;
use super::cluster::host_and_port;
use super::commands::Command;

/// For the names of an allowlist all together.
const LOOK_UP: Duration = Duration::from_secs(2);

/// Who sent a request; an extension of every request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Caller {
    /// From where; an IPv4 address is one, however it came.
    pub ip: IpAddr,
    /// How it has identified itself.
    pub certificate: Certificate,
}

/// What TLS has said of a client.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Certificate {
    /// Without TLS nobody is asked for one.
    Plain,
    /// Over TLS, without a certificate.
    Absent,
    /// Over TLS, with a certificate of our CA.
    Verified,
}

/// The rules for methods that change something.
#[derive(Debug, Clone, Default)]
pub struct Access {
    /// `allowlist`: addresses and networks.
    pub networks: Vec<Network>,
    /// `allowlist`: names, looked up when they are needed.
    pub names: Vec<String>,
    /// `allowlist_include_members`
    pub include_members: bool,
    /// `verify_client` is `optional` or `required`.
    pub needs_certificate: bool,
    /// What a request's `Authorization` must be.
    pub authorization: Option<String>,
}

/// An address, or all that begin like it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Network {
    ip: IpAddr,
    prefix: u32,
}

impl Network {
    fn holds(self, ip: IpAddr) -> bool {
        match (self.ip, ip) {
            (IpAddr::V4(ours), IpAddr::V4(theirs)) => {
                (ours.to_bits() ^ theirs.to_bits()).checked_shr(32 - self.prefix).unwrap_or(0) == 0
            }
            (IpAddr::V6(ours), IpAddr::V6(theirs)) => {
                (ours.to_bits() ^ theirs.to_bits()).checked_shr(128 - self.prefix).unwrap_or(0) == 0
            }
            _ => false,
        }
    }
}

/// `10.0.0.1`, `10.0.0.0/8`, `fd00::/8`.
impl FromStr for Network {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        let (ip, prefix) = text.split_once('/').map_or((text, None), |(ip, prefix)| (ip, Some(prefix)));
        let ip: IpAddr = ip.trim().parse().map_err(|_| ())?;
        let longest = if ip.is_ipv4() { 32 } else { 128 };
        let prefix = prefix.map_or(Ok(longest), |prefix| prefix.trim().parse::<u32>().map_err(|_| ()))?;
        if prefix > longest { Err(()) } else { Ok(Self { ip, prefix }) }
    }
}

impl fmt::Display for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.ip, self.prefix)
    }
}

/// The header that a user and password make.
#[must_use]
pub fn basic(username: &str, password: &str) -> String {
    format!("Basic {}", STANDARD.encode(format!("{username}:{password}")))
}

impl Access {
    /// May this caller give the command? `authorization` is the header of that name.
    pub async fn check(
        &self,
        command: Command,
        caller: Caller,
        authorization: Option<&[u8]>,
        view: &View,
    ) -> Result<(), Answer> {
        if command == Command::Mpp {
            return Ok(()); // as in Patroni, and nothing is done
        }
        // A member that is not known yet, or no more, may still ask for failsafe and votes.
        let members = self.include_members && !matches!(command, Command::Failsafe | Command::Election);
        let limited = !self.networks.is_empty() || !self.names.is_empty() || members;
        if limited && !self.listed(caller.ip, members.then_some(view)).await {
            return Err(Answer::text(403, "Access is denied"));
        }
        if self.needs_certificate && caller.certificate == Certificate::Absent {
            return Err(Answer::text(403, "client certificate required"));
        }
        let Some(wanted) = &self.authorization else { return Ok(()) };
        let refused = match authorization {
            None => "no auth header received",
            Some(given) if bool::from(given.ct_eq(wanted.as_bytes())) => return Ok(()),
            Some(_) => "not authenticated",
        };
        let mut answer = Answer::text(401, refused);
        answer.challenge = true;
        Err(answer)
    }

    async fn listed(&self, ip: IpAddr, members: Option<&View>) -> bool {
        let mut names: Vec<&str> = Vec::new();
        for member in members.iter().flat_map(|view| view.members.iter()) {
            let url = member.status.get("api_url").and_then(Value::as_str).unwrap_or_default();
            let Some((host, _)) = host_and_port(url) else { continue };
            match host.parse::<IpAddr>() {
                Ok(theirs) if theirs.to_canonical() == ip => return true,
                Ok(_) => {}
                Err(_) if member.ip.as_deref() == Some(&*ip.to_string()) => return true,
                Err(_) => names.push(host),
            }
        }
        if self.networks.iter().any(|network| network.holds(ip)) {
            return true;
        }
        names.extend(self.names.iter().map(String::as_str));
        let found = async {
            for name in names {
                let Ok(mut addresses) = tokio::net::lookup_host((name, 0)).await else { continue };
                if addresses.any(|address| address.ip().to_canonical() == ip) {
                    return true;
                }
            }
            false
        };
        tokio::time::timeout(LOOK_UP, found).await.unwrap_or(false)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn networks_hold_what_begins_like_them() {
        for (network, ip, holds) in [
            ("10.0.0.0/8", "10.255.1.1", true),
            ("10.0.0.0/8", "11.0.0.1", false),
            ("10.1.2.3", "10.1.2.3", true),
            ("10.1.2.3", "10.1.2.4", false),
            ("10.1.2.77/24", "10.1.2.4", true),
            ("0.0.0.0/0", "8.8.8.8", true),
            ("0.0.0.0/0", "::1", false),
            ("fd00::/8", "fdff::1", true),
            ("::/0", "fe80::1", true),
            ("::1", "::2", false),
        ] {
            let network: Network = network.parse().unwrap();
            assert_eq!(network.holds(ip.parse().unwrap()), holds, "{network} {ip}");
        }
        for bad in ["10.0.0.0/33", "::/129", "host", "10.0.0.0/-1", ""] {
            assert_eq!(bad.parse::<Network>(), Err(()), "{bad}");
        }
    }
}
