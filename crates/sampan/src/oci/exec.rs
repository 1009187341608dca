//! `exec`: one more process.

use std::path::PathBuf;

use anyhow::{Context as _, Result, bail};
use lexopt::prelude::*;
use sampan_runtime::oci::config::{CapabilityNames, Process};
use sampan_runtime::oci::{self, Execution, Stay};

use super::arguments::{Arguments, required};
use super::container::preserved;
use super::{Done, Global};

/// What the flags say; what they do not stays as the process file or the bundle has it.
#[derive(Default)]
struct Asked {
    process: Option<PathBuf>,
    cwd: Option<String>,
    env: Vec<String>,
    terminal: Option<bool>,
    user: Option<String>,
    groups: Vec<u32>,
    capabilities: Vec<String>,
    no_new_privileges: Option<bool>,
    apparmor: Option<String>,
    label: Option<String>,
    args: Vec<String>,
}

pub fn exec(global: &Global, mut words: Arguments) -> Result<Done> {
    let mut asked = Asked::default();
    let mut execution = Execution::default();
    let (mut id, mut stay, mut preserve) = (None, Stay::Attached, 0);
    while let Some(word) = words.next()? {
        match word {
            Short('p') | Long("process") => asked.process = Some(words.value()?.into()),
            Long("cwd") => asked.cwd = Some(words.value()?.string()?),
            Short('e') | Long("env") => asked.env.push(words.value()?.string()?),
            Short('t') | Long("tty") => asked.terminal = Some(words.switch()?),
            Short('u') | Long("user") => asked.user = Some(words.value()?.string()?),
            Short('g') | Long("additional-gids") => asked.groups.push(words.number("--additional-gids")?),
            Short('c') | Long("cap") => asked.capabilities.push(words.value()?.string()?),
            Long("no-new-privs") => asked.no_new_privileges = Some(words.switch()?),
            Long("apparmor") => asked.apparmor = Some(words.value()?.string()?),
            Long("process-label") => asked.label = Some(words.value()?.string()?),
            Short('d') | Long("detach") => {
                if words.switch()? {
                    stay = Stay::Detached;
                }
            }
            Long("console-socket") => execution.console_socket = Some(words.value()?.into()),
            Long("pid-file") => execution.pid_file = Some(words.value()?.into()),
            Long("cgroup") => execution.cgroup = Some(words.value()?.string()?),
            Long("ignore-paused") => execution.ignore_paused = words.switch()?,
            Long("preserve-fds") => preserve = words.number("--preserve-fds")?,
            Value(value) => {
                id = Some(value.string()?);
                // what follows is the program's, flags too
                asked.args = words.rest()?;
                break;
            }
            other => return Err(other.unexpected().into()),
        }
    }
    let id = required(id)?;
    if asked.args.first().is_some_and(|first| first == "--") {
        asked.args.remove(0);
    }
    oci::seal()?;
    execution.preserved = preserved(preserve)?;
    let process = asked.process(global, &id)?;
    Ok(Done::Code(oci::exec(&global.root, &id, process, &execution, stay)?))
}

impl Asked {
    fn process(self, global: &Global, id: &str) -> Result<Process> {
        if let Some(path) = &self.process {
            let text = std::fs::read(path).with_context(|| format!("read the process file {}", path.display()))?;
            let process: Process =
                serde_json::from_slice(&text).with_context(|| format!("read the process file {}", path.display()))?;
            return self.over(process);
        }
        if self.args.is_empty() {
            bail!("there is nothing to execute: name a command, or a process file with --process");
        }
        let mut process = oci::process_of(&global.root, id)?;
        // not how the first one is connected
        process.terminal = false;
        process.console_size = None;
        self.over(process)
    }

    fn over(self, mut process: Process) -> Result<Process> {
        if !self.args.is_empty() {
            process.args = self.args;
        }
        process.env.extend(self.env);
        process.cwd = self.cwd.unwrap_or(process.cwd);
        process.terminal = self.terminal.unwrap_or(process.terminal);
        process.no_new_privileges = self.no_new_privileges.unwrap_or(process.no_new_privileges);
        process.apparmor_profile = self.apparmor.unwrap_or(process.apparmor_profile);
        process.selinux_label = self.label.unwrap_or(process.selinux_label);
        if let Some(user) = &self.user {
            let (uid, gid) = user.split_once(':').map_or((&**user, None), |(uid, gid)| (uid, Some(gid)));
            let number = |text: &str| text.parse().with_context(|| format!("--user {user}: {text:?} is no id"));
            process.user.uid = number(uid)?;
            process.user.gid = gid.map(number).transpose()?.unwrap_or(process.user.gid);
        }
        process.user.additional_gids.extend(self.groups);
        if !self.capabilities.is_empty() {
            let sets = process.capabilities.get_or_insert_with(CapabilityNames::default);
            for set in [&mut sets.bounding, &mut sets.effective, &mut sets.permitted] {
                set.extend(self.capabilities.iter().cloned());
            }
        }
        Ok(process)
    }
}
