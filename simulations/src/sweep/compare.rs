//! Whether two batches of runs differ: for each number, the difference of the means with its 95 % interval by Welch.

use std::fmt::Write;
use std::path::Path;

use super::{Manifest, aggregate::number, table::Table};
use crate::{
    metrics,
    statistics::{Difference, Summary},
};

/// A batch: a whole sweep, or one arm of it.
struct Batch {
    manifest: Manifest,
    table: Table,
    arms: Vec<usize>,
}

impl Batch {
    /// `DIR`, or `DIR@ARM`.
    fn read(text: &str) -> Result<Batch, String> {
        let (dir, arm) = match text.rsplit_once('@') {
            Some((dir, arm)) if !Path::new(text).is_dir() => (dir, Some(arm)),
            _ => (text, None),
        };
        let manifest =
            Manifest::read(Path::new(dir))?.ok_or_else(|| format!("{dir} is no directory of a sweep: it has no manifest.json"))?;
        let table = Table::read(&Path::new(dir).join("runs.csv"), &manifest)?;
        let table = table.ok_or_else(|| format!("{dir} has no runs.csv: the sweep is not finished, or its shards not merged"))?;
        let all = 0..manifest.arms.len();
        let arms = match arm {
            None => all.collect(),
            Some(arm) => match arm.parse() {
                Ok(arm) if all.contains(&arm) => vec![arm],
                _ => return Err(format!("{dir} has no arm {arm:?}: they are numbered from 0 to {}", all.end - 1)),
            },
        };
        Ok(Batch { manifest, table, arms })
    }
}

/// Compares two batches, `DIR` or `DIR@ARM`: arms of the same values, or one with one. What comes back is for people.
///
/// # Errors
/// A batch cannot be read, no arms match, or there is no such number.
pub fn compare(a: &str, b: &str, metric: Option<&str>) -> Result<String, String> {
    let names: Vec<&str> =
        metrics::ALL.iter().map(|metric| metric.name).filter(|name| metric.is_none_or(|wanted| wanted == *name)).collect();
    if names.is_empty() {
        let known: Vec<&str> = metrics::ALL.iter().map(|metric| metric.name).collect();
        return Err(format!("there is no number {:?}; there are {}", metric.unwrap_or_default(), known.join(", ")));
    }
    let (a, b) = (Batch::read(a)?, Batch::read(b)?);
    let pairs: Vec<(usize, usize)> = match (a.arms.as_slice(), b.arms.as_slice()) {
        ([a], [b]) => vec![(*a, *b)],
        _ => {
            let same = |at: &usize| Some((*at, b.arms.iter().copied().find(|other| b.manifest.arms[*other] == a.manifest.arms[*at])?));
            a.arms.iter().filter_map(same).collect()
        }
    };
    if pairs.is_empty() {
        return Err("no arm of the first has the values of one of the second; compare two with DIR@ARM".into());
    }
    let mut text = String::new();
    let (mut compared, mut shown) = (0, 0);
    for pair in &pairs {
        arm(&mut text, (&a, pair.0), (&b, pair.1));
        for name in &names {
            let [of_a, of_b] = [(&a, pair.0), (&b, pair.1)].map(|(batch, arm)| Summary::of(&batch.table.numbers(arm, name)));
            let (Some(of_a), Some(of_b)) = (of_a, of_b) else { continue };
            let difference = Difference::welch(&of_a, &of_b);
            // Where nothing varies, nothing comes by chance.
            compared += usize::from(difference.is_some_and(|difference| difference.half_width > 0.0 || difference.is_shown()));
            shown += usize::from(difference.is_some_and(|difference| difference.is_shown()));
            writeln!(text, "  {name}: {}", sentence(&of_a, &of_b, difference)).expect("writing to a String does not fail");
        }
    }
    let chance = number((compared as f64 * 5.0).round() / 100.0);
    writeln!(
        text,
        "{shown} of {compared} comparisons show a difference. Where nothing differs, about {chance} of {compared} would by chance."
    )
    .expect("writing to a String does not fail");
    Ok(text)
}

/// Which arms, how many of their runs had a violation, and whether they are the very same runs.
fn arm(text: &mut String, (a, at_a): (&Batch, usize), (b, at_b): (&Batch, usize)) {
    let values = |batch: &Batch, at: usize| {
        let values: Vec<String> =
            batch.manifest.keys().zip(batch.manifest.values(at)).map(|(key, value)| format!("{key} = {value}")).collect();
        if values.is_empty() { "as the scenario is".to_owned() } else { values.join(", ") }
    };
    let bad = |batch: &Batch, at: usize| {
        let verdicts: Vec<&str> = batch.table.cells(at, "verdict").collect();
        format!("{} of {}", verdicts.iter().filter(|verdict| **verdict != "pass").count(), verdicts.len())
    };
    let told = [
        format!("A, arm {at_a}: {}", values(a, at_a)),
        format!("B, arm {at_b}: {}", values(b, at_b)),
        format!("  runs with a violation: A {}, B {}", bad(a, at_a), bad(b, at_b)),
    ];
    told.into_iter().for_each(|line| writeln!(text, "{line}").expect("writing to a String does not fail"));
    if a.table.cells(at_a, "trace").eq(b.table.cells(at_b, "trace")) {
        text.push_str("  every trace is the same: these are the same runs\n");
    }
}

fn sentence(a: &Summary, b: &Summary, difference: Option<Difference>) -> String {
    let means = format!("A {} (n {}), B {} (n {})", number(a.mean), a.n, number(b.mean), b.n);
    let Some(difference) = difference else { return format!("{means}; one run says nothing about a difference") };
    let (low, high) = difference.interval();
    let interval = format!("A − B = {}, 95 % from {} to {}", number(difference.mean), number(low), number(high));
    let what = match difference {
        _ if !difference.is_shown() => "no difference is shown",
        _ if difference.mean > 0.0 => "A is higher",
        _ => "A is lower",
    };
    format!("{means}; {interval}: {what}")
}
