//! What version 1 has said and stored stays readable.
//!
//! `tests/fixtures/wire-1/` holds what was written when the format was fixed: one frame of every kind, a whole conversation between two
//! nodes (the frames that one of them sent, by lane), and a data directory. Later versions must understand all of it. The files are written
//! anew, for a new version in a new directory (or as long as none was released), by `MANGROVE_FREEZE=1 cargo test --test wire`; those of a released version never change.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path as FilePath, PathBuf};
use std::time::Duration;

use mangrove::node::{ConnectionId, Hold, Input, Node, NodeConfig, Now};
use mangrove::protocol::{Request, SetBatch, SetItem, Target, TopicSpec};
use mangrove_crdt::blob::BlobHash;
use mangrove_crdt::id::{Incarnation, MeshId, NodeId, Origin, Plane, SectionId};
use mangrove_crdt::replica::Replica;
use mangrove_crdt::time::Instant;
use mangrove_net::link::LinkId;
use mangrove_net::mesh::Pace;
use mangrove_net::message::{self, Content, Control};

fn fixtures() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/wire-1")
}

fn freezing() -> bool {
    std::env::var_os("MANGROVE_FREEZE").is_some()
}

fn pack(frames: &[(u32, Vec<u8>)]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for (lane, frame) in frames {
        bytes.extend_from_slice(&lane.to_be_bytes());
        bytes.extend_from_slice(&(frame.len() as u32).to_be_bytes());
        bytes.extend_from_slice(frame);
    }
    bytes
}

fn unpack(mut bytes: &[u8]) -> Vec<(u32, Vec<u8>)> {
    let mut frames = Vec::new();
    while let Some((lane, rest)) = bytes.split_first_chunk::<4>() {
        let (length, rest) = rest.split_first_chunk::<4>().expect("a length");
        let (frame, rest) = rest.split_at(u32::from_be_bytes(*length) as usize);
        frames.push((u32::from_be_bytes(*lane), frame.to_vec()));
        bytes = rest;
    }
    frames
}

fn origin(name: &[u8]) -> Origin {
    Origin { node: NodeId::of_key(name), incarnation: Incarnation { boot: 1, nonce: 0x5eed } }
}

/// One frame of every kind of the sections' lanes.
fn contents() -> Vec<Content> {
    let packed = vec![1, 2, 3];
    let images = message::Images { covered: packed.clone(), images: packed.clone(), done: 4_096 };
    let of = |plane| Content::Lane(message::LaneOf { section: SectionId(9), plane, holding: 3, messages: false });
    vec![
        of(Some(Plane::Tree)),
        of(None),
        Content::Batch(message::Bare { packed: packed.clone() }),
        Content::AdoptBegin(message::AdoptBegin { frontiers: packed.clone(), floors: packed.clone(), clock: 6, request: 7 }),
        Content::AdoptBuckets(images.clone()),
        Content::AdoptEnd(message::AdoptEnd { tree: packed.clone() }),
        Content::Repair(message::Repair { images, reply: true }),
        Content::Piece(message::Piece { bytes: packed.clone() }),
        Content::Messages(message::Packed { packed: packed.clone() }),
        Content::Blob(message::BlobPiece { hash: BlobHash::of(b"blob"), offset: 2, total: Some(4), bytes: packed.clone() }),
    ]
}

/// One message of every kind on lane 0.
fn controls() -> Vec<Control> {
    let section = SectionId(0x1234_5678_9abc_def0);
    let of_section = message::OfSection { section };
    let packed = vec![1, 2, 3];
    vec![
        Control::Hello(message::Hello {
            version: 1,
            version_min: 1,
            origin: origin(b"a"),
            metered: true,
            bases_bytes: 0,
            compressed: false,
        }),
        Control::Holds(message::Holds {
            section,
            frontiers: packed.clone(),
            floors: packed.clone(),
            clock: 5,
            epoch: 6,
            holding: 7,
            retired: packed.clone(),
        }),
        Control::Unholds(message::OfHolding { section, holding: 7 }),
        Control::Report(message::Report { member: packed.clone(), version: 9, moved: packed.clone(), retired: packed.clone() }),
        Control::AdoptRequest(message::AdoptRequest { section, digests: packed.clone(), request: 11 }),
        Control::Check(message::Check { section, frontiers: 12, root: Some(13), group: 14 }),
        Control::Check(message::Check { section, frontiers: 12, root: None, group: 14 }),
        Control::Prune(message::OfFeed { section, plane: Plane::Values, origin: packed.clone() }),
        Control::Graft(message::Graft { section, plane: Plane::Standing, dot: packed.clone() }),
        Control::Pulses(message::Packed { packed: packed.clone() }),
        Control::Behind(of_section.clone()),
        Control::Checked(of_section),
        Control::Groups(message::Groups { section, digests: (0..64).collect() }),
        Control::Buckets(message::Buckets { section, group: 63, buckets: packed.clone() }),
        Control::RepairRequest(message::OfBucket { section, bucket: 4_095 }),
        Control::Unfold(message::OfHolding { section, holding: 8 }),
        Control::Relay(message::Relay { member: origin(b"a").node, wanted: false }),
        Control::TopicRequest(message::OfTopic { section, topic: packed.clone() }),
        Control::BlobRequest(message::BlobRequest { section, hash: BlobHash::of(b"blob"), offset: 2 }),
        Control::Letter(message::Letter { from: origin(b"a").node, to: origin(b"b").node, hops: 3, body: vec![1, 2, 3] }),
    ]
}

