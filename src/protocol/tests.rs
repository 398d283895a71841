//! Tests of the client protocol.

use proptest::collection::{btree_map, vec};
use proptest::option;
use proptest::prelude::*;

use mangrove_crdt::{
    id::{Incarnation, Origin, Plane, SectionId},
    series::EventName,
    standing::Via,
};

use super::*;

fn text() -> impl Strategy<Value = String> {
    ".{0,24}"
}

fn bytes() -> impl Strategy<Value = Vec<u8>> {
    vec(any::<u8>(), 0..80)
}

fn texts() -> impl Strategy<Value = Vec<String>> {
    vec(text(), 0..4)
}

fn properties() -> impl Strategy<Value = BTreeMap<String, String>> {
    btree_map(text(), text(), 0..4)
}

fn spec() -> impl Strategy<Value = TopicSpec> {
    (text(), properties()).prop_map(|(topic_type, properties)| TopicSpec { topic_type, properties })
}

fn page() -> impl Strategy<Value = Page> {
    (option::of(text()), any::<u32>()).prop_map(|(after, limit)| Page { after, limit })
}

fn target() -> impl Strategy<Value = Target> {
    prop_oneof![
        text().prop_map(Target::Path),
        (any::<u32>(), text()).prop_map(|(alias, path)| Target::Named { alias, path }),
        any::<u32>().prop_map(Target::Alias),
    ]
}

fn durability() -> impl Strategy<Value = Option<Durability>> {
    (0..=66_u64).prop_map(Durability::from_disks)
}

fn refusal() -> impl Strategy<Value = Refusal> {
    (0..=Code::ALL.len(), text(), text(), text(), texts()).prop_map(|(code, what, why, hint, who)| Refusal {
        code: Code::ALL.get(code).copied().unwrap_or(Code::Other),
        what,
        why,
        hint,
        who,
    })
}

fn item_refusals() -> impl Strategy<Value = Vec<ItemRefusal>> {
    vec((any::<u32>(), refusal()).prop_map(|(item, refusal)| ItemRefusal { item, refusal }), 0..3)
}

fn set_batch() -> impl Strategy<Value = SetBatch> {
    let items = vec((target(), bytes()).prop_map(|(target, value)| SetItem::new(target, value)), 0..5);
    let under = option::of((any::<u32>(), any::<u64>()).prop_map(|(source, epoch)| Authority { source, epoch }));
    (items, option::of(spec()), durability(), under).prop_map(|(items, add, durability, under)| SetBatch { items, add, durability, under })
}

fn change() -> impl Strategy<Value = Change> {
    let under = option::of((any::<u32>(), any::<u64>()).prop_map(|(source, epoch)| Authority { source, epoch }));
    let wish = prop_oneof![
        bytes().prop_map(Wish::Value),
        text().prop_map(Wish::Patch),
        bytes().prop_map(Wish::Delta),
        (text(), bytes()).prop_map(|(event, value)| Wish::Edit { event, value }),
        (option::of(any::<u64>()), option::of(any::<u64>()), texts()).prop_map(|(from, take, lines)| Wish::Lines(Splice {
            from,
            take,
            lines
        }))
    ];
    (text(), wish, option::of(text()), option::of(spec()), durability(), under)
        .prop_map(|(path, wish, constraint, add, durability, under)| Change { path, wish, constraint, add, durability, under })
}

