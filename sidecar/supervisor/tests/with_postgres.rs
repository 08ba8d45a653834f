//! The supervisor with a real PostgreSQL. Needs `initdb` and `psql` in PATH or in Debian's folder; run as root it also
//! needs a user `postgres` and setpriv. `MATRIARCH_REQUIRE_POSTGRES=1` makes a missing one a failure. Prints what it
//! measured: `cargo test -p matriarch-supervisor --test with_postgres -- --nocapture`.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by it")]

mod common;

use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

use common::*;
use matriarch_supervisor::protocol::*;
use rustix::process::Signal;

/// PostgreSQL's programs.
fn bin_dir() -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let mut dirs: Vec<PathBuf> = std::env::split_paths(&path).collect();
    if let Ok(versions) = std::fs::read_dir("/usr/lib/postgresql") {
        dirs.extend(versions.flatten().map(|version| version.path().join("bin")));
    }
    // A link in PATH leads to the folder that has all of them.
    let mut found = dirs.iter().filter_map(|dir| Some(dir.join("postgres").canonicalize().ok()?.parent()?.to_owned()));
    found.find(|dir| dir.join("initdb").exists() && dir.join("psql").exists())
}

/// A supervisor with an initialized data directory, or none where there is no PostgreSQL.
fn world(init: bool) -> Option<World> {
    let Some(bin) = bin_dir() else {
        skip("no PostgreSQL");
        return None;
    };
    if init && !can_be_init() {
        skip("no right to make a pid namespace");
        return None;
    }
    let user = rustix::process::getuid().is_root().then(|| {
        let passwd = std::fs::read_to_string("/etc/passwd").unwrap();
        passwd.lines().find_map(|line| {
            let fields: Vec<&str> = line.split(':').collect();
            (fields[0] == "postgres").then(|| Some((fields[2].parse().ok()?, fields[3].parse().ok()?)))?
        })
    });
    if user == Some(None) {
        skip("PostgreSQL does not run as root, and there is no user postgres");
        return None;
    }
    let setup = Setup { path: Some(bin.display().to_string()), user: user.flatten(), init, ..Setup::default() };
    let world = World::new(setup);
    let mut client = world.client();
    let data_dir = world.data_dir();
    let args =
        ["-D", data_dir.to_str().unwrap(), "--no-sync", "--auth=trust", "-E", "UTF8", "--locale=C", "-U", "postgres"];
    let (answer, output) = client.run("initdb", &args, &[], "");
    assert_eq!(answer, OK, "{output}");
    Some(world)
}

impl World {
    fn sockets(&self) -> String {
        self.dir.join("sockets").display().to_string()
    }

    fn server(&self, role: StartRole) -> Start {
        let settings = [
            format!("unix_socket_directories={}", self.sockets()),
            "listen_addresses=".to_owned(),
            "fsync=off".to_owned(),
            "shared_buffers=8MB".to_owned(),
        ];
        Start {
            args: settings.into_iter().flat_map(|setting| ["-c".to_owned(), setting]).collect(),
            ..self.start(role)
        }
    }

    /// `pg_ctl`, as a person runs it: what it starts is nobody's child.
    fn by_hand(&self, arguments: &[&str]) {
        let mut command = self.as_user(bin_dir().unwrap().join("pg_ctl").to_str().unwrap());
        command
            .arg("-D")
            .arg(self.data_dir())
            .args(arguments)
            .current_dir("/")
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        assert!(command.status().unwrap().success(), "{arguments:?}");
    }

