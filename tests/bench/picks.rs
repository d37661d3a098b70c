//! A backend for one session, and its lease given back.

use std::fmt::Write;
use std::hint::black_box;
use std::net::Ipv4Addr;

use divan::Bencher;
use l4lb::balance::Algorithm;
use l4lb::base::rng::Rng;
use l4lb::config::model::HealthState;
use l4lb::config::{self, Overrides};
use l4lb::pool::{Chosen, PoolId, Snapshot, choose};

/// Backends of the weights that round robin by hand would give, 1 to 4.
fn snapshot(algorithm: Algorithm, backends: usize) -> Snapshot {
    let name = algorithm.as_str();
    let mut text = format!("listener = [{{ bind = \"127.0.0.1:9090\" }}]\n[[pool]]\nbalance = \"{name}\"\n");
    for (address, weight) in (0x7F00_0001..).map(Ipv4Addr::from_bits).zip((1..=4).cycle()).take(backends) {
        writeln!(text, "[[pool.backend]]\naddress = \"{address}:80\"\nweight = {weight}")
            .expect("a string takes all");
    }
    let no_names = &mut |_: &str| Ok(Vec::new());
    Snapshot::new(&config::parse(&text, "bench", &Overrides::default(), no_names).expect("a good config"))
}

/// Picks for clients of any address.
fn run(bencher: Bencher<'_, '_>, snapshot: &Snapshot) {
    let pool = snapshot.pool(PoolId(0));
    let mut rng = Rng::new(1);
    let mut clients = Rng::new(2);
    bencher.bench_local(|| {
        let client = u32::try_from(clients.below(1 << 32)).expect("32 bits");
        let client = black_box(Ipv4Addr::from_bits(client).into());
        if let Chosen::Leased(lease, _) = choose(pool, 0, client, &[], &mut rng) {
            snapshot.release(lease, 0);
        }
    });
}

#[divan::bench(args = Algorithm::ALL, consts = [3, 64, 10_000], sample_size = 200)]
fn pick<const BACKENDS: usize>(bencher: Bencher<'_, '_>, algorithm: Algorithm) {
    run(bencher, &snapshot(algorithm, BACKENDS));
}

/// Health says so, and no table has been built since.
#[divan::bench(args = Algorithm::ALL, consts = [1_000], sample_size = 200)]
fn pick_with_half_of_them_down<const BACKENDS: usize>(bencher: Bencher<'_, '_>, algorithm: Algorithm) {
    let snapshot = snapshot(algorithm, BACKENDS);
    snapshot.backends().step_by(2).for_each(|backend| backend.set_health(HealthState::Down));
    run(bencher, &snapshot);
}

/// What the control thread does at a change.
#[divan::bench(args = Algorithm::ALL, consts = [3, 10_000])]
fn build<const BACKENDS: usize>(bencher: Bencher<'_, '_>, algorithm: Algorithm) {
    let snapshot = snapshot(algorithm, BACKENDS);
    bencher.bench_local(|| snapshot.refreshed(black_box(&[PoolId(0)])));
}
