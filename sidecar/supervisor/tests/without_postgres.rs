//! The supervisor with a shell script in PostgreSQL's place: fast, and rougher than PostgreSQL ever is.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by it")]

mod common;

use std::collections::BTreeMap;
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;

use common::*;
use matriarch_supervisor::frame;
use matriarch_supervisor::protocol::*;
use rustix::process::Signal;

/// `FAKE` says how it behaves.
const FAKE_POSTGRES: &str = r#"#!/bin/sh
case "$1" in
  --version) echo "postgres (PostgreSQL) 15.99 (fake)"; exit 0 ;;
esac
case "$FAKE" in
  stubborn) # hears nothing, nor do its children, one of which has left its session and its parent
    trap '' INT QUIT TERM HUP
    ( setsid sleep 1000 & ) ; sleep 1000 & ;;
  forking) # makes new processes all the time
    trap '' INT QUIT TERM HUP
    while :; do ( ( setsid sleep 1000 & ) & ) ; sleep 0.01; done ;;
  busy) # its children do not see that it is gone
    ( trap '' QUIT; exec sleep 1000 ) & sleep 1000 & ;;
  early) exit 3 ;;
  daemon) # leaves behind what an archive_command may start
    ( setsid sleep 1000 & ) ; exit 0 ;;
  *)
    trap 'kill $!; exit 0' INT QUIT
    trap : USR1 HUP ;;
esac
while :; do sleep 1000 & wait $!; done
"#;

const TOOL: &str = r#"#!/bin/sh
case "$1" in
  echo) cat; printf 'args %s|' "$@"; printf ' err' >&2; exit 7 ;;
  env) env ;;
  flood) head -c 3000000 /dev/zero | tr '\0' x ;;
  sleep) sleep 1000 & wait ;;
esac
"#;

static ONCE: std::sync::Once = std::sync::Once::new();

/// A supervisor whose PATH has the fakes first, and a data directory that looks like one.
fn world(setup: Setup) -> World {
    let bin = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("fakes");
    ONCE.call_once(|| {
        std::fs::create_dir_all(&bin).unwrap();
        for (name, text) in [("postgres", FAKE_POSTGRES), ("initdb", TOOL), ("psql", TOOL)] {
            let new = bin.join(format!("{name}.{}", std::process::id()));
            std::fs::write(&new, text).unwrap();
            std::fs::set_permissions(&new, std::fs::Permissions::from_mode(0o755)).unwrap();
            std::fs::rename(&new, bin.join(name)).unwrap();
        }
    });
    let world = World::new(Setup { path: Some(bin.display().to_string()), ..setup });
    std::fs::create_dir_all(world.data_dir()).unwrap();
    std::fs::write(world.data_dir().join("PG_VERSION"), "15\n").unwrap();
    world
}

fn start(world: &World, fake: &str) -> Start {
    // The folder's name lets the test find every process that is left.
    let env = BTreeMap::from([
        ("FAKE".to_owned(), fake.to_owned()),
        ("WORLD".to_owned(), format!("{}-mark", world.dir.display())),
    ]);
    Start { env, ..world.start(StartRole::Primary) }
}

fn left(world: &World) -> Vec<u32> {
    processes_with(&format!("{}-mark", world.dir.display()))
}

fn write(path: PathBuf) -> Request {
    Request::File(FileOp::Write { path, content: "x".to_owned(), mode: 0o600 })
}

#[test]
fn says_hello_and_what_it_has() {
    let world = world(Setup::default());
    let hello = world.client().hello.unwrap();
    assert_eq!(hello.version.as_deref(), Some("postgres (PostgreSQL) 15.99 (fake)"));
    assert!(hello.bin_dir.unwrap().join("initdb").exists());
    assert_eq!(hello.instance.len(), 32);
    assert!(now() - hello.now_us < 5 * SECOND);
    let expected = Status {
        postmaster: None,
        last_exit: None,
        latched: false,
        deadline_us: Some(0),
        permit_seq: 0,
        terminating: false,
        tools: Vec::new(),
    };
    assert_eq!(hello.status, expected);
}

