//! `l4lb doctor`: checks whether this machine can run l4lb as configured, and explains consequences and remedies.
//! [`Figures`] are measured, and [`judge`] turns them into findings without reading anything else.

mod figures;
mod finding;
mod judge;
mod preflight;
mod show;
mod sources;

use std::path::Path;

use crate::config::Config;

pub(crate) use figures::{Figures, Plan};
pub(crate) use finding::{Finding, Verdict, worst};
pub(crate) use judge::judge;
pub(crate) use preflight::preflight;
pub(crate) use show::{json, table};

/// Checks this machine for `config`, which is in `file`; or for the default settings of l4lb. Asks the l4lb that runs
/// with it how its sources of backends do.
pub(crate) fn examine(config: Option<&Config>, file: Option<&Path>) -> Vec<Finding> {
    let figures = Figures::measure(config);
    let mut findings = judge(&figures, &Plan::of(config, &figures));
    findings.extend(config.into_iter().flat_map(|config| preflight(config, file)));
    findings.extend(figures.admin_socket.iter().flat_map(|(socket, _)| sources::examine(socket)));
    findings
}
