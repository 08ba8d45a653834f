//! What is in PostgreSQL: the part of its catalogs that declared state is compared with. Works on PostgreSQL 13 to 18.

use std::collections::BTreeMap;

use tokio_postgres::Client;

/// Roles and databases of the server.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Catalog {
    /// By name.
    pub roles: BTreeMap<String, RoleSeen>,
    /// By name.
    pub databases: BTreeMap<String, DatabaseSeen>,
}

/// A role.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[allow(missing_docs, reason = "the columns of pg_authid")]
pub struct RoleSeen {
    pub login: bool,
    pub superuser: bool,
    pub create_db: bool,
    pub create_role: bool,
    pub replication: bool,
    pub bypass_rls: bool,
    pub inherit: bool,
    pub connection_limit: i32,
    /// Microseconds since 1970; none: for ever.
    pub valid_until: Option<i64>,
    /// What is stored of the password.
    pub verifier: Option<String>,
    pub comment: Option<String>,
    /// The roles that it is in.
    pub member_of: Vec<Membership>,
    /// The databases in which it owns something or was granted something; empty text: what all databases share.
    pub needed_in: Vec<String>,
}

/// A row of `pg_auth_members`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Membership {
    /// The role that it is in.
    pub of: String,
    /// Who granted it; none before PostgreSQL 16, where that does not matter.
    pub grantor: Option<String>,
    /// `PostgreSQL` gave it to one who made a role, so that it can administer that role; it gives no rights of it.
    pub of_creator: bool,
}

/// A database.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct DatabaseSeen {
    /// The role that owns it.
    pub owner: String,
    /// -1: any number.
    pub connection_limit: i32,
}

/// What is in one database.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Inside {
    /// Extension to version.
    pub extensions: BTreeMap<String, String>,
    /// Schema to owner.
    pub schemas: BTreeMap<String, String>,
}

/// Roles and databases.
pub async fn observe(client: &Client) -> Result<Catalog, tokio_postgres::Error> {
    let mut catalog = Catalog::default();
    let rows = client
        .query(
            "SELECT r.rolname::text, r.rolcanlogin, r.rolsuper, r.rolcreatedb, r.rolcreaterole, r.rolreplication, r.rolbypassrls,
                    r.rolinherit, r.rolconnlimit,
                    CASE WHEN isfinite(r.rolvaliduntil) THEN (extract(epoch FROM r.rolvaliduntil) * 1000000)::bigint END,
                    r.rolpassword, pg_catalog.shobj_description(r.oid, 'pg_authid'),
                    ARRAY(SELECT DISTINCT coalesce(d.datname::text, '')
                            FROM pg_catalog.pg_shdepend s LEFT JOIN pg_catalog.pg_database d
                              ON d.oid = CASE WHEN s.classid = 'pg_database'::regclass THEN s.objid ELSE s.dbid END
                           WHERE s.refclassid = 'pg_authid'::regclass AND s.refobjid = r.oid AND s.classid <> 'pg_auth_members'::regclass)
               FROM pg_catalog.pg_authid r WHERE r.rolname !~ '^pg_'",
            &[],
        )
        .await?;
    for row in rows {
        let role = RoleSeen {
            login: row.try_get(1)?,
            superuser: row.try_get(2)?,
            create_db: row.try_get(3)?,
            create_role: row.try_get(4)?,
            replication: row.try_get(5)?,
            bypass_rls: row.try_get(6)?,
            inherit: row.try_get(7)?,
            connection_limit: row.try_get(8)?,
            valid_until: row.try_get(9)?,
            verifier: row.try_get(10)?,
            comment: row.try_get(11)?,
            member_of: Vec::new(),
            needed_in: row.try_get(12)?,
        };
        catalog.roles.insert(row.try_get(0)?, role);
    }
    // Since 16 a membership has options of its own, and each grantor its own row.
    let rows = client
        .query(
            "SELECT m.rolname::text, g.rolname::text, a.admin_option,
                    (to_jsonb(a) ->> 'inherit_option')::boolean, (to_jsonb(a) ->> 'set_option')::boolean,
                    (SELECT o.rolname::text FROM pg_catalog.pg_authid o WHERE o.oid = a.grantor)
               FROM pg_catalog.pg_auth_members a
               JOIN pg_catalog.pg_authid m ON m.oid = a.member JOIN pg_catalog.pg_authid g ON g.oid = a.roleid
              ORDER BY 1, 2",
            &[],
        )
        .await?;
    for row in rows {
        let (inherits, sets): (Option<bool>, Option<bool>) = (row.try_get(3)?, row.try_get(4)?);
        let membership = Membership {
            of: row.try_get(1)?,
            grantor: if inherits.is_some() { row.try_get(5)? } else { None },
            of_creator: row.try_get::<_, bool>(2)? && inherits == Some(false) && sets == Some(false),
        };
        if let Some(role) = catalog.roles.get_mut(&row.try_get::<_, String>(0)?) {
            role.member_of.push(membership);
        }
    }
    let rows = client
        .query(
            "SELECT datname::text, pg_catalog.pg_get_userbyid(datdba)::text, datconnlimit FROM pg_catalog.pg_database",
            &[],
        )
        .await?;
    for row in rows {
        let database = DatabaseSeen { owner: row.try_get(1)?, connection_limit: row.try_get(2)? };
        catalog.databases.insert(row.try_get(0)?, database);
    }
    Ok(catalog)
}

/// What is in the database that this connection is to.
pub async fn inside(client: &Client) -> Result<Inside, tokio_postgres::Error> {
    let mut inside = Inside::default();
    for row in client.query("SELECT extname::text, extversion FROM pg_catalog.pg_extension", &[]).await? {
        inside.extensions.insert(row.try_get(0)?, row.try_get(1)?);
    }
    let schemas = "SELECT nspname::text, pg_catalog.pg_get_userbyid(nspowner)::text FROM pg_catalog.pg_namespace";
    for row in client.query(schemas, &[]).await? {
        inside.schemas.insert(row.try_get(0)?, row.try_get(1)?);
    }
    Ok(inside)
}