#[test]
fn hears_only_who_greets_it_rightly() {
    let world = world(Setup::default());
    let mut client = world.connect();
    assert_eq!(refusal(&client.call(Request::Status)), Refusal::Invalid);
    until("the end of the connection", 5, || (!client.pump()).then_some(()));

    let mut client = world.connect();
    let other_boot = Request::Hello { protocol: PROTOCOL, boot_id: "another".to_owned(), now_us: 0 };
    assert_eq!(refusal(&client.call(other_boot)), Refusal::Invalid);
    until("the end of the connection", 5, || (!client.pump()).then_some(()));

    let mut first = world.client();
    // A stranger without a greeting replaces nobody; a second agent does.
    let _stranger = world.connect();
    first.status();
    let mut second = world.client();
    until("the end of the older connection", 5, || (!first.pump()).then_some(()));
    second.status();
    let text = br#"{"id":77,"request":{"op":"from_the_future"}}"#;
    second.stream.write_all(&u32::try_from(text.len()).unwrap().to_be_bytes()).unwrap();
    second.stream.write_all(text).unwrap();
    assert_eq!(refusal(&second.wait(77)), Refusal::Invalid);
    second.status();
}

#[test]
fn hears_no_other_user() {
    let world = world(Setup { agent_uid: Some(rustix::process::getuid().as_raw() + 4711), ..Setup::default() });
    let mut client = world.connect();
    let _ = client.stream.write_all(&frame::encode(&Call { id: 1, request: Request::Status }).unwrap());
    until("the end of the connection", 5, || (!client.pump()).then_some(()));
    assert!(client.replies.is_empty());
}

#[test]
fn runs_tools() {
    let world = world(Setup::default());
    let mut client = world.client();
    let (answer, output) = client.run("psql", &["echo", "ä b"], &[], "input ");
    assert_eq!(answer, Answer::Done { code: Some(7), signal: None });
    assert!(output.contains("input ") && output.contains("args echo|args ä b|") && output.contains(" err"), "{output}");
    let (_, output) = client.run("psql", &["env"], &[("PGPASSWORD", "secret")], "");
    assert!(output.contains("PGPASSWORD=secret") && output.contains("PATH="), "{output}");
    assert!(!output.contains("KUBERNETES") && !output.contains("MATRIARCH"), "{output}");
    assert_eq!(refusal(&client.run("no_such_program", &[], &[], "").0), Refusal::NotFound);
    assert_eq!(refusal(&client.run("pg_ctl", &["start"], &[], "").0), Refusal::Invalid);
    assert_eq!(refusal(&client.run("../psql", &[], &[], "").0), Refusal::Invalid);
    let long = "y".repeat(700_000);
    let (answer, output) = client.run("psql", &["echo"], &[], &long);
    assert_eq!(answer, Answer::Done { code: Some(7), signal: None });
    assert_eq!(output.matches('y').count(), long.len());
    let (_, output) = client.run("psql", &["flood"], &[], "");
    assert_eq!(output.len(), 3_000_000);
}

