//! The command line: what may be typed, and its help.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Parser, Subcommand, ValueHint};

/// One tree of topics, the same on many nodes, without a coordinator.
#[derive(Debug, Parser)]
#[command(name = "mangrove", version, max_term_width = 110, propagate_version = true, arg_required_else_help = true)]
#[command(after_help = "Exit codes: 0 done, 1 refused, 2 wrong usage, 3 node unreachable, 4 nodes not converged.")]
pub(crate) struct Cli {
    #[command(flatten)]
    pub(crate) global: Global,
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// What every command takes.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Common options")]
pub(crate) struct Global {
    /// The node to talk to, instead of the one named in the credential
    #[arg(long, global = true, value_name = "HOST:PORT", env = "MANGROVE_NODE", hide_env_values = true)]
    pub(crate) node: Option<String>,
    /// The node's data directory, which also holds the operator credential
    #[arg(long, global = true, value_name = "DIR", env = "MANGROVE_DATA", hide_env_values = true, default_value = "./mangrove-data", value_hint = ValueHint::DirPath)]
    pub(crate) data: PathBuf,
    /// The credential, instead of operator.toml in the data directory, or else what `login` has kept
    #[arg(long, global = true, value_name = "FILE", env = "MANGROVE_CREDENTIAL", hide_env_values = true, value_hint = ValueHint::FilePath)]
    pub(crate) credential: Option<PathBuf>,
    /// How long to try to reach the node
    #[arg(long, global = true, value_name = "TIME", default_value = "5s", value_parser = duration)]
    pub(crate) timeout: Duration,
    /// Print JSON instead of tables and sentences
    #[arg(long, global = true)]
    pub(crate) json: bool,
    /// What to log on stderr: off, error, warn, info, debug, trace, or a list such as `info,mangrove_net=debug`
    #[arg(long, global = true, value_name = "FILTER", env = "MANGROVE_LOG", hide_env_values = true)]
    pub(crate) log: Option<String>,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Start a node; on an empty data directory, found a mesh of one node first
    Up(Up),
    /// Found a mesh: make the data directory of its first node
    Init(Init),
    /// Make a ticket with which one node may join the mesh
    Invite(Invite),
    /// Make the data directory of a node that joins a mesh
    Join(Join),
    /// How the node is
    Status,
    /// Nodes of the mesh
    #[command(subcommand)]
    Node(NodeCommand),
    /// Links to neighbours: lag, bytes, and when both were last proved equal
    Links(Links),
    /// Sections: branches that are replicated as a unit
    #[command(subcommand)]
    Section(SectionCommand),
    /// Topics and their definitions
    #[command(subcommand)]
    Topic(TopicCommand),
    /// Update sources: who alone may write a branch
    #[command(subcommand)]
    Source(SourceCommand),
    /// Sessions that outlive their connections
    #[command(subcommand)]
    Session(SessionCommand),
    /// Principals: who may come in by password, and with which roles
    #[command(subcommand)]
    Principal(PrincipalCommand),
    /// Roles: who may do what
    #[command(subcommand)]
    Role(RoleCommand),
    /// All that is said of who may do what, as a script
    #[command(subcommand)]
    Access(AccessCommand),
    /// Say who you are, once: later commands come in as that, where there is no operator credential
    Login(Login),
    /// Forget what `login` has kept
    Logout,
    /// Write a topic's value
    Set(Set),
    /// Change a json topic's value by a JSON Patch (RFC 6902), or a custom topic's by a delta of its own, all of it or nothing
    Patch(Patch),
    /// Events of time series; `set` and `publish` append them
    #[command(subcommand)]
    Event(EventCommand),
    /// Lines of paged topics, which stay at the node where they were made; the first line is 1
    #[command(subcommand)]
    Page(PageCommand),
    /// Send a message to whoever listens: to a topic's subscribers, or to sessions of this node
    #[command(subcommand)]
    Send(SendCommand),
    /// Read values
    Get(Get),
    /// Print changes of topics as they happen, and messages
    Watch(Watch),
    /// Write values from a file or pipe, one JSON object {path, value, time?} a line; makes topics that are missing
    Publish(Publish),
    /// Print values, one JSON object {path, type, value, time} a line, as `publish` takes them
    Export(Export),
    /// Values that lost to a concurrent write or removal
    #[command(subcommand)]
    Displaced(DisplacedCommand),
    /// The configuration
    #[command(subcommand)]
    Config(ConfigCommand),
    /// Look for what is wrong
    Doctor,
    /// Stop the node
    Down,
    /// Three airports, one mesh: replay real flights over real nodes, cut one off, heal, add a fourth, compare
    Demo(Demo),
    /// Measure replication on this machine beside QUIC alone over the same hops
    #[command(subcommand)]
    Bench(Bench),
    /// Print a script that completes this command line in a shell
    Completions {
        /// Which shell
        shell: clap_complete::Shell,
    },
}

#[derive(Debug, Clone, Default, Args)]
pub(crate) struct NodeFlags {
    /// Where to listen; port 0 takes any free one
    #[arg(long, value_name = "HOST:PORT")]
    pub(crate) listen: Option<String>,
    /// The node's name, for people
    #[arg(long, value_name = "NAME")]
    pub(crate) name: Option<String>,
    /// The configuration file, instead of mangrove.toml in the data directory
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub(crate) config: Option<PathBuf>,
    /// Set one key of the configuration, as `table.key=value`; may be repeated
    #[arg(long = "set", value_name = "KEY=VALUE", value_parser = key_value)]
    pub(crate) settings: Vec<(String, String)>,
}

#[derive(Debug, Args)]
pub(crate) struct Up {
    #[command(flatten)]
    pub(crate) flags: NodeFlags,
}

#[derive(Debug, Args)]
pub(crate) struct Init {
    #[command(flatten)]
    pub(crate) flags: NodeFlags,
}

#[derive(Debug, Args)]
pub(crate) struct Join {
    /// The ticket that `mangrove invite` printed; `-` reads it from stdin
    pub(crate) ticket: String,
    #[command(flatten)]
    pub(crate) flags: NodeFlags,
}

#[derive(Debug, Args)]
pub(crate) struct Invite {
    /// `authority` lets the new node invite, renew and revoke too
    #[arg(long, default_value = "member", value_parser = ["member", "authority"])]
    pub(crate) role: String,
    /// How long the ticket stays good
    #[arg(long, default_value = "1h", value_name = "TIME", value_parser = duration)]
    pub(crate) ttl: Duration,
}

#[derive(Debug, Subcommand)]
pub(crate) enum NodeCommand {
    /// All nodes of the mesh
    Ls,
    /// Shut a node out of the mesh for ever
    Revoke {
        /// Its name, its id, or enough first digits of its id
        // Not `node`: that is the id of the flag --node, which would take the value.
        #[arg(value_name = "NODE")]
        which: String,
    },
    /// Take the node itself out of the mesh; it stops
    Leave {
        /// Even if it is the last holder of a section, or has changes that no other node has
        #[arg(long)]
        force: bool,
    },
    /// Give the node itself another name
    Rename {
        /// The new name
        name: String,
    },
    /// Renew the node's certificate
    Renew,
}

#[derive(Debug, Args)]
#[command(args_conflicts_with_subcommands = true)]
pub(crate) struct Links {
    #[command(subcommand)]
    pub(crate) command: Option<LinksCommand>,
}

#[derive(Debug, Subcommand)]
pub(crate) enum LinksCommand {
    /// All links
    Ls,
    /// Keep away from a node, until `unblock` or a restart
    Block {
        /// Its name, its id, or enough first digits of its id
        // Not `node`: that is the id of the flag --node, which would take the value.
        #[arg(value_name = "NODE")]
        which: String,
    },
    /// Talk to a node again
    Unblock {
        /// Its name, its id, or enough first digits of its id
        // Not `node`: that is the id of the flag --node, which would take the value.
        #[arg(value_name = "NODE")]
        which: String,
    },
}

#[derive(Debug, Subcommand)]
pub(crate) enum SectionCommand {
    /// Replicate a branch
    Add {
        /// The path at its top
        root: String,
        #[command(flatten)]
        policy: Policy,
    },
    /// All sections of the mesh
    Ls,
    /// One section
    Show {
        /// The path at its top
        root: String,
    },
    /// Change a section's policy
    Set {
        /// The path at its top
        root: String,
        #[command(flatten)]
        policy: Policy,
    },
    /// Replicate a branch no longer; its topics become local
    Rm {
        /// The path at its top
        root: String,
    },
    /// Hold a section on this node
    Hold {
        /// The path at its top
        root: String,
    },
    /// Hold a section on this node no longer
    Drop {
        /// The path at its top
        root: String,
        /// Even if no other node is known to hold it
        #[arg(long)]
        force: bool,
    },
}

#[derive(Debug, Clone, Args)]
pub(crate) struct Policy {
    /// Who may be a branch's update source in a split: `available` lets each side have one, `quorum` at most one anywhere
    #[arg(long, value_name = "HOW", value_parser = ["available", "quorum"])]
    pub(crate) arbitration: Option<String>,
    /// The nodes that vote in a quorum section, separated by commas
    #[arg(long, value_name = "NODES")]
    pub(crate) voters: Option<String>,
    /// For how long a source in a quorum section may go on without its voters, such as 5s; fixed when the section is added
    #[arg(long, value_name = "TIME")]
    pub(crate) lease: Option<String>,
    /// Where a write must be before it is acknowledged: memory, disk or mesh(k)
    #[arg(long, value_name = "WHERE")]
    pub(crate) durability: Option<String>,
    /// How long a node may be away and still catch up by difference, such as 7d
    #[arg(long, value_name = "TIME")]
    pub(crate) retention: Option<String>,
    /// Any other property; may be repeated
    #[arg(long = "prop", value_name = "KEY=VALUE", value_parser = key_value)]
    pub(crate) properties: Vec<(String, String)>,
}

#[derive(Debug, Subcommand)]
pub(crate) enum TopicCommand {
    /// Make topics of one definition
    Add {
        /// Their paths
        #[arg(required = true)]
        paths: Vec<String>,
        /// json (perhaps with `--prop schema=@FILE`, a JSON Schema), binary, string, int64, double, decimal (with `--prop scale=2`), record (`--prop schema=@FILE`), protobuf (`--proto FILE --message NAME`), custom (`--wasm FILE`), slave (`--prop master=PATH`), timeseries (`--prop of=TYPE`, `keep=N`, `keep_for=TIME`), paged (lines of text, on this node alone) or stateless
        #[arg(long = "type", value_name = "TYPE", required_unless_present_any = ["proto", "wasm"])]
        topic_type: Option<String>,
        /// A property such as `durability=disk`, or `schema=@FILE` to read it from a file; may be repeated
        #[arg(long = "prop", value_name = "KEY=VALUE", value_parser = key_value)]
        properties: Vec<(String, String)>,
        #[command(flatten)]
        files: TypeFiles,
    },
    /// Remove topics; a selector that ends in `//` removes whole branches
    Rm {
        /// A path, or a selector such as `?flights/.*`
        selector: String,
        /// Even those of branches that another session has claimed
        #[arg(long)]
        force: bool,
    },
    /// List topics and their definitions
    Ls {
        /// A path, or a selector such as `?flights//`
        #[arg(default_value = ALL)]
        selector: String,
        /// Only slaves that wait for their master on this node
        #[arg(long)]
        pending: bool,
    },
    /// Everything about one topic, and what has happened at its path
    Show {
        /// Its path
        path: String,
    },
}

#[derive(Debug, Subcommand)]
pub(crate) enum EventCommand {
    /// List the events of a time series, in their order
    Ls {
        /// The topic's path
        path: String,
        /// From this sequence on
        #[arg(long, value_name = "SEQUENCE")]
        from: Option<u64>,
        /// Up to this sequence
        #[arg(long, value_name = "SEQUENCE")]
        to: Option<u64>,
        /// Appended no earlier than this, as in 2013-01-01T05:17:00Z
        #[arg(long, value_name = "TIME", value_parser = time)]
        since: Option<u64>,
        /// Appended no later than this
        #[arg(long, value_name = "TIME", value_parser = time)]
        until: Option<u64>,
        /// Only so many of these, the newest
        #[arg(long, value_name = "N")]
        last: Option<u64>,
    },
    /// Write an event anew, in its place
    Edit {
        /// The topic's path
        path: String,
        /// Which: its sequence, or all of its name, as `event ls` prints it
        event: String,
        /// What it is to be: text of the type that the topic's events are of; `-` reads it from stdin, `@FILE` from a file
        #[arg(allow_hyphen_values = true)]
        value: String,
    },
}

#[derive(Debug, Subcommand)]
pub(crate) enum PageCommand {
    /// Add lines after the last
    Append {
        /// The topic's path
        path: String,
        #[arg(required = true, value_name = "LINE", help = LINES)]
        lines: Vec<String>,
        #[arg(long = "if", value_name = "CONSTRAINT", help = IF_LIST)]
        constraint: Option<String>,
    },
    /// Add lines before a line
    Insert {
        /// The topic's path
        path: String,
        /// Before which; one more than there are, for after the last
        at: u64,
        #[arg(required = true, value_name = "LINE", help = LINES)]
        lines: Vec<String>,
        #[arg(long = "if", value_name = "CONSTRAINT", help = IF_LIST)]
        constraint: Option<String>,
    },
    /// Put lines in the place of as many others
    Replace {
        /// The topic's path
        path: String,
        /// From which on
        from: u64,
        #[arg(required = true, value_name = "LINE", help = LINES)]
        lines: Vec<String>,
        #[arg(long = "if", value_name = "CONSTRAINT", help = IF_LIST)]
        constraint: Option<String>,
    },
    /// Remove lines
    Rm {
        /// The topic's path
        path: String,
        /// The first that goes
        #[arg(required_unless_present = "all")]
        from: Option<u64>,
        /// The last that goes, if it is not only one
        to: Option<u64>,
        /// All lines; the topic stays
        #[arg(long, conflicts_with_all = ["from", "to"])]
        all: bool,
        #[arg(long = "if", value_name = "CONSTRAINT", help = IF_LIST)]
        constraint: Option<String>,
    },
    /// Print lines with their numbers; all of them, unless told otherwise
    Show {
        /// The topic's path
        path: String,
        /// From this line on
        #[arg(long, value_name = "LINE", default_value_t = 1)]
        from: u64,
        /// Only so many
        #[arg(long, value_name = "N")]
        count: Option<u64>,
        /// Only this page, the first of which is 1
        #[arg(long, value_name = "N", conflicts_with_all = ["from", "count"], value_parser = clap::value_parser!(u64).range(1..))]
        page: Option<u64>,
        /// How many lines a page has
        #[arg(long, value_name = "N", default_value_t = 50, requires = "page", value_parser = clap::value_parser!(u64).range(1..))]
        size: u64,
    },
}

const LINES: &str = "Lines; a single `-` reads them from stdin, a single `@FILE` from a file";
const IF_LIST: &str = "Only if this is so, such as `/revision is 17` or `/lines is 0`";

#[derive(Debug, Subcommand)]
pub(crate) enum SessionCommand {
    /// All sessions of the mesh that outlive their connections
    Ls {
        /// Only these, as in: $NodeName is "EWR" and not has desk
        #[arg(long, value_name = "FILTER", default_value = "")]
        filter: String,
    },
    /// What happens to sessions, wherever in the mesh they are, until ^C; those that are there come first
    Watch {
        /// Only of these, as in: $NodeName is "EWR" and not has desk
        #[arg(long, value_name = "FILTER", default_value = "")]
        filter: String,
    },
    /// One session, with what it has claimed
    Show {
        /// Its id, or enough first digits of it
        session: String,
    },
    /// Set or remove user properties of sessions, wherever their clients are
    Set {
        /// An id, or enough first digits of it, or a filter
        session: String,
        /// What to set
        #[arg(value_name = "KEY=VALUE", value_parser = key_value)]
        properties: Vec<(String, String)>,
        /// What to remove
        #[arg(long, value_name = "KEY")]
        unset: Vec<String>,
    },
    /// Give sessions other roles, wherever their clients are
    Roles {
        /// An id, or enough first digits of it, or a filter
        session: String,
        /// Their roles from now on; none for none
        #[arg(required_unless_present = "own")]
        roles: Vec<String>,
        /// Those again that they came with
        #[arg(long, conflicts_with = "roles")]
        own: bool,
    },
    /// Let sessions subscribe to a selector: their clients are told so, and see of it what they may see
    Subscribe {
        /// An id, or enough first digits of it, or a filter
        session: String,
        /// To what
        selector: String,
    },
    /// Let sessions not subscribe to a selector any more
    Unsubscribe {
        /// An id, or enough first digits of it, or a filter
        session: String,
        /// To what
        selector: String,
    },
    /// End sessions for good, wherever their clients are
    Close {
        /// An id, or enough first digits of it, or a filter
        session: String,
    },
}

#[derive(Debug, Subcommand)]
pub(crate) enum PrincipalCommand {
    /// All principals
    Ls,
    /// What is said of one
    Show {
        /// Its name
        principal: String,
    },
    /// Add one; asks for its password
    Add {
        /// Its name
        principal: String,
        /// Its roles, separated by commas
        #[arg(long, value_name = "ROLES", value_delimiter = ',')]
        roles: Vec<String>,
        /// It comes in some other way, such as by a token
        #[arg(long)]
        no_password: bool,
        /// Read the password from stdin
        #[arg(long = "stdin", conflicts_with = "no_password")]
        from_stdin: bool,
    },
    /// Give one another password
    Password {
        /// Its name
        principal: String,
        /// Read the password from stdin
        #[arg(long = "stdin")]
        from_stdin: bool,
    },
    /// Give one these roles instead of any before; none for none
    Roles {
        /// Its name
        principal: String,
        /// Its roles
        #[arg(required = true)]
        roles: Vec<String>,
    },
    /// Remove one; its sessions end at once, wherever they are
    Rm {
        /// Its name
        principal: String,
    },
}

#[derive(Debug, Subcommand)]
pub(crate) enum RoleCommand {
    /// All roles
    Ls,
    /// What is said of one
    Show {
        /// Its name
        role: String,
    },
    /// Say what a role may do on the whole mesh, or where nothing else is said, or which roles it includes; makes it if it is not there
    Set {
        /// Its name
        role: String,
        /// On the mesh: authenticate, view-session, modify-session, register-handler, view-node, control-node, view-security, modify-security; or all, none
        #[arg(long, value_name = "PERMISSIONS", value_delimiter = ',')]
        global: Option<Vec<String>>,
        /// At paths where nothing is assigned: select, read, update, modify, acquire-source, send-to-session, read-history; or all, none
        #[arg(long, value_name = "PERMISSIONS", value_delimiter = ',')]
        default: Option<Vec<String>>,
        /// The roles that it has as well; or none
        #[arg(long, value_name = "ROLES", value_delimiter = ',')]
        includes: Option<Vec<String>>,
    },
    /// Say what a role may do at a path and below it
    Permit {
        /// Its name
        role: String,
        /// Where
        path: String,
        /// select, read, update, modify, acquire-source, send-to-session, read-history; or all, none, or inherit for whatever is said above
        #[arg(required = true)]
        permissions: Vec<String>,
    },
    /// Say nothing of a role any more
    Rm {
        /// Its name
        role: String,
    },
}

#[derive(Debug, Subcommand)]
pub(crate) enum AccessCommand {
    /// All that is said, as statements that would say it again, but for passwords; and what is in conflict
    Ls,
    /// Run a script of statements, one a line: all of them or none
    Script {
        /// The file; `-` reads stdin
        file: String,
        /// Only say what would change
        #[arg(long)]
        dry_run: bool,
    },
    /// What somebody may do at a path, and why
    Why {
        /// A principal, $anonymous, or a session's id
        who: String,
        /// The path
        path: String,
    },
}

#[derive(Debug, Args)]
pub(crate) struct Login {
    /// Who you are; without it, nobody in particular
    pub(crate) principal: Option<String>,
    /// Read a signed token (JWT) from stdin instead of asking for a password
    #[arg(long, conflicts_with = "principal")]
    pub(crate) token: bool,
    /// Read the password from stdin
    #[arg(long = "stdin", requires = "principal")]
    pub(crate) from_stdin: bool,
    /// The mesh that the node must prove to be of, if there is no credential that says so
    #[arg(long, value_name = "ID")]
    pub(crate) mesh: Option<mangrove_crdt::id::MeshId>,
    /// Where to keep it, instead of mangrove/login.toml among your configuration files
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub(crate) to: Option<PathBuf>,
}

#[derive(Debug, Subcommand)]
pub(crate) enum SourceCommand {
    /// Be a branch's update source, or wait to be it, until ^C; prints each change
    Claim(SourceClaim),
    /// All branches that are claimed, or were
    Ls,
    /// One branch, with all who want it
    Show {
        /// The branch
        branch: String,
    },
}

#[derive(Debug, Args)]
pub(crate) struct SourceClaim {
    /// The branch: a topic's path, and all paths below it
    pub(crate) branch: String,
    #[command(flatten)]
    pub(crate) claiming: Claiming,
    /// For how long the branch is held if the connection is lost; without it, it passes on at once
    #[arg(long, value_name = "TIME", value_parser = duration)]
    pub(crate) hold: Option<Duration>,
}

/// How to claim a branch.
#[derive(Debug, Clone, Copy, Args)]
pub(crate) struct Claiming {
    /// Do not wait where another source has the branch
    #[arg(long = "try")]
    pub(crate) no_wait: bool,
    /// Greater goes first among those who wait
    #[arg(long, value_name = "N", default_value_t = 0, allow_negative_numbers = true)]
    pub(crate) priority: i32,
}

/// The selector that matches every topic.
pub(crate) const ALL: &str = "*.*";

const IF: &str = "Only if this is so, such as `no topic`, `no value`, `value is 7`, `/gate is \"B7\" and nothing at /closed`";

#[derive(Debug, Args)]
pub(crate) struct Set {
    /// The topic's path
    pub(crate) path: String,
    /// The value: text of the topic's type; `-` reads it from stdin, `@FILE` from a file
    #[arg(allow_hyphen_values = true)]
    pub(crate) value: String,
    /// Make the topic with this type if it is missing
    #[arg(long = "type", value_name = "TYPE")]
    pub(crate) topic_type: Option<String>,
    /// A property of the topic to be made; may be repeated
    #[arg(long = "prop", value_name = "KEY=VALUE", value_parser = key_value)]
    pub(crate) properties: Vec<(String, String)>,
    #[command(flatten)]
    pub(crate) files: TypeFiles,
    #[arg(long = "if", value_name = "CONSTRAINT", help = IF)]
    pub(crate) constraint: Option<String>,
}

/// Files that say what a topic's values are. The mesh keeps what they say, so nobody else needs them.
#[derive(Debug, Clone, Default, Args)]
pub(crate) struct TypeFiles {
    /// Its values are messages that this `.proto` file defines: type protobuf
    #[arg(long, value_name = "FILE", requires = "message", conflicts_with = "wasm", value_hint = ValueHint::FilePath)]
    pub(crate) proto: Option<PathBuf>,
    /// Which message of the `.proto` file
    #[arg(long, value_name = "NAME", requires = "proto")]
    pub(crate) message: Option<String>,
    /// Where the `.proto` file's imports are looked for, besides its own directory; may be repeated
    #[arg(short = 'I', long = "include", value_name = "DIR", requires = "proto", value_hint = ValueHint::DirPath)]
    pub(crate) includes: Vec<PathBuf>,
    /// Its values are what this WebAssembly module takes: type custom
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub(crate) wasm: Option<PathBuf>,
}

#[derive(Debug, Args)]
pub(crate) struct Patch {
    /// The topic's path
    pub(crate) path: String,
    /// The operations, such as `[{"op":"replace","path":"/gate","value":"B7"}]`; `-` reads them from stdin, `@FILE` from a file
    #[arg(required_unless_present = "delta")]
    pub(crate) patch: Option<String>,
    /// For a custom topic, instead: the bytes of a delta that its module takes; `-` reads them from stdin, `@FILE` from a file
    #[arg(long, value_name = "DELTA", conflicts_with = "patch")]
    pub(crate) delta: Option<String>,
    #[arg(long = "if", value_name = "CONSTRAINT", help = IF)]
    pub(crate) constraint: Option<String>,
}

#[derive(Debug, Subcommand)]
pub(crate) enum SendCommand {
    /// To whoever subscribes to a topic, on every node that holds its section
    Topic {
        /// The topic's path
        path: String,
        #[arg(help = MESSAGE)]
        message: String,
    },
    /// To one session of this node, which need not subscribe to anything
    Session {
        /// Its id, or enough first digits of it
        session: String,
        /// The path of what it is about
        path: String,
        #[arg(help = MESSAGE)]
        message: String,
    },
    /// To whoever subscribes to a topic at this node, but for one session
    Except {
        /// Its id, or enough first digits of it
        session: String,
        /// The topic's path
        path: String,
        #[arg(help = MESSAGE)]
        message: String,
    },
}

const MESSAGE: &str = "What is said; `-` reads it from stdin, `@FILE` from a file";

#[derive(Debug, Args)]
pub(crate) struct Get {
    /// A path, or a selector such as `?flights//`
    pub(crate) selector: String,
    /// Print the value alone and as it is: a string without quotes, a binary, protobuf or custom value as bytes
    #[arg(long, conflicts_with = "json")]
    pub(crate) raw: bool,
}

#[derive(Debug, Args)]
pub(crate) struct Watch {
    /// A path, or a selector such as `?flights//`
    #[arg(default_value = ALL)]
    pub(crate) selector: String,
    /// Show each value's stamp and the time when it was written
    #[arg(long)]
    pub(crate) stamps: bool,
    /// Stop after so many values and messages
    #[arg(long, value_name = "N")]
    pub(crate) count: Option<u64>,
}

#[derive(Debug, Args)]
pub(crate) struct Publish {
    /// The file; `-` reads stdin
    pub(crate) file: String,
    /// The type of topics to be made, where a line doesn't say
    #[arg(long = "type", value_name = "TYPE", default_value = "json")]
    pub(crate) topic_type: String,
    /// Replay by the lines' times, so many times as fast as they happened; without it, as fast as possible
    #[arg(long, value_name = "FACTOR", value_parser = speed)]
    pub(crate) speed: Option<f64>,
    /// Where values must be before they count as written: memory, disk or mesh(k); otherwise as topics and sections say
    #[arg(long, value_name = "WHERE")]
    pub(crate) durability: Option<mangrove_crdt::definition::Durability>,
    /// Begin each topic only if this is so of it, such as `no value`; otherwise none of its values is written
    #[arg(long = "if", value_name = "CONSTRAINT")]
    pub(crate) constraint: Option<String>,
    /// Write as the update source of this branch: claim it, wait until nobody else has it, and give it up in the end
    #[arg(long, value_name = "BRANCH")]
    pub(crate) source: Option<String>,
    /// With --source: do not wait where another source has the branch
    #[arg(long = "try", requires = "source")]
    pub(crate) no_wait: bool,
    /// With --source: greater goes first among those who wait
    #[arg(long, value_name = "N", default_value_t = 0, allow_negative_numbers = true, requires = "source")]
    pub(crate) priority: i32,
}

#[derive(Debug, Args)]
pub(crate) struct Export {
    /// A path, or a selector such as `?flights//`
    #[arg(default_value = ALL)]
    pub(crate) selector: String,
}

#[derive(Debug, Subcommand)]
pub(crate) enum DisplacedCommand {
    /// List displaced values
    Ls {
        /// Of which topics
        #[arg(default_value = ALL)]
        selector: String,
    },
    /// One displaced value
    Show {
        /// Its id, as `ls` shows it
        id: String,
    },
    /// Write a displaced value again, as new
    Restore {
        /// Its id, as `ls` shows it
        id: String,
    },
}

#[derive(Debug, Subcommand)]
pub(crate) enum ConfigCommand {
    /// The configuration that the running node uses
    Show,
    /// Check a configuration file
    Check {
        /// The file, instead of mangrove.toml in the data directory
        #[arg(value_hint = ValueHint::FilePath)]
        file: Option<PathBuf>,
    },
    /// Print a configuration file with every key, its default and what it means
    Example,
}

#[derive(Debug, Clone, Args)]
pub(crate) struct Demo {
    /// Leave the nodes running, and say how to reach and stop them
    #[arg(long)]
    pub(crate) keep: bool,
    /// Replay so many departures a second at each airport; 0 is as fast as possible
    #[arg(long, value_name = "N", default_value_t = 2_000)]
    pub(crate) rate: u32,
    /// Give up if the nodes are not equal by then
    #[arg(long, value_name = "TIME", default_value = "60s", value_parser = duration)]
    pub(crate) patience: Duration,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Bench {
    /// Values a second from one node to another, and what they cost on the wire
    Replicate(BenchReplicate),
    /// The time from a publisher on one node to a subscriber on another, in an idle mesh
    Latency(BenchLatency),
    /// The time until a write to a section is acknowledged, beside one to topics of this node alone
    Publish(BenchPublish),
    /// The time until a fresh node shows all of a large section; killed halfway, it goes on
    Join(BenchJoin),
    /// The cost of becoming equal again after a split: time, bytes, round trips
    CatchUp(BenchCatchUp),
    /// Events a second of a time series from one node to another, and the time to read some of very many
    Events(BenchEvents),
    /// The cost on the wire of a document of which one field changes
    Deltas(BenchDeltas),
    /// What a topic takes of memory, beyond its path and value
    Memory(BenchMemory),
    /// What a mesh costs in which nothing happens
    Idle(BenchIdle),
    /// What update sources cost: to claim many, to have them, and to lose one
    Sources(BenchSources),
    /// What idle sessions cost
    Sessions(BenchSessions),
    /// Receive, or pass on, raw streams: what the others start as their baseline
    #[command(hide = true)]
    Baseline(BenchBaseline),
}

/// Where values are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Source {
    /// Inside a node, and counted at another
    Node,
    /// By a client of one node, and counted by a subscriber of another
    Client,
}

#[derive(Debug, Args)]
pub(crate) struct BenchReplicate {
    /// How long each round measures, once through nodes and once without
    #[arg(long, value_name = "N", default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..=3_600))]
    pub(crate) seconds: u32,
    /// How many rounds; figures are their medians
    #[arg(long, value_name = "N", default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=1_000))]
    pub(crate) rounds: u32,
    /// How many topics are written to in turn; up to half as many values are on their way at once
    #[arg(long, value_name = "N", default_value_t = 50_000, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    pub(crate) topics: u32,
    /// The length of a value
    #[arg(long, value_name = "N", default_value_t = 64, value_parser = clap::value_parser!(u32).range(8..=65_536))]
    pub(crate) bytes: u32,
    /// Where values are written
    #[arg(long, value_enum, default_value_t = Source::Node)]
    pub(crate) from: Source,
}

#[derive(Debug, Args)]
pub(crate) struct BenchEvents {
    /// How many events each round appends
    #[arg(long, value_name = "N", default_value_t = 200_000, value_parser = clap::value_parser!(u32).range(10_000..=1_000_000))]
    pub(crate) events: u32,
    /// How many rounds; figures are their medians
    #[arg(long, value_name = "N", default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=1_000))]
    pub(crate) rounds: u32,
    /// The length of an event
    #[arg(long, value_name = "N", default_value_t = 64, value_parser = clap::value_parser!(u32).range(8..=65_536))]
    pub(crate) bytes: u32,
}

#[derive(Debug, Args)]
pub(crate) struct BenchDeltas {
    /// How many documents there are
    #[arg(long, value_name = "N", default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..=1_000))]
    pub(crate) documents: u32,
    /// How often each of them changes in a round, once one at a time and as often all together
    #[arg(long, value_name = "N", default_value_t = 10, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    pub(crate) changes: u32,
    /// How many rounds; figures are their medians
    #[arg(long, value_name = "N", default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=1_000))]
    pub(crate) rounds: u32,
    /// The length of a document, about
    #[arg(long, value_name = "N", default_value_t = 1_000, value_parser = clap::value_parser!(u32).range(100..=65_536))]
    pub(crate) bytes: u32,
}

#[derive(Debug, Args)]
pub(crate) struct BenchLatency {
    /// How many values each round measures, once through nodes and as many without
    #[arg(long, value_name = "N", default_value_t = 500, value_parser = clap::value_parser!(u32).range(10..=1_000_000))]
    pub(crate) samples: u32,
    /// How many rounds; figures are their medians
    #[arg(long, value_name = "N", default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=1_000))]
    pub(crate) rounds: u32,
    /// The length of a value
    #[arg(long, value_name = "N", default_value_t = 64, value_parser = clap::value_parser!(u32).range(8..=65_536))]
    pub(crate) bytes: u32,
}

#[derive(Debug, Args)]
pub(crate) struct BenchPublish {
    /// How many values each half of a round writes as fast as it can
    #[arg(long, value_name = "N", default_value_t = 300_000, value_parser = clap::value_parser!(u32).range(1..=100_000_000))]
    pub(crate) updates: u32,
    /// How many it writes one by one after that
    #[arg(long, value_name = "N", default_value_t = 1_000, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    pub(crate) singles: u32,
    /// How many topics are written to in turn
    #[arg(long, value_name = "N", default_value_t = 10_000, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    pub(crate) topics: u32,
    /// How many rounds; figures are their medians
    #[arg(long, value_name = "N", default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=1_000))]
    pub(crate) rounds: u32,
    /// The length of a value
    #[arg(long, value_name = "N", default_value_t = 64, value_parser = clap::value_parser!(u32).range(8..=65_536))]
    pub(crate) bytes: u32,
}

/// How durable the section of a joining node is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum JoinDurability {
    /// Stored behind
    Memory,
    /// On the disk before it is acknowledged
    Disk,
}

