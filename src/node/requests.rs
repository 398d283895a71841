//! Clients' requests: admitted, committed, answered.

use std::collections::BTreeMap;

use mangrove_crdt::{
    access::Permission,
    definition::{Definition, Durability},
    id::{NodeId, SectionId},
    paged::LinesError,
    path::Path,
    policy::{Arbitration, Founding, PolicyError, SectionEdit, SectionPolicy},
    replica::{AddError, Added, NotHeld, SetError, Taken, Writer},
    selector::Selector,
    series::{Content, EventIx},
    standing::{Revocation, Standing},
    time::parse_duration_ms,
    value,
};

use super::changes::New;
use super::{Comer, ConnectionId, Node, Now, Parting, acks::Needs, connections::Connection};
use crate::protocol::{Code, ITEMS_MAX, ItemRefusal, Page, Refusal, Request, Response, SetBatch, Target, TopicSpec};

type Answer = Result<(Response, Needs), Refusal>;

impl Node {
    pub(super) fn request(&mut self, now: Now, session: ConnectionId, id: u64, request: Request) {
        let Some(client) = self.connections.get(&session) else { return };
        if let (Request::Reauthenticate(login), Some(_)) = (&request, &client.identity) {
            // Answered when it has been judged.
            let Connection { client, via, entropy, .. } = client;
            let comer = Comer {
                client: client.clone(),
                via: via.clone(),
                aliases_max: 0,
                entropy: **entropy,
                login: login.clone(),
                properties: BTreeMap::new(),
            };
            return self.login(now, session, comer, Some(id));
        }
        let served = self.permit(session, &request).and_then(|()| self.serve(now, session, request));
        match served {
            Err(refusal) => self.answer(session, id, Response::Refused(refusal)),
            Ok((response, needs)) => {
                self.sync_wanted |= needs.needs_disk();
                self.acks.wait(session, id, response, needs);
            }
        }
    }

