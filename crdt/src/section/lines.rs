//! Lists of lines, as the local section holds them: see [`paged`](crate::paged).

use std::sync::Arc;

use crate::{
    definition::TopicType,
    frontier::{DotIx, OriginIx},
    id::SectionId,
    paged::{self, BYTES_MAX, LinesError, Splice, Summary},
    path::Path,
    sabotage::{Sabotage, is},
    section::{Context, Section},
    series::{EventIx, ValueKey},
    stamp::Under,
    tree::Topic,
};

impl Section {
    /// The paths of the lists here.
    pub fn lists(&self) -> impl Iterator<Item = &Path> {
        self.lists.iter()
    }

    /// Whether the topic at a path is a list.
    pub fn is_list(&self, path: &Path) -> bool {
        !self.lists.is_empty() && self.lists.contains(path)
    }

    /// A topic has come to a path, or gone.
    pub(super) fn note_list(&mut self, path: &Path) {
        if self.id == SectionId::LOCAL {
            match self.tree.topic(path.as_str()).is_some_and(is_list) {
                true => _ = self.lists.insert(path.clone()),
                false => _ = self.lists.remove(path),
            }
        }
    }

    /// What a list has come to.
    pub(crate) fn summary(&self, topic: DotIx) -> Summary {
        let value = self.values.get(&topic.into()).and_then(|write| write.value.as_deref());
        value.and_then(Summary::from_value).unwrap_or_default()
    }

    /// Lines of a list from a place on, counted from 0: so many at most, and about so many bytes.
    pub(crate) fn lines(&self, topic: DotIx, at: u64, count: usize, bytes_max: usize) -> Vec<&str> {
        let (mut lines, mut passed, mut bytes) = (Vec::new(), 0, 0);
        for (_, chunk) in self.chunks(topic) {
            let skip = at.saturating_sub(passed);
            passed += paged::count(chunk);
            if skip > 0 && passed <= at {
                continue;
            }
            for line in paged::decode(chunk).skip(usize::try_from(skip).unwrap_or(usize::MAX)) {
                if lines.len() == count || bytes > bytes_max {
                    return lines;
                }
                bytes += line.len();
                lines.push(line);
            }
        }
        lines
    }

    fn chunks(&self, topic: DotIx) -> impl DoubleEndedIterator<Item = (EventIx, &Arc<[u8]>)> {
        self.chunks_after(topic, 0)
    }

    fn chunks_after(&self, topic: DotIx, sequence: u64) -> impl DoubleEndedIterator<Item = (EventIx, &Arc<[u8]>)> {
        let chunks = self.series.get(&topic).into_iter().flat_map(move |series| series.range(sequence + 1..=u64::MAX));
        chunks.filter_map(move |chunk| Some((chunk, self.values.get(&ValueKey::event(topic, chunk))?.value.as_ref()?)))
    }

    /// The chunks that a change concerns, in a list of so many lines.
    fn span(&self, topic: DotIx, at: u64, take: u64, lines: u64) -> Span {
        let owned = |(place, chunk): (EventIx, &Arc<[u8]>)| (place, chunk.clone());
        let mut span = Span { chunks: Vec::new(), skip: 0, low: 0, next: None };
        if at == lines {
            // An append, which need not look through what is there.
            span.chunks.extend(self.chunks(topic).next_back().map(owned));
            span.skip = span.chunks.iter().map(|(_, chunk)| paged::count(chunk)).sum();
            return span;
        }
        let mut passed = 0;
        for (place, chunk) in self.chunks(topic) {
            let end = passed + paged::count(chunk);
            if end <= at {
                span.low = place.sequence;
            } else if passed < at + take.max(1) {
                if span.chunks.is_empty() {
                    span.skip = at - passed;
                }
                span.chunks.push(owned((place, chunk)));
            } else {
                span.next = Some(owned((place, chunk)));
                break;
            }
            passed = end;
        }
        span
    }

