//! `l4lb doctor`: whether this machine lets l4lb do what it is configured to, what follows if not, and what to do about it.
//! [`Figures`] are measured and [`judge`] turns them into findings without looking at anything else.

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

/// How bad a finding is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Verdict {
    /// As it should be.
    Ok,
    /// It works, up to a point.
    Warn,
    /// It does not work.
    Fail,
}

impl Verdict {
    /// The word for it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Warn => "warn",
            Self::Fail => "FAIL",
        }
    }
}

/// One thing that was looked at.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct Finding {
    /// What was looked at.
    pub name: &'static str,
    /// How bad it is.
    pub verdict: Verdict,
    /// What was found.
    pub found: String,
    /// What follows from it; nothing where all is well.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub consequence: Option<String>,
    /// What to type or to write to change it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub remedy: Option<String>,
}

/// Looks at this machine with what `config` would run, which is in `file`; or with what l4lb runs by default.
pub fn examine(config: Option<&Config>, file: Option<&Path>) -> Vec<Finding> {
    let figures = Figures::measure(config);
    let mut findings = judge(&figures, &Plan::of(config, &figures));
    findings.extend(config.into_iter().flat_map(|config| foresee(config, file)));
    findings
}

/// The worst of the verdicts.
pub fn worst(findings: &[Finding]) -> Verdict {
    findings.iter().map(|finding| finding.verdict).max().unwrap_or(Verdict::Ok)
}