#[test]
fn every_control_message_of_version_1_is_understood() {
    let file = fixtures().join("controls.bin");
    if freezing() {
        fs::create_dir_all(fixtures()).expect("the fixtures' directory");
        let frames: Vec<(u32, Vec<u8>)> = controls().iter().map(|control| (0, control.encode())).collect();
        fs::write(&file, pack(&frames)).expect("the fixture");
    }
    let frozen = unpack(&fs::read(&file).expect("the fixture"));
    assert_eq!(frozen.len(), controls().len());
    for ((_, frame), control) in frozen.iter().zip(controls()) {
        assert_eq!(Control::decode(frame), Ok(Some(control)));
    }
}

#[test]
fn every_frame_of_a_section_of_version_1_is_understood() {
    let file = fixtures().join("contents.bin");
    if freezing() {
        fs::create_dir_all(fixtures()).expect("the fixtures' directory");
        let frames: Vec<(u32, Vec<u8>)> = contents().iter().map(|content| (1, content.encode())).collect();
        fs::write(&file, pack(&frames)).expect("the fixture");
    }
    let frozen = unpack(&fs::read(&file).expect("the fixture"));
    assert_eq!(frozen.len(), contents().len());
    for ((_, frame), content) in frozen.iter().zip(contents()) {
        assert_eq!(Content::decode(frame), Ok(Some(content)));
    }
}

#[test]
fn fields_and_kinds_of_later_versions_are_skipped() {
    let mut later = Vec::new();
    later.extend_from_slice(&[200, 1]); // a kind that there is not yet
    minicbor::encode((1, "whatever"), &mut later).expect("encoding to memory");
    assert_eq!(Control::decode(&later), Ok(None));
    assert_eq!(Content::decode(&later), Ok(None));

    // Version 1's `Checked`, with a field that version 1 does not have.
    let mut later = vec![11];
    let mut encoder = minicbor::Encoder::new(&mut later);
    encoder
        .map(2)
        .and_then(|e| e.u8(0))
        .and_then(|e| e.u64(7))
        .and_then(|e| e.u8(99))
        .and_then(|e| e.str("new"))
        .expect("encoding to memory");
    assert_eq!(Control::decode(&later), Ok(Some(Control::Checked(message::OfSection { section: SectionId(7) }))));
}

/// A node without a driver.
struct Bare {
    node: Node,
    at: Now,
}

impl Bare {
    fn new(name: &str) -> Self {
        let at = Now { at: Instant(1_000_000), unix_ms: 1_700_000_000_000 };
        let config = NodeConfig {
            mesh: MeshId([7; 32]),
            name: name.into(),
            addresses: Vec::new(),
            seeds: Vec::new(),
            authority: None,
            expires_s: 2_000_000_000,
            hold: Hold::All,
            pace: Pace::default(),
            retention: Duration::from_secs(3_600),
            drift_ppm: 500,
            lease: Duration::from_secs(5),
            settle: Duration::from_millis(300),
            hold_grants: Duration::from_secs(5),
            reconnect_timeout: Duration::from_secs(60),
            presume_dead: Duration::from_secs(7 * 86_400),
            authentication: Vec::new(),
            handler_timeout: Duration::from_secs(2),
            founding: None,
            neighbours_max: 8,
            links: BTreeMap::new(),
        };
        let mut bare = Bare { node: Node::new(at, config, Replica::new(origin(name.as_bytes()))), at };
        bare.input(Input::SessionOpened {
            session: ConnectionId(1),
            client: "test".into(),
            via: Default::default(),
            aliases_max: 0,
            entropy: [7; 32],
            comes_back: false,
        });
        bare
    }

    /// Everything is durable at once.
    fn input(&mut self, input: Input<'_>) {
        let outputs: Vec<_> = self.node.handle_input(self.at, input).collect();
        for output in outputs {
            if let mangrove::node::Output::Persist { mark, .. } = output {
                self.input(Input::Persisted { released: mark, synced: mark });
            }
        }
    }