#[test]
fn cancels_tools_also_those_of_an_earlier_agent() {
    let world = world(Setup::default());
    let mut client = world.client();
    let id = client.send(run_request("psql", &["sleep"], &[], ""));
    until("it runs", 5, || (!client.status().tools.is_empty()).then_some(()));
    assert_eq!(client.call(Request::Cancel { call: id }), Answer::Ok);
    assert_eq!(client.wait_for(id, 4), Answer::Done { code: None, signal: Some(15) });
    assert_eq!(refusal(&client.call(Request::Cancel { call: id })), Refusal::WrongState);

    let data_dir = world.data_dir();
    let id = client.send(run_request("initdb", &["sleep", "-D", data_dir.to_str().unwrap()], &[], ""));
    until("it runs", 5, || (!client.status().tools.is_empty()).then_some(()));
    drop(client);
    let mut client = world.client();
    let tool = Tool { call: id, program: "initdb".to_owned(), data_dir: Some(data_dir.clone()) };
    assert_eq!(client.status().tools, [tool]);
    // Its lock is held all the while, by the tool's own children as well.
    sleep_ms(200);
    let (again, _) = client.run("initdb", &["sleep", "-D", data_dir.to_str().unwrap()], &[], "");
    assert_eq!(refusal(&again), Refusal::Locked);
    let tree = FileOp::RemoveTree { path: data_dir };
    assert_eq!(refusal(&client.call(Request::File(tree))), Refusal::Locked);
    client.permit_ms(60_000);
    assert_eq!(refusal(&client.call(Request::Start(start(&world, "")))), Refusal::Locked);
    assert!(!client.status().latched, "what did not start needs no fence");
    assert_eq!(client.call(Request::Cancel { call: id }), Answer::Ok);
    until("it ended", 4, || client.status().tools.is_empty().then_some(()));
    client.started(start(&world, ""));
}

#[test]
fn starts_only_what_is_as_it_has_to_be() {
    let world = world(Setup::default());
    let mut client = world.client();
    let primary = || world.start(StartRole::Primary);
    assert_eq!(refusal(&client.call(Request::Start(primary()))), Refusal::NoPermit);
    client.permit_ms(60_000);
    let outside = Start { data_dir: "/tmp".into(), ..primary() };
    assert_eq!(refusal(&client.call(Request::Start(outside))), Refusal::Invalid);
    let missing = Start { data_dir: world.volume().join("none"), ..primary() };
    assert_eq!(refusal(&client.call(Request::Start(missing))), Refusal::NotFound);
    assert_eq!(refusal(&client.call(Request::Start(world.start(StartRole::Standby)))), Refusal::NotFound);
    assert_eq!(client.call(write(world.data_dir().join("standby.signal"))), Answer::Ok);
    assert_eq!(refusal(&client.call(Request::Start(primary()))), Refusal::NotFound);
    std::fs::set_permissions(world.data_dir(), std::fs::Permissions::from_mode(0o770)).unwrap();
    let postmaster = client.started(world.start(StartRole::Standby));
    assert_eq!(std::fs::metadata(world.data_dir()).unwrap().permissions().mode() & 0o777, 0o700);
    assert!(!client.status().latched);
    assert_eq!(client.status().postmaster, Some(postmaster));
    assert_eq!(refusal(&client.call(Request::Start(primary()))), Refusal::WrongState);
    for path in [world.data_dir(), world.data_dir().join("base")] {
        let tree = Request::File(FileOp::RemoveTree { path });
        assert_eq!(refusal(&client.call(tree)), Refusal::WrongState);
    }
    let stop = Request::Stop { mode: StopMode::Fast, timeout_ms: 5000 };
    sleep_ms(200);
    assert_eq!(client.call(stop.clone()), Answer::Ok);
    let exited = client.exited(1);
    assert_eq!((exited.code, exited.signal, exited.fenced), (Some(0), None, false));
    assert_eq!(refusal(&client.call(stop)), Refusal::WrongState);
}

#[test]
fn a_postmaster_that_ends_is_told_of_at_once() {
    let world = world(Setup::default());
    let mut client = world.client();
    client.permit_ms(60_000);
    client.started(start(&world, "early"));
    let exited = client.exited(5);
    assert_eq!((exited.code, exited.fenced), (Some(3), false));
    assert!(!client.status().latched);
    assert_eq!(client.status().last_exit, Some(exited));
}

#[test]
fn what_an_archive_command_left_running_does_not_delay_an_exit() {
    let world = world(Setup::default());
    let mut client = world.client();
    client.permit_ms(60_000);
    let postmaster = client.started(start(&world, "daemon"));
    let exited = client.exited(5);
    assert_eq!(left(&world), [0; 0]);
    assert_eq!(exited.code, Some(0));
    let took = exited.at_us - postmaster.started_us;
    assert!(took < 500_000, "{took} us");
}

