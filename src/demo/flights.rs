//! The bundled departures.

use std::io::Read;

use flate2::read::GzDecoder;
use mangrove_crdt::definition::TopicType;
use mangrove_crdt::value::{self, ValueError};
use serde_json::json;

use super::DemoError;

const EXCERPT: &[u8] = include_bytes!("flights.csv.gz");
/// More than the excerpt's text has.
const EXCERPT_BYTES_MAX: u64 = 4 << 20;
const COLUMNS: &str = "time,origin,carrier,flight,dest,dep_delay";

/// A flight that left New York.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Departure {
    /// When it left, local time, such as `2013-01-01T05:17`.
    time: String,
    /// From where: EWR, JFK or LGA.
    pub(super) origin: String,
    /// Who flew: the airline's two letters.
    carrier: String,
    flight: u32,
    /// Where to.
    dest: String,
    /// How late, in minutes; less than 0 is early.
    dep_delay: i32,
}

impl Departure {
    /// The topic that tells of the flight: each departure of the same number is its newest value.
    pub(super) fn path(&self) -> String {
        format!("flights/{}/{}{}", self.origin, self.carrier, self.flight)
    }

    /// The topic's value.
    pub(super) fn value(&self) -> Result<Vec<u8>, ValueError> {
        let Departure { time, carrier, flight, dest, dep_delay, .. } = self;
        let json = json!({ "carrier": carrier, "flight": flight, "dest": dest, "dep_delay": dep_delay, "time": time });
        value::from_json(&TopicType::Json, &json)
    }

    fn parse(line: &str) -> Option<Departure> {
        let mut fields = line.split(',');
        let mut field = || fields.next().map(str::to_owned);
        let (time, origin, carrier) = (field()?, field()?, field()?);
        let (flight, dest, dep_delay) = (field()?.parse().ok()?, field()?, field()?.parse().ok()?);
        fields.next().is_none().then_some(Departure { time, origin, carrier, flight, dest, dep_delay })
    }
}

/// All departures of the excerpt, in the order in which they left.
pub(super) fn departures() -> Result<Vec<Departure>, DemoError> {
    let mut text = String::new();
    GzDecoder::new(EXCERPT).take(EXCERPT_BYTES_MAX).read_to_string(&mut text)?;
    let mut lines = text.lines();
    if lines.next() != Some(COLUMNS) {
        return Err(DemoError::Excerpt("its head".into()));
    }
    lines.map(|line| Departure::parse(line).ok_or_else(|| DemoError::Excerpt(line.into()))).collect()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn the_excerpt_is_what_the_essay_says() {
        let departures = departures().unwrap();
        let topics: BTreeSet<String> = departures.iter().map(Departure::path).collect();
        assert_eq!((departures.len(), topics.len()), (12_126, 1_991));
        assert!(departures.is_sorted_by(|earlier, later| earlier.time <= later.time));
        let origins: BTreeSet<&str> = departures.iter().map(|departure| departure.origin.as_str()).collect();
        assert_eq!(origins, BTreeSet::from(["EWR", "JFK", "LGA"]));
        assert_eq!(departures[0].time, "2013-01-01T05:17");
        assert!(departures.iter().all(|departure| ("2013-01-01".."2013-01-16").contains(&departure.time.as_str())));
    }

    #[test]
    fn a_departure_becomes_a_value_of_a_topic() {
        let departure = Departure::parse("2013-01-01T05:17,EWR,UA,1545,IAH,2").unwrap();
        assert_eq!(departure.path(), "flights/EWR/UA1545");
        let json = value::to_json(&TopicType::Json, &departure.value().unwrap()).unwrap();
        assert_eq!(json, json!({ "carrier": "UA", "flight": 1545, "dest": "IAH", "dep_delay": 2, "time": "2013-01-01T05:17" }));
        assert_eq!(Departure::parse("2013-01-01T05:17,EWR,UA,1545,IAH"), None);
        assert_eq!(Departure::parse("2013-01-01T05:17,EWR,UA,1545,IAH,2,3"), None);
    }
}
