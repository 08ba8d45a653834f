//! What the REST API holds of the driver: the published view, and a way to ask the core.

use std::sync::Arc;

use matriarch_ha::effect::Reply;
use matriarch_ha::event::Request;
use matriarch_ha::view::View;
use tokio::sync::{Notify, mpsc, oneshot, watch};

/// A REST request on its way to the core.
#[derive(Debug)]
pub struct Asked {
    /// What is asked.
    pub request: Request,
    /// Where the answer goes; dropped without one when the agent ends.
    pub answer: oneshot::Sender<Reply>,
}

/// Cheap to clone; every REST request has one.
#[derive(Debug, Clone)]
pub struct Handle {
    view: watch::Receiver<Arc<View>>,
    requests: mpsc::Sender<Asked>,
    reload: Arc<Notify>,
}

/// The driver's end of a [`Handle`].
#[derive(Debug)]
pub struct HandleEnd {
    /// What the core publishes goes here.
    pub view: watch::Sender<Arc<View>>,
    /// Requests for the core.
    pub requests: mpsc::Receiver<Asked>,
}

impl Handle {
    /// Both ends. The view is empty until the core publishes one.
    pub fn new() -> (Self, HandleEnd) {
        let (view_in, view) = watch::channel(Arc::new(View::default()));
        let (requests, requests_out) = mpsc::channel(64);
        (Self { view, requests, reload: Arc::default() }, HandleEnd { view: view_in, requests: requests_out })
    }

    /// What the core last published. Times in it are `CLOCK_BOOTTIME`: compare with [`crate::driver::clock::now`].
    pub fn view(&self) -> Arc<View> {
        self.view.borrow().clone()
    }

    /// Waits until the core has published another view; false: the driver has ended.
    pub async fn changed(&mut self) -> bool {
        self.view.changed().await.is_ok()
    }

    /// The static configuration shall be read again; several calls before that are one.
    pub fn reload(&self) {
        self.reload.notify_one();
    }

    /// Waits until somebody wants a reload.
    pub async fn reload_asked(&self) {
        self.reload.notified().await;
    }

    /// Asks the core; none: the driver has ended. Has no deadline of its own.
    pub async fn ask(&self, request: Request) -> Option<Reply> {
        let (answer, reply) = oneshot::channel();
        self.requests.send(Asked { request, answer }).await.ok()?;
        reply.await.ok()
    }
}
