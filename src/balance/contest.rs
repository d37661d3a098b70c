//! Finds the first of many members without asking them all: a tournament per weight, whose winners are compared by
//! pressure.
//!
//! In a bracket every member meets its neighbour, the winner meets the winner of the next two, and so on. When a
//! session begins or ends, one member plays its way up again: log2 n comparisons instead of n.
//!
//! Every worker has a view of its own with all brackets, which it alone writes. A shared view would need a dozen
//! locked instructions per session, in cache lines that all workers fight for. A worker's own sessions are in its view
//! at once. It learns about those of others when they matter: the picked member is looked at first, and if it has more
//! sessions than the view says, or is not eligible, it plays again with its true load. Every pick also looks at one
//! more member, in turn, so that a member that lost sessions elsewhere is not forgotten.
//!
//! A view takes at most 64 bytes per member, and there are at most [`VIEWS_MAX`]: for 10,000 members 640 KB per
//! worker, 10 MB in sum. Further workers share views, which costs them a few more looks.

use std::sync::atomic::{AtomicU32, AtomicU64, AtomicUsize, Ordering};

use super::Members;
use super::best::{Best, Candidate, Seen, best};
use super::turns::{self, TIME_BITS, TIME_MASK};

const VIEWS_MAX: usize = 16;

/// In one pick at most this many members are found out of place before the current winner is taken.
const LOOKS_MAX: u32 = 64;

/// In one pick at most this many members are passed over as not eligible for this session only.
const PASSED_MAX: usize = 16;

pub(super) struct Contest {
    classes: Box<[Class]>,
    /// By member; `None` for members that must not be picked.
    positions: Box<[Option<Position>]>,
    views: Box<[View]>,
}

struct Class {
    weight: u16,
    members: Box<[u32]>,
}

#[derive(Clone, Copy)]
struct Position {
    class: u32,
    place: u32,
}

struct View {
    brackets: Box<[Bracket]>,
    /// The member to look at next.
    next_look: AtomicUsize,
}

impl Contest {
    /// Returns a contest for one worker, over members without sessions.
    pub(super) fn new(candidates: &[Candidate], members: usize) -> Self {
        let mut weights: Vec<u16> = candidates.iter().map(|candidate| candidate.weight).collect();
        weights.sort_unstable();
        weights.dedup();
        let mut classes: Vec<Vec<u32>> = vec![Vec::new(); weights.len()];
        let mut positions = vec![None; members];
        for &Candidate { member, weight } in candidates {
            let class = weights.partition_point(|&lighter| lighter < weight);
            let place = u32::try_from(classes[class].len()).expect("a member is an index of 32 bits");
            let class_of_position = u32::try_from(class).expect("fewer weights than 2^16");
            positions[member as usize] = Some(Position { class: class_of_position, place });
            classes[class].push(member);
        }
        let class = |(weight, members): (u16, Vec<u32>)| Class { weight, members: members.into() };
        let classes: Box<[Class]> = weights.into_iter().zip(classes).map(class).collect();
        let views = [View::new(&classes, 0, |_, _| 0)].into();
        Self { classes, positions: positions.into(), views }
    }

    /// Returns the contest for `workers` workers, with the present loads and stamps of the members.
    pub(super) fn begun(self, workers: usize, now: u64, members: &dyn Members) -> Self {
        let key = |weight, member| key(&Seen::of(members, member, weight));
        let view = |_| View::new(&self.classes, now, key);
        let views = (0..workers.clamp(1, VIEWS_MAX)).map(view).collect();
        Self { views, ..self }
    }

    /// Returns the eligible member whose turn it is among those with the least pressure, as far as the worker knows.
    pub(super) fn best(&self, worker: usize, members: &dyn Members, now: u64) -> Option<Best> {
        let view = self.view(worker);
        self.look_at_next(view, members, now);
        let mut passed = Passed::default();
        let mut looks = 0;
        let best = loop {
            let Some(first) = best(self.firsts(view), now) else { break self.ask_all(members, now) };
            let Seen { member, weight, .. } = first.seen;
            if !members.is_eligible(member as usize) {
                self.place(view, member, LEFT_OUT, now);
                passed.push(member);
                continue;
            }
            let seen = Seen::of(members, member, weight);
            if key(&seen) == key(&first.seen) || looks == LOOKS_MAX {
                break Some(Best { seen, ..first });
            }
            // All the way up: where two workers share the view, any node on the path may be wrong.
            self.bracket_of(view, member, |bracket, place| bracket.play(place, key(&seen), now));
            looks += 1;
        };
        // They may be eligible for the next session.
        passed.iter().for_each(|member| self.look_at(view, member, members, now));
        best
    }

    /// Must be called when the worker has given a session to a member, or taken one from it.
    pub(super) fn note(&self, worker: usize, seen: Seen, now: u64) {
        self.place(self.view(worker), seen.member, key(&seen), now);
    }

    /// Same as [`Contest::note`], for a member known by its index.
    pub(super) fn note_load(&self, worker: usize, member: usize, load: u32, stamp: u64, now: u64) {
        let member = u32::try_from(member).expect("a member is an index of 32 bits");
        self.note(worker, Seen { member, weight: 0, load, stamp }, now);
    }

    fn view(&self, worker: usize) -> &View {
        &self.views[worker % self.views.len()]
    }

    /// Returns the winner of each class, as the view has them.
    fn firsts<'a>(&'a self, view: &'a View) -> impl Iterator<Item = Seen> + Clone + 'a {
        self.classes.iter().zip(&view.brackets).filter_map(|(class, bracket)| {
            let (place, key) = bracket.first()?;
            let (load, stamp) = (load_of(key), key & TIME_MASK);
            Some(Seen { member: class.members[place], weight: class.weight, load, stamp })
        })
    }

