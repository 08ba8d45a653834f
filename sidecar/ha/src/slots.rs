//! Which replication slots a server has to have: for members, so that WAL waits for them, and permanent ones of the configuration. On
//! standbys as well, moved along with the primary's, so that a failover loses none.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::config::scalar;
use crate::types::Lsn;

/// A physical slot on a standby is moved in steps of a segment: nothing else frees WAL.
const STEP: u64 = 16 << 20;

/// What a slot is for.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum SlotKind {
    /// Streaming replication.
    Physical,
    /// Logical decoding.
    Logical {
        /// Of which database.
        database: String,
        /// Its output plugin.
        plugin: String,
    },
}

/// A slot as the server shows it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SlotStatus {
    /// slot_name
    pub name: String,
    /// slot_type, database, plugin
    pub kind: SlotKind,
    /// Somebody streams.
    pub active: bool,
    /// Physical: restart_lsn; logical: confirmed_flush_lsn; 0: none.
    pub lsn: Lsn,
    /// PostgreSQL itself brings it to standbys (`failover`, from 17 on).
    pub failover: bool,
}

/// Slots that are not ours (`ignore_slots`): all fields that are given have to agree.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Matcher {
    name: Option<String>,
    kind: Option<String>,
    database: Option<String>,
    plugin: Option<String>,
}

impl Matcher {
    fn matches(&self, slot: &SlotStatus) -> bool {
        let (kind, database, plugin) = match &slot.kind {
            SlotKind::Physical => ("physical", None, None),
            SlotKind::Logical { database, plugin } => ("logical", Some(database), Some(plugin)),
        };
        let agrees = |wanted: &Option<String>, is: Option<&String>| wanted.is_none() || wanted.as_ref() == is;
        agrees(&self.name, Some(&slot.name))
            && self.kind.as_deref().is_none_or(|wanted| wanted == kind)
            && agrees(&self.database, database)
            && agrees(&self.plugin, plugin)
    }
}

/// `slots` of the configuration: names to kinds; what cannot be read is left out.
pub fn permanent(section: Option<&Value>) -> BTreeMap<String, SlotKind> {
    let Some(Value::Object(all)) = section else { return BTreeMap::new() };
    let kind = |value: &Value| {
        let text = |key: &str| value.get(key).and_then(scalar);
        match text("type").as_deref() {
            None | Some("physical") => Some(SlotKind::Physical),
            Some("logical") => Some(SlotKind::Logical { database: text("database")?, plugin: text("plugin")? }),
            Some(_) => None,
        }
    };
    let name = |name: &str| {
        let fits = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_';
        !name.is_empty() && name.len() <= 63 && name.chars().all(fits)
    };
    all.iter().filter(|(n, _)| name(n)).filter_map(|(n, value)| Some((n.clone(), kind(value)?))).collect()
}

/// `ignore_slots` of the configuration. A matcher without any field would ignore all: it is left out.
pub fn ignored(section: Option<&Value>) -> Vec<Matcher> {
    let Some(Value::Array(all)) = section else { return Vec::new() };
    let one = |value: &Value| {
        let text = |key: &str| value.get(key).and_then(scalar);
        Matcher { name: text("name"), kind: text("type"), database: text("database"), plugin: text("plugin") }
    };
    all.iter().map(one).filter(|matcher| *matcher != Matcher::default()).collect()
}

/// What a server's slots are decided from.
#[derive(Debug, Clone, Copy)]
pub struct Facts<'a> {
    /// It leads (a standby leader as well).
    pub leads: bool,
    /// Slots of members that stream, or may stream, from here.
    pub members: &'a BTreeSet<String>,
    /// Slots of the configuration.
    pub permanent: &'a BTreeMap<String, SlotKind>,
    /// Logical ones that the configuration once had, and has no more.
    pub former: &'a BTreeSet<String>,
    /// Slots that are not ours.
    pub ignored: &'a [Matcher],
    /// Where the leader's slots are.
    pub positions: &'a BTreeMap<String, Lsn>,
    /// How far a standby has replayed.
    pub replayed: Lsn,
    /// What is there.
    pub there: &'a [SlotStatus],
}

/// What to do about them.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SlotPlan {
    /// Make these.
    pub create: BTreeMap<String, SlotKind>,
    /// Move these, which nobody uses, to there.
    pub advance: Vec<(String, SlotKind, Lsn)>,
    /// Drop these, if nobody uses them.
    pub drop: Vec<String>,
    /// Standbys: copy the state of these logical slots from the leader.
    pub copy: Vec<String>,
}

