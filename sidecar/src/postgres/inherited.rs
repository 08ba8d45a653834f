//! What a data directory brings along from Patroni, whose parameters and rules need not all be in the configuration: the
//! postgresql.conf from before Patroni, which Patroni keeps as postgresql.base.conf and includes, and, where nobody configures any,
//! the rules of its `pg_hba.conf`.

use std::path::PathBuf;

use super::conf::{HEADER, Place};
use crate::supervisor::{CallError, Supervisor};

/// postgresql.base.conf where Patroni has not made one. Patroni, should it come back, would keep our postgresql.conf by that name and
/// include it for ever, with settings that are true for a moment only.
const STUB: &str = "# There was no configuration before Matriarch's.\n";

/// What is kept of it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Inherited {
    /// Patroni ran here: its postgresql.base.conf is included.
    pub base: bool,
    /// Lines of the `pg_hba.conf` that was there.
    pub rules: Vec<String>,
}

impl Place {
    /// Rules that are nowhere else.
    fn inherited_hba(&self) -> PathBuf {
        self.data_dir.join("pg_hba.base.conf")
    }
}

/// Looks at the directory before its files are written, and keeps what would be lost then.
pub async fn look(supervisor: &Supervisor, place: &Place) -> Result<Inherited, CallError> {
    match supervisor.read(place.base_conf()).await? {
        // Somebody wrote it, as on Debian; Patroni keeps it by that name as well.
        None if place.elsewhere()
            && let Some(text) = supervisor.read(place.conf()).await?.filter(|text| !text.starts_with(HEADER)) =>
        {
            supervisor.write(place.base_conf(), text, 0o600).await?;
        }
        None => {
            supervisor.write(place.base_conf(), STUB.to_owned(), 0o600).await?;
            return Ok(Inherited::default());
        }
        Some(text) if text == STUB => return Ok(Inherited::default()),
        Some(_) => {}
    }
    let text = match supervisor.read(place.inherited_hba()).await? {
        Some(kept) => kept,
        None => match supervisor.read(place.hba()).await?.filter(|text| !text.starts_with(HEADER)) {
            Some(theirs) => {
                supervisor.write(place.inherited_hba(), theirs.clone(), 0o600).await?;
                theirs
            }
            None => String::new(),
        },
    };
    Ok(Inherited { base: true, rules: rules(&text) })
}

/// Lines that say something.
fn rules(text: &str) -> Vec<String> {
    let lines = text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#'));
    lines.map(str::to_owned).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_lines_that_say_something_are_rules() {
        assert_eq!(rules("# TYPE\n\n local all all peer \nhost all all 10.0.0.0/8 md5\n").len(), 2);
    }
}
