//! Update sources: who may write a branch.

use std::time::Duration;

use mangrove_crdt::id::SessionId;
use serde_json::Value;

use super::args::{Claiming, SourceClaim, SourceCommand};
use super::local::stop_wanted;
use super::output::{count_text, duration_text, time_text};
use super::{Context, Failure, all_pages};
use crate::client::{ClaimOptions, Client, Source};
use crate::protocol::{Claim, SourceDetail, SourceRow, SourceState, VoterRow};
use crate::runtime::clock;

pub(super) async fn source(context: &mut Context, command: SourceCommand) -> Result<(), Failure> {
    let client = match &command {
        SourceCommand::Claim(claim) => context.connect_to_stay(Some(claim.hold.unwrap_or_default().max(COMES_BACK_WITHIN))).await?,
        _ => context.connect().await?,
    };
    match command {
        SourceCommand::Claim(claim) => hold(context, &client, &claim).await,
        SourceCommand::Ls => {
            let rows = all_pages(async |page| client.sources(page).await).await?;
            context.output.listing(&rows, &["branch", "section", "epoch", "holder", "waiting"], source_cells)
        }
        SourceCommand::Show { branch } => {
            let detail = client.source_show(&branch).await?;
            show(context, &detail)
        }
    }
}

/// For how long a claim keeps its place in the queue without its program.
const COMES_BACK_WITHIN: Duration = Duration::from_secs(15);

/// Claims a branch for as long as this program runs. Without a time for which it is to be held, the branch passes on as soon as the connection is lost.
pub(super) async fn claim(client: &Client, branch: &str, claiming: &Claiming, hold: Option<Duration>) -> Result<Source, Failure> {
    let options = ClaimOptions { priority: claiming.priority, wait: !claiming.no_wait, hold: Some(hold.unwrap_or_default()) };
    Ok(client.claim(branch, options).await?)
}

/// Holds a claim until somebody asks for the end, and says how it goes.
async fn hold(context: &mut Context, client: &Client, asked: &SourceClaim) -> Result<(), Failure> {
    let mut source = claim(client, &asked.branch, &asked.claiming, asked.hold).await?;
    tell(context, &asked.branch, &SourceState::Init)?;
    let mut stop = std::pin::pin!(stop_wanted());
    loop {
        let state = tokio::select! {
            state = source.changed() => state?,
            () = &mut stop => break,
        };
        tell(context, &asked.branch, &state)?;
        if let SourceState::Closed { reason, why } = state {
            return Err(Failure::refused(format!("{}: the source was closed: {why} [{reason}]", asked.branch)));
        }
    }
    let closed = source.close().await?;
    tell(context, &asked.branch, &closed)?;
    Ok(client.close_session().await?)
}

fn tell(context: &mut Context, branch: &str, state: &SourceState) -> Result<(), Failure> {
    let time = time_text(clock::now().unix_ms);
    match context.output.json {
        true => context.output.json_line(&state_json(time, branch, state)?)?,
        false => context.output.line(state_line(&time, state))?,
    }
    context.output.flush()
}

fn state_json(time: String, branch: &str, state: &SourceState) -> Result<Value, Failure> {
    let mut object = serde_json::to_value(state)?;
    if let Some(object) = object.as_object_mut() {
        object.insert("time".into(), time.into());
        object.insert("branch".into(), branch.into());
    }
    Ok(object)
}

fn state_line(time: &str, state: &SourceState) -> String {
    let (name, epoch, why) = match state {
        SourceState::Init => ("init", String::new(), String::new()),
        SourceState::Active { epoch } => ("active", format!("epoch {epoch}"), String::new()),
        SourceState::Standby { epoch, why, .. } => ("standby", format!("epoch {epoch}"), why.clone()),
        SourceState::Closed { reason, why } => ("closed", String::new(), format!("{reason}: {why}")),
    };
    format!("{time:24}  {name:7}  {epoch:9}  {why}").trim_end().to_owned()
}

/// `3fa27c01@EWR`: a session and its node.
fn holder_text(claim: &Claim) -> String {
    format!("{}@{}", claim.session.short(), claim.node)
}

