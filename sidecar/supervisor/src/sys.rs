//! What the kernel is asked for: clock, timer, signals, locks, memory. Wrappers of rustix and nix, without unsafe code but for two calls.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::OpenOptionsExt;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, fcntl};
use nix::libc;
use nix::sys::signal::{SigHandler, SigSet, SigmaskHow, kill, sigprocmask};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use nix::sys::socket::getsockopt;
use nix::sys::socket::sockopt::PeerCredentials;
use nix::unistd::Pid;
use rustix::time::{
    ClockId, Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec, clock_gettime, timerfd_create,
    timerfd_settime,
};

pub use nix::sys::signal::Signal;

/// `CLOCK_BOOTTIME` in microseconds.
pub fn now_us() -> u64 {
    let now = clock_gettime(ClockId::Boottime);
    let seconds = u64::try_from(now.tv_sec).unwrap_or(0);
    seconds.saturating_mul(1_000_000).saturating_add(u64::try_from(now.tv_nsec).unwrap_or(0) / 1000)
}

/// One timer on `CLOCK_BOOTTIME`.
#[derive(Debug)]
pub struct Timer {
    fd: OwnedFd,
    armed: Option<u64>,
}

impl Timer {
    /// One that is not armed.
    pub fn new() -> io::Result<Self> {
        let fd = timerfd_create(TimerfdClockId::Boottime, TimerfdFlags::CLOEXEC | TimerfdFlags::NONBLOCK)?;
        Ok(Self { fd, armed: None })
    }

    /// What to poll.
    pub fn fd(&self) -> &OwnedFd {
        &self.fd
    }

    /// Readable from `at_us` on; never without.
    pub fn arm(&mut self, at_us: Option<u64>) -> io::Result<()> {
        if self.armed == at_us {
            return Ok(());
        }
        let zero = Timespec { tv_sec: 0, tv_nsec: 0 };
        // All zeros would disarm it: a time long past is 1 ns after boot.
        let value = at_us.map_or(zero, |at| Timespec {
            tv_sec: i64::try_from(at / 1_000_000).unwrap_or(i64::MAX),
            tv_nsec: i64::try_from((at % 1_000_000) * 1000).unwrap_or(0).max(1),
        });
        timerfd_settime(&self.fd, TimerfdTimerFlags::ABSTIME, &Itimerspec { it_interval: zero, it_value: value })?;
        self.armed = at_us;
        Ok(())
    }

    /// Takes the expiry back, so that the next one can be seen.
    pub fn take(&mut self) {
        let mut count = [0; 8];
        if rustix::io::read(&self.fd, &mut count).is_ok() {
            self.armed = None;
        }
    }
}

/// Blocks SIGCHLD, SIGTERM and SIGINT and gives a descriptor that tells of them.
pub fn signals() -> io::Result<SignalFd> {
    let mut set = SigSet::empty();
    for signal in [Signal::SIGCHLD, Signal::SIGTERM, Signal::SIGINT] {
        set.add(signal);
    }
    sigprocmask(SigmaskHow::SIG_BLOCK, Some(&set), None)?;
    Ok(SignalFd::with_flags(&set, SfdFlags::SFD_NONBLOCK | SfdFlags::SFD_CLOEXEC)?)
}

/// In a child, before it becomes another program: nothing is blocked.
pub fn unblock_signals() -> io::Result<()> {
    Ok(sigprocmask(SigmaskHow::SIG_SETMASK, Some(&SigSet::empty()), None)?)
}

/// To one process. One that is gone already is no error.
pub fn signal(pid: i32, signal: Signal) {
    // Zero and below address groups or everything.
    if pid > 0 {
        let _ = kill(Pid::from_raw(pid), signal);
    }
}

/// To a process group.
pub fn signal_group(pid: i32, signal: Signal) {
    if pid > 1 {
        let _ = kill(Pid::from_raw(-pid), signal);
    }
}