    /// A session beside the supervisor, as an application has it.
    fn psql(&self, sql: &str) -> Command {
        let mut command = Command::new(bin_dir().unwrap().join("psql"));
        command.args(["-XAtq", "-v", "ON_ERROR_STOP=1", "-h", &self.sockets(), "-U", "postgres", "-c", sql]);
        command.env("PGCONNECT_TIMEOUT", "3").stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null());
        command
    }

    /// A program of the supervisor's user.
    fn as_user(&self, program: &str) -> Command {
        let mut command = match self.setup.user {
            Some((uid, gid)) => {
                let mut command = Command::new("setpriv");
                command.args([format!("--reuid={uid}"), format!("--regid={gid}")]).args(["--clear-groups", program]);
                command
            }
            None => Command::new(program),
        };
        command.stdin(Stdio::null());
        command
    }

    fn query(&self, sql: &str) -> Option<String> {
        let output = self.psql(sql).output().unwrap();
        output.status.success().then(|| String::from_utf8_lossy(&output.stdout).trim().to_owned())
    }

    fn accepts(&self) {
        until("it accepts connections", 30, || self.query("select 1"));
    }

    /// Sessions that notice nothing by themselves: one computes, one sleeps.
    fn busy_sessions(&self) -> Vec<Child> {
        let sessions =
            ["do $$ begin loop end loop; end $$", "select pg_sleep(1000)"].map(|sql| self.psql(sql).spawn().unwrap());
        let count = "select count(*) from pg_stat_activity where state = 'active' and pid <> pg_backend_pid()";
        until("they are busy", 10, || (self.query(count)? == "2").then_some(()));
        sessions.into()
    }

    /// PostgreSQL's processes of this data directory: every one has it as its working directory.
    fn left(&self) -> Vec<u32> {
        processes_in(&self.data_dir())
    }

    /// The postmaster as the test sees it, also in a pid namespace of its own.
    fn postmaster(&self) -> u32 {
        let line = |pid: u32| std::fs::read_to_string(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        self.left().into_iter().find(|pid| line(*pid).contains("\0-D\0")).unwrap()
    }

    fn primary(&self, client: &mut Client, permit_ms: u64) -> Postmaster {
        client.permit_ms(permit_ms);
        let postmaster = client.started(self.server(StartRole::Primary));
        self.accepts();
        postmaster
    }

    fn standby_signal(&self, client: &mut Client) {
        let path = self.data_dir().join("standby.signal");
        let write = Request::File(FileOp::Write { path, content: String::new(), mode: 0o600 });
        assert_eq!(client.call(write), Answer::Ok);
    }
}

fn end(sessions: Vec<Child>) {
    for mut session in sessions {
        let _ = session.kill();
        session.wait().unwrap();
    }
}

const FAST: Request = Request::Stop { mode: StopMode::Fast, timeout_ms: 20_000 };

/// Lets the permit of a busy primary end: gives K.
fn fence(init: bool, stopped: &str) -> Option<u64> {
    let world = world(init)?;
    let mut client = world.client();
    world.primary(&mut client, 60_000);
    world.query("create table t (a int); insert into t values (1)").unwrap();
    let sessions = world.busy_sessions();
    match stopped {
        "postmaster" => send_signal(world.postmaster(), Signal::STOP),
        "all" => world.left().into_iter().for_each(|pid| send_signal(pid, Signal::STOP)),
        _ => {}
    }
    let seq = client.status().permit_seq + 1;
    let deadline_us = now() + 300_000;
    assert_eq!(client.call(Request::Permit { seq, deadline_us }), Answer::Ok);
    let gone = until("no process is left", 5, || world.left().is_empty().then(now));
    let exited = client.exited(5);
    end(sessions);
    assert!(exited.fenced && client.notices[0] == Notice::Fencing { deadline_us });
    assert!(exited.at_us > deadline_us);
    let k = exited.at_us - deadline_us;
    println!(
        "K of PostgreSQL (process 1: {init}, stopped: {stopped}): {k} us; seen from outside {} us",
        gone - deadline_us
    );
    assert!(k < K_US && gone - deadline_us < K_US);
    Some(k)
}

#[test]
fn the_fence_ends_a_busy_primary() {
    fence(false, "nothing");
    fence(true, "nothing");
}

#[test]
fn the_fence_ends_a_primary_whose_postmaster_is_stopped() {
    fence(false, "postmaster");
    fence(true, "postmaster");
}