fn request() -> impl Strategy<Value = Request> {
    let about_topics = prop_oneof![
        (spec(), texts()).prop_map(|(topic, paths)| Request::TopicsAdd { topic, paths }),
        (text(), any::<bool>()).prop_map(|(selector, force)| Request::TopicsRemove { selector, force }),
        (text(), page(), any::<bool>()).prop_map(|(selector, page, pending)| Request::Topics { selector, page, pending }),
        text().prop_map(|path| Request::TopicShow { path }),
        text().prop_map(|path| Request::TopicPast { path }),
        set_batch().prop_map(Request::Set),
        change().prop_map(|change| Request::Change(Box::new(change))),
        (recipient(), text(), bytes()).prop_map(|(to, path, content)| Request::Send(Box::new(Send { to, path, content }))),
        (text(), page()).prop_map(|(selector, page)| Request::Values { selector, page }),
        (text(), events_wanted(), page()).prop_map(|(path, wanted, page)| Request::Events { path, wanted, page }),
        (text(), any::<u64>(), any::<u32>()).prop_map(|(path, from, count)| Request::Lines { path, from, count }),
        (text(), any::<u32>(), any::<bool>(), option::of(heard())).prop_map(|(selector, credit, stamps, heard)| Request::Subscribe {
            selector,
            credit,
            stamps,
            heard: heard.map(Box::new)
        }),
        any::<u32>().prop_map(|subscription| Request::Unsubscribe { subscription }),
        (text(), page()).prop_map(|(selector, page)| Request::Displaced { selector, page }),
        text().prop_map(|id| Request::DisplacedShow { id }),
        text().prop_map(|id| Request::DisplacedRestore { id }),
        (any::<[u8; 32]>(), any::<u64>(), any::<u64>(), bytes()).prop_map(|(hash, offset, total, bytes)| Request::BlobPut {
            hash: BlobHash(hash),
            offset,
            total,
            bytes
        }),
        (any::<[u8; 32]>(), any::<u64>()).prop_map(|(hash, offset)| Request::BlobGet { hash: BlobHash(hash), offset }),
    ];
    let about_sections = prop_oneof![
        (text(), properties()).prop_map(|(root, properties)| Request::SectionAdd { root, properties }),
        Just(Request::Sections),
        text().prop_map(|root| Request::SectionShow { root }),
        (text(), properties()).prop_map(|(root, properties)| Request::SectionSet { root, properties }),
        text().prop_map(|root| Request::SectionRemove { root }),
        text().prop_map(|root| Request::SectionHold { root }),
        (text(), any::<bool>()).prop_map(|(root, force)| Request::SectionDrop { root, force }),
    ];
    let about_the_mesh = prop_oneof![
        Just(Request::Status),
        Just(Request::Nodes),
        text().prop_map(|node| Request::NodeRevoke { node }),
        text().prop_map(|name| Request::NodeRename { name }),
        any::<bool>().prop_map(|force| Request::NodeLeave { force }),
        Just(Request::Links),
        (text(), any::<bool>()).prop_map(|(node, blocked)| Request::LinkBlock { node, blocked }),
        (text(), any::<u64>()).prop_map(|(role, ttl_ms)| Request::Invite { role, ttl_ms }),
        Just(Request::Renew),
        Just(Request::Config),
        Just(Request::Doctor),
        Just(Request::Shutdown),
    ];
    prop_oneof![about_topics, about_sections, about_the_mesh]
}

fn status() -> impl Strategy<Value = Status> {
    (any::<[u8; 32]>(), any::<[u64; 11]>(), any::<[u32; 6]>(), text(), texts(), texts()).prop_map(
        |(id, long, short, name, listens, warnings)| Status {
            node: NodeId(id),
            mesh: MeshId(id),
            role: name.clone(),
            version: name.clone(),
            digest: name.clone(),
            name,
            uptime_ms: long[0],
            boot: short[0],
            listens,
            nodes: short[1],
            reachable: short[2],
            links: short[3],
            sessions: short[4],
            sections: short[5],
            topics: long[1],
            value_bytes: long[2],
            unspread_changes: long[3],
            unspread_bytes: long[4],
            displaced: long[5],
            disk_bytes: long[6],
            disk_bytes_max: long[7],
            memory_bytes: long[8],
            certificate_expires_unix_ms: long[9],
            updates: long[10],
            warnings,
        },
    )
}

fn node_row() -> impl Strategy<Value = NodeRow> {
    let states = [NodeState::This, NodeState::Linked, NodeState::Reachable, NodeState::Unreachable, NodeState::Left, NodeState::Revoked];
    (any::<[u8; 32]>(), text(), prop::sample::select(states.to_vec()), option::of(any::<u64>()), texts(), texts()).prop_map(
        |(id, name, state, heard_ms_ago, addresses, sections)| NodeRow {
            node: NodeId(id),
            role: name.clone(),
            version: name.clone(),
            name,
            state,
            heard_ms_ago,
            addresses,
            sections,
        },
    )
}

fn link_row() -> impl Strategy<Value = LinkRow> {
    let states = [LinkState::Up, LinkState::Connecting, LinkState::Down, LinkState::Blocked];
    let optional = [(); 4].map(|()| option::of(any::<u64>()));
    (any::<[u8; 32]>(), text(), prop::sample::select(states.to_vec()), optional, any::<[u64; 7]>(), texts(), option::of(text())).prop_map(
        |(id, name, state, [rtt_us, lag_changes, lag_ms, equal_ms_ago], count, sections, error)| LinkRow {
            node: NodeId(id),
            address: name.clone(),
            name,
            state,
            rtt_us,
            sent_bytes: count[0],
            received_bytes: count[1],
            sent_records: count[2],
            received_records: count[3],
            runs: count[4],
            lag_changes,
            lag_ms,
            equal_ms_ago,
            mismatches: count[5],
            sections,
            error,
            requests: count[6],
            deltas: count[5],
            saved_bytes: count[4],
            compressed: count[3],
            compressed_saved_bytes: count[2],
        },
    )
}

