//! Tables for people, JSON for programs.

use std::io::{self, BufWriter, IsTerminal, Write};

use base64_less::base64;
use comfy_table::{Table, presets};
use indicatif::{ProgressBar, ProgressStyle};
use mangrove_crdt::value;
use serde::Serialize;
use serde_json::Value;

use super::failure::Failure;

/// Stdout, and how to write to it.
pub(crate) struct Output {
    pub(crate) json: bool,
    out: BufWriter<io::Stdout>,
}

impl Output {
    pub(crate) fn new(json: bool) -> Self {
        Output { json, out: BufWriter::new(io::stdout()) }
    }

    /// A line of text.
    pub(crate) fn line(&mut self, text: impl AsRef<str>) -> Result<(), Failure> {
        self.out.write_all(text.as_ref().as_bytes())?;
        self.out.write_all(b"\n")?;
        Ok(())
    }

    /// Bytes as they are.
    pub(crate) fn bytes(&mut self, bytes: &[u8]) -> Result<(), Failure> {
        self.out.write_all(bytes)?;
        Ok(())
    }

    /// A JSON value on a line of its own.
    pub(crate) fn json_line(&mut self, value: &impl Serialize) -> Result<(), Failure> {
        serde_json::to_writer(&mut self.out, value)?;
        self.out.write_all(b"\n")?;
        Ok(())
    }

    /// A JSON value for programs, a sentence for people.
    pub(crate) fn done(&mut self, json: &impl Serialize, sentence: impl AsRef<str>) -> Result<(), Failure> {
        if self.json { self.json_line(json) } else { self.line(sentence) }
    }

    /// A listing that is there as a whole.
    pub(crate) fn listing<T: Serialize>(&mut self, rows: &[T], head: &[&str], cells: impl Fn(&T) -> Vec<String>) -> Result<(), Failure> {
        if self.json {
            return self.json_line(&rows);
        }
        let mut table = table(head);
        for row in rows {
            table.add_row(cells(row));
        }
        self.table(&table)
    }

    /// A table, without the blanks at the ends of its lines.
    pub(crate) fn table(&mut self, table: &Table) -> Result<(), Failure> {
        table.lines().try_for_each(|line| self.line(line.trim_end()))
    }

    /// Names and values, one a line.
    pub(crate) fn record(&mut self, fields: &[(&str, String)]) -> Result<(), Failure> {
        let width = fields.iter().map(|(name, _)| name.len()).max().unwrap_or_default();
        for (name, value) in fields {
            self.line(format!("{name:width$}  {value}"))?;
        }
        Ok(())
    }

    pub(crate) fn flush(&mut self) -> Result<(), Failure> {
        self.out.flush()?;
        Ok(())
    }
}

/// A JSON array that is written while its items come.
pub(crate) struct JsonArray {
    any: bool,
}

impl JsonArray {
    pub(crate) fn begin(output: &mut Output) -> Result<Self, Failure> {
        output.bytes(b"[")?;
        Ok(JsonArray { any: false })
    }

    pub(crate) fn item(&mut self, output: &mut Output, item: &impl Serialize) -> Result<(), Failure> {
        output.bytes(if self.any { b",\n " } else { b"" })?;
        self.any = true;
        serde_json::to_writer(&mut output.out, item)?;
        Ok(())
    }

    pub(crate) fn end(self, output: &mut Output) -> Result<(), Failure> {
        output.bytes(b"]\n")
    }
}

pub(crate) fn table(head: &[&str]) -> Table {
    let mut table = Table::new();
    table.load_style(presets::NOTHING).set_header(head.iter().map(|name| name.to_uppercase()));
    for column in table.column_iter_mut() {
        column.set_padding((0, 2));
    }
    table
}

/// A progress bar on stderr; nothing where stderr is no terminal. Without `length`, a spinner with a count.
pub(crate) fn progress(length: Option<u64>, what: &str) -> ProgressBar {
    if !io::stderr().is_terminal() {
        return ProgressBar::hidden();
    }
    let bar = length.map_or_else(ProgressBar::new_spinner, ProgressBar::new);
    let template = match length {
        Some(_) => "{msg} {wide_bar} {human_pos}/{human_len} {per_sec} {eta}",
        None => "{msg} {human_pos} {per_sec} {elapsed}",
    };
    if let Ok(style) = ProgressStyle::with_template(template) {
        bar.set_style(style);
    }
    bar.set_message(what.to_owned());
    bar
}

/// A value as JSON, as far as this program knows its type; others, and damaged ones, as base64 in an object.
pub(crate) fn json_of(topic_type: &str, bytes: &[u8]) -> Value {
    value::json_of(topic_type, bytes).unwrap_or_else(|| serde_json::json!({ "type": topic_type, "base64": base64(bytes) }))
}

