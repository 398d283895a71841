//! `[topology]`: which nodes have links, for the whole of a run.
//!
//! Graphs that are drawn follow from the topology's own `seed` (0 without), so that all runs of a scenario have the same. One that is not connected is drawn
//! again, which makes it one from the connected graphs of its kind; a kind that hardly has any is refused.

use std::collections::BTreeSet;

use super::{
    NodeSpec, PathOverride, PathSpec,
    fault::named,
    files::members,
    graphml::{self, Edge, Graph},
    keys::{BadScenario, Keys},
};
use crate::dice::Dice;

/// How often a graph is drawn until it is connected.
const DRAWS_MAX: usize = 200;

const KINDS: [&str; 10] = ["full", "ring", "line", "star", "grid", "random-regular", "erdos-renyi", "geometric", "edges", "file"];

/// Pairs of nodes, the smaller first.
type Pairs = BTreeSet<(usize, usize)>;

/// A topology before it is known which nodes there are.
pub(super) struct Topology<'a> {
    keys: Keys<'a>,
    kind: String,
    /// The file's name and what is in it.
    graph: Option<(String, Graph)>,
}

/// Which links there are.
pub(super) struct Links {
    /// From each node to each.
    pub reach: Vec<Vec<bool>>,
    /// Links that are otherwise than usual, with the nodes at their ends.
    edges: Vec<((usize, usize), Edge)>,
}

impl<'a> Topology<'a> {
    pub fn read(mut keys: Keys<'a>) -> Result<Self, BadScenario> {
        let kind = keys.word("kind", &KINDS)?.unwrap_or_else(|| "full".into());
        let mut graph = None;
        if kind == "file" {
            let file = keys.text("file")?.ok_or_else(|| keys.bad("file", "is missing: a GraphML file"))?;
            let text = keys.read_file("file", &file)?;
            graph = Some((file.clone(), graphml::read(&file, &text)?));
        }
        Ok(Topology { keys, kind, graph })
    }

    /// The nodes of a file.
    pub fn names(&self) -> Option<&[String]> {
        self.graph.as_ref().map(|(_, graph)| graph.names.as_slice())
    }

    pub fn links(self, nodes: &[NodeSpec], find: &dyn Fn(&str) -> Vec<usize>) -> Result<Links, BadScenario> {
        let (mut keys, count) = (self.keys, nodes.len());
        let mut reach = vec![vec![self.kind == "full"; count]; count];
        let mut edge = |a: usize, b: usize| (reach[a][b], reach[b][a]) = (true, true);
        let mut edges = Vec::new();
        match self.kind.as_str() {
            "ring" => (0..count).for_each(|at| edge(at, (at + 1) % count)),
            "line" => (1..count).for_each(|at| edge(at - 1, at)),
            "star" => (1..count).for_each(|at| edge(0, at)),
            "grid" => {
                let width = (count as f64).sqrt().ceil() as usize;
                for at in 0..count {
                    if (at + 1) % width != 0 && at + 1 < count {
                        edge(at, at + 1);
                    }
                    if at + width < count {
                        edge(at, at + width);
                    }
                }
            }
            "random-regular" => {
                let degree = keys.count("degree")?.unwrap_or(3) as usize;
                if degree >= count || !(degree * count).is_multiple_of(2) {
                    return Err(keys.bad("degree", format!("must be below {count}, the number of nodes, and even if that is odd")));
                }
                let pairs = drawn(&mut keys, "degree", count, |dice| regular(count, degree, dice))?;
                pairs.into_iter().for_each(|(a, b)| edge(a, b));
            }
            "erdos-renyi" => {
                let p = keys.share("p")?.ok_or_else(|| keys.bad("p", "is missing: how likely two nodes have a link"))?;
                let pairs = drawn(&mut keys, "p", count, |dice| Some(all(count).filter(|_| dice.chance(p)).collect()))?;
                pairs.into_iter().for_each(|(a, b)| edge(a, b));
            }
            "geometric" => {
                let radius = keys.number("radius")?.filter(|radius| *radius > 0.0);
                let radius = radius.ok_or_else(|| keys.bad("radius", "must be above 0: nodes lie in a square with sides of length 1"))?;
                let pairs = drawn(&mut keys, "radius", count, |dice| Some(geometric(count, radius, dice)))?;
                pairs.into_iter().for_each(|(a, b)| edge(a, b));
            }
            "edges" => {
                let lists = keys.text_lists("edges")?.ok_or_else(|| keys.bad("edges", "is missing"))?;
                for ends in lists {
                    let ends: Vec<Vec<usize>> =
                        ends.iter().map(|end| named(&keys, "edges", std::slice::from_ref(end), find)).collect::<Result<_, _>>()?;
                    let [from, to] = ends.as_slice() else { return Err(keys.bad("edges", "an edge has two ends")) };
                    from.iter().for_each(|from| to.iter().for_each(|to| edge(*from, *to)));
                }
            }
            _ => {}
        }
        if let Some((file, graph)) = self.graph {
            let members = members(&file, &graph.names, nodes)?;
            for of in graph.edges {
                let (a, b) = (members[of.from], members[of.to]);
                edge(a, b);
                edges.push(((a, b), of));
            }
        }
        for (at, row) in reach.iter_mut().enumerate() {
            row[at] = false;
        }
        keys.end()?;
        Ok(Links { reach, edges })
    }
}

