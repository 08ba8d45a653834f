//! A log file that is begun anew when it has grown long: `patroni.log`, `patroni.log.1` …, as Patroni's.

use std::fs::{File, OpenOptions, Permissions};
use std::io::{self, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::PathBuf;

use crate::config::log::LogFile;

/// Patroni's name of the file.
const NAME: &str = "patroni.log";

/// The file that is written.
pub struct Rotating {
    settings: LogFile,
    file: File,
    written: u64,
}

impl Rotating {
    /// Opens it; the folder must be there or makeable.
    pub fn open(settings: &LogFile) -> io::Result<Self> {
        std::fs::create_dir_all(&settings.dir)?;
        let file = append(settings.dir.join(NAME), settings.mode)?;
        let written = file.metadata()?.len();
        Ok(Self { settings: settings.clone(), file, written })
    }

    fn path(&self, number: usize) -> PathBuf {
        let name = if number == 0 { NAME.to_owned() } else { format!("{NAME}.{number}") };
        self.settings.dir.join(name)
    }

    fn rotate(&mut self) -> io::Result<()> {
        if self.settings.number == 0 {
            self.file.set_len(0)?;
        } else {
            for number in (0..self.settings.number).rev() {
                if self.path(number).exists() {
                    std::fs::rename(self.path(number), self.path(number + 1))?;
                }
            }
            self.file = append(self.path(0), self.settings.mode)?;
        }
        self.written = 0;
        Ok(())
    }
}

impl Write for Rotating {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        let length = line.len() as u64;
        // A size of 0 is no limit, as Python has it.
        if self.settings.size > 0 && self.written > 0 && self.written + length > self.settings.size {
            // A log that cannot be rotated is still a log.
            let _ = self.rotate();
        }
        self.file.write_all(line)?;
        self.written += length;
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

/// `mode`: permissions; none: as the umask has it.
fn append(path: PathBuf, mode: Option<u32>) -> io::Result<File> {
    let file = OpenOptions::new().create(true).append(true).mode(mode.unwrap_or(0o666)).open(path)?;
    if let Some(mode) = mode {
        file.set_permissions(Permissions::from_mode(mode))?;
    }
    Ok(file)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn so_many_old_files_are_kept() {
        let dir = std::env::temp_dir().join(format!("matriarch-log-{}", std::process::id()));
        let settings = LogFile { dir: dir.clone(), size: 10, number: 2, mode: Some(0o604) };
        let mut log = Rotating::open(&settings).unwrap();
        for line in ["first 8\n", "second8\n", "third.8\n", "fourth8\n"] {
            log.write_all(line.as_bytes()).unwrap();
        }
        let read = |name: &str| std::fs::read_to_string(dir.join(name)).unwrap();
        assert_eq!(
            [read("patroni.log"), read("patroni.log.1"), read("patroni.log.2")],
            ["fourth8\n", "third.8\n", "second8\n"]
        );
        assert!(!dir.join("patroni.log.3").exists());
        for name in ["patroni.log", "patroni.log.2"] {
            assert_eq!(std::fs::metadata(dir.join(name)).unwrap().permissions().mode() & 0o777, 0o604, "{name}");
        }
        std::fs::remove_dir_all(&dir).unwrap();
    }
}