    fn ask(&mut self, request: Request) {
        self.input(Input::Request { session: ConnectionId(1), id: 1, request });
    }

    fn set(&mut self, path: &str, value: i64) {
        let value = mangrove_crdt::value::from_json(&mangrove_crdt::definition::TopicType::Int64, &value.into()).expect("a value");
        let items = vec![SetItem::new(Target::Path(path.into()), value)];
        self.ask(Request::Set(SetBatch { items, add: Some(TopicSpec::of("int64")), durability: None, under: None }));
    }

    fn pass(&mut self, wait: Duration) {
        self.at = Now { at: self.at.at.after(wait), unix_ms: self.at.unix_ms + wait.as_millis() as u64 };
        self.input(Input::Timeout);
    }

    fn link(&mut self, peer: &str) {
        self.input(Input::LinkUp { link: LinkId(1), peer: NodeId::of_key(peer.as_bytes()), address: "test".into(), dialled: None });
    }

    /// What it shows, without what differs from node to node.
    fn shown(&self) -> Vec<String> {
        let replica = self.node.replica();
        let topics = replica.topics_from("").map(|(section, topic)| {
            let value = replica.value(section, &topic.path).and_then(|write| write.value.clone());
            format!("{} {} {:02x?}", topic.path, topic.definition.topic_type().name(), value.as_deref().unwrap_or_default())
        });
        topics.chain(replica.nodes().values().map(|record| format!("node {}", record.name))).collect()
    }
}

/// Lets two nodes talk until neither has anything to say, some rounds of timers included. Returns what the first has sent.
fn talk(a: &mut Bare, b: &mut Bare) -> Vec<(u32, Vec<u8>)> {
    let mut said = Vec::new();
    for _ in 0..40 {
        loop {
            let mut quiet = true;
            while let Some(frame) = a.node.poll_transmit(a.at, LinkId(1), &|_| false) {
                quiet = false;
                said.push((frame.lane, frame.bytes.to_vec()));
                b.input(Input::Frame { link: LinkId(1), lane: frame.lane, bytes: &frame.bytes });
            }
            while let Some(frame) = b.node.poll_transmit(b.at, LinkId(1), &|_| false) {
                quiet = false;
                a.input(Input::Frame { link: LinkId(1), lane: frame.lane, bytes: &frame.bytes });
            }
            if quiet {
                break;
            }
        }
        a.pass(Duration::from_millis(500));
        b.pass(Duration::from_millis(500));
    }
    said
}

/// A node with a history tells it to one that has none, and then goes on writing.
fn conversation() -> (Vec<(u32, Vec<u8>)>, Vec<String>) {
    let (mut a, mut b) = (Bare::new("a"), Bare::new("b"));
    a.ask(Request::SectionAdd { root: "plant".into(), properties: BTreeMap::new() });
    for number in 0..50 {
        a.set(&format!("plant/{number}"), number);
    }
    a.ask(Request::TopicsRemove { selector: "?plant/1.".into(), force: false });
    a.pass(Duration::from_secs(2));
    a.link("b");
    b.link("a");
    let mut said = talk(&mut a, &mut b);
    for number in 20..30 {
        a.set(&format!("plant/{number}"), -number);
        a.set(&format!("plant/new/{number}"), number);
    }
    a.ask(Request::TopicsRemove { selector: ">plant/31".into(), force: false });
    a.ask(Request::NodeRename { name: "a-renamed".into() });
    said.extend(talk(&mut a, &mut b));
    assert_eq!(a.shown(), b.shown(), "the two nodes are equal before anything is frozen");
    (said, b.shown())
}

#[test]
fn a_conversation_of_version_1_is_understood() {
    let (frames, shown) = (fixtures().join("conversation.bin"), fixtures().join("conversation.txt"));
    if freezing() {
        let (said, seen) = conversation();
        fs::create_dir_all(fixtures()).expect("the fixtures' directory");
        fs::write(&frames, pack(&said)).expect("the fixture");
        fs::write(&shown, seen.join("\n")).expect("the fixture");
    }
    let mut listener = Bare::new("b");
    listener.link("a");
    // The listener's own side of the conversation is not needed: what is asked of it, it answers to nobody.
    for (lane, frame) in unpack(&fs::read(&frames).expect("the fixture")) {
        listener.input(Input::Frame { link: LinkId(1), lane, bytes: &frame });
        while listener.node.poll_transmit(listener.at, LinkId(1), &|_| false).is_some() {}
    }
    let expected = fs::read_to_string(&shown).expect("the fixture");
    assert_eq!(listener.shown().join("\n"), expected);
}

