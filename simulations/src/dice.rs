//! Randomness: every draw follows from the seed and from the name of the stream it is drawn from.
//!
//! Each part of the world has a stream of its own, so that drawing once more in one part does not change the others: a scenario with
//! another latency still has the same writes at the same moments. Logarithms and the like are computed by [`libm`], since the platform's own
//! differ in their last bits from one processor to another, and a seed is to mean the same run on all of them.

use std::sync::Arc;

use rand::Rng;
use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;

/// One stream of random numbers (ChaCha8).
#[derive(Clone, Debug)]
pub struct Dice(ChaCha8Rng);

impl Dice {
    /// The stream of this name under this seed.
    pub fn new(seed: u64, stream: &str) -> Self {
        let mut material = seed.to_le_bytes().to_vec();
        material.extend_from_slice(stream.as_bytes());
        Dice(ChaCha8Rng::from_seed(blake3::derive_key("mangrove simulations: dice 1", &material)))
    }

    /// 64 random bits.
    pub fn bits(&mut self) -> u64 {
        self.0.next_u64()
    }

    /// Evenly from 0 up to, and without, 1.
    pub fn unit(&mut self) -> f64 {
        (self.bits() >> 11) as f64 / (1u64 << 53) as f64
    }

    /// Evenly from 0 up to, and without, `bound`; 0 if that is 0.
    pub fn below(&mut self, bound: usize) -> usize {
        // The bias of the multiplication is below 2⁻³² for every bound that occurs.
        ((u128::from(self.bits()) * bound as u128) >> 64) as usize
    }

    /// Whether something of this probability happens.
    pub fn chance(&mut self, probability: f64) -> bool {
        probability > 0.0 && self.unit() < probability
    }

    /// One of several; `None` of none.
    pub fn pick<T: Clone>(&mut self, among: &[T]) -> Option<T> {
        among.get(self.below(among.len())).cloned()
    }

    /// From the standard normal distribution (Box and Muller 1958).
    pub fn normal(&mut self) -> f64 {
        let radius = (-2.0 * libm::log(1.0 - self.unit())).sqrt();
        radius * libm::cos(std::f64::consts::TAU * self.unit())
    }

    /// From the exponential distribution with mean 1.
    pub fn exponential(&mut self) -> f64 {
        -libm::log(1.0 - self.unit())
    }
}

/// A quantity that is drawn anew each time. The unit is that of its place: microseconds, bytes, parts per million, or none.
#[derive(Clone, PartialEq, Debug)]
pub enum Amount {
    /// Always the same.
    Constant(f64),
    /// Evenly between two bounds.
    Uniform {
        /// The least.
        min: f64,
        /// The greatest.
        max: f64,
    },
    /// Exponential: the gaps of a Poisson process.
    Exponential {
        /// The mean.
        mean: f64,
    },
    /// Its logarithm is normal.
    LogNormal {
        /// Half of the draws are below it.
        median: f64,
        /// The standard deviation of the logarithm.
        sigma: f64,
        /// Smaller draws become this.
        min: f64,
        /// Greater draws become this.
        max: f64,
    },
    /// A heavy tail, cut off (Pareto's first kind).
    Pareto {
        /// The least, where most are.
        min: f64,
        /// How fast the tail falls.
        shape: f64,
        /// Greater draws become this.
        max: f64,
    },
    /// As it was measured.
    Empirical(Arc<Samples>),
}

impl Amount {
    /// One draw: by inversion of the distribution function, but for the log-normal.
    pub fn draw(&self, dice: &mut Dice) -> f64 {
        match *self {
            Amount::Constant(value) => value,
            Amount::Uniform { min, max } => min + (max - min) * dice.unit(),
            Amount::Exponential { mean } => mean * dice.exponential(),
            Amount::Empirical(ref samples) => samples.sorted[dice.below(samples.sorted.len())],
            Amount::LogNormal { median, sigma, min, max } => (median * libm::exp(sigma * dice.normal())).clamp(min, max),
            Amount::Pareto { min, shape, max } => (min / libm::pow(1.0 - dice.unit(), 1.0 / shape)).min(max),
        }
    }

    /// One draw as a whole number, not below zero.
    pub fn draw_u64(&self, dice: &mut Dice) -> u64 {
        self.draw(dice).max(0.0) as u64
    }

