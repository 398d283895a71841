//! `[sweep]`: one scenario, many *arms*. Each is the scenario with other values put in, and is read as strictly as any.
//!
//! ```toml
//! [sweep]
//! "nodes.config.lease"          = ["2s", "5s", "10s"]
//! "network.default.latency"     = ["5ms", "50ms"]
//! "network.default.bandwidth"   = ["100Mbit/s", "1Mbit/s"]
//! zip = [["network.default.latency", "network.default.bandwidth"]]   # these advance together: 3 × 2 arms, not 3 × 2 × 2
//! ```
//!
//! A key is the way to a value, with dots. Of a list of tables (`[[section]]`, `[[workload.source]]`, `[[fault]]`) one is named by its `root`, `name` or `match`, or
//! else by its number, from 0: `section.plant.durability`, `workload.source.0.rate.per_second`. Arms are in order of keys, of which the last changes
//! fastest; keys that advance together stand where the first of them does.

use toml::{Table, Value};

use super::{BadScenario, Scenario, files::Files, keys::nearest, read};

/// The most arms of one sweep: each is kept in memory.
const ARMS_MAX: usize = 10_000;

/// One combination of values.
#[derive(Clone, Debug)]
pub struct Arm {
    /// What was put in: key and value.
    pub values: Vec<(String, Value)>,
    /// The scenario with these values, which can be run by itself.
    pub text: String,
    /// The same, read.
    pub scenario: Scenario,
}

/// Keys that advance together, each with its values.
type Axis = Vec<(String, Vec<Value>)>;

/// All arms of a scenario; the scenario itself is the only one if it sweeps nothing.
///
/// # Errors
/// What is wrong with the sweep, or first with an arm, and where.
pub fn arms(name: &str, text: &str, files: Files) -> Result<Vec<Arm>, BadScenario> {
    let mut table = read::table(name, text)?;
    // What an arm is called must not depend on the file that it is in.
    table.entry("name").or_insert_with(|| Value::String(name.to_owned()));
    let sweep = match table.remove("sweep") {
        None => Table::new(),
        Some(Value::Table(sweep)) => sweep,
        Some(_) => return Err(BadScenario { place: "sweep".into(), what: "must be a table".into() }),
    };
    let mut arms: Vec<Vec<(String, Value)>> = vec![Vec::new()];
    for axis in axes(sweep)? {
        let len = axis.first().map_or(0, |(_, values)| values.len());
        if arms.len().saturating_mul(len) > ARMS_MAX {
            return Err(BadScenario { place: "sweep".into(), what: format!("has more than {ARMS_MAX} arms") });
        }
        let nth = |at: usize| axis.iter().map(move |(key, values)| (key.clone(), values[at].clone()));
        arms = arms.iter().flat_map(|arm| (0..len).map(move |at| arm.iter().cloned().chain(nth(at)).collect())).collect();
    }
    arms.into_iter().map(|values| arm(name, table.clone(), values, files)).collect()
}

fn arm(name: &str, mut table: Table, values: Vec<(String, Value)>, files: Files) -> Result<Arm, BadScenario> {
    for (key, value) in &values {
        put(&mut table, key, value.clone()).map_err(|what| bad(key, what))?;
    }
    let text = table.to_string();
    match Scenario::parse_with(name, &text, files) {
        Ok(scenario) => Ok(Arm { values, text, scenario }),
        Err(error) if values.is_empty() => Err(error),
        Err(BadScenario { place, what }) => {
            let values: Vec<String> = values.iter().map(|(key, value)| format!("{key} = {value}")).collect();
            Err(BadScenario { place, what: format!("{what} (in the arm with {})", values.join(", ")) })
        }
    }
}

fn bad(key: &str, what: impl Into<String>) -> BadScenario {
    BadScenario { place: format!("sweep.{key:?}"), what: what.into() }
}