/// The fence on one kind of postmaster: gives K.
fn fenced(init: bool, fake: &str, stopped: bool) -> u64 {
    let world = world(Setup { init, ..Setup::default() });
    let mut client = world.client();
    let deadline = client.permit_ms(400);
    client.started(start(&world, fake));
    sleep_ms(200);
    assert!(client.status().latched);
    assert!(!left(&world).is_empty());
    if stopped {
        for pid in left(&world) {
            send_signal(pid, Signal::STOP);
        }
    }
    let exited = client.exited(5);
    assert!(exited.fenced);
    assert_eq!(client.notices[0], Notice::Fencing { deadline_us: deadline });
    assert!(exited.at_us > deadline, "not before its time");
    assert_eq!(left(&world), [0; 0], "nothing is left");
    let k = exited.at_us - deadline;
    assert!(k < K_US, "{k} us");
    assert!(!client.status().latched);
    assert_eq!(refusal(&client.call(Request::Start(start(&world, fake)))), Refusal::NoPermit);
    println!("K of a {fake} fake (process 1: {init}, stopped: {stopped}): {k} us");
    k
}

#[test]
fn the_fence_stops_a_polite_one() {
    assert!(fenced(false, "polite", false) < 250_000);
}

#[test]
fn the_fence_stops_a_stubborn_one() {
    assert!(fenced(false, "stubborn", false) >= 300_000);
}

#[test]
fn the_fence_stops_a_stopped_one() {
    fenced(false, "polite", true);
}

#[test]
fn the_fence_stops_one_that_makes_processes_all_the_time() {
    fenced(false, "forking", false);
}

#[test]
fn the_fence_stops_all_as_process_one() {
    if !can_be_init() {
        return skip("no right to make a pid namespace");
    }
    fenced(true, "polite", false);
    fenced(true, "stubborn", false);
    fenced(true, "forking", false);
    fenced(true, "polite", true);
}

#[test]
fn a_permit_may_be_shortened_and_lifted_but_not_replayed() {
    let world = world(Setup::default());
    let mut client = world.client();
    client.permit_ms(60_000);
    client.started(start(&world, "polite"));
    let old = Request::Permit { seq: 1, deadline_us: 0 };
    assert_eq!(refusal(&client.call(old)), Refusal::Invalid);
    assert_eq!(client.call(Request::LiftFence { seq: 2 }), Answer::Ok);
    assert_eq!(client.status().deadline_us, None);
    let deadline = now() + 200_000;
    assert_eq!(client.call(Request::Permit { seq: 3, deadline_us: deadline }), Answer::Ok);
    let exited = client.exited(2);
    assert!(exited.fenced && exited.at_us >= deadline && exited.at_us < deadline + K_US);
}

#[test]
fn an_agent_that_reads_nothing_does_not_stop_the_fence() {
    let world = world(Setup::default());
    let mut client = world.client();
    let deadline = client.permit_ms(1500);
    client.started(start(&world, "stubborn"));
    client.send(run_request("psql", &["flood"], &[], ""));
    // More answers than any buffer takes.
    client.stream.set_write_timeout(Some(std::time::Duration::from_millis(300))).unwrap();
    let frame = frame::encode(&Call { id: 9, request: Request::Status }).unwrap();
    let mut sent = 0;
    while now() < deadline - 300_000 && client.stream.write_all(&frame).is_ok() {
        sent += 1;
    }
    until("the fence", 5, || (now() > deadline).then_some(()));
    let end = until("nothing is left", 5, || left(&world).is_empty().then(now));
    assert!(end - deadline < K_US + 50_000, "{} us", end - deadline);
    let mut next = world.client();
    let exit = next.status().last_exit.unwrap();
    println!("{sent} calls whose answers were not read; K {} us", exit.at_us - deadline);
    assert!(exit.fenced && exit.at_us - deadline < K_US);
}

