//! One folder for one member, and the folder of what runs.

use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixListener;

use super::*;

struct Dir(PathBuf);

impl Dir {
    fn new(name: &str) -> Self {
        let dir = std::env::temp_dir().join(format!("matriarch-config-dir-{}-{name}", std::process::id()));
        let _ = std::fs::remove_dir_all(&dir);
        for member in ["one", "two"] {
            std::fs::create_dir_all(dir.join(format!("{member}/data.matriarch"))).unwrap();
        }
        Self(dir)
    }

    fn member(&self, member: &str, config_dir: &str) -> Config {
        let dir = self.0.display();
        let text = format!(
            "scope: x\nname: {member}\nrestapi: {{listen: '127.0.0.1:8008'}}\npostgresql: {{listen: '127.0.0.1:5432', data_dir: {dir}/{member}/data, config_dir: '{config_dir}',
              authentication: {{superuser: {{password: a}}, replication: {{password: b}}}}}}"
        );
        Config::parse(Path::new("x.yml"), &text.replace("DIR", &dir.to_string()), |_| None).unwrap()
    }
}

impl Drop for Dir {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

#[test]
fn a_folder_is_one_members() {
    let dir = Dir::new("owner");
    let etc = dir.0.join("etc");
    let mut one = dir.member("one", "DIR/etc");
    assert_eq!((problem(&one), etc.exists()), (None, false));
    for _ in 0..2 {
        assert_eq!(settle(&mut one).unwrap(), Some(etc.clone()));
    }
    assert_eq!(problem(&one), None);
    let mut two = dir.member("two", "DIR/etc");
    let said = settle(&mut two).unwrap_err().to_string();
    assert!(said.contains("one/data has its configuration") && said.contains(".matriarch"), "{said}");
    assert!(problem(&two).unwrap().contains("one/data has its configuration"));
    assert!(!dir.0.join("two/data.matriarch/config_dir").exists(), "nothing is noted");
    // As Debian has it, before there was an agent.
    std::fs::remove_file(etc.join(".matriarch")).unwrap();
    let conf = format!("data_directory = '{}/two/data'\t\t# use data in another directory\n", dir.0.display());
    std::fs::write(etc.join("postgresql.conf"), conf).unwrap();
    assert!(settle(&mut one).unwrap_err().to_string().contains("two/data has its configuration"));
    assert_eq!(settle(&mut two).unwrap(), Some(etc));
}

#[test]
fn a_folder_that_cannot_be_is_told() {
    let dir = Dir::new("cannot");
    std::fs::write(dir.0.join("file"), "").unwrap();
    let mut one = dir.member("one", "DIR/file/etc");
    let said = settle(&mut one).unwrap_err().to_string();
    assert!(said.starts_with("postgresql.config_dir: ") && said.contains("writable for the agent's user"), "{said}");
    assert!(problem(&one).unwrap().contains("writable for the agent's user"));
    if !rustix::process::geteuid().is_root() {
        std::fs::create_dir(dir.0.join("closed")).unwrap();
        std::fs::set_permissions(dir.0.join("closed"), std::fs::Permissions::from_mode(0o500)).unwrap();
        settle(&mut dir.member("one", "DIR/closed")).unwrap_err();
    }
}

#[test]
fn what_runs_keeps_its_folder() {
    let dir = Dir::new("runs");
    let mut first = dir.member("one", "DIR/etc");
    settle(&mut first).unwrap();
    let listener = UnixListener::bind(&first.matriarch.supervisor_socket).unwrap();
    let mut moved = dir.member("one", "DIR/other");
    assert_eq!(settle(&mut moved).unwrap(), Some(dir.0.join("etc")));
    assert_eq!(moved.postgres.config_dir, dir.0.join("etc"));
    assert!(!dir.0.join("other").exists());
    // Also when its file is read again.
    let again = moved.with(&dir.member("one", "DIR/other").document).unwrap();
    assert_eq!(again.postgres.config_dir, dir.0.join("etc"));
    // Back into the data directory.
    let mut back = dir.member("one", "");
    assert_eq!(settle(&mut back).unwrap(), Some(dir.0.join("etc")));
    drop(listener);
    std::fs::remove_file(&first.matriarch.supervisor_socket).unwrap();
    let mut moved = dir.member("one", "DIR/other");
    assert_eq!(settle(&mut moved).unwrap(), Some(dir.0.join("other")));
    assert_eq!(settle(&mut dir.member("one", "")).unwrap(), None);
    // A supervisor of an agent that knew of no such folder.
    std::fs::remove_file(dir.0.join("one/data.matriarch/config_dir")).unwrap();
    let _listener = UnixListener::bind(&first.matriarch.supervisor_socket).unwrap();
    let mut new = dir.member("one", "/nonexistent/etc");
    assert_eq!(settle(&mut new).unwrap(), None);
    assert_eq!(new.postgres.config_dir, new.postgres.data_dir);
}

#[test]
fn a_data_directory_is_found_in_a_file() {
    assert_eq!(data_directory("data_directory = '/a b'  # x"), Some("/a b".to_owned()));
    assert_eq!(data_directory(" data_directory '/a'"), Some("/a".to_owned()));
    for line in ["#data_directory = '/a'", "data_directory = 'ConfigDir'", "data_directory_mode = '/x'", "x = '/a'"] {
        assert_eq!(data_directory(line), None, "{line}");
    }
}