fn section_row() -> impl Strategy<Value = SectionRow> {
    (text(), text(), properties(), any::<bool>(), texts(), any::<[u64; 2]>(), option::of(text())).prop_map(
        |(root, id, properties, held, holders, [topics, value_bytes], digest)| SectionRow {
            voting: holders.iter().map(|node: &String| VoterRow { node: node.clone(), heard: held, holds: held.then_some(held) }).collect(),
            root,
            id,
            properties,
            held,
            holders,
            topics,
            value_bytes,
            digest,
        },
    )
}

fn topic_detail() -> impl Strategy<Value = TopicDetail> {
    let about = (any::<u32>(), any::<bool>(), option::of(list_state()));
    (text(), spec(), text(), [(); 3].map(|()| option::of(text())), [(); 2].map(|()| option::of(any::<u64>())), about).prop_map(
        |(path, topic, id, [section, stamp, writer], [value_bytes, unix_ms], (conflicts, pending, list))| TopicDetail {
            path,
            topic,
            id,
            section,
            value_bytes,
            origin: stamp.clone(),
            remark: stamp.clone(),
            list,
            stamp,
            unix_ms,
            epoch: unix_ms,
            writer,
            conflicts,
            pending,
            events: value_bytes,
            blobs: vec![BlobRow { hash: BlobHash([pending.into(); 32]), bytes: value_bytes }; usize::from(pending)],
        },
    )
}

fn event_mark() -> impl Strategy<Value = EventMark> {
    let edited = option::of((text(), any::<u64>()).prop_map(|(author, unix_ms)| Edited { author, unix_ms }));
    (any::<u64>(), option::of(any::<u32>()), text(), any::<u64>(), edited).prop_map(|(sequence, word, author, unix_ms, edited)| EventMark {
        event: EventName { sequence, word },
        author,
        unix_ms,
        edited,
    })
}

fn event_row() -> impl Strategy<Value = EventRow> {
    (event_mark(), bytes()).prop_map(|(mark, value)| EventRow { mark, value })
}

fn list_state() -> impl Strategy<Value = ListState> {
    any::<[u64; 3]>().prop_map(|[lines, bytes, revision]| ListState { lines, bytes, revision })
}

fn events_wanted() -> impl Strategy<Value = EventsWanted> {
    [(); 5].map(|()| option::of(any::<u64>())).prop_map(|[from, to, since_unix_ms, until_unix_ms, last]| EventsWanted {
        from,
        to,
        since_unix_ms,
        until_unix_ms,
        last,
    })
}

fn past_row() -> impl Strategy<Value = PastRow> {
    let did = prop::sample::select(vec![Deed::Made, Deed::Removed]);
    (did, option::of(spec()), text(), option::of(any::<u64>()), any::<bool>()).prop_map(|(did, topic, node, unix_ms, concurrent)| PastRow {
        did,
        topic,
        origin: node.clone(),
        node,
        unix_ms,
        concurrent,
    })
}

fn value_row() -> impl Strategy<Value = ValueRow> {
    (text(), text(), option::of(bytes()), option::of(any::<u64>()), option::of(text()), option::of(event_mark()), option::of(spec()))
        .prop_map(|(path, topic_type, value, unix_ms, stamp, event, spec)| ValueRow {
            path,
            topic_type,
            value,
            unix_ms,
            stamp,
            event,
            spec,
        })
}

fn displaced_row() -> impl Strategy<Value = DisplacedRow> {
    let texts = ([(); 8].map(|()| text()), option::of(text()));
    let numbers = (any::<[u64; 3]>(), option::of(any::<u64>()));
    (texts, numbers, option::of(spec())).prop_map(|((texts, too_long), ([value_bytes, unix_ms, epoch], winner_epoch), spec)| {
        let [id, path, topic_type, by, stamp, writer, winner, winner_writer] = texts;
        DisplacedRow {
            id,
            path,
            topic_type,
            by,
            value_bytes,
            stamp,
            unix_ms,
            writer,
            winner,
            epoch,
            winner_writer,
            winner_epoch,
            too_long,
            spec,
        }
    })
}

fn finding() -> impl Strategy<Value = Finding> {
    (prop::sample::select(vec![Severity::Ok, Severity::Warning, Severity::Error]), text(), text(), text())
        .prop_map(|(severity, check, found, hint)| Finding { severity, check, found, hint })
}