    /// Changes a list: where that stands, and what the list has come to.
    pub(crate) fn splice(
        &mut self,
        cx: &mut Context<'_>,
        own: OriginIx,
        topic: DotIx,
        time_ms: u64,
        splice: &Splice<'_>,
    ) -> Result<(DotIx, Summary), LinesError> {
        let mut summary = self.summary(topic);
        let (at, take) = splice.place(summary.lines)?;
        let Span { mut chunks, skip, low, mut next } = self.span(topic, at, take, summary.lines);
        let (skip, take) = (skip as usize, if is(Sabotage::KeepsLines) { 0 } else { take as usize });
        let held: Vec<Arc<[u8]>> = chunks.iter().map(|(_, chunk)| chunk.clone()).collect();
        let before: Vec<&str> = held.iter().flat_map(|chunk| paged::decode(chunk)).collect();
        let (skip, end) = (skip.min(before.len()), (skip + take).min(before.len()));
        let mut after = before[..skip].to_vec();
        after.extend(splice.lines.iter().map(String::as_str));
        after.extend(&before[end..]);
        let bytes_of = |lines: &[&str]| lines.iter().map(|line| line.len() as u64).sum::<u64>();
        summary.bytes = (summary.bytes + bytes_of(&after)).saturating_sub(bytes_of(&before));
        summary.lines = (summary.lines + after.len() as u64).saturating_sub(before.len() as u64);
        if summary.bytes > BYTES_MAX {
            return Err(LinesError::TooLong(summary.bytes));
        }
        let neighbour = next.clone().filter(|_| !after.is_empty() && paged::is_small(&after));
        if let Some((place, chunk)) = &neighbour {
            after.extend(paged::decode(chunk));
            chunks.push((*place, chunk.clone()));
            next = self.chunks_after(topic, place.sequence).next().map(|(place, chunk)| (place, chunk.clone()));
        }
        let pieces = paged::cut(&after, next.is_none());
        let low = chunks.last().map_or(low, |(chunk, _)| chunk.sequence);
        let fresh = pieces.len().saturating_sub(chunks.len()) as u64;
        let Some(fresh) = paged::between(low, next.map(|(chunk, _)| chunk.sequence), fresh) else {
            self.spread(cx, own, topic, time_ms);
            return self.splice(cx, own, topic, time_ms, splice);
        };
        let fresh = fresh.map(|sequence| EventIx { sequence, origin: topic.origin });
        let places: Vec<EventIx> = chunks.iter().map(|(chunk, _)| *chunk).chain(fresh).collect();
        for (number, place) in places.into_iter().enumerate() {
            match pieces.get(number) {
                None => self.drop_chunk(topic, place),
                Some(piece) => {
                    let bytes = paged::encode(piece);
                    if chunks.get(number).is_none_or(|(_, held)| held[..] != bytes) {
                        self.put_chunk(cx, own, topic, place, time_ms, bytes.into());
                    }
                }
            }
        }
        let stamp = self.stamp(Under::default());
        summary.revision = stamp.seq;
        let dot = self.values.write(own, topic.into(), stamp, time_ms, Some(summary.to_value().into()));
        self.value_changed(cx, topic.into());
        Ok((dot, summary))
    }

    fn put_chunk(&mut self, cx: &mut Context<'_>, own: OriginIx, topic: DotIx, place: EventIx, time_ms: u64, chunk: Arc<[u8]>) {
        let (key, stamp) = (ValueKey::event(topic, place), self.stamp(Under::default()));
        self.values.write(own, key, stamp, time_ms, Some(chunk));
        self.note_event(cx.origins, key);
    }

    fn drop_chunk(&mut self, topic: DotIx, place: EventIx) {
        self.values.drop_key(&ValueKey::event(topic, place));
        if let Some(series) = self.series.get_mut(&topic) {
            series.remove(place);
        }
    }

    /// Gives all chunks of a list sequences that are far from each other again.
    fn spread(&mut self, cx: &mut Context<'_>, own: OriginIx, topic: DotIx, time_ms: u64) {
        let chunks: Vec<(EventIx, Arc<[u8]>)> = self.chunks(topic).map(|(place, chunk)| (place, chunk.clone())).collect();
        chunks.iter().for_each(|(place, _)| self.drop_chunk(topic, *place));
        let sequences = paged::between(0, None, chunks.len() as u64).into_iter().flatten();
        for (sequence, (_, chunk)) in sequences.zip(chunks) {
            self.put_chunk(cx, own, topic, EventIx { sequence, origin: topic.origin }, time_ms, chunk);
        }
    }
}

/// Whether a topic is a list.
pub(super) fn is_list(topic: &Topic) -> bool {
    *topic.definition.topic_type() == TopicType::Paged
}

/// The chunks that a change concerns, one after the other.
struct Span {
    chunks: Vec<(EventIx, Arc<[u8]>)>,
    /// How many of their lines come before the change.
    skip: u64,
    /// The sequence of the chunk before them; 0 if there is none.
    low: u64,
    /// The chunk after them.
    next: Option<(EventIx, Arc<[u8]>)>,
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::{
        definition::{Definition, Properties},
        frontier::Dots,
        id::{Incarnation, NodeId, Origin},
        paged::{LINE_BYTES_MAX, LINES_MAX},
        persist::{Row, Table},
        policy::SectionPolicy,
        registers::Write,
        replica::{Added, Replica, SetError},
        section::Event,
        stamp::Stamp,
    };