    /// Returns the best of all without the brackets, for when they are empty.
    #[cold]
    fn ask_all(&self, members: &dyn Members, now: u64) -> Option<Best> {
        let candidates = self
            .classes
            .iter()
            .flat_map(|class| class.members.iter().map(move |&member| (member, class.weight)));
        let eligible = candidates.filter(|&(member, _)| members.is_eligible(member as usize));
        best(eligible.map(|(member, weight)| Seen::of(members, member, weight)), now)
    }

    fn look_at_next(&self, view: &View, members: &dyn Members, now: u64) {
        let next = view.next_look.load(Ordering::Relaxed);
        let next = if next < self.positions.len() { next } else { 0 };
        view.next_look.store(next + 1, Ordering::Relaxed);
        if let Ok(member) = u32::try_from(next) {
            self.look_at(view, member, members, now);
        }
    }

    /// Places a member by its true load.
    fn look_at(&self, view: &View, member: u32, members: &dyn Members, now: u64) {
        if self.positions[member as usize].is_some() {
            self.place(view, member, key(&Seen::of(members, member, 0)), now);
        }
    }

    fn place(&self, view: &View, member: u32, key: u64, now: u64) {
        self.bracket_of(view, member, |bracket, place| bracket.place(place, key, now));
    }

    fn bracket_of(&self, view: &View, member: u32, act: impl FnOnce(&Bracket, u32)) {
        if let Some(Position { class, place }) = self.positions[member as usize] {
            act(&view.brackets[class as usize], place);
        }
    }
}

impl View {
    fn new(classes: &[Class], now: u64, key: impl Fn(u16, u32) -> u64) -> Self {
        let bracket = |class: &Class| {
            let keys = class.members.iter().map(|&member| key(class.weight, member));
            Bracket::new(keys.collect(), now)
        };
        let brackets = classes.iter().map(bracket).collect();
        Self { brackets, next_look: AtomicUsize::new(0) }
    }
}

/// Members passed over by one pick.
#[derive(Default)]
struct Passed {
    members: [u32; PASSED_MAX],
    count: usize,
}

impl Passed {
    fn push(&mut self, member: u32) {
        // Members that find no room stay out until they are looked at.
        if let Some(free) = self.members.get_mut(self.count) {
            *free = member;
            self.count += 1;
        }
    }

    fn iter(&self) -> impl Iterator<Item = u32> {
        self.members.iter().copied().take(self.count)
    }
}

const LEFT_OUT: u64 = u64::MAX;

/// Sessions in the high bits, time in the low ones. Larger loads are capped: they are compared when their turn comes.
const LOAD_MAX: u32 = (1 << (u64::BITS - TIME_BITS)) - 2;

fn key(seen: &Seen) -> u64 {
    u64::from(seen.load.min(LOAD_MAX)) << TIME_BITS | seen.stamp & TIME_MASK
}

const fn load_of(key: u64) -> u32 {
    (key >> TIME_BITS) as u32
}

/// Returns the order in which keys win.
const fn rank(key: u64, now: u64) -> u64 {
    if key == LEFT_OUT { LEFT_OUT } else { key & !TIME_MASK | turns::order(key, now) }
}

/// A tournament of members of one weight. Node 1 is the winner, node `n` the better of nodes `2n` and `2n + 1`, and the
/// second half of the nodes are the members. Plain loads and stores: one worker writes. Where two share it, a node may
/// be wrong until it is played again.
struct Bracket {
    nodes: Box<[Node]>,
}

/// The winner so far, and its key.
struct Node {
    key: AtomicU64,
    place: AtomicU32,
}

impl Bracket {
    fn new(keys: Vec<u64>, now: u64) -> Self {
        let places = keys.len().next_power_of_two();
        let mut nodes = vec![(LEFT_OUT, 0); places];
        let outside = std::iter::repeat_n(LEFT_OUT, places - keys.len());
        nodes.extend(keys.into_iter().chain(outside).zip(0u32..));
        for node in (1..places).rev() {
            let [left, right] = [nodes[2 * node], nodes[2 * node + 1]];
            nodes[node] = if rank(right.0, now) < rank(left.0, now) { right } else { left };
        }
        let node = |(key, place)| Node { key: AtomicU64::new(key), place: AtomicU32::new(place) };
        Self { nodes: nodes.into_iter().map(node).collect() }
    }

    /// Returns the winner and its key; `None` when the bracket is empty.
    fn first(&self) -> Option<(usize, u64)> {
        let (key, place) = self.nodes[1].read();
        (key != LEFT_OUT).then_some((place as usize, key))
    }

    /// The member at `place` plays its way up, if its key has changed.
    fn place(&self, place: u32, key: u64, now: u64) {
        if self.nodes[self.nodes.len() / 2 + place as usize].read() != (key, place) {
            self.play(place, key, now);
        }
    }

    /// The member at `place` plays its way up.
    fn play(&self, place: u32, key: u64, now: u64) {
        let mut node = self.nodes.len() / 2 + place as usize;
        let mut winner = (key, place);
        self.nodes[node].write(winner);
        while node > 1 {
            let other = self.nodes[node ^ 1].read();
            let (mine, theirs) = (rank(winner.0, now), rank(other.0, now));
            // Of two equal keys the left one wins.
            if theirs < mine || theirs == mine && node & 1 == 1 {
                winner = other;
            }
            node /= 2;
            self.nodes[node].write(winner);
        }
    }
}

impl Node {
    fn read(&self) -> (u64, u32) {
        (self.key.load(Ordering::Relaxed), self.place.load(Ordering::Relaxed))
    }

    fn write(&self, (key, place): (u64, u32)) {
        self.key.store(key, Ordering::Relaxed);
        self.place.store(place, Ordering::Relaxed);
    }
}