fn response() -> impl Strategy<Value = Response> {
    let small = prop_oneof![
        refusal().prop_map(Response::Refused),
        Just(Response::Done),
        (any::<u64>(), any::<u64>(), item_refusals()).prop_map(|(created, existed, refused)| Response::Added { created, existed, refused }),
        any::<u64>().prop_map(|topics| Response::Removed { topics }),
        (any::<u64>(), any::<u64>(), item_refusals()).prop_map(|(written, created, refused)| Response::Written {
            written,
            created,
            refused
        }),
        (any::<[bool; 2]>(), option::of(text()), option::of(list_state())).prop_map(|([created, exact], event, list)| Response::Changed {
            created,
            exact,
            event,
            list
        }),
        any::<u64>().prop_map(|sessions| Response::Sent { sessions }),
        any::<u64>().prop_map(|upto| Response::BlobPut { upto }),
        (any::<u64>(), bytes()).prop_map(|(total, bytes)| Response::Blob { total, bytes }),
        any::<u32>().prop_map(|subscription| Response::Subscribed { subscription }),
        (text(), any::<u64>()).prop_map(|(ticket, expires_unix_ms)| Response::Ticket { ticket, expires_unix_ms }),
        any::<u64>().prop_map(|expires_unix_ms| Response::Renewed { expires_unix_ms }),
        text().prop_map(Response::Text),
    ];
    let rows = prop_oneof![
        status().prop_map(|status| Response::Status(Box::new(status))),
        vec(node_row(), 0..3).prop_map(Response::Nodes),
        vec(link_row(), 0..3).prop_map(Response::Links),
        section_row().prop_map(|row| Response::Section(Box::new(row))),
        vec(section_row(), 0..3).prop_map(Response::Sections),
        (vec((text(), spec(), option::of(text())), 0..3), option::of(text()))
            .prop_map(|(rows, next)| {
                let row = |(path, topic, remark): (String, _, _)| TopicRow { waits: path.is_empty(), path, topic, remark };
                (rows.into_iter().map(row).collect(), next)
            })
            .prop_map(|(rows, next)| Response::Topics { rows, next }),
        topic_detail().prop_map(|detail| Response::Topic(Box::new(detail))),
        (vec(past_row(), 0..3), any::<bool>()).prop_map(|(rows, cut)| Response::TopicPast { rows, cut }),
        (vec(value_row(), 0..3), option::of(text())).prop_map(|(rows, next)| Response::Values { rows, next }),
        (vec(event_row(), 0..3), option::of(text())).prop_map(|(rows, next)| Response::Events { rows, next }),
        (texts(), list_state()).prop_map(|(lines, list)| Response::Lines { lines, list }),
        (vec(displaced_row(), 0..3), option::of(text())).prop_map(|(rows, next)| Response::Displaced { rows, next }),
        (displaced_row(), bytes()).prop_map(|(row, value)| Response::DisplacedValue { row: Box::new(row), value }),
        vec(finding(), 0..3).prop_map(Response::Findings),
    ];
    prop_oneof![small, rows, access_response()]
}

fn update() -> impl Strategy<Value = Update> {
    let event = prop_oneof![
        spec().prop_map(|topic| Event::Added { topic }),
        (bytes(), option::of(any::<u64>()), option::of(text()), option::of(event_mark())).prop_map(|(value, unix_ms, stamp, event)| {
            Event::Value {
                value: value.into(),
                unix_ms,
                stamp,
                form: None,
                allowed: Allowed::ALL,
                missed: None,
                event: event.map(Box::new),
            }
        }),
        message().prop_map(|message| Event::Message(Box::new(message))),
        prop::sample::select(vec![Gone::Removed, Gone::Dropped, Gone::NotPermitted]).prop_map(|reason| Event::Removed { reason }),
    ];
    let mark = option::of(mark());
    (any::<u32>(), target(), event, mark).prop_map(|(subscription, topic, event, mark)| Update { subscription, topic, event, mark })
}

fn mark() -> impl Strategy<Value = Mark> {
    (any::<u32>(), any::<u64>()).prop_map(|(feed, number)| Mark { feed, number })
}

fn feed() -> impl Strategy<Value = Feed> {
    let plane = prop::sample::select(Plane::ALL.to_vec());
    (any::<u64>(), plane, any::<[u8; 32]>(), any::<u32>(), any::<u64>()).prop_map(|(section, plane, node, boot, nonce)| Feed {
        section: SectionId(section),
        plane,
        origin: Origin { node: NodeId(node), incarnation: Incarnation { boot, nonce } },
    })
}

