//! A network of ours between the nodes of one machine: it delays, loses, repeats and reorders their datagrams, and cuts any direction between two.
//!
//! Each node has a *door*, a port of this network that it advertises in place of its own. What comes to a door is passed on to the node from a
//! port that stands for the sender, as a NAT does it, and what the node answers goes back the same way. A node dials from the port at which it listens, so the
//! network knows who sends. Clients do not come through doors: no cut touches them.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use tokio::net::UdpSocket;
use tokio::runtime::Runtime;
use tokio::sync::Notify;
use tokio::time::Instant;

use crate::support::{Node, World, fixed_port};

const HERE: &str = "127.0.0.1:0";
const DATAGRAM_BYTES_MAX: usize = 65_536;

/// What happens to a datagram on its way. Shares are from 0 to 1.
#[derive(Clone, Copy, Default, Debug)]
pub struct Weather {
    /// How long each is under way.
    pub delay: Duration,
    /// The share that takes longer and is overtaken by later ones.
    pub reordered: f64,
    /// By how much these are late, at most.
    pub late: Duration,
    /// The share that never arrives.
    pub lost: f64,
    /// The share that arrives twice.
    pub repeated: f64,
}

/// What has happened to datagrams so far.
#[derive(Clone, Copy, Default, Debug)]
pub struct Fates {
    pub passed: u64,
    pub lost: u64,
    pub reordered: u64,
    pub repeated: u64,
    pub cut: u64,
}

/// The network. Dropping it ends it.
pub struct Network {
    shared: Arc<Shared>,
    runtime: Option<Runtime>,
}

struct Shared {
    state: Mutex<State>,
    /// Something was posted that may be due before all else.
    posted: Notify,
}

struct State {
    random: ChaCha8Rng,
    weather: Weather,
    /// Where each node really listens.
    names: HashMap<SocketAddr, String>,
    cuts: BTreeSet<(String, String)>,
    /// Rises whenever all that dial get other addresses.
    generation: u64,
    /// By when they are due, then in the order of posting.
    under_way: BTreeMap<(Instant, u64), Parcel>,
    posted: u64,
    fates: Fates,
}

#[derive(Clone)]
struct Parcel {
    by: Arc<UdpSocket>,
    to: SocketAddr,
    bytes: Vec<u8>,
}

impl Network {
    /// In fine weather. The seed decides every datagram's fate, as far as the machine sends the same ones.
    pub fn new(seed: u64) -> Network {
        eprintln!("the network's seed is {seed}");
        let state = State {
            random: ChaCha8Rng::seed_from_u64(seed),
            weather: Weather::default(),
            names: HashMap::new(),
            cuts: BTreeSet::new(),
            generation: 0,
            under_way: BTreeMap::new(),
            posted: 0,
            fates: Fates::default(),
        };
        let shared = Arc::new(Shared { state: state.into(), posted: Notify::new() });
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().expect("a thread");
        runtime.spawn(deliver(shared.clone()));
        Network { shared, runtime: Some(runtime) }
    }

    /// A node of its own mesh behind a door, running.
    pub fn found(&self, world: &World, name: &str) -> Node {
        let flags = self.behind_door(name);
        world.found_with(name, &flags.each_ref().map(String::as_str))
    }

    /// A member of another node's mesh behind a door, running.
    pub fn join(&self, world: &World, name: &str, via: &Node) -> Node {
        let flags = self.behind_door(name);
        world.join_with(name, via, "member", &flags.each_ref().map(String::as_str))
    }

    fn behind_door(&self, name: &str) -> [String; 4] {
        let listens: SocketAddr = format!("127.0.0.1:{}", fixed_port()).parse().expect("an address");
        let runtime = self.runtime.as_ref().expect("it runs");
        let door = Arc::new(runtime.block_on(UdpSocket::bind(HERE)).expect("a socket"));
        let address = door.local_addr().expect("it is bound");
        self.state().names.insert(listens, name.to_owned());
        runtime.spawn(serve_door(self.shared.clone(), door, listens));
        ["--listen".into(), listens.to_string(), "--set".into(), format!("advertise={address}")]
    }

