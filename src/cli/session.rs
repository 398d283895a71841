//! Sessions of the mesh: who is there, what they have claimed, and ending them.

use super::args::SessionCommand;
use super::local::stop_wanted;
use super::output::{count_text, duration_text, plural, time_text};
use super::{Context, Failure, all_pages};
use crate::client::{Client, SessionEvent};
use crate::protocol::{SessionDetail, SessionRow};
use crate::runtime::clock;

pub(super) async fn session(context: &mut Context, command: SessionCommand) -> Result<(), Failure> {
    let client = match &command {
        SessionCommand::Watch { .. } => context.connect_to_stay(None).await?,
        _ => context.connect().await?,
    };
    match command {
        SessionCommand::Watch { filter } => watch(context, &client, &filter).await,
        SessionCommand::Ls { filter } => {
            let rows = all_pages(async |page| client.sessions(&filter, page).await).await?;
            context.output.listing(&rows, &["session", "principal", "node", "state", "epoch", "claims", "opened", "client"], session_cells)
        }
        SessionCommand::Show { session } => {
            let detail = client.session_show(&session).await?;
            show(context, &detail)
        }
        SessionCommand::Set { session, properties, unset } => {
            let set = properties.into_iter().map(|(key, value)| (key, Some(value)));
            let changes = set.chain(unset.into_iter().map(|key| (key, None))).collect();
            told(context, client.set_session(&session, changes).await?)
        }
        SessionCommand::Roles { session, roles, own } => {
            let roles: Vec<String> = roles.into_iter().filter(|role| role != "none").collect();
            told(context, client.set_session_roles(&session, (!own).then_some(roles)).await?)
        }
        SessionCommand::Close { session } => told(context, client.end_session(&session).await?),
        SessionCommand::Subscribe { session, selector } => told(context, client.select_for_session(&session, &selector, true).await?),
        SessionCommand::Unsubscribe { session, selector } => told(context, client.select_for_session(&session, &selector, false).await?),
    }
}

fn told(context: &mut Context, sessions: u64) -> Result<(), Failure> {
    context.output.done(&serde_json::json!({ "sessions": sessions }), plural(sessions, "session"))
}

async fn watch(context: &mut Context, client: &Client, filter: &str) -> Result<(), Failure> {
    let mut listener = client.listen_to_sessions(filter).await?;
    let mut stop = std::pin::pin!(stop_wanted());
    loop {
        let event = tokio::select! {
            event = listener.next() => event?,
            () = &mut stop => return Ok(()),
        };
        tell(context, &event)?;
        context.output.flush()?;
    }
}

fn tell(context: &mut Context, event: &SessionEvent) -> Result<(), Failure> {
    let time = time_text(clock::now().unix_ms);
    if context.output.json {
        let mut object = serde_json::to_value(event)?;
        if let Some(object) = object.as_object_mut() {
            object.insert("time".into(), time.into());
        }
        return context.output.json_line(&object);
    }
    let (what, session, more) = match event {
        SessionEvent::Opened(row) => ("opened", row.session, format!("{}, {} at {}, {}", row.principal, row.client, row.node, row.state)),
        SessionEvent::Updated { session, previous } => {
            let now = format!("{:?} with roles {:?}", session.properties, session.roles);
            ("updated", session.session, format!("{now}, was {previous:?}"))
        }
        SessionEvent::Disconnected(row) => ("disconnected", row.session, format!("from {}", row.node)),
        SessionEvent::Reconnected(row) => ("reconnected", row.session, format!("at {}", row.node)),
        SessionEvent::FailedOver { session, from } => ("failed-over", session.session, format!("from {from} to {}", session.node)),
        SessionEvent::PresumedClosed(row) => ("presumed-closed", row.session, format!("last at {}", row.node)),
        SessionEvent::Closed { session, reason } => ("closed", *session, reason.to_string()),
        SessionEvent::Synced => return Ok(()),
    };
    context.output.line(format!("{time:24}  {}  {what:15}  {more}", session.short()))
}

fn session_cells(row: &SessionRow) -> Vec<String> {
    vec![
        row.session.short(),
        row.principal.clone(),
        row.node.clone(),
        row.state.to_string(),
        row.epoch.to_string(),
        count_text(row.claims),
        time_text(row.opened_unix_ms),
        row.client.clone(),
    ]
}

fn show(context: &mut Context, detail: &SessionDetail) -> Result<(), Failure> {
    if context.output.json {
        return context.output.json_line(detail);
    }
    let SessionDetail { row, branches } = detail;
    context.output.record(&[
        ("session", row.session.to_string()),
        ("principal", row.principal.clone()),
        ("roles", row.roles.join(" ")),
        ("node", row.node.clone()),
        ("state", row.state.to_string()),
        ("epoch", row.epoch.to_string()),
        ("reconnect timeout", duration_text(row.reconnect_timeout_ms)),
        ("opened", time_text(row.opened_unix_ms)),
        ("expires", row.expires_unix_ms.map(time_text).unwrap_or_else(|| "never".into())),
        ("client", row.client.clone()),
        ("comes by", row.address.map_or_else(|| row.transport.clone(), |address| format!("{} from {address}", row.transport))),
        ("properties", row.properties.iter().map(|(key, value)| format!("{key}={value}")).collect::<Vec<_>>().join(" ")),
        ("claims", count_text(row.claims)),
    ])?;
    if branches.is_empty() {
        return Ok(());
    }
    context.output.line("")?;
    context.output.listing(branches, &["branch", "state"], |claimed| {
        vec![claimed.branch.clone(), if claimed.holds { "holds it" } else { "waits" }.into()]
    })
}