impl JoinDurability {
    /// As a section's property has it.
    pub(crate) fn text(self) -> &'static str {
        match self {
            JoinDurability::Memory => "memory",
            JoinDurability::Disk => "disk",
        }
    }
}

#[derive(Debug, Args)]
pub(crate) struct BenchJoin {
    /// How many topics there are to be taken over
    #[arg(long, value_name = "N", default_value_t = 1_000_000, value_parser = clap::value_parser!(u32).range(100..=10_000_000))]
    pub(crate) topics: u32,
    /// The length of a value
    #[arg(long, value_name = "N", default_value_t = 100, value_parser = clap::value_parser!(u32).range(8..=65_536))]
    pub(crate) bytes: u32,
    /// The section's durability
    #[arg(long, value_enum, default_value_t = JoinDurability::Memory)]
    pub(crate) durability: JoinDurability,
    /// How many nodes join, one after the other; figures are their medians
    #[arg(long, value_name = "N", default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..=1_000))]
    pub(crate) rounds: u32,
    /// In each round also kill a node halfway, start it again, and see what it still has to be sent
    #[arg(long)]
    pub(crate) kill_halfway: bool,
}

#[derive(Debug, Args)]
pub(crate) struct BenchCatchUp {
    /// How many topics both nodes hold
    #[arg(long, value_name = "N", default_value_t = 1_000_000, value_parser = clap::value_parser!(u32).range(100..=10_000_000))]
    pub(crate) topics: u32,
    /// How many they hold in the run beside it, which is to cost the same
    #[arg(long, value_name = "N", default_value_t = 10_000, value_parser = clap::value_parser!(u32).range(100..=10_000_000))]
    pub(crate) beside: u32,
    /// How many topics change during the split, on one side and then on each; at most half of those that there are
    #[arg(long, value_name = "N", default_value_t = 1_000, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    pub(crate) changes: u32,
    /// The length of a value
    #[arg(long, value_name = "N", default_value_t = 100, value_parser = clap::value_parser!(u32).range(8..=65_536))]
    pub(crate) bytes: u32,
    /// How many splits of each kind; figures are their medians
    #[arg(long, value_name = "N", default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=1_000))]
    pub(crate) rounds: u32,
}