    pub(super) fn serve(&mut self, now: Now, session: ConnectionId, request: Request) -> Answer {
        let done = |response| Ok((response, Needs::default()));
        match request {
            Request::Status => done(Response::Status(Box::new(self.status(now)))),
            Request::Nodes => done(Response::Nodes(self.node_rows(now))),
            Request::Links => done(Response::Links(self.link_rows(now))),
            Request::NodeRevoke { node } => self.revoke(now, &node),
            Request::NodeRename { name } => {
                self.writable()?;
                check_name(&name)?;
                self.rename(now, name);
                self.done_mesh()
            }
            Request::NodeLeave { force } => self.leave(now, force),
            Request::LinkBlock { node, blocked } => {
                let node = self.find_node(&node)?;
                if blocked {
                    self.blocked.insert(node);
                    self.hang_up_on(node, Parting::Blocked, "blocked by an operator");
                } else {
                    self.blocked.remove(&node);
                }
                self.redial(now);
                done(Response::Done)
            }
            Request::SectionAdd { root, properties } => self.section_add(now, &root, &properties),
            Request::Sections => done(Response::Sections(self.section_rows(now))),
            Request::SectionShow { root } => {
                let section = self.find_section(&root)?;
                done(Response::Section(Box::new(self.section_row(now, section))))
            }
            Request::SectionSet { root, properties } => self.section_set(now, &root, &properties),
            Request::SectionRemove { root } => {
                self.writable()?;
                let section = self.find_section(&root)?;
                self.replica.remove_section(section).map_err(|error| policy_refusal(&root, &error))?;
                self.announce(now);
                self.done_mesh()
            }
            Request::SectionHold { root } => {
                self.writable()?;
                let section = self.find_section(&root)?;
                self.replica.set_released(section, false);
                self.hold(section);
                self.announce(now);
                self.section_answer(now, section)
            }
            Request::SectionDrop { root, force } => self.section_drop(now, &root, force),
            Request::TopicsAdd { topic, paths } => self.topics_add(now, session, &topic, &paths),
            Request::TopicsRemove { selector, force } => self.topics_remove(now, session, &selector, force),
            Request::Topics { selector, page, pending } => {
                let (paths, next) = self.page(session, &selector, &page, |node, path| node.is_pending(path) == pending)?;
                let rows = paths.iter().filter_map(|path| self.topic_row(path)).collect();
                done(Response::Topics { rows, next })
            }
            Request::TopicShow { path } => {
                let path = parse_path(&path)?;
                self.locate(&path)?;
                let detail = self.topic_detail(now, &path).ok_or_else(|| no_such_topic(&path))?;
                done(Response::Topic(Box::new(detail)))
            }
            Request::TopicPast { path } => {
                let path = parse_path(&path)?;
                self.locate(&path)?;
                let (rows, cut) = self.past_rows(&path);
                done(Response::TopicPast { rows, cut })
            }
            Request::Set(batch) => self.set(now, session, batch),
            Request::Change(change) => self.change(now, session, *change),
            Request::BlobPut { hash, offset, total, bytes } => done(self.blob_put(now, session, hash, offset, total, &bytes)?),
            Request::BlobGet { hash, offset } => done(self.blob_get(hash, offset)?),
            Request::Send(send) => self.send_message(now, session, *send).map(|sent| (sent, Needs::default())),
            Request::Values { selector, page } => {
                if let Some(path) = Selector::parse(&selector).ok().as_ref().and_then(Selector::as_path) {
                    self.permitted(session, Permission::Read, path)?;
                    self.locate(path)?;
                }
                let (paths, next) = self.page(session, &selector, &page, |node, path| !node.is_pending(path))?;
                if paths.is_empty() && page.after.is_none() {
                    self.is_missing(now, session, &parse_selector(&selector)?);
                }
                let (rows, cut) = self.value_rows(&paths);
                done(Response::Values { rows, next: cut.or(next) })
            }
            Request::Subscribe { selector, credit, stamps, heard } => {
                let selector = parse_selector(&selector)?;
                let until = now.at.after(self.lease());
                let client = self.connections.get_mut(&session).ok_or_else(closing)?;
                let waits = heard.as_ref().is_some_and(|heard| !heard.seen.is_empty());
                let subscription = client.subscribe(selector, credit, stamps, heard.map(|heard| *heard), until)?;
                self.removals.subscribers.doubt();
                if waits {
                    self.waits_due = Some(self.waits_due.map_or(until, |due| due.min(until)));
                }
                done(Response::Subscribed { subscription })
            }
            Request::Unsubscribe { subscription } => {
                self.removals.subscribers.doubt();
                let client = self.connections.get_mut(&session).ok_or_else(closing)?;
                if client.unsubscribe(subscription) {
                    done(Response::Done)
                } else {
                    Err(Refusal::new(Code::UnknownSubscription, subscription.to_string(), "there is no such subscription"))
                }
            }
            Request::Lines { path, from, count } => done(self.line_rows(session, &path, from, count)?),
            Request::Events { path, wanted, page } => done(self.event_rows(now, session, &path, &wanted, &page)?),
            Request::Displaced { selector, page } => {
                let selector = parse_selector(&selector)?;
                let (rows, next) = self.displaced_rows(session, &selector, &page)?;
                done(Response::Displaced { rows, next })
            }
            Request::DisplacedShow { id } => {
                let (row, value) = self.displaced_value(session, &id)?;
                done(Response::DisplacedValue { row: Box::new(row), value })
            }
            Request::DisplacedRestore { id } => self.restore(now, session, &id),
            Request::SessionOpen { reconnect_timeout_ms, properties } => self.session_open(now, session, reconnect_timeout_ms, properties),
            Request::SessionSet { session, properties } => self.session_set(now, &session, properties),
            Request::SessionsListen { filter } => self.sessions_listen(session, &filter),
            Request::SessionsUnlisten { listener } => self.sessions_unlisten(session, listener),
            Request::SessionResume { id, secret, epoch } => self.session_resume(now, session, id, &secret, epoch),
            Request::SessionClose => self.session_close(now, session),
            Request::SourceClaim { branch, priority, wait, hold_ms } => self.source_claim(now, session, &branch, priority, wait, hold_ms),
            Request::SourceClose { source } => self.source_close(now, session, source),
            Request::Sources { page } => done(self.source_rows(&page)),
            Request::SourceShow { branch } => done(self.source_detail(now, &branch)?),
            Request::Sessions { page, filter } => done(self.session_rows(now, &page, &filter)?),
            Request::SessionShow { session } => done(self.session_detail(now, &session)?),
            Request::SessionEnd { session } => self.session_end(now, &session),
            Request::SessionRoles { session, roles } => self.session_roles(now, &session, roles),
            Request::SessionSelect { session, selector, selected } => {
                let selector = parse_selector(&selector)?;
                self.session_select(now, &session, &selector, selected)
            }
            Request::Addresses => {
                let nodes = self.replica.nodes();
                let addresses = nodes.values().flat_map(|record| record.addresses.clone());
                done(Response::Addresses(addresses.take(ITEMS_MAX).collect()))
            }
            Request::Access { about, page } => done(self.access_page(&about, &page)?),
            Request::AccessScript { script, dry_run } => self.access_script(now, &script, dry_run),
            Request::AccessWhy { who, path } => done(self.access_why(&who, &path)?),
            Request::Once { number, floor, request } => self.once(now, session, number, floor, *request),
            Request::HandlerRegister { name } => self.handler_register(now, session, &name, true),
            Request::HandlerUnregister { name } => self.handler_register(now, session, &name, false),
            Request::MissingRegister { prefix } => self.missing_register(now, session, &prefix, true),
            Request::MissingUnregister { prefix } => self.missing_register(now, session, &prefix, false),
            Request::Judged { question, verdict } => Ok(self.client_judged(now, session, question, verdict)),
            Request::Principals { page } => done(self.principal_rows(&page)),
            Request::Roles => done(self.role_rows()),
            Request::Invite { .. }
            | Request::Renew
            | Request::Config
            | Request::Doctor
            | Request::Shutdown
            | Request::Reauthenticate(_) => {
                Err(Refusal::new(Code::Unsupported, "request", "this node runs inside a program that does not serve it"))
            }
        }
    }