    type Disk = std::collections::BTreeMap<(Table, Vec<u8>), Vec<u8>>;

    fn own(boot: u32) -> Origin {
        Origin { node: NodeId([1; 32]), incarnation: Incarnation { boot, nonce: 0 } }
    }

    fn path() -> Path {
        Path::parse("a/list").unwrap()
    }

    fn replica() -> Replica {
        let mut replica = Replica::new(own(1));
        let added = replica.add_topics(&[(path(), Definition::new(TopicType::Paged, Properties::default()))]);
        assert_eq!(added, [Ok(Added::Created)]);
        replica
    }

    fn change(replica: &mut Replica, from: Option<u64>, take: Option<u64>, lines: &[String]) -> Result<Summary, LinesError> {
        match replica.change_lines(&path(), 1, &Splice { from, take, lines }) {
            Ok((_, summary)) => Ok(summary),
            Err(SetError::Lines(error)) => Err(error),
            Err(other) => panic!("{other}"),
        }
    }

    fn append(replica: &mut Replica, lines: &[String]) -> Result<Summary, LinesError> {
        change(replica, None, Some(0), lines)
    }

    fn lines(replica: &Replica) -> (Summary, Vec<String>) {
        let (section, topic) = replica.topic(&path()).expect("a topic");
        let (summary, lines) = replica.lines(section, topic, 1, usize::MAX, usize::MAX).expect("a list");
        (summary, lines.into_iter().map(str::to_owned).collect())
    }

    fn chunk_count(replica: &Replica) -> usize {
        let (section, topic) = replica.topic(&path()).expect("a topic");
        replica.section(section).expect("a section").chunks(topic.ids[0]).count()
    }

    fn texts(lines: impl IntoIterator<Item = impl ToString>) -> Vec<String> {
        lines.into_iter().map(|line| line.to_string()).collect()
    }

    /// What the disk holds goes on as another run.
    fn restarted(replica: &mut Replica, disk: &mut Disk, boot: u32) -> Replica {
        for Row { table, key, value } in replica.take_rows().0 {
            match value {
                Some(value) => disk.insert((table, key), value),
                None => disk.remove(&(table, key)),
            };
        }
        let rows = disk.iter().map(|((table, key), value)| Row { table: *table, key: key.clone(), value: Some(value.clone()) });
        Replica::load(own(boot), rows).expect("what was stored can be read")
    }

    #[test]
    fn lines_come_and_go_by_their_numbers() {
        let mut replica = replica();
        let (empty, none) = lines(&replica);
        assert_eq!((empty.lines, empty.bytes, none), (0, 0, vec![]));
        let first = append(&mut replica, &texts(["a", "b", "c"])).expect("lines");
        assert!(first.revision > empty.revision);
        assert_eq!((first.lines, first.bytes), (3, 3));
        change(&mut replica, Some(1), Some(0), &texts(["first"])).expect("an insertion");
        change(&mut replica, Some(5), Some(0), &texts(["last"])).expect("the place after the last");
        change(&mut replica, Some(3), Some(1), &texts(["B", "B2"])).expect("a replacement");
        let before = lines(&replica);
        assert_eq!(before.1, ["first", "a", "B", "B2", "c", "last"]);
        for (from, take, line) in
            [(Some(0), Some(0), 0), (Some(8), Some(0), 8), (Some(7), Some(1), 7), (Some(2), Some(u64::MAX), 7), (None, Some(1), 7)]
        {
            assert_eq!(change(&mut replica, from, take, &[]), Err(LinesError::NoLine { line, lines: 6 }), "{from:?} {take:?}");
        }
        assert_eq!(append(&mut replica, &texts(["a", "b\nc"])), Err(LinesError::LineBreak { at: 2 }));
        let long = LINE_BYTES_MAX + 1;
        assert_eq!(append(&mut replica, &["x".repeat(long)]), Err(LinesError::LineTooLong { at: 1, bytes: long }));
        assert_eq!(lines(&replica), before, "nothing is changed by what is refused");
        change(&mut replica, Some(2), Some(4), &[]).expect("a removal");
        assert_eq!(lines(&replica).1, ["first", "last"]);
        let cleared = change(&mut replica, Some(1), None, &[]).expect("all of them");
        assert_eq!((lines(&replica), chunk_count(&replica)), ((cleared, vec![]), 0));
    }