fn holder_cell(holder: Option<&Claim>) -> String {
    holder.map_or_else(|| "-".into(), holder_text)
}

fn source_cells(row: &SourceRow) -> Vec<String> {
    vec![
        row.branch.clone(),
        row.section.clone().unwrap_or_else(|| "local".into()),
        row.epoch.to_string(),
        holder_cell(row.holder.as_ref()),
        count_text(row.waiting.into()),
    ]
}

fn show(context: &mut Context, detail: &SourceDetail) -> Result<(), Failure> {
    if context.output.json {
        return context.output.json_line(detail);
    }
    let SourceDetail { row, queue, arbitration, lease_left_ms, voters } = detail;
    let mut fields = vec![
        ("branch", row.branch.clone()),
        ("section", row.section.clone().unwrap_or_else(|| "none: local to this node".into())),
        ("arbitration", arbitration.clone()),
        ("epoch", row.epoch.to_string()),
        ("holder", holder_cell(row.holder.as_ref())),
    ];
    if let Some(ms) = lease_left_ms {
        fields.push(("lease left", duration_text(*ms)));
    }
    context.output.record(&fields)?;
    let holder = row.holder.as_ref().map(|holder| holder.session);
    if !queue.is_empty() {
        context.output.line("")?;
        list_queue(context, holder, queue)?;
    }
    if !voters.is_empty() {
        context.output.line("")?;
        list_voters(context, voters)?;
    }
    Ok(())
}

fn list_voters(context: &mut Context, voters: &[VoterRow]) -> Result<(), Failure> {
    context.output.listing(voters, &["voter", "state", "has accepted the holder"], |voter| {
        let holds = match voter.holds {
            Some(true) => "yes",
            Some(false) => "no",
            None => "-",
        };
        vec![voter.node.clone(), if voter.heard { "heard" } else { "silent" }.into(), holds.into()]
    })
}

fn list_queue(context: &mut Context, holder: Option<SessionId>, queue: &[Claim]) -> Result<(), Failure> {
    context.output.listing(queue, &["session", "node", "priority", "registered", "state"], |claim| {
        let state = match (holder == Some(claim.session), claim.away) {
            (_, true) => "away",
            (true, false) => "holds it",
            (false, false) => "waits",
        };
        let registered = claim.registered.to_string();
        vec![claim.session.short(), claim.node.clone(), claim.priority.to_string(), registered, state.into()]
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::protocol::Closed;

    #[test]
    fn each_state_has_a_line() {
        let time = "2026-11-22T18:40:00.123Z";
        let line = |state| state_line(time, &state);
        assert_eq!(line(SourceState::Init), "2026-11-22T18:40:00.123Z  init");
        assert_eq!(line(SourceState::Active { epoch: 3 }), "2026-11-22T18:40:00.123Z  active   epoch 3");
        let standby = SourceState::Standby { epoch: 4, holder: Some("session 1 on B".into()), why: "lost to session 1 on B".into() };
        assert_eq!(line(standby.clone()), "2026-11-22T18:40:00.123Z  standby  epoch 4    lost to session 1 on B");
        let closed = SourceState::Closed { reason: Closed::Released, why: "its session wanted it".into() };
        assert_eq!(line(closed), "2026-11-22T18:40:00.123Z  closed              released: its session wanted it");
        let expected = json!({
            "time": time, "branch": "a", "state": "standby", "epoch": 4, "holder": "session 1 on B", "why": "lost to session 1 on B",
        });
        assert_eq!(state_json(time.into(), "a", &standby).unwrap(), expected);
    }

    #[test]
    fn a_row_names_its_holder() {
        let holder = Claim { session: SessionId([0xab; 16]), node: "EWR".into(), priority: 0, registered: 7, away: false };
        let row = SourceRow { branch: "a".into(), section: Some("a".into()), epoch: 2, holder: Some(holder), waiting: 1 };
        assert_eq!(source_cells(&row), ["a", "a", "2", "abababab@EWR", "1"]);
        let released = SourceRow { section: None, holder: None, waiting: 0, ..row };
        assert_eq!(source_cells(&released), ["a", "local", "2", "-", "0"]);
    }
}
