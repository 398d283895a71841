//! What a node does on its own machine: start, found, join, check itself and its configuration.

use std::io::Read;
use std::path::Path;

use serde_json::{Value, json};

use super::args::{ConfigCommand, Global, NodeFlags};
use super::output::table;
use super::{Context, Exit, Failure, Output};
use crate::client::{Client, ClientError, Credential};
use crate::config::{Config, ConfigError};
use crate::logging;
use crate::protocol::{Finding, Severity};
use crate::runtime::{self, ADMINISTRATOR, Running};

/// A ticket is some hundred bytes; more is something else.
const TICKET_BYTES_MAX: u64 = 64 << 10;

/// The configuration in the file, changed by the environment and then by the flags.
fn configuration(global: &Global, flags: &NodeFlags) -> Result<Config, Failure> {
    // The default file may be missing; one that was asked for may not.
    if let Some(file) = &flags.config {
        std::fs::metadata(file).map_err(|error| Failure::usage(format!("{}: {error}", file.display())))?;
    }
    let file = flags.config.clone().unwrap_or_else(|| global.data.join("mangrove.toml"));
    let named = [("listen", &flags.listen), ("name", &flags.name), ("log", &global.log)];
    let named = named.into_iter().filter_map(|(key, value)| Some((key.to_owned(), value.clone()?)));
    let settings: Vec<(String, String)> = flags.settings.iter().cloned().chain(named).collect();
    Config::load(&file, &settings).map_err(|ConfigError(problems)| {
        let problems: Vec<String> = problems.iter().map(ToString::to_string).collect();
        Failure::usage(problems.join("\n       ")).hint("`mangrove config example` explains every key")
    })
}

/// Whether nothing has been made in the data directory yet.
fn is_empty(data: &Path) -> Result<bool, Failure> {
    match std::fs::read_dir(data) {
        // A configuration may be waiting for its node.
        Ok(mut entries) => Ok(entries.all(|entry| entry.is_ok_and(|entry| entry.file_name() == "mangrove.toml"))),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(true),
        Err(error) => Err(Failure::refused(format!("{}: {error}", data.display()))),
    }
}

pub(super) async fn up(context: &mut Context, flags: &NodeFlags) -> Result<(), Failure> {
    let config = configuration(&context.global, flags)?;
    logging::start_as(&config.log, config.log_format).map_err(Failure::usage)?;
    let data = &context.global.data;
    let founded = match is_empty(data)? {
        true => Some(runtime::init(data, &config, flags.name.as_deref()).map_err(Failure::refused)?),
        false => None,
    };
    let password = founded.as_ref().and_then(|report| report.password.as_deref());
    let running = Running::start(data, &config).await.map_err(Failure::refused)?;
    let credential = context.credential_path();
    let address = running.address().to_string();
    if context.output.json {
        context.output.json_line(&json!({
            "node": running.node().to_string(),
            "name": running.name(),
            "mesh": running.mesh().to_string(),
            "address": address,
            "data": data,
            "credential": credential,
            "administrator": password.map(|_| ADMINISTRATOR),
            "password": password,
        }))?;
    } else {
        context.output.line(format!(
            "{} ({}) of mesh {} listens on {address}",
            running.name(),
            running.node().short(),
            running.mesh().short()
        ))?;
        if founded.is_some() {
            tell_first_steps(context)?;
        }
        if let Some(password) = password {
            context.output.line(told_once(password))?;
        }
    }
    context.output.flush()?;
    tokio::select! {
        ended = running.finished() => ended.map_err(Failure::refused)?,
        () = stop_wanted() => running.shutdown().await.map_err(Failure::refused)?,
    }
    Ok(())
}

/// The administrator's password, which is told once and kept nowhere.
fn told_once(password: &str) -> String {
    format!("The principal `{ADMINISTRATOR}` may do everything. Its password, which is shown only now: {password}")
}

fn tell_first_steps(context: &mut Context) -> Result<(), Failure> {
    let data = match context.global.data.as_path() {
        data if data == Path::new("./mangrove-data") => String::new(),
        data => format!("--data {} ", data.display()),
    };
    context.output.line(format!(
        "This is a new mesh of one node. In another terminal:\n\
         \x20 mangrove {data}status\n\
         \x20 mangrove {data}section add demo             replicate the branch `demo` to whoever holds it\n\
         \x20 mangrove {data}set demo/hello '\"world\"' --type json\n\
         \x20 mangrove {data}watch '?demo//'\n\
         \x20 mangrove {data}invite                       a ticket for a second node: `mangrove join TICKET`, `mangrove up`"
    ))
}

/// Until somebody asks the process to end: ^C, or SIGTERM where there is such a thing.
pub(super) async fn stop_wanted() {
    #[cfg(unix)]
    if let Ok(mut terminate) = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate()) {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = tokio::signal::ctrl_c() => {}
        }
        return;
    }
    // If not even ^C can be heard, there is nothing to wait for but the node's own end.
    if tokio::signal::ctrl_c().await.is_err() {
        std::future::pending::<()>().await;
    }
}

pub(super) async fn init(context: &mut Context, flags: &NodeFlags) -> Result<(), Failure> {
    let config = configuration(&context.global, flags)?;
    let report = runtime::init(&context.global.data, &config, flags.name.as_deref()).map_err(Failure::refused)?;
    told_made(context, &report, "a new mesh")
}