#[test]
fn a_conversation_of_today_leaves_both_sides_equal() {
    let (said, shown) = conversation();
    assert!(said.len() > 10 && shown.len() > 40, "{} frames, {} topics", said.len(), shown.len());
}

#[test]
fn a_bucket_too_large_for_one_frame_comes_in_pieces() {
    let (mut a, mut b) = (Bare::new("a"), Bare::new("b"));
    a.ask(Request::SectionAdd { root: "plant".into(), properties: BTreeMap::new() });
    let bucket = |path: &String| mangrove_crdt::path::Path::parse(path).expect("a path").bucket();
    let paths = (0..).map(|number| format!("plant/{number}")).filter(|path| bucket(path) == 7).take(12);
    for (number, path) in paths.enumerate() {
        // Nothing that compression could make small.
        let mut value = vec![0; 1 << 20];
        blake3::Hasher::new().update(&[number as u8]).finalize_xof().fill(&mut value);
        let items = vec![SetItem::new(Target::Path(path), value)];
        a.ask(Request::Set(SetBatch { items, add: Some(TopicSpec::of("binary")), durability: None, under: None }));
    }
    a.pass(Duration::from_secs(2));
    a.link("b");
    b.link("a");
    let said = talk(&mut a, &mut b);
    assert!(said.iter().all(|(_, frame)| frame.len() <= mangrove_net::FRAME_BYTES_MAX));
    assert!(said.iter().map(|(_, frame)| frame.len()).sum::<usize>() > 12 << 20);
    assert!(a.shown() == b.shown(), "the two nodes differ");
}

fn copy_dir(from: &FilePath, to: &FilePath) {
    fs::create_dir_all(to).expect("a directory");
    for entry in fs::read_dir(from).expect("a directory") {
        let entry = entry.expect("an entry");
        let target = to.join(entry.file_name());
        if entry.path().is_dir() {
            copy_dir(&entry.path(), &target);
        } else {
            fs::copy(entry.path(), target).expect("a file");
        }
    }
}

#[tokio::test]
async fn a_data_directory_of_version_1_is_read() {
    use mangrove::config::Config;
    use mangrove::embed::Node;
    use mangrove::protocol::Page;

    let settings = [("listen".to_owned(), "127.0.0.1:0".to_owned())];
    let config = Config::from_parts(FilePath::new(""), "", [], &settings).expect("a configuration");
    let frozen = fixtures().join("data");
    if freezing() {
        let dir = tempfile::tempdir().expect("a directory");
        let node = Node::open(dir.path(), &config, "frozen").await.expect("a node");
        let client = node.client().await.expect("a session");
        client.section_add("plant", BTreeMap::new()).await.expect("a section");
        for number in 0..20_u8 {
            let add = Some(TopicSpec::of("int64"));
            client.set(&format!("plant/{number}"), vec![number], add).await.expect("a write");
        }
        client.set("local/only", vec![7], Some(TopicSpec::of("int64"))).await.expect("a write");
        drop(client);
        node.close().await.expect("a clean end");
        if frozen.exists() {
            fs::remove_dir_all(&frozen).expect("the old fixture goes");
        }
        copy_dir(dir.path(), &frozen);
    }
    let dir = tempfile::tempdir().expect("a directory");
    copy_dir(&frozen, dir.path());
    let node = Node::open(dir.path(), &config, "frozen").await.expect("the node of version 1");
    let client = node.client().await.expect("a session");
    let (rows, _) = client.values("?.*//", Page::default()).await.expect("its values");
    assert_eq!(rows.len(), 21);
    for number in 0..20_u8 {
        let row = rows.iter().find(|row| row.path == format!("plant/{number}")).expect("the topic");
        assert_eq!((row.topic_type.as_str(), row.value.as_deref()), ("int64", Some(&[number][..])));
    }
    assert_eq!(client.sections().await.expect("its sections").first().map(|section| section.root.clone()), Some("plant".into()));
    assert!(client.welcome().name == "frozen" && client.status().await.expect("its status").boot >= 2);
    drop(client);
    node.close().await.expect("a clean end");
}

/// What a later version may not make smaller, since older ones send it, nor larger, since they refuse it.
#[test]
fn the_limits_of_version_1() {
    assert_eq!(mangrove_net::FRAME_BYTES_MAX, 8 << 20, "a frame between nodes");
    assert_eq!(mangrove_net::quic::lanes::FRAME_MAX, mangrove_net::FRAME_BYTES_MAX, "what is read is what is sent");
    assert_eq!(mangrove::protocol::FRAME_MAX, mangrove::protocol::VALUE_MAX + (256 << 10), "a frame between client and node");
    assert_eq!(mangrove::protocol::VALUE_MAX, 4 << 20, "a value");
}
