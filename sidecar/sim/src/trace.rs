//! The last lines of a run: one a change of state, with a column a member.

use std::collections::VecDeque;

use matriarch_ha::fence::Permit;

use crate::world::World;

/// Kept lines.
const LINES: usize = 4_000;

#[derive(Debug)]
pub(crate) struct Trace {
    lines: VecDeque<String>,
}

impl Trace {
    pub(crate) fn new() -> Self {
        Self { lines: VecDeque::new() }
    }

    pub(crate) fn line(&mut self, now: u64, text: &str, world: &World) {
        let members: Vec<String> = world.nodes.iter().map(|n| column(n, world)).collect();
        if self.lines.len() == LINES {
            self.lines.pop_front();
        }
        let text: String = text.chars().take(130).collect();
        self.lines.push_back(format!(
            "{:4}.{:03} {text:<130} | {}",
            now / 1_000_000,
            now / 1000 % 1000,
            members.join(" | ")
        ));
    }

    pub(crate) fn into_lines(self) -> Vec<String> {
        self.lines.into()
    }
}

/// `pri tl5 1A0 p6496`: role, timeline, position, milliseconds left of the permit.
fn column(n: &crate::world::Node, world: &World) -> String {
    use crate::world::pm_letters;
    let role = pm_letters(n);
    let permit = match n.supervisor.fence.granted() {
        Permit::Never => "-".to_owned(),
        Permit::Lifted => "lifted".to_owned(),
        Permit::Until(at) => (at.saturating_sub(n.clock.boot(world.now).0) / 1000).to_string(),
    };
    let latch = if n.supervisor.fence.latched() { "!" } else { "" };
    let timeline = world.wal.timeline(n.disk.written.branch);
    format!("{role} tl{timeline} {} p{permit}{latch}", n.disk.written.lsn)
}
