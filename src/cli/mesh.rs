//! The node, its mesh, its links and its sections.

use std::collections::BTreeMap;

use serde_json::json;

use super::args::{Invite, LinksCommand, NodeCommand, Policy, SectionCommand};
use super::output::{bytes_text, count_text, duration_text, plural, time_text};
use super::{Context, Failure};
use crate::protocol::{LinkRow, NodeRow, SectionRow, Status, VoterRow};

pub(super) async fn status(context: &mut Context) -> Result<(), Failure> {
    let status = context.connect().await?.status().await?;
    if context.output.json {
        return context.output.json_line(&status);
    }
    context.output.record(&status_fields(&status))
}

fn status_fields(status: &Status) -> Vec<(&'static str, String)> {
    let disk = match status.disk_bytes_max {
        0 => bytes_text(status.disk_bytes),
        max => format!("{} of at most {}", bytes_text(status.disk_bytes), bytes_text(max)),
    };
    let unspread = format!("{}, {} not yet at any peer", plural(status.unspread_changes, "change"), bytes_text(status.unspread_bytes));
    let listens = if status.listens.is_empty() { "nowhere: it only dials out".into() } else { status.listens.join(", ") };
    let mut fields = vec![
        ("node", format!("{} ({}, {})", status.name, status.node, status.role)),
        ("mesh", status.mesh.to_string()),
        ("version", format!("{}, up {}, start {}", status.version, duration_text(status.uptime_ms), status.boot)),
        ("listens", listens),
        ("nodes", format!("{} of {} reachable, {}", status.reachable, status.nodes, plural(status.links.into(), "link"))),
        ("clients", status.sessions.to_string()),
        (
            "topics",
            format!("{} in {}, {}", count_text(status.topics), plural(status.sections.into(), "section"), bytes_text(status.value_bytes)),
        ),
        ("spread", unspread),
        ("displaced", plural(status.displaced, "value")),
        ("disk", disk),
    ];
    if status.memory_bytes > 0 {
        fields.push(("memory", bytes_text(status.memory_bytes)));
    }
    fields.push(("certificate", format!("until {}", time_text(status.certificate_expires_unix_ms))));
    fields.push(("digest", status.digest.clone()));
    fields.extend(status.warnings.iter().map(|warning| ("warning", warning.clone())));
    fields
}

pub(super) async fn invite(context: &mut Context, invite: &Invite) -> Result<(), Failure> {
    let (ticket, expires_unix_ms) = context.connect().await?.invite(&invite.role, invite.ttl).await?;
    if context.output.json {
        return context.output.json_line(&json!({ "ticket": ticket, "role": invite.role, "expires_unix_ms": expires_unix_ms }));
    }
    // The ticket alone on stdout, so that it can go into a pipe; what to do with it on stderr.
    eprintln!("Good for one node as {}, until {}. On that node:", invite.role, time_text(expires_unix_ms));
    eprintln!("  mangrove join TICKET && mangrove up");
    context.output.line(ticket)
}

pub(super) async fn node(context: &mut Context, command: NodeCommand) -> Result<(), Failure> {
    let client = context.connect().await?;
    match command {
        NodeCommand::Ls => {
            let rows = client.nodes().await?;
            context.output.listing(&rows, &["name", "node", "role", "state", "heard", "version", "sections", "addresses"], node_cells)
        }
        NodeCommand::Revoke { which: node } => {
            client.revoke(&node).await?;
            context.output.done(&json!({ "revoked": node }), format!("{node} is shut out for ever"))
        }
        NodeCommand::Leave { force } => {
            client.leave(force).await?;
            context.output.done(&json!({ "left": true }), "the node has left its mesh and stops")
        }
        NodeCommand::Rename { name } => {
            client.rename(&name).await?;
            context.output.done(&json!({ "name": name }), format!("the node is now {name}"))
        }
        NodeCommand::Renew => {
            let expires_unix_ms = client.renew().await?;
            let sentence = format!("the certificate is good until {}", time_text(expires_unix_ms));
            context.output.done(&json!({ "expires_unix_ms": expires_unix_ms }), sentence)
        }
    }
}

fn node_cells(row: &NodeRow) -> Vec<String> {
    vec![
        row.name.clone(),
        row.node.short(),
        row.role.clone(),
        row.state.to_string(),
        row.heard_ms_ago.map_or_else(|| "-".into(), |ms| format!("{} ago", duration_text(ms))),
        row.version.clone(),
        row.sections.join(" "),
        row.addresses.join(" "),
    ]
}

