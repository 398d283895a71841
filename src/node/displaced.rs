//! What clients are shown of the displaced logs.

use mangrove_crdt::{
    access::Permission,
    definition::Definition,
    displaced::{Beaten, Displaced},
    id::{DisplacedId, Dot},
    selector::Selector,
};

use super::{ConnectionId, Node, connections::value_spec};
use crate::protocol::{Code, DisplacedRow, PAGE_MAX, Page, Refusal};

impl Node {
    pub(super) fn displaced_rows(
        &self,
        session: ConnectionId,
        selector: &Selector,
        page: &Page,
    ) -> Result<(Vec<DisplacedRow>, Option<String>), Refusal> {
        // An entry's time and id: that it is not there any more does not matter.
        let after: Option<(u64, DisplacedId)> = match &page.after {
            None => None,
            Some(text) => {
                let parts = text.split_once('-').and_then(|(time, id)| Some((time.parse().ok()?, id.parse().ok()?)));
                Some(parts.ok_or_else(|| Refusal::new(Code::InvalidRequest, text, "this is not where a page ended"))?)
            }
        };
        let limit = page.limit.clamp(1, PAGE_MAX) as usize;
        let all = self.replica.displaced().into_iter().filter(|(id, entry)| after.is_none_or(|after| (entry.time_ms, *id) > after));
        let mut matching = all
            .filter(|(_, entry)| selector.matches(&entry.path) && self.may(session, Permission::ReadHistory, &entry.path))
            .map(|(id, entry)| self.displaced_row(id, &entry));
        let rows: Vec<DisplacedRow> = matching.by_ref().take(limit).collect();
        let next = matching.next().and_then(|_| rows.last().map(|row| format!("{}-{}", row.unix_ms, row.id)));
        Ok((rows, next))
    }

    pub(super) fn displaced_value(&self, session: ConnectionId, id: &str) -> Result<(DisplacedRow, Vec<u8>), Refusal> {
        let entry = self.displaced_entry(session, id)?;
        Ok((self.displaced_row(entry.id(), &entry), entry.value))
    }

    pub(super) fn displaced_entry(&self, session: ConnectionId, id: &str) -> Result<Displaced, Refusal> {
        let entry = id.parse().ok().and_then(|id| self.replica.displaced().into_iter().find(|(other, _)| *other == id));
        let unknown = || Refusal::new(Code::UnknownDisplaced, id, "there is no such displaced value").hint("see: mangrove displaced ls");
        let entry = entry.map(|(_, entry)| entry).ok_or_else(unknown)?;
        self.permitted(session, Permission::ReadHistory, &entry.path).map(|()| entry)
    }

    fn displaced_row(&self, id: DisplacedId, entry: &Displaced) -> DisplacedRow {
        let definition = entry.definition.as_ref().and_then(|bytes| Definition::from_bytes(bytes).ok());
        let dot = |dot: &Dot| format!("{}#{}", dot.origin, dot.number);
        let (by, winner_epoch) = match &entry.beaten {
            Beaten::ByWrite { epoch, .. } => ("write", *epoch),
            Beaten::ByRemoval { .. } => ("removal", None),
        };
        let winner = entry.beaten.dot();
        DisplacedRow {
            id: id.to_string(),
            path: entry.path.to_string(),
            spec: definition.as_ref().filter(|definition| definition.topic_type().series().is_none()).and_then(value_spec),
            topic_type: definition.map(|definition| definition.topic_type().to_string()).unwrap_or_default(),
            by: by.into(),
            value_bytes: entry.value_bytes(),
            stamp: dot(&entry.dot),
            unix_ms: entry.time_ms,
            writer: self.name_of(entry.dot.origin.node),
            winner: winner.as_ref().map(dot).unwrap_or_default(),
            epoch: entry.epoch,
            winner_writer: winner.map(|winner| self.name_of(winner.origin.node)).unwrap_or_default(),
            winner_epoch,
            too_long: entry.too_long.map(|too_long| blake3::Hash::from_bytes(too_long.hash).to_string()),
        }
    }
}

#[cfg(test)]
mod tests {
    use mangrove_crdt::path::Path;

    use super::super::testing::Meshed;
    use super::*;
    use crate::protocol::{Request, Response, SetBatch, SetItem, Target};

    const PATH: &str = "s/t";

    fn meshed(count: u8) -> Meshed {
        Meshed::with_section(count, &[], PATH)
    }

    fn set(meshed: &mut Meshed, at: usize, path: &str, value: &str) {
        let client = meshed.client(at);
        let items = vec![SetItem::new(Target::Path(path.into()), value.as_bytes())];
        let written = meshed.ask(at, client, Request::Set(SetBatch { items, add: None, durability: None, under: None }));
        assert!(matches!(&written, Response::Written { refused, .. } if refused.is_empty()), "{written:?}");
    }