impl Links {
    /// The paths over links that are otherwise than usual.
    pub fn paths(&self, usual: &PathSpec) -> Vec<PathOverride> {
        let mut paths = Vec::new();
        for ((a, b), edge) in self.edges.iter().filter(|(_, edge)| edge.is_special()) {
            let path = edge.path(usual);
            if !edge.directed {
                paths.push(PathOverride { from: vec![*b], to: vec![*a], path: path.clone() });
            }
            paths.push(PathOverride { from: vec![*a], to: vec![*b], path });
        }
        paths
    }

    /// Whom each node knows at first, unless it is told: the first that it can reach; where that would leave groups that know nothing of each other,
    /// the next on the way to the first node.
    pub fn first_known(&self) -> Vec<Option<usize>> {
        let count = self.reach.len();
        let first = |at: usize| (0..count).find(|other| self.reach[at][*other]);
        let firsts: Vec<Option<usize>> = (0..count).map(first).collect();
        let known = |at: usize| firsts[at].map(|other| (at.min(other), at.max(other)));
        let parents = parents(count, |a, b| self.reach[a][b]);
        let links: Pairs = (1..count).filter_map(known).collect();
        if is_connected(count, &links) { firsts } else { (0..count).map(|at| parents[at].or(firsts[at])).collect() }
    }
}

fn all(count: usize) -> impl Iterator<Item = (usize, usize)> {
    (0..count).flat_map(move |a| (a + 1..count).map(move |b| (a, b)))
}

/// A connected graph.
fn drawn(keys: &mut Keys, key: &'static str, count: usize, mut draw: impl FnMut(&mut Dice) -> Option<Pairs>) -> Result<Pairs, BadScenario> {
    let mut dice = Dice::new(keys.count("seed")?.unwrap_or(0), "topology");
    let found = (0..DRAWS_MAX).find_map(|_| draw(&mut dice).filter(|pairs| is_connected(count, pairs)));
    found.ok_or_else(|| keys.bad(key, format!("{DRAWS_MAX} graphs were drawn, and none is connected: make it greater")))
}

/// Links drawn one by one between nodes that have fewer than they are to have (Steger and Wormald 1999); `None` if that comes to an end too early.
fn regular(count: usize, degree: usize, dice: &mut Dice) -> Option<Pairs> {
    const TRIES: usize = 1_000;
    let mut free: Vec<usize> = (0..count).flat_map(|node| std::iter::repeat_n(node, degree)).collect();
    let mut pairs = Pairs::new();
    while !free.is_empty() {
        let (i, j) = (0..TRIES).map(|_| (dice.below(free.len()), dice.below(free.len()))).find(|(i, j)| {
            let (a, b) = (free[*i].min(free[*j]), free[*i].max(free[*j]));
            a != b && pairs.insert((a, b))
        })?;
        free.swap_remove(i.max(j));
        free.swap_remove(i.min(j));
    }
    Some(pairs)
}

