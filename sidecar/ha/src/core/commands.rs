//! What a person orders of this member: restart, now or later, and reinitialize. Accepted or refused here, done by the rules
//! ([`crate::decide::commands`]), answered when it is done.

use serde_json::{Value, json};

use super::Core;
use crate::effect::{Effect, Reply};
use crate::event::{Now, RestartOrder};
use crate::lease::Holder;
use crate::snapshot::{Command, CommandKind, TaskKind};
use crate::types::{Boot, Wall};

/// A scheduled restart that is later than this is not done any more, milliseconds.
const STALE_MS: i64 = 15_000;

/// So long at least a restart may take before it counts as failed, milliseconds.
const PATIENCE_MS: u64 = 60_000;

/// Why nothing can be ordered of a member that stays stopped.
const FENCED: &str = "this member is fenced: take its name out of matriarch.fenced first";

/// Orders of this member. They live as long as the agent does, as Patroni's.
#[derive(Debug, Clone, Default)]
pub(super) struct Commands {
    /// What is being done, and the request that waits for it.
    present: Option<(Command, Option<u64>)>,
    /// A restart for later, and when the postmaster that it is meant for was started.
    scheduled: Option<(RestartOrder, String)>,
}

impl Commands {
    pub(super) fn view(&self) -> Option<Command> {
        self.present.as_ref().map(|(command, _)| *command)
    }

    pub(super) fn begun(&mut self) {
        if let Some((command, _)) = &mut self.present {
            command.begun = true;
        }
    }

    /// For `status`: Patroni's keys.
    pub(super) fn shown(&self) -> Option<Value> {
        let (order, started) = self.scheduled.as_ref()?;
        let mut shown = json!({"schedule": order.schedule?.to_string(), "postmaster_start_time": started});
        if let Some(role) = &order.role {
            shown["role"] = json!(role);
        }
        if let Some(version) = &order.postgres_version {
            shown["postgres_version"] = json!(version);
        }
        if let Some(ms) = order.timeout_ms {
            shown["timeout"] = json!(ms / 1000);
        }
        if order.restart_pending {
            shown["restart_pending"] = json!(true);
        }
        Some(shown)
    }

    /// When the next thing is due.
    pub(super) fn due(&self) -> Option<Wall> {
        self.scheduled.as_ref().and_then(|(order, _)| order.schedule)
    }
}

impl Core {
    fn say(id: u64, code: u16, text: impl Into<String>, effects: &mut Vec<Effect>) {
        effects.push(Effect::Reply { id, reply: Reply::Text { code, text: text.into() } });
    }

    /// PostgreSQL is being restarted because somebody asked for it.
    pub(super) fn restarting(&self) -> bool {
        self.commands.present.as_ref().is_some_and(|(command, _)| command.kind == CommandKind::Restart)
    }