/// A value as it is: a string without quotes, binary, protobuf and custom as bytes, everything else as JSON.
pub(crate) fn raw_of(topic_type: &str, bytes: &[u8]) -> Vec<u8> {
    if ["binary", "protobuf", "custom"].contains(&topic_type) {
        return bytes.to_vec();
    }
    match json_of(topic_type, bytes) {
        Value::String(text) if ["string", "decimal"].contains(&topic_type) => text.into_bytes(),
        json => json.to_string().into_bytes(),
    }
}

/// `1.5 MB`: powers of 1,000, three digits.
pub(crate) fn bytes_text(bytes: u64) -> String {
    const UNITS: [&str; 6] = ["kB", "MB", "GB", "TB", "PB", "EB"];
    if bytes < 1_000 {
        return format!("{bytes} B");
    }
    let mut scaled = bytes as f64;
    let mut unit = "";
    for next in UNITS {
        if scaled < 999.5 {
            break;
        }
        scaled /= 1_000.0;
        unit = next;
    }
    let decimals = if scaled < 9.995 { 2 } else { usize::from(scaled < 99.95) };
    format!("{scaled:.decimals$} {unit}")
}

/// `950 ms`, `12.3 s`, `5 m 12 s`, `3 h 5 m`, `7 d 2 h`.
pub(crate) fn duration_text(ms: u64) -> String {
    let (s, m, h, d) = (ms / 1_000, ms / 60_000, ms / 3_600_000, ms / 86_400_000);
    match () {
        () if ms < 1_000 => format!("{ms} ms"),
        () if s < 60 => format!("{}.{} s", s, ms % 1_000 / 100),
        () if m < 60 => format!("{m} m {} s", s % 60),
        () if h < 24 => format!("{h} h {} m", m % 60),
        () => format!("{d} d {} h", h % 24),
    }
}

