//! Critical values, and comparisons with them.

/// The standard normal distribution has this much on both sides but for one part in a thousand.
pub const NORMAL: f64 = 3.291;

/// Below which share of a standard normal distribution lies what is below `z`.
pub fn normal_below(z: f64) -> f64 {
    libm::erfc(-z / std::f64::consts::SQRT_2) / 2.0
}

/// So many of so many are a share of `p`, if they are independent.
#[track_caller]
pub fn is_share(hits: usize, of: usize, p: f64) {
    is_share_with(hits, of, p, p * (1.0 - p));
}

/// The same, where one more has this variance, by itself and by what it has in common with the others.
#[track_caller]
pub fn is_share_with(hits: usize, of: usize, p: f64, variance: f64) {
    let z = (hits as f64 - of as f64 * p) / (of as f64 * variance).sqrt();
    assert!(z.abs() < NORMAL, "{hits} of {of} are no share of {p}: {z:.2} standard deviations off");
}

/// The mean of independent samples is this.
#[track_caller]
pub fn has_mean(samples: &[f64], mean: f64) {
    let n = samples.len() as f64;
    let found = samples.iter().sum::<f64>() / n;
    let variance = samples.iter().map(|sample| (sample - found).powi(2)).sum::<f64>() / (n - 1.0);
    let z = (found - mean) / (variance / n).sqrt();
    assert!(z.abs() < NORMAL, "the mean is {found}, not {mean}: {z:.2} standard errors off");
}

/// Kolmogorov and Smirnov: whole numbers, rounded down, come from a distribution of which `below` says how much is below a value.
#[track_caller]
pub fn comes_from(samples: &[u64], below: impl Fn(f64) -> f64) {
    let mut sorted = samples.to_vec();
    sorted.sort_unstable();
    let n = sorted.len() as f64;
    let off = |at: usize| {
        let (before, value) = (sorted.partition_point(|other| *other < sorted[at]), sorted[at] as f64);
        let through = sorted.partition_point(|other| *other <= sorted[at]);
        (before as f64 / n - below(value)).abs().max((through as f64 / n - below(value + 1.0)).abs())
    };
    let distance = (0..sorted.len()).map(off).fold(0.0, f64::max);
    // √(−ln(0.001 ∕ 2) ∕ 2) ∕ √n, as n grows.
    let critical = 1.9495 / n.sqrt();
    assert!(distance < critical, "the greatest distance is {distance:.5}, critical is {critical:.5}");
}

/// Pearson: so many of each kind there are, in proportion to these weights.
#[track_caller]
pub fn has_proportions(counts: &[usize], weights: &[f64]) {
    let (all, weight) = (counts.iter().sum::<usize>() as f64, weights.iter().sum::<f64>());
    let expected = |at: usize| all * weights[at] / weight;
    assert!((0..weights.len()).all(|at| expected(at) >= 5.0), "too few for this test");
    let found = (0..counts.len()).map(|at| (counts[at] as f64 - expected(at)).powi(2) / expected(at)).sum::<f64>();
    let critical = chi_square(counts.len() - 1);
    assert!(found < critical, "χ² is {found:.1}, critical is {critical:.1}: {counts:?}");
}

/// What χ² exceeds once in a thousand (Wilson and Hilferty 1931).
fn chi_square(freedom: usize) -> f64 {
    let k = 2.0 / (9.0 * freedom as f64);
    freedom as f64 * (1.0 - k + 3.0902 * k.sqrt()).powi(3)
}

/// Lengths of runs are geometric: each is over after one more with the probability `end`.
#[track_caller]
pub fn are_geometric(lengths: &[usize], end: f64) {
    has_mean(&lengths.iter().map(|length| *length as f64).collect::<Vec<_>>(), 1.0 / end);
    // As many kinds as have enough of them, and one for the rest.
    let kinds = (0..).take_while(|at| lengths.len() as f64 * (1.0 - end).powi(at + 1) >= 20.0).count().min(30);
    let mut counts = vec![0; kinds + 1];
    lengths.iter().for_each(|length| counts[(length - 1).min(kinds)] += 1);
    let weights = (0..=kinds).map(|at| (1.0 - end).powi(at as i32) * if at < kinds { end } else { 1.0 });
    has_proportions(&counts, &weights.collect::<Vec<_>>());
}