/// What ignores a signal is inherited by all programs that are started, and a shell cannot trap a signal again that was ignored
/// when it began. Whoever starts us in the background of a script lets us ignore SIGINT and SIGQUIT, by which PostgreSQL and its
/// scripts are stopped.
#[allow(unsafe_code, reason = "a handler could be wrong; here is none, but the kernel's own action")]
pub fn heed_stops() -> io::Result<()> {
    for signal in [Signal::SIGINT, Signal::SIGQUIT] {
        // SAFETY: no handler is installed.
        unsafe { nix::sys::signal::signal(signal, SigHandler::SigDfl)? };
    }
    Ok(())
}

/// SIGKILL to every process of the pid namespace but process 1, in one step that no fork can slip through.
/// The caller is process 1.
pub fn kill_everything() {
    if std::process::id() == 1 {
        let _ = kill(Pid::from_raw(-1), Signal::SIGKILL);
    }
}

/// The file whose lock says that somebody works in `data_dir`: beside it, so that wiping the folder keeps the lock.
pub fn lock_path(data_dir: &Path) -> PathBuf {
    let mut name = data_dir.as_os_str().to_owned();
    name.push(".lock");
    PathBuf::from(name)
}

/// Opens `path` and takes an OFD lock on it, without waiting: none where somebody else holds it. The lock lives as long
/// as any copy of the descriptor, in whichever process.
pub fn lock(path: &Path, create: bool) -> io::Result<Option<File>> {
    let file = OpenOptions::new().read(true).write(true).create(create).truncate(false).mode(0o600).open(path)?;
    let short = |constant| libc::c_short::try_from(constant).map_err(io::Error::other);
    let whole =
        libc::flock { l_type: short(libc::F_WRLCK)?, l_whence: short(libc::SEEK_SET)?, l_start: 0, l_len: 0, l_pid: 0 };
    match fcntl(&file, FcntlArg::F_OFD_SETLK(&whole)) {
        Ok(_) => Ok(Some(file)),
        Err(Errno::EAGAIN | Errno::EACCES) => Ok(None),
        Err(errno) => Err(errno.into()),
    }
}

/// Lets a descriptor be inherited by the program that this process becomes.
pub fn keep_open_over_exec(file: &File) -> io::Result<()> {
    Ok(rustix::io::fcntl_setfd(file, rustix::io::FdFlags::empty())?)
}

/// The user at the other end of a unix socket. (rustix cannot say it: the agent lives in another pid namespace, so its
/// process id reads as zero, which rustix's type has no room for.)
pub fn peer_uid(stream: &UnixStream) -> io::Result<u32> {
    Ok(getsockopt(stream, PeerCredentials)?.uid())
}

/// Sets the timeout of a watchdog device (`WDIOC_SETTIMEOUT`), in seconds; tells the one in force.
#[allow(unsafe_code, reason = "the kernel reads and writes one int, which outlives the call; no library wraps it")]
pub fn set_watchdog_timeout(device: &File, seconds: u32) -> io::Result<u32> {
    use rustix::ioctl::{Updater, ioctl, opcode};
    let mut timeout = libc::c_int::try_from(seconds).map_err(io::Error::other)?;
    // SAFETY: the opcode is that of a call which takes a pointer to an int and writes an int there.
    unsafe {
        ioctl(device, Updater::<{ opcode::read_write::<libc::c_int>(b'W', 6) }, libc::c_int>::new(&mut timeout))?;
    };
    u32::try_from(timeout).map_err(io::Error::other)
}

/// Asks the kernel to keep what is in memory now: a disk that hangs must not hang the fence by a page fault. Where the
/// limit on locked memory forbids it, all goes on without.
pub fn stay_in_memory() -> bool {
    rustix::mm::mlockall(rustix::mm::MlockAllFlags::CURRENT).is_ok()
}

/// 128 random bits.
pub fn random_id() -> io::Result<String> {
    let mut bytes = [0_u8; 16];
    rustix::rand::getrandom(&mut bytes, rustix::rand::GetRandomFlags::empty())?;
    Ok(bytes.iter().fold(String::new(), |text, byte| text + &format!("{byte:02x}")))
}