    /// Whether the store takes writes.
    pub(super) fn writable(&self) -> Result<(), Refusal> {
        match &self.store_refusal {
            Some(refusal) => Err(refusal.clone()),
            None => Ok(()),
        }
    }

    pub(super) fn locate(&self, path: &Path) -> Result<SectionId, Refusal> {
        self.replica.locate(path).map_err(|NotHeld { section }| self.not_held(path.as_str(), section))
    }

    pub(super) fn locate_branch(&self, path: &Path) -> Result<SectionId, Refusal> {
        self.replica.locate_branch(path).map_err(|NotHeld { section }| self.not_held(path.as_str(), section))
    }

    fn not_held(&self, what: &str, section: SectionId) -> Refusal {
        let nodes = self.replica.nodes();
        let holders = nodes.values().filter(|record| record.holds.contains(&section)).map(|record| record.name.clone());
        let root = self.replica.policy(section).map(|policy| policy.root.to_string()).unwrap_or_default();
        Refusal::new(Code::NotHeld, what, format!("this node does not hold the section {root}"))
            .hint(format!("ask a node that does, or hold it here: mangrove section hold {root}"))
            .who(holders)
    }

    // Nodes.

    /// The member that a text means: its name, its id, or the first digits of its id.
    fn find_node(&self, text: &str) -> Result<NodeId, Refusal> {
        let nodes = self.replica.nodes();
        let named: Vec<NodeId> = nodes.iter().filter(|(_, record)| record.name == text).map(|(node, _)| *node).collect();
        let by_id = || nodes.keys().copied().filter(|node| text.len() >= 4 && node.to_string().starts_with(&text.to_lowercase())).collect();
        let found: Vec<NodeId> = if named.is_empty() { by_id() } else { named };
        match found.as_slice() {
            [node] => Ok(*node),
            [] => Err(Refusal::new(Code::UnknownNode, text, "no node of the mesh has this name or id").hint("see: mangrove node ls")),
            _ => Err(Refusal::new(Code::AmbiguousNode, text, "more than one node could be meant")
                .hint("use the id")
                .who(found.iter().map(ToString::to_string))),
        }
    }

    fn revoke(&mut self, now: Now, text: &str) -> Answer {
        self.writable()?;
        if self.config.authority.is_none() {
            return Err(Refusal::new(Code::NotAuthority, text, "this node may not revoke others")
                .hint("ask a node with the role authority")
                .who(self.authorities()));
        }
        let node = self.find_node(text)?;
        if node == self.id() {
            return Err(
                Refusal::new(Code::InvalidRequest, text, "this is the node itself").hint("to take it out of the mesh: mangrove node leave")
            );
        }
        let revocation = Revocation { by: self.id(), time_ms: now.unix_ms, reason: "an operator wanted it so".into() };
        let bytes = minicbor::to_vec(&revocation).expect("encoding to memory");
        let written = self.replica.put_standing(Standing::Revoked(node), now.unix_ms, Some(bytes));
        Ok((Response::Done, Needs::disk([written])))
    }

    pub(super) fn authorities(&self) -> Vec<String> {
        let nodes = self.replica.nodes();
        nodes.values().filter(|record| record.authority).map(|record| record.name.clone()).collect()
    }

