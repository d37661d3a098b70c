//! What the end of a program means for the backend that it checks.

use crate::health::{self, Cause, ProbeStep};
use crate::messages::external::Ran;

/// Returns the result of a check by what became of its program. Fails with the reason where that means nothing for the
/// backend.
pub(super) fn judge(ran: Ran) -> Result<Result<(), Cause>, String> {
    Ok(Err(match ran {
        Ran::PutOff(why) => return Err(why),
        Ran::Exited { status: 0, .. } => return Ok(Ok(())),
        Ran::Exited { status, printed } => Cause::Exited { status, printed: health::first_line(&printed) },
        Ran::Signalled { signal, printed } => {
            Cause::Signalled { signal, printed: health::first_line(&printed) }
        }
        Ran::TimedOut { limit } => Cause::TimedOut { limit, doing: ProbeStep::Running },
        Ran::NoProgram(why) => Cause::NoProgram(why),
    }))
}
