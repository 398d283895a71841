//! The program's commands.
//!
//! A command is a function that asks a node over [`crate::client`] and prints what it says: a table or a sentence for people, JSON with
//! `--json`. Whatever goes wrong becomes one [`Failure`](failure::Failure) with an exit code; nothing else ends the program.

use std::cell::RefCell;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::{CommandFactory, Parser};

use crate::client::{Client, ClientError, ClientOptions, ClientState, Credential, SessionOptions};
use crate::protocol::{Code, Page};

mod access;
mod args;
mod events;
mod failure;
mod local;
mod mesh;
mod output;
mod paged;
mod publish;
mod reader;
mod session;
mod source;
mod topics;
mod watch;

pub(crate) use args::{
    Bench, BenchBaseline, BenchCatchUp, BenchDeltas, BenchEvents, BenchIdle, BenchJoin, BenchLatency, BenchMemory, BenchPublish,
    BenchReplicate, BenchSessions, BenchSources, Demo, JoinDurability, Source,
};
pub(crate) use failure::{Exit, Failure, refusal_text};
pub(crate) use output::{Output, bytes_text, count_text, duration_text, progress, table};

use args::{Cli, Command, Global};

/// Runs the program with the process's own arguments.
pub fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            // Help and version go to stdout, where nobody may be reading any more.
            let _ = error.print();
            return ExitCode::from(u8::try_from(error.exit_code()).unwrap_or(Exit::Usage as u8));
        }
    };
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return Failure::refused(format!("cannot start threads: {error}")).report(),
    };
    let result = runtime.block_on(run(cli));
    // A thread that still waits for stdin must not keep the program from ending.
    runtime.shutdown_background();
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => failure.report(),
    }
}

async fn run(cli: Cli) -> Result<(), Failure> {
    let mut context = Context { output: Output::new(cli.global.json), global: cli.global, clients: RefCell::default() };
    let result = command(&mut context, cli.command).await;
    // What was printed before a failure is still true.
    let flushed = context.output.flush();
    // A node that is not told keeps the session until it has heard nothing for long enough.
    for client in context.clients.take() {
        client.close().await;
    }
    result.and(flushed)
}

/// All rows of a list that comes page by page.
async fn all_pages<T>(ask: impl AsyncFn(Page) -> Result<(Vec<T>, Option<String>), ClientError>) -> Result<Vec<T>, ClientError> {
    let (mut rows, mut page) = (Vec::new(), Page::default());
    loop {
        let (found, next) = ask(page).await?;
        rows.extend(found);
        match next {
            Some(after) => page = Page { after: Some(after), ..Page::default() },
            None => return Ok(rows),
        }
    }
}

async fn command(context: &mut Context, command: Command) -> Result<(), Failure> {
    // A node's log goes by its configuration; other commands log only if they are told to.
    if let (Some(filter), false) = (&context.global.log, matches!(command, Command::Up(_))) {
        crate::logging::start(Some(filter)).map_err(Failure::usage)?;
    }
    match command {
        Command::Up(up) => local::up(context, &up.flags).await,
        Command::Init(init) => local::init(context, &init.flags).await,
        Command::Join(join) => local::join(context, &join.ticket, &join.flags).await,
        Command::Config(command) => local::config(context, command).await,
        Command::Doctor => local::doctor(context).await,
        Command::Invite(invite) => mesh::invite(context, &invite).await,
        Command::Status => mesh::status(context).await,
        Command::Node(command) => mesh::node(context, command).await,
        Command::Links(links) => mesh::links(context, links.command).await,
        Command::Section(command) => mesh::section(context, command).await,
        Command::Down => mesh::down(context).await,
        Command::Topic(command) => topics::topic(context, command).await,
        Command::Source(command) => source::source(context, command).await,
        Command::Session(command) => session::session(context, command).await,
        Command::Principal(command) => access::principal(context, command).await,
        Command::Role(command) => access::role(context, command).await,
        Command::Access(command) => access::access(context, command).await,
        Command::Login(login) => access::login(context, &login).await,
        Command::Logout => access::logout(context),
        Command::Set(set) => topics::set(context, set).await,
        Command::Patch(patch) => topics::patch(context, patch).await,
        Command::Event(command) => events::event(context, command).await,
        Command::Page(command) => paged::page(context, command).await,
        Command::Send(command) => watch::send(context, command).await,
        Command::Get(get) => topics::get(context, &get).await,
        Command::Watch(watch) => watch::watch(context, &watch).await,
        Command::Export(export) => topics::export(context, &export.selector).await,
        Command::Displaced(command) => topics::displaced(context, command).await,
        Command::Publish(publish) => publish::publish(context, &publish).await,
        Command::Demo(demo) => crate::demo::run(&mut context.output, &demo).await,
        Command::Bench(bench) => crate::bench::run(&mut context.output, &bench).await,
        Command::Completions { shell } => {
            let mut script = Vec::new();
            clap_complete::generate(shell, &mut Cli::command(), "mangrove", &mut script);
            context.output.bytes(&script)
        }
    }
}

/// What commands share.
struct Context {
    global: Global,
    output: Output,
    /// Sessions to be closed in the end.
    clients: RefCell<Vec<Client>>,
}

impl Context {
    fn credential_path(&self) -> PathBuf {
        let operator = || self.global.data.join("operator.toml");
        let login = || access::login_path().filter(|login| !operator().exists() && login.exists());
        self.global.credential.clone().or_else(login).unwrap_or_else(operator)
    }

    fn client_options(&self) -> Result<ClientOptions, Failure> {
        let credential = Credential::read(&self.credential_path())?;
        let options = ClientOptions { connect_timeout: self.global.timeout, ..ClientOptions::new(credential) };
        Ok(match &self.global.node {
            Some(address) => options.at(address),
            None => options,
        })
    }

    /// For what runs until somebody ends it: it goes on at another node if it loses its own, and says so.
    async fn connect_to_stay(&self, reconnect_timeout: Option<Duration>) -> Result<Client, Failure> {
        let session = SessionOptions { reconnect_timeout, ..SessionOptions::default() };
        let client = match Client::connect(ClientOptions { session: Some(session), ..self.client_options()? }).await {
            // A node that cannot write may yet be listened to.
            Err(ClientError::Refused(refusal)) if refusal.code != Code::BadCredential => return self.connect().await,
            connected => connected?,
        };
        self.clients.borrow_mut().push(client.clone());
        let (watched, lost) = (client.clone(), "lost the node; looking for another");
        tokio::spawn(async move {
            loop {
                match watched.changed(watched.state()).await {
                    ClientState::Active => eprintln!("going on at {}", watched.welcome().name),
                    ClientState::Recovering => eprintln!("{lost}"),
                    ClientState::Closed => return,
                }
            }
        });
        Ok(client)
    }

    async fn connect(&self) -> Result<Client, Failure> {
        let client = Client::connect(self.client_options()?).await?;
        self.clients.borrow_mut().push(client.clone());
        Ok(client)
    }
}
