//! The workload and its checker with a real PostgreSQL: a clean run passes; a row that is deleted behind its back, and
//! two servers that both take writes, are noticed.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by a panic")]

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use matriarch_e2e::host::run::run;
use matriarch_e2e::workload::{Database, Promise, Workload};

const SOON: Duration = Duration::from_secs(20);

/// A PostgreSQL of its own, ended and removed when dropped.
struct Postgres {
    folder: PathBuf,
    address: &'static str,
    port: u16,
    bin: PathBuf,
    process: Option<Child>,
}

impl Postgres {
    fn new(address: &'static str, port: u16) -> Option<Self> {
        let bin = std::fs::read_dir("/usr/lib/postgresql").into_iter().flatten().flatten().next();
        let Some(bin) = bin.map(|entry| entry.path().join("bin")) else {
            assert!(std::env::var_os("MATRIARCH_REQUIRE_POSTGRES").is_none(), "there is no PostgreSQL");
            eprintln!("\n*** SKIPPED: there is no PostgreSQL in /usr/lib/postgresql\n");
            return None;
        };
        let folder = std::env::temp_dir().join(format!("matriarch-workload-{}-{address}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        if is_root() {
            run(&["chown", "postgres", &folder.display().to_string()]).unwrap();
        }
        let data = folder.join("data").display().to_string();
        let initdb = bin.join("initdb").display().to_string();
        std::fs::write(folder.join("password"), "secret\n").unwrap();
        let password = folder.join("password").display().to_string();
        let words = [&initdb, "-D", &data, "-U", "app", "--auth=scram-sha-256", "--pwfile", &password, "--no-sync"];
        run(&[unprivileged().as_slice(), &words].concat()).unwrap();
        let mut postgres = Self { folder, address, port, bin, process: None };
        postgres.start();
        Some(postgres)
    }

    fn start(&mut self) {
        let words = unprivileged();
        let program = self.bin.join("postgres");
        let mut command = match words.split_first() {
            Some((first, rest)) => {
                let mut command = Command::new(first);
                command.args(rest).arg(program);
                command
            }
            None => Command::new(program),
        };
        command.arg("-D").arg(self.folder.join("data")).args(["-h", self.address, "-p", &self.port.to_string(), "-F"]);
        command.arg("-k").arg(&self.folder).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        self.process = Some(command.spawn().unwrap());
    }

    fn kill(&mut self) {
        if let Some(mut process) = self.process.take() {
            run(&["kill", "-QUIT", &process.id().to_string()]).unwrap();
            process.wait().unwrap();
        }
    }

    fn database(&self) -> Database {
        Database {
            address: self.address.to_owned(),
            port: self.port,
            server_port: self.port,
            user: "app".to_owned(),
            password: "secret".to_owned(),
            dbname: "postgres".to_owned(),
        }
    }

    fn file(&self) -> PathBuf {
        self.folder.join("workload.jsonl")
    }
}

impl Drop for Postgres {
    fn drop(&mut self) {
        self.kill();
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}

fn is_root() -> bool {
    rustix::process::getuid().is_root()
}

fn unprivileged() -> Vec<&'static str> {
    if is_root() { vec!["setpriv", "--reuid=postgres", "--regid=postgres", "--clear-groups"] } else { Vec::new() }
}

fn free_port() -> u16 {
    std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

async fn start(postgres: &Postgres, name: &str, file: &Path) -> Workload {
    let workload = Workload::start(postgres.database(), None, name, file).await.unwrap();
    workload.writable(SOON).await.unwrap();
    workload
}

#[tokio::test(flavor = "multi_thread")]
async fn the_checker_sees_what_happens_to_a_real_postgresql() {
    let Some(mut postgres) = Postgres::new("127.0.0.1", free_port()) else { return };
    let file = postgres.file();

    let workload = start(&postgres, "clean", &file).await;
    // As many as are asked for below, however slow the machine is.
    for _ in 0..1_000 {
        if workload.history().attempts().iter().filter(|one| one.acknowledged().is_some()).count() > 20 {
            break;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let verdict = workload.finish().await.unwrap();
    assert_eq!(verdict.failures(Promise::QUORUM), Vec::<String>::new());
    assert!(verdict.acknowledged > 20 && verdict.unknown == 0, "{verdict:?}");
    assert_eq!(std::fs::read_to_string(&file).unwrap().lines().count(), verdict.acknowledged);

    // A crash: a gap, and nothing lost.
    let workload = start(&postgres, "crash", &file).await;
    postgres.kill();
    tokio::time::sleep(Duration::from_millis(500)).await;
    postgres.start();
    workload.writable(SOON).await.unwrap();
    let verdict = workload.finish().await.unwrap();
    assert_eq!(verdict.failures(Promise::QUORUM), Vec::<String>::new());
    assert!(verdict.gap_length() > Duration::from_millis(500), "{:?}", verdict.gap);
    assert!(verdict.unknown > 0, "{verdict:?}");

    // A row is lost.
    let workload = start(&postgres, "lossy", &file).await;
    let sql = "DELETE FROM workload WHERE (run, client, seq) IN (SELECT run, client, seq FROM workload WHERE run = 'lossy' LIMIT 1)";
    postgres.database().query(sql, SOON).await.unwrap();
    let verdict = workload.finish().await.unwrap();
    assert_eq!(verdict.lost.len(), 1);
    assert!(verdict.failures(Promise::QUORUM)[0].starts_with("1 acknowledged writes lost"), "{verdict:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_checker_sees_two_servers_that_take_writes() {
    let port = free_port();
    let Some(one) = Postgres::new("127.0.0.2", port) else { return };
    let Some(other) = Postgres::new("127.0.0.3", port) else { return };
    let workload = start(&one, "split", &one.file()).await;
    other.database().prepare(SOON).await.unwrap();
    workload.watch_pod(None, other.address).unwrap();
    workload.watch_pod(None, other.address).unwrap();
    workload.acknowledged("write to the other", SOON, |write| write.server.address == other.address).await.unwrap();
    tokio::time::sleep(Duration::from_millis(300)).await;
    let verdict = workload.finish().await.unwrap();
    assert_eq!(verdict.overlaps.len(), 1, "{verdict:?}");
    assert!(verdict.overlaps[0].length > Duration::from_millis(200), "{verdict:?}");
    assert!(!verdict.lost.is_empty(), "the other's rows are not behind the Service");
}
