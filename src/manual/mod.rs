//! The pages of the manual. Each is a file of Markdown beside this one; the front of the crate documentation lists
//! them.

#[doc = include_str!("architecture.md")]
pub mod architecture {}

#[doc = include_str!("configuration.md")]
pub mod configuration {}

#[doc = include_str!("health_checks.md")]
pub mod health_checks {}

#[doc = include_str!("discovery.md")]
pub mod discovery {}

#[doc = include_str!("fleet.md")]
pub mod fleet {}

#[doc = include_str!("agents.md")]
pub mod agents {}

#[doc = include_str!("migrating.md")]
pub mod migrating {}

#[doc = include_str!("operating.md")]
pub mod operating {}

#[doc = include_str!("observability.md")]
pub mod observability {}

#[doc = include_str!("performance.md")]
pub mod performance {}

#[doc = include_str!("testing.md")]
pub mod testing {}

#[doc = include_str!("kernel_facts.md")]
pub mod kernel_facts {}

/// Measured options that were adopted or rejected: one page each, never renumbered.
pub mod decisions {
    #[doc = include_str!("decisions/0001-no-tcp-defer-accept.md")]
    pub mod d0001 {}

    #[doc = include_str!("decisions/0002-no-tcp-fast-open.md")]
    pub mod d0002 {}

    #[doc = include_str!("decisions/0003-tcp-quickack-stays.md")]
    pub mod d0003 {}

    #[doc = include_str!("decisions/0004-no-sockmap.md")]
    pub mod d0004 {}

    #[doc = include_str!("decisions/0005-no-io-uring.md")]
    pub mod d0005 {}

    #[doc = include_str!("decisions/0006-copy-before-splice.md")]
    pub mod d0006 {}

    #[doc = include_str!("decisions/0007-user-timeout-without-tcp-user-timeout.md")]
    pub mod d0007 {}

    #[doc = include_str!("decisions/0008-two-sizes-of-maglev-tables.md")]
    pub mod d0008 {}

    #[doc = include_str!("decisions/0009-a-panic-ends-the-process.md")]
    pub mod d0009 {}

    #[doc = include_str!("decisions/0010-two-workers-may-reorder-connections.md")]
    pub mod d0010 {}

    #[doc = include_str!("decisions/0011-a-pipe-is-filled-only-while-empty.md")]
    pub mod d0011 {}

    #[doc = include_str!("decisions/0012-round-robin-by-windows.md")]
    pub mod d0012 {}

    #[doc = include_str!("decisions/0013-what-cannot-be-finished-is-reset.md")]
    pub mod d0013 {}

    #[doc = include_str!("decisions/0014-etcd-as-registry.md")]
    pub mod d0014 {}

    #[doc = include_str!("decisions/0015-engines-of-a-fleet.md")]
    pub mod d0015 {}

    #[doc = include_str!("decisions/0020-worker-parts.md")]
    pub mod d0020 {}
}
