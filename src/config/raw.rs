//! Values as they were given, and how they become what the program needs.

use std::net::SocketAddr;
use std::time::Duration;

use toml::de::DeValue;

/// A value as it was given: by TOML with its type, by the environment or a flag as text.
#[derive(Clone, PartialEq, Debug)]
pub(super) enum Raw {
    /// A TOML string.
    Text(String),
    /// A TOML integer.
    Integer(i64),
    /// A TOML boolean.
    Bool(bool),
    /// A TOML array.
    List(Vec<Raw>),
    /// Any other TOML value, by the name of its type.
    Other(&'static str),
    /// From where everything is text: the value's type follows from the key.
    Untyped(String),
}

/// What is wrong with a value, or what would be right: completes "… is not".
pub(super) type Invalid = String;

impl Raw {
    pub fn from_toml(value: &DeValue<'_>) -> Raw {
        match value {
            DeValue::String(text) => Raw::Text(text.to_string()),
            DeValue::Boolean(bool) => Raw::Bool(*bool),
            DeValue::Integer(integer) => match i64::from_str_radix(integer.as_str(), integer.radix()) {
                Ok(integer) => Raw::Integer(integer),
                Err(_) => Raw::Other("integer this large"),
            },
            DeValue::Array(values) => Raw::List(values.iter().map(|value| Raw::from_toml(value.get_ref())).collect()),
            other => Raw::Other(other.type_str()),
        }
    }

    /// The value as it stands in a message.
    pub fn show(&self) -> String {
        match self {
            Raw::Text(text) => format!("{text:?}"),
            Raw::Untyped(text) => text.clone(),
            Raw::Integer(integer) => integer.to_string(),
            Raw::Bool(bool) => bool.to_string(),
            Raw::List(values) => format!("[{}]", values.iter().map(Raw::show).collect::<Vec<_>>().join(", ")),
            Raw::Other(kind) => format!("a {kind}"),
        }
    }

    pub fn text(&self) -> Result<&str, Invalid> {
        match self {
            Raw::Text(text) | Raw::Untyped(text) => Ok(text),
            _ => Err("a text in quotes".into()),
        }
    }

    pub fn bool(&self) -> Result<bool, Invalid> {
        match self {
            Raw::Bool(bool) => Ok(*bool),
            Raw::Untyped(text) if text == "true" => Ok(true),
            Raw::Untyped(text) if text == "false" => Ok(false),
            _ => Err("true or false".into()),
        }
    }

    /// A list of texts; untyped, it is written as in TOML, or its items are separated by commas.
    pub fn texts(&self) -> Result<Vec<String>, Invalid> {
        if let Raw::Untyped(text) = self
            && let Ok(value) = DeValue::parse(text)
            && let DeValue::Array(_) = value.get_ref()
        {
            return Raw::from_toml(value.get_ref()).texts();
        }
        match self {
            Raw::List(values) => values.iter().map(|value| value.text().map(str::to_owned)).collect::<Result<_, _>>(),
            Raw::Untyped(text) => Ok(text.split(',').map(str::trim).filter(|item| !item.is_empty()).map(str::to_owned).collect()),
            _ => Err(String::new()),
        }
        .map_err(|_| "a list of texts, such as [\"a\", \"b\"]".into())
    }

    /// A whole number within bounds.
    pub fn count(&self, min: u64, max: u64) -> Result<u64, Invalid> {
        let count = match self {
            Raw::Integer(integer) => u64::try_from(*integer).ok(),
            Raw::Untyped(text) => text.parse().ok(),
            _ => None,
        };
        count.filter(|count| (min..=max).contains(count)).ok_or_else(|| format!("a whole number from {min} to {max}"))
    }

    /// A time: a whole number of milliseconds, or a text with a unit.
    pub fn time(&self, min: Duration, max: Duration) -> Result<Duration, Invalid> {
        const UNITS: [(&str, u64); 5] = [("ms", 1), ("s", 1_000), ("min", 60_000), ("h", 3_600_000), ("d", 86_400_000)];
        self.measure(&UNITS).map(Duration::from_millis).filter(|time| (min..=max).contains(time)).ok_or_else(|| {
            format!(
                "a time from {} to {}: milliseconds as a number, or a text such as \"500ms\", \"5s\", \"10min\", \"1h\" or \"7d\"",
                show_time(min),
                show_time(max)
            )
        })
    }

