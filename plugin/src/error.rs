//! Everything that can go wrong, in words for the person at the keyboard.

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
    #[error("cannot {verb} {what}: {source}")]
    Call {
        /// What was tried.
        verb: &'static str,
        /// With what.
        what: String,
        /// What the API server said.
        source: Box<kube::Error>,
    },
    /// The output could not be encoded or written.
    #[error("cannot write the output: {0}")]
    Output(String),
    /// What was asked for is not possible, or did not happen.
    #[error("{0}")]
    Refused(String),
}

impl Error {
    /// Wraps what the API server said.
    pub fn call(verb: &'static str, what: impl Into<String>) -> impl FnOnce(kube::Error) -> Self {
        let what = what.into();
        move |source| Self::Call { verb, what, source: Box::new(source) }
    }
}
