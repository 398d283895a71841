//! The simulator's program. What it will simulate is the pure half of the root package, [`mangrove::node`], which is all that this
//! package builds: its dependency tree holds no runtime, no sockets and no disk, and continuous integration checks that it stays so.

use std::process::ExitCode;

fn main() -> ExitCode {
    eprintln!("error: mangrove-sim {} knows no scenarios", env!("CARGO_PKG_VERSION"));
    // The exit code for wrong usage, as in `mangrove`.
    ExitCode::from(2)
}