    /// An amount of bytes: a whole number, or a text with a unit. 0 is always allowed and means none.
    pub fn bytes(&self, min: u64) -> Result<u64, Invalid> {
        const UNITS: [(&str, u64); 9] = [
            ("B", 1),
            ("kB", 1_000),
            ("KiB", 1 << 10),
            ("MB", 1_000_000),
            ("MiB", 1 << 20),
            ("GB", 1_000_000_000),
            ("GiB", 1 << 30),
            ("TB", 1_000_000_000_000),
            ("TiB", 1 << 40),
        ];
        self.measure(&UNITS).filter(|&bytes| bytes == 0 || bytes >= min).ok_or_else(|| {
            format!("0 or an amount of at least {}: bytes as a number, or a text such as \"64KiB\", \"10MiB\" or \"2GiB\"", show_bytes(min))
        })
    }

    /// A number in the key's own unit, or a text of a whole number and one of `units`, which give how many of the key's unit one is.
    fn measure(&self, units: &[(&str, u64)]) -> Option<u64> {
        let text = match self {
            Raw::Integer(integer) => return u64::try_from(*integer).ok(),
            Raw::Text(text) | Raw::Untyped(text) => text,
            _ => return None,
        };
        let digits = text.bytes().take_while(u8::is_ascii_digit).count();
        let (number, unit) = text.split_at(digits);
        let factor = match unit.trim_start() {
            // A bare number in quotes is no number in TOML.
            "" if matches!(self, Raw::Untyped(_)) => 1,
            unit => units.iter().find(|(name, _)| *name == unit)?.1,
        };
        number.parse::<u64>().ok()?.checked_mul(factor)
    }

    /// An address to listen at.
    pub fn socket(&self) -> Result<SocketAddr, Invalid> {
        self.text()
            .ok()
            .and_then(|text| text.parse().ok())
            .ok_or_else(|| "an IP address and a port, such as \"[::]:4747\" or \"0.0.0.0:4747\"".into())
    }

    /// Addresses to be reached at, by name or number.
    pub fn hosts(&self) -> Result<Vec<String>, Invalid> {
        let hosts = self.texts().ok().filter(|hosts| hosts.iter().all(|host| is_host(host)));
        hosts.ok_or_else(|| "a list of hosts with ports, such as [\"node-1.example.org:4747\", \"[2001:db8::1]:4747\"]".into())
    }