/// Nodes evenly in the unit square; those at most so far from each other have a link.
fn geometric(count: usize, radius: f64, dice: &mut Dice) -> Pairs {
    let places: Vec<(f64, f64)> = (0..count).map(|_| (dice.unit(), dice.unit())).collect();
    let near = |(a, b): &(usize, usize)| {
        let (x, y) = (places[*a].0 - places[*b].0, places[*a].1 - places[*b].1);
        x * x + y * y <= radius * radius
    };
    all(count).filter(near).collect()
}

/// The next node on a shortest way to the first, of each that has one.
fn parents(count: usize, linked: impl Fn(usize, usize) -> bool) -> Vec<Option<usize>> {
    let mut parents = vec![None; count];
    let mut found = vec![0];
    let mut next = 0;
    while let Some(at) = found.get(next).copied() {
        next += 1;
        for (other, parent) in parents.iter_mut().enumerate().skip(1).filter(|(other, parent)| parent.is_none() && linked(at, *other)) {
            *parent = Some(at);
            found.push(other);
        }
    }
    parents
}

fn is_connected(count: usize, pairs: &Pairs) -> bool {
    let mut linked = vec![vec![false; count]; count];
    pairs.iter().for_each(|(a, b)| (linked[*a][*b], linked[*b][*a]) = (true, true));
    parents(count, |a, b| linked[a][b]).iter().skip(1).all(Option::is_some)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scenario::Scenario;

    fn read(nodes: &str, topology: &str) -> Result<Scenario, String> {
        let text = format!("schema = 1\n[run]\nduration = \"1s\"\n[nodes]\n{nodes}\n[topology]\n{topology}\n");
        let graph = r#"<graphml xmlns="http://graphml.graphdrawing.org/xmlns">
            <key id="l" for="edge" attr.name="latency" attr.type="string"/><key id="b" for="edge" attr.name="bandwidth" attr.type="string"/>
            <key id="p" for="edge" attr.name="packet_loss" attr.type="double"><default>0.25</default></key>
            <key id="j" for="edge" attr.name="jitter" attr.type="string"/><key id="c" for="edge" attr.name="colour" attr.type="string"/>
            <graph edgedefault="undirected"><node id="x"/><node id="y"/><node id="z"/>
            <edge source="x" target="y"><data key="l">10ms</data><data key="j">2ms</data><data key="c">red</data></edge>
            <edge source="y" target="z" directed="true"><data key="b">1Mbit/s</data><data key="p">0.5</data></edge></graph></graphml>"#;
        let files = |file: &str| match file {
            "good" => Ok(graph.to_owned()),
            "bare" => Ok(graph.replace("10ms", "10")),
            "cut" => Ok(graph.replace("</graph>", "")),
            "lost" => Ok(graph.replace("target=\"z\"", "target=\"w\"")),
            _ => Err("no such file".into()),
        };
        Scenario::parse_with("topology", &text, &files).map_err(|error| error.to_string())
    }

    fn links(scenario: &Scenario) -> Pairs {
        all(scenario.nodes.len()).filter(|(a, b)| scenario.reach[*a][*b] && scenario.reach[*b][*a]).collect()
    }

    #[test]
    fn drawn_graphs_are_connected_and_follow_from_the_seed_of_the_topology() {
        let of = |topology: &str| links(&read("count = 40", topology).expect("a good topology"));
        for kind in ["kind = \"random-regular\"\ndegree = 4", "kind = \"erdos-renyi\"\np = 0.12", "kind = \"geometric\"\nradius = 0.3"] {
            let pairs = of(kind);
            assert!(is_connected(40, &pairs) && pairs.len() < 300, "{kind}: {pairs:?}");
            assert_eq!(pairs, of(&format!("{kind}\nseed = 0")));
            assert_ne!(pairs, of(&format!("{kind}\nseed = 1")));
        }
        let regular = of("kind = \"random-regular\"\ndegree = 4");
        let degree = |node: usize| regular.iter().filter(|(a, b)| *a == node || *b == node).count();
        assert!((0..40).all(|node| degree(node) == 4), "{regular:?}");
    }

    #[test]
    fn whom_nodes_know_at_first_leads_everywhere() {
        for (nodes, topology) in [(30, "kind = \"erdos-renyi\"\np = 0.1"), (30, "kind = \"random-regular\""), (9, "kind = \"ring\"")] {
            let scenario = read(&format!("count = {nodes}"), topology).expect("a good topology");
            let place = |name: &String| scenario.nodes.iter().position(|node| node.name == *name).expect("it is a node");
            let known = |at: usize| scenario.nodes[at].seeds.iter().map(move |seed| (at.min(place(seed)), at.max(place(seed))));
            assert!(is_connected(nodes, &(0..nodes).flat_map(known).collect()), "{topology}");
        }
        let ring = read("count = 9", "kind = \"ring\"").expect("a good topology");
        assert_eq!(ring.nodes[7].seeds, ["n7"], "the first that it reaches");
    }

    #[test]
    fn a_graph_comes_from_a_file_with_what_its_edges_say() {
        let scenario = read("seeds = []", "kind = \"file\"\nfile = \"good\"").expect("a good file");
        assert_eq!(scenario.nodes.iter().map(|node| node.name.as_str()).collect::<Vec<_>>(), ["x", "y", "z"]);
        assert_eq!(links(&scenario), Pairs::from([(0, 1), (1, 2)]));
        let told = |from: usize, to: usize| {
            let path = scenario.paths.iter().find(|path| path.from == [from] && path.to == [to])?;
            Some(format!("{:?} {:?} {:?}", path.path.latency, path.path.loss, path.path.bandwidth))
        };
        let near = Some("Uniform { min: 8000.0, max: 12000.0 } Bernoulli(0.25) None".to_owned());
        assert_eq!((told(0, 1), told(1, 0)), (near.clone(), near));
        assert!(told(1, 2).is_some_and(|told| told.ends_with("Bernoulli(0.5) Some(1000000.0)")));
        assert_eq!(told(2, 1), None, "it has a direction");
        // Other names: in order.
        let scenario = read("names = [\"a\", \"b\", \"c\", \"d\"]", "kind = \"file\"\nfile = \"good\"").expect("a good file");
        assert_eq!(links(&scenario), Pairs::from([(0, 1), (1, 2)]));
    }

    #[test]
    fn what_is_wrong_is_told_with_what_to_do() {
        let refused = |nodes: &str, topology: &str| read(nodes, topology).expect_err("it is refused");
        let file = |nodes: &str, file: &str| refused(nodes, &format!("kind = \"file\"\nfile = {file:?}"));
        assert!(refused("count = 9", "kind = \"geometrc\"").contains("did you mean geometric?"));
        assert!(refused("count = 9", "kind = \"ring\"\nseed = 1").contains("topology.seed: there is no such key"));
        assert!(refused("count = 9", "kind = \"erdos-renyi\"\np = 0.01").contains("none is connected: make it greater"));
        assert!(refused("count = 9", "kind = \"random-regular\"\ndegree = 3").contains("must be below 9"));
        assert!(file("seeds = []", "bare").contains("bare:6: latency: \"10\" is not a duration with its unit"));
        assert!(file("seeds = []", "lost").contains("lost:7: there is no node \"w\""));
        assert!(file("seeds = []", "cut").starts_with("cut:"));
        assert!(file("seeds = []", "away").contains("topology.file: no such file"));
        assert!(file("names = [\"x\", \"why\", \"z\"]", "good").contains("no node is called \"y\""));
        assert!(file("count = 2", "good").contains("has 3 nodes, and the scenario 2"));
    }
}
