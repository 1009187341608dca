//! Where failures are told: on standard error, and in the file that the caller names, in the form that it reads.
//! containerd and Podman look for the last error there.

use std::ffi::OsString;
use std::fs::File;
use std::io::Write as _;
use std::str::FromStr;

use anyhow::{Context as _, Result};
use jiff::Timestamp;

/// How a line looks.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Form {
    /// `time="…" level=error msg="…"`.
    #[default]
    Text,
    /// `{"level":"error","msg":"…","time":"…"}`.
    Json,
}

impl FromStr for Form {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "text" => Ok(Self::Text),
            "json" => Ok(Self::Json),
            other => Err(format!("{other:?} is no form of a log: text or json")),
        }
    }
}

/// Where lines go.
#[derive(Debug, Default)]
pub struct Log {
    file: Option<File>,
    form: Form,
    debug: bool,
}

impl Log {
    pub fn open(path: Option<OsString>, form: Form, debug: bool) -> Result<Self> {
        let open = |path: &OsString| {
            File::options().append(true).create(true).open(path).with_context(|| format!("open the log {path:?}"))
        };
        let file = path.as_ref().filter(|path| !path.is_empty()).map(open).transpose()?;
        Ok(Self { file, form, debug })
    }

    /// A failure. What cannot be written to the file is on standard error all the same.
    pub fn error(&self, message: &str) {
        if self.file.is_some() {
            eprintln!("{message}");
        }
        self.line("error", message);
    }

    pub fn debug(&self, message: &str) {
        if self.debug {
            self.line("debug", message);
        }
    }

    fn line(&self, level: &str, message: &str) {
        let time = Timestamp::now();
        let line = match self.form {
            Form::Text => format!("time=\"{time:.0}\" level={level} msg={message:?}\n"),
            Form::Json => {
                let value = serde_json::json!({"level": level, "msg": message, "time": format!("{time:.9}")});
                format!("{value}\n")
            }
        };
        // one write a line: several processes have the file open
        match &self.file {
            Some(file) => drop((&*file).write_all(line.as_bytes())),
            None => drop(std::io::stderr().write_all(line.as_bytes())),
        }
    }
}
