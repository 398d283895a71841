//! Graphs from GraphML files: nodes by their ids, and edges with the attributes `latency` and `jitter` (durations), `packet_loss` (a share) and `bandwidth` (a
//! rate). Quantities carry their units, as in scenarios; other attributes are not looked at, since files from elsewhere have many.

use std::collections::BTreeMap;

use roxmltree::{Document, Node};

use super::{
    Loss, PathSpec,
    files::{bad_line, in_order},
    keys::{BadScenario, Unit, parse},
};
use crate::dice::Amount;

/// The most edges: each pair of the most nodes, in both directions.
const EDGES_MAX: usize = 1_000_000;

/// A graph.
#[derive(Debug, Default)]
pub(super) struct Graph {
    /// The ids of its nodes.
    pub names: Vec<String>,
    /// Its edges.
    pub edges: Vec<Edge>,
}

/// A link, and how it is otherwise than usual.
#[derive(Clone, Debug, Default)]
pub(super) struct Edge {
    /// The place of the node at one end.
    pub from: usize,
    /// Of that at the other.
    pub to: usize,
    /// Whether what it says is about the way there only. The link is there both ways.
    pub directed: bool,
    latency: Option<Amount>,
    loss: Option<f64>,
    bandwidth: Option<f64>,
}

impl Edge {
    /// Whether it is otherwise than usual.
    pub fn is_special(&self) -> bool {
        self.latency.is_some() || self.loss.is_some() || self.bandwidth.is_some()
    }

    /// The path over it.
    pub fn path(&self, usual: &PathSpec) -> PathSpec {
        PathSpec {
            latency: self.latency.as_ref().unwrap_or(&usual.latency).clone(),
            loss: self.loss.map_or(usual.loss, Loss::Bernoulli),
            bandwidth: self.bandwidth.or(usual.bandwidth),
            ..usual.clone()
        }
    }
}

/// Reads the first graph of a file.
pub(super) fn read(file: &str, text: &str) -> Result<Graph, BadScenario> {
    let document = Document::parse(text).map_err(|error| bad_line(file, error.pos().row as usize, error.to_string()))?;
    let bad = |node: Node, what: String| bad_line(file, document.text_pos_at(node.range().start).row as usize, what);
    let root = document.root_element();
    let graph = root.children().find(|child| is(child, "graph"));
    let graph = graph
        .filter(|_| is(&root, "graphml"))
        .ok_or_else(|| bad(root, "is no GraphML: a graphml element with a graph is needed".into()))?;
    let is_edge_key = |key: &Node| is(key, "key") && matches!(key.attribute("for"), Some("edge" | "all") | None);
    let keys: Vec<Node> = root.children().filter(is_edge_key).collect();
    let defaults = || keys.iter().filter_map(|key| Some((key.attribute("attr.name")?, key.children().find(|child| is(child, "default"))?)));
    let name_of = |id: &str| keys.iter().find(|key| key.attribute("id") == Some(id)).and_then(|key| key.attribute("attr.name"));
    let attribute = |node: &Node, name: &str| {
        let text = node.attribute(name).map(str::to_owned);
        text.ok_or_else(|| bad(*node, format!("a {} needs its {name}", node.tag_name().name())))
    };

    let mut names = Vec::new();
    for node in graph.children().filter(|child| is(child, "node")) {
        names.push(attribute(&node, "id")?);
    }
    let names = in_order(names);
    let places: BTreeMap<&str, usize> = names.iter().enumerate().map(|(at, name)| (name.as_str(), at)).collect();
    if places.len() < names.len() {
        return Err(bad(graph, "two nodes have the same id".into()));
    }
    let mut edges = Vec::new();
    for node in graph.children().filter(|child| is(child, "edge")) {
        if edges.len() == EDGES_MAX {
            return Err(bad(node, format!("there are more than {EDGES_MAX} edges: a pair of nodes needs one")));
        }
        let end = |name: &str| -> Result<usize, BadScenario> {
            let id = attribute(&node, name)?;
            places
                .get(id.as_str())
                .copied()
                .ok_or_else(|| bad(node, format!("there is no node {id:?}; nodes are elements of the same graph")))
        };
        let directed = node.attribute("directed").map_or(graph.attribute("edgedefault") == Some("directed"), |directed| directed == "true");
        let mut edge = Edge { from: end("source")?, to: end("target")?, directed, ..Edge::default() };
        let own = node.children().filter(|child| is(child, "data")).filter_map(|data| Some((name_of(data.attribute("key")?)?, data)));
        let mut jitter = None;
        // What an edge says itself counts more than the default.
        for (name, data) in defaults().chain(own) {
            let text = data.text().unwrap_or_default().trim();
            let quantity = |unit| {
                let value = parse(text, unit).filter(|value| *value >= 0.0);
                value.ok_or_else(|| bad(data, format!("{name}: {text:?} is not {}", super::keys::example(unit))))
            };
            match name {
                "latency" => edge.latency = Some(Amount::Constant(quantity(Unit::Duration)?)),
                "jitter" => jitter = Some(quantity(Unit::Duration)?),
                "bandwidth" => edge.bandwidth = Some(quantity(Unit::Rate)?).filter(|rate| *rate >= 1.0),
                "packet_loss" => {
                    let share = text.parse().ok().filter(|share| (0.0..=1.0).contains(share));
                    edge.loss = Some(share.ok_or_else(|| bad(data, format!("{name}: {text:?} is not a share, from 0 to 1")))?);
                }
                _ => {}
            }
        }
        match (jitter, &edge.latency) {
            (None, _) => {}
            (Some(jitter), Some(Amount::Constant(latency))) => {
                edge.latency = Some(Amount::Uniform { min: (latency - jitter).max(0.0), max: latency + jitter });
            }
            _ => return Err(bad(node, "jitter is about a latency: write that too".into())),
        }
        edges.push(edge);
    }
    Ok(Graph { names, edges })
}

fn is(node: &Node, name: &str) -> bool {
    node.tag_name().name() == name
}
