//! Who may do what: principals, roles, permissions; and logging in.

use std::io::{IsTerminal, Read};
use std::path::PathBuf;

use mangrove_crdt::access::fact::quoted;
use mangrove_crdt::access::script::SCRIPT_BYTES_MAX;
use serde_json::json;
use zeroize::Zeroizing;

use super::args::{AccessCommand, Login as LoginArgs, PrincipalCommand, RoleCommand};
use super::{Context, Failure, all_pages};
use crate::client::{Client, ClientOptions, Credential, Proof};
use crate::passwords::{self, PASSWORD_BYTES_MAX};
use crate::protocol::{ChangeRow, ConflictRow, Login, Page, Secret, WhyReport};

/// The longest token that fits a hello.
const TOKEN_BYTES_MAX: u64 = 3 << 10;

pub(super) async fn principal(context: &mut Context, command: PrincipalCommand) -> Result<(), Failure> {
    match command {
        PrincipalCommand::Ls => {
            let client = context.connect().await?;
            let rows = all_pages(async |page| client.principals(page).await).await?;
            context.output.listing(&rows, &["principal", "roles", "password", ""], |row| {
                let yes_no = if row.password { "yes" } else { "no" };
                vec![row.principal.clone(), row.roles.join(" "), yes_no.into(), if row.conflict { "in conflict" } else { "" }.into()]
            })
        }
        PrincipalCommand::Show { principal } => show(context, &format!("principal {principal}")).await,
        PrincipalCommand::Add { principal, roles, no_password, from_stdin } => {
            let mut script = format!("principal {principal} roles {}", list(&roles));
            if !no_password {
                script.push_str(&format!("\nprincipal {principal} password {}", hash(&principal, from_stdin).await?));
            }
            change(context, &script).await
        }
        PrincipalCommand::Password { principal, from_stdin } => {
            let script = format!("principal {principal} password {}", hash(&principal, from_stdin).await?);
            change(context, &script).await
        }
        PrincipalCommand::Roles { principal, roles } => change(context, &format!("principal {principal} roles {}", list(&roles))).await,
        PrincipalCommand::Rm { principal } => change(context, &format!("principal {principal} remove")).await,
    }
}

pub(super) async fn role(context: &mut Context, command: RoleCommand) -> Result<(), Failure> {
    match command {
        RoleCommand::Ls => {
            let rows = context.connect().await?.roles().await?;
            context.output.listing(&rows, &["role", "includes", "on the mesh", "by default", "paths"], |row| {
                vec![row.role.clone(), row.includes.join(" "), row.global.join(" "), row.default.join(" "), row.places.to_string()]
            })
        }
        RoleCommand::Show { role } => show(context, &format!("role {role}")).await,
        RoleCommand::Set { role, global, default, includes } => {
            let said = [("global", global), ("default", default), ("includes", includes)];
            let said = said.into_iter().filter_map(|(what, names)| Some(format!("role {role} {what} {}", list(&names?))));
            let script: Vec<String> = said.collect();
            if script.is_empty() {
                return Err(Failure::usage("nothing to set").hint("say --global, --default or --includes"));
            }
            change(context, &script.join("\n")).await
        }
        RoleCommand::Permit { role, path, permissions } => {
            change(context, &format!("role {role} at {} {}", quoted(&path), permissions.join(" "))).await
        }
        RoleCommand::Rm { role } => change(context, &format!("role {role} remove")).await,
    }
}

pub(super) async fn access(context: &mut Context, command: AccessCommand) -> Result<(), Failure> {
    match command {
        AccessCommand::Ls => show(context, "").await,
        AccessCommand::Script { file, dry_run } => {
            let mut script = String::new();
            let limit = SCRIPT_BYTES_MAX as u64 + 1;
            match file.as_str() {
                "-" => std::io::stdin().take(limit).read_to_string(&mut script)?,
                file => {
                    let opened = std::fs::File::open(file).map_err(|error| Failure::usage(format!("{file}: {error}")))?;
                    opened.take(limit).read_to_string(&mut script)?
                }
            };
            let changes = context.connect().await?.run_access_script(&script, dry_run).await?;
            told(context, &changes, dry_run)
        }
        AccessCommand::Why { who, path } => {
            let report = context.connect().await?.access_why(&who, &path).await?;
            explain(context, &report)
        }
    }
}