#[test]
fn the_fence_ends_a_primary_that_is_stopped_as_a_whole() {
    fence(false, "all");
    fence(true, "all");
}

#[test]
fn a_killed_postmaster_leaves_no_busy_session_behind() {
    for init in [false, true] {
        let Some(world) = world(init) else { return };
        let mut client = world.client();
        world.primary(&mut client, 60_000);
        let sessions = world.busy_sessions();
        let killed = now();
        send_signal(world.postmaster(), Signal::KILL);
        let exited = client.exited(5);
        assert_eq!(world.left(), [0; 0]);
        end(sessions);
        println!("busy orphans were gone after {} us (process 1: {init})", exited.at_us - killed);
        assert!(!exited.fenced && exited.signal == Some(9) && exited.at_us - killed < 500_000);
        // What it left behind does not keep the next one from starting.
        client.started(world.server(StartRole::Primary));
        world.accepts();
    }
}

#[test]
fn starts_promotes_and_stops() {
    let Some(world) = world(false) else { return };
    let mut client = world.client();
    world.standby_signal(&mut client);
    let standby = client.started(world.server(StartRole::Standby));
    world.accepts();
    assert_eq!(world.query("select pg_is_in_recovery()").unwrap(), "t");
    assert_eq!(refusal(&client.call(Request::Promote)), Refusal::NoPermit);
    client.permit_ms(100);
    sleep_ms(200);
    assert_eq!(refusal(&client.call(Request::Promote)), Refusal::NoPermit);
    sleep_ms(500);
    assert_eq!(client.status().postmaster, Some(standby.clone()), "a standby needs no permit");
    assert_eq!(world.query("select pg_is_in_recovery()").unwrap(), "t");
    client.permit_ms(60_000);
    let begun = now();
    assert_eq!(client.call(Request::Promote), Answer::Ok);
    until("it is promoted", 10, || (world.query("select pg_is_in_recovery()")? == "f").then_some(()));
    println!("promoted within {} us", now() - begun);
    let status = client.status();
    assert!(status.latched && status.postmaster == Some(standby));
    assert_eq!(client.call(Request::Reload), Answer::Ok);
    assert_eq!(client.call(FAST), Answer::Ok);
    let exited = client.exited(1);
    assert_eq!((exited.code, exited.fenced), (Some(0), false));
    assert_eq!(world.left(), [0; 0]);
    let data_dir = world.data_dir();
    let (answer, output) = client.run("pg_controldata", &["-D", data_dir.to_str().unwrap()], &[("LC_ALL", "C")], "");
    assert_eq!(answer, OK);
    assert!(output.contains("shut down"), "{output}");
}

#[test]
fn a_promotion_in_flight_is_fenced() {
    let Some(world) = world(false) else { return };
    let mut client = world.client();
    world.standby_signal(&mut client);
    client.started(world.server(StartRole::Standby));
    world.accepts();
    let deadline = client.permit_ms(300);
    assert_eq!(client.call(Request::Promote), Answer::Ok);
    let exited = client.exited(5);
    assert!(exited.fenced && exited.at_us - deadline < K_US);
    assert_eq!(world.left(), [0; 0]);
}

#[test]
fn signals_right_after_the_start_do_no_harm() {
    let Some(world) = world(false) else { return };
    let mut client = world.client();
    world.standby_signal(&mut client);
    client.permit_ms(60_000);
    client.started(world.server(StartRole::Standby));
    // Each is refused or obeyed, and never ends a postmaster that has no handlers yet.
    for _ in 0..20 {
        let reload = client.call(Request::Reload);
        assert!(reload == Answer::Ok || refusal(&reload) == Refusal::WrongState);
    }
    world.accepts();
    assert!(client.notices.is_empty());
}

