//! A connection to a server that is asked for something, in the clear or over TLS. Nothing of the data plane dials so.

use std::io;
use std::net::SocketAddr;

use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use crate::config::server_tls::ServerTls;
use crate::tls::{self, ServerName};

/// A connection that is open.
pub trait Dialed: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Dialed for T {}

/// Returns a connection to `address`. With `tls` the handshake has succeeded, and the certificate is for the `server_name`
/// of that or else for `name`. Fails with a sentence. Has no limit of time of its own.
pub async fn dial(
    address: SocketAddr,
    name: Option<ServerName<'static>>,
    tls: Option<&ServerTls>,
) -> Result<Box<dyn Dialed>, String> {
    let stream = TcpStream::connect(address).await.map_err(|error| error.to_string())?;
    // Some requests are as short as a request can be.
    stream.set_nodelay(true).map_err(|error| error.to_string())?;
    let Some(tls) = tls else { return Ok(Box::new(stream)) };
    let name = tls.server_name.clone().or(name).unwrap_or_else(|| address.ip().into());
    let connected = TlsConnector::from(tls.client.config()).connect(name, stream).await;
    Ok(Box::new(connected.map_err(|error| reason(&error))?))
}

fn reason(error: &io::Error) -> String {
    let of_tls = error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>());
    of_tls.map_or_else(|| format!("no handshake of TLS: {error}"), tls::reason)
}
