//! The way to the API server: kubeconfig, context, namespace and user as kubectl takes them.

use std::io::IsTerminal;
use std::path::PathBuf;
use std::time::Duration;

use http::{HeaderName, HeaderValue};
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Client, Config};

use crate::completion;
use crate::error::Error;

/// For one answer of the API server; logs that are followed and orders that are waited for have no such limit.
const ANSWER: Duration = Duration::from_secs(30);
/// For the connection to it.
const CONNECT: Duration = Duration::from_secs(10);

/// As kubectl has them.
#[derive(clap::Args, Debug, Clone, Default)]
pub struct Access {
    /// The kubeconfig file. Default: $KUBECONFIG, then ~/.kube/config, then the pod's own account.
    #[arg(long, global = true)]
    pub kubeconfig: Option<PathBuf>,
    /// The context in it. Default: its current one.
    #[arg(long, global = true)]
    pub context: Option<String>,
    /// The clusters' namespace. Default: the context's.
    #[arg(short, long, global = true, add = completion::namespaces())]
    pub namespace: Option<String>,
    /// Act as this user, if you may.
    #[arg(long = "as", global = true, value_name = "USER")]
    pub as_user: Option<String>,
    /// And as a member of this group.
    #[arg(long = "as-group", global = true, value_name = "GROUP")]
    pub as_group: Vec<String>,
}

/// A connection and a namespace.
#[derive(Clone)]
pub struct Session {
    /// For calls that are answered at once.
    pub client: Client,
    /// For streams: logs, and commands in containers.
    pub patient: Client,
    /// Where the clusters are.
    pub namespace: String,
    /// As given.
    pub access: Access,
    /// Somebody is there to answer.
    pub keyboard: bool,
}

impl Session {
    /// Reads the kubeconfig; nothing is asked of the API server yet.
    pub async fn open(access: Access) -> Result<Self, Error> {
        let options = KubeConfigOptions { context: access.context.clone(), ..KubeConfigOptions::default() };
        let mut config = match &access.kubeconfig {
            Some(path) => Config::from_custom_kubeconfig(Kubeconfig::read_from(path)?, &options).await?,
            None if access.context.is_some() => Config::from_kubeconfig(&options).await?,
            None => Config::infer().await.map_err(Box::new)?,
        };
        config.connect_timeout = Some(CONNECT);
        config.read_timeout = None;
        for (name, value) in access
            .as_user
            .iter()
            .map(|user| ("impersonate-user", user))
            .chain(access.as_group.iter().map(|group| ("impersonate-group", group)))
        {
            let value = HeaderValue::from_str(value)
                .map_err(|_| Error::Refused(format!("--as and --as-group take plain names, not {value:?}")))?;
            config.headers.push((HeaderName::from_static(name), value));
        }
        let namespace = access.namespace.clone().unwrap_or_else(|| config.default_namespace.clone());
        let connect =
            |config: Config| Client::try_from(config).map_err(Error::call("connect to", "", "the API server"));
        let patient = connect(config.clone())?;
        config.read_timeout = Some(ANSWER);
        Ok(Self { client: connect(config)?, patient, namespace, access, keyboard: std::io::stdin().is_terminal() })
    }

    /// The same options for kubectl, with our namespace.
    pub fn kubectl(&self) -> Vec<String> {
        let mut options = vec![format!("--namespace={}", self.namespace)];
        options.extend(self.access.kubeconfig.iter().map(|path| format!("--kubeconfig={}", path.display())));
        options.extend(self.access.context.iter().map(|context| format!("--context={context}")));
        options.extend(self.access.as_user.iter().map(|user| format!("--as={user}")));
        options.extend(self.access.as_group.iter().map(|group| format!("--as-group={group}")));
        options
    }
}