/// Everything that is said, or what is said of one role or principal; and what is in conflict.
async fn show(context: &mut Context, about: &str) -> Result<(), Failure> {
    let client = context.connect().await?;
    let (mut statements, mut next, conflicts) = client.access(about, Page::default()).await?;
    while let Some(after) = next {
        let page = Page { after: Some(after), ..Page::default() };
        let (more, rest, _) = client.access(about, page).await?;
        statements.extend(more);
        next = rest;
    }
    if context.output.json {
        return context.output.json_line(&json!({ "statements": statements, "conflicts": conflicts }));
    }
    if statements.is_empty() && !about.is_empty() {
        return Err(Failure::refused(format!("nothing is said of {about}")));
    }
    for statement in &statements {
        context.output.line(statement)?;
    }
    for ConflictRow { statements } in &conflicts {
        context.output.line("# in conflict, so the more restrictive counts; say one of these again:")?;
        for statement in statements {
            context.output.line(format!("#   {statement}"))?;
        }
    }
    Ok(())
}

async fn change(context: &mut Context, script: &str) -> Result<(), Failure> {
    let changes = context.connect().await?.run_access_script(script, false).await?;
    told(context, &changes, false)
}

fn told(context: &mut Context, changes: &[ChangeRow], dry_run: bool) -> Result<(), Failure> {
    if context.output.json {
        return context.output.json_line(&json!({ "changes": changes, "done": !dry_run }));
    }
    for ChangeRow { before, after } in changes {
        for before in before {
            context.output.line(format!("- {before}"))?;
        }
        context.output.line(format!("+ {after}"))?;
    }
    match (changes.is_empty(), dry_run) {
        (true, _) => context.output.line("nothing to change"),
        (false, true) => context.output.line("nothing was changed: this was a dry run"),
        (false, false) => Ok(()),
    }
}

fn explain(context: &mut Context, report: &WhyReport) -> Result<(), Failure> {
    if context.output.json {
        return context.output.json_line(report);
    }
    let or_nothing = |names: &[String]| if names.is_empty() { "nothing".to_owned() } else { names.join(" ") };
    context.output.record(&[
        ("who", report.who.clone()),
        ("roles", report.roles.join(" ")),
        ("on the mesh", or_nothing(&report.global)),
        ("path", report.path.clone()),
        ("there", or_nothing(&report.permissions)),
    ])?;
    report.because.iter().try_for_each(|because| context.output.line(format!("  {because}")))
}

fn list(names: &[String]) -> String {
    if names.is_empty() { "none".into() } else { names.join(" ") }
}

/// A new password's hash. The password itself goes nowhere.
async fn hash(principal: &str, from_stdin: bool) -> Result<String, Failure> {
    let password = match from_stdin {
        true => secret_from_stdin(PASSWORD_BYTES_MAX as u64)?,
        false => {
            let password = ask(&format!("New password of {principal}"))?;
            if *ask("The same again")? != *password {
                return Err(Failure::usage("the two are not the same"));
            }
            password
        }
    };
    let hashed = tokio::task::spawn_blocking(move || passwords::hash(password.as_bytes())).await;
    hashed.map_err(|error| Failure::refused(error.to_string()))?.map_err(Failure::usage)
}

