//! How long packets take.

use super::{delays, theory::*};

const COUNT: usize = 20_000;

/// A path with this latency, of which so much is below each number of microseconds, with this mean.
#[track_caller]
fn is(latency: &str, below: impl Fn(f64) -> f64, mean: f64) {
    let found = delays(&format!("latency = {latency}"), COUNT, 1_000);
    comes_from(&found, &below);
    // The network counts whole microseconds, rounded down.
    has_mean(&found.iter().map(|delay| *delay as f64 + 0.5).collect::<Vec<_>>(), mean);
    for quantile in [0.01, 0.1, 0.5, 0.9, 0.99] {
        let value = (1..10_000_000).step_by(50).find(|value| below(f64::from(*value)) >= quantile).expect("a quantile");
        let less = found.iter().filter(|delay| **delay < value as u64).count();
        is_share(less, COUNT, below(f64::from(value)));
    }
}

#[test]
fn a_constant_is_constant() {
    assert!(delays("latency = \"10ms\"", 100, 1_000).iter().all(|delay| *delay == 10_000));
}

#[test]
fn uniform() {
    is("{ dist = \"uniform\", min = \"5ms\", max = \"25ms\" }", |us| ((us - 5e3) / 20e3).clamp(0.0, 1.0), 15e3);
}

#[test]
fn exponential() {
    is("{ dist = \"exponential\", mean = \"10ms\" }", |us| 1.0 - (-us / 10e3).exp(), 10e3);
}

#[test]
fn log_normal() {
    let below = |us: f64| normal_below((us / 12e3).ln() / 0.4);
    is("{ dist = \"lognormal\", median = \"12ms\", sigma = 0.4, min = \"1ms\", max = \"2s\" }", below, 12e3 * (0.4_f64 * 0.4 / 2.0).exp());
}

#[test]
fn log_normal_has_at_its_bounds_what_is_beyond_them() {
    let found = delays("latency = { dist = \"lognormal\", median = \"12ms\", sigma = 0.4, min = \"9ms\", max = \"15ms\" }", COUNT, 1_000);
    let at = |bound: u64| found.iter().filter(|delay| **delay == bound).count();
    is_share(at(9_000), COUNT, normal_below((9.0_f64 / 12.0).ln() / 0.4));
    is_share(at(15_000), COUNT, 1.0 - normal_below((15.0_f64 / 12.0).ln() / 0.4));
    assert!(found.iter().all(|delay| (9_000..=15_000).contains(delay)));
}

#[test]
fn pareto() {
    let (min, shape, max) = (5e3_f64, 2.5_f64, 200e3_f64);
    let below = |us: f64| if us > max { 1.0 } else { 1.0 - (min / us.max(min)).powf(shape) };
    // The mean of what does not exceed the bound.
    let mean = (shape * min - min.powf(shape) * max.powf(1.0 - shape)) / (shape - 1.0);
    is("{ dist = \"pareto\", min = \"5ms\", shape = 2.5, max = \"200ms\" }", below, mean);
}

#[test]
fn samples_come_as_often_as_they_were_measured() {
    let csv = "# one-way delays\nwhen,owd_ms\n0,1.5\n1,2\n\n2,2\n3,\"40\"\n4,2\n5,8.25\n6,40\n7,100\n";
    std::fs::write(concat!(env!("CARGO_TARGET_TMPDIR"), "/owd.csv"), csv).expect("a scratch directory");
    let path = "latency = { dist = \"empirical\", file = \"owd.csv\", column = \"owd_ms\", unit = \"ms\" }";
    let found = delays(path, COUNT, 1_000);
    let values = [1_500, 2_000, 8_250, 40_000, 100_000];
    let counts = values.map(|value| found.iter().filter(|delay| **delay == value).count());
    assert_eq!(counts.iter().sum::<usize>(), COUNT, "nothing else");
    has_proportions(&counts, &[1.0, 3.0, 1.0, 2.0, 1.0]);
    let mean = (1.5 + 3.0 * 2.0 + 8.25 + 2.0 * 40.0 + 100.0) / 8.0 * 1e3;
    has_mean(&found.iter().map(|delay| *delay as f64).collect::<Vec<_>>(), mean);
}

#[test]
fn some_packets_take_one_more_delay_so_that_others_overtake() {
    let found = delays("latency = \"10ms\"\nreorder = 0.2", COUNT, 1_000);
    let later = found.iter().filter(|delay| **delay == 20_000).count();
    assert!(found.iter().all(|delay| [10_000, 20_000].contains(delay)));
    is_share(later, COUNT, 0.2);
}