#[derive(Debug, Args)]
pub(crate) struct BenchMemory {
    /// How many topics
    #[arg(long, value_name = "N", default_value_t = 1_000_000, value_parser = clap::value_parser!(u32).range(100..=10_000_000))]
    pub(crate) topics: u32,
    /// The length of a value
    #[arg(long, value_name = "N", default_value_t = 100, value_parser = clap::value_parser!(u32).range(8..=65_536))]
    pub(crate) bytes: u32,
    /// Wait at most so long for a node to come to rest
    #[arg(long, value_name = "TIME", default_value = "90s", value_parser = duration)]
    pub(crate) rest: Duration,
}

#[derive(Debug, Args)]
pub(crate) struct BenchIdle {
    /// How many nodes, each a process
    #[arg(long, value_name = "N", default_value_t = 10, value_parser = clap::value_parser!(u32).range(2..=200))]
    pub(crate) nodes: u32,
    /// How long they are watched
    #[arg(long, value_name = "N", default_value_t = 60, value_parser = clap::value_parser!(u32).range(1..=86_400))]
    pub(crate) seconds: u32,
    /// How long they are left alone before that
    #[arg(long, value_name = "TIME", default_value = "30s", value_parser = duration)]
    pub(crate) settle: Duration,
}

#[derive(Debug, Args)]
pub(crate) struct BenchSources {
    /// How many branches are claimed
    #[arg(long, value_name = "N", default_value_t = 100_000, value_parser = clap::value_parser!(u32).range(1..=200_000))]
    pub(crate) claims: u32,
    /// By how many sessions, once they were claimed by one
    #[arg(long, value_name = "N", default_value_t = 10, value_parser = clap::value_parser!(u32).range(1..=1_000))]
    pub(crate) sessions: u32,
    /// How many topics there are beside them
    #[arg(long, value_name = "N", default_value_t = 1_000_000, value_parser = clap::value_parser!(u32).range(100..=10_000_000))]
    pub(crate) topics: u32,
    /// The length of a value
    #[arg(long, value_name = "N", default_value_t = 100, value_parser = clap::value_parser!(u32).range(8..=65_536))]
    pub(crate) bytes: u32,
    /// How many nodes join, with sources and without, and how often each kind of failover is made
    #[arg(long, value_name = "N", default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..=1_000))]
    pub(crate) rounds: u32,
    /// How long the idle link is watched
    #[arg(long, value_name = "N", default_value_t = 60, value_parser = clap::value_parser!(u32).range(1..=86_400))]
    pub(crate) seconds: u32,
    /// How long it is left alone before that
    #[arg(long, value_name = "TIME", default_value = "30s", value_parser = duration)]
    pub(crate) settle: Duration,
}