fn place() -> impl Strategy<Value = Place> {
    (feed(), any::<u64>()).prop_map(|(feed, number)| Place { feed, number })
}

fn heard() -> impl Strategy<Value = Heard> {
    let through =
        (vec(place(), 0..3), vec(any::<u64>(), 0..3), any::<u64>()).prop_map(|(places, sums, rights)| Through { places, sums, rights });
    (vec(place(), 0..3), option::of(through)).prop_map(|(seen, through)| Heard { seen, through })
}

fn via() -> impl Strategy<Value = Via> {
    (text(), option::of(any::<std::net::IpAddr>())).prop_map(|(transport, address)| Via { transport, address })
}

fn session_row() -> impl Strategy<Value = SessionRow> {
    let state = prop::sample::select(vec![
        SessionState::Connected,
        SessionState::Disconnected,
        SessionState::OutOfReach,
        SessionState::PresumedClosed,
    ]);
    let identity = (text(), texts(), option::of(any::<u64>()), via());
    (any::<[u8; 16]>(), any::<[u8; 32]>(), state, any::<u32>(), any::<[u64; 3]>(), (text(), text()), properties(), identity).prop_map(
        |(
            session,
            home,
            state,
            epoch,
            [claims, reconnect_timeout_ms, opened_unix_ms],
            (node, client),
            properties,
            (principal, roles, expires_unix_ms, Via { transport, address }),
        )| SessionRow {
            principal,
            roles,
            expires_unix_ms,
            transport,
            address,
            session: SessionId(session),
            node,
            state,
            epoch,
            claims,
            reconnect_timeout_ms,
            opened_unix_ms,
            client,
            home: NodeId(home),
            properties,
        },
    )
}

fn session_news() -> impl Strategy<Value = SessionNews> {
    let reason = prop::sample::select(vec![Ended::ByClient, Ended::ByController, Ended::ConnectionLost, Ended::NodeGone, Ended::Unknown]);
    prop_oneof![
        session_row().prop_map(|row| SessionNews::Is(Box::new(row))),
        (any::<[u8; 16]>(), reason).prop_map(|(session, reason)| SessionNews::Ended { session: SessionId(session), reason }),
    ]
}

fn session_request() -> impl Strategy<Value = Request> {
    prop_oneof![
        (option::of(any::<u64>()), properties())
            .prop_map(|(reconnect_timeout_ms, properties)| Request::SessionOpen { reconnect_timeout_ms, properties }),
        (any::<[u8; 16]>(), bytes(), any::<u32>()).prop_map(|(id, secret, epoch)| Request::SessionResume {
            id: SessionId(id),
            secret: Secret::new(secret),
            epoch
        }),
        (page(), text()).prop_map(|(page, filter)| Request::Sessions { page, filter }),
        text().prop_map(|filter| Request::SessionsListen { filter }),
        any::<u32>().prop_map(|listener| Request::SessionsUnlisten { listener }),
        (text(), btree_map(text(), option::of(text()), 0..3)).prop_map(|(session, properties)| Request::SessionSet { session, properties }),
    ]
}

fn login() -> impl Strategy<Value = Login> {
    prop_oneof![
        Just(Login::Anonymous),
        (text(), bytes()).prop_map(|(principal, password)| Login::Password { principal, password: Secret::new(password) }),
        bytes().prop_map(|token| Login::Token(Secret::new(token))),
    ]
}

fn verdict() -> impl Strategy<Value = Verdict> {
    prop_oneof![
        Just(Verdict::Deny),
        Just(Verdict::Abstain),
        (option::of(text()), option::of(texts()), properties(), option::of(any::<u64>()))
            .prop_map(|(principal, roles, properties, expires_ms)| Verdict::Allow { principal, roles, properties, expires_ms }),
    ]
}

fn access_request() -> impl Strategy<Value = Request> {
    prop_oneof![
        (text(), option::of(texts())).prop_map(|(session, roles)| Request::SessionRoles { session, roles }),
        (text(), text(), any::<bool>()).prop_map(|(session, selector, selected)| Request::SessionSelect { session, selector, selected }),
        prop::sample::select(vec![Request::Addresses, Request::Roles]),
        (text(), page()).prop_map(|(about, page)| Request::Access { about, page }),
        (text(), any::<bool>()).prop_map(|(script, dry_run)| Request::AccessScript { script, dry_run }),
        (text(), text()).prop_map(|(who, path)| Request::AccessWhy { who, path }),
        page().prop_map(|page| Request::Principals { page }),
        (any::<u64>(), any::<u64>(), session_request()).prop_map(|(number, floor, request)| Request::Once {
            number,
            floor,
            request: Box::new(request)
        }),
        login().prop_map(Request::Reauthenticate),
        text().prop_map(|name| Request::HandlerRegister { name }),
        text().prop_map(|name| Request::HandlerUnregister { name }),
        text().prop_map(|prefix| Request::MissingRegister { prefix }),
        text().prop_map(|prefix| Request::MissingUnregister { prefix }),
        (any::<u64>(), verdict()).prop_map(|(question, verdict)| Request::Judged { question, verdict }),
    ]
}

