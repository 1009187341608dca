//! The commands of a container's life.

use std::os::fd::OwnedFd;
use std::path::PathBuf;

use anyhow::{Context as _, Result, bail};
use lexopt::prelude::*;
use rustix::process::Signal;
use sampan_runtime::oci::{self, Container, Creation, OciError, Stay, Whom};

use super::arguments::{Arguments, required};
use super::{Done, Global};

pub fn create(global: &Global, words: Arguments) -> Result<Done> {
    let asked = Asked::read(words, Command::Create)?;
    oci::seal()?;
    oci::create(&global.root, &asked.creation()?)?;
    Ok(Done::Well)
}

pub fn run(global: &Global, words: Arguments) -> Result<Done> {
    let asked = Asked::read(words, Command::Run)?;
    oci::seal()?;
    Ok(Done::Code(oci::run(&global.root, &asked.creation()?, asked.stay)?))
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Command {
    Create,
    Run,
}

struct Asked {
    id: String,
    bundle: PathBuf,
    console_socket: Option<PathBuf>,
    pid_file: Option<PathBuf>,
    no_pivot: bool,
    no_new_keyring: bool,
    preserve: i32,
    stay: Stay,
}

impl Asked {
    fn read(mut words: Arguments, command: Command) -> Result<Self> {
        let mut asked = Self {
            id: String::new(),
            bundle: ".".into(),
            console_socket: None,
            pid_file: None,
            no_pivot: false,
            no_new_keyring: false,
            preserve: 0,
            stay: if command == Command::Create { Stay::Detached } else { Stay::Attached },
        };
        let mut id = None;
        while let Some(word) = words.next()? {
            match word {
                Short('b') | Long("bundle") => asked.bundle = words.value()?.into(),
                Long("console-socket") => asked.console_socket = Some(words.value()?.into()),
                Long("pid-file") => asked.pid_file = Some(words.value()?.into()),
                Long("no-pivot") => asked.no_pivot = words.switch()?,
                Long("no-new-keyring") => asked.no_new_keyring = words.switch()?,
                Long("preserve-fds") => asked.preserve = words.number("--preserve-fds")?,
                Short('d') | Long("detach") if command == Command::Run => {
                    if words.switch()? {
                        asked.stay = Stay::Detached;
                    }
                }
                Long("keep") if command == Command::Run => {
                    if words.switch()? && asked.stay == Stay::Attached {
                        asked.stay = Stay::Keep;
                    }
                }
                // nobody else's processes come to this one
                Long("no-subreaper") if command == Command::Run => drop(words.switch()?),
                Value(value) if id.is_none() => id = Some(value.string()?),
                other => return Err(other.unexpected().into()),
            }
        }
        asked.id = required(id)?;
        Ok(asked)
    }

    fn creation(&self) -> Result<Creation> {
        let listening = listening();
        let env = match listening {
            0 => Vec::new(),
            count => vec![format!("LISTEN_FDS={count}"), "LISTEN_PID=1".to_owned()],
        };
        Ok(Creation {
            id: self.id.clone(),
            bundle: self.bundle.clone(),
            console_socket: self.console_socket.clone(),
            pid_file: self.pid_file.clone(),
            no_pivot: self.no_pivot,
            no_new_keyring: self.no_new_keyring,
            detached: self.stay == Stay::Detached,
            preserved: preserved(listening + self.preserve)?,
            env,
        })
    }
}

/// How many sockets systemd has opened for the program (sd_listen_fds(3)).
fn listening() -> i32 {
    let number = |name: &str| std::env::var(name).ok()?.parse::<i32>().ok();
    // this process was executed as that one: executing itself again keeps the pid
    let for_us = number("LISTEN_PID").is_some_and(|pid| u32::try_from(pid) == Ok(std::process::id()));
    if for_us { number("LISTEN_FDS").unwrap_or(0).max(0) } else { 0 }
}

/// Descriptors 3 and on, of whoever called this.
pub fn preserved(count: i32) -> Result<Vec<OwnedFd>> {
    let own = |number: i32| {
        sampan_sys::process::inherited(number)
            .with_context(|| format!("--preserve-fds: there is no descriptor {number}"))
    };
    (3..3 + count.max(0)).map(own).collect()
}

pub fn start(global: &Global, words: Arguments) -> Result<Done> {
    Container::find(&global.root, &words.id_alone()?)?.start()?;
    Ok(Done::Well)
}

pub fn pause(global: &Global, words: Arguments) -> Result<Done> {
    Container::find(&global.root, &words.id_alone()?)?.pause()?;
    Ok(Done::Well)
}

pub fn resume(global: &Global, words: Arguments) -> Result<Done> {
    Container::find(&global.root, &words.id_alone()?)?.resume()?;
    Ok(Done::Well)
}

pub fn kill(global: &Global, mut words: Arguments) -> Result<Done> {
    let (mut id, mut name, mut whom) = (None, None, Whom::First);
    while let Some(word) = words.next()? {
        match word {
            Short('a') | Long("all") => {
                if words.switch()? {
                    whom = Whom::All;
                }
            }
            Value(value) if id.is_none() => id = Some(value.string()?),
            Value(value) if name.is_none() => name = Some(value.string()?),
            other => return Err(other.unexpected().into()),
        }
    }
    let signal = signal(name.as_deref().unwrap_or("TERM"))?;
    Container::find(&global.root, &required(id)?)?.kill(signal, whom)?;
    Ok(Done::Well)
}

pub fn delete(global: &Global, mut words: Arguments) -> Result<Done> {
    let (mut id, mut force) = (None, false);
    while let Some(word) = words.next()? {
        match word {
            Short('f') | Long("force") => force = words.switch()?,
            Value(value) if id.is_none() => id = Some(value.string()?),
            other => return Err(other.unexpected().into()),
        }
    }
    let id = required(id)?;
    match Container::find(&global.root, &id) {
        Ok(container) => container.delete(force)?,
        // what a runtime that was killed has left, and nothing at all, are the same to who insists
        Err(OciError::NotFound(_) | OciError::Parse { .. }) if force => oci::delete_remains(&global.root, &id)?,
        Err(error) => return Err(error.into()),
    }
    Ok(Done::Well)
}

/// `15`, `TERM`, `SIGTERM`, `RTMIN+3`.
fn signal(text: &str) -> Result<i32> {
    let upper = text.to_ascii_uppercase();
    let name = upper.strip_prefix("SIG").unwrap_or(&upper);
    if let Ok(number) = name.parse::<i32>()
        && (0..=64).contains(&number)
    {
        return Ok(number);
    }
    if let Some(&(_, signal)) = SIGNALS.iter().find(|(own, _)| *own == name) {
        return Ok(signal.as_raw());
    }
    // as shells and libc count them: glibc keeps 32 and 33 for itself
    let real_time = match name {
        "RTMIN" => Some(34),
        "RTMAX" => Some(64),
        _ => name
            .strip_prefix("RTMIN+")
            .and_then(|more| Some(34 + more.parse::<i32>().ok()?))
            .or_else(|| Some(64 - name.strip_prefix("RTMAX-")?.parse::<i32>().ok()?)),
    };
    match real_time.filter(|number| (34..=64).contains(number)) {
        Some(number) => Ok(number),
        None => bail!("unknown signal {text:?}"),
    }
}

const SIGNALS: [(&str, Signal); 33] = [
    ("HUP", Signal::HUP),
    ("INT", Signal::INT),
    ("QUIT", Signal::QUIT),
    ("ILL", Signal::ILL),
    ("TRAP", Signal::TRAP),
    ("ABRT", Signal::ABORT),
    ("IOT", Signal::ABORT),
    ("BUS", Signal::BUS),
    ("FPE", Signal::FPE),
    ("KILL", Signal::KILL),
    ("USR1", Signal::USR1),
    ("SEGV", Signal::SEGV),
    ("USR2", Signal::USR2),
    ("PIPE", Signal::PIPE),
    ("ALRM", Signal::ALARM),
    ("TERM", Signal::TERM),
    ("STKFLT", Signal::STKFLT),
    ("CHLD", Signal::CHILD),
    ("CLD", Signal::CHILD),
    ("CONT", Signal::CONT),
    ("STOP", Signal::STOP),
    ("TSTP", Signal::TSTP),
    ("TTIN", Signal::TTIN),
    ("TTOU", Signal::TTOU),
    ("URG", Signal::URG),
    ("XCPU", Signal::XCPU),
    ("XFSZ", Signal::XFSZ),
    ("VTALRM", Signal::VTALARM),
    ("PROF", Signal::PROF),
    ("WINCH", Signal::WINCH),
    ("IO", Signal::IO),
    ("PWR", Signal::POWER),
    ("SYS", Signal::SYS),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn signals() {
        for (text, number) in
            [("9", 9), ("KILL", 9), ("SIGTERM", 15), ("sigusr1", 10), ("RTMIN+3", 37), ("SIGRTMAX-1", 63), ("0", 0)]
        {
            assert_eq!(signal(text).unwrap(), number, "{text}");
        }
        for text in ["", "SIGNOTHING", "65", "-1", "RTMIN+99"] {
            assert!(signal(text).is_err(), "{text}");
        }
    }
}
