//! The history of timelines in the `history` key: when which timeline ended, where, why, and who led the next one. Patroni's format:
//! `[timeline, lsn, reason, timestamp, new leader]`, the last two only where they are known.

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::types::{Lsn, Timeline};

/// One timeline's end.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Line {
    /// The timeline that ended.
    pub timeline: Timeline,
    /// Where.
    pub lsn: Lsn,
    /// PostgreSQL's words.
    pub reason: String,
    /// When the next one began, as it was written.
    pub at: Option<String>,
    /// Who led it.
    pub leader: Option<String>,
}

/// What is stored.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct History {
    text: Option<String>,
    lines: Vec<Line>,
}

impl History {
    /// The key as it is now; taken apart only when it changed.
    pub fn read(&mut self, text: Option<&str>) {
        if self.text.as_deref() != text {
            self.text = text.map(str::to_owned);
            let lines: Vec<Value> = text.and_then(|t| serde_json::from_str(t).ok()).unwrap_or_default();
            self.lines = lines.iter().filter_map(line).collect();
        }
    }

    /// The cluster's timeline, 0 where nothing is stored.
    pub fn timeline(&self) -> Timeline {
        match (self.lines.last(), &self.text) {
            (Some(last), _) => Timeline(last.timeline.0.saturating_add(1)),
            (None, Some(_)) => Timeline(1),
            (None, None) => Timeline(0),
        }
    }

    /// The timelines that ended.
    pub fn lines(&self) -> &[Line] {
        &self.lines
    }

    /// What the leader on `timeline` has still to write needs its history file.
    pub fn lacks(&self, timeline: Timeline) -> bool {
        timeline.0 > 1
            && self
                .lines
                .last()
                .is_none_or(|last| last.timeline.0.saturating_add(1) != timeline.0 || last.leader.is_none())
    }

    /// What is to be written by `leader`, whose history file has `file`: what is stored of lines that are the same is kept. `limit`
    /// is `max_timelines_history`, 0: all.
    pub fn merged(&self, file: Vec<Line>, leader: &str, limit: usize) -> Vec<Line> {
        let mut lines = file;
        if limit > 0 && lines.len() > limit {
            lines.drain(..lines.len() - limit);
        }
        for line in &mut lines {
            let stored = self.lines.iter().find(|s| s.timeline == line.timeline && s.lsn == line.lsn);
            if let Some(stored) = stored {
                line.at = stored.at.clone().or(line.at.take());
                line.leader.clone_from(&stored.leader);
            }
        }
        if let Some(last) = lines.last_mut() {
            last.leader.get_or_insert_with(|| leader.to_owned());
        }
        lines
    }
}

/// The key's text.
pub fn text(lines: &[Line]) -> String {
    let lines: Vec<Value> = lines
        .iter()
        .map(|line| {
            let mut row = vec![json!(line.timeline), json!(line.lsn), json!(line.reason)];
            row.extend(line.at.iter().map(|at| json!(at)));
            // Without a time the leader's place would be another one's.
            row.extend(line.leader.iter().filter(|_| line.at.is_some()).map(|leader| json!(leader)));
            Value::Array(row)
        })
        .collect();
    Value::Array(lines).to_string()
}

fn line(value: &Value) -> Option<Line> {
    let row = value.as_array()?;
    let text = |i: usize| row.get(i).and_then(Value::as_str).map(str::to_owned);
    Some(Line {
        timeline: Timeline(u32::try_from(row.first()?.as_u64()?).ok()?),
        lsn: Lsn(row.get(1)?.as_u64()?),
        reason: text(2).unwrap_or_default(),
        at: text(3),
        leader: text(4),
    })
}

/// A history file of PostgreSQL: `1<tab>0/3000060<tab>no recovery target specified`. The last line's time is the file's.
pub fn parse_file(content: &str, at: Option<String>) -> Vec<Line> {
    let mut lines: Vec<Line> = content
        .lines()
        .filter_map(|line| {
            let mut parts = line.trim().splitn(3, char::is_whitespace);
            let timeline = Timeline(parts.next()?.parse().ok()?);
            let lsn = parts.next()?.parse().ok()?;
            Some(Line {
                timeline,
                lsn,
                reason: parts.next().unwrap_or_default().trim().to_owned(),
                at: None,
                leader: None,
            })
        })
        .collect();
    if let Some(last) = lines.last_mut() {
        last.at = at;
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    const STORED: &str = r#"[[1,100663456,"no recovery target specified","2024-01-01T00:00:00+00:00","x-1"],[2,117440672,"no recovery target specified"]]"#;

    fn stored(text: &str) -> History {
        let mut history = History::default();
        history.read(Some(text));
        history
    }

    #[test]
    fn what_patroni_wrote_is_read_and_written_the_same() {
        let history = stored(STORED);
        assert_eq!((history.lines().len(), history.timeline()), (2, Timeline(3)));
        assert_eq!(history.lines()[0].leader.as_deref(), Some("x-1"));
        assert_eq!(text(history.lines()), STORED);
        assert_eq!(stored("[]").timeline(), Timeline(1));
        assert_eq!(History::default().timeline(), Timeline(0));
        assert_eq!(stored("nonsense").lines(), []);
    }

    #[test]
    fn a_promotion_adds_its_line_and_keeps_what_is_known_of_the_others() {
        let file = "1\t0/6000060\tno recovery target specified\n\n2\t0/7000060\tno recovery target specified\n3\t0/8000000\tx y\n";
        let lines = parse_file(file, Some("2024-06-01T00:00:00+00:00".into()));
        assert_eq!((lines.len(), lines[2].lsn, lines[2].reason.as_str()), (3, Lsn(0x800_0000), "x y"));
        let history = stored(r#"[[1,100663392,"r","2024-01-01T00:00:00+00:00","x-1"],[2,5,"other branch","t","x-9"]]"#);
        assert!(history.lacks(Timeline(4)) && !history.lacks(Timeline(3)) && !history.lacks(Timeline(1)));
        let merged = history.merged(lines.clone(), "x-2", 0);
        assert_eq!(merged[0].leader.as_deref(), Some("x-1"));
        assert_eq!(merged[1].leader, None, "the same number, but another branch");
        assert_eq!((merged[2].leader.as_deref(), merged[2].at.is_some()), (Some("x-2"), true));
        assert!(!stored(&text(&merged)).lacks(Timeline(4)));
        assert_eq!(history.merged(lines, "x-2", 1).len(), 1);
    }
}