fn axes(mut sweep: Table) -> Result<Vec<Axis>, BadScenario> {
    let zip = sweep.remove("zip").map_or(Some(Vec::new()), |zip| zip.try_into::<Vec<Vec<String>>>().ok());
    let zip = zip.ok_or_else(|| bad("zip", "must be a list of lists of keys"))?;
    let mut left: Vec<(String, Vec<Value>)> = Vec::new();
    for (key, values) in sweep {
        let Value::Array(values) = values else { return Err(bad(&key, "must be a list of values")) };
        if values.is_empty() {
            return Err(bad(&key, "has no values"));
        }
        if key == "run.seeds" || key.starts_with("run.seeds.") {
            return Err(bad(&key, "every arm has the same seeds"));
        }
        left.push((key, values));
    }
    let known: Vec<String> = left.iter().map(|(key, _)| key.clone()).collect();
    let known: Vec<&str> = known.iter().map(String::as_str).collect();
    if let Some(key) = zip.iter().flatten().find(|key| !known.contains(&key.as_str())) {
        return Err(bad("zip", format!("{key:?} is not swept{}", nearest(key, &known))));
    }
    let mut axes = Vec::new();
    while let Some((first, _)) = left.first() {
        let together = zip.iter().find(|keys| keys.contains(first)).cloned().unwrap_or_else(|| vec![first.clone()]);
        let mut axis: Axis = Vec::new();
        for key in together {
            let at = left.iter().position(|(other, _)| *other == key);
            axis.push(left.remove(at.ok_or_else(|| bad("zip", format!("{key:?} stands twice")))?));
        }
        let len = axis[0].1.len();
        if let Some((key, values)) = axis.iter().find(|(_, values)| values.len() != len) {
            return Err(bad(key, format!("has {} values, and {:?}, which it advances with, has {len}", values.len(), axis[0].0)));
        }
        if let Some((a, b)) = pairs(len).find(|(a, b)| axis.iter().all(|(_, values)| values[*a] == values[*b])) {
            return Err(bad(&axis[0].0, format!("has the same value at {a} and at {b}, counted from 0")));
        }
        axes.push(axis);
    }
    Ok(axes)
}

fn pairs(len: usize) -> impl Iterator<Item = (usize, usize)> {
    (0..len).flat_map(move |a| (a + 1..len).map(move |b| (a, b)))
}

/// Puts a value in. A table on the way that is not there is made: whether there can be one is seen when the arm is read.
fn put(table: &mut Table, key: &str, value: Value) -> Result<(), String> {
    let mut within = table;
    let mut parts = key.split('.').peekable();
    while let Some(part) = parts.next() {
        if parts.peek().is_none() {
            within.insert(part.to_owned(), value);
            break;
        }
        let next = within.entry(part).or_insert_with(|| Value::Table(Table::new()));
        if !(next.is_table() || next.is_array()) {
            return Err(format!("{part} is {next}, not a table"));
        }
        within = match next {
            Value::Array(list) => {
                let which = parts.next().filter(|_| parts.peek().is_some());
                one_of(list, which.ok_or_else(|| format!("{part} is a list of tables: name one of them, and a key of it"))?)?
            }
            next => next.as_table_mut().ok_or("is no table")?,
        };
    }
    Ok(())
}

