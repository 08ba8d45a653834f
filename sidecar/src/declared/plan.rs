//! Declared state and the catalogs give statements. Pure. Nothing is planned for what is already as declared.

use std::collections::BTreeSet;

use matriarch_crds::cluster::{Database, Ensure, Role};
use matriarch_ha::types::Wall;
use postgres_protocol::password::scram_sha_256;

use super::catalog::{Catalog, Inside, RoleSeen};
use super::desired::DesiredRole;
use crate::postgres::sql::{identifier, literal};
use crate::postgres::verifier;

/// What is to be done about one object.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Step {
    /// `role/x`, `database/y`, `schema/y/s`, `extension/y/e`.
    pub object: String,
    /// In order; or why nothing can be done.
    pub statements: Result<Vec<String>, String>,
}

/// What is never touched.
#[derive(Debug, Clone, Default)]
pub struct Protected {
    /// Matriarch's own roles.
    pub roles: BTreeSet<String>,
    /// The database that Matriarch works in.
    pub database: String,
    /// Who owns what says nothing of an owner.
    pub owner: String,
}

impl Protected {
    fn role(&self, name: &str) -> bool {
        name.starts_with("pg_")
            || ["postgres", "replicator", "rewinder", "public", "none"].contains(&name)
            || self.roles.contains(name)
    }
    fn database(&self, name: &str) -> bool {
        ["postgres", "template0", "template1"].contains(&name) || name == self.database
    }
}

fn step(steps: &mut Vec<Step>, object: String, statements: Vec<String>) {
    if !statements.is_empty() {
        steps.push(Step { object, statements: Ok(statements) });
    }
}

fn refuse(steps: &mut Vec<Step>, object: String, why: impl Into<String>) {
    steps.push(Step { object, statements: Err(why.into()) });
}

/// Roles that shall be there, but for the roles that they are in: those may have to be made first.
pub fn roles(desired: &[DesiredRole], seen: &Catalog, protected: &Protected) -> Vec<Step> {
    let mut steps = Vec::new();
    for DesiredRole { role, password } in desired {
        let object = format!("role/{}", role.name);
        if protected.role(&role.name) {
            refuse(&mut steps, object, "this role is Matriarch's or PostgreSQL's own: declare another name");
            continue;
        }
        if role.ensure == Ensure::Absent {
            continue;
        }
        let until = match role.valid_until.as_deref().map(str::parse::<Wall>) {
            Some(Err(_)) => {
                refuse(&mut steps, object, "validUntil is no time with a zone: write e.g. 2027-01-31T00:00:00Z");
                continue;
            }
            Some(Ok(at)) => Some(at.0),
            None => None,
        };
        if password.as_ref().is_some_and(|password| password.is_empty() || password.contains('\0')) {
            refuse(&mut steps, object, "its password is empty or has a NUL in it: write one into its Secret");
            continue;
        }
        let name = identifier(&role.name);
        // As CREATE ROLE makes it.
        let fresh = RoleSeen { inherit: true, connection_limit: -1, ..RoleSeen::default() };
        let (mut statements, was) = match seen.roles.get(&role.name) {
            Some(was) => (Vec::new(), was),
            None => (vec![format!("CREATE ROLE {name}")], &fresh),
        };
        let options = options(role, was, until, password.as_deref());
        if !options.is_empty() {
            statements.push(format!("ALTER ROLE {name} {}", options.join(" ")));
        }
        if let Some(comment) = &role.comment
            && was.comment.as_deref().unwrap_or_default() != comment
        {
            statements.push(format!("COMMENT ON ROLE {name} IS {}", literal(comment)));
        }
        step(&mut steps, object, statements);
    }
    steps
}

/// What ALTER ROLE has to say.
fn options(role: &Role, was: &RoleSeen, until: Option<i64>, password: Option<&str>) -> Vec<String> {
    let flags = [
        (role.login, was.login, "LOGIN"),
        (role.superuser, was.superuser, "SUPERUSER"),
        (role.create_db, was.create_db, "CREATEDB"),
        (role.create_role, was.create_role, "CREATEROLE"),
        (role.replication, was.replication, "REPLICATION"),
        (role.bypass_rls, was.bypass_rls, "BYPASSRLS"),
        (role.inherit, was.inherit, "INHERIT"),
    ];
    let differing = flags.iter().filter(|(wanted, has, _)| wanted != has);
    let mut options: Vec<String> =
        differing.map(|(wanted, _, word)| if *wanted { (*word).to_owned() } else { format!("NO{word}") }).collect();
    if role.connection_limit != was.connection_limit {
        options.push(format!("CONNECTION LIMIT {}", role.connection_limit));
    }
    if until != was.valid_until {
        options.push(format!("VALID UNTIL {}", literal(role.valid_until.as_deref().unwrap_or("infinity"))));
    }
    if let Some(password) = password
        && !verifier::matches(was.verifier.as_deref(), &role.name, password)
    {
        // A verifier: no log has the password.
        options.push(format!("PASSWORD {}", literal(&scram_sha_256(password.as_bytes()))));
    }
    options
}

/// The roles that declared roles are in, no more and no less.
pub fn memberships(desired: &[DesiredRole], seen: &Catalog, protected: &Protected) -> Vec<Step> {
    let mut steps = Vec::new();
    let present = |role: &&Role| role.ensure == Ensure::Present && !protected.role(&role.name);
    for role in desired.iter().map(|one| &one.role).filter(present) {
        let Some(was) = seen.roles.get(&role.name) else { continue };
        let name = identifier(&role.name);
        let mut statements = Vec::new();
        for group in &role.in_roles {
            if !was.member_of.iter().any(|one| one.of == *group && !one.of_creator) {
                statements.push(format!("GRANT {} TO {name}", identifier(group)));
            }
        }
        for extra in was.member_of.iter().filter(|one| !one.of_creator && !role.in_roles.contains(&one.of)) {
            let by = extra.grantor.as_ref().map(|by| format!(" GRANTED BY {}", identifier(by))).unwrap_or_default();
            statements.push(format!("REVOKE {} FROM {name}{by}", identifier(&extra.of)));
        }
        step(&mut steps, format!("role/{}", role.name), statements);
    }
    steps
}