    fn leave(&mut self, now: Now, force: bool) -> Answer {
        if !force {
            let (changes, bytes) = self.unspread();
            if changes > 0 {
                let why = format!("{changes} changes ({bytes} bytes) are at no other node yet");
                return Err(Refusal::new(Code::Unspread, "leaving", why).hint("wait until it is linked, or use --force to lose them"));
            }
            let only: Vec<String> = self
                .replica
                .held()
                .filter(|section| self.other_holders(*section) == 0)
                .filter_map(|section| self.replica.policy(section))
                .map(|policy| policy.root.to_string())
                .collect();
            if !only.is_empty() {
                let refusal = Refusal::new(Code::LastHolder, "leaving", "no other node is known to hold these sections");
                return Err(refusal.hint("hold them elsewhere first, or use --force to lose them").who(only));
            }
        }
        let written = self.replica.put_standing(Standing::Node(self.id()), now.unix_ms, None);
        self.leaving = written;
        Ok((Response::Done, Needs::disk([written])))
    }

    fn done_mesh(&mut self) -> Answer {
        Ok((Response::Done, Needs::disk([self.replica.last_tree_write(SectionId::MESH), self.replica.last_standing_write()])))
    }

    // Sections.

    pub(super) fn find_section(&self, root: &str) -> Result<SectionId, Refusal> {
        let found = self.replica.policies().find(|policy| policy.root.as_str() == root).map(|policy| policy.id);
        found.ok_or_else(|| {
            Refusal::new(Code::UnknownSection, root, "no section with this root is declared").hint("see: mangrove section ls")
        })
    }

    fn section_answer(&mut self, now: Now, section: SectionId) -> Answer {
        let (_, needs) = self.done_mesh()?;
        Ok((Response::Section(Box::new(self.section_row(now, section))), needs))
    }

    fn section_add(&mut self, now: Now, root: &str, properties: &BTreeMap<String, String>) -> Answer {
        self.writable()?;
        let path = parse_path(root)?;
        let own = self.replica.own();
        let mut hasher = blake3::Hasher::new();
        let number = self.replica.last_tree_write(SectionId::MESH).map_or(0, |written| written.dot.number);
        hasher.update(&own.to_bytes()).update(&number.to_be_bytes()).update(root.as_bytes());
        let mut id = [0; 8];
        hasher.finalize_xof().fill(&mut id);
        let mut policy = SectionPolicy::new(SectionId(u64::from_be_bytes(id)), path);
        let mut lease = None;
        for (key, value) in properties {
            match key.as_str() {
                "arbitration" => {
                    policy.arbitration =
                        value.parse::<Arbitration>().map_err(|error| Refusal::new(Code::InvalidRequest, root, error.to_string()))?;
                }
                "lease" => lease = Some(lease_ms(root, value)?),
                _ => {
                    let edit = self.section_property(root, key, value)?;
                    policy.durability = edit.durability.unwrap_or(policy.durability);
                    policy.retention_ms = edit.retention_ms.unwrap_or(policy.retention_ms);
                    policy.voters = edit.voters.unwrap_or(policy.voters);
                }
            }
        }
        if policy.arbitration == Arbitration::Quorum {
            let lease_ms = lease.unwrap_or(self.config.lease.as_millis() as u64);
            policy.founding = Some(self.founding(root, &policy.voters, lease_ms)?);
        } else if lease.is_some() {
            return Err(
                Refusal::new(Code::InvalidRequest, root, "only a quorum section has a lease of its own").hint("add --arbitration quorum")
            );
        }
        let id = policy.id;
        self.replica.declare_section(policy).map_err(|error| policy_refusal(root, &error))?;
        self.replica.set_released(id, false);
        self.mesh.held(&self.replica, id);
        self.announce(now);
        self.section_answer(now, id)
    }

    /// What a section's quorum begins with: the voters that these nodes are at present.
    fn founding(&self, root: &str, voters: &[NodeId], lease_ms: u64) -> Result<Founding, Refusal> {
        let known = |node: &NodeId| {
            self.voter_of(node).ok_or_else(|| {
                let why = format!("{} cannot vote: it runs a version without quorum sections", self.name_of(*node));
                Refusal::new(Code::Unsupported, root, why)
            })
        };
        Ok(Founding { voters: voters.iter().map(known).collect::<Result<_, _>>()?, lease_ms, drift_ppm: self.config.drift_ppm })
    }

    fn section_set(&mut self, now: Now, root: &str, properties: &BTreeMap<String, String>) -> Answer {
        self.writable()?;
        let section = self.find_section(root)?;
        let mut edit = SectionEdit::default();
        for (key, value) in properties {
            if ["arbitration", "lease", "root"].contains(&key.as_str()) {
                return Err(Refusal::new(Code::Fixed, root, format!("the {key} of a section never changes"))
                    .hint("declare another section, or remove this one first"));
            }
            let one = self.section_property(root, key, value)?;
            edit.durability = one.durability.or(edit.durability);
            edit.retention_ms = one.retention_ms.or(edit.retention_ms);
            edit.voters = one.voters.or(edit.voters);
        }
        match self.replica.edit_section(section, edit) {
            Ok(_) | Err(PolicyError::NothingToChange) => self.section_answer(now, section),
            Err(error) => Err(policy_refusal(root, &error)),
        }
    }

