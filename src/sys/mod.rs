//! The operating system: the only files that name mio, nix, socket2, sd-notify and `std::time`, and the place for
//! knowledge about the kernel. The data plane sees it through [`Kernel`] alone, so a simulation can take its place.

mod addresses;
mod authorities;
mod blocking;
mod busy_poll;
mod clock;
mod datagram;
mod dial;
mod files;
mod folder_changes;
mod folder_watch;
mod inputs;
mod kernel;
mod linux;
mod listening;
mod manager;
mod names;
mod passed;
mod pipe;
mod poll;
mod port_owner;
mod preflight;
mod privileges;
mod process;
mod programs;
mod reuseport;
mod selftest;
mod sockets;
mod tcp_info;
mod token;
mod unique;
mod usage;

pub use addresses::{is_own_address, own_addresses};
pub use blocking::{Call, on_thread};
pub use clock::{Clock, timestamp};
pub use datagram::{LogSocket, Sent, has_room_on_standard_error, host_name};
pub use dial::{Dialed, dial};
pub use files::{ends_within_line, listen_privately, open_log, open_private, open_regular};
pub use folder_changes::FileChanges;
pub use folder_watch::{FolderWaker, FolderWatch, Wait};
pub use inputs::INPUTS;
pub use kernel::{
    Dial, DialSpec, Event, Kernel, Wake, cannot_splice, concerns_one_connection, is_exhausted, lacks_port,
    lacks_resources,
};
pub use linux::Linux;
pub use listening::ListeningSocket;
pub use manager::{Notice, is_journal, notify, watchdog_period};
pub use names::{has_route, look_up};
pub use passed::{Inherited, Passed, adopt_passed, hand_back, lets_others_bind};
pub use pipe::Pipe;
pub use port_owner::{holder_of, name_holder};
pub use preflight::{AddressHolder, Use, may_use, port_holder, socket_holder, try_bind};
pub use privileges::{
    become_account, check_account, give_to, has_given_up_root, is_root, renounce_new_privileges, user_name,
};
pub use process::{open_files_max, pin_thread, pipe_bytes_max, raise_open_files_limit, sigpipe_is_ignored};
#[cfg(test)]
pub(crate) use programs::none_starts;
pub use programs::{Bell, Exit, Program, Waiter, lacks_for_program, may_run, reap_own_children};
pub use reuseport::{hide, refuse_new, steer_to_all, steer_to_first};
pub use selftest::{can_write_into, kernel_setting, reserved_ports, try_reuse_port, try_splice};
pub use sockets::{
    Neighbours, bind, bind_beside, listen, set_backlog, set_listener_options, start_listening,
};
pub use token::Token;
pub use unique::unique_name;
pub use usage::{Usage, usage};
