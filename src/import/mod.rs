//! `l4lb import`: from the configuration of HAProxy to that of l4lb.
//!
//! `lines` splits the text into sections of words. `proxy` reads the lines of a frontend, backend or listen section,
//! with `address`, `server`, `check` and `routes` for the longer ones. `translate` makes listeners and pools of them, and `file`
//! writes these. A line whose meaning l4lb cannot keep becomes a [`Note`]; a part that would do something else than
//! before is left out, not approximated.

mod address;
mod check;
mod file;
mod lines;
mod proxy;
mod routes;
mod server;
mod translate;
mod values;

use std::net::{Ipv4Addr, SocketAddr};

use crate::config::{self, Overrides};

pub use lines::Note;

/// The result of a translation.
#[derive(Debug)]
pub struct Imported {
    /// The file for l4lb; `None` when no frontend could be translated.
    pub text: Option<String>,
    /// Notes on lines that were not translated, in their order.
    pub notes: Vec<Note>,
}

/// Returns the translation of `text`, the content of the haproxy.cfg that the comments of the result call `name`.
///
/// Fails with the mistakes that `l4lb check` finds in the result: what is returned is always accepted.
pub fn haproxy(text: &str, name: &str) -> Result<Imported, Vec<config::Error>> {
    let (file, notes) = translate::translate(&lines::read(text));
    if file.has_no_listener() {
        return Ok(Imported { text: None, notes });
    }
    let text = file.write(name, &notes);
    // Neither names nor variables need to be known on the machine that translates.
    let mut names = 0;
    let mut resolve = |_: &str| {
        names += 1;
        Ok(vec![SocketAddr::from((Ipv4Addr::from_bits(STAND_INS.to_bits() + NAMES_FROM + names), 1))])
    };
    config::parse(&without_variables(&text), name, &Overrides::default(), &mut resolve)?;
    Ok(Imported { text: Some(text), notes })
}

/// Returns `text` with a value for each `${NAME}`: a number behind a colon, where a port stands, and an address
/// elsewhere.
fn without_variables(text: &str) -> String {
    let mut parts = text.split("${");
    let mut whole = parts.next().unwrap_or_default().to_owned();
    for (index, part) in (0_u32..).zip(parts) {
        let (variable, rest) = part.split_once('}').unwrap_or(("", part));
        match whole.chars().next_back() {
            Some('$') => whole.push_str(variable),
            Some(':') => whole.push_str(&(index + 1).to_string()),
            _ => whole.push_str(&Ipv4Addr::from_bits(STAND_INS.to_bits() + index).to_string()),
        }
        whole.push_str(rest);
    }
    whole
}

/// Addresses for benchmarks of networks (RFC 2544): no host of a configuration has one.
const STAND_INS: Ipv4Addr = Ipv4Addr::new(198, 18, 0, 0);
/// Those of names begin behind those of variables.
const NAMES_FROM: u32 = 1 << 16;

#[cfg(test)]
mod tests;