fn access_response() -> impl Strategy<Value = Response> {
    let conflicts = vec(texts().prop_map(|statements| ConflictRow { statements }), 0..3);
    let changes = vec((texts(), text()).prop_map(|(before, after)| ChangeRow { before, after }), 0..3);
    let principal = (text(), texts(), any::<[bool; 2]>()).prop_map(|(principal, roles, [password, conflict])| PrincipalRow {
        principal,
        roles,
        password,
        conflict,
    });
    let role = (text(), [(); 3].map(|()| texts()), any::<u64>()).prop_map(|(role, [includes, global, default], places)| RoleRow {
        role,
        includes,
        global,
        default,
        places,
    });
    let why = ([(); 2].map(|()| text()), [(); 4].map(|()| texts()))
        .prop_map(|([who, path], [roles, permissions, global, because])| WhyReport { who, path, roles, permissions, global, because });
    prop_oneof![
        texts().prop_map(Response::Addresses),
        any::<u64>().prop_map(|sessions| Response::Affected { sessions }),
        (texts(), option::of(text()), conflicts).prop_map(|(statements, next, conflicts)| Response::Access { statements, next, conflicts }),
        changes.prop_map(Response::AccessChanged),
        why.prop_map(|why| Response::AccessWhy(Box::new(why))),
        (vec(principal, 0..3), option::of(text())).prop_map(|(rows, next)| Response::Principals { rows, next }),
        vec(role, 0..3).prop_map(Response::Roles),
    ]
}

fn from_client() -> impl Strategy<Value = FromClient> {
    prop_oneof![
        (any::<[u32; 2]>(), bytes(), text(), option::of((any::<[u8; 16]>(), bytes())), option::of(login()), properties()).prop_map(
            |([version, aliases_max], token, client, session, login, properties)| FromClient::Hello(Hello {
                version,
                token: Secret::new(token),
                client,
                aliases_max,
                bases_bytes: 0,
                compressed: true,
                session: session.map(|(id, secret)| SessionProof { id: SessionId(id), secret: Secret::new(secret) }),
                login,
                properties,
            })
        ),
        (any::<u64>(), prop_oneof![4 => request().boxed(), 1 => session_request().boxed(), 1 => access_request().boxed()])
            .prop_map(|(id, request)| FromClient::Request { id, request }),
        (any::<u32>(), any::<u32>()).prop_map(|(subscription, updates)| FromClient::Credit { subscription, updates }),
    ]
}

fn from_node() -> impl Strategy<Value = FromNode> {
    let welcome = (any::<[u32; 2]>(), any::<u64>(), any::<[u8; 32]>(), text(), text()).prop_map(
        |([version, aliases_max], session, id, name, program)| Welcome {
            version,
            session,
            node: NodeId(id),
            name,
            mesh: MeshId(id),
            program,
            aliases_max,
            bases_bytes: 0,
            compressed: true,
        },
    );
    prop_oneof![
        welcome.prop_map(FromNode::Welcome),
        refusal().prop_map(FromNode::Refused),
        (any::<u64>(), response()).prop_map(|(id, response)| FromNode::Response { id, response }),
        vec(update(), 0..5).prop_map(FromNode::Updates),
        vec(feed(), 0..3).prop_map(FromNode::Feeds),
        vec(mark(), 0..3).prop_map(FromNode::Seen),
        any::<u32>().prop_map(|subscription| FromNode::Rewound { subscription }),
        (any::<u32>(), vec(mark(), 0..3), any::<u64>()).prop_map(|(subscription, marks, rights)| FromNode::Position {
            subscription,
            marks,
            rights
        }),
        (any::<[u32; 2]>(), texts()).prop_map(|([subscription, slot], paths)| FromNode::Present { subscription, slot, paths }),
        (any::<u32>(), vec(session_news(), 0..3), any::<bool>()).prop_map(|(listener, news, synced)| FromNode::Sessions {
            listener,
            news,
            synced
        }),
        (any::<u32>(), refusal()).prop_map(|(listener, refusal)| FromNode::Unlistened { listener, refusal }),
        ([(); 4].map(|()| text()), option::of(any::<[u8; 16]>())).prop_map(|([selector, prefix, principal, node], session)| {
            FromNode::Missing(Box::new(MissingTopic { selector, prefix, principal, session: session.map(SessionId), node }))
        }),
        (text(), any::<bool>(), any::<u64>()).prop_map(|(selector, selected, wish)| FromNode::Select { selector, selected, wish }),
        (any::<u64>(), [(); 2].map(|()| text()), login(), properties(), via()).prop_map(
            |(number, [handler, client], login, properties, via)| {
                FromNode::Judge { number, question: Box::new(Question { handler, login, client, properties, via }) }
            }
        ),
        any::<u32>().prop_map(|subscription| FromNode::Synced { subscription }),
        (any::<u32>(), refusal()).prop_map(|(subscription, refusal)| FromNode::Unsubscribed { subscription, refusal }),
        refusal().prop_map(FromNode::Closing),
    ]
}

