//! `sampan completions SHELL`: what a shell completes, from the same words that are parsed.

use clap::CommandFactory as _;
use clap_complete::Shell;

use super::args::Cli;
use super::failure::Failure;
use super::output;

/// Prints the script for a shell.
pub fn completions(shell: Shell) -> Result<(), Failure> {
    output::print(&script(shell))
}

fn script(shell: Shell) -> String {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Cli::command(), "sampan", &mut script);
    String::from_utf8(script).expect("commands, options and help are UTF-8, and so is what is made of them")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_shell_s_script_knows_the_commands() {
        for shell in [Shell::Bash, Shell::Zsh, Shell::Fish, Shell::Elvish, Shell::PowerShell] {
            let script = script(shell);
            for word in ["up", "run", "daemon", "uninstall", "memory"] {
                assert!(script.contains(word), "{shell}: no {word}");
            }
        }
    }
}
