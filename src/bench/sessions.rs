//! What idle sessions cost: those whose clients are connected, at their node; and all that the mesh knows, at every node.
//!
//! Two nodes. Clients come to one of them and stay, and it is watched what they and the node send each other when nothing happens: by the counters of the loopback interface, so
//! nothing else should use that meanwhile. Then two other nodes, to one of which many clients come, open a session and go without a word; their sessions stay for the
//! reconnect timeout, which is long here, and are known to both. What something takes is what a node's process holds more than before.

use std::time::{Duration, Instant};

use tokio::task::JoinSet;

use super::founder::Founder;
use super::process::Taken;
use super::report::{Report, Row};
use super::sources::crossed;
use super::{BenchError, within};
use crate::cli::{BenchSessions, progress};
use crate::client::{Client, ClientOptions, Credential, SessionOptions};
use crate::demo::nodes::{Directory, Node};
use crate::protocol::{Page, Request, Response};

/// How many clients come at once.
const COMING: usize = 128;
const PATIENCE: Duration = Duration::from_secs(600);
const POLL: Duration = Duration::from_secs(2);
/// For how long sessions stay that were left: as long as a run may take.
const CONFIG: &str = "reconnect_timeout_ms = \"6h\"\n";

/// What two nodes take that are left alone.
#[derive(Clone, Copy, Debug, Default, serde::Serialize)]
struct Rest {
    home_bytes: f64,
    other_bytes: f64,
    /// Time on a core, in parts of one.
    home_cpu: f64,
    other_cpu: f64,
    /// What has crossed the link between them, both ways, in bytes a second.
    link: f64,
    /// The same of the loopback interface, which carries that as well.
    loopback: f64,
}

/// Measures in turn; see the module.
pub(super) async fn run(bench: &BenchSessions) -> Result<Report, BenchError> {
    let mut report = Report::begin("sessions");
    let connected = compare(bench, bench.connected, Stay::Connected).await?;
    let lost = compare(bench, bench.sessions, Stay::Lost).await?;
    report.rows = rows(bench, &connected, &lost);
    report.detail("sessions", bench.sessions);
    report.detail("connected", bench.connected);
    report.detail("without_and_with_connected", connected);
    report.detail("without_and_with_lost", lost);
    Ok(report.end())
}

/// Two nodes without sessions, and the same with some.
async fn compare(bench: &BenchSessions, count: u32, stay: Stay) -> Result<[Rest; 2], BenchError> {
    let directory = Directory::new("bench")?;
    for name in ["a", "b"] {
        std::fs::create_dir_all(directory.path.join(name))?;
        std::fs::write(directory.path.join(name).join("mangrove.toml"), CONFIG)?;
    }
    let founder = Founder::start(&directory.path, "disk").await?;
    let other = Node::start(founder.admit("b").await?, "b").await?;
    let home = founder.node;
    let without = rest(&home, &other, bench).await?;
    let clients = come(&home, count as usize, stay).await?;
    known(&other, count as usize).await?;
    let with = rest(&home, &other, bench).await?;
    drop(clients);
    other.kill().await;
    home.kill().await;
    Ok([without, with])
}

fn rows(bench: &BenchSessions, connected: &[Rest; 2], lost: &[Rest; 2]) -> Vec<Row> {
    let each = |count: u32, [without, with]: &[Rest; 2], of: fn(&Rest) -> f64| (of(with) - of(without)) / f64::from(count);
    let of_connected = |of: fn(&Rest) -> f64| each(bench.connected, connected, of);
    let of_lost = |of: fn(&Rest) -> f64| each(bench.sessions, lost, of);
    let [none, lost] = lost;
    vec![
        Row::new("a session with its client, memory of its node", "B", of_connected(|rest| rest.home_bytes)),
        Row::new("the same, of another node", "B", of_connected(|rest| rest.other_bytes)),
        Row::new("the same, between client and node, both ways", "bytes/s", of_connected(|rest| rest.loopback - rest.link)),
        Row::new("a thousand of them, time on a core of their node", "%", of_connected(|rest| rest.home_cpu) * 1e5),
        Row::new("a session whose client is away, memory of its node", "B", of_lost(|rest| rest.home_bytes)),
        Row::new("the same, of another node", "B", of_lost(|rest| rest.other_bytes)),
        Row::new("the link between the nodes, both ways, no session", "bytes/s", none.link),
        Row::new("the same, all whose clients are away", "bytes/s", lost.link),
        Row::new("their node, time on a core", "%", lost.home_cpu * 100.0),
        Row::new("another node, time on a core", "%", lost.other_cpu * 100.0),
    ]
}