    #[test]
    fn a_list_is_no_longer_than_is_said() {
        let mut replica = replica();
        let full = texts((0..LINES_MAX).map(|_| ""));
        append(&mut replica, &full).expect("so many are taken");
        assert_eq!(append(&mut replica, &texts(["x"])), Err(LinesError::TooManyLines(LINES_MAX + 1)));
        change(&mut replica, Some(1), Some(1), &texts(["x"])).expect("one for another");
        let line = "x".repeat(LINE_BYTES_MAX);
        let heavy = vec![line; (BYTES_MAX / LINE_BYTES_MAX as u64) as usize];
        change(&mut replica, Some(1), None, &heavy).expect("so many bytes are taken");
        assert_eq!(append(&mut replica, &texts(["y"])), Err(LinesError::TooLong(BYTES_MAX + 1)));
        append(&mut replica, &texts([""])).expect("it has no bytes");
        assert_eq!(lines(&replica).0.bytes, BYTES_MAX);
    }

    #[test]
    fn an_append_costs_the_same_however_long_the_list_is() {
        let mut replica = replica();
        let line = || "x".repeat(50);
        append(&mut replica, &texts((0..50_000).map(|_| line()))).expect("lines");
        replica.take_rows();
        let chunks = chunk_count(&replica);
        assert!(chunks < 400, "{chunks} chunks");
        let mut written = 0;
        for _ in 0..1_000 {
            append(&mut replica, &[line()]).expect("a line");
            written += replica.take_rows().0.iter().filter_map(|row| row.value.as_ref()).map(Vec::len).sum::<usize>();
        }
        assert!(written < 1_000 * 10_000, "{written} bytes for a thousand lines");
    }

    #[test]
    fn subscribers_are_told_of_a_change_once() {
        let mut replica = replica();
        replica.take_events();
        append(&mut replica, &texts((0..10_000).map(|number| number.to_string()))).expect("lines");
        let events = replica.take_events();
        assert!(matches!(&events[..], [Event::Value { section: SectionId::LOCAL, key, .. }] if key.as_event().is_none()), "{events:?}");
    }

    #[test]
    fn a_list_that_is_made_again_is_another() {
        let (mut replica, mut disk) = (replica(), Disk::new());
        append(&mut replica, &texts(0..5_000)).expect("lines");
        let before = lines(&replica).0;
        assert_eq!(replica.remove_topics(&[path()]), 1);
        assert!(replica.topic(&path()).is_none() && !replica.is_paged(&path()));
        let replica = &mut restarted(&mut replica, &mut disk, 2);
        assert!(replica.section(SectionId::LOCAL).expect("it is held").values.is_empty(), "nothing is left of it");
        replica.add_topics(&[(path(), Definition::new(TopicType::Paged, Properties::default()))]);
        let (after, none) = lines(replica);
        assert!(after.revision > before.revision && none.is_empty(), "{after:?}");
    }

    #[test]
    fn chunks_are_few_however_lines_come_and_go() {
        let mut replica = replica();
        append(&mut replica, &texts(["first", "last"])).expect("lines");
        for _ in 0..4_000 {
            change(&mut replica, Some(2), Some(0), &["x".repeat(50)]).expect("an insertion");
        }
        let chunks = chunk_count(&replica);
        assert!(chunks < 60, "{chunks} chunks for 212 kB");
        // Every second one goes, line by line; and so on.
        for left in [2_000, 1_000, 500, 250, 125, 62, 31] {
            for kept in 1..=left {
                change(&mut replica, Some(kept), Some(1), &[]).expect("a removal");
            }
        }
        let chunks = chunk_count(&replica);
        assert!(lines(&replica).0.lines < 50 && chunks < 4, "{chunks} chunks for 2 kB");
    }

    #[test]
    fn the_narrowest_place_takes_more() {
        let mut replica = replica();
        // Each second one is long enough for a chunk of its own, so that the gap before the last is halved again and again.
        append(&mut replica, &texts(["first", "last"])).expect("lines");
        let mut expected = vec!["first".to_owned(), "last".to_owned()];
        for number in 0..200 {
            let line = format!("{number:0>5000}");
            change(&mut replica, Some(2), Some(0), std::slice::from_ref(&line)).expect("an insertion");
            expected.insert(1, line);
        }
        assert_eq!(lines(&replica).1, expected);
    }