#[test]
fn a_hanging_disk_does_not_stop_the_fence() {
    let world = world(Setup::default());
    let mut client = world.client();
    // Reading a pipe that nobody writes hangs as a dead disk does.
    let pipe = world.volume().join("pipe");
    std::process::Command::new("mkfifo").arg(&pipe).status().unwrap();
    let hanging = client.send(Request::File(FileOp::Read { path: pipe }));
    assert_eq!(client.call(write(world.volume().join("other"))), Answer::Ok);
    let deadline = client.permit_ms(300);
    client.started(start(&world, "polite"));
    let exited = client.exited(5);
    assert!(exited.fenced && exited.at_us - deadline < K_US);
    assert!(!client.replies.contains_key(&hanging));
    assert_eq!(client.call(Request::Cancel { call: hanging }), Answer::Ok);
    assert_eq!(refusal(&client.wait_for(hanging, 2)), Refusal::Io);
}

#[test]
fn a_thaw_past_the_deadline_closes_the_fence_at_once_unless_a_newer_permit_waits() {
    let world = world(Setup::default());
    let mut client = world.client();
    client.permit_ms(300);
    client.started(start(&world, "polite"));
    send_signal(world.pid(), Signal::STOP);
    sleep_ms(600);
    // The agent was not frozen, and has renewed.
    client.send(Request::Permit { seq: 2, deadline_us: now() + 700_000 });
    send_signal(world.pid(), Signal::CONT);
    assert!(client.status().postmaster.is_some(), "a permit that holds was in the socket");
    sleep_ms(100);
    send_signal(world.pid(), Signal::STOP);
    sleep_ms(1000);
    let thaw = now();
    send_signal(world.pid(), Signal::CONT);
    let exited = client.exited(2);
    assert!(exited.fenced && exited.at_us - thaw < 250_000, "{} us", exited.at_us - thaw);
}

#[test]
fn a_new_agent_finds_everything_as_it_was() {
    let world = world(Setup::default());
    let mut client = world.client();
    let deadline = client.permit_ms(900);
    let postmaster = client.started(start(&world, "polite"));
    let instance = client.hello.unwrap().instance;
    drop(client.stream);
    sleep_ms(100);
    let mut client = world.client();
    let hello = client.hello.clone().unwrap();
    assert_eq!(hello.instance, instance);
    assert_eq!(hello.status.postmaster, Some(postmaster));
    assert_eq!((hello.status.latched, hello.status.deadline_us, hello.status.permit_seq), (true, Some(deadline), 1));
    let exited = client.exited(5);
    assert!(exited.fenced && exited.at_us - deadline < K_US);
}

#[test]
fn orphans_of_a_killed_postmaster_are_ended_before_it_is_told() {
    let world = world(Setup::default());
    let mut client = world.client();
    client.permit_ms(60_000);
    let postmaster = client.started(start(&world, "busy"));
    sleep_ms(300);
    assert_eq!(left(&world).len(), 4);
    let killed = now();
    send_signal(postmaster.pid, Signal::KILL);
    let exited = client.exited(5);
    assert_eq!(left(&world), [0; 0]);
    assert_eq!((exited.signal, exited.fenced), (Some(9), false));
    assert!(exited.at_us - killed < 400_000, "{} us", exited.at_us - killed);
}

#[test]
fn a_stop_becomes_harder_with_time() {
    let world = world(Setup::default());
    let mut client = world.client();
    client.permit_ms(60_000);
    client.started(start(&world, "stubborn"));
    sleep_ms(200);
    let begun = now();
    assert_eq!(client.call(Request::Stop { mode: StopMode::Fast, timeout_ms: 200 }), Answer::Ok);
    let took = now() - begun;
    assert_eq!(left(&world), [0; 0]);
    assert!((500_000..900_000).contains(&took), "{took} us");
    assert!(!client.exited(1).fenced);
}