/// The table of a list that is called so, or has that number.
fn one_of<'a>(list: &'a mut [Value], which: &str) -> Result<&'a mut Table, String> {
    let names: Vec<Option<String>> =
        list.iter().map(|value| ["root", "name", "match"].iter().find_map(|key| value.get(key)?.as_str()).map(str::to_owned)).collect();
    let mut called = (0..names.len()).filter(|at| names[*at].as_deref() == Some(which));
    let at = match (called.next(), called.next()) {
        (Some(_), Some(_)) => return Err(format!("more than one is called {which:?}: give the number, from 0")),
        (Some(at), None) => Some(at),
        (None, _) => which.parse().ok(),
    };
    let known: Vec<&str> = names.iter().flatten().map(String::as_str).collect();
    let unknown = || format!("none is called {which:?}, nor has that number, from 0{}", nearest(which, &known));
    at.and_then(|at: usize| list.get_mut(at)).and_then(Value::as_table_mut).ok_or_else(unknown)
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = r#"
schema = 1
[run]
duration = "5s"
[nodes]
count = 3
[[section]]
root = "plant"
[[section]]
root = "s"
[network.default]
loss = { model = "bernoulli", p = 0.1 }
[[network.link]]
from = "n1"
to = "n2"
[[workload.source]]
name = "sensors"
section = "s"
rate = { per_second = 1 }
[sweep]
"#;

    fn of(sweep: &str) -> Result<Vec<Arm>, String> {
        arms("test", &format!("{TEXT}{sweep}"), &crate::scenarios::file).map_err(|error| error.to_string())
    }

    #[test]
    fn arms_are_the_product_of_what_does_not_advance_together() {
        let sweep = r#"
            "nodes.config.lease" = ["2s", "5s"]
            "network.default.loss.p" = [0.0, 0.5, 1]
            "workload.source.sensors.rate.per_second" = [1, 2, 3]
            "section.plant.durability" = ["memory", "disk"]
            "network.link.0.duplicate" = [0.25]
            zip = [["workload.source.sensors.rate.per_second", "network.default.loss.p"]]"#;
        let arms = of(sweep).expect("a good sweep");
        assert_eq!(arms.len(), 3 * 2 * 2);
        let last = &arms[11];
        assert_eq!(last.scenario.config.lease.as_secs(), 5);
        assert_eq!(last.scenario.network.loss, super::super::Loss::Bernoulli(1.0));
        assert_eq!(last.scenario.paths[0].path.duplicate, 0.25);
        assert!((last.scenario.workload.sources[0].gap.mean() - 1e6 / 3.0).abs() < 1e-6);
        assert_eq!(last.scenario.sections[0].durability.to_string(), "disk");
        // An arm is a scenario of its own: it has a name, and sweeps nothing.
        let again = super::arms("elsewhere", &last.text, &crate::scenarios::file).expect("a good scenario");
        assert_eq!((again.len(), &again[0].text, again[0].scenario.name.as_str()), (1, &last.text, "test"));
        assert_eq!(of("").expect("nothing swept").len(), 1);
    }

    #[test]
    fn arbitration_can_be_swept_alone() {
        let text = TEXT.replace("root = \"plant\"", "root = \"plant\"\narbitration = \"quorum\"\nvoters = [\"n1\", \"n2\", \"n3\"]");
        let arms = arms("test", &format!("{text}\"section.plant.arbitration\" = [\"quorum\", \"available\"]"), &crate::scenarios::file)
            .expect("a good sweep");
        let voters: Vec<usize> = arms.iter().map(|arm| arm.scenario.sections[0].voters.len()).collect();
        assert_eq!(voters, [3, 0]);
    }

    #[test]
    fn what_is_wrong_is_told_before_anything_runs() {
        let refused = |sweep: &str, why: &str| {
            let told = of(sweep).expect_err(sweep);
            assert!(told.contains(why), "{told}");
        };
        refused(r#""nodes.config.leese" = ["2s"]"#, "nodes.config.leese: there is no such key; did you mean lease?");
        refused(r#""nodes.config.lease" = ["2s", 5]"#, "(in the arm with nodes.config.lease = 5)");
        refused(r#""nodes.config.lease" = "2s""#, "must be a list of values");
        refused(r#""nodes.config.lease" = []"#, "has no values");
        refused(r#""nodes.config.lease" = ["2s", "3s", "2s"]"#, "the same value at 0 and at 2");
        refused(r#""section.plan.durability" = ["disk"]"#, "did you mean plant?");
        refused(r#""section.2.durability" = ["disk"]"#, "nor has that number");
        refused(r#""section.plant" = ["disk"]"#, "name one of them, and a key of it");
        refused(r#""run.duration.min" = ["1s"]"#, "duration is \"5s\", not a table");
        refused(r#""run.seeds.base" = [1, 2]"#, "every arm has the same seeds");
        refused("\"nodes.count\" = [1, 2]\n\"run.settle\" = [\"9s\"]\nzip = [[\"nodes.count\", \"run.settle\"]]", "advances with");
        refused("\"nodes.count\" = [1, 2]\nzip = [[\"node.count\"]]", "\"node.count\" is not swept; did you mean nodes.count?");
        refused("\"nodes.count\" = [1, 2]\nzip = [[\"nodes.count\", \"nodes.count\"]]", "stands twice");
        refused("\"nodes.count\" = [1, 2]\nzip = [\"nodes.count\"]", "must be a list of lists of keys");
    }
}
