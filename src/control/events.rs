//! The latest events, and a stream of new ones.

use std::collections::VecDeque;
use std::sync::Mutex;

use tokio::sync::broadcast;

use crate::api::{Event, EventKind};
use crate::messages::request::Named;
use crate::sys;

pub(crate) const EVENTS_MAX: usize = 1024;
/// Events that a reader of the stream may lag behind; a slower one gets the number of events missed.
const STREAM_LEN: usize = 256;

/// The newest events, and the readers that wait for more.
pub(crate) struct Events {
    ring: Mutex<Ring>,
    stream: broadcast::Sender<Event>,
}

#[derive(Default)]
struct Ring {
    events: VecDeque<Event>,
    /// Requests once more: other events push none of them out.
    asked: VecDeque<Event>,
    next_id: u64,
}

/// An event that has not happened yet.
#[derive(Clone, Debug)]
pub(crate) struct Draft {
    kind: EventKind,
    pool: Option<String>,
    backend: Option<String>,
    who: Option<String>,
    message: String,
}

impl Draft {
    /// Returns a draft of this kind, with its message.
    pub(crate) fn new(kind: EventKind, message: impl Into<String>) -> Self {
        Self { kind, pool: None, backend: None, who: None, message: message.into() }
    }

    #[must_use]
    pub(crate) fn pool(self, pool: &str) -> Self {
        Self { pool: Some(pool.to_owned()), ..self }
    }

    #[must_use]
    pub(crate) fn backend(self, named: &Named) -> Self {
        Self { pool: Some(named.pool.clone()), backend: Some(named.backend.clone()), ..self }
    }

    #[must_use]
    pub(crate) fn who(self, who: &str) -> Self {
        Self { who: Some(who.to_owned()), ..self }
    }
}

impl Default for Events {
    fn default() -> Self {
        Self { ring: Mutex::default(), stream: broadcast::Sender::new(STREAM_LEN) }
    }
}

impl Events {
    /// Records the event, with the present time.
    pub(crate) fn push(&self, draft: Draft) {
        let Draft { kind, pool, backend, who, message } = draft;
        let time = sys::timestamp();
        let mut ring = self.ring.lock().expect("lock not poisoned");
        let event = Event { id: ring.next_id, time, kind, pool, backend, who, message };
        ring.next_id += 1;
        if event.who.is_some() {
            push(&mut ring.asked, event.clone());
        }
        push(&mut ring.events, event.clone());
        // Under the lock, so that the stream has the order of the ring. An error means that there is no reader.
        let _nobody = self.stream.send(event);
    }

    /// Returns the newest `limit` events after `after`, oldest first.
    pub(crate) fn recent(&self, after: Option<u64>, limit: usize) -> Vec<Event> {
        newest(&self.ring.lock().expect("lock not poisoned").events, after, limit)
    }

    /// Same as [`Events::recent`], for requests of operators and programs, which are kept longer.
    pub(crate) fn recently_asked(&self, after: Option<u64>, limit: usize) -> Vec<Event> {
        newest(&self.ring.lock().expect("lock not poisoned").asked, after, limit)
    }

    /// Returns a receiver of all events from now on.
    pub(crate) fn subscribe(&self) -> broadcast::Receiver<Event> {
        self.stream.subscribe()
    }
}

fn push(ring: &mut VecDeque<Event>, event: Event) {
    if ring.len() == EVENTS_MAX {
        ring.pop_front();
    }
    ring.push_back(event);
}

fn newest(ring: &VecDeque<Event>, after: Option<u64>, limit: usize) -> Vec<Event> {
    let wanted = ring.iter().rev().take_while(|event| after.is_none_or(|after| event.id > after));
    let mut newest: Vec<Event> = wanted.take(limit).cloned().collect();
    newest.reverse();
    newest
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A flapping backend pushed out the events of operators' drains.
    #[test]
    fn changes_by_an_operator_are_kept_whatever_else_happens() {
        let events = Events::default();
        events.push(Draft::new(EventKind::Backend, "drained").who("uid 0"));
        (0..2 * EVENTS_MAX).for_each(|index| push(&events, &index.to_string()));
        events.push(Draft::new(EventKind::Backend, "ready").who("uid 0"));
        let asked = |after, limit| -> Vec<String> {
            events.recently_asked(after, limit).into_iter().map(|event| event.message).collect()
        };
        assert_eq!(asked(None, 10), ["drained", "ready"]);
        assert_eq!(asked(None, 1), ["ready"]);
        assert_eq!(asked(Some(0), 10), ["ready"]);
    }

    fn push(events: &Events, message: &str) {
        events.push(Draft::new(EventKind::Process, message));
    }

    #[test]
    fn the_newest_events_are_kept_in_their_order() {
        let events = Events::default();
        (0..EVENTS_MAX + 3).for_each(|index| push(&events, &index.to_string()));
        let all = events.recent(None, usize::MAX);
        assert_eq!((all.len(), all[0].id), (EVENTS_MAX, 3));
        let last = all.last().unwrap().id;
        let ids =
            |after, limit| -> Vec<u64> { events.recent(after, limit).iter().map(|event| event.id).collect() };
        assert_eq!(ids(Some(last - 2), 10), [last - 1, last]);
        assert_eq!(ids(None, 1), [last]);
        assert!(ids(Some(last), 10).is_empty());
    }

    #[test]
    fn a_subscriber_gets_what_happens_from_then_on() {
        let events = Events::default();
        push(&events, "before");
        let mut stream = events.subscribe();
        push(&events, "then");
        assert_eq!(stream.try_recv().unwrap().message, "then");
        assert!(stream.try_recv().is_err());
    }
}