#[derive(Debug, Args)]
pub(crate) struct BenchSessions {
    /// How many sessions there are whose clients are away
    #[arg(long, value_name = "N", default_value_t = 100_000, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    pub(crate) sessions: u32,
    /// How many there are whose clients are connected, each by a socket of its own
    #[arg(long, value_name = "N", default_value_t = 2_000, value_parser = clap::value_parser!(u32).range(1..=20_000))]
    pub(crate) connected: u32,
    /// How long all is watched each time
    #[arg(long, value_name = "N", default_value_t = 30, value_parser = clap::value_parser!(u32).range(1..=86_400))]
    pub(crate) seconds: u32,
    /// How long it is left alone before that
    #[arg(long, value_name = "TIME", default_value = "20s", value_parser = duration)]
    pub(crate) settle: Duration,
}

#[derive(Debug, Args)]
pub(crate) struct BenchBaseline {
    /// Where to pass everything on to; without it, receive
    #[arg(long, requires = "mesh")]
    pub(crate) to: Option<std::net::SocketAddr>,
    /// The mesh that is there
    #[arg(long, requires = "to")]
    pub(crate) mesh: Option<mangrove_crdt::id::MeshId>,
}

fn time(text: &str) -> Result<u64, String> {
    super::output::parse_time(text).ok_or_else(|| "expected a time such as 2013-01-01T05:17:00Z".into())
}

