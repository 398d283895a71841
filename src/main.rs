//! The program: everything it does is in [`mangrove::cli`].

use std::process::ExitCode;

/// A node allocates for every update and frame, and this allocator takes half the time of the C library's.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    mangrove::cli::main()
}
