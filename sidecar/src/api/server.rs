//! The accept loop: TLS when there are certificates, few connections, and no patience with slow clients.

use std::collections::HashMap;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::pin::pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use hyper::body::Incoming;
use hyper::rt::{Read, Write};
use hyper::server::conn::http1;
use hyper::service::{Service, service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio_rustls::TlsAcceptor;

use super::Site;
use super::access::{Caller, Certificate};
use super::limits::Limits;
use super::routes::routes;
use crate::driver::handle::Handle;
use crate::tls::Tls;

/// Connections at a time: an agent has a dozen at most, and the buffers of each cost memory that PostgreSQL could use.
const CONNECTIONS: usize = 64;
/// Of them from one address, so that one slow client leaves room for the kubelet and the peers.
const CONNECTIONS_OF_ONE: usize = 16;
/// The smallest that hyper takes.
const BUFFER: usize = 8 * 1024;

/// Opens the socket of `restapi.listen`, `host:port`; `*` is every address.
pub async fn listen(listen: &str) -> io::Result<TcpListener> {
    match listen.strip_prefix("*:") {
        Some(port) => match TcpListener::bind(format!("[::]:{port}")).await {
            Ok(listener) => Ok(listener),
            Err(_) => TcpListener::bind(format!("0.0.0.0:{port}")).await, // a machine without IPv6
        },
        None => TcpListener::bind(listen).await,
    }
}

/// Serves for ever. Without `tls` it is plain HTTP, where nobody can be asked for a certificate.
pub async fn serve(listener: TcpListener, tls: Option<Arc<Tls>>, handle: Handle, site: watch::Receiver<Arc<Site>>) {
    let routes = TowerToHyperService::new(warp::service(routes(handle, site.clone())));
    let seats = Arc::new(Seats::default());
    loop {
        let (stream, from) = match listener.accept().await {
            Ok(accepted) => accepted,
            Err(error) => {
                // Out of file descriptors, or the client has gone: neither gets better by asking again at once.
                tracing::warn!(%error, "cannot accept a connection");
                tokio::time::sleep(Duration::from_millis(100)).await;
                continue;
            }
        };
        let Some(seat) = Seats::take(&seats, from) else {
            tracing::debug!(%from, "too many connections");
            continue;
        };
        let (tls, routes, limits) = (tls.clone(), routes.clone(), site.borrow().limits);
        tokio::spawn(async move {
            let _seat = seat;
            if let Err(error) = connection(stream, tls, routes, limits).await {
                tracing::debug!(%from, %error, "connection ended");
            }
        });
    }
}

async fn connection<S>(stream: TcpStream, tls: Option<Arc<Tls>>, routes: S, limits: Limits) -> io::Result<()>
where
    S: Service<hyper::Request<Incoming>, Response = warp::reply::Response>,
    S::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    stream.set_nodelay(true)?;
    let ip = stream.peer_addr()?.ip().to_canonical();
    let Some(tls) = tls else {
        return http(stream, Caller { ip, certificate: Certificate::Plain }, routes, limits).await;
    };
    let handshake = TlsAcceptor::from(tls.server()).accept(stream);
    let stream = tokio::time::timeout(limits.handshake, handshake).await.map_err(|_| io::ErrorKind::TimedOut)??;
    // A certificate that is there has been verified, else the handshake had failed.
    let verified = stream.get_ref().1.peer_certificates().is_some_and(|chain| !chain.is_empty());
    let certificate = if verified { Certificate::Verified } else { Certificate::Absent };
    http(stream, Caller { ip, certificate }, routes, limits).await
}

async fn http<T, S>(stream: T, caller: Caller, routes: S, limits: Limits) -> io::Result<()>
where
    TokioIo<T>: Read + Write + Unpin,
    S: Service<hyper::Request<Incoming>, Response = warp::reply::Response>,
    S::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    let working = AtomicBool::new(false);
    let service = service_fn(|mut request: hyper::Request<Incoming>| {
        request.extensions_mut().insert(caller);
        let answer = routes.call(request);
        async {
            working.store(true, Ordering::Relaxed);
            let answer = answer.await;
            working.store(false, Ordering::Relaxed);
            answer
        }
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(limits.head)
        .max_buf_size(BUFFER)
        .serve_connection(TokioIo::new(stream), service);
    let mut connection = pin!(connection);
    tokio::select! {
        done = connection.as_mut() => return done.map_err(io::Error::other),
        () = tokio::time::sleep(limits.life) => connection.as_mut().graceful_shutdown(),
    }
    loop {
        match tokio::time::timeout(limits.last_request, connection.as_mut()).await {
            Ok(done) => return done.map_err(io::Error::other),
            // Every request ends: the core's patience does.
            Err(_) if working.load(Ordering::Relaxed) => {}
            Err(_) => return Err(io::ErrorKind::TimedOut.into()),
        }
    }
}

/// Who is connected how often.
#[derive(Default)]
struct Seats(Mutex<HashMap<IpAddr, usize>>);

/// Given back when dropped.
struct Seat {
    seats: Arc<Seats>,
    ip: IpAddr,
}

impl Seats {
    fn take(seats: &Arc<Self>, from: SocketAddr) -> Option<Seat> {
        let ip = from.ip();
        let mut taken = seats.0.lock().unwrap_or_else(PoisonError::into_inner);
        let of_one = taken.get(&ip).copied().unwrap_or(0);
        if of_one >= CONNECTIONS_OF_ONE || taken.values().sum::<usize>() >= CONNECTIONS {
            return None;
        }
        taken.insert(ip, of_one + 1);
        Some(Seat { seats: seats.clone(), ip })
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        let mut taken = self.seats.0.lock().unwrap_or_else(PoisonError::into_inner);
        let left = taken.get(&self.ip).map_or(0, |count| count.saturating_sub(1));
        if left == 0 {
            taken.remove(&self.ip);
        } else {
            taken.insert(self.ip, left);
        }
    }
}