#[test]
fn a_recycled_process_id_does_not_keep_it_from_starting() {
    let Some(world) = world(false) else { return };
    let mut client = world.client();
    // One of the same user is the one that PostgreSQL would respect.
    let sleeper = world.as_user("sleep").arg("100").stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    let strangers = [1, world.pid(), std::process::id(), sleeper.id()];
    for stranger in strangers {
        let postmaster = world.primary(&mut client, 60_000);
        let pid_file = world.data_dir().join("postmaster.pid");
        let lock_file = world.dir.join("sockets/.s.PGSQL.5432.lock");
        let texts = [&pid_file, &lock_file].map(|path| std::fs::read_to_string(path).unwrap());
        assert_eq!(client.call(Request::Stop { mode: StopMode::Immediate, timeout_ms: 0 }), Answer::Ok);
        for (path, text) in [&pid_file, &lock_file].into_iter().zip(&texts) {
            let text = text.replacen(&postmaster.pid.to_string(), &stranger.to_string(), 1);
            std::fs::write(path, text).unwrap();
            if let Some((uid, gid)) = world.setup.user {
                std::os::unix::fs::chown(path, Some(uid), Some(gid)).unwrap();
            }
        }
        client.started(world.server(StartRole::Primary));
        world.accepts();
        assert!(alive(stranger));
        assert_eq!(client.call(FAST), Answer::Ok);
    }
    end(vec![sleeper]);
}

#[test]
fn a_server_that_a_person_started_is_not_overrun() {
    let Some(world) = world(false) else { return };
    let mut client = world.client();
    let mut by_hand = world.as_user(&bin_dir().unwrap().join("postgres").display().to_string());
    by_hand.arg("-D").arg(world.data_dir()).args(world.server(StartRole::Primary).args);
    let mut by_hand = by_hand.spawn().unwrap();
    world.accepts();
    client.permit_ms(60_000);
    assert_eq!(refusal(&client.call(Request::Start(world.server(StartRole::Primary)))), Refusal::WrongState);
    assert_eq!(world.query("select 1").unwrap(), "1");
    send_signal(by_hand.id(), Signal::INT);
    by_hand.wait().unwrap();
}

#[test]
fn two_supervisors_never_run_one_directory() {
    let Some(world) = world(false) else { return };
    let mut first = world.client();
    world.primary(&mut first, 60_000);
    let other = world.second();
    let mut second = other.client();
    second.permit_ms(60_000);
    assert_eq!(refusal(&second.call(Request::Start(world.server(StartRole::Primary)))), Refusal::Locked);
    let sessions = world.busy_sessions();
    // As long as one backend is left, the lock is held: also when the postmaster and its supervisor are gone.
    let backends = world.left();
    let worker = *backends.iter().find(|pid| **pid != world.postmaster()).unwrap();
    assert!(backends.len() > 5 && alive(worker));
    send_signal(world.pid(), Signal::KILL);
    sleep_ms(300);
    let busy = world.left();
    assert!(!busy.is_empty(), "the session that computes has not noticed");
    assert_eq!(refusal(&second.call(Request::Start(world.server(StartRole::Primary)))), Refusal::Locked);
    for pid in busy {
        send_signal(pid, Signal::KILL);
    }
    until("they are gone", 5, || world.left().is_empty().then_some(()));
    second.started(world.server(StartRole::Primary));
    world.accepts();
    end(sessions);
}

#[test]
fn terminating_without_an_agent_shuts_down_cleanly() {
    let Some(mut world) = world(true) else { return };
    let mut client = world.client();
    world.primary(&mut client, 60_000);
    drop(client);
    send_signal(world.pid(), Signal::TERM);
    assert_eq!(world.exit_code(10), Some(0));
    let control =
        Command::new(bin_dir().unwrap().join("pg_controldata")).env("LC_ALL", "C").arg(world.data_dir()).output();
    let control = String::from_utf8_lossy(&control.unwrap().stdout).into_owned();
    assert!(control.contains("state:               shut down\n"), "{control}");
}

