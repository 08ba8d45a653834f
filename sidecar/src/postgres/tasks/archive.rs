//! Before a directory is rewound: what its archiver had still to do is done, for pg_rewind removes it.

use std::collections::BTreeMap;

use matriarch_supervisor::protocol::{FileOp, UserCommand};

use super::super::{Error, Postgres, conf};

impl Postgres {
    /// Segments that wait for the archiver (`.ready`) are archived. What cannot be is told, and stops nothing: the leader has all that
    /// counts.
    pub(super) async fn archive_ready(&self) -> Result<(), Error> {
        let settings = self.settings();
        let Some(command) = &settings.archive_command else { return Ok(()) };
        let wal = self.place.data_dir.join("pg_wal");
        let status = wal.join("archive_status");
        for ready in self.supervisor.list(status.clone()).await?.unwrap_or_default() {
            let Some(name) = ready.strip_suffix(".ready") else { continue };
            let line = substituted(command, &wal.join(name).to_string_lossy(), name);
            let argv = ["/bin/sh".to_owned(), "-c".to_owned(), line].to_vec();
            let done = self.supervisor.command(UserCommand { argv, env: BTreeMap::new(), data_dir: None }).await?;
            if !done.success() {
                tracing::warn!("{name} could not be archived before the rewind: {}", done.reason());
                return Ok(());
            }
            self.supervisor.file(FileOp::Remove { path: status.join(format!("{name}.done")) }).await?;
            self.supervisor
                .file(FileOp::Rename { from: status.join(&ready), to: status.join(format!("{name}.done")) })
                .await?;
        }
        Ok(())
    }

    /// `pg_rewind` reads restore_command from the directory's own configuration.
    pub(super) async fn write_recovery(&self) -> Result<(), Error> {
        let text = self.supervisor.read(self.place.conf()).await?.unwrap_or_default();
        let recovery = self.settings().recovery.clone();
        let ours = |line: &str| recovery.keys().any(|name| line.starts_with(&format!("{name} ")));
        let mut kept: String = text.lines().filter(|line| !ours(line)).flat_map(|line| [line, "\n"]).collect();
        kept.push_str(&conf::assignments(&recovery));
        self.files.forget();
        Ok(self.supervisor.write(self.place.conf(), kept, 0o600).await?)
    }
}

/// `%p` the path, `%f` the file's name, `%%` a percent sign.
fn substituted(command: &str, path: &str, name: &str) -> String {
    let mut out = String::new();
    let mut rest = command.chars();
    while let Some(c) = rest.next() {
        match (c, rest.clone().next()) {
            ('%', Some('p')) => out.push_str(path),
            ('%', Some('f')) => out.push_str(name),
            ('%', Some('%')) => out.push('%'),
            _ => {
                out.push(c);
                continue;
            }
        }
        rest.next();
    }
    out
}

#[cfg(test)]
mod tests {
    #[test]
    fn placeholders_are_postgresqls() {
        assert_eq!(super::substituted("cp %p /a/%f; date +%%s %x", "/w/0A", "0A"), "cp /w/0A /a/0A; date +%s %x");
    }
}