/// Databases. One that is not declared is never dropped.
pub fn databases(desired: &[Database], seen: &Catalog, protected: &Protected) -> Vec<Step> {
    let mut steps = Vec::new();
    for database in desired {
        let object = format!("database/{}", database.name);
        let (name, was) = (identifier(&database.name), seen.databases.get(&database.name));
        if protected.database(&database.name) {
            refuse(&mut steps, object, "this database is Matriarch's or PostgreSQL's own: declare another name");
            continue;
        }
        let statements = match (database.ensure, was) {
            (Ensure::Absent, None) => Vec::new(),
            (Ensure::Absent, Some(_)) => vec![format!("DROP DATABASE {name}")],
            (Ensure::Present, None) => vec![create_database(database, protected)],
            (Ensure::Present, Some(was)) => {
                let mut statements = Vec::new();
                if let Some(owner) = database.owner.as_ref().filter(|owner| **owner != was.owner) {
                    statements.push(format!("ALTER DATABASE {name} OWNER TO {}", identifier(owner)));
                }
                if database.connection_limit != was.connection_limit {
                    statements.push(format!("ALTER DATABASE {name} CONNECTION LIMIT {}", database.connection_limit));
                }
                statements
            }
        };
        step(&mut steps, object, statements);
    }
    steps
}

fn create_database(database: &Database, protected: &Protected) -> String {
    let owner = identifier(database.owner.as_deref().unwrap_or(&protected.owner));
    let mut statement = format!("CREATE DATABASE {} OWNER {owner}", identifier(&database.name));
    if let Some(encoding) = &database.encoding {
        statement += &format!(" ENCODING {}", literal(encoding));
    }
    // Another encoding than template1's needs the empty template.
    let template = database.template.as_deref().or(database.encoding.as_ref().map(|_| "template0"));
    if let Some(template) = template {
        statement += &format!(" TEMPLATE {}", identifier(template));
    }
    statement + &format!(" CONNECTION LIMIT {}", database.connection_limit)
}

/// Schemas and extensions of one database that is there.
pub fn inside(database: &Database, owner: &str, seen: &Inside) -> Vec<Step> {
    let mut steps = Vec::new();
    for schema in &database.schemas {
        let object = format!("schema/{}/{}", database.name, schema.name);
        if schema.name.starts_with("pg_") || schema.name == "information_schema" {
            refuse(&mut steps, object, "this schema is PostgreSQL's own: declare another name");
            continue;
        }
        let name = identifier(&schema.name);
        let statements = match (seen.schemas.get(&schema.name), &schema.owner) {
            (None, wanted) => {
                let wanted = identifier(wanted.as_deref().unwrap_or(owner));
                vec![format!("CREATE SCHEMA {name} AUTHORIZATION {wanted}")]
            }
            (Some(was), Some(wanted)) if was != wanted => {
                vec![format!("ALTER SCHEMA {name} OWNER TO {}", identifier(wanted))]
            }
            _ => Vec::new(),
        };
        step(&mut steps, object, statements);
    }
    for extension in &database.extensions {
        let name = identifier(&extension.name);
        let statement = match (extension.ensure, seen.extensions.get(&extension.name)) {
            (Ensure::Absent, Some(_)) => Some(format!("DROP EXTENSION {name}")),
            (Ensure::Present, None) => {
                let schema = extension.schema.as_ref().map(|schema| format!(" SCHEMA {}", identifier(schema)));
                let version = extension.version.as_ref().map(|version| format!(" VERSION {}", literal(version)));
                Some(format!("CREATE EXTENSION {name}{}{}", schema.unwrap_or_default(), version.unwrap_or_default()))
            }
            (Ensure::Present, Some(was)) => extension
                .version
                .as_ref()
                .filter(|wanted| *wanted != was)
                .map(|wanted| format!("ALTER EXTENSION {name} UPDATE TO {}", literal(wanted))),
            (Ensure::Absent, None) => None,
        };
        step(&mut steps, format!("extension/{}/{}", database.name, extension.name), statement.into_iter().collect());
    }
    steps
}

/// Roles that shall not be there. One that owns something or was granted something stays: dropping it would take that along.
pub fn absent_roles(desired: &[DesiredRole], seen: &Catalog, protected: &Protected) -> Vec<Step> {
    let mut steps = Vec::new();
    let absent = |role: &&Role| role.ensure == Ensure::Absent && !protected.role(&role.name);
    for role in desired.iter().map(|one| &one.role).filter(absent) {
        let Some(was) = seen.roles.get(&role.name) else { continue };
        let (object, name) = (format!("role/{}", role.name), identifier(&role.name));
        if was.needed_in.is_empty() {
            step(&mut steps, object, vec![format!("DROP ROLE {name}")]);
            continue;
        }
        let place =
            |database: &String| if database.is_empty() { "shared objects".to_owned() } else { database.clone() };
        let places: Vec<String> = was.needed_in.iter().map(place).collect();
        refuse(
            &mut steps,
            object,
            format!(
                "it is not dropped, for it owns something or has rights in {}: in each, REASSIGN OWNED BY {name} TO another role, then \
                 DROP OWNED BY {name}",
                places.join(", ")
            ),
        );
    }
    steps
}
