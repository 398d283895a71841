//! What paths lose, and what comes twice.

use bytes::Bytes;
use mangrove_simulations::{
    network::EndState,
    queue::{Event, Queue},
    scenario::Time,
};

use super::{delays, network, theory::*};

/// A packet that takes 10 ms is sent again after 25 ms, 50 ms, and so on: how often it was lost.
fn losses(delay: Time) -> usize {
    ((delay - 10_000) / 25_000 + 1).ilog2() as usize
}

/// Whether each packet is lost at the first try, at equal distances.
fn first_tries(loss: &str, count: usize, apart: Time) -> Vec<bool> {
    delays(&format!("latency = \"10ms\"\n{loss}"), count, apart).into_iter().map(|delay| losses(delay) > 0).collect()
}

/// Whether each try is lost, packet after packet. The eighth is the last of a packet.
fn tries(loss: &str, count: usize, apart: Time) -> Vec<bool> {
    let each = delays(&format!("latency = \"10ms\"\n{loss}"), count, apart).into_iter().map(losses);
    each.flat_map(|lost| (0..(lost + 1).min(8)).map(move |at| at < lost)).collect()
}

fn lost(tries: &[bool]) -> usize {
    tries.iter().filter(|lost| **lost).count()
}

/// The lengths of runs of one kind, but for the first and the last, which may be cut off.
fn runs(tries: &[bool], of: bool) -> Vec<usize> {
    let runs: Vec<&[bool]> = tries.chunk_by(|a, b| a == b).collect();
    runs[1..runs.len() - 1].iter().filter(|run| run[0] == of).map(|run| run.len()).collect()
}

/// How often one that follows a loss is lost as well, and of how many.
fn after_a_loss(tries: &[bool]) -> (usize, usize) {
    let pairs = tries.windows(2).filter(|pair| pair[0]);
    (pairs.clone().filter(|pair| pair[1]).count(), pairs.count())
}

#[test]
fn each_by_itself() {
    let tries = tries("loss = 0.1", 50_000, 1_000);
    is_share(lost(&tries), tries.len(), 0.1);
    let (both, first) = after_a_loss(&tries);
    is_share(both, first, 0.1);
}

#[test]
fn what_arrives_changed_is_lost() {
    let tries = tries("loss = 0.05\ncorrupt = 0.1", 50_000, 1_000);
    is_share(lost(&tries), tries.len(), 1.0 - 0.95 * 0.9);
}

const P: f64 = 0.02;
const R: f64 = 0.25;
const BAD_SHARE: f64 = P / (P + R);

#[test]
fn in_bursts_of_packets() {
    let loss = "loss = { model = \"gilbert-elliott\", p = 0.02, r = 0.25 }";
    let tries = tries(loss, 500_000, 1_000);
    are_geometric(&runs(&tries, true), R);
    are_geometric(&runs(&tries, false), P);
    // A state has in common with the one k packets later what is left of it: (1 − p − r)^k.
    let left = 1.0 - P - R;
    is_share_with(lost(&tries), tries.len(), BAD_SHARE, BAD_SHARE * (1.0 - BAD_SHARE) * (1.0 + left) / (1.0 - left));
    // However far they are apart.
    assert_eq!(tries, self::tries(loss, 500_000, 1_000_000));
}

#[test]
fn each_state_loses_its_own_share() {
    let loss = "loss = { model = \"gilbert-elliott\", p = 0.02, r = 0.25, loss_good = 0.01, loss_bad = 0.6, time_base = \"packet\" }";
    let tries = tries(loss, 200_000, 1_000);
    let (share, left) = (0.01 * (1.0 - BAD_SHARE) + 0.6 * BAD_SHARE, 1.0 - P - R);
    let in_common = 0.59 * 0.59 * BAD_SHARE * (1.0 - BAD_SHARE) * left / (1.0 - left);
    is_share_with(lost(&tries), tries.len(), share, share * (1.0 - share) + 2.0 * in_common);
}

