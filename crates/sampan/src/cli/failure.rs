//! A command's failure: an exit code, and words for people.

use std::error::Error;
use std::io;
use std::process::ExitCode;

use sampan_client::ClientError;

/// Why a command failed.
#[derive(Debug)]
pub struct Failure {
    message: String,
    hint: Option<String>,
    code: u8,
    /// Whoever read our output has gone, or it was said already.
    quiet: bool,
}

impl Failure {
    pub fn new(message: impl Into<String>) -> Self {
        Self { message: message.into(), hint: None, code: 1, quiet: false }
    }

    /// The error and what it came from, in one line.
    pub fn of(error: &dyn Error) -> Self {
        let mut message = error.to_string();
        let mut source = error.source();
        while let Some(error) = source {
            message.push_str(&format!(": {error}"));
            source = error.source();
        }
        Self::new(message)
    }

    /// What was tried before the error: "import rootfs.tar".
    pub fn about(self, what: &str) -> Self {
        Self { message: format!("{what}: {}", self.message), ..self }
    }

    /// Nothing more is to be said; the command ends with this code.
    pub fn silent(code: u8) -> Self {
        Self { code, quiet: true, ..Self::new("") }
    }

    pub fn with_hint(self, hint: impl Into<String>) -> Self {
        Self { hint: Some(hint.into()), ..self }
    }

    pub fn with_code(self, code: u8) -> Self {
        if self.quiet { self } else { Self { code, ..self } }
    }

    /// With this exit code, unless a special one was given.
    pub fn with_default_code(self, code: u8) -> Self {
        if self.code == 1 { self.with_code(code) } else { self }
    }

    /// Says it, and gives the exit code back.
    pub fn report(self) -> ExitCode {
        if !self.quiet {
            print_error(&self.message, self.hint.as_deref());
        }
        ExitCode::from(self.code)
    }

    #[cfg(test)]
    pub fn parts(&self) -> (&str, Option<&str>, u8) {
        (&self.message, self.hint.as_deref(), self.code)
    }
}

/// Says an error and what to do about it on standard error.
pub fn print_error(message: &str, hint: Option<&str>) {
    use std::io::Write as _;
    let mut text = format!("error: {message}\n");
    if let Some(hint) = hint {
        text.push_str(&format!("  hint: {hint}\n"));
    }
    // there is nobody to tell that standard error is closed
    let _ = io::stderr().write_all(text.as_bytes());
}

impl From<ClientError> for Failure {
    fn from(error: ClientError) -> Self {
        let hint = error.hint();
        Self { hint, ..Self::of(&error) }
    }
}

/// What went wrong with standard output: a reader that has had enough (`| head`) is no error.
impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::BrokenPipe => Self::silent(0),
            _ => Self::new(format!("write the output: {error}")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_say_where_they_came_from() {
        let error = ClientError::Connect { socket: "/s".into(), source: io::Error::other("no luck") };
        assert_eq!(Failure::from(error).parts(), ("connect to /s: no luck", None, 1));
        let error = ClientError::NoDaemon { socket: "/s".into() };
        assert_eq!(
            Failure::from(error).with_code(125).parts(),
            ("no sampan daemon answers at /s", Some("start it with `sampan daemon start`"), 125)
        );
        assert_eq!(Failure::from(io::Error::from(io::ErrorKind::BrokenPipe)).with_code(9).parts(), ("", None, 0));
    }
}