/// Whether clients stay.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Stay {
    Connected,
    Lost,
}

/// So many clients open sessions at a node. Returns those that stay.
async fn come(node: &Node, count: usize, stay: Stay) -> Result<Vec<Client>, BenchError> {
    let bar = progress(Some(count as u64), "sessions");
    let credential = Credential::read(&node.data.join("operator.toml"))?;
    let options = match stay {
        Stay::Connected => ClientOptions { session: Some(SessionOptions::default()), ..ClientOptions::new(credential) },
        Stay::Lost => ClientOptions::new(credential),
    };
    let mut coming = JoinSet::new();
    let mut clients = Vec::new();
    for number in 0..count + COMING {
        if number < count {
            let options = options.clone();
            coming.spawn(async move {
                let client = Client::connect(options).await?;
                if stay == Stay::Lost {
                    let open = Request::SessionOpen { reconnect_timeout_ms: None, properties: Default::default() };
                    if let Response::Refused(refusal) = client.request(open).await? {
                        return Err(refusal.into());
                    }
                    client.close().await;
                    return Ok(None);
                }
                Ok::<_, crate::client::ClientError>(Some(client))
            });
        }
        if coming.len() >= COMING || number >= count {
            let Some(came) = coming.join_next().await else { break };
            clients.extend(came.map_err(|error| BenchError::Stopped(error.to_string()))??);
            bar.inc(1);
        }
    }
    bar.finish_and_clear();
    Ok(clients)
}

/// Waits until a node knows so many sessions.
async fn known(node: &Node, count: usize) -> Result<(), BenchError> {
    let all = async {
        loop {
            let mut known = 0;
            let mut page = Page::default();
            loop {
                let (rows, next) = node.client.sessions("", page).await?;
                known += rows.len();
                match next {
                    Some(after) => page = Page { after: Some(after), ..Page::default() },
                    None => break,
                }
            }
            if known == count {
                return Ok(());
            }
            tokio::time::sleep(POLL).await;
        }
    };
    within(PATIENCE, "not all sessions became known", all).await
}

/// Leaves nodes alone for a while, and then watches them.
async fn rest(home: &Node, other: &Node, bench: &BenchSessions) -> Result<Rest, BenchError> {
    tokio::time::sleep(bench.settle).await;
    let look = async || Ok::<_, BenchError>((Taken::of(home.id())?, Taken::of(other.id())?, crossed(home).await?, loopback()?));
    let (begun, before) = (Instant::now(), look().await?);
    tokio::time::sleep(Duration::from_secs(bench.seconds.into())).await;
    let after = look().await?;
    let seconds = begun.elapsed().as_secs_f64();
    let per_s = |after: u64, before: u64| after.saturating_sub(before) as f64 / seconds;
    Ok(Rest {
        home_bytes: after.0.resident_bytes as f64,
        other_bytes: after.1.resident_bytes as f64,
        home_cpu: after.0.since(before.0).cpu.as_secs_f64() / seconds,
        other_cpu: after.1.since(before.1).cpu.as_secs_f64() / seconds,
        link: per_s(after.2, before.2),
        loopback: per_s(after.3, before.3),
    })
}

/// What the loopback interface has carried, in bytes, with the headers of IP and UDP; zero where the system does not tell (Linux does).
fn loopback() -> Result<u64, BenchError> {
    let interfaces = std::fs::read_to_string("/proc/net/dev")?;
    let line = interfaces.lines().find_map(|line| line.trim_start().strip_prefix("lo:"));
    Ok(line.and_then(|line| line.split_whitespace().next()?.parse().ok()).unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_session_costs_what_there_is_more_than_without() {
        let rest = |home_bytes, loopback| Rest { home_bytes, loopback, link: 100.0, ..Rest::default() };
        let bench = BenchSessions { sessions: 1_000, connected: 10, seconds: 1, settle: Duration::ZERO };
        let rows = rows(&bench, &[rest(6e6, 100.0), rest(7e6, 1_100.0)], &[rest(5e6, 100.0), rest(6e6, 100.0)]);
        assert_eq!([rows[0].measured, rows[2].measured, rows[4].measured], [1e5, 100.0, 1e3]);
    }
}