#[test]
fn two_supervisors_never_run_one_directory() {
    let world = world(Setup::default());
    let mut first = world.client();
    first.permit_ms(60_000);
    let postmaster = first.started(start(&world, "busy"));
    let other = world.second();
    let mut second = other.client();
    second.permit_ms(60_000);
    assert_eq!(refusal(&second.call(Request::Start(start(&world, "polite")))), Refusal::Locked);
    let tree = Request::File(FileOp::RemoveTree { path: world.data_dir() });
    assert_eq!(refusal(&second.call(tree)), Refusal::Locked);
    let (tool, _) = second.run("initdb", &["-D", world.data_dir().to_str().unwrap()], &[], "");
    assert_eq!(refusal(&tool), Refusal::Locked);
    send_signal(postmaster.pid, Signal::KILL);
    first.exited(5);
    second.started(start(&world, "polite"));
}

#[test]
fn without_its_supervisor_no_postmaster_lives_on() {
    let mut world = world(Setup::default());
    let mut client = world.client();
    client.permit_ms(60_000);
    let postmaster = client.started(start(&world, "polite"));
    let pipe = world.volume().join("pipe");
    std::process::Command::new("mkfifo").arg(&pipe).status().unwrap();
    client.send(Request::File(FileOp::Read { path: pipe }));
    let tree = format!("/proc/{0}/task/{0}/children", world.pid());
    let children = until("both children", 5, || {
        let children = std::fs::read_to_string(&tree).unwrap();
        let pids: Vec<u32> = children.split_whitespace().map(|pid| pid.parse().unwrap()).collect();
        (pids.len() == 2).then_some(pids)
    });
    assert!(children.contains(&postmaster.pid));
    sleep_ms(100);
    send_signal(world.pid(), Signal::KILL);
    world.exit_code(5);
    until("the end of both", 2, || children.iter().all(|pid| !alive(*pid)).then_some(()));
}

#[test]
fn sigterm_gives_the_agent_the_word() {
    let mut world = world(Setup::default());
    let mut client = world.client();
    client.permit_ms(60_000);
    client.started(start(&world, "polite"));
    assert_eq!(refusal(&client.call(Request::Finish)), Refusal::WrongState);
    for _ in 0..2 {
        send_signal(world.pid(), Signal::TERM);
        until("the notice", 2, || {
            client.pump();
            client.notices.contains(&Notice::Terminating).then_some(())
        });
        sleep_ms(50);
    }
    assert_eq!(client.notices, [Notice::Terminating]);
    // Longer than the silence that would be taken for an agent's end.
    for _ in 0..6 {
        sleep_ms(1000);
        assert!(client.status().terminating && client.status().postmaster.is_some());
    }
    assert_eq!(refusal(&client.call(Request::Promote)), Refusal::WrongState);
    assert_eq!(client.call(Request::Stop { mode: StopMode::Fast, timeout_ms: 5000 }), Answer::Ok);
    assert_eq!(refusal(&client.call(Request::Start(start(&world, "polite")))), Refusal::WrongState);
    assert!(!world.ended());
    assert_eq!(client.call(Request::Finish), Answer::Ok);
    assert_eq!(world.exit_code(2), Some(0));
}

#[test]
fn sigterm_and_a_silent_agent() {
    let mut world = world(Setup::default());
    let mut client = world.client();
    client.permit_ms(60_000);
    client.started(start(&world, "polite"));
    send_signal(world.pid(), Signal::TERM);
    let begun = now();
    let exited = client.exited(7);
    assert!((4_900_000..5_500_000).contains(&(exited.at_us - begun)), "{} us", exited.at_us - begun);
    assert_eq!((exited.code, exited.fenced), (Some(0), false));
    assert_eq!(world.exit_code(2), Some(0));
}