pub(super) async fn join(context: &mut Context, ticket: &str, flags: &NodeFlags) -> Result<(), Failure> {
    let config = configuration(&context.global, flags)?;
    let ticket = match ticket {
        "-" => {
            let mut text = String::new();
            std::io::stdin().take(TICKET_BYTES_MAX).read_to_string(&mut text)?;
            text
        }
        ticket => ticket.to_owned(),
    };
    let report = runtime::join(&context.global.data, &config, ticket.trim(), flags.name.as_deref()).await.map_err(Failure::refused)?;
    told_made(context, &report, "the mesh")
}

fn told_made(context: &mut Context, report: &runtime::InitReport, mesh: &str) -> Result<(), Failure> {
    let data = &context.global.data;
    let json = json!({
        "node": report.node.to_string(), "name": report.name, "mesh": report.mesh.to_string(), "data": data, "credential": context.credential_path(),
        "administrator": report.password.as_ref().map(|_| ADMINISTRATOR), "password": report.password.as_deref(),
    });
    let sentence = format!(
        "{} ({}) is a node of {mesh} {}; start it with `mangrove up --data {}`",
        report.name,
        report.node.short(),
        report.mesh.short(),
        data.display()
    );
    let told = report.password.as_deref().map(|password| format!("\n{}", told_once(password)));
    context.output.done(&json, sentence + &told.unwrap_or_default())
}

pub(super) async fn config(context: &mut Context, command: ConfigCommand) -> Result<(), Failure> {
    match command {
        ConfigCommand::Show => {
            let text = context.connect().await?.config().await?;
            let value: Value =
                serde_json::from_str(&text).map_err(|error| ClientError::Protocol(format!("its configuration is no JSON: {error}")))?;
            if context.output.json {
                return context.output.json_line(&value);
            }
            show_keys(&mut context.output, "", &value)
        }
        ConfigCommand::Check { file } => {
            let flags = NodeFlags { config: file, ..NodeFlags::default() };
            configuration(&context.global, &flags)?;
            context.output.done(&json!({ "ok": true }), "the configuration is in order")
        }
        ConfigCommand::Example => context.output.bytes(Config::example().as_bytes()),
    }
}

/// A line for each key: its value and where that came from.
fn show_keys(output: &mut Output, prefix: &str, value: &Value) -> Result<(), Failure> {
    let Some(keys) = value.as_object() else { return Ok(()) };
    for (key, entry) in keys {
        match (entry.get("value"), entry.get("from").and_then(Value::as_str)) {
            (Some(value), Some(from)) => output.line(format!("{prefix}{key} = {value}  # {from}"))?,
            _ => show_keys(output, &format!("{prefix}{key}."), entry)?,
        }
    }
    Ok(())
}

pub(super) async fn doctor(context: &mut Context) -> Result<(), Failure> {
    let mut findings = Vec::new();
    let unreachable = look(context, &mut findings).await;
    if context.output.json {
        context.output.json_line(&findings)?;
    } else {
        let mut table = table(&["", "check", "found", "what to do"]);
        for finding in &findings {
            let mark = match finding.severity {
                Severity::Ok => "ok",
                Severity::Warning => "warning",
                Severity::Error => "ERROR",
            };
            table.add_row([mark, &finding.check, &finding.found, &finding.hint]);
        }
        context.output.table(&table)?;
    }
    let worst = findings.iter().map(|finding| finding.severity).max();
    match (worst, unreachable) {
        (Some(Severity::Error), true) => Err(Failure::new(Exit::Unreachable, "the node cannot be reached")),
        (Some(Severity::Error), false) => Err(Failure::refused("something is wrong")),
        _ => Ok(()),
    }
}

/// Looks from the outside in, as far as it gets; `true` if the node could not be reached.
async fn look(context: &Context, findings: &mut Vec<Finding>) -> bool {
    let mut found =
        |severity, check: &str, found: String, hint: String| findings.push(Finding { severity, check: check.into(), found, hint });
    let path = context.credential_path();
    match Credential::read(&path) {
        Ok(_) => found(Severity::Ok, "credential", path.display().to_string(), String::new()),
        Err(error) => {
            found(Severity::Error, "credential", error.to_string(), error.hint());
            return false;
        }
    }
    let options = match context.client_options() {
        Ok(options) => options,
        Err(failure) => {
            found(Severity::Error, "credential", failure.message, failure.hint.unwrap_or_default());
            return false;
        }
    };
    let address = options.address.clone();
    let client = match Client::connect(options).await {
        Ok(client) => client,
        Err(error) => {
            found(Severity::Error, "node", error.to_string(), error.hint().unwrap_or_default());
            return matches!(error, ClientError::Unreachable { .. } | ClientError::Lost { .. });
        }
    };
    let welcome = client.welcome();
    found(Severity::Ok, "node", format!("{} answers at {address}", welcome.name), String::new());
    let own = env!("CARGO_PKG_VERSION");
    if welcome.program != own {
        let text = format!("the node runs {}, this is {own}", welcome.program);
        found(Severity::Warning, "version", text, "use the same version on both sides".into());
    }
    match client.doctor().await {
        Ok(more) => findings.extend(more),
        Err(error) => found(Severity::Error, "node", error.to_string(), error.hint().unwrap_or_default()),
    }
    client.close().await;
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_with_only_a_configuration_is_empty() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(is_empty(&dir.path().join("not there")), Ok(true));
        assert_eq!(is_empty(dir.path()), Ok(true));
        std::fs::write(dir.path().join("mangrove.toml"), "").unwrap();
        assert_eq!(is_empty(dir.path()), Ok(true));
        std::fs::create_dir(dir.path().join("vault")).unwrap();
        assert_eq!(is_empty(dir.path()), Ok(false));
    }
}
