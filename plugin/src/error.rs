//! Everything that can go wrong, in words for the person at the keyboard, and the exit code of each.

use kube::Error as Api;
use kube::client::UpgradeConnectionError;

/// Exit codes, as docs/plugin.md lists them; clap's own for a wrong command line is 2.
#[cfg(test)]
pub const CODES: &[(u8, &str)] = &[
    (0, "done, or shown"),
    (1, "refused, or it failed; what was said tells why, and nothing was done unless it says so"),
    (2, "the command line is wrong"),
    (3, "there is no such cluster, member or setting; the nearest name is told"),
    (4, "a right is missing; verb and resource are told"),
    (5, "not confirmed: the answer was no, or nobody was there to ask and `--yes` was not given"),
    (6, "asked for, but not seen done within `--timeout`; it may still happen"),
    (7, "the API server, or the agent through it, could not be reached"),
    (10, "only `status --exit-code`: something is not as it should be"),
    (11, "only `status --exit-code`: nobody leads"),
];

/// Why a command failed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The kubeconfig.
    #[error("cannot use the kubeconfig: {0}")]
    Kubeconfig(#[from] kube::config::KubeconfigError),
    /// Neither a kubeconfig nor a pod's account.
    #[error("cannot find an API server: {0}; give --kubeconfig")]
    Infer(#[from] Box<kube::config::InferConfigError>),
    /// A call to the API server.
    #[error("{}", call(verb, resource, what, source))]
    Call {
        /// The API's verb.
        verb: &'static str,
        /// The API's resource.
        resource: &'static str,
        /// Which one, for people.
        what: String,
        /// What the API server said.
        source: Box<Api>,
    },
    /// The agent did not answer.
    #[error("{0}")]
    Agent(String),
    /// The output could not be encoded or written.
    #[error("cannot write the output: {0}")]
    Output(String),
    /// What was asked for is not possible, or did not happen.
    #[error("{0}")]
    Refused(String),
    /// There is no such thing.
    #[error("{0}")]
    NotFound(String),
    /// Nobody said yes.
    #[error("{0}")]
    NotConfirmed(String),
    /// Nobody knows yet.
    #[error("{0}")]
    Unknown(String),
    /// Said already, with the code to end with.
    #[error("exit code {0}")]
    Code(u8),
}

impl Error {
    /// Wraps what the API server said.
    pub fn call(verb: &'static str, resource: &'static str, what: impl Into<String>) -> impl FnOnce(Api) -> Self {
        let what = what.into();
        move |source| Self::Call { verb, resource, what, source: Box::new(source) }
    }

    /// For `map_err` of what cannot be written or encoded.
    pub fn output(error: impl std::fmt::Display) -> Self {
        Self::Output(error.to_string())
    }

    /// The right is missing.
    pub fn forbidden(&self) -> bool {
        matches!(self, Self::Call { source, .. } if code_of(source) == Some(403))
    }

    /// The process ends with it.
    pub fn code(&self) -> u8 {
        match self {
            Self::Call { source, .. } => match code_of(source) {
                Some(401 | 403) => 4,
                Some(404) => 3,
                Some(_) => 1,
                None => 7,
            },
            Self::Agent(_) | Self::Infer(_) => 7,
            Self::Kubeconfig(_) | Self::Output(_) | Self::Refused(_) => 1,
            Self::NotFound(_) => 3,
            Self::NotConfirmed(_) => 5,
            Self::Unknown(_) => 6,
            Self::Code(code) => *code,
        }
    }
}

/// The HTTP code, if the API server answered at all.
fn code_of(error: &Api) -> Option<u16> {
    match error {
        Api::Api(status) => Some(status.code),
        Api::UpgradeConnection(UpgradeConnectionError::ProtocolSwitch(code)) => Some(code.as_u16()),
        _ => None,
    }
}

fn call(verb: &str, resource: &str, what: &str, source: &Api) -> String {
    match code_of(source) {
        Some(403) => {
            let said = match source {
                Api::Api(status) => format!(" (the API server: {})", status.message),
                _ => String::new(),
            };
            format!(
                "you may not {verb} {resource}, which is needed for {what}: ask for this right, or for a role of rbac/plugin.yaml{said}"
            )
        }
        Some(401) => format!(
            "the API server does not know you (401): log in again, or choose another --context; {what} was not reached"
        ),
        _ => format!("cannot {verb} {what}: {source}"),
    }
}

/// For "… does not exist": the nearest of what does, and all of it while it is short.
pub fn instead(wanted: &str, there: &[&str]) -> String {
    let near = there
        .iter()
        .map(|name| (strsim::damerau_levenshtein(wanted, name), *name))
        .filter(|(distance, name)| *distance <= 2.max(name.len() / 3))
        .min();
    match near {
        Some((_, name)) => format!("did you mean {name}?"),
        None if there.is_empty() => "there is none".to_owned(),
        None => format!("there are {}", there.join(", ")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(code: u16) -> Error {
        let status = serde_json::json!({"code": code, "message": "no", "reason": "", "status": "Failure"});
        Error::call("patch", "configmaps", "the failover object")(Api::Api(serde_json::from_value(status).unwrap()))
    }

    #[test]
    fn a_missing_right_is_told_as_verb_and_resource() {
        let said = refused(403).to_string();
        assert!(said.starts_with("you may not patch configmaps, which is needed for the failover object"), "{said}");
        assert_eq!((refused(403).code(), refused(404).code(), refused(409).code()), (4, 3, 1));
    }

    #[test]
    fn the_nearest_name_is_told() {
        assert_eq!(instead("ordres", &["orders", "lines"]), "did you mean orders?");
        assert_eq!(instead("orders-9", &["orders-0", "orders-1"]), "did you mean orders-0?");
        assert_eq!(instead("zzz", &["orders", "lines"]), "there are orders, lines");
        assert_eq!(instead("x", &[]), "there is none");
    }

    #[test]
    fn every_exit_code_is_listed() {
        let all = [
            Error::Agent(String::new()),
            Error::Refused(String::new()),
            Error::NotFound(String::new()),
            Error::NotConfirmed(String::new()),
            Error::Unknown(String::new()),
            refused(403),
        ];
        for error in all {
            assert!(CODES.iter().any(|(code, _)| *code == error.code()), "{error:?}");
        }
    }
}
