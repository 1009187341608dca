//! The sealed start against the real kernel: a supervisor, its roles, and containers.
//!
//! This one binary is everything: the tests, `supervisor`, `logger` and `edge` (as `sampan` is), and the program that
//! runs inside the containers. Its root file system holds nothing but itself and the libraries it is linked with.
//! Needs root; leaves nothing behind.

#![forbid(unsafe_code)]

mod harness;
mod inside;
mod tests;

use std::process::ExitCode;

fn main() -> ExitCode {
    let mut args = std::env::args_os().skip(1);
    let first = args.next();
    match first.as_deref().and_then(|word| word.to_str()) {
        Some("supervisor") => sampan_runtime::supervisor::main(args),
        Some("logger") => sampan_runtime::logger::main(),
        Some("edge") => harness::edge(),
        Some("inside") => inside::main(args),
        first => {
            let rest: Vec<String> = args.filter_map(|word| word.into_string().ok()).collect();
            let words: Vec<&str> = first.into_iter().chain(rest.iter().map(String::as_str)).collect();
            tests::run(&words)
        }
    }
}