    #[test]
    fn a_list_that_a_neighbour_claims_to_have_is_none() {
        let (mut replica, id) = (Replica::new(own(1)), SectionId(7));
        replica.declare_section(SectionPolicy::new(id, Path::parse("a").unwrap())).expect("a section");
        let theirs = replica.intern(Origin { node: NodeId([2; 32]), incarnation: Incarnation { boot: 1, nonce: 0 } });
        let (section, mut cx) = replica.parts(id).expect("it is held");
        section.create_topics(&mut cx, theirs, &[(path(), Definition::new(TopicType::Paged, Properties::default()))]);
        let topic = section.tree.topic(path().as_str()).expect("a topic").ids[0];
        let summary = Summary { lines: 1, bytes: 1, revision: 1 }.to_value();
        let chunk = ValueKey::event(topic, EventIx { sequence: 1, origin: theirs });
        for (number, (key, value)) in (1..).zip([(topic.into(), summary), (chunk, paged::encode(&["x"]))]) {
            let stamp = Stamp { epoch: 0, rank: None, seq: number };
            let write = Write { dot: DotIx { origin: theirs, number }, stamp, seen: Dots::new(), time_ms: 0, value: Some(value.into()) };
            section.merge_value(&mut cx, key, write);
        }
        let (section, topic) = replica.topic(&path()).expect("it is a topic");
        assert!(section == id && replica.value(id, &path()).is_none() && replica.lines(id, topic, 1, 9, 9).is_none());
        assert!(!replica.is_paged(&path()) && replica.hidden().next().is_none());
        let splice = Splice { from: None, take: Some(0), lines: &texts(["y"]) };
        assert!(matches!(replica.change_lines(&path(), 1, &splice), Err(SetError::NoList(_))));
        // What is left to this node with the section is a list like any other.
        replica.remove_section(id).expect("it was declared");
        append(&mut replica, &texts(["y"])).expect("a line");
        assert_eq!(lines(&replica).1, ["y"]);
    }

    #[derive(Clone, Debug)]
    enum Step {
        Splice { at: prop::sample::Index, take: usize, lines: Vec<(u8, usize)> },
        Restart,
    }

    fn step() -> impl Strategy<Value = Step> {
        let lines = prop::collection::vec((any::<u8>(), prop_oneof![0..20usize, 1_000..4_000usize, 9_000..9_100usize]), 0..12);
        let splice = (any::<prop::sample::Index>(), prop_oneof![Just(0), 0..10usize, 0..40usize], lines);
        prop_oneof![9 => splice.prop_map(|(at, take, lines)| Step::Splice { at, take, lines }), 1 => Just(Step::Restart)]
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn a_list_is_what_a_vector_would_be(steps in prop::collection::vec(step(), 1..60)) {
            let (mut replica, mut disk, mut boot) = (replica(), Disk::new(), 1);
            let (mut expected, mut revision) = (Vec::<String>::new(), 0);
            for step in steps {
                match step {
                    Step::Restart => {
                        boot += 1;
                        replica = restarted(&mut replica, &mut disk, boot);
                    }
                    Step::Splice { at, take, lines } => {
                        let at = at.index(expected.len() + 1);
                        let take = take.min(expected.len() - at);
                        let lines: Vec<String> = lines.into_iter().map(|(byte, length)| format!("{byte:x}").repeat(length)).collect();
                        let summary = change(&mut replica, Some(at as u64 + 1), Some(take as u64), &lines).expect("there are such lines");
                        expected.splice(at..at + take, lines);
                        prop_assert!(summary.revision > revision);
                        revision = summary.revision;
                    }
                }
                let (summary, read) = super::tests::lines(&replica);
                prop_assert_eq!(&read, &expected);
                let bytes = expected.iter().map(|line| line.len() as u64).sum::<u64>();
                prop_assert_eq!((summary.lines, summary.bytes, summary.revision), (expected.len() as u64, bytes, revision.max(summary.revision)));
                // Half full at worst, but for lines that leave no room, and what lies between them.
                let most = 4 * (bytes as usize + 3 * expected.len()) / (8 << 10) + 2;
                prop_assert!(chunk_count(&replica) <= most, "{} chunks of {bytes} bytes", chunk_count(&replica));
                // Any part is the same part.
                let (section, topic) = replica.topic(&path()).expect("a topic");
                for from in [1, expected.len() / 2 + 1, expected.len() + 1] {
                    let (_, part) = replica.lines(section, topic, from as u64, 3, usize::MAX).expect("a list");
                    prop_assert_eq!(part, expected.iter().skip(from - 1).take(3).map(String::as_str).collect::<Vec<_>>());
                }
            }
        }
    }
}