/// Asks at the terminal for something that is not to be shown.
fn ask(what: &str) -> Result<Zeroizing<String>, Failure> {
    if !std::io::stdin().is_terminal() {
        return Err(Failure::usage("there is no terminal to ask for a password").hint("pipe it in, with --stdin"));
    }
    let answer = rpassword::prompt_password(format!("{what}: "));
    answer.map(Zeroizing::new).map_err(|error| Failure::refused(format!("the password could not be read: {error}")))
}

fn secret_from_stdin(bytes_max: u64) -> Result<Zeroizing<String>, Failure> {
    let mut text = Zeroizing::new(String::new());
    std::io::stdin().take(bytes_max + 2).read_to_string(&mut text)?;
    let secret = Zeroizing::new(text.trim_end_matches(['\r', '\n']).to_owned());
    match secret.len() as u64 <= bytes_max {
        true => Ok(secret),
        false => Err(Failure::usage(format!("it has more than {bytes_max} bytes"))),
    }
}

/// Where `mangrove login` keeps who somebody is.
pub(super) fn login_path() -> Option<PathBuf> {
    let config = std::env::var_os("XDG_CONFIG_HOME").map(PathBuf::from).filter(|dir| dir.is_absolute());
    let config = config.or_else(|| std::env::var_os("HOME").map(|home| PathBuf::from(home).join(".config")));
    config.map(|config| config.join("mangrove").join("login.toml"))
}

pub(super) async fn login(context: &mut Context, args: &LoginArgs) -> Result<(), Failure> {
    let file =
        args.to.clone().or_else(login_path).ok_or_else(|| Failure::usage("where to keep it? HOME is not set").hint("say --to FILE"))?;
    let known = Credential::read(&context.credential_path()).ok();
    let mesh = args.mesh.or(known.as_ref().map(|known| known.mesh)).ok_or_else(|| {
        Failure::usage("which mesh? The node must prove to be of it").hint("say --mesh ID, as `mangrove status` shows it on any node")
    })?;
    let node = context.global.node.clone().or(known.map(|known| known.node));
    let node = node.ok_or_else(|| Failure::usage("which node?").hint("say --node HOST:PORT"))?;
    let login = match (&args.principal, args.token) {
        (_, true) => Login::Token(Secret::new(secret_from_stdin(TOKEN_BYTES_MAX)?.as_bytes())),
        (None, false) => Login::Anonymous,
        (Some(principal), false) => {
            let password =
                if args.from_stdin { secret_from_stdin(PASSWORD_BYTES_MAX as u64)? } else { ask(&format!("Password of {principal}"))? };
            Login::Password { principal: principal.clone(), password: Secret::new(password.as_bytes()) }
        }
    };
    let who = match &login {
        Login::Password { principal, .. } => principal.clone(),
        Login::Token(_) => "whom the token names".into(),
        Login::Anonymous => "nobody in particular".into(),
    };
    let credential = Credential { node, mesh, proof: Proof::Login(login) };
    // What does not work is not kept.
    let options = ClientOptions { connect_timeout: context.global.timeout, ..ClientOptions::new(credential.clone()) };
    let client = Client::connect(options).await?;
    let name = client.welcome().name.clone();
    client.close().await;
    if let Some(dir) = file.parent() {
        std::fs::create_dir_all(dir).map_err(|error| Failure::refused(format!("{}: {error}", dir.display())))?;
    }
    credential.write(&file)?;
    let json = json!({ "node": name, "mesh": mesh.to_string(), "credential": file });
    context.output.done(&json, format!("{name} lets you in as {who}; kept in {}", file.display()))
}

pub(super) fn logout(context: &mut Context) -> Result<(), Failure> {
    let file = login_path().ok_or_else(|| Failure::usage("HOME is not set"))?;
    match std::fs::remove_file(&file) {
        Ok(()) => context.output.done(&json!({ "removed": file }), format!("{} is gone", file.display())),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Err(Failure::refused(format!("there is no {}", file.display()))),
        Err(error) => Err(Failure::refused(format!("{}: {error}", file.display()))),
    }
}
