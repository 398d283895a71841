//! Sessions of the mesh: who is there, what they have claimed, and ending them.

use super::args::SessionCommand;
use super::output::{count_text, duration_text, time_text};
use super::{Context, Failure, all_pages};
use crate::protocol::{SessionDetail, SessionRow};

pub(super) async fn session(context: &mut Context, command: SessionCommand) -> Result<(), Failure> {
    let client = context.connect().await?;
    match command {
        SessionCommand::Ls => {
            let rows = all_pages(async |page| client.sessions(page).await).await?;
            context.output.listing(&rows, &["session", "node", "state", "epoch", "claims", "opened", "client"], session_cells)
        }
        SessionCommand::Show { session } => {
            let detail = client.session_show(&session).await?;
            show(context, &detail)
        }
        SessionCommand::Close { session } => Ok(client.end_session(&session).await?),
    }
}

fn session_cells(row: &SessionRow) -> Vec<String> {
    vec![
        row.session.short(),
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
        ("node", row.node.clone()),
        ("state", row.state.to_string()),
        ("epoch", row.epoch.to_string()),
        ("reconnect timeout", duration_text(row.reconnect_timeout_ms)),
        ("opened", time_text(row.opened_unix_ms)),
        ("client", row.client.clone()),
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
