//! Reading quantities that are drawn: distributions by their names, and samples from files.

use std::sync::Arc;

use super::keys::{BadScenario, Keys, Unit, named_factor, nearest, quantity};
use crate::dice::{Amount, Samples};

/// How many samples one file may have.
const SAMPLES_MAX: usize = 1_000_000;

impl Keys<'_> {
    /// A quantity in a unit, with its distribution or without.
    pub fn amount(&mut self, key: &'static str, unit: Unit) -> Result<Option<Amount>, BadScenario> {
        if !self.is_table(key) {
            return Ok(self.quantity(key, unit)?.map(Amount::Constant));
        }
        let Some(mut keys) = self.table(key, &[])? else { return Ok(None) };
        let kind = keys.word("dist", &["constant", "uniform", "exponential", "lognormal", "pareto", "empirical"])?;
        let kind = kind.ok_or_else(|| keys.bad("dist", "is missing: a distribution needs its name"))?;
        let amount = match kind.as_str() {
            "constant" => Amount::Constant(keys.needed("value", unit, f64::MIN)?),
            "uniform" => Amount::Uniform { min: keys.needed("min", unit, f64::MIN)?, max: keys.needed("max", unit, f64::MIN)? },
            "exponential" => Amount::Exponential { mean: keys.needed("mean", unit, 0.0)? },
            "lognormal" => {
                let (median, sigma) = (keys.needed("median", unit, 0.0)?, keys.needed("sigma", Unit::None, 0.0)?);
                // Without a bound a draw could be as long as the run.
                let (min, max) = (keys.quantity("min", unit)?.unwrap_or(0.0), keys.quantity("max", unit)?.unwrap_or(median * 1_000.0));
                Amount::LogNormal { median, sigma, min, max }
            }
            "pareto" => {
                let (min, shape) = (keys.needed("min", unit, 0.0)?, keys.needed("shape", Unit::None, 0.0)?);
                Amount::Pareto { min, shape, max: keys.needed("max", unit, 0.0)? }
            }
            _ => Amount::Empirical(Arc::new(keys.samples(unit)?)),
        };
        if let Amount::Uniform { min, max } | Amount::LogNormal { min, max, .. } | Amount::Pareto { min, max, .. } = amount
            && min > max
        {
            return Err(keys.bad("min", "is above max"));
        }
        keys.end()?;
        Ok(Some(amount))
    }

    fn quantity(&mut self, key: &'static str, unit: Unit) -> Result<Option<f64>, BadScenario> {
        self.value(key).map(|value| quantity(&value, unit).map_err(|what| self.bad(key, what))).transpose()
    }

    /// A quantity that must be there, and above a bound.
    fn needed(&mut self, key: &'static str, unit: Unit, bound: f64) -> Result<f64, BadScenario> {
        match self.quantity(key, unit)? {
            None => Err(self.bad(key, "is missing: this distribution needs it")),
            Some(value) if value <= bound => Err(self.bad(key, format!("must be above {bound}"))),
            Some(value) => Ok(value),
        }
    }

    /// One column of a CSV file.
    fn samples(&mut self, unit: Unit) -> Result<Samples, BadScenario> {
        let mut needed = |key| self.text(key)?.ok_or_else(|| self.bad(key, "is missing: this distribution needs it"));
        let (file, column) = (needed("file")?, needed("column")?);
        let factor = self.text("unit")?;
        let factor = named_factor(factor.as_deref(), unit).map_err(|what| self.bad("unit", what))?;
        let samples = samples_in(&self.read_file("file", &file)?, &column, factor);
        samples.map_err(|(line, what)| self.bad("file", format!("{file}:{line}: {what}")))
    }
}

/// The samples in a column of a CSV text, times a factor; or what is wrong, and in which line. The first line names the columns; fields have no commas in them; empty lines,
/// and lines that begin with #, say nothing.
fn samples_in(text: &str, column: &str, factor: f64) -> Result<Samples, (usize, String)> {
    fn fields(line: &str) -> impl Iterator<Item = &str> {
        line.split(',').map(|field| field.trim().trim_matches('"'))
    }
    let lines = text.trim_start_matches('\u{feff}').lines().enumerate().map(|(at, line)| (at + 1, line.trim()));
    let mut lines = lines.filter(|(_, line)| !line.is_empty() && !line.starts_with('#'));
    let (first, names) = lines.next().ok_or((1, "is empty".to_owned()))?;
    let names: Vec<&str> = fields(names).collect();
    let at = names.iter().position(|name| *name == column);
    let at = at.ok_or_else(|| (first, format!("there is no column {column:?}{}", nearest(column, &names))))?;
    let mut samples = Vec::new();
    for (line, text) in lines {
        let field = fields(text).nth(at).ok_or_else(|| (line, format!("has no column {column:?}")))?;
        let sample = field.parse::<f64>().ok().filter(|sample| sample.is_finite());
        samples.push(sample.ok_or_else(|| (line, format!("{field:?} is not a number")))? * factor);
        if samples.len() > SAMPLES_MAX {
            return Err((line, format!("more than {SAMPLES_MAX} samples")));
        }
    }
    Samples::new(samples).ok_or((first, "there are no samples below".to_owned()))
}