    fn value(meshed: &Meshed, at: usize) -> String {
        let replica = meshed.nodes[at].replica();
        let path = Path::parse(PATH).unwrap();
        let value = replica.value(replica.section_of(&path), &path).and_then(|write| write.value.clone());
        value.map(|value| String::from_utf8(value.to_vec()).unwrap()).unwrap_or_default()
    }

    fn listed(meshed: &mut Meshed, at: usize, page: Page) -> (Vec<DisplacedRow>, Option<String>) {
        let client = meshed.client(at);
        match meshed.ask(at, client, Request::Displaced { selector: "?.*//".into(), page }) {
            Response::Displaced { rows, next } => (rows, next),
            other => panic!("{other:?}"),
        }
    }

    /// What all nodes list.
    fn agreed(meshed: &mut Meshed) -> Vec<DisplacedRow> {
        let (first, _) = listed(meshed, 0, Page::default());
        for at in 1..meshed.nodes.len() {
            assert_eq!(listed(meshed, at, Page::default()).0, first, "node {at}");
        }
        first
    }

    /// Node 0 alone on one side writes `lost`, the others on the other side what wins.
    fn conflict(meshed: &mut Meshed) {
        meshed.cut_off(0);
        set(meshed, 0, PATH, "lost");
        set(meshed, 1, PATH, "one");
        set(meshed, 1, PATH, "won");
        meshed.heal();
        meshed.pass(2_000);
    }

    #[test]
    fn all_list_what_lost_and_any_of_them_restores_it() {
        let mut meshed = meshed(3);
        conflict(&mut meshed);
        let rows = agreed(&mut meshed);
        let [row] = &rows[..] else { panic!("{rows:?}") };
        assert_eq!((row.path.as_str(), row.by.as_str(), row.writer.as_str(), row.winner_writer.as_str()), (PATH, "write", "own", "n2"));
        assert_eq!((row.epoch, row.winner_epoch, row.value_bytes, row.too_long.as_deref()), (0, Some(0), 4, None));
        assert!(meshed.nodes.iter().all(|node| node.replica().noticed().is_empty()));
        // A node that has lost its disk has never heard of the loser, and lists it too.
        meshed.forget(2);
        meshed.pass(5_000);
        meshed.restart(1);
        meshed.pass(5_000);
        assert_eq!(agreed(&mut meshed), rows);
        assert_eq!(meshed.nodes[2].status(super::super::testing::at(meshed.ms)).displaced, 1);
        let client = meshed.client(2);
        let id = row.id.clone();
        let shown = meshed.ask(2, client, Request::DisplacedShow { id: id.clone() });
        assert!(matches!(&shown, Response::DisplacedValue { row: shown, value } if **shown == *row && value == b"lost"), "{shown:?}");
        assert!(matches!(meshed.ask(2, client, Request::DisplacedRestore { id }), Response::Done));
        meshed.pass(1_000);
        assert_eq!([0, 1, 2].map(|at| value(&meshed, at)), ["lost", "lost", "lost"]);
        assert_eq!(agreed(&mut meshed), rows, "it stays in the log, and what it has overwritten was known");
        for id in ["0", "0000000000000000"] {
            let refused = meshed.ask(2, client, Request::DisplacedShow { id: id.into() });
            assert!(matches!(&refused, Response::Refused(refusal) if refusal.code == Code::UnknownDisplaced), "{refused:?}");
        }
    }

    #[test]
    fn who_removed_it_is_told() {
        let mut meshed = meshed(3);
        meshed.cut_off(0);
        set(&mut meshed, 0, PATH, "lost");
        let client = meshed.client(1);
        meshed.ask(1, client, Request::TopicsRemove { selector: PATH.into(), force: false });
        meshed.heal();
        meshed.pass(7_000);
        let rows = agreed(&mut meshed);
        let [row] = &rows[..] else { panic!("{rows:?}") };
        assert_eq!((row.by.as_str(), row.writer.as_str(), row.winner_writer.as_str(), row.winner_epoch), ("removal", "own", "n2", None));
    }

    #[test]
    fn pages_go_on_where_they_ended() {
        let mut meshed = meshed(2);
        for _ in 0..5 {
            conflict(&mut meshed);
        }
        let rows = agreed(&mut meshed);
        assert_eq!(rows.len(), 5);
        assert!(rows.is_sorted_by_key(|row| row.unix_ms));
        let (mut paged, mut page) = (Vec::new(), Page { after: None, limit: 2 });
        loop {
            let (found, next) = listed(&mut meshed, 1, page);
            paged.extend(found);
            match next {
                Some(after) => page = Page { after: Some(after), limit: 2 },
                None => break,
            }
        }
        assert_eq!(paged, rows);
    }
}