pub(super) async fn links(context: &mut Context, command: Option<LinksCommand>) -> Result<(), Failure> {
    let client = context.connect().await?;
    match command.unwrap_or(LinksCommand::Ls) {
        LinksCommand::Ls => {
            let rows = client.links().await?;
            context.output.listing(
                &rows,
                &["name", "node", "state", "address", "rtt", "sent", "received", "lag", "proved equal", "note"],
                link_cells,
            )
        }
        LinksCommand::Block { which: node } => {
            client.block(&node, true).await?;
            context.output.done(&json!({ "blocked": node }), format!("{node} is blocked, until `links unblock` or a restart"))
        }
        LinksCommand::Unblock { which: node } => {
            client.block(&node, false).await?;
            context.output.done(&json!({ "unblocked": node }), format!("{node} may talk to this node again"))
        }
    }
}

fn link_cells(row: &LinkRow) -> Vec<String> {
    let dash = || "-".to_owned();
    let lag = match (row.lag_changes, row.lag_ms) {
        (_, None) => dash(),
        (_, Some(0)) => "none".into(),
        // What it lacks is of others, who may bring it themselves.
        (None | Some(0), Some(ms)) => duration_text(ms),
        (Some(changes), Some(ms)) => format!("{}, {}", plural(changes, "change"), duration_text(ms)),
    };
    let mut notes: Vec<String> = row.error.iter().cloned().collect();
    if row.mismatches > 0 {
        notes.push(format!("{} repaired", plural(row.mismatches, "mismatch")));
    }
    vec![
        row.name.clone(),
        row.node.short(),
        row.state.to_string(),
        row.address.clone(),
        row.rtt_us.map_or_else(dash, |us| format!("{}.{} ms", us / 1_000, us % 1_000 / 100)),
        bytes_text(row.sent_bytes),
        bytes_text(row.received_bytes),
        lag,
        row.equal_ms_ago.map_or_else(dash, |ms| format!("{} ago", duration_text(ms))),
        notes.join("; "),
    ]
}

pub(super) async fn section(context: &mut Context, command: SectionCommand) -> Result<(), Failure> {
    let client = context.connect().await?;
    match command {
        SectionCommand::Ls => {
            let rows = client.sections().await?;
            context.output.listing(&rows, &["root", "held", "holders", "topics", "values", "digest", "policy"], section_cells)
        }
        SectionCommand::Add { root, policy } => {
            let row = client.section_add(&root, policy.into_properties()).await?;
            show_section(context, &row)
        }
        SectionCommand::Show { root } => {
            let row = client.section_show(&root).await?;
            show_section(context, &row)
        }
        SectionCommand::Set { root, policy } => {
            let properties = policy.into_properties();
            if properties.is_empty() {
                return Err(Failure::usage("nothing to set").hint("for example: mangrove section set ROOT --retention 14d"));
            }
            let row = client.section_set(&root, properties).await?;
            show_section(context, &row)
        }
        SectionCommand::Hold { root } => {
            let row = client.section_hold(&root).await?;
            show_section(context, &row)
        }
        SectionCommand::Rm { root } => {
            client.section_remove(&root).await?;
            context.output.done(&json!({ "removed": root }), format!("{root} is no section any more; its topics are local"))
        }
        SectionCommand::Drop { root, force } => {
            client.section_drop(&root, force).await?;
            context.output.done(&json!({ "dropped": root }), format!("this node holds {root} no longer"))
        }
    }
}

impl Policy {
    fn into_properties(self) -> BTreeMap<String, String> {
        let named = [
            ("arbitration", self.arbitration),
            ("voters", self.voters),
            ("lease", self.lease),
            ("durability", self.durability),
            ("retention", self.retention),
        ];
        let named = named.into_iter().filter_map(|(name, value)| Some((name.to_owned(), value?)));
        named.chain(self.properties).collect()
    }
}

fn policy_text(properties: &BTreeMap<String, String>) -> String {
    properties.iter().map(|(key, value)| format!("{key}={value}")).collect::<Vec<_>>().join(" ")
}

fn section_cells(row: &SectionRow) -> Vec<String> {
    vec![
        row.root.clone(),
        if row.held { "yes" } else { "no" }.into(),
        row.holders.join(" "),
        if row.held { count_text(row.topics) } else { "-".into() },
        if row.held { bytes_text(row.value_bytes) } else { "-".into() },
        row.digest.as_deref().map_or_else(|| "-".into(), |digest| digest.chars().take(12).collect()),
        policy_text(&row.properties),
    ]
}

