//! What a Service is in a pod's world: connections go to the member whose `GET /primary` says 200, and end when it no longer does.

use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use anyhow::Result;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinHandle;

use super::member::{POSTGRES_PORT, get};

/// Between two looks at everybody.
const LOOK: Duration = Duration::from_millis(100);

/// A running proxy; dropping it ends it.
#[derive(Debug)]
pub struct Proxy {
    tasks: [JoinHandle<()>; 2],
}

impl Drop for Proxy {
    fn drop(&mut self) {
        for task in &self.tasks {
            task.abort();
        }
    }
}

impl Proxy {
    /// Listens on `address`, PostgreSQL's port.
    pub async fn start(address: Ipv4Addr, members: Vec<Ipv4Addr>) -> Result<Self> {
        let listener = TcpListener::bind((address, POSTGRES_PORT)).await?;
        let (tell, primary) = watch::channel(None);
        let look = tokio::spawn(async move {
            loop {
                let mut found = None;
                for member in &members {
                    if matches!(get(*member, "/primary").await, Ok((200, _))) {
                        found = Some(*member);
                    }
                }
                tell.send_if_modified(|before| std::mem::replace(before, found) != found);
                tokio::time::sleep(LOOK).await;
            }
        });
        let serve = tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let present = *primary.borrow();
                if let Some(member) = present {
                    tokio::spawn(carry(client, member, primary.clone()));
                }
            }
        });
        Ok(Self { tasks: [look, serve] })
    }
}

/// Until either side ends, or another member is the primary. Nobody being it is no reason: its API may be slow.
async fn carry(mut client: TcpStream, member: Ipv4Addr, mut primary: watch::Receiver<Option<Ipv4Addr>>) {
    let Ok(mut server) = TcpStream::connect(SocketAddr::from((member, POSTGRES_PORT))).await else { return };
    let _ = (client.set_nodelay(true), server.set_nodelay(true));
    tokio::select! {
        _ = tokio::io::copy_bidirectional(&mut client, &mut server) => {}
        _ = primary.wait_for(|now| now.is_some_and(|now| now != member)) => {}
    }
}