/// The bytes behind a frame's header, after checking the header.
fn body(frame: &[u8]) -> &[u8] {
    let (header, body) = frame.split_first_chunk::<4>().expect("a frame has a header");
    assert_eq!(frame_length(*header, FRAME_MAX), Ok(body.len()));
    body
}

proptest! {
    #[test]
    fn client_messages_survive_the_wire(message in from_client()) {
        prop_assert_eq!(decode_from_client(body(&frame(&message).unwrap())), Ok(message));
    }

    #[test]
    fn node_messages_survive_the_wire(message in from_node()) {
        prop_assert_eq!(decode_from_node(body(&frame(&message).unwrap())), Ok(message));
    }

    #[test]
    fn cut_messages_are_errors(message in from_client(), at in any::<prop::sample::Index>()) {
        let frame = frame(&message).unwrap();
        let body = body(&frame);
        prop_assert!(decode_from_client(&body[..at.index(body.len())]).is_err());
    }

    #[test]
    fn damaged_messages_never_panic(message in from_client(), at in any::<prop::sample::Index>(), byte in any::<u8>()) {
        let frame = frame(&message).unwrap();
        let mut body = body(&frame).to_vec();
        let at = at.index(body.len());
        body[at] = byte;
        let _ = decode_from_client(&body);
        let _ = decode_from_node(&body);
    }

    #[test]
    fn noise_never_panics(noise in vec(any::<u8>(), 0..400)) {
        let _ = decode_from_client(&noise);
        let _ = decode_from_node(&noise);
    }
}

#[test]
fn an_unknown_request_keeps_its_id() {
    let mut bytes = Vec::new();
    let mut encoder = minicbor::Encoder::new(&mut bytes);
    encoder.array(2).unwrap().u32(1).unwrap().array(2).unwrap().u64(77).unwrap();
    encoder.array(2).unwrap().u32(9_999).unwrap().array(1).unwrap().str("later").unwrap();
    let error = decode_from_client(&bytes).unwrap_err();
    assert_eq!(error.request, Some(77));
    assert_eq!(decode_from_client(&[0xff]).unwrap_err().request, None);
}

#[test]
fn fields_of_a_later_version_are_skipped() {
    // [1, [5, [21, [3, "a later field"]]]]: an Unsubscribe of subscription 3 with one field more than this version knows.
    let mut bytes = Vec::new();
    let mut encoder = minicbor::Encoder::new(&mut bytes);
    encoder.array(2).unwrap().u32(1).unwrap().array(2).unwrap().u64(5).unwrap();
    encoder.array(2).unwrap().u32(21).unwrap().array(2).unwrap().u32(3).unwrap().str("a later field").unwrap();
    assert_eq!(decode_from_client(&bytes), Ok(FromClient::Request { id: 5, request: Request::Unsubscribe { subscription: 3 } }));
}

#[test]
fn a_code_of_a_later_version_is_other() {
    assert_eq!(minicbor::decode::<Code>(&minicbor::to_vec(40_000_u16).unwrap()).unwrap(), Code::Other);
    for code in Code::ALL {
        assert_eq!(minicbor::decode::<Code>(&minicbor::to_vec(code).unwrap()).unwrap(), *code);
    }
}

