//! The simulator's program: the outermost shell around [`mangrove_simulations::cli`].

use std::process::ExitCode;

fn main() -> ExitCode {
    mangrove_simulations::cli::main()
}
