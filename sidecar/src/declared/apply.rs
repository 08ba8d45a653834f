//! Observes, plans and runs, stage by stage: roles before those who are in them and own things, drops of roles last.

use std::collections::BTreeMap;

use matriarch_crds::cluster::Ensure;
use tokio_postgres::Client;

use super::catalog;
use super::desired::Desired;
use super::plan::{self, Protected, Step};
use crate::config::User;
use crate::postgres::local::QUIET;
use crate::postgres::{Error, Postgres};

/// What came of it.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Applied {
    /// Statements that were run: none, if all was as declared.
    pub statements: usize,
    /// Object to reason.
    pub failed: BTreeMap<String, String>,
}

impl Postgres {
    /// Brings roles and databases to what is declared. What is lost if we die after a statement: nothing; the next time goes on.
    pub async fn apply_declared(&self, desired: &Desired) -> Applied {
        let mut applied = Applied { failed: desired.unreadable.clone(), ..Applied::default() };
        if let Err(error) = self.declared_stages(desired, &mut applied).await {
            applied.failed.insert("postgresql".to_owned(), error.to_string());
        }
        applied
    }

    async fn declared_stages(&self, desired: &Desired, applied: &mut Applied) -> Result<(), Error> {
        let config = self.config();
        let protected = {
            let own = [User::Superuser, User::Replication, User::Rewind].map(|user| config.credentials(user));
            let names: Vec<String> = own.into_iter().flatten().map(|who| who.username).collect();
            Protected {
                owner: config
                    .credentials(User::App)
                    .map(|app| app.username)
                    .ok()
                    .or_else(|| names.first().cloned())
                    .unwrap_or_else(|| "postgres".to_owned()),
                roles: names.into_iter().collect(),
                database: config.postgres.database.clone(),
            }
        };
        let client = self.login(&config.postgres.database, QUIET).await?;
        if client.query_one("SELECT pg_catalog.pg_is_in_recovery()", &[]).await?.try_get::<_, bool>(0)? {
            return Err(Error::State("PostgreSQL is no primary any more".to_owned()));
        }
        let seen = catalog::observe(&client).await?;
        run(&client, plan::roles(&desired.roles, &seen, &protected), applied).await?;
        let seen = catalog::observe(&client).await?;
        run(&client, plan::memberships(&desired.roles, &seen, &protected), applied).await?;
        run(&client, plan::databases(&desired.databases, &seen, &protected), applied).await?;
        let seen = catalog::observe(&client).await?;
        for database in desired.databases.iter().filter(|database| database.ensure == Ensure::Present) {
            if database.extensions.is_empty() && database.schemas.is_empty() {
                continue;
            }
            let Some(there) = seen.databases.get(&database.name) else { continue };
            match self.declared_inside(database, &there.owner, applied).await {
                Ok(()) => {}
                Err(error) => drop(applied.failed.insert(format!("database/{}", database.name), error.to_string())),
            }
        }
        let seen = catalog::observe(&client).await?;
        run(&client, plan::absent_roles(&desired.roles, &seen, &protected), applied).await
    }

    async fn declared_inside(
        &self,
        database: &matriarch_crds::cluster::Database,
        owner: &str,
        applied: &mut Applied,
    ) -> Result<(), Error> {
        let client = self.login(&database.name, QUIET).await?;
        let seen = catalog::inside(&client).await?;
        run(&client, plan::inside(database, owner, &seen), applied).await
    }
}

/// Each object by itself; only a connection that is gone ends it all.
async fn run(client: &Client, steps: Vec<Step>, applied: &mut Applied) -> Result<(), Error> {
    for Step { object, statements } in steps {
        let statements = match statements {
            Ok(statements) => statements,
            Err(why) => {
                applied.failed.insert(object, why);
                continue;
            }
        };
        for statement in statements {
            match client.batch_execute(&statement).await {
                Ok(()) => applied.statements += 1,
                Err(error) => {
                    let Some(db) = error.as_db_error() else { return Err(error.into()) };
                    let more = db.hint().or(db.detail()).map(|more| format!(" ({more})")).unwrap_or_default();
                    applied.failed.insert(object, format!("{}{more}", db.message()));
                    break;
                }
            }
        }
    }
    Ok(())
}
