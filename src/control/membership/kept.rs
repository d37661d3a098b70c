//! What survives a restart, and the answers that wait until it is on the disk.

use std::collections::VecDeque;

use super::leases::Registrations;
use super::notes::Note;
use super::saving::{Standing, StateFile};
use crate::base::time::Instant;
use crate::control::status::View;

/// What was registered, and where it is kept.
#[derive(Default)]
pub struct Kept {
    /// Who has registered what until when.
    pub registrations: Registrations,
    /// Where it is kept, if anywhere.
    pub file: Option<StateFile>,
    /// Whether the file is older than what runs.
    pub(super) changed: bool,
    /// Not written again before, unless somebody waits for it.
    pub(super) next_save: Instant,
    /// The number of the write that has the last change that somebody has asked for.
    pub(super) asked: u64,
    /// Those who have asked, in the order of their changes.
    pub(super) waiting: VecDeque<Waiting>,
}

/// An answer that is given once a change is on the disk, or will not be for now.
pub(super) struct Waiting {
    /// The number of the write that has it.
    pub(super) write: u64,
    pub(super) deadline: Instant,
    pub(super) answer: Box<dyn FnOnce(Option<String>) + Send>,
}

impl Kept {
    /// What is put back, and where it is kept from now on.
    pub fn new(registrations: Registrations, file: Option<StateFile>) -> Self {
        // Written at once: what cannot be written should show now, and what has ended meanwhile should go.
        Self { registrations, changed: file.is_some(), file, ..Self::default() }
    }

    /// Lets others see what was put back, and how writing goes.
    pub fn show(&self, view: &View) {
        if let Some(file) = &self.file {
            view.state_writes.get_or_init(|| file.writes());
        }
        let mut state = view.state();
        for (id, _) in self.registrations.iter() {
            state.notes.insert(id, Note { origin: self.registrations.origin_of(id), ..Note::default() });
        }
    }

    /// Something that is kept has changed.
    pub(in crate::control) fn changed(&mut self) {
        self.changed = self.file.is_some();
    }

    /// Somebody has asked for a change of what is kept, and is to be answered once that is on the disk.
    pub(in crate::control) fn changed_on_request(&mut self) {
        self.changed();
        self.asked = self.file.as_ref().map_or(0, |file| file.last() + 1);
    }

    /// The time of those who wait is over.
    #[cfg(test)]
    pub(in crate::control) fn wait_no_longer(&mut self) {
        self.waiting.iter_mut().for_each(|waiting| waiting.deadline = Instant::default());
    }

    /// Differs from what it was once somebody has asked for a change again, where there is a file.
    pub(in crate::control) const fn asked(&self) -> u64 {
        self.asked
    }

    /// Whether somebody waits for what has changed, and the disk has nothing else to do.
    pub(super) fn is_due(&self) -> bool {
        let Some(file) = &self.file else { return false };
        self.asked > file.last() && file.standing(file.last()) == Standing::Written
    }
}
