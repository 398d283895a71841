//! Lines of paged topics: changing and reading them, and what is said of such topics, which are this node's alone.

use mangrove_crdt::{
    access::Permission,
    definition::{Definition, Durability, TopicType},
    id::SectionId,
    paged,
    path::Path,
    replica::{SetError, Taken},
};

use super::{
    ConnectionId, Node, Now,
    acks::Needs,
    requests::{no_such_topic, parse_topic_path},
};
use crate::protocol::{Code, FRAME_AIM, ListState, PAGE_MAX, Refusal, Response, Splice};

#[cfg(test)]
mod tests;

impl Node {
    /// Changes the lines of a topic, which is made for it if that is wanted and it is missing. Whether it was, what the list has come to, and what the answer has to wait for.
    pub(super) fn change_lines(
        &mut self,
        now: Now,
        session: ConnectionId,
        path: &Path,
        splice: &Splice,
        add: Option<&Definition>,
        durability: Option<Durability>,
    ) -> Result<(bool, ListState, Needs), Refusal> {
        let Splice { from, take, lines } = splice;
        let splice = paged::Splice { from: *from, take: *take, lines };
        let mut needs = Needs::default();
        let missing = add.filter(|_| self.replica.topic(path).is_none());
        if let Some(definition) = missing {
            self.permitted(session, Permission::Modify, path)?;
            let topic_type = definition.topic_type();
            let list = if *topic_type == TopicType::Paged { Ok(()) } else { Err(SetError::NoList(topic_type.name())) };
            list.and_then(|()| splice.place(0).map_err(SetError::Lines)).map_err(|error| self.set_refusal(path, error))?;
            let added = self.replica.add_topics(&[(path.clone(), definition.clone())]);
            if let Some(error) = added.into_iter().find_map(Result::err) {
                return Err(self.add_refusal(path, error));
            }
            self.need_tree(&mut needs, [SectionId::LOCAL], durability.or(definition.properties().durability));
        }
        let changed = self.replica.change_lines(path, now.unix_ms, &splice);
        let (Taken { written, durability: own, .. }, summary) = changed.map_err(|error| self.set_refusal(path, error))?;
        needs.add(written, durability.or(own).unwrap_or_else(|| self.durability_of(written.section)));
        Ok((missing.is_some(), summary.into(), needs))
    }

    /// Lines of a topic, from one on.
    pub(super) fn line_rows(&self, session: ConnectionId, path: &str, from: u64, count: u32) -> Result<Response, Refusal> {
        let path = parse_topic_path(path)?;
        self.permitted(session, Permission::Read, &path)?;
        self.locate(&path)?;
        if from == 0 {
            return Err(Refusal::new(Code::InvalidRequest, path.as_str(), "lines are numbered from 1"));
        }
        let shown = self.replica.shown(&path).ok_or_else(|| no_such_topic(&path))?;
        let (section, topic) = shown.of;
        let count = count.clamp(1, PAGE_MAX) as usize;
        let read = self.replica.lines(section, topic, from, count, FRAME_AIM);
        let (summary, lines) = read.ok_or_else(|| self.set_refusal(&path, SetError::NoList(topic.definition.topic_type().name())))?;
        Ok(Response::Lines { lines: lines.into_iter().map(str::to_owned).collect(), list: summary.into() })
    }

    /// What a paged topic has come to, if it is shown at a path.
    pub(super) fn list_state(&self, path: &Path) -> Option<ListState> {
        let (section, topic) = self.replica.topic(path)?;
        self.replica.lines(section, topic, 1, 0, 0).map(|(summary, _)| summary.into())
    }

    /// What there is to say of the topic at a path beside its definition.
    pub(super) fn remark(&self, path: &Path) -> Option<String> {
        if !self.replica.is_paged(path) {
            return None;
        }
        let shown = self.replica.home_of(path) == SectionId::LOCAL;
        Some(if shown { "local: paged topics are not replicated" } else { "hides a paged topic of this node" }.into())
    }
}
