//! Which balancers check which backends, where some of all balancers check each: those with the highest scores, which all
//! of them compute alike (rendezvous hashing).

use std::cmp::Reverse;

/// Mixes all bits of a number into all bits of another one (splitmix64).
const fn mixed(seed: u64) -> u64 {
    let x = seed.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ (x >> 31)
}

/// Returns the balancers that check a backend.
fn checkers_of(backend: usize, balancers: &[usize], checkers: usize) -> Vec<usize> {
    let score = |balancer: usize| mixed(mixed(backend as u64) ^ balancer as u64);
    let mut scored: Vec<(u64, usize)> =
        balancers.iter().map(|&balancer| (score(balancer), balancer)).collect();
    if scored.len() > checkers {
        scored.select_nth_unstable_by_key(checkers, |&scored| Reverse(scored));
        scored.truncate(checkers);
    }
    scored.into_iter().map(|(_, balancer)| balancer).collect()
}

/// Returns how many backends each of these balancers checks.
fn shares(balancers: &[usize], backends: usize, checkers: usize) -> Vec<usize> {
    let mut shares = vec![0; balancers.iter().max().map_or(0, |last| last + 1)];
    for backend in 0..backends {
        for balancer in checkers_of(backend, balancers, checkers) {
            shares[balancer] += 1;
        }
    }
    shares
}

/// Returns how many backends the busiest balancer checks.
pub(super) fn most_of_a_balancer(balancers: usize, backends: usize, checkers: usize) -> usize {
    let all: Vec<usize> = (0..balancers).collect();
    shares(&all, backends, checkers).into_iter().max().unwrap_or(0)
}

#[test]
fn a_lost_balancer_moves_only_the_backends_that_it_checked() {
    let (balancers, backends, checkers) = (20, 500, 3);
    let all: Vec<usize> = (0..balancers).collect();
    let rest: Vec<usize> = (1..balancers).collect();
    for backend in 0..backends {
        let before = checkers_of(backend, &all, checkers);
        let after = checkers_of(backend, &rest, checkers);
        let kept = before.iter().filter(|&&balancer| balancer != 0);
        assert!(kept.clone().all(|balancer| after.contains(balancer)), "backend {backend}");
        assert_eq!(after.len(), checkers);
    }
}

#[test]
fn each_backend_is_checked_by_as_many_as_wanted_or_by_all() {
    assert_eq!(shares(&[0, 1, 2, 3], 100, 3).into_iter().sum::<usize>(), 300);
    assert_eq!(shares(&[0, 1], 100, 3), [100, 100]);
}
