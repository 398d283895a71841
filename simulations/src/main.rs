//! The simulator's program: the outermost shell around [`mangrove_simulations::cli`].

use std::process::ExitCode;

/// A node allocates for every update and frame, and this allocator takes half the time of the C library's.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    mangrove_simulations::cli::main()
}
