//! The clients: as many at a time as is wished, each with its own script.

use std::cell::Cell;
use std::io;
use std::net::SocketAddr;
use std::ops::Range;
use std::rc::Rc;

use l4lb::session::Side;
use socket2::{Domain, SockRef, Socket, Type};
use tokio::net::{TcpSocket, TcpStream};
use tokio::task::spawn_local;
use tokio::time::timeout;

use crate::books::{Fault, Mismatch};
use crate::script::{Kind, Script};
use crate::wire::{PATIENCE, Wire, World, close_by_reset};

/// From so many mismatches on no further connection is begun.
const MISMATCHES_MAX: u64 = 50;

/// Where clients connect, and how many at a time.
#[derive(Clone)]
pub(crate) struct Clients {
    pub(crate) world: Rc<World>,
    pub(crate) addresses: Rc<[SocketAddr]>,
    pub(crate) concurrency: usize,
}

impl Clients {
    /// Runs the connections `ids`; `on_over` is called at the end of each.
    pub(crate) async fn run(&self, ids: Range<u64>, on_over: Rc<dyn Fn()>) -> anyhow::Result<()> {
        let ids = Rc::new(Cell::new(ids));
        let tasks: Vec<_> = (0..self.concurrency)
            .map(|_| {
                let (clients, ids, on_over) = (self.clone(), Rc::clone(&ids), Rc::clone(&on_over));
                spawn_local(async move {
                    while let Some(id) = next(&ids).filter(|_| !clients.has_seen_enough()) {
                        clients.run_one(id).await;
                        on_over();
                    }
                })
            })
            .collect();
        for task in tasks {
            task.await?;
        }
        Ok(())
    }

    /// Of a balancer that is wrong this often, no more needs to be known; and each connection that stalls takes long.
    fn has_seen_enough(&self) -> bool {
        self.world.books.borrow().faults().map(|(_, count, _)| count).sum::<u64>() >= MISMATCHES_MAX
    }

    async fn run_one(&self, id: u64) {
        let world = &*self.world;
        let script = Script::of(world.seed, id, world.resets);
        let count = self.addresses.len() as u64;
        let address = self.addresses[usize::try_from(id % count).unwrap_or(0)];
        let over = |result: io::Result<()>| {
            let mut books = world.books.borrow_mut();
            books.on_over(Side::Client, script.kind, 0, 0);
            if let Err(error) = result {
                let mismatch = Mismatch::new(Fault::NotConnected, error);
                books.on_mismatch(Side::Client, Some(script.kind), Some(id), &mismatch);
            }
        };
        if script.kind == Kind::Gone {
            return over(begin_and_leave(world, address, script.coin));
        }
        match connect(address, script.parts[Side::Client as usize].receive_buffer).await {
            Err(error) => over(Err(error)),
            Ok(socket) => {
                world.books.borrow_mut().connected += 1;
                if script.kind == Kind::ConnectReset {
                    close_by_reset(world, Side::Client, &SockRef::from(&socket));
                    return over(Ok(()));
                }
                Wire::new(world, Side::Client, id, script, socket).live().await;
            }
        }
    }
}

fn next(ids: &Cell<Range<u64>>) -> Option<u64> {
    let mut left = ids.take();
    let id = left.next();
    ids.set(left);
    id
}

async fn connect(address: SocketAddr, receive_buffer: Option<u32>) -> io::Result<TcpStream> {
    let socket = TcpSocket::new_v4()?;
    if let Some(bytes) = receive_buffer {
        socket.set_recv_buffer_size(bytes)?;
    }
    let stream = timeout(PATIENCE, socket.connect(address)).await??;
    stream.set_nodelay(true)?;
    Ok(stream)
}

/// Begins to connect and closes before the result is known.
fn begin_and_leave(world: &World, address: SocketAddr, by_reset: bool) -> io::Result<()> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM.nonblocking(), None)?;
    match socket.connect(&address.into()) {
        Err(error) if error.raw_os_error() == Some(nix::errno::Errno::EINPROGRESS as i32) => {}
        result => result?,
    }
    // On loopback the handshake is nearly always over by now.
    let mut books = world.books.borrow_mut();
    match socket.peer_addr() {
        Ok(_) => books.connected += 1,
        Err(_) => books.perhaps_connected += 1,
    }
    if by_reset {
        drop(books);
        close_by_reset(world, Side::Client, &SockRef::from(&socket));
    } else {
        books.left += 1;
    }
    Ok(())
}