fn show_section(context: &mut Context, row: &SectionRow) -> Result<(), Failure> {
    if context.output.json {
        return context.output.json_line(row);
    }
    let mut fields = vec![
        ("root", row.root.clone()),
        ("id", row.id.clone()),
        ("held here", if row.held { "yes" } else { "no" }.into()),
        ("holders", row.holders.join(", ")),
        ("policy", policy_text(&row.properties)),
    ];
    if row.held {
        fields.push(("topics", format!("{}, {}", count_text(row.topics), bytes_text(row.value_bytes))));
    }
    if !row.voting.is_empty() {
        let voter = |voter: &VoterRow| if voter.heard { voter.node.clone() } else { format!("{} (silent)", voter.node) };
        fields.push(("voting", row.voting.iter().map(voter).collect::<Vec<_>>().join(", ")));
    }
    if let Some(digest) = &row.digest {
        fields.push(("digest", digest.clone()));
    }
    context.output.record(&fields)
}

pub(super) async fn down(context: &mut Context) -> Result<(), Failure> {
    let client = context.connect().await?;
    let name = client.welcome().name.clone();
    client.shutdown().await?;
    context.output.done(&json!({ "stopped": name }), format!("{name} stops"))
}

#[cfg(test)]
mod tests {
    use mangrove_crdt::id::{MeshId, NodeId};

    use super::*;
    use crate::protocol::LinkState;

    fn link() -> LinkRow {
        LinkRow {
            node: NodeId([0xab; 32]),
            name: "JFK".into(),
            address: "[::1]:4747".into(),
            state: LinkState::Up,
            rtt_us: Some(1_234),
            sent_bytes: 1_500,
            received_bytes: 0,
            sent_records: 0,
            received_records: 0,
            runs: 0,
            lag_changes: Some(2),
            lag_ms: Some(1_500),
            equal_ms_ago: Some(3_000),
            mismatches: 0,
            sections: Vec::new(),
            error: None,
            requests: 0,
            deltas: 0,
            saved_bytes: 0,
            compressed: 0,
            compressed_saved_bytes: 0,
        }
    }

    #[test]
    fn a_link_says_how_it_is() {
        let up = ["JFK", "abababab", "up", "[::1]:4747", "1.2 ms", "1.50 kB", "0 B", "2 changes, 1.5 s", "3.0 s ago", ""];
        assert_eq!(link_cells(&link()), up);
        let lag = |changes, ms| link_cells(&LinkRow { lag_changes: changes, lag_ms: ms, ..link() })[7].clone();
        assert_eq!([lag(Some(0), Some(0)), lag(Some(0), Some(2_000)), lag(Some(0), None)], ["none", "2.0 s", "-"]);
        let down = LinkRow {
            state: LinkState::Down,
            rtt_us: None,
            lag_changes: None,
            lag_ms: None,
            equal_ms_ago: None,
            error: Some("nothing answered in time".into()),
            ..link()
        };
        let cells = link_cells(&down);
        assert_eq!(cells[2..5], ["down", "[::1]:4747", "-"]);
        assert_eq!(cells[7..], ["-", "-", "nothing answered in time"]);
    }

    #[test]
    fn a_policy_names_only_what_was_given() {
        let policy = Policy {
            arbitration: Some("quorum".into()),
            voters: None,
            lease: None,
            durability: None,
            retention: Some("7d".into()),
            properties: vec![("x".into(), "y".into())],
        };
        assert_eq!(policy_text(&policy.into_properties()), "arbitration=quorum retention=7d x=y");
    }

    #[test]
    fn a_status_says_what_no_peer_has() {
        let status = Status {
            node: NodeId([1; 32]),
            name: "EWR".into(),
            mesh: MeshId([2; 32]),
            role: "authority".into(),
            version: "0.1.0".into(),
            uptime_ms: 61_000,
            boot: 3,
            listens: Vec::new(),
            nodes: 3,
            reachable: 2,
            links: 1,
            sessions: 1,
            sections: 1,
            topics: 1_991,
            value_bytes: 150_000,
            unspread_changes: 1,
            unspread_bytes: 64,
            displaced: 0,
            disk_bytes: 2_000_000,
            disk_bytes_max: 0,
            memory_bytes: 0,
            certificate_expires_unix_ms: 0,
            digest: "00".into(),
            warnings: vec!["the clock is wrong".into()],
            updates: 0,
        };
        let fields = status_fields(&status);
        let field = |name: &str| fields.iter().find(|(key, _)| *key == name).map(|(_, value)| value.as_str());
        assert_eq!(field("spread"), Some("1 change, 64 B not yet at any peer"));
        assert_eq!(field("topics"), Some("1,991 in 1 section, 150 kB"));
        assert_eq!(field("nodes"), Some("2 of 3 reachable, 1 link"));
        assert_eq!(field("listens"), Some("nowhere: it only dials out"));
        assert_eq!(field("disk"), Some("2.00 MB"));
        assert_eq!(field("memory"), None);
        assert_eq!(field("warning"), Some("the clock is wrong"));
    }
}
