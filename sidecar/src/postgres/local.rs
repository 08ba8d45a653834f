//! Connections to our own server, over its unix socket, as the superuser.

use std::time::Duration;

use tokio_postgres::error::SqlState;
use tokio_postgres::{Client, NoTls};

use crate::config::{Config, Credentials, SecretError, User};

/// Why there is no connection.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// It runs, but does not serve yet.
    #[error("{0}")]
    Starting(String),
    /// It stops.
    #[error("{0}")]
    Stopping(String),
    /// Nobody listens on the socket.
    #[error("PostgreSQL does not listen: {0}")]
    Absent(String),
    /// It does not let us in.
    #[error(
        "PostgreSQL refuses the superuser's password from the Secret: {0}; set the role's password to the Secret's"
    )]
    Password(String),
    /// The superuser's secret.
    #[error(transparent)]
    Secret(#[from] SecretError),
    /// A statement failed, or anything else.
    #[error("{0}")]
    Failed(String),
}

impl From<tokio_postgres::Error> for Error {
    fn from(error: tokio_postgres::Error) -> Self {
        use std::error::Error as _;
        if let Some(db) = error.as_db_error() {
            let text = db.message().to_owned();
            let code = db.code();
            return if *code == SqlState::CANNOT_CONNECT_NOW && text.contains("shutting down")
                || *code == SqlState::ADMIN_SHUTDOWN
            {
                Self::Stopping(text)
            } else if *code == SqlState::CANNOT_CONNECT_NOW {
                Self::Starting(text)
            } else if *code == SqlState::INVALID_PASSWORD || *code == SqlState::INVALID_AUTHORIZATION_SPECIFICATION {
                Self::Password(text)
            } else {
                Self::Failed(text)
            };
        }
        let io = error.source().and_then(|source| source.downcast_ref::<std::io::Error>());
        if let Some(std::io::ErrorKind::ConnectionRefused | std::io::ErrorKind::NotFound) = io.map(std::io::Error::kind)
        {
            Self::Absent(io.map_or_else(String::new, ToString::to_string))
        } else {
            let cause = error.source().map(|source| format!(": {source}")).unwrap_or_default();
            Self::Failed(format!("{error}{cause}"))
        }
    }
}

/// For short questions: nothing waits for standbys, and a statement ends when its answer is of no use any more.
pub const SHORT: &str = "-c synchronous_commit=local -c statement_timeout=10000 -c lock_timeout=5000 \
                         -c idle_in_transaction_session_timeout=10000";
/// For what may take long.
pub const LONG: &str = "-c synchronous_commit=local -c statement_timeout=0 -c lock_timeout=30000";
/// The same for statements that have something secret in them: they do not get into the server's log.
pub const QUIET: &str = "-c synchronous_commit=local -c statement_timeout=0 -c lock_timeout=30000 -c log_statement=none \
                         -c log_min_duration_statement=-1 -c log_duration=off -c log_min_error_statement=panic";

/// Connects to `dbname`. The connection ends when the client is dropped.
pub async fn connect(config: &Config, dbname: &str, options: &str) -> Result<Client, Error> {
    connect_as(config, &config.credentials(User::Superuser)?, dbname, options).await
}

/// The same with this name and password.
pub async fn connect_as(config: &Config, who: &Credentials, dbname: &str, options: &str) -> Result<Client, Error> {
    let (client, connection) = tokio_postgres::Config::new()
        .host_path(&config.matriarch.postgres_socket_dir)
        .port(config.postgres.port)
        .user(&who.username)
        .password(&who.password)
        .dbname(dbname)
        .application_name("matriarch")
        .options(options)
        .connect_timeout(Duration::from_secs(3))
        .connect(NoTls)
        .await?;
    tokio::spawn(async move {
        if let Err(error) = connection.await {
            tracing::debug!("the connection to PostgreSQL ended: {error}");
        }
    });
    Ok(client)
}
