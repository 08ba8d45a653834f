//! A thread that lives in a node's network namespace: what is spawned on it reaches Services through that node's
//! kube-proxy, as a pod there would.

use std::fs::File;
use std::os::fd::AsFd as _;
use std::path::PathBuf;
use std::sync::mpsc;

use anyhow::{Context as _, Result};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
use tokio::runtime::{Builder, Handle};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

/// The thread; dropping it ends what runs there.
#[derive(Debug)]
pub struct Zone {
    handle: Handle,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl Zone {
    /// Enters the network namespace of that name; without a name it stays in this one.
    pub fn enter(netns: Option<&str>) -> Result<Self> {
        let path = netns.map(|name| PathBuf::from("/run/netns").join(name));
        let (started, start) = mpsc::sync_channel(1);
        let (stop, stopped) = oneshot::channel::<()>();
        let thread = std::thread::Builder::new().name("zone".to_owned()).spawn(move || {
            // The namespace is the thread's own: setns concerns only the calling one.
            let runtime = path.map_or(Ok(()), |path| {
                let file = File::open(&path).with_context(|| path.display().to_string())?;
                move_into_link_name_space(file.as_fd(), Some(LinkNameSpaceType::Network))
                    .with_context(|| format!("unable to enter {}", path.display()))
            });
            match runtime.and_then(|()| Ok(Builder::new_current_thread().enable_all().build()?)) {
                Ok(runtime) => {
                    let _ = started.send(Ok(runtime.handle().clone()));
                    let _ = runtime.block_on(stopped);
                }
                Err(error) => drop(started.send(Err(error))),
            }
        })?;
        let handle = start.recv().context("the thread ended at once")??;
        Ok(Self { handle, stop: Some(stop), thread: Some(thread) })
    }

    /// Starts `future` there and does not wait for it.
    pub fn spawn(&self, future: impl Future<Output = ()> + Send + 'static) -> JoinHandle<()> {
        self.handle.spawn(future)
    }

    /// Runs `future` there to its end.
    pub async fn run<T: Send + 'static>(&self, future: impl Future<Output = T> + Send + 'static) -> Result<T> {
        self.handle.spawn(future).await.context("the network namespace's thread has ended")
    }
}

impl Drop for Zone {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}
