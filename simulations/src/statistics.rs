//! Means with their uncertainty: Student's *t* intervals for one sample, Welch's for the difference of two.
//!
//! The quantile of Student's *t* is that of the crate `statrs`, which computes without the platform's mathematics, so that it is the same everywhere. Welch: *The generalization of
//! "Student's" problem when several different population variances are involved*, Biometrika 34 (1947). No event in *n* runs: Hanley and Lippman-Hand, *If nothing goes
//! wrong, is everything all right?*, JAMA 249 (1983).

use statrs::distribution::{ContinuousCDF, Normal, StudentsT};

/// The confidence of all intervals.
pub const CONFIDENCE: f64 = 0.95;

/// From so many degrees of freedom on, Student's *t* is taken from the normal distribution.
const FREEDOM_MANY: f64 = 1_000.0;

/// A sample in short.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Summary {
    /// How many values.
    pub n: usize,
    /// Their mean.
    pub mean: f64,
    /// Their standard deviation, with *n* − 1; 0 for one value.
    pub deviation: f64,
    /// The least.
    pub min: f64,
    /// The greatest.
    pub max: f64,
}

impl Summary {
    /// Of values, which are added up in their order; none of none.
    pub fn of(values: &[f64]) -> Option<Summary> {
        let first = *values.first()?;
        let n = values.len();
        let mean = values.iter().sum::<f64>() / n as f64;
        let squares: f64 = values.iter().map(|value| (value - mean) * (value - mean)).sum();
        let deviation = (squares / n.saturating_sub(1).max(1) as f64).sqrt();
        let (min, max) = values.iter().fold((first, first), |(min, max), value| (min.min(*value), max.max(*value)));
        Some(Summary { n, mean, deviation, min, max })
    }

    /// Half the width of the 95 % interval round the mean; none of one value, which says nothing about others.
    pub fn half_width(&self) -> Option<f64> {
        let freedom = self.n.checked_sub(1).filter(|freedom| *freedom > 0)?;
        Some(critical(freedom as f64) * self.error())
    }

    /// The standard error of the mean.
    fn error(&self) -> f64 {
        self.deviation / (self.n as f64).sqrt()
    }
}

/// A difference of two means.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Difference {
    /// Mean of the first less mean of the second.
    pub mean: f64,
    /// Half the width of its 95 % interval.
    pub half_width: f64,
    /// Degrees of freedom, by Welch and Satterthwaite; infinite where nothing varies.
    pub freedom: f64,
}

impl Difference {
    /// By Welch: the samples may differ in size and in variance. None if one has less than two values.
    pub fn welch(a: &Summary, b: &Summary) -> Option<Difference> {
        if a.n < 2 || b.n < 2 {
            return None;
        }
        let mean = a.mean - b.mean;
        let of = |summary: &Summary| summary.error() * summary.error();
        let (va, vb) = (of(a), of(b));
        if va + vb == 0.0 {
            return Some(Difference { mean, half_width: 0.0, freedom: f64::INFINITY });
        }
        let freedom = (va + vb) * (va + vb) / (va * va / (a.n - 1) as f64 + vb * vb / (b.n - 1) as f64);
        Some(Difference { mean, half_width: critical(freedom) * (va + vb).sqrt(), freedom })
    }

    /// The interval.
    pub fn interval(&self) -> (f64, f64) {
        (self.mean - self.half_width, self.mean + self.half_width)
    }

    /// Whether the interval leaves out 0: that a difference so large comes by chance is unlikely.
    pub fn is_shown(&self) -> bool {
        let (low, high) = self.interval();
        low > 0.0 || high < 0.0
    }
}

/// The quantile of Student's *t* at `p`, from 0 to 1, with so many degrees of freedom.
pub fn student_t(p: f64, freedom: f64) -> f64 {
    if freedom <= FREEDOM_MANY {
        return StudentsT::new(0.0, 1.0, freedom).map_or(f64::NAN, |student| student.inverse_cdf(p));
    }
    // The quantile of the crate loses digits there. Abramowitz and Stegun, 26.7.5; the next term is below 1e-8.
    let z = Normal::standard().inverse_cdf(p);
    let (z3, z5) = (z * z * z, z * z * z * z * z);
    z + (z3 + z) / (4.0 * freedom) + (5.0 * z5 + 16.0 * z3 + 3.0 * z) / (96.0 * freedom * freedom)
}

/// What the standard error is multiplied with.
fn critical(freedom: f64) -> f64 {
    student_t(0.5 + CONFIDENCE / 2.0, freedom)
}

