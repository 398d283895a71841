//! The kinds of faults by their words: which there are, what each usually is, and what it concerns.

use super::fault::{Crash, FaultKind, Mode, Shape, Who};
use crate::dice::Amount;

/// The words for kinds, and whether a swarm may draw them.
pub const KINDS: [(&str, bool); 39] = [
    ("partition", true),
    ("simplex", true),
    ("isolate", true),
    ("majority-ring", true),
    ("swizzle", true),
    ("clog", true),
    ("cut", true),
    ("slow-link", true),
    ("crash", true),
    ("power-loss", true),
    ("torn-write", true),
    ("truncation", true),
    ("amnesia", true),
    ("replacement", true),
    ("restored-backup", true),
    ("restart", true),
    ("pause", true),
    ("slow-node", true),
    ("clock-jump", true),
    ("clock-strobe", true),
    ("clock-drift", true),
    ("disk-slow", true),
    ("disk-fail", true),
    ("disk-read-only", true),
    ("disk-full", true),
    ("bitflip", true),
    ("lying-disk", true),
    ("backup", true),
    ("clients-vanish", true),
    ("clients-move", true),
    ("clients-twin", true),
    ("clients-storm", true),
    ("leave", true),
    ("drop-section", true),
    ("garbage", true),
    ("replay", true),
    ("revoke", false),
    ("upgrade", false),
    ("swarm", false),
];

/// What a word means where nothing more is said: usual strength and length. `tuned` is how many times as strong and long it is, for a swarm, which
/// tunes what it draws.
pub fn usual(word: &str, who: Who, tuned: f64) -> Option<(FaultKind, Option<Amount>)> {
    let second = |from: f64, to: f64| Some(Amount::Uniform { min: from * 1e6 * tuned, max: to * 1e6 * tuned });
    let within = |greatest: f64| Amount::Uniform { min: -greatest * tuned, max: greatest * tuned };
    let factor = |usual: f64| (usual * tuned).max(1.0);
    Some(match word {
        "partition" => (FaultKind::Partition(Shape::Halves, Mode::Drop), second(0.5, 15.0)),
        "simplex" => (FaultKind::Partition(Shape::DeafHalf, Mode::Drop), second(0.5, 25.0)),
        "isolate" => (FaultKind::Partition(Shape::Isolate(who), Mode::Drop), second(0.5, 25.0)),
        "majority-ring" => (FaultKind::Partition(Shape::MajorityRing, Mode::Drop), second(1.0, 15.0)),
        "swizzle" => (FaultKind::Partition(Shape::Swizzle, Mode::Hold), second(0.1, 20.0)),
        "clog" => (FaultKind::Partition(Shape::Link, Mode::Hold), second(0.1, 15.0)),
        "cut" => (FaultKind::Partition(Shape::Link, Mode::Drop), second(0.1, 30.0)),
        "slow-link" => (FaultKind::Partition(Shape::Link, Mode::Slow(factor(20.0))), second(1.0, 10.0)),
        "crash" => (FaultKind::Crash(who, Crash::Persisted), second(0.1, 10.0)),
        "power-loss" => (FaultKind::Crash(who, Crash::LoseUnsynced), second(0.1, 10.0)),
        "torn-write" => (FaultKind::Crash(who, Crash::TornWrite), second(0.1, 10.0)),
        "truncation" => (FaultKind::Crash(who, Crash::Truncated), second(0.1, 10.0)),
        "amnesia" => (FaultKind::Crash(who, Crash::Amnesia), second(0.1, 10.0)),
        "replacement" => (FaultKind::Crash(who, Crash::WipedNewId), second(0.1, 10.0)),
        "restored-backup" => (FaultKind::Crash(who, Crash::Backup), second(0.1, 10.0)),
        "restart" => (FaultKind::Restart(who), second(0.1, 1.0)),
        "upgrade" => (FaultKind::Upgrade(who), second(0.1, 1.0)),
        "pause" => (FaultKind::Pause(who), second(0.1, 25.0)),
        "slow-node" => (FaultKind::SlowNode(who, factor(50.0)), second(1.0, 10.0)),
        "clock-jump" => (FaultKind::ClockJump(who, within(3_600e6)), None),
        "clock-strobe" => (FaultKind::ClockStrobe(who, within(60e6)), second(0.5, 5.0)),
        // More than quartz does is another fault.
        "clock-drift" => (FaultKind::ClockDrift(who, Amount::Uniform { min: -500.0, max: 500.0 }), None),
        "disk-slow" => (FaultKind::DiskSlow(who, factor(50.0)), second(1.0, 10.0)),
        "disk-fail" => (FaultKind::DiskFail(who), second(0.2, 10.0)),
        "disk-read-only" => (FaultKind::DiskReadOnly(who), second(0.2, 10.0)),
        "disk-full" => (FaultKind::DiskFull(who), second(0.5, 10.0)),
        "bitflip" => (FaultKind::BitFlip(who), second(0.1, 5.0)),
        "lying-disk" => (FaultKind::LyingDisk(who), second(1.0, 20.0)),
        "backup" => (FaultKind::Backup(who), None),
        "clients-vanish" => (FaultKind::ClientsVanish(who), None),
        "clients-move" => (FaultKind::ClientsMove(who), None),
        "clients-twin" => (FaultKind::ClientsTwin(who), None),
        "clients-storm" => (FaultKind::ClientsStorm(who), None),
        "leave" => (FaultKind::Leave(who), None),
        "drop-section" => (FaultKind::DropSection(who), second(0.1, 10.0)),
        "garbage" => (FaultKind::Garbage(who), None),
        "replay" => (FaultKind::Replay(who), None),
        "revoke" => (FaultKind::Revoke(who), None),
        _ => return None,
    })
}

