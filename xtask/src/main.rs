//! The project's own chores: `cargo xtask check | floors | test | tools | bench | dist`.
//!
//! Everything that continuous integration does is a command here, so that anybody can do the same at home. It builds
//! on cargo and Debian's archive only; it installs nothing and starts no service of the machine's.

#![forbid(unsafe_code)]

mod bench;
mod check;
mod debian;
mod dist;
mod floors;
mod licences;
mod process;
mod programs;
mod test;
mod workspace;

use std::process::ExitCode;

const USAGE: &str = "\
cargo xtask COMMAND

  check                             what is checked without running anything: format, floors, licences, unsafe code, pages,
                                    clippy, documentation
  floors                            which crate uses which, against the table in ARCHITECTURE.md
  test [-- CARGO TEST ARGUMENTS]    fetch what tests compare with, build, run every test (kernel tests need root)
  tools                             only fetch what tests compare with, and print where it is
  dist [--debug | --binary FILE] [--out DIR]
                                    what is given away, in target/dist: a tarball, a Debian package, their sums
  bench SUITE [--runs N] [--json]   what Sampan promises of speed and memory, measured beside the bare kernel and the peers;
                                    `bench help` lists the suites (needs root)
";

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = args.iter().map(String::as_str).collect();
    let done = match words.as_slice() {
        ["check"] => check::check(),
        ["floors"] => floors::check(),
        ["test"] => test::test(&[]),
        ["test", "--", rest @ ..] => test::test(rest),
        ["tools"] => debian::print_all(),
        ["bench", rest @ ..] => bench::bench(rest),
        ["dist", rest @ ..] => dist::dist(rest),
        ["help" | "-h" | "--help"] => {
            print!("{USAGE}");
            return ExitCode::SUCCESS;
        }
        _ => {
            eprint!("{USAGE}");
            return ExitCode::from(2);
        }
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("xtask: {error:#}");
            ExitCode::FAILURE
        }
    }
}