    fn section_property(&self, root: &str, key: &str, value: &str) -> Result<SectionEdit, Refusal> {
        let invalid = |why: String| Refusal::new(Code::InvalidRequest, format!("{root}: {key}={value}"), why);
        let mut edit = SectionEdit::default();
        match key {
            "durability" => {
                edit.durability =
                    Some(value.parse().map_err(|error: mangrove_crdt::definition::DefinitionError| invalid(error.to_string()))?)
            }
            "retention" => {
                edit.retention_ms =
                    Some(parse_duration_ms(value).ok_or_else(|| invalid("a duration is a number with ms, s, m, h or d".into()))?)
            }
            "voters" => {
                let names = value.split(',').map(str::trim).filter(|name| !name.is_empty());
                edit.voters = Some(names.map(|name| self.find_node(name)).collect::<Result<_, _>>()?);
            }
            _ => return Err(invalid("a section has arbitration, voters, lease, durability and retention".into())),
        }
        Ok(edit)
    }

    pub(super) fn other_holders(&self, section: SectionId) -> usize {
        let own = self.id();
        self.replica.nodes().iter().filter(|(node, record)| **node != own && record.holds.contains(&section)).count()
    }

    fn section_drop(&mut self, now: Now, root: &str, force: bool) -> Answer {
        self.writable()?;
        let section = self.find_section(root)?;
        if self.replica.section(section).is_some() {
            if !force && self.other_holders(section) == 0 {
                return Err(Refusal::new(Code::LastHolder, root, "no other node is known to hold this section")
                    .hint("hold it elsewhere first, remove it with: mangrove section rm, or use --force to lose it"));
            }
            if let Some(branch) = self.own_branch_in(section).filter(|_| !force) {
                let why = format!("a session of this node wants to write {branch} there as its source");
                return Err(Refusal::new(Code::Exclusive, root, why)
                    .hint("end it first; with --force its claim stays where others see it for as long as this node runs"));
            }
            let (changes, bytes) = self.unspread_of(section);
            if !force && changes > 0 {
                let why = format!("{changes} changes ({bytes} bytes) are at no other node yet");
                return Err(Refusal::new(Code::Unspread, root, why).hint("wait until they are, or use --force to lose them"));
            }
            self.replica.set_released(section, true);
            self.replica.unhold(section);
            self.announce(now);
        }
        self.done_mesh()
    }

    // Topics and values.

    fn topics_add(&mut self, now: Now, session: ConnectionId, spec: &TopicSpec, paths: &[String]) -> Answer {
        self.writable()?;
        let definition = self.definition_for(now, session, spec)?;
        let mut refused = Vec::new();
        let mut topics = Vec::with_capacity(paths.len());
        let mut places = Vec::with_capacity(paths.len());
        for (item, text) in paths.iter().enumerate() {
            let permitted = |path: Path| {
                self.permitted(session, Permission::Modify, &path)?;
                self.may_be_made(session, &path, definition.topic_type()).map(|()| path)
            };
            match parse_topic_path(text).and_then(permitted) {
                Ok(path) => {
                    topics.push((path, definition.clone()));
                    places.push(item as u32);
                }
                Err(refusal) => refused.push(ItemRefusal { item: item as u32, refusal }),
            }
        }
        let (mut created, mut existed) = (0, 0);
        let results = self.replica.add_topics(&topics);
        let mut needs = Needs::default();
        for ((result, item), (path, _)) in results.into_iter().zip(places).zip(&topics) {
            match result {
                Ok(Added::Created) => created += 1,
                Ok(Added::Exists) => existed += 1,
                Err(error) => refused.push(ItemRefusal { item, refusal: self.add_refusal(path, error) }),
            }
        }
        let sections = topics.iter().map(|(path, _)| self.replica.home_of(path));
        self.need_tree(&mut needs, sections, definition.properties().durability);
        refused.sort_by_key(|refused| refused.item);
        Ok((Response::Added { created, existed, refused }, needs))
    }

    /// Tree writes in these sections must be as durable as the topic or section asks.
    pub(super) fn need_tree(&self, needs: &mut Needs, sections: impl IntoIterator<Item = SectionId>, asked: Option<Durability>) {
        let sections: std::collections::BTreeSet<SectionId> = sections.into_iter().collect();
        for section in sections {
            if let Some(written) = self.replica.last_tree_write(section) {
                needs.add(written, asked.unwrap_or_else(|| self.durability_of(section)));
            }
        }
    }

