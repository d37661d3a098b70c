//! What is set of the places of backends, as the admin API shows it.

use std::sync::Arc;

use crate::control::membership::placement::Placements;
use crate::control::status::ControlState;

/// Shows what is set of the backends that are in pools now.
pub(in crate::control) fn note_placements(placements: &Placements, state: &mut ControlState) {
    state.notes.values_mut().for_each(|note| note.placed = None);
    if placements.is_empty() {
        return;
    }
    let snapshot = Arc::clone(&state.snapshot);
    for pool in snapshot.pools.iter().filter(|pool| placements.has_any_in(&pool.settings.name)) {
        for backend in &pool.backends {
            if let Some(placement) = placements.of(&pool.settings.name, &backend.name) {
                state.notes.entry(backend.id).or_default().placed = Some(placement.clone());
            }
        }
    }
}
