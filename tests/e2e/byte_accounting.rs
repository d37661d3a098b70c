//! What the counters show while sessions last.

use l4lb::session::{CloseReason, Side};

use crate::harness::lab::setup;
use crate::harness::peer::until;
use crate::harness::relay::Relay;

/// A download of an hour shows before it ends: first when its connect timeout has passed, and again a few seconds after
/// it has moved more.
#[test]
fn the_bytes_of_a_session_are_counted_while_it_lasts() {
    setup().connect_timeout("100ms").both_ways(|relay, near, far| {
        let given = |relay: &Relay| {
            let totals = relay.lab().server.totals();
            [totals.to_backend, totals.to_client]
        };
        let bytes_of = |sent: u64| if near == Side::Client { [sent, 0] } else { [0, sent] };
        let relay = relay.sends(near, b"first").expects(far, b"first");
        until("the first bytes are counted", || given(&relay) == bytes_of(5));
        let relay = relay.sends(near, b"second").expects(far, b"second");
        until("the next bytes are counted", || given(&relay) == bytes_of(11));
        relay.closes_both_ways().ends(CloseReason::Done);
    });
}
