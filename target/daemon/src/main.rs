//! The binary `ringside`. Everything is in the library of the same name, where tests reach it.
#![forbid(unsafe_code)]

use std::process::ExitCode;

fn main() -> ExitCode {
    ringside::cli::main()
}
