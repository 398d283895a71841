//! The program: everything it does is in [`mangrove::cli`].

use std::process::ExitCode;

fn main() -> ExitCode {
    mangrove::cli::main()
}
