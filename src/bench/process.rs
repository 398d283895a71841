//! What a process has taken, as the system tells it.

use std::fs;
use std::time::Duration;

use super::BenchError;

/// What a process has taken since it started, and what it takes now.
#[derive(Clone, Copy, Debug, Default, PartialEq, serde::Serialize)]
pub(super) struct Taken {
    /// Time on a core, over all threads that still run.
    pub(super) cpu: Duration,
    /// Memory that it holds, in bytes.
    pub(super) resident_bytes: u64,
    /// What it had the system write to disks, in bytes.
    pub(super) written_bytes: u64,
}

impl Taken {
    /// Of a process of this machine.
    ///
    /// # Errors
    /// Where the process is gone, or the system does not tell (Linux does).
    pub(super) fn of(process: u32) -> Result<Taken, BenchError> {
        let read = |name: &str| fs::read_to_string(format!("/proc/{process}/{name}"));
        let kibibytes = |text: &str, name: &str| number(text.lines().find_map(|line| line.strip_prefix(name)));
        let mut cpu_ns = 0;
        for task in fs::read_dir(format!("/proc/{process}/task"))? {
            // A thread may end meanwhile.
            let schedule = fs::read_to_string(task?.path().join("schedstat")).unwrap_or_default();
            cpu_ns += number(Some(&schedule));
        }
        Ok(Taken {
            cpu: Duration::from_nanos(cpu_ns),
            resident_bytes: kibibytes(&read("status")?, "VmRSS:") * 1024,
            written_bytes: kibibytes(&read("io")?, "write_bytes:"),
        })
    }

    /// Since an earlier moment; the memory is that of now.
    pub(super) fn since(self, before: Taken) -> Taken {
        Taken {
            cpu: self.cpu.saturating_sub(before.cpu),
            resident_bytes: self.resident_bytes,
            written_bytes: self.written_bytes.saturating_sub(before.written_bytes),
        }
    }
}

/// The first number of a text.
fn number(text: Option<&str>) -> u64 {
    text.and_then(|text| text.split_whitespace().next()?.parse().ok()).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_process_has_taken_something() {
        let before = Taken::of(std::process::id()).unwrap();
        let sum: u64 = std::hint::black_box((0..20_000_000_u64).map(|number| number ^ (number >> 3)).sum());
        let since = Taken::of(std::process::id()).unwrap().since(before);
        assert!(sum > 0 && since.cpu > Duration::from_micros(100) && since.resident_bytes > 100_000, "{since:?}");
        assert!(Taken::of(u32::MAX).is_err());
    }

    #[test]
    fn numbers_are_the_first_of_their_text() {
        assert_eq!((number(Some(" 12 kB")), number(Some("7 8 9")), number(Some("")), number(None)), (12, 7, 0, 0));
    }
}