    /// What happens to datagrams from now on.
    pub fn weather(&self, weather: Weather) {
        self.state().weather = weather;
    }

    /// Lets nothing through any more from one node to another; what comes back is let through.
    pub fn cut(&self, from: &Node, to: &Node) {
        self.state().cuts.insert((from.name.clone(), to.name.clone()));
    }

    /// Lets everything through.
    pub fn heal(&self) {
        self.state().cuts.clear();
    }

    /// Gives all that dial other addresses, as a NAT does that has forgotten them.
    pub fn readdress(&self) {
        self.state().generation += 1;
    }

    pub fn fates(&self) -> Fates {
        self.state().fates
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.shared.state()
    }
}

impl Drop for Network {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Decides what becomes of a datagram.
    fn post(&self, between: (SocketAddr, SocketAddr), by: &Arc<UdpSocket>, to: SocketAddr, bytes: &[u8]) {
        let mut state = self.state();
        let State { random, weather, names, cuts, fates, .. } = &mut *state;
        let mut draw = || (random.next_u64() >> 11) as f64 / (1u64 << 53) as f64;
        if let (Some(from), Some(to)) = (names.get(&between.0), names.get(&between.1))
            && cuts.contains(&(from.clone(), to.clone()))
        {
            fates.cut += 1;
            return;
        }
        if draw() < weather.lost {
            fates.lost += 1;
            return;
        }
        fates.passed += 1;
        let mut due = Instant::now() + weather.delay;
        if draw() < weather.reordered {
            fates.reordered += 1;
            due += weather.late.mul_f64(draw());
        }
        let again = (draw() < weather.repeated).then(|| due + weather.late.mul_f64(draw()));
        fates.repeated += u64::from(again.is_some());
        for due in [Some(due), again].into_iter().flatten() {
            state.posted += 1;
            let place = (due, state.posted);
            state.under_way.insert(place, Parcel { by: by.clone(), to, bytes: bytes.to_vec() });
        }
        self.posted.notify_one();
    }
}

/// Hands over what is due, in its order.
async fn deliver(shared: Arc<Shared>) {
    loop {
        let next = shared.state().under_way.first_key_value().map(|((due, _), _)| *due);
        tokio::select! {
            () = tokio::time::sleep_until(next.unwrap_or_else(|| Instant::now() + Duration::from_secs(60))) => {}
            () = shared.posted.notified() => {}
        }
        let due = {
            let mut state = shared.state();
            let later = state.under_way.split_off(&(Instant::now(), u64::MAX));
            std::mem::replace(&mut state.under_way, later)
        };
        for parcel in due.into_values() {
            // A node that has ended takes nothing, as in any network.
            let _ = parcel.by.send_to(&parcel.bytes, parcel.to).await;
        }
    }
}

/// Passes on what comes to a node's door, each sender's by a port of its own.
async fn serve_door(shared: Arc<Shared>, door: Arc<UdpSocket>, node: SocketAddr) {
    let mut senders: HashMap<(SocketAddr, u64), Arc<UdpSocket>> = HashMap::new();
    let mut buffer = vec![0; DATAGRAM_BYTES_MAX];
    loop {
        // An earlier datagram that could not be delivered is told of here.
        let Ok((len, sender)) = door.recv_from(&mut buffer).await else { continue };
        let generation = shared.state().generation;
        let port = match senders.get(&(sender, generation)) {
            Some(port) => port.clone(),
            None => {
                let port = Arc::new(UdpSocket::bind(HERE).await.expect("a socket"));
                senders.insert((sender, generation), port.clone());
                tokio::spawn(serve_answers(shared.clone(), port.clone(), door.clone(), node, sender));
                port
            }
        };
        shared.post((sender, node), &port, node, &buffer[..len]);
    }
}

/// Passes back what a node answers to one sender.
async fn serve_answers(shared: Arc<Shared>, port: Arc<UdpSocket>, door: Arc<UdpSocket>, node: SocketAddr, sender: SocketAddr) {
    let mut buffer = vec![0; DATAGRAM_BYTES_MAX];
    loop {
        let Ok((len, _)) = port.recv_from(&mut buffer).await else { continue };
        shared.post((node, sender), &door, sender, &buffer[..len]);
    }
}