fn key_value(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((key, value)) if !key.is_empty() => Ok((key.into(), value.into())),
        _ => Err("expected KEY=VALUE".into()),
    }
}

fn speed(text: &str) -> Result<f64, String> {
    match text.trim_end_matches('x').parse::<f64>() {
        Ok(factor) if factor.is_finite() && factor > 0.0 => Ok(factor),
        _ => Err("expected a factor above 0, such as 60".into()),
    }
}

/// A number with one of the units ms, s, m, h, d.
pub(crate) fn duration(text: &str) -> Result<Duration, String> {
    let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let unit_ms: u64 = match unit {
        "ms" => 1,
        "s" => 1_000,
        "m" => 60_000,
        "h" => 3_600_000,
        "d" => 86_400_000,
        _ => return Err("expected a number with a unit, such as 500ms, 30s, 10m, 2h or 7d".into()),
    };
    let ms = number.parse::<u64>().ok().and_then(|number| number.checked_mul(unit_ms));
    ms.map(Duration::from_millis).ok_or_else(|| "expected a whole number before the unit".into())
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn a_node_named_as_an_argument_is_not_the_node_to_talk_to() {
        let cli = Cli::parse_from(["mangrove", "links", "block", "JFK"]);
        assert_eq!(cli.global.node, None);
        let cli = Cli::parse_from(["mangrove", "node", "revoke", "JFK", "--node", "host:1"]);
        assert_eq!(cli.global.node.as_deref(), Some("host:1"));
    }

    /// A subcommand's argument of the same name would be taken for the common option: `links block JFK` for `--node JFK`.
    #[test]
    fn no_argument_is_named_like_a_common_option() {
        fn look(command: &clap::Command, common: &[clap::Id]) {
            for argument in command.get_arguments() {
                assert!(!common.contains(argument.get_id()), "{}: {}", command.get_name(), argument.get_id());
            }
            command.get_subcommands().for_each(|command| look(command, common));
        }
        let program = Cli::command();
        let common: Vec<clap::Id> = program.get_arguments().map(|argument| argument.get_id().clone()).collect();
        assert!(common.len() >= 6);
        program.get_subcommands().for_each(|command| look(command, &common));
    }

    #[test]
    fn durations_have_units() {
        assert_eq!(duration("500ms"), Ok(Duration::from_millis(500)));
        assert_eq!(duration("7d"), Ok(Duration::from_secs(7 * 86_400)));
        for wrong in ["", "5", "s", "-1s", "1.5h", "99999999999999999999s", "18446744073709551615d", "5 s"] {
            assert!(duration(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn pairs_have_a_key() {
        assert_eq!(key_value("a=b=c"), Ok(("a".into(), "b=c".into())));
        assert_eq!(key_value("a="), Ok(("a".into(), String::new())));
        assert!(key_value("=b").is_err() && key_value("a").is_err());
    }

    #[test]
    fn speeds_are_above_nothing() {
        assert_eq!(speed("60x"), Ok(60.0));
        assert!(speed("0").is_err() && speed("nan").is_err() && speed("-1").is_err() && speed("inf").is_err());
    }
}