    pub(super) fn durability_of(&self, section: SectionId) -> Durability {
        self.replica.policy(section).map_or(Durability::Disk, |policy| policy.durability)
    }

    pub(super) fn add_refusal(&self, path: &Path, error: AddError) -> Refusal {
        match error {
            AddError::NotHeld(NotHeld { section }) => self.not_held(path.as_str(), section),
            AddError::Mismatch { definition } => {
                let why = format!("a topic of type {} with another definition is there", definition.topic_type());
                Refusal::new(Code::ExistsMismatch, path.as_str(), why).hint("remove it first, or use its definition: mangrove topic show")
            }
        }
    }

    fn topics_remove(&mut self, now: Now, session: ConnectionId, selector: &str, force: bool) -> Answer {
        // Removing is how to make room.
        if self.store_refusal.as_ref().is_some_and(|refusal| refusal.code != Code::Full) {
            self.writable()?;
        }
        let selector = parse_selector(selector)?;
        let prefix = selector.literal_prefix();
        let from = prefix.as_ref().map_or("", |prefix| prefix.as_str());
        let paths: Vec<Path> = self
            .replica
            .topics_from(from)
            .take_while(|(_, topic)| prefix.as_ref().is_none_or(|prefix| topic.path.as_str().starts_with(prefix.as_str())))
            .filter(|(_, topic)| selector.matches(&topic.path))
            .map(|(_, topic)| topic.path.clone())
            .collect();
        paths.iter().try_for_each(|path| self.permitted(session, Permission::Modify, path))?;
        if let Some(refusal) = self.claimed_by_others(now, session, &paths) {
            if !force {
                return Err(
                    refusal.hint("ask its holder, or use --force: what the holder has written and this node has not seen is displaced")
                );
            }
            tracing::warn!(%selector, connection = session.0, claimed = refusal.what, why = refusal.why, "topics of a claimed branch are removed by force");
        }
        let sections: Vec<SectionId> = paths.iter().map(|path| self.replica.home_of(path)).collect();
        let topics = self.replica.remove_topics(&paths) as u64;
        let mut needs = Needs::default();
        self.need_tree(&mut needs, sections, None);
        Ok((Response::Removed { topics }, needs))
    }

    fn set(&mut self, now: Now, session: ConnectionId, batch: SetBatch) -> Answer {
        self.writable()?;
        let add = batch.add.as_ref().map(|spec| self.definition_for(now, session, spec)).transpose()?;
        let client = self.connections.get_mut(&session).ok_or_else(closing)?;
        let mut refused = Vec::new();
        let mut writes = Vec::with_capacity(batch.items.len());
        for (item, set) in batch.items.into_iter().enumerate() {
            let resolved = match set.target {
                Target::Path(text) => parse_topic_path(&text),
                Target::Named { alias, path } => {
                    let parsed = parse_topic_path(&path);
                    match client.aliases.bind(alias, parsed.as_ref().ok().cloned()) {
                        Ok(_) => parsed,
                        Err(error) => Err(Refusal::new(Code::TooMany, alias.to_string(), error.to_string())),
                    }
                }
                Target::Alias(alias) => match client.aliases.get(alias) {
                    Ok(Some(path)) => Ok(path.clone()),
                    Ok(None) => Err(Refusal::new(Code::InvalidPath, alias.to_string(), "the alias was given to an invalid path")),
                    Err(error) => Err(Refusal::new(Code::InvalidRequest, alias.to_string(), error.to_string())),
                },
            };
            match resolved {
                Ok(path) => writes.push((item as u32, path, set.value)),
                Err(refusal) => refused.push(ItemRefusal { item: item as u32, refusal }),
            }
        }
        let mut admitted = Vec::with_capacity(writes.len());
        for (item, path, value) in writes {
            let permitted = self.permitted(session, Permission::Update, &path);
            match permitted.and_then(|()| self.authority(now, session, &path, batch.under)) {
                Ok(under) => admitted.push((item, path, under, value)),
                Err(refusal) => refused.push(ItemRefusal { item, refusal }),
            }
        }
        let writes = admitted;
        let mut needs = Needs::default();
        let mut created = 0;
        if let Some(definition) = &add {
            let missing: Vec<(Path, Definition)> = writes
                .iter()
                .filter(|(_, path, _, value)| self.replica.topic(path).is_none() && value::validate(definition.topic_type(), value).is_ok())
                .filter(|(_, path, ..)| self.may(session, Permission::Modify, path))
                .map(|(_, path, ..)| (path.clone(), definition.clone()))
                .collect();
            if !missing.is_empty() {
                let results = self.replica.add_topics(&missing);
                created = results.iter().filter(|result| matches!(result, Ok(Added::Created))).count() as u64;
                let asked = batch.durability.or(definition.properties().durability);
                self.need_tree(&mut needs, missing.iter().map(|(path, _)| self.replica.home_of(path)), asked);
            }
        }
        let author = self.author(session);
        let (mut written, mut outranked) = (0, Vec::new());
        for (item, path, under, value) in writes {
            match self.replica.set_by(&path, Writer { under, time_ms: now.unix_ms, author: &author }, value) {
                Ok(Taken { written: write, durability: own, .. }) => {
                    written += 1;
                    let durability = batch.durability.or(own).unwrap_or_else(|| self.durability_of(write.section));
                    needs.add(write, durability);
                }
                Err(error) => {
                    if matches!(error, SetError::Outranked { .. }) {
                        outranked.push(path.clone());
                    }
                    let unmade = add.is_some() && matches!(error, SetError::NoTopic);
                    let permitted = if unmade { self.permitted(session, Permission::Modify, &path) } else { Ok(()) };
                    let refusal = permitted.err().unwrap_or_else(|| self.set_refusal(&path, error));
                    refused.push(ItemRefusal { item, refusal });
                }
            }
        }
        outranked.iter().for_each(|path| self.outranked(now, session, path));
        refused.sort_by_key(|refused| refused.item);
        Ok((Response::Written { written, created, refused }, needs))
    }

