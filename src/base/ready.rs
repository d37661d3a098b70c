//! Readiness as one event reports it: a hint, never a fact. Only a call on the socket finds out.

/// Readiness reported by one event; see `epoll_ctl(2)` for the flags.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Ready {
    /// A read may return something: bytes, an end or an error.
    pub readable: bool,
    /// A write may take something, or return an error.
    pub writable: bool,
    /// EPOLLRDHUP, EPOLLHUP, EPOLLERR or EPOLLPRI: from now on a short read does not prove that nothing is left.
    pub closing: bool,
    /// EPOLLERR or EPOLLHUP: the connection may be dead, or only finished in both directions.
    pub failing: bool,
}