#[test]
fn sigterm_as_process_one_without_an_agent() {
    if !can_be_init() {
        return skip("no right to make a pid namespace");
    }
    let mut world = world(Setup { init: true, ..Setup::default() });
    let mut client = world.client();
    client.permit_ms(60_000);
    client.started(start(&world, "polite"));
    drop(client);
    send_signal(world.pid(), Signal::TERM);
    let begun = now();
    assert_eq!(world.exit_code(7), Some(0));
    assert!(now() - begun > 4_900_000);
}

#[test]
fn files_stay_below_the_volume() {
    let world = world(Setup::default());
    let mut client = world.client();
    std::os::unix::fs::symlink("/etc", world.volume().join("out")).unwrap();
    for path in ["/etc/hostname".into(), world.volume().join("../x"), world.volume().join("out/x"), world.volume()] {
        assert_eq!(refusal(&client.call(write(path.clone()))), Refusal::Invalid, "{}", path.display());
        let tree = Request::File(FileOp::RemoveTree { path });
        assert_eq!(refusal(&client.call(tree)), Refusal::Invalid);
    }
    assert_eq!(client.call(write(world.volume().join("a/b"))), Answer::Ok);
    let read = Request::File(FileOp::Read { path: world.volume().join("a/b") });
    assert_eq!(client.call(read), Answer::Content { content: Some("x".to_owned()) });
}

#[test]
fn an_image_without_postgres_says_so() {
    let nowhere = || Some("/nonexistent".to_owned());
    let world = World::new(Setup { path: nowhere(), versions: nowhere(), ..Setup::default() });
    let mut client = world.client();
    assert_eq!(client.hello.as_ref().unwrap().bin_dir, None);
    client.permit_ms(60_000);
    assert_eq!(refusal(&client.call(Request::Start(world.start(StartRole::Primary)))), Refusal::NotFound);
    assert_eq!(refusal(&client.run("initdb", &["--version"], &[], "").0), Refusal::NotFound);
}

#[test]
fn commands_of_the_user_run_with_the_containers_environment_and_leave_nothing() {
    let world = world(Setup {
        env: BTreeMap::from([
            ("AWS_REGION".to_owned(), "here".to_owned()),
            ("KUBERNETES_PORT".to_owned(), "x".to_owned()),
        ]),
        ..Setup::default()
    });
    let mut agent = world.client();
    let command = |line: &str, data_dir: Option<PathBuf>| {
        Request::Command(UserCommand {
            argv: ["sh", "-c", line].map(str::to_owned).to_vec(),
            env: BTreeMap::from([("WORLD".to_owned(), format!("{}-mark", world.dir.display()))]),
            data_dir,
        })
    };
    let id = agent.send(command("echo $AWS_REGION-$KUBERNETES_PORT-; command -v initdb; exit 4", None));
    let answer = agent.wait(id);
    let output = agent.output.remove(&id).unwrap_or_default();
    assert_eq!(answer, Answer::Done { code: Some(4), signal: None });
    assert!(output.starts_with("here--\n/"), "{output}");
    // What it leaves behind is reaped when it ends, and never seen as a zombie.
    let answer = agent.call(command("( setsid sleep 0.2 & ) ; exit 0", None));
    assert_eq!(answer, Answer::Done { code: Some(0), signal: None });
    until("reaped", 5, || left(&world).is_empty().then_some(()));
    // While it fills a directory nobody else touches that.
    let id = agent.send(command("sleep 100", Some(world.data_dir())));
    until("it runs", 5, || (!left(&world).is_empty()).then_some(()));
    sleep_ms(100);
    let removed = agent.call(Request::File(FileOp::RemoveTree { path: world.data_dir() }));
    assert!(matches!(removed, Answer::Refused { kind: Refusal::Locked, .. }), "{removed:?}");
    assert_eq!(agent.call(Request::Cancel { call: id }), Answer::Ok);
    until("cancelled", 5, || left(&world).is_empty().then_some(()));
    for bad in [Vec::new(), vec![String::new()], vec!["no-such-program".to_owned()]] {
        let answer = agent.call(Request::Command(UserCommand { argv: bad, env: BTreeMap::new(), data_dir: None }));
        assert!(matches!(answer, Answer::Refused { .. }), "{answer:?}");
    }
}