    pub(super) fn set_refusal(&self, path: &Path, error: SetError) -> Refusal {
        match error {
            SetError::NotHeld(NotHeld { section }) => self.not_held(path.as_str(), section),
            SetError::NoTopic => no_such_topic(path),
            SetError::Outranked { .. } => {
                Refusal::new(Code::Exclusive, path.as_str(), format!("a source that this node has yet to hear of holds it: {error}"))
                    .hint("try again in a moment")
            }
            SetError::NoSeries(_) | SetError::NoList(_) => Refusal::new(Code::InvalidRequest, path.as_str(), error.to_string()),
            SetError::Lines(wrong) => {
                let code = match wrong {
                    LinesError::NoLine { .. } => Code::NoSuchLine,
                    LinesError::LineBreak { .. } => Code::InvalidValue,
                    LinesError::LineTooLong { .. } | LinesError::TooManyLines(_) | LinesError::TooLong(_) => Code::TooLarge,
                };
                Refusal::new(code, path.as_str(), wrong.to_string())
            }
            SetError::NoEvent(_) => {
                Refusal::new(Code::NoSuchEvent, path.as_str(), error.to_string()).hint("see those that it keeps with: mangrove event ls")
            }
            SetError::AmbiguousEvent(_, ref names) => {
                let refusal = Refusal::new(Code::AmbiguousEvent, path.as_str(), error.to_string());
                refusal.hint("name it in full").who(names.iter().map(ToString::to_string))
            }
            SetError::Invalid(value::ValueError::NotHere(hash)) => Refusal {
                what: path.to_string(),
                why: format!("what values it takes is said by the blob {hash}, which is not here yet"),
                ..self.blob_missing(&hash)
            },
            SetError::Invalid(error) => {
                let code = match error {
                    value::ValueError::TooLong(_) => Code::TooLarge,
                    value::ValueError::UnknownType(_) => Code::UnknownType,
                    _ => Code::InvalidValue,
                };
                Refusal::new(code, path.as_str(), error.to_string()).hint("see its type with: mangrove topic show")
            }
        }
    }

    fn restore(&mut self, now: Now, session: ConnectionId, id: &str) -> Answer {
        self.writable()?;
        let entry = self.displaced_entry(session, id)?;
        self.permitted(session, Permission::Update, &entry.path)?;
        if let Some(too_long) = entry.too_long {
            return Err(Refusal::new(Code::TooLarge, id, format!("its {} bytes were too long to be kept", too_long.bytes)));
        }
        let under = self.authority(now, session, &entry.path, None)?;
        let definition = entry.definition.as_ref().and_then(|bytes| Definition::from_bytes(bytes).ok());
        // An event comes back in its place, if it is still there, and otherwise at the end.
        let (edited, value) = match &entry.event {
            Some((sequence, origin)) => {
                let event = self.replica.origins().find(origin).map(|origin| EventIx { sequence: *sequence, origin });
                let there = event.filter(|event| self.replica.has_event(&entry.path, *event));
                let value = Content::value_of(&entry.value).unwrap_or_default().to_vec();
                (there.map(|event| event.name(self.replica.origins())), value)
            }
            None => (None, entry.value),
        };
        let new = New { value, add: definition.as_ref(), durability: None, edited };
        let (.., needs) = self.write_one(now, session, &entry.path, under, new)?;
        Ok((Response::Done, needs))
    }