/// The same in time, by default in steps of a millisecond. How much of a state is left after so many steps.
const IN_TIME: &str = "loss = { model = \"gilbert-elliott\", p = 0.02, r = 0.25, time_base = \"continuous\" }";

fn left_after(steps: f64) -> f64 {
    (1.0 - P - R).powf(steps)
}

#[test]
fn in_time_packets_a_step_apart_see_bursts_of_as_many_packets() {
    let tries = first_tries(IN_TIME, 200_000, 1_000);
    are_geometric(&runs(&tries, true), R);
    are_geometric(&runs(&tries, false), P);
    let left = left_after(1.0);
    is_share_with(lost(&tries), tries.len(), BAD_SHARE, BAD_SHARE * (1.0 - BAD_SHARE) * (1.0 + left) / (1.0 - left));
}

#[test]
fn in_time_a_burst_lasts_as_long_for_ten_times_as_many_packets() {
    let tries = first_tries(IN_TIME, 400_000, 100);
    let left = left_after(0.1);
    let end = (1.0 - BAD_SHARE) * (1.0 - left);
    are_geometric(&runs(&tries, true), end);
    is_share_with(lost(&tries), tries.len(), BAD_SHARE, BAD_SHARE * (1.0 - BAD_SHARE) * (1.0 + left) / (1.0 - left));
    // The mean of a bad stretch is (p + r) ∕ (κ r), which is 3.43 ms. Seen every 0.1 ms it is hardly longer.
    let bursts = runs(&tries, true);
    let mean_ms = bursts.iter().sum::<usize>() as f64 / bursts.len() as f64 * 0.1;
    let theory = (P + R) / (-(1.0 - P - R).ln() * R);
    assert!((mean_ms / theory - 1.0).abs() < 0.05, "{mean_ms} ms, and not {theory}");
}

#[test]
fn in_time_bursts_are_over_for_packets_far_apart() {
    let tries = first_tries(IN_TIME, 50_000, 1_000_000);
    is_share(lost(&tries), tries.len(), BAD_SHARE);
    let (both, first) = after_a_loss(&tries);
    is_share(both, first, BAD_SHARE);
}

#[test]
fn in_time_what_is_sent_again_within_the_burst_is_lost_again() {
    let loss = "loss = { model = \"gilbert-elliott\", p = 0.02, r = 0.25, time_base = \"continuous\", step = \"100ms\" }";
    let each = delays(&format!("latency = \"10ms\"\n{loss}"), 50_000, 60_000_000).into_iter().map(losses);
    let each: Vec<usize> = each.collect();
    // The tries are 25 ms and 50 ms apart: a quarter of a step, and half of one.
    for (nth, steps) in [(1, 0.25), (2, 0.5)] {
        let lost = |times: usize| each.iter().filter(|lost| **lost >= times).count();
        is_share(lost(nth + 1), lost(nth), BAD_SHARE + (1.0 - BAD_SHARE) * left_after(steps));
    }
}

#[test]
fn some_packets_come_twice() {
    let mut network = network("latency = \"10ms\"\nduplicate = 0.05");
    let mut queue = Queue::default();
    network.connect(0, &mut queue, (0, 1), (1, 1));
    network.conns[0].ends[0].state = EndState::Up;
    const COUNT: usize = 20_000;
    (0..COUNT as Time).for_each(|at| network.send(at, &mut queue, 0, 0, 1, Bytes::from_static(b"frame")));
    let mut copies = vec![0; COUNT];
    while let Some((_, event)) = queue.pop() {
        if let Event::Packet { seq, .. } = event {
            copies[seq as usize] += 1;
        }
    }
    assert!(copies.iter().all(|copies| [1, 2].contains(copies)));
    is_share(copies.iter().filter(|copies| **copies == 2).count(), COUNT, 0.05);
}
