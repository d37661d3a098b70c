//! The requests of a PostgreSQL client for encryption, which come before its hello. `postgres` asks its backend for the
//! same.

use std::io;

use crate::preread::Progress;
use crate::preread::postgres::{GRANTED, Opening, OpeningFault, REFUSED, REQUEST_LEN, parse};
use crate::session::{CloseReason, Outcome};
use crate::stats::WorkerStats;
use crate::sys::Kernel;
use crate::worker::relay::buffers::Buffers;
use crate::worker::relay::look::{Look, take};
use crate::worker::relay::slot::{Encryption, Origin};

/// Takes the requests of a client for encryption, and answers them: TLS is granted, GSSAPI refused. Fails unless a hello
/// is to be read next; without encryption a client counts as refused for naming no server.
pub(super) fn answer<K: Kernel>(
    kernel: &mut K,
    look: &Look<'_, K::Socket>,
    buffers: &mut Buffers,
    stats: &WorkerStats,
    origin: &mut Origin,
) -> Result<(), Outcome> {
    // At most one request for each.
    while origin.encryption() != Encryption::Granted {
        let room = &mut buffers.room_to_look()[..REQUEST_LEN];
        let opening = match look.parse(kernel, room, parse) {
            Ok(Progress::Done(opening, _)) => opening,
            Ok(Progress::Refused(OpeningFault::NotPostgres)) => {
                return Err(Outcome::Refused(CloseReason::NoSni));
            }
            Ok(Progress::Refused(fault)) => return Err(refuse(origin, fault)),
            // No server would answer a client that has ended its stream behind a request.
            Err(Outcome::Eof) if origin.encryption() == Encryption::Unasked => {
                return Err(Outcome::Refused(CloseReason::NoSni));
            }
            Ok(Progress::More(_)) => return Err(Outcome::WouldBlock),
            Err(outcome) => return Err(outcome),
        };
        let (encryption, answer) = match opening {
            Opening::SslRequest => (Encryption::Granted, GRANTED),
            Opening::GssRequest if origin.encryption() == Encryption::Unasked => {
                (Encryption::Refused, REFUSED)
            }
            Opening::GssRequest => return Err(refuse(origin, OpeningFault::Unknown)),
            Opening::DirectTls => return Ok(()),
            Opening::Startup | Opening::Cancel => return Err(Outcome::Refused(CloseReason::NoSni)),
        };
        // Before the request is taken: where there is no room, it is found again.
        match kernel.write(look.socket, &[answer]) {
            Ok(bytes) => stats.on_negotiation_given(bytes),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Err(Outcome::NoRoom),
            Err(error) => return Err(Outcome::Failed(error.kind())),
        }
        if let Err(error) = take(kernel, look.socket, room) {
            return Err(Outcome::Failed(error.kind()));
        }
        stats.on_negotiation_taken(REQUEST_LEN);
        origin.opened().encryption = encryption;
    }
    Ok(())
}

fn refuse(origin: &Origin, fault: OpeningFault) -> Outcome {
    log::debug!(peer:% = origin.peer(), why = fault.as_str(); "a client is refused");
    Outcome::Refused(CloseReason::HelloBad)
}
