//! What the user's callbacks are told: starts, stops, reloads and changes of the role, once each, and nothing of a bootstrap.

use super::Core;
use crate::effect::{Callback, Effect};
use crate::snapshot::TaskKind;
use crate::store::record::Initialize;

/// What they were told, and what is still to tell.
#[derive(Debug, Clone, Default)]
pub(super) struct Callbacks {
    /// The role of which they know.
    role: Option<&'static str>,
    /// PostgreSQL has ended since.
    ended: bool,
    /// By our own doing.
    stopped: bool,
    /// For a restart.
    restarted: bool,
    /// It has read its configuration again.
    pub(super) reloaded: bool,
}

impl Core {
    /// No process of PostgreSQL is left.
    pub(super) fn callback_stopped(&mut self) {
        if self.server.running {
            self.callbacks.ended = true;
            self.callbacks.restarted = self.restarting();
            self.callbacks.stopped =
                !self.callbacks.restarted && self.task.as_ref().is_some_and(|(_, job, _)| job.kind() == TaskKind::Stop);
        }
    }

    pub(super) fn call_back(&mut self, effects: &mut Vec<Effect>) {
        let mut call = |action: Callback, role: &str| effects.push(Effect::Callback { action, role: role.to_owned() });
        if std::mem::take(&mut self.callbacks.stopped)
            && let Some(role) = self.callbacks.role
        {
            call(Callback::Stop, role);
        }
        if !self.server.running || self.server.status.is_none() {
            self.callbacks.reloaded = false;
            return;
        }
        if matches!(self.initialize(), Initialize::Racing { .. }) {
            return;
        }
        let role = self.role();
        let action = match self.callbacks.role {
            None => Some(Callback::Start),
            Some(known) if known != role => Some(Callback::RoleChange),
            Some(_) if self.callbacks.restarted => Some(Callback::Restart),
            Some(_) if self.callbacks.ended => Some(Callback::Start),
            Some(_) => std::mem::take(&mut self.callbacks.reloaded).then_some(Callback::Reload),
        };
        if let Some(action) = action {
            call(action, role);
            self.callbacks = Callbacks { role: Some(role), ..Callbacks::default() };
        }
    }
}