    /// One of several words.
    pub fn choice(&self, words: &[&'static str]) -> Result<&'static str, Invalid> {
        let word = self.text().ok().and_then(|text| words.iter().find(|word| **word == text));
        word.copied().ok_or_else(|| words.iter().map(|word| format!("\"{word}\"")).collect::<Vec<_>>().join(" or "))
    }
}

/// True for HOST:PORT, with an IPv6 address in brackets, and a port other than 0.
fn is_host(text: &str) -> bool {
    if let Ok(address) = text.parse::<SocketAddr>() {
        return address.port() != 0;
    }
    let Some((host, port)) = text.rsplit_once(':') else { return false };
    let is_label = |label: &str| {
        !label.is_empty() && label.len() <= 63 && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_')
    };
    // What looks like an IPv4 address and is none is no name either.
    let is_name = host.len() <= 253 && host.split('.').all(is_label) && !host.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.');
    is_name && port.parse::<u16>().is_ok_and(|port| port != 0)
}

/// A time in the largest unit that gives a whole number.
pub(super) fn show_time(time: Duration) -> String {
    let ms = time.as_millis() as u64;
    let units = [(86_400_000, "d"), (3_600_000, "h"), (60_000, "min"), (1_000, "s")];
    match units.iter().find(|(factor, _)| ms > 0 && ms.is_multiple_of(*factor)) {
        Some((factor, unit)) => format!("{}{unit}", ms / factor),
        None => format!("{ms}ms"),
    }
}

/// An amount in the largest binary unit that gives a whole number.
pub(super) fn show_bytes(bytes: u64) -> String {
    let units = [(1 << 40, "TiB"), (1 << 30, "GiB"), (1 << 20, "MiB"), (1 << 10, "KiB")];
    match units.iter().find(|(factor, _)| bytes > 0 && bytes.is_multiple_of(*factor)) {
        Some((factor, unit)) => format!("{}{unit}", bytes / factor),
        None => format!("{bytes}B"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DAY: Duration = Duration::from_secs(86_400);

    #[test]
    fn times_are_numbers_of_milliseconds_or_texts_with_a_unit() {
        let time = |raw: Raw| raw.time(Duration::ZERO, 30 * DAY).ok();
        let text = |text: &str| Raw::Text(text.into());
        assert_eq!(time(Raw::Integer(1_500)), Some(Duration::from_millis(1_500)));
        for (given, want) in [("250ms", 250), ("5s", 5_000), ("10min", 600_000), ("2h", 7_200_000), ("7d", 604_800_000), ("5 s", 5_000)] {
            assert_eq!(time(text(given)), Some(Duration::from_millis(want)), "{given}");
        }
        for given in ["", "5", "s", "5m", "5 sec", "-5s", "1.5s", "5S", "99999999999999999999s", "18446744073709551615d"] {
            assert_eq!(time(text(given)), None, "{given}");
        }
        assert_eq!(time(Raw::Untyped("250".into())), Some(Duration::from_millis(250)));
        assert_eq!(time(Raw::Integer(-1)), None);
        assert_eq!(time(Raw::Bool(true)), None);
        assert_eq!(
            Raw::Integer(9).time(Duration::from_millis(10), DAY).err().as_deref().map(|text| &text[..26]),
            Some("a time from 10ms to 1d: mi")
        );
    }

    #[test]
    fn amounts_are_numbers_of_bytes_or_texts_with_a_unit() {
        let bytes = |text: &str| Raw::Text(text.into()).bytes(1_024).ok();
        for (given, want) in
            [("1024B", 1_024), ("2kB", 2_000), ("2KiB", 2_048), ("10MiB", 10 << 20), ("1GB", 1_000_000_000), ("3TiB", 3 << 40), ("0B", 0)]
        {
            assert_eq!(bytes(given), Some(want), "{given}");
        }
        for given in ["1023B", "1KB", "1k", "10 mib", "1.5GiB", "17000000TiB", "10"] {
            assert_eq!(bytes(given), None, "{given}");
        }
        assert_eq!(Raw::Integer(0).bytes(1_024), Ok(0));
        assert!(Raw::Integer(1_023).bytes(1_024).is_err());
    }

    #[test]
    fn hosts_have_names_or_numbers_and_a_port() {
        for good in ["a:1", "node-1.example.org:4747", "10.0.0.1:4747", "[2001:db8::1]:4747", "my_host:65535"] {
            assert!(is_host(good), "{good}");
        }
        for bad in ["", "a", "a:", ":1", "a:0", "a:65536", "10.0.0.1:0", "300.0.0.1:1", "2001:db8::1", "a b:1", "a..b:1", "http://a:1"] {
            assert!(!is_host(bad), "{bad}");
        }
    }

    #[test]
    fn what_is_shown_can_be_given_again() {
        for ms in [0u64, 1, 999, 1_000, 1_001, 60_000, 3_600_000, 90_000_000, 604_800_000] {
            let time = Duration::from_millis(ms);
            assert_eq!(Raw::Text(show_time(time)).time(Duration::ZERO, 30 * DAY), Ok(time));
        }
        for bytes in [0u64, 1, 1_000, 1_024, 5 << 20, (5 << 20) + 1, 3 << 40] {
            assert_eq!(Raw::Text(show_bytes(bytes)).bytes(0), Ok(bytes));
        }
    }
}