    /// By which name a client signs.
    pub(super) fn author(&self, session: ConnectionId) -> String {
        let identity = self.connections.get(&session).and_then(|client| client.identity.as_ref());
        identity.map(|identity| identity.who.to_string()).unwrap_or_default()
    }

    /// The paths of one page of what a selector matches, and where the next page begins.
    fn page(
        &self,
        session: ConnectionId,
        selector: &str,
        page: &Page,
        wanted: impl Fn(&Node, &Path) -> bool,
    ) -> Result<(Vec<Path>, Option<String>), Refusal> {
        let selector = parse_selector(selector)?;
        let limit = page.limit.clamp(1, crate::protocol::PAGE_MAX) as usize;
        let prefix = selector.literal_prefix();
        let first = prefix.as_ref().map_or("", |prefix| prefix.as_str());
        let from = page.after.as_deref().filter(|after| *after > first).unwrap_or(first);
        let mut paths = Vec::new();
        let mut next = None;
        for (_, topic) in self.replica.topics_from(from) {
            if prefix.as_ref().is_some_and(|prefix| !topic.path.as_str().starts_with(prefix.as_str())) {
                break;
            }
            let is_meant = page.after.as_deref() != Some(topic.path.as_str()) && selector.matches(&topic.path);
            if !is_meant || !self.may(session, Permission::Read, &topic.path) || !wanted(self, &topic.path) {
                continue;
            }
            if paths.len() == limit {
                next = paths.last().map(|path: &Path| path.to_string());
                break;
            }
            paths.push(topic.path.clone());
        }
        Ok((paths, next))
    }
}

pub(super) fn closing() -> Refusal {
    Refusal::new(Code::Closing, "session", "the session has ended")
}

pub(super) fn no_such_topic(path: &Path) -> Refusal {
    Refusal::new(Code::NoSuchTopic, path.as_str(), "there is no topic").hint("make it with: mangrove topic add")
}

pub(super) fn parse_path(text: &str) -> Result<Path, Refusal> {
    Path::parse(text).map_err(|error| Refusal::new(Code::InvalidPath, text, error.to_string()))
}

/// A path that clients may have a topic at.
pub(super) fn parse_topic_path(text: &str) -> Result<Path, Refusal> {
    let path = parse_path(text)?;
    if path.is_reserved() {
        return Err(Refusal::new(Code::NotPermitted, text, "segments that begin with $ are kept for the mesh itself"));
    }
    Ok(path)
}

fn parse_selector(text: &str) -> Result<Selector, Refusal> {
    Selector::parse(text).map_err(|error| Refusal::new(Code::InvalidSelector, text, error.to_string()))
}

pub(super) fn parse_definition(spec: &TopicSpec) -> Result<Definition, Refusal> {
    spec.definition().map_err(|error| Refusal::new(Code::InvalidDefinition, &spec.topic_type, error.to_string()))
}

fn check_name(name: &str) -> Result<(), Refusal> {
    let fits = !name.is_empty() && name.len() <= 64 && !name.chars().any(|c| c.is_control() || c.is_whitespace());
    if fits { Ok(()) } else { Err(Refusal::new(Code::InvalidRequest, name, "a name has 1 to 64 bytes and no spaces")) }
}

fn policy_refusal(root: &str, error: &PolicyError) -> Refusal {
    let code = match error {
        PolicyError::RootTaken { .. } | PolicyError::IdTaken(_) => Code::SectionExists,
        PolicyError::UnknownSection(_) => Code::UnknownSection,
        PolicyError::TooManySections => Code::TooMany,
        PolicyError::ReservedRoot(_) => Code::NotPermitted,
        _ => Code::InvalidRequest,
    };
    Refusal::new(code, root, error.to_string())
}

/// A quorum section's lease.
fn lease_ms(root: &str, text: &str) -> Result<u64, Refusal> {
    let sound = parse_duration_ms(text).filter(|ms| (LEASE_MS_MIN..=LEASE_MS_MAX).contains(ms));
    sound.ok_or_else(|| Refusal::new(Code::InvalidRequest, format!("{root}: lease={text}"), "a lease is a time from 500ms to 10m"))
}

/// The shortest lease of a quorum section: its voters must have answered within a third of it.
const LEASE_MS_MIN: u64 = 500;
const LEASE_MS_MAX: u64 = 10 * 60 * 1000;