/// Something did not happen in `n` runs: with confidence 95 % its probability is at most this.
pub fn rule_of_three(n: usize) -> f64 {
    (3.0 / n as f64).min(1.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn near(value: f64, published: f64, within: f64) {
        assert!((value - published).abs() <= within, "{value} is not {published}");
    }

    /// Tables of Student's t, as in the NIST/SEMATECH e-Handbook of Statistical Methods, 1.3.6.7.2, with more digits.
    #[test]
    fn quantiles_are_those_of_the_tables() {
        let table = [
            (0.975, 1.0, 12.706_204_736),
            (0.975, 2.0, 4.302_652_730),
            (0.975, 5.0, 2.570_581_836),
            (0.975, 10.0, 2.228_138_852),
            (0.975, 30.0, 2.042_272_456),
            (0.975, 100.0, 1.983_971_519),
            (0.95, 10.0, 1.812_461_123),
            (0.995, 7.0, 3.499_483_297),
            (0.025, 10.0, -2.228_138_852),
            (0.975, 1_000.0, 1.962_339_081),
            (0.975, 1_001.0, 1.962_337),
            (0.975, 1e6, 1.959_966),
        ];
        for (p, freedom, published) in table {
            near(student_t(p, freedom), published, 1e-6);
        }
    }

    /// NIST, Statistical Reference Datasets, NumAcc1: certified mean 10000002 and standard deviation 1.
    #[test]
    fn large_values_that_differ_little_keep_their_deviation() {
        let summary = Summary::of(&[10_000_001.0, 10_000_003.0, 10_000_002.0]).expect("values");
        assert_eq!((summary.mean, summary.deviation), (10_000_002.0, 1.0));
        assert_eq!((summary.min, summary.max, summary.n), (10_000_001.0, 10_000_003.0, 3));
    }

    /// NIST/SEMATECH e-Handbook, 1.3.5.2: ZARR13.DAT, 195 values, 9.258242 to 9.264679.
    #[test]
    fn an_interval_is_that_of_the_handbook() {
        let summary = Summary { n: 195, mean: 9.261460, deviation: 0.022789, min: 0.0, max: 0.0 };
        let half = summary.half_width().expect("many values");
        near(summary.mean - half, 9.258242, 1e-6);
        near(summary.mean + half, 9.264679, 1e-6);
    }

    /// NIST/SEMATECH e-Handbook, 1.3.5.3: AUTO83B.DAT with unequal variances, t = −12.94627 with 136.8750 degrees of freedom.
    #[test]
    fn degrees_of_freedom_are_those_of_the_handbook() {
        let of = |n, mean, deviation| Summary { n, mean, deviation, min: 0.0, max: 0.0 };
        let difference = Difference::welch(&of(249, 20.14458, 6.41470), &of(79, 30.48101, 6.10771)).expect("many values");
        near(difference.freedom, 136.8750, 1e-3);
        near(difference.mean / (difference.half_width / critical(difference.freedom)), -12.94627, 1e-4);
        assert!(difference.is_shown());
    }

    /// Student's own: extra hours of sleep with two drugs. R's `t.test(extra ~ group, sleep)` gives −3.3654832 to 0.2054832, with 17.776 degrees of freedom.
    #[test]
    fn welchs_interval_is_that_of_r() {
        let a = Summary::of(&[0.7, -1.6, -0.2, -1.2, -0.1, 3.4, 3.7, 0.8, 0.0, 2.0]).expect("values");
        let b = Summary::of(&[1.9, 0.8, 1.1, 0.1, -0.1, 4.4, 5.5, 1.6, 4.6, 3.4]).expect("values");
        let difference = Difference::welch(&a, &b).expect("many values");
        let (low, high) = difference.interval();
        near(difference.freedom, 17.776, 1e-3);
        near(low, -3.3654832, 1e-6);
        near(high, 0.2054832, 1e-6);
        assert!(!difference.is_shown());
    }

    #[test]
    fn what_says_nothing_is_not_made_up() {
        assert_eq!(Summary::of(&[]), None);
        let one = Summary::of(&[4.0]).expect("a value");
        assert_eq!((one.half_width(), Difference::welch(&one, &one)), (None, None));
        let same = Summary::of(&[4.0, 4.0]).expect("values");
        assert_eq!(same.half_width(), Some(0.0));
        assert!(!Difference::welch(&same, &same).expect("values").is_shown());
        assert_eq!((rule_of_three(300), rule_of_three(2)), (0.01, 1.0));
    }
}
