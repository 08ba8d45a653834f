//! Lines wait here for a thread that writes them: a log that cannot be written does not keep the agent from renewing its lock.

use std::collections::VecDeque;
use std::io::{self, Write};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tracing_subscriber::fmt::MakeWriter;

/// Enough for one line, a rotation, and a warning about lost ones.
const STACK: usize = 128 * 1024;

/// Where lines go.
pub type Sink = Box<dyn Write + Send>;

/// The queue. Cheap to clone.
#[derive(Clone)]
pub struct Queue(Arc<Shared>);

struct Shared {
    waiting: Mutex<Waiting>,
    changed: Condvar,
}

/// In order.
enum Item {
    Line(Vec<u8>),
    /// What follows goes there.
    Sink(Sink),
}

struct Waiting {
    items: VecDeque<Item>,
    longest: usize,
    lost: u64,
    /// The thread has one in its hands.
    writing: bool,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Queue {
    /// Starts the thread. `tell` is called by it with the number of lines that were lost.
    pub fn start(longest: usize, sink: Sink, tell: impl Fn(u64) + Send + 'static) -> io::Result<Self> {
        let waiting = Waiting { items: VecDeque::new(), longest, lost: 0, writing: false };
        let shared = Arc::new(Shared { waiting: Mutex::new(waiting), changed: Condvar::new() });
        let queue = Self(shared.clone());
        std::thread::Builder::new()
            .name("log".to_owned())
            .stack_size(STACK)
            .spawn(move || write(&shared, sink, tell))?;
        Ok(queue)
    }

    /// At most so many lines wait.
    pub fn set_longest(&self, longest: usize) {
        self.0.lock().longest = longest;
    }

    /// Lines go there from now on.
    pub fn set_sink(&self, sink: Sink) {
        self.0.lock().items.push_back(Item::Sink(sink));
        self.0.changed.notify_all();
    }

    /// Waits until all is written, but not for ever.
    pub fn flush(&self, limit: Duration) {
        let end = Instant::now() + limit;
        let mut waiting = self.0.lock();
        while waiting.writing || !waiting.items.is_empty() {
            let Some(left) = end.checked_duration_since(Instant::now()).filter(|left| !left.is_zero()) else { return };
            waiting =
                self.0.changed.wait_timeout(waiting, left).map_or_else(|error| error.into_inner().0, |done| done.0);
        }
    }

    fn put(&self, line: &[u8]) {
        let mut waiting = self.0.lock();
        if waiting.items.len() >= waiting.longest {
            waiting.lost += 1;
        } else {
            waiting.items.push_back(Item::Line(line.to_vec()));
            self.0.changed.notify_all();
        }
    }
}

fn write(shared: &Shared, mut sink: Sink, tell: impl Fn(u64)) {
    loop {
        let mut waiting = shared.lock();
        waiting.writing = false;
        shared.changed.notify_all();
        let line = loop {
            match waiting.items.pop_front() {
                Some(Item::Line(line)) => break line,
                Some(Item::Sink(next)) => sink = next,
                None => {
                    shared.changed.notify_all();
                    waiting = shared.changed.wait(waiting).unwrap_or_else(PoisonError::into_inner);
                }
            }
        };
        waiting.writing = true;
        let lost = std::mem::take(&mut waiting.lost);
        drop(waiting);
        // There is no other place to say it.
        let _ = sink.write_all(&line).and_then(|()| sink.flush());
        if lost > 0 {
            tell(lost);
        }
    }
}

impl<'a> MakeWriter<'a> for Queue {
    type Writer = Self;

    fn make_writer(&'a self) -> Self {
        self.clone()
    }
}

impl Write for Queue {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        self.put(line);
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::{Receiver, Sender, channel};

    use super::*;

    /// Takes a line only when it is let.
    struct Slow(Receiver<()>, Sender<Vec<u8>>);

    impl Write for Slow {
        fn write(&mut self, line: &[u8]) -> io::Result<usize> {
            self.0.recv().map_err(io::Error::other)?;
            self.1.send(line.to_vec()).map_err(io::Error::other)?;
            Ok(line.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_log_that_is_stuck_loses_lines_and_tells_how_many() {
        let ((go, may), (out, written), (tell, told)) = (channel(), channel(), channel());
        let queue = Queue::start(3, Box::new(Slow(may, out)), move |lost| tell.send(lost).unwrap()).unwrap();
        queue.put(b"0");
        // The thread has taken the first one.
        while !queue.0.lock().writing {
            std::thread::yield_now();
        }
        for line in ["1", "2", "3", "4", "5"] {
            queue.put(line.as_bytes());
        }
        queue.flush(Duration::from_millis(10));
        assert!(written.try_recv().is_err(), "nothing waits for it");
        (0..4).for_each(|_| go.send(()).unwrap());
        queue.flush(Duration::from_secs(10));
        let lines: Vec<Vec<u8>> = written.try_iter().collect();
        assert_eq!(lines, [b"0", b"1", b"2", b"3"]);
        assert_eq!(told.recv_timeout(Duration::from_secs(10)).unwrap(), 2);
        // And goes elsewhere when it is told to.
        let (out, written) = channel();
        let (go, may) = channel();
        queue.set_sink(Box::new(Slow(may, out)));
        go.send(()).unwrap();
        queue.put(b"6");
        assert_eq!(written.recv_timeout(Duration::from_secs(10)).unwrap(), b"6");
    }
}