    /// What is going on, in Patroni's words.
    fn busy(&self) -> Option<&'static str> {
        if let Some((command, _)) = &self.commands.present {
            return Some(match command.kind {
                CommandKind::Restart => "restart",
                CommandKind::Reinitialize { .. } => "reinitialize",
            });
        }
        self.task.as_ref().map(|(_, _, view)| match view.kind {
            TaskKind::Promote => "promote",
            TaskKind::Rewind => "running pg_rewind",
            TaskKind::Compare => "compare with the remote cluster",
            TaskKind::BaseBackup | TaskKind::Restore => "creating replica",
            TaskKind::Initdb | TaskKind::PostBootstrap | TaskKind::MoveAside => "bootstrap",
            TaskKind::StartPrimary | TaskKind::StartStandby => "start",
            TaskKind::CopySlots => "copy_logical_slots",
            TaskKind::Stop => "stop",
        })
    }

    pub(super) fn restart_asked(&mut self, now: Boot, id: u64, order: RestartOrder, effects: &mut Vec<Effect>) {
        if order.schedule.is_some() {
            if self.config.pause {
                return Self::say(id, 500, "Can't schedule restart in the paused state", effects);
            }
            if self.commands.scheduled.is_some() {
                return Self::say(id, 409, "Another restart is already scheduled", effects);
            }
            let started = self.server.status.as_ref().map(|s| s.started.clone()).unwrap_or_default();
            self.commands.scheduled = Some((order, started));
            return Self::say(id, 202, "Restart scheduled", effects);
        }
        if let Some(busy) = self.busy() {
            return Self::say(id, 503, format!("{busy} already in progress"), effects);
        }
        if self.config.fenced.contains(&self.id.name) {
            return Self::say(id, 503, FENCED, effects);
        }
        if self.ending() || self.handing_over {
            return Self::say(id, 503, "stop already in progress", effects);
        }
        if self.server.running && self.server.status.is_none() {
            return Self::say(id, 503, "postgres is still starting", effects);
        }
        if !self.satisfied(&order) {
            return Self::say(id, 503, "restart conditions are not satisfied", effects);
        }
        self.begin_restart(now, &order, Some(id));
    }

    fn begin_restart(&mut self, now: Boot, order: &RestartOrder, id: Option<u64>) {
        let stopped = !self.server.running;
        let kind = CommandKind::Restart;
        // A stopped server is only started.
        let command = Command { kind, since: now, timeout_ms: order.timeout_ms, begun: stopped };
        self.commands.present = Some((command, id));
        self.server.commanded = true;
    }

    fn satisfied(&self, order: &RestartOrder) -> bool {
        let status = self.server.status.as_ref();
        let role = order.role.as_deref().is_none_or(|wanted| match wanted {
            "master" => self.role() == "primary",
            wanted => self.role() == wanted,
        });
        let older = order.postgres_version.as_deref().is_none_or(|wanted| {
            status.is_some_and(|s| version_number(wanted).is_some_and(|wanted| s.version < wanted))
        });
        role && older && (!order.restart_pending || status.is_some_and(|s| !s.pending_restart.is_empty()))
    }

    pub(super) fn cancel_restart(&mut self, id: u64, effects: &mut Vec<Effect>) {
        match self.commands.scheduled.take() {
            Some(_) => Self::say(id, 200, "scheduled restart deleted", effects),
            None => Self::say(id, 404, "no restarts are scheduled", effects),
        }
    }

    pub(super) fn reinitialize_asked(
        &mut self,
        now: Boot,
        id: u64,
        force: bool,
        from_leader: bool,
        effects: &mut Vec<Effect>,
    ) {
        match self.holder(now) {
            Holder::Me => return Self::say(id, 503, "I am the leader, can not reinitialize", effects),
            Holder::Other { name, .. } if name != self.id.name => {}
            _ => return Self::say(id, 503, "Cluster has no leader, can not reinitialize", effects),
        }
        if self.config.fenced.contains(&self.id.name) {
            return Self::say(id, 503, FENCED, effects);
        }
        if self.ending() {
            return Self::say(id, 503, "stop already in progress", effects);
        }
        if let Some(busy) = self.busy().filter(|_| !force) {
            return Self::say(id, 503, format!("{busy} already in progress"), effects);
        }
        if let Some((_, Some(waiting))) = self.commands.present.take() {
            Self::say(waiting, 503, "restart failed", effects);
        }
        let kind = CommandKind::Reinitialize { from_leader };
        self.commands.present = Some((Command { kind, since: now, timeout_ms: None, begun: false }, None));
        self.server.commanded = true;
        Self::say(id, 200, "reinitialize started", effects);
    }

    /// What was ordered is done, or cannot be done any more; what was ordered for now begins.
    pub(super) fn keep_commands(&mut self, now: Now, effects: &mut Vec<Effect>) {
        self.keep_schedule(now);
        let Some((command, id)) = self.commands.present else { return };
        let up = self.task.is_none() && self.server.running && self.server.status.is_some();
        let (code, text) = match command.kind {
            CommandKind::Restart if command.begun && up => (200, "restarted successfully"),
            CommandKind::Restart => {
                let timeout =
                    command.timeout_ms.unwrap_or_else(|| self.config.primary_start_timeout_ms.max(PATIENCE_MS));
                let starts = command.begun && self.server.running;
                let since = if starts { self.server.started.max(command.since) } else { command.since };
                let late = now.boot.ms_since(since);
                if starts
                    && late >= timeout
                    && let Some((_, Some(id))) = self.commands.present.as_mut().map(|(c, id)| (c, id.take()))
                {
                    // The rules still go by its timeout: another member may take over.
                    return Self::say(id, 503, "postgres is still starting", effects);
                }
                if late < timeout.max(PATIENCE_MS) {
                    return;
                }
                (503, "restart failed")
            }
            // Without a leader there is nothing to copy, and what is here is needed for the election.
            CommandKind::Reinitialize { .. } => {
                let led = matches!(self.holder(now.boot), Holder::Other { .. });
                if led && !(command.begun && up) {
                    return;
                }
                self.server.commanded &= command.begun && !led;
                (200, "")
            }
        };
        self.commands.present = None;
        if let Some(id) = id {
            Self::say(id, code, text, effects);
        }
    }

    fn keep_schedule(&mut self, now: Now) {
        let Some((order, started)) = &self.commands.scheduled else { return };
        let present = self.server.status.as_ref().map(|s| s.started.as_str());
        // Somebody was faster.
        let restarted = present.is_some_and(|p| !started.is_empty() && p != started);
        let late = order.schedule.map_or(0, |at| now.wall.ms_since(at));
        if restarted || late >= STALE_MS {
            self.commands.scheduled = None;
        } else if late >= 0 && !self.config.pause && self.busy().is_none() && present.is_some() && !self.ending() {
            let order = order.clone();
            self.commands.scheduled = None;
            if self.satisfied(&order) {
                self.begin_restart(now.boot, &order, None);
            }
        }
    }
}

/// `15.4` → 150004, `9.6.3` → 90603, as in server_version_num.
pub fn version_number(text: &str) -> Option<u32> {
    let parts: Vec<u32> = text.trim().split('.').map(|p| p.parse().ok()).collect::<Option<_>>()?;
    match parts[..] {
        [major] if major >= 10 => Some(major * 10_000),
        [major, minor] if major >= 10 => Some(major * 10_000 + minor),
        [first, major] => Some(first * 10_000 + major * 100),
        [first, major, minor] => Some(first * 10_000 + major * 100 + minor),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn versions_are_numbers_as_postgresql_has_them() {
        for (text, number) in
            [("15.4", Some(150_004)), ("18", Some(180_000)), ("9.6.3", Some(90_603)), ("x", None), ("9", None)]
        {
            assert_eq!(super::version_number(text), number, "{text}");
        }
    }
}