#[test]
fn lists_are_limited_before_they_take_memory() {
    let with_paths = |count: usize| {
        let mut bytes = Vec::new();
        let mut encoder = minicbor::Encoder::new(&mut bytes);
        encoder.array(2).unwrap().u32(1).unwrap().array(2).unwrap().u64(1).unwrap().array(2).unwrap().u32(14).unwrap();
        encoder.array(2).unwrap().encode(TopicSpec::of("json")).unwrap().array(count as u64).unwrap();
        bytes.extend(std::iter::repeat_n(0x60, count));
        decode_from_client(&bytes)
    };
    assert!(with_paths(ITEMS_MAX).is_ok());
    let error = with_paths(ITEMS_MAX + 1).unwrap_err();
    assert!(error.what.contains("limit"), "{error}");
    assert_eq!(error.request, Some(1));
}

#[test]
fn frames_over_the_limit_are_refused_at_both_ends() {
    let item = SetItem::new(Target::Alias(0), vec![0; FRAME_MAX]);
    let batch = SetBatch { items: vec![item], add: None, durability: None, under: None };
    let message = FromClient::Request { id: 1, request: Request::Set(batch) };
    let mut buffer = vec![1, 2, 3];
    assert_eq!(put_frame(&message, &mut buffer).unwrap_err().limit, FRAME_MAX);
    assert_eq!(buffer, [1, 2, 3]);
    assert_eq!(frame_length([0, 0, 0, 2], FRAME_MAX), Err(Oversized { length: 32 << 20, limit: FRAME_MAX }));
    assert_eq!(frame_length([1, 16, 0, 0], HELLO_MAX), Err(Oversized { length: 4097, limit: HELLO_MAX }));
}

#[test]
fn a_value_of_the_greatest_length_fits_with_the_longest_path() {
    let item = SetItem::new(Target::Named { alias: u32::MAX, path: "p".repeat(1024) }, vec![0; VALUE_MAX]);
    let batch = SetBatch { items: vec![item], add: Some(TopicSpec::of("binary")), durability: Some(Durability::Mesh(3)), under: None };
    assert!(frame(&FromClient::Request { id: u64::MAX, request: Request::Set(batch) }).is_ok());
}

#[test]
fn an_update_by_number_costs_few_bytes_beyond_its_value() {
    let update = |alias| Update {
        subscription: 1,
        topic: Target::Alias(alias),
        event: Event::Value {
            value: [7; 64].into(),
            unix_ms: None,
            stamp: None,
            form: None,
            allowed: Allowed::ALL,
            missed: None,
            event: None,
        },
        mark: None,
    };
    let length = frame(&FromNode::Updates((60_000..60_100).map(update).collect())).unwrap().len();
    assert!(length <= 100 * (64 + 12 + 2) + 16, "{length}");
}

#[test]
fn aliases_are_given_in_turn() {
    let mut aliases = Aliases::new(2);
    assert_eq!(aliases.get(0), Err(AliasError::Unknown(0)));
    assert_eq!(aliases.bind(1, "b"), Err(AliasError::OutOfTurn(1, 0, 2)));
    assert_eq!(aliases.bind(0, "a"), Ok(&"a"));
    assert_eq!(aliases.bind(1, "b"), Ok(&"b"));
    assert_eq!(aliases.bind(2, "c"), Err(AliasError::OutOfTurn(2, 2, 2)));
    assert_eq!(aliases.bind(0, "A"), Ok(&"A"));
    assert_eq!((aliases.get(0), aliases.get(1)), (Ok(&"A"), Ok(&"b")));
}

#[test]
fn what_proves_something_is_never_shown() {
    let secret = || Secret::new(b"secret-token".to_vec());
    let hello = Hello {
        version: 1,
        token: secret(),
        client: "test".into(),
        aliases_max: 0,
        bases_bytes: 0,
        compressed: false,
        session: Some(SessionProof { id: SessionId::default(), secret: secret() }),
        login: Some(Login::Password { principal: "ann".into(), password: secret() }),
        properties: BTreeMap::new(),
    };
    let resume = Request::SessionResume { id: SessionId::default(), secret: secret(), epoch: 0 };
    let shown = format!("{hello:?} {resume:?} {:?}", Login::Token(secret()));
    assert!(shown.contains("test") && !shown.contains("115, 101") && !shown.contains("secret-token"), "{shown}");
}

fn recipient() -> impl Strategy<Value = Recipient> {
    prop_oneof![Just(Recipient::Subscribers), text().prop_map(Recipient::Session), text().prop_map(Recipient::AllBut)]
}

fn message() -> impl Strategy<Value = Message> {
    (text(), option::of(any::<[u8; 16]>()), text(), any::<[u64; 2]>(), bytes()).prop_map(
        |(author, session, node, [unix_ms, lost], content)| Message {
            author,
            session: session.map(SessionId),
            node,
            unix_ms,
            content,
            lost,
        },
    )
}