    /// Its mean, but for what bounds cut off.
    pub fn mean(&self) -> f64 {
        match *self {
            Amount::Constant(value) => value,
            Amount::Uniform { min, max } => (min + max) / 2.0,
            Amount::Exponential { mean } => mean,
            Amount::Empirical(ref samples) => samples.mean,
            Amount::LogNormal { median, sigma, .. } => median * libm::exp(sigma * sigma / 2.0),
            Amount::Pareto { min, shape, .. } => min * shape / (shape - 1.0).max(0.1),
        }
    }

    /// What it never exceeds, or, for the exponential, hardly ever: twenty means.
    pub fn greatest(&self) -> f64 {
        match *self {
            Amount::Constant(value) => value,
            Amount::Uniform { max, .. } | Amount::LogNormal { max, .. } | Amount::Pareto { max, .. } => max,
            Amount::Exponential { mean } => 20.0 * mean,
            Amount::Empirical(ref samples) => samples.sorted[samples.sorted.len() - 1],
        }
    }
}

/// What was measured. Each sample is as likely as any other, which is both the bootstrap (Efron 1979) and the inversion of the empirical distribution
/// function; nothing is drawn that was not measured, and one draw says nothing about the next.
#[derive(PartialEq, Debug)]
pub struct Samples {
    sorted: Box<[f64]>,
    mean: f64,
}

impl Samples {
    /// So many as there are; `None` without any.
    pub fn new(mut samples: Vec<f64>) -> Option<Self> {
        samples.sort_unstable_by(f64::total_cmp);
        let mean = samples.iter().sum::<f64>() / samples.len() as f64;
        (!samples.is_empty()).then(|| Samples { sorted: samples.into(), mean })
    }
}

/// Which of several is chosen.
#[derive(Clone, PartialEq, Debug)]
pub enum Choice {
    /// Each as often as any other.
    Even,
    /// By Zipf's law: the k-th with a probability in proportion to 1 ∕ k^s. These are the sums of the weights up to each.
    Zipf(Arc<[f64]>),
}

impl Choice {
    /// By Zipf's law, among so many at most.
    pub fn zipf(count: usize, s: f64) -> Self {
        let sums = (1..=count).scan(0.0, |sum, k| {
            *sum += libm::pow(k as f64, -s);
            Some(*sum)
        });
        Choice::Zipf(sums.collect())
    }

    /// One of the first `count`, by inversion of the distribution function; 0 if that is 0.
    pub fn draw(&self, dice: &mut Dice, count: usize) -> usize {
        match self {
            Choice::Even => dice.below(count),
            Choice::Zipf(sums) => {
                let sums = &sums[..count.min(sums.len())];
                let drawn = dice.unit() * sums.last().unwrap_or(&0.0);
                sums.partition_point(|sum| *sum <= drawn).min(sums.len().saturating_sub(1))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_stream_of_the_same_seed_repeats_and_others_differ() {
        let draws = |seed, stream| {
            let mut dice = Dice::new(seed, stream);
            (0..4).map(|_| dice.bits()).collect::<Vec<_>>()
        };
        assert_eq!(draws(1, "network"), draws(1, "network"));
        assert_ne!(draws(1, "network"), draws(2, "network"));
        assert_ne!(draws(1, "network"), draws(1, "faults"));
    }

    #[test]
    fn draws_have_the_moments_of_their_distributions() {
        let mut dice = Dice::new(7, "test");
        let mut mean = |amount: Amount| (0..100_000).map(|_| amount.draw(&mut dice)).sum::<f64>() / 100_000.0;
        assert!((mean(Amount::Uniform { min: 2.0, max: 4.0 }) - 3.0).abs() < 0.02);
        assert!((mean(Amount::Exponential { mean: 5.0 }) - 5.0).abs() < 0.1);
        // The mean of a log-normal is its median times exp(σ²/2).
        let lognormal = Amount::LogNormal { median: 10.0, sigma: 0.5, min: 0.0, max: f64::MAX };
        assert!((mean(lognormal) - 11.33).abs() < 0.2);
        assert!((mean(Amount::Pareto { min: 1.0, shape: 3.0, max: 1e9 }) - 1.5).abs() < 0.05);
        assert!((0..1000).all(|_| dice.below(3) < 3) && dice.below(0) == 0);
    }
}
