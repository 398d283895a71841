//! The example of a custom type, `tests/examples/custom`: its module is what its source says, and does what its source promises.
//!
//! `POSITION=overwrite cargo test --test custom` makes the module anew.

use std::fs;
use std::path::{Path, PathBuf};

use mangrove_crdt::custom::{Custom, CustomError};
use serde_json::json;

fn at(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/examples/custom").join(name)
}

fn position() -> Custom {
    Custom::new(&fs::read(at("position.wasm")).expect("the module")).expect("a module for a custom type")
}

#[derive(Clone)]
struct Position {
    version: u8,
    fix: u8,
    satellites: u16,
    latitude: i32,
    longitude: i32,
    altitude: i32,
    speed: u16,
    heading: u16,
    time: u64,
}

const BERLIN: Position = Position {
    version: 1,
    fix: 2,
    satellites: 9,
    latitude: 52_520_008,
    longitude: 13_404_954,
    altitude: 3_450,
    speed: 125,
    heading: 27_000,
    time: 1_709_208_000_000,
};

impl Position {
    fn bytes(&self) -> Vec<u8> {
        let mut bytes = vec![self.version, self.fix];
        bytes.extend(self.satellites.to_le_bytes());
        for number in [self.latitude, self.longitude, self.altitude] {
            bytes.extend(number.to_le_bytes());
        }
        bytes.extend(self.speed.to_le_bytes());
        bytes.extend(self.heading.to_le_bytes());
        bytes.extend(self.time.to_le_bytes());
        bytes
    }
}

#[test]
fn the_module_is_made_of_its_source() {
    let made = wat::parse_file(at("position.wat")).expect("a module in text");
    if std::env::var("POSITION").is_ok_and(|wish| wish == "overwrite") {
        fs::write(at("position.wasm"), &made).expect("the module");
    }
    let committed = fs::read(at("position.wasm")).expect("the module");
    assert!(committed == made, "position.wasm is not what position.wat says: POSITION=overwrite cargo test --test custom");
}

#[test]
fn positions_are_shown() {
    let position = position();
    let shown = |place: Position| position.to_json(&place.bytes()).unwrap();
    assert_eq!(
        shown(BERLIN),
        json!({"time": 1_709_208_000_000u64, "fix": "3d", "satellites": 9, "latitude": 52.520008, "longitude": 13.404954, "altitude": 34.5, "speed": 1.25, "heading": 270.0})
    );
    let south = Position { fix: 1, latitude: -1, longitude: -180_000_000, altitude: 0, speed: 0, heading: 5, time: 0, ..BERLIN };
    assert_eq!(
        shown(south),
        json!({"time": 0, "fix": "2d", "satellites": 9, "latitude": -0.000001, "longitude": -180.0, "speed": 0.0, "heading": 0.05})
    );
    let lost = Position { fix: 0, satellites: 0, latitude: 0, longitude: 0, altitude: 0, speed: 0, heading: 0, ..BERLIN };
    assert_eq!(shown(lost), json!({"time": 1_709_208_000_000u64, "fix": "none", "satellites": 0}));
    assert_eq!(shown(Position { altitude: -999_999, ..BERLIN })["altitude"], json!(-9999.99));
    assert!(!position.takes_json());
}

#[test]
fn what_is_no_position_is_refused_with_the_field_that_is_wrong() {
    let position = position();
    for (place, field) in [
        (Position { version: 2, ..BERLIN }, "/version"),
        (Position { fix: 3, ..BERLIN }, "/fix"),
        (Position { satellites: 201, ..BERLIN }, "/satellites"),
        (Position { latitude: 90_000_001, ..BERLIN }, "/latitude"),
        (Position { latitude: i32::MIN, ..BERLIN }, "/latitude"),
        (Position { longitude: -180_000_001, ..BERLIN }, "/longitude"),
        (Position { altitude: -1_000_001, ..BERLIN }, "/altitude"),
        (Position { heading: 36_000, ..BERLIN }, "/heading"),
        (Position { time: 253_402_300_800_000, ..BERLIN }, "/time"),
        (Position { fix: 0, ..BERLIN }, "/fix"),
        (Position { fix: 1, ..BERLIN }, "/altitude"),
    ] {
        for refused in [position.validate(&place.bytes()), position.to_json(&place.bytes()).map(drop)] {
            assert!(matches!(&refused, Err(CustomError::Refused { at, why }) if at == field && why.len() > 10), "{field}: {refused:?}");
        }
    }
    for length in [0, 27, 29, 100_000, 1 << 20] {
        let refused = Err(CustomError::Refused { at: String::new(), why: "a position has 28 bytes".into() });
        assert_eq!(position.validate(&vec![1; length]), refused);
    }
    assert_eq!(position.validate(&BERLIN.bytes()), Ok(()));
}

#[test]
fn positions_travel_as_what_has_changed() {
    let position = position();
    let next = Position { latitude: 52_520_018, longitude: 13_404_900, time: BERLIN.time + 1_000, ..BERLIN };
    let delta = position.delta(&BERLIN.bytes(), &next.bytes()).unwrap();
    assert_eq!((delta.len(), delta[0]), (13, 0b010_0110));
    assert_eq!(position.apply(&BERLIN.bytes(), &delta), Ok(next.bytes()));
    assert_eq!(position.delta(&BERLIN.bytes(), &BERLIN.bytes()), Some(vec![0]));
    for wrong in [&b""[..], b"\x01", b"\x80abcd", b"\x01abcde"] {
        assert!(
            matches!(position.apply(&BERLIN.bytes(), wrong), Err(CustomError::Refused { why, .. }) if why == "not a delta of a position")
        );
    }
    assert!(matches!(position.apply(b"", &delta), Err(CustomError::Refused { .. })));
}