/// The plan; the empty one: all is well.
pub fn plan(facts: &Facts) -> SlotPlan {
    let mut plan = SlotPlan::default();
    let ours = |slot: &&SlotStatus| !slot.failover && !facts.ignored.iter().any(|matcher| matcher.matches(slot));
    let there = |name: &str| facts.there.iter().find(|slot| slot.name == name);
    let physical = facts.permanent.iter().filter(|(_, kind)| **kind == SlotKind::Physical).map(|(name, _)| name);
    let mut wanted: BTreeSet<&String> = facts.members.iter().chain(physical).collect();
    if !facts.leads {
        // One that does not move holds WAL for ever.
        wanted.retain(|name| facts.positions.contains_key(*name) || there(name).is_some_and(|slot| slot.active));
    }
    for name in &wanted {
        match there(name) {
            None => {
                plan.create.insert((*name).clone(), SlotKind::Physical);
            }
            Some(slot) if !facts.leads && !slot.active && slot.kind == SlotKind::Physical => {
                let to = facts.positions.get(*name).copied().unwrap_or_default().min(facts.replayed);
                if to.0 >= slot.lsn.0.saturating_add(STEP) {
                    plan.advance.push((slot.name.clone(), SlotKind::Physical, to));
                }
            }
            Some(_) => {}
        }
    }
    for (name, kind) in facts.permanent.iter().filter(|(_, kind)| **kind != SlotKind::Physical) {
        match there(name) {
            None if facts.leads => {
                plan.create.insert(name.clone(), kind.clone());
            }
            None if facts.positions.contains_key(name) => plan.copy.push(name.clone()),
            Some(slot) if !facts.leads && !slot.active && !slot.failover && slot.kind == *kind => {
                let to = facts.positions.get(name).copied().unwrap_or_default().min(facts.replayed);
                if to > slot.lsn {
                    plan.advance.push((name.clone(), kind.clone(), to));
                }
            }
            _ => {}
        }
    }
    for slot in facts.there.iter().filter(ours).filter(|slot| !slot.active) {
        let unknown = match slot.kind {
            SlotKind::Physical => !wanted.contains(&slot.name),
            // Others' logical slots (of a change capture, say) are nobody's business here.
            SlotKind::Logical { .. } => facts.former.contains(&slot.name) && !facts.permanent.contains_key(&slot.name),
        };
        if unknown {
            plan.drop.push(slot.name.clone());
        }
    }
    plan
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn slot(name: &str, active: bool, lsn: u64) -> SlotStatus {
        SlotStatus { name: name.into(), kind: SlotKind::Physical, active, lsn: Lsn(lsn), failover: false }
    }

    fn logical() -> SlotKind {
        SlotKind::Logical { database: "shop".into(), plugin: "pgoutput".into() }
    }

    struct Case {
        leads: bool,
        there: Vec<SlotStatus>,
        positions: Vec<(&'static str, u64)>,
        ignored: Value,
        former: Vec<&'static str>,
    }

    fn of(case: &Case) -> SlotPlan {
        let permanent = permanent(Some(&json!({
            "backup": null, "cdc": {"type": "logical", "database": "shop", "plugin": "pgoutput"},
            "Bad-Name": {}, "half": {"type": "logical"}, "odd": {"type": "other"}})));
        assert_eq!(permanent.len(), 2, "{permanent:?}");
        plan(&Facts {
            leads: case.leads,
            members: &["m_1".to_owned(), "m_2".to_owned()].into(),
            permanent: &permanent,
            former: &case.former.iter().map(|n| (*n).to_owned()).collect(),
            ignored: &ignored(Some(&case.ignored)),
            positions: &case.positions.iter().map(|(n, at)| ((*n).to_owned(), Lsn(*at))).collect(),
            replayed: Lsn(100 << 20),
            there: &case.there,
        })
    }

    const NONE: Case =
        Case { leads: true, there: Vec::new(), positions: Vec::new(), ignored: Value::Null, former: Vec::new() };

    #[test]
    fn a_primary_makes_what_is_missing_and_drops_what_nobody_wants_or_uses() {
        let plan =
            of(&Case { there: vec![slot("m_1", true, 1), slot("old", false, 1), slot("busy", true, 1)], ..NONE });
        let created: Vec<&String> = plan.create.keys().collect();
        assert_eq!(created, ["backup", "cdc", "m_2"]);
        assert_eq!(plan.create["cdc"], logical());
        assert_eq!(plan.drop, ["old"]);
        assert_eq!((plan.advance.len(), plan.copy.len()), (0, 0));
    }

    #[test]
    fn ignored_slots_and_those_of_others_stay() {
        let other = SlotStatus { kind: logical(), ..slot("debezium", false, 1) };
        let former = SlotStatus { kind: logical(), ..slot("former", false, 1) };
        let there = vec![slot("keep", false, 1), other, former, slot("drop", false, 1)];
        let ignored = json!([{"name": "keep", "type": "physical"}, {}, {"name": "drop", "type": "logical"}]);
        let plan = of(&Case { there, ignored, former: vec!["former"], ..NONE });
        assert_eq!(plan.drop, ["former", "drop"]);
    }

    #[test]
    fn a_standby_has_them_too_and_moves_them_along() {
        let mb = |n: u64| n << 20;
        let cdc = SlotStatus { kind: logical(), ..slot("cdc", false, mb(9)) };
        let there = vec![slot("m_1", false, mb(10)), slot("m_2", true, mb(10)), cdc, slot("backup", false, mb(95))];
        let positions = vec![("m_1", mb(50)), ("m_2", mb(50)), ("cdc", mb(200)), ("backup", mb(99))];
        let plan = of(&Case { leads: false, there, positions: positions.clone(), ..NONE });
        // Never past what was replayed here, and physical ones by whole segments.
        assert_eq!(
            plan.advance,
            [("m_1".to_owned(), SlotKind::Physical, Lsn(mb(50))), ("cdc".to_owned(), logical(), Lsn(mb(100)))]
        );
        assert_eq!((plan.create.len(), plan.drop.len(), plan.copy.len()), (0, 0, 0));
        // What the leader has not, or not yet, would only hold WAL.
        let plan = of(&Case {
            leads: false,
            positions: vec![("m_2", 1), ("cdc", 1)],
            there: vec![slot("m_1", false, 1)],
            ..NONE
        });
        assert_eq!(plan.create.keys().collect::<Vec<_>>(), ["m_2"]);
        assert_eq!((plan.drop, plan.copy), (vec!["m_1".to_owned()], vec!["cdc".to_owned()]));
    }

    #[test]
    fn what_postgresql_itself_brings_to_standbys_is_left_alone() {
        let synced = SlotStatus { failover: true, kind: logical(), ..slot("cdc", false, 1) };
        let plan =
            of(&Case { leads: false, there: vec![synced], positions: vec![("cdc", 5)], former: vec!["cdc"], ..NONE });
        assert_eq!(plan, SlotPlan::default());
    }
}