/// `12,126`.
pub(crate) fn count_text(count: u64) -> String {
    let digits = count.to_string();
    let mut text = String::with_capacity(digits.len() + digits.len() / 3);
    for (place, digit) in digits.chars().enumerate() {
        if place > 0 && (digits.len() - place).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// `1 change`, `2 changes`.
pub(crate) fn plural(count: u64, one: &str) -> String {
    format!("{} {one}{}", count_text(count), if count == 1 { "" } else { "s" })
}

/// A moment in UTC, such as `2013-01-01T05:17:00Z`, from milliseconds since 1970.
pub(crate) fn time_text(unix_ms: u64) -> String {
    let (days, ms) = (unix_ms / 86_400_000, unix_ms % 86_400_000);
    let (year, month, day) = civil_from_days(days);
    let (s, ms) = (ms / 1_000, ms % 1_000);
    let fraction = if ms == 0 { String::new() } else { format!(".{ms:03}") };
    format!("{year:04}-{month:02}-{day:02}T{:02}:{:02}:{:02}{fraction}Z", s / 3_600, s / 60 % 60, s % 60)
}

/// The date so many days after 1970-01-01, after Howard Hinnant's `civil_from_days`.
fn civil_from_days(days: u64) -> (u64, u64, u64) {
    let shifted = days + 719_468;
    let era = shifted / 146_097;
    let day_of_era = shifted % 146_097;
    let year_of_era = (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted_month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * shifted_month + 2) / 5 + 1;
    let month = if shifted_month < 10 { shifted_month + 3 } else { shifted_month - 9 };
    (year_of_era + era * 400 + u64::from(month <= 2), month, day)
}

/// Milliseconds since 1970 of an RFC 3339 moment (`2013-01-01T05:17:00Z`, `…+01:00`, with or without seconds and zone; without a zone, UTC).
pub(crate) fn parse_time(text: &str) -> Option<u64> {
    let (date, clock) = text.split_once(['T', ' '])?;
    let mut date = date.splitn(3, '-').map(|part| part.parse::<i64>().ok());
    let (year, month, day) = (date.next()??, date.next()??, date.next()??);
    if !(1970..=9999).contains(&year) || !(1..=12).contains(&month) || !(1..=31).contains(&day) {
        return None;
    }
    let (clock, offset_minutes) = split_zone(clock)?;
    let mut clock = clock.splitn(3, ':');
    let hour: i64 = clock.next()?.parse().ok().filter(|hour| (0..24).contains(hour))?;
    let minute: i64 = clock.next()?.parse().ok().filter(|minute| (0..60).contains(minute))?;
    let second: f64 = clock.next().map_or(Some(0.0), |second| second.parse().ok()).filter(|second| (0.0..61.0).contains(second))?;
    let minutes = (days_from_civil(year, month, day) * 24 + hour) * 60 + minute - offset_minutes;
    u64::try_from(minutes * 60_000 + (second * 1_000.0).round() as i64).ok()
}

/// The clock and its offset from UTC in minutes.
fn split_zone(text: &str) -> Option<(&str, i64)> {
    if let Some(clock) = text.strip_suffix(['Z', 'z']) {
        return Some((clock, 0));
    }
    let Some(at) = text.rfind(['+', '-']) else { return Some((text, 0)) };
    let (clock, zone) = text.split_at(at);
    let (hours, minutes) = zone[1..].split_once(':').unwrap_or((&zone[1..], "0"));
    let offset = hours.parse::<i64>().ok()? * 60 + minutes.parse::<i64>().ok()?;
    Some((clock, if zone.starts_with('-') { -offset } else { offset }))
}

/// The inverse of [`civil_from_days`].
fn days_from_civil(year: i64, month: i64, day: i64) -> i64 {
    let year = if month <= 2 { year - 1 } else { year };
    let era = year / 400;
    let year_of_era = year % 400;
    let day_of_year = (153 * (if month > 2 { month - 3 } else { month + 9 }) + 2) / 5 + day - 1;
    era * 146_097 + year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year - 719_468
}

/// Base64 is needed in this one place, in this one direction.
mod base64_less {
    pub(super) fn base64(bytes: &[u8]) -> String {
        const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
        let mut text = String::with_capacity(bytes.len().div_ceil(3) * 4);
        for chunk in bytes.chunks(3) {
            let word = chunk.iter().fold(0_u32, |word, byte| word << 8 | u32::from(*byte)) << (8 * (3 - chunk.len()));
            for place in 0..4 {
                let digit = DIGITS[(word >> (18 - 6 * place) & 63) as usize] as char;
                text.push(if place <= chunk.len() { digit } else { '=' });
            }
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use mangrove_crdt::definition::TopicType;

    use super::*;

    #[test]
    fn bytes_have_three_digits() {
        let texts = [0, 999, 1_000, 1_005, 9_994, 9_996, 99_949, 99_951, 999_499, 999_500, 1_500_000, u64::MAX].map(bytes_text);
        let expected =
            ["0 B", "999 B", "1.00 kB", "1.00 kB", "9.99 kB", "10.0 kB", "99.9 kB", "100 kB", "999 kB", "1.00 MB", "1.50 MB", "18.4 EB"];
        assert_eq!(texts, expected);
    }

    #[test]
    fn durations_have_two_units() {
        let texts = [0, 999, 1_000, 12_345, 60_000, 312_000, 3_600_000, 11_100_000, 612_000_000].map(duration_text);
        assert_eq!(texts, ["0 ms", "999 ms", "1.0 s", "12.3 s", "1 m 0 s", "5 m 12 s", "1 h 0 m", "3 h 5 m", "7 d 2 h"]);
    }

    #[test]
    fn counts_have_commas() {
        assert_eq!([0, 999, 1_000, 12_126, 1_000_000].map(count_text), ["0", "999", "1,000", "12,126", "1,000,000"]);
        assert_eq!([plural(1, "change"), plural(2, "change")], ["1 change", "2 changes"]);
    }

    #[test]
    fn times_survive_their_text() {
        for unix_ms in [0, 951_782_400_000, 951_868_800_000, 1_356_998_400_000, 4_102_444_799_999, 1_709_164_800_123] {
            assert_eq!(parse_time(&time_text(unix_ms)), Some(unix_ms), "{}", time_text(unix_ms));
        }
        assert_eq!(time_text(951_782_400_000), "2000-02-29T00:00:00Z");
        let noon = Some(1_357_041_600_000);
        for text in ["2013-01-01T12:00", "2013-01-01 12:00:00", "2013-01-01T12:00:00Z", "2013-01-01T13:00:00+01:00", "2013-01-01T07:00-05"]
        {
            assert_eq!(parse_time(text), noon, "{text}");
        }
        for text in
            ["", "2013-01-01", "2013-13-01T00:00", "2013-01-01T24:00", "noon", "2013-01-01T12:60", "1969-12-31T00:00", "2013-01-01T-"]
        {
            assert_eq!(parse_time(text), None, "{text}");
        }
    }

    #[test]
    fn values_show_as_their_type_says() {
        let text = value::from_json(&TopicType::String, &"hi \"there\"".into()).unwrap();
        assert_eq!(json_of("string", &text), Value::from("hi \"there\""));
        assert_eq!(raw_of("string", &text), b"hi \"there\"");
        assert_eq!(raw_of("json", &text), b"\"hi \\\"there\\\"\"");
        assert_eq!(raw_of("binary", &[0, 255]), [0, 255]);
        assert_eq!(json_of("hologram", &[1, 2]), serde_json::json!({"type": "hologram", "base64": "AQI="}));
        assert_eq!(
            ["", "f", "fo", "foo", "foob"].map(|text| base64_less::base64(text.as_bytes())),
            ["", "Zg==", "Zm8=", "Zm9v", "Zm9vYg=="]
        );
    }

    #[test]
    fn tables_are_plain() {
        let mut table = table(&["node", "state"]);
        table.add_row(["EWR", "up"]);
        let lines: Vec<String> = table.to_string().lines().map(|line| line.trim_end().to_owned()).collect();
        assert_eq!(lines, ["NODE  STATE", "EWR   up"]);
    }
}
