//! What `up` says while it works: a line a step on standard error; on a terminal a spinner with the present step.

use std::io::IsTerminal as _;
use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};
use sampan_client::pack::Progress;
use sampan_client::pack::compile::Binary;

/// Who speaks, and how much.
pub struct Steps {
    quiet: bool,
    spinner: Option<ProgressBar>,
    last: String,
}

impl Steps {
    pub fn new(quiet: bool) -> Self {
        Self { quiet, spinner: None, last: String::new() }
    }

    /// Something is done.
    pub fn done(&mut self, text: &str) {
        if self.quiet {
            return;
        }
        match &self.spinner {
            Some(spinner) => spinner.suspend(|| eprintln!("{text}")),
            None => eprintln!("{text}"),
        }
    }

    /// Something is waited for: on a terminal it is shown until the next step, elsewhere it is a line, said once.
    pub fn waiting(&mut self, text: &str) {
        if self.quiet || self.last == text {
            return;
        }
        self.last = text.into();
        if !std::io::stderr().is_terminal() {
            eprintln!("{text}");
            return;
        }
        let spinner = self.spinner.get_or_insert_with(|| {
            let style = ProgressStyle::with_template("{spinner} {msg} {elapsed:.dim}");
            let spinner = ProgressBar::new_spinner().with_style(style.expect("the template is a constant"));
            spinner.enable_steady_tick(Duration::from_millis(100));
            spinner
        });
        spinner.set_message(text.to_owned());
    }

    /// Takes the spinner away, before something else is said.
    pub fn end(&mut self) {
        if let Some(spinner) = self.spinner.take() {
            spinner.finish_and_clear();
        }
    }
}

impl Drop for Steps {
    fn drop(&mut self) {
        self.end();
    }
}

/// What is said while packing, which happens on a thread of its own and beside the compiler's own output.
pub struct PackSteps {
    pub quiet: bool,
}

impl Progress for PackSteps {
    fn compiling(&mut self, command: &str) {
        if !self.quiet {
            eprintln!("compiling: {command}");
        }
    }

    fn packing(&mut self, _binary: &Binary) {}
}
