//! Which members an order is for: named, or all, of one role; standbys first, the leader last.

use clap::ValueEnum;

use crate::completion;
use crate::error::{Error, instead};
use crate::view::{Cluster, Member};

/// Of whom.
#[derive(clap::Args)]
pub struct Of {
    /// The cluster.
    #[arg(add = completion::clusters())]
    pub cluster: String,
    /// The members; all when none is named.
    #[arg(add = completion::members())]
    members: Vec<String>,
    /// Only members of this role.
    #[arg(short, long, value_enum, default_value_t = Role::Any)]
    role: Role,
}

impl Of {
    /// The members, checked.
    pub fn chosen<'a>(&self, cluster: &'a Cluster) -> Result<Vec<&'a Member>, Error> {
        choose(cluster, &self.members, self.role)
    }
}

/// As patronictl has them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Role {
    /// The holder of the leader lock.
    #[value(alias = "leader", alias = "master", alias = "standby-leader")]
    Primary,
    /// All others.
    #[value(alias = "standby")]
    Replica,
    /// All.
    Any,
}

/// The names, checked.
pub fn choose<'a>(cluster: &'a Cluster, names: &[String], role: Role) -> Result<Vec<&'a Member>, Error> {
    for name in names {
        one(cluster, name)?;
    }
    let leads = |m: &Member| cluster.leader.as_ref() == Some(&m.name);
    let fits = |m: &&Member| {
        (names.is_empty() || names.contains(&m.name))
            && match role {
                Role::Primary => leads(m),
                Role::Replica => !leads(m),
                Role::Any => true,
            }
    };
    let mut chosen: Vec<&Member> = cluster.members.iter().filter(fits).collect();
    chosen.sort_by_key(|m| leads(m));
    if chosen.is_empty() {
        return Err(Error::NotFound(format!("no member of {} is of that role{}", cluster.title(), cluster.reasons())));
    }
    Ok(chosen)
}

/// The member of that name.
pub fn one<'a>(cluster: &'a Cluster, name: &str) -> Result<&'a Member, Error> {
    cluster.members.iter().find(|m| m.name == name).ok_or_else(|| {
        let names: Vec<&str> = cluster.members.iter().map(|m| m.name.as_str()).collect();
        Error::NotFound(format!("{} has no member {name}: {}", cluster.title(), instead(name, &names)))
    })
}

/// The leader, or why there is none.
pub fn leader(cluster: &Cluster) -> Result<&Member, Error> {
    cluster
        .leading()
        .ok_or_else(|| Error::Refused(format!("{} has no leader now{}", cluster.title(), cluster.reasons())))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cluster() -> Cluster {
        let member = |name: &str| Member { name: name.into(), ..Member::default() };
        let members = ["o-0", "o-1", "o-2"].map(member).to_vec();
        Cluster { name: "o".into(), leader: Some("o-0".into()), members, ..Cluster::default() }
    }

    #[test]
    fn standbys_come_first_and_wrong_names_are_told() {
        let (cluster, names) =
            (cluster(), |chosen: Vec<&Member>| chosen.iter().map(|m| m.name.clone()).collect::<Vec<_>>());
        assert_eq!(names(choose(&cluster, &[], Role::Any).unwrap()), ["o-1", "o-2", "o-0"]);
        assert_eq!(names(choose(&cluster, &[], Role::Primary).unwrap()), ["o-0"]);
        assert_eq!(names(choose(&cluster, &["o-2".into()], Role::Replica).unwrap()), ["o-2"]);
        let wrong = choose(&cluster, &["o-9".into()], Role::Any).unwrap_err();
        assert!(wrong.to_string().contains("did you mean o-0?") && wrong.code() == 3, "{wrong}");
        assert_eq!(choose(&cluster, &["o-0".into()], Role::Replica).unwrap_err().code(), 3);
    }
}
