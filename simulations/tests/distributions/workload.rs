//! When clients write, and to what: from the requests that a node is sent in a run.

use std::io::{self, Write};
use std::sync::{Arc, Mutex};

use mangrove_simulations::{run, trace::Trace};

use super::{scenario, theory::*};

/// What a run says, kept.
#[derive(Clone, Default)]
struct Said(Arc<Mutex<Vec<u8>>>);

impl Write for Said {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().expect("nobody panics").extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// When each write is asked for, in microseconds, and which topic it is to: a hundred a second, a hundred seconds long.
fn writes(process: &str, topics: &str) -> Vec<(u64, usize)> {
    let lines = format!(
        "[[nodes.group]]\nmatch = \"*\"\ncpu = {{ service_time = \"0s\" }}\n[topology]\nkind = \"edges\"\nedges = []\n\
         [workload]\ntopics = {topics}\npayload = \"8B\"\n[[workload.source]]\nhomes = [\"a1\"]\n\
         rate = {{ process = \"{process}\", per_second = 100 }}\n"
    );
    let said = Said::default();
    run::one(&scenario(&lines).expect("a good scenario"), 5, Trace::new(Some(Box::new(said.clone()))));
    let said = said.0.lock().expect("nobody panics");
    let writes = said.split(|byte| *byte == b'\n').map(String::from_utf8_lossy).filter_map(|line| {
        let (time, rest) = (line.split_whitespace().next()?, line.split_once("SetBatch")?.1);
        let topic = rest.split_once("Path(\"s/t")?.1.split_once('"')?.0;
        Some(((time.parse::<f64>().ok()? * 1e6).round() as u64, topic.parse().ok()?))
    });
    writes.collect()
}

#[test]
fn poisson_and_zipf() {
    let writes = writes("poisson", "{ count = 20, choice = { dist = \"zipf\", s = 1.1 } }");
    let gaps: Vec<u64> = writes.windows(2).map(|pair| pair[1].0 - pair[0].0).collect();
    comes_from(&gaps, |us| 1.0 - (-us / 10e3).exp());
    has_mean(&gaps.iter().map(|gap| *gap as f64).collect::<Vec<_>>(), 10e3);
    // The number in each second is as its mean in its mean and in its variance.
    let begins = writes[0].0;
    let mut counts = [0.0; 99];
    writes
        .iter()
        .filter_map(|(at, _)| Some((at - begins) / 1_000_000).filter(|second| *second < 99))
        .for_each(|at| counts[at as usize] += 1.0);
    has_mean(&counts, 100.0);
    let dispersion = counts.iter().map(|count| (count - 100.0_f64).powi(2) / 100.0).sum::<f64>();
    assert!((dispersion - 99.0).abs() / (2.0 * 99.0_f64).sqrt() < NORMAL, "the sum of the relative squares is {dispersion:.1}, not 99");

    let mut topics = [0; 20];
    writes.iter().for_each(|(_, topic)| topics[*topic] += 1);
    has_proportions(&topics, &(1..=20).map(|k| f64::from(k).powf(-1.1)).collect::<Vec<_>>());
}

#[test]
fn constant_and_even() {
    let writes = writes("constant", "{ count = 20 }");
    assert!(writes.len() > 9_900 && writes.windows(2).all(|pair| pair[1].0 - pair[0].0 == 10_000));
    let mut topics = [0; 20];
    writes.iter().for_each(|(_, topic)| topics[*topic] += 1);
    has_proportions(&topics, &[1.0; 20]);
}