/// What a watchdog was told since the last look. The reader is open as long as it is kept.
struct Told(std::fs::File);

impl Told {
    fn by(path: &std::path::Path) -> Self {
        use std::os::unix::fs::OpenOptionsExt;
        assert!(std::process::Command::new("mkfifo").arg(path).status().unwrap().success());
        let flags = i32::try_from(rustix::fs::OFlags::NONBLOCK.bits()).unwrap();
        Self(std::fs::OpenOptions::new().read(true).custom_flags(flags).open(path).unwrap())
    }

    fn text(&mut self) -> String {
        let mut bytes = [0; 100];
        let length = std::io::Read::read(&mut self.0, &mut bytes).unwrap_or(0);
        String::from_utf8_lossy(&bytes[..length]).into_owned()
    }
}

#[test]
fn the_watchdog_hears_of_every_permit_and_of_nothing_else() {
    let world = world(Setup::default());
    let device = world.dir.join("watchdog");
    let mut told = Told::by(&device);
    let mut agent = world.client();
    let guard =
        |required| Request::Guard { watchdog: Some(Watchdog { device: device.clone(), timeout_s: 5, required }) };
    assert_eq!(agent.call(guard(true)), Answer::Ok);
    assert_eq!(told.text(), "", "nothing is writable yet");
    // No permit: it is not armed, or the machine would be reset.
    let refused = agent.call(Request::Start(start(&world, "")));
    assert_eq!(refusal(&refused), Refusal::NoPermit);
    assert_eq!(told.text(), "");
    agent.permit_ms(60_000);
    agent.started(start(&world, ""));
    assert_eq!(told.text(), "1");
    agent.permit_ms(60_000);
    until("a sign of life", 5, || (told.text() == "1").then_some(()));
    // In pause a person is at the keyboard, and after it the guard is back.
    let seq = agent.status().permit_seq;
    assert_eq!(agent.call(Request::LiftFence { seq: seq + 1 }), Answer::Ok);
    assert_eq!(told.text(), "V");
    agent.permit_ms(60_000);
    until("armed again", 5, || told.text().starts_with('1').then_some(()));
    // Without renewals there is no sign of life, until PostgreSQL is stopped: then no reset is wanted.
    agent.permit_ms(700);
    sleep_ms(300);
    told.text();
    sleep_ms(300);
    assert_eq!(told.text(), "");
    until("stopped", 5, || (told.text() == "V").then_some(()));
    // A fence that is passed already says nothing, and arms nothing.
    agent.permit_ms(60_000);
    sleep_ms(50);
    assert_eq!(told.text(), "", "nothing runs");
}

#[test]
fn a_watchdog_that_cannot_be_had_matters_only_where_it_is_required() {
    let world = world(Setup::default());
    let mut agent = world.client();
    let guard = |required| Request::Guard {
        watchdog: Some(Watchdog { device: "/nowhere/watchdog".into(), timeout_s: 5, required }),
    };
    agent.permit_ms(60_000);
    assert_eq!(agent.call(guard(true)), Answer::Ok);
    let answer = agent.call(Request::Start(start(&world, "")));
    assert_eq!(refusal(&answer), Refusal::Watchdog);
    assert!(!agent.status().latched);
    // A standby needs none; its promotion does.
    std::fs::write(world.data_dir().join("standby.signal"), "").unwrap();
    agent.started(Start { role: StartRole::Standby, ..start(&world, "") });
    until("it listens", 5, || {
        let answer = agent.call(Request::Promote);
        (refusal(&answer) == Refusal::Watchdog).then_some(())
    });
    assert!(!agent.status().latched);
    assert_eq!(agent.call(guard(false)), Answer::Ok);
    assert_eq!(agent.call(Request::Promote), Answer::Ok);
    assert!(agent.status().latched);
}
