//! Events of time series, as a section holds them: see [`series`](crate::series).

use std::{ops::RangeInclusive, sync::Arc};

use crate::{
    definition::{Definition, TopicType},
    frontier::{DotIx, OriginIx, Origins, raise},
    registers::Write,
    sabotage::{Sabotage, is},
    section::{Context, Section},
    series::{EventIx, SEQUENCE_MAX, Series, SeriesType, ValueKey},
    stamp::{Stamp, Under},
    tree::{Removal, Topic},
};

/// An event of a topic: which, and what its register holds.
#[derive(Clone, Copy, Debug)]
pub struct Told<'a> {
    /// The register.
    pub key: ValueKey,
    /// Its place among the topic's.
    pub event: EventIx,
    /// Its newest write.
    pub write: &'a Write,
}

impl Section {
    /// The registers that hang on a creation of a topic: its value, and its events.
    pub fn keys_of(&self, topic: DotIx) -> impl Iterator<Item = ValueKey> + '_ {
        let own = ValueKey::from(topic);
        let events = self.series.get(&topic).into_iter().flat_map(Series::iter);
        self.values.get(&own).map(|_| own).into_iter().chain(events.map(move |event| ValueKey::event(topic, event)))
    }

    /// The registers of all creations in a bucket, those included that have lost to another definition.
    pub fn keys_in(&self, bucket: u16) -> impl Iterator<Item = ValueKey> + '_ {
        self.tree.bucket_topics(bucket).flat_map(Topic::creations).flat_map(|id| self.keys_of(id))
    }

    /// The events of a topic that a reader may be shown, of some sequences, in order: the newest that it keeps, and of these such as are of its type.
    pub fn events<'a>(
        &'a self,
        origins: &'a Origins,
        topic: &'a Topic,
        sequences: RangeInclusive<u64>,
    ) -> Box<dyn DoubleEndedIterator<Item = Told<'a>> + 'a> {
        let Some(series) = topic.definition.topic_type().series() else { return Box::new(std::iter::empty()) };
        let first = self.first_kept(origins, topic, series).map(|first| first.rank(origins));
        let sequences = first.map_or(0, |first| first.0).max(*sequences.start())..=*sequences.end();
        let of = move |id: DotIx| {
            let events = self.series.get(&id).map(|series| series.range(sequences.clone()));
            // Of several of one sequence some may be no part of it.
            let kept = move |event: &EventIx| first.is_none_or(|first| event.sequence > first.0 || event.rank(origins) >= first);
            events.into_iter().flatten().filter(kept).filter_map(move |event| self.told(id, event))
        };
        match topic.ids.as_slice() {
            [only] => Box::new(of(*only)),
            ids => {
                let mut told: Vec<Told<'_>> = ids.iter().flat_map(|id| of(*id)).collect();
                told.sort_by_key(|told| told.event.rank(origins));
                Box::new(told.into_iter())
            }
        }
    }

    /// The newest event that a reader may be shown.
    pub fn last_event(&self, origins: &Origins, topic: &Topic) -> Option<Told<'_>> {
        let last = |id: &DotIx| self.series.get(id)?.iter().rev().find_map(|event| self.told(*id, event));
        topic.ids.iter().filter_map(last).max_by_key(|told| told.event.rank(origins))
    }

    fn told(&self, id: DotIx, event: EventIx) -> Option<Told<'_>> {
        let key = ValueKey::event(id, event);
        let write = self.values.get(&key).filter(|_| !self.unfit.contains(&key))?;
        Some(Told { key, event, write })
    }

    /// How many events a topic has, those included that are about to be forgotten.
    fn event_count(&self, topic: &Topic) -> usize {
        topic.ids.iter().filter_map(|id| self.series.get(id)).map(Series::len).sum()
    }

    /// The first of the events that a topic keeps; `None` if it has no more than that.
    fn first_kept(&self, origins: &Origins, topic: &Topic, series: &SeriesType) -> Option<EventIx> {
        let more = self.event_count(topic).checked_sub(series.keep as usize).filter(|more| *more > 0)?;
        match topic.ids.as_slice() {
            [only] => self.series.get(only)?.iter().nth(more),
            ids => {
                let mut events: Vec<EventIx> = ids.iter().filter_map(|id| self.series.get(id)).flat_map(Series::iter).collect();
                events.sort_by_key(|event| event.rank(origins));
                events.get(more).copied()
            }
        }
    }

    /// Up to where a creation's events are forgotten.
    pub(super) fn horizon(&self, topic: DotIx) -> u64 {
        self.values.get(&topic.into()).filter(|write| looks_like_horizon(write)).map_or(0, |write| write.stamp.seq)
    }

    /// What stands in feeds where a key would: itself, or for an event that is forgotten the register that says so.
    pub(super) fn place_in_feeds(&self, key: ValueKey) -> ValueKey {
        match key.as_event() {
            Some(event) if event.sequence <= self.horizon(key.topic()) => key.topic().into(),
            _ => key,
        }
    }

    /// Appends an event: its place, and its write's. `None` if there is no such topic, or no further place in it.
    pub(crate) fn append(
        &mut self,
        cx: &mut Context<'_>,
        own: OriginIx,
        path: &str,
        under: Under,
        time_ms: u64,
        content: Arc<[u8]>,
    ) -> Option<(EventIx, DotIx)> {
        let topic = self.tree.topic(path)?;
        let definition = topic.definition.clone();
        let (ids, series) = (topic.ids.clone(), definition.topic_type().series()?);
        let of = ids.iter().find(|id| self.series.contains_key(id)).or(ids.first()).copied()?;
        let last = ids.iter().map(|id| self.series.get(id).map_or(0, Series::last).max(self.horizon(*id))).max()?;
        let event = EventIx { sequence: (last < SEQUENCE_MAX).then_some(last + 1)?, origin: own };
        let dot = self.put_event(cx, own, ValueKey::event(of, event), under, time_ms, content);
        self.forget_oldest(cx.origins, own, path, series, time_ms);
        Some((event, dot))
    }

    /// Writes an event: a new one, or another content of one that is there.
    pub(crate) fn put_event(
        &mut self,
        cx: &mut Context<'_>,
        own: OriginIx,
        key: ValueKey,
        under: Under,
        time_ms: u64,
        content: Arc<[u8]>,
    ) -> DotIx {
        let stamp = self.stamp(under);
        let dot = self.values.write(own, key, stamp, time_ms, Some(content));
        self.unfit.remove(&key);
        self.note_event(cx.origins, key);
        self.value_changed(cx, key);
        dot
    }

    pub(super) fn note_event(&mut self, origins: &Origins, key: ValueKey) {
        if let Some(event) = key.as_event() {
            self.series.entry(key.topic()).or_default().insert(origins, event);
        }
    }

    /// Raises the horizon of a topic that has more than it keeps, by so much that this is not to be done with each event.
    fn forget_oldest(&mut self, origins: &Origins, own: OriginIx, path: &str, series: &SeriesType, time_ms: u64) {
        let Some(topic) = self.tree.topic(path) else { return };
        if self.event_count(topic) <= series.keep as usize + series.slack() {
            return;
        }
        let horizon = self.first_kept(origins, topic, series).map_or(0, |first| first.sequence - 1);
        for id in topic.ids.clone() {
            let old = self.series.get(&id).and_then(|series| series.iter().next()).is_some_and(|event| event.sequence <= horizon);
            if old && self.horizon(id) < horizon {
                let stamp = Stamp { epoch: 0, rank: None, seq: horizon };
                self.values.write(own, id.into(), stamp, time_ms, Some(Arc::default()));
                self.horizon_moved(id);
                self.digest_changed(id);
            }
        }
    }

    /// What lies below a creation's horizon goes.
    pub(super) fn horizon_moved(&mut self, topic: DotIx) {
        let horizon = self.horizon(topic);
        let Some(series) = self.series.get_mut(&topic) else { return };
        for event in series.take_upto(horizon) {
            let key = ValueKey::event(topic, event);
            match is(Sabotage::NoHorizon) {
                true => _ = self.values.drop_key(&key),
                false => self.values.absorb(&key, &topic.into()),
            }
            self.unfit.remove(&key);
        }
    }

    /// What whoever removes a creation of a topic knows of its values.
    pub(super) fn removal_of(&self, topic: DotIx) -> Removal {
        let mut seen = self.values.known(&topic.into());
        for key in self.keys_of(topic).filter(|key| key.as_event().is_some()) {
            self.values.known(&key).into_iter().for_each(|dot| raise(&mut seen, dot));
        }
        Removal { topic, seen }
    }

    /// Lets go of all that hangs on a creation; what that was.
    pub(super) fn drop_values(&mut self, topic: DotIx) -> Vec<(ValueKey, Write)> {
        let keys: Vec<ValueKey> = self.keys_of(topic).collect();
        self.series.remove(&topic);
        keys.into_iter()
            .filter_map(|key| {
                self.unfit.remove(&key);
                Some((key, self.values.drop_key(&key)?))
            })
            .collect()
    }
}

/// Whether a register of a topic says up to where its events are forgotten.
pub(super) fn is_horizon(definition: &Definition, key: &ValueKey, write: &Write) -> bool {
    definition.topic_type().series().is_some() && key.as_event().is_none() && looks_like_horizon(write)
}

/// Of a topic that has events, a horizon. Of others it is an empty value, written without a source.
fn looks_like_horizon(write: &Write) -> bool {
    write.value.as_ref().is_some_and(|value| value.is_empty()) && write.stamp.epoch == 0 && write.stamp.rank.is_none()
}

/// Whether a register is one that topics of this type have.
pub(super) fn belongs(topic_type: &TopicType, key: &ValueKey) -> bool {
    topic_type.series().is_some() == key.as_event().is_some()
}
