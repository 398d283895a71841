//! What is done once, however often it is asked for.
//!
//! A client whose connection is lost does not know whether the last things that it wanted done have been. So it numbers them, and asks again wherever it goes. The home keeps
//! the answers until the client has heard them, in a record that is stored and spread with what was written. The next home believes that record only as far as it
//! holds what was written for it: otherwise it does it itself, and what the old home has yet to spread will be a concurrent write like any other.
//!
//! (A node that has what was written and not yet the record does it twice. Records go before values on every link; it takes two ways through the mesh, one of which is slower.)

use mangrove_crdt::{
    definition::Durability,
    id::Dot,
    replica::Written,
    standing::{Done, DoneWrite},
};

use super::*;
use crate::protocol::Request;

/// How many answers one session's home keeps at most.
const KEPT_MAX: usize = 1_024;
/// The longest answer that is kept, in bytes; a longer one is of something that was refused in many places, and is found out anew.
const ANSWER_BYTES_MAX: usize = 4 << 10;

impl Node {
    /// Does something that a client may have asked for before.
    pub(in crate::node) fn once(
        &mut self,
        now: Now,
        connection: ConnectionId,
        number: u64,
        floor: u64,
        request: Request,
    ) -> Result<(Response, Needs), Refusal> {
        let refused = |why: &str| Refusal::new(Code::InvalidRequest, number.to_string(), why);
        if !request.writes() {
            return Err(refused("it writes nothing, and may be asked for as often as wanted"));
        }
        let id = self.connections.get(&connection).and_then(|client| client.session);
        let session = id.and_then(|id| Some((id, self.sessions.all.get_mut(&id)?)));
        // Without a session nobody asks again.
        let Some((id, session)) = session else { return self.serve(now, connection, request) };
        session.done.floor = session.done.floor.max(floor);
        session.done.done = session.done.done.split_off(&session.done.floor);
        if number < session.done.floor {
            return Err(refused("its client has said that it has heard the answer"));
        }
        if session.done.done.len() >= KEPT_MAX {
            return Err(Refusal::new(Code::TooMany, number.to_string(), format!("at most {KEPT_MAX} answers can be waited for")));
        }
        let done = session.done.done.get(&number).cloned();
        if let Some(answered) = done.and_then(|done| self.known_answer(&done)) {
            return Ok(answered);
        }
        let (response, needs) = self.serve(now, connection, request)?;
        let answer = minicbor::to_vec(&response).expect("encoding to memory");
        if answer.len() <= ANSWER_BYTES_MAX {
            let write = |(written, durability): (Written, Durability)| DoneWrite {
                section: written.section,
                plane: written.plane,
                dot: self.replica.dot(written.dot),
                disks: durability.disks(),
            };
            let done = Done { answer, writes: needs.all().map(write).collect() };
            if let Some(session) = self.sessions.all.get_mut(&id) {
                session.done.done.insert(number, done);
            }
            // Stored in one batch with what was written: the one is on the disk where the other is.
            self.store_done(now, id);
        }
        Ok((response, needs))
    }

    /// The answer to something that was done, if this node holds what was written for it; and what it has to wait for.
    fn known_answer(&self, done: &Done) -> Option<(Response, Needs)> {
        let mut needs = Needs::default();
        for DoneWrite { section, plane, dot: Dot { origin, number }, disks } in &done.writes {
            let origin = self.replica.origins().find(origin)?;
            let dot = mangrove_crdt::frontier::DotIx { origin, number: *number };
            if !self.replica.section(*section)?.frontier(*plane).covers(dot) {
                return None;
            }
            needs.add(Written { section: *section, plane: *plane, dot }, Durability::from_disks((*disks).into())?);
        }
        Some((minicbor::decode(&done.answer).ok()?, needs))
    }

    fn store_done(&mut self, now: Now, id: SessionId) {
        let Some(session) = self.sessions.all.get(&id) else { return };
        let value = minicbor::to_vec(&session.done).expect("encoding to memory");
        self.replica.put_standing_in(SectionId::MESH, Standing::SessionDone(id), session.record.under(), now.unix_ms, Some(value));
    }

    /// Finds what the session's last home has done.
    pub(super) fn load_done(&mut self, id: SessionId) {
        let known: Option<DoneRecord> = self.replica.standing(SectionId::MESH, Standing::SessionDone(id));
        if let (Some(known), Some(session)) = (known, self.sessions.all.get_mut(&id)) {
            session.done = known;
        }
    }

    /// The session has ended, and nobody will ask again.
    pub(super) fn forget_done(&mut self, now: Now, id: SessionId) {
        let standing = Standing::SessionDone(id);
        if self.replica.standing_write(SectionId::MESH, standing).is_some_and(|(_, write)| write.value.is_some()) {
            self.replica.put_standing_in(SectionId::MESH, standing, SessionRecord::under_final(), now.unix_ms, None);
        }
    }
}

#[cfg(test)]
mod tests;
