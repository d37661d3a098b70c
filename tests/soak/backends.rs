//! The backends: servers that learn from a client's first bytes what to do.

use std::io::{self, ErrorKind};
use std::net::{Ipv4Addr, SocketAddr};
use std::rc::Rc;

use l4lb::session::Side;
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::task::spawn_local;
use tokio::time::timeout;

use crate::books::{Fault, Mismatch};
use crate::script::Script;
use crate::stream::{HEADER_LEN, header, id_of};
use crate::wire::{PATIENCE, Wire, World};

/// Several addresses, so that the ports of the balancer's dials do not run out.
const BACKENDS: u8 = 8;
const BACKLOG: u32 = 4096;
/// SO_RCVBUF of every second backend.
const SMALL_BUFFER: u32 = 16 * 1024;

/// Starts all backends; returns where they listen. They run until the runtime ends.
pub(crate) fn start(world: &Rc<World>) -> io::Result<Vec<SocketAddr>> {
    let mut addresses = Vec::new();
    for index in 1..=BACKENDS {
        let socket = TcpSocket::new_v4()?;
        if index % 2 == 0 {
            socket.set_recv_buffer_size(SMALL_BUFFER)?;
        }
        socket.bind((Ipv4Addr::new(127, 0, 1, index), 0).into())?;
        let listener = socket.listen(BACKLOG)?;
        addresses.push(listener.local_addr()?);
        spawn_local(accept_all(Rc::clone(world), listener));
    }
    Ok(addresses)
}

async fn accept_all(world: Rc<World>, listener: TcpListener) {
    loop {
        match listener.accept().await {
            Ok((socket, _)) => {
                let mut books = world.books.borrow_mut();
                books.accepted += 1;
                books.backend_active += 1;
                spawn_local(serve(Rc::clone(&world), socket));
            }
            Err(error) => {
                let mismatch = Mismatch::new(Fault::Failed, format!("accept: {error}"));
                world.books.borrow_mut().on_mismatch(Side::Backend, None, None, &mismatch);
                return;
            }
        }
    }
}

async fn serve(world: Rc<World>, socket: TcpStream) {
    match timeout(PATIENCE, read_header(&world, &socket)).await {
        Ok(Ok(Some(id))) if world.books.borrow_mut().is_first(id) => {
            let script = Script::of(world.seed, id, world.resets);
            Wire::new(&world, Side::Backend, id, script, socket).live().await;
        }
        Ok(Ok(Some(id))) => {
            let mismatch = Mismatch::new(Fault::Twice, "a second connection with this header");
            world.books.borrow_mut().on_mismatch(Side::Backend, None, Some(id), &mismatch);
        }
        Ok(Ok(None)) => {}
        Ok(Err(mismatch)) => world.books.borrow_mut().on_mismatch(Side::Backend, None, None, &mismatch),
        Err(_) => {
            let mismatch = Mismatch::new(Fault::Stalled, "no header");
            world.books.borrow_mut().on_mismatch(Side::Backend, None, None, &mismatch);
        }
    }
    world.books.borrow_mut().backend_active -= 1;
}

/// The number of the connection. `None` if it ended without a byte, or was reset before all of the header was here.
async fn read_header(world: &World, socket: &TcpStream) -> Result<Option<u64>, Mismatch> {
    let failed = |error: io::Error| Mismatch::new(Fault::Failed, format!("header: {error}"));
    socket.set_nodelay(true).map_err(failed)?;
    let (mut came, mut len) = ([0; HEADER_LEN], 0);
    while len < HEADER_LEN {
        socket.readable().await.map_err(failed)?;
        match socket.try_read(&mut came[len..]) {
            Ok(0) if len == 0 => {
                world.books.borrow_mut().ended_unknown += 1;
                return Ok(None);
            }
            Ok(0) => {
                return Err(Mismatch::new(Fault::Truncated, format!("an end behind {len} bytes of header")));
            }
            Ok(bytes) => len += bytes,
            Err(error) if error.kind() == ErrorKind::WouldBlock => {}
            Err(error) if error.kind() == ErrorKind::ConnectionReset => {
                let mut books = world.books.borrow_mut();
                books.reset_unknown += 1;
                books.bytes_unknown += len as u64;
                let known = len.min(size_of::<u64>());
                let is_ours = header(world.seed, 0)[..known] == came[..known];
                return if is_ours {
                    Ok(None)
                } else {
                    Err(Mismatch::new(Fault::WrongHeader, "then a reset"))
                };
            }
            Err(error) => return Err(failed(error)),
        }
    }
    let id = id_of(world.seed, came);
    id.map(Some).ok_or_else(|| Mismatch::new(Fault::WrongHeader, format!("{came:02x?}")))
}