impl FaultKind {
    /// Whom it strikes, unless it strikes links.
    pub fn who(&self) -> Option<&Who> {
        Some(match self {
            FaultKind::Crash(who, _) | FaultKind::SlowNode(who, _) | FaultKind::DiskSlow(who, _) => who,
            FaultKind::ClockJump(who, _) | FaultKind::ClockStrobe(who, _) | FaultKind::ClockDrift(who, _) => who,
            FaultKind::Upgrade(who) => who,
            FaultKind::Restart(who) | FaultKind::Pause(who) | FaultKind::DiskFail(who) | FaultKind::DiskReadOnly(who) => who,
            FaultKind::DiskFull(who) | FaultKind::BitFlip(who) | FaultKind::LyingDisk(who) | FaultKind::Backup(who) => who,
            FaultKind::ClientsVanish(who) | FaultKind::ClientsMove(who) => who,
            FaultKind::ClientsTwin(who) | FaultKind::ClientsStorm(who) => who,
            FaultKind::Revoke(who) | FaultKind::DropSection(who) | FaultKind::Leave(who) => who,
            FaultKind::Garbage(who) | FaultKind::Replay(who) | FaultKind::Partition(Shape::Isolate(who), _) => who,
            FaultKind::Partition(..) | FaultKind::Swarm { .. } => return None,
        })
    }

    /// Whether something happens to what is stored, or it can not be stored.
    pub fn is_of_storage(&self) -> bool {
        match self {
            FaultKind::Crash(_, state) => !matches!(state, Crash::Persisted | Crash::LoseUnsynced | Crash::Dead),
            FaultKind::DiskFail(_) | FaultKind::DiskReadOnly(_) | FaultKind::DiskFull(_) => true,
            FaultKind::BitFlip(_) | FaultKind::LyingDisk(_) | FaultKind::DropSection(_) => true,
            _ => false,
        }
    }

    /// Whether a node is down by it, or stands still.
    pub fn is_stop(&self) -> bool {
        matches!(
            self,
            FaultKind::Crash(..)
                | FaultKind::Restart(_)
                | FaultKind::Upgrade(_)
                | FaultKind::Pause(_)
                | FaultKind::BitFlip(_)
                | FaultKind::Leave(_)
        )
    }
}