#[test]
fn the_log_collector_writes_its_last_lines() {
    let Some(world) = world(false) else { return };
    let mut client = world.client();
    client.permit_ms(60_000);
    let mut start = world.server(StartRole::Primary);
    start.args.extend(["-c".to_owned(), "logging_collector=on".to_owned()]);
    client.started(start);
    world.accepts();
    let begun = now();
    assert_eq!(client.call(FAST), Answer::Ok);
    println!("a fast stop took {} us", now() - begun);
    assert_eq!(world.left(), [0; 0]);
    let log = std::fs::read_dir(world.data_dir().join("log")).unwrap().next().unwrap().unwrap().path();
    assert!(std::fs::read_to_string(log).unwrap().contains("database system is shut down"));
}

#[test]
fn is_small() {
    let Some(world) = world(false) else { return };
    let mut client = world.client();
    world.primary(&mut client, 60_000);
    let rollup = std::fs::read_to_string(format!("/proc/{}/smaps_rollup", world.pid())).unwrap();
    let lines: Vec<&str> = rollup.lines().filter(|line| line.starts_with("Pss:") || line.starts_with("Rss:")).collect();
    println!("memory: {lines:?}");
}

/// `pg_ctl restart` by a person: the new server is told of, comes under the fence with the next permit, and can be stopped.
#[test]
fn a_server_that_somebody_else_starts_is_taken_up() {
    let Some(world) = world(false) else { return };
    let mut client = world.client();
    world.primary(&mut client, 60_000);
    world.by_hand(&["stop", "-m", "fast", "-w"]);
    assert_eq!(client.exited(5).code, Some(0));
    // The agent takes the rest of the permit back: what starts now is not fenced at once, but its agent decides.
    let seq = client.status().permit_seq + 1;
    assert_eq!(client.call(Request::Permit { seq, deadline_us: 0 }), Answer::Ok);
    let options = format!("-c listen_addresses= -c unix_socket_directories={}", world.sockets());
    world.by_hand(&["start", "-w", "-l", "/dev/null", "-o", &options]);
    let adopted = until("it is told", 5, || {
        client.pump();
        client.notices.iter().find_map(|notice| match notice {
            Notice::Adopted(postmaster) => Some(postmaster.clone()),
            _ => None,
        })
    });
    assert_eq!(adopted.pid, world.postmaster());
    assert_eq!((client.status().postmaster, client.status().latched), (Some(adopted.clone()), false));
    let again = client.call(Request::Start(world.server(StartRole::Primary)));
    assert_eq!(refusal(&again), Refusal::WrongState);
    assert_eq!(client.call(Request::Reload), Answer::Ok);
    // Under the fence as any other.
    client.notices.clear();
    client.permit_ms(400);
    assert!(client.status().latched);
    let exited = client.exited(5);
    assert!(exited.fenced && exited.postmaster == adopted, "{exited:?}");
    assert!(world.left().is_empty());
    // Once more, and stopped in order.
    world.by_hand(&["start", "-w", "-l", "/dev/null", "-o", &options]);
    until("it is taken up", 5, || client.status().postmaster);
    client.notices.clear();
    assert_eq!(client.call(FAST), Answer::Ok);
    assert!(!client.exited(5).fenced && world.left().is_empty());
}

/// Patroni was here before us, and has left its server: it is taken up without having been started by anybody that we know.
#[test]
fn a_server_that_was_there_before_us_is_taken_up() {
    let Some(mut world) = world(false) else { return };
    let options = format!("-c listen_addresses= -c unix_socket_directories={}", world.sockets());
    world.by_hand(&["start", "-w", "-l", "/dev/null", "-o", &options]);
    world.setup.told = true;
    let next = world.second();
    let mut client = next.client();
    let adopted = until("it is taken up", 5, || client.status().postmaster);
    assert_eq!((adopted.pid, client.status().latched), (world.postmaster(), false));
    client.permit_ms(400);
    let exited = client.exited(5);
    assert!(exited.fenced && exited.postmaster == adopted, "{exited:?}");
    assert!(world.left().is_empty());
}
