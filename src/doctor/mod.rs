//! `l4lb doctor`: checks whether this machine can run l4lb as configured, and explains consequences and remedies.
//! [`Figures`] are measured, and [`judge`] turns them into findings without reading anything else.

mod figures;
mod foresee;
mod judge;
mod show;

use std::path::Path;

use crate::config::Config;

pub use figures::{Figures, Plan};
pub use foresee::foresee;
pub use judge::judge;
pub use show::{json, table};

/// The severity of a finding.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Verdict {
    /// No problem.
    Ok,
    /// It works, with limits.
    Warn,
    /// It does not work.
    Fail,
}

impl Verdict {
    /// Returns the word for it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Warn => "warn",
            Self::Fail => "FAIL",
        }
    }
}

/// One checked item.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct Finding {
    /// The checked item.
    pub name: &'static str,
    /// The severity.
    pub verdict: Verdict,
    /// The measured value.
    pub found: String,
    /// The consequence, unless all is well.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub consequence: Option<String>,
    /// The command or setting that changes it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub remedy: Option<String>,
}

/// Checks this machine for `config`, which is in `file`; or for the default settings of l4lb.
pub fn examine(config: Option<&Config>, file: Option<&Path>) -> Vec<Finding> {
    let figures = Figures::measure(config);
    let mut findings = judge(&figures, &Plan::of(config, &figures));
    findings.extend(config.into_iter().flat_map(|config| foresee(config, file)));
    findings
}

/// Returns the most severe verdict.
pub fn worst(findings: &[Finding]) -> Verdict {
    findings.iter().map(|finding| finding.verdict).max().unwrap_or(Verdict::Ok)
}
