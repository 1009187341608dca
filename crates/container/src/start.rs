//! A container's start: a server with a sealed child in it, a root file system, go.
//!
//! What it costs, in order: the image's manifest and config, read from disk the first time; where no server waited ready
//! ([`pool`](crate::pool)), one is made ([`child`](crate::child)), of a cgroup directory a hierarchy, one clone in the
//! supervisor and some ten netlink messages; while the child makes its kernel file systems, here an overlay mount, where none serves again
//! ([`roots`](crate::roots)); one message to let the child go. Nothing runs another program. What was made is taken down again where a later step fails.

use std::io;
use std::os::fd::{AsFd as _, BorrowedFd};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering;

use jiff::Timestamp;
use sampan_image::Image;
use sampan_image::user::{self, User};
use sampan_model::{ContainerState, ContainerStatus};
use sampan_runtime::cgroup::ContainerGroup;
use sampan_runtime::wire::{CgroupMounts, MountKind, MountPoint, ProcessSpec, Reply, Request, StartSpec};

use crate::child::Ahead;
use crate::containers::{Container, Inner, lock};
use crate::mounts::Mounts;
use crate::server::Server;
use crate::timing::Laps;
use crate::{ContainerError, ContainerRecord, failpoint};

impl Inner {
    /// Starts a container, or says why not: its state then says it too.
    pub(crate) fn start(&self, container: &Container) -> Result<Arc<ContainerRecord>, ContainerError> {
        let _turn = lock(&container.turn);
        self.refuse_to_start(container)?;
        if container.record().state.restarts != 0 {
            // somebody wants it to run: its policy counts anew
            container.change(self, |record| record.state.restarts = 0);
        }
        self.start_in_turn(container)
    }

    /// Whether nothing of a start may be begun now, whatever it is of.
    pub(crate) fn refuse_to_begin(&self) -> Result<(), ContainerError> {
        self.refuse_while_stopping("starting a container")?;
        self.refuse_without_descriptors()
    }

    pub(crate) fn refuse_to_start(&self, container: &Container) -> Result<(), ContainerError> {
        self.refuse_to_begin()?;
        match container.record().state.status {
            ContainerStatus::Created | ContainerStatus::Exited => Ok(()),
            ContainerStatus::Running => Err(ContainerError::Running(container.record().spec.name.to_string())),
            ContainerStatus::Removing => Err(ContainerError::NotFound(container.id.short().to_owned())),
        }
    }

    /// The container has its turn, and is not [refused](Self::refuse_to_start).
    pub(crate) fn start_in_turn(&self, container: &Container) -> Result<Arc<ContainerRecord>, ContainerError> {
        // until it runs, its server is neither taken down nor changed
        let named = self.named_of(&container.record())?;
        let _gate = named.as_ref().map(|named| self.enter(named)).transpose()?;
        if let Some(size) = named.as_ref().map(|named| named.record().spec.size)
            && size != container.record().spec.size
        {
            // a daemon that was killed while it resized the server had not come to this one
            container.change(self, |record| record.spec.size = size);
        }
        container.is_down.store(false, Ordering::SeqCst);
        // the block may be another one than when it was created
        let address = self.address(&Server::of(&container.record()));
        if container.record().address != address {
            container.change(self, |record| record.address = address);
        }
        let mut laps = container.timing.starting();
        match self.start_process(container, &mut laps) {
            Ok((pid, started_at)) => {
                failpoint::reach("container_started");
                container.change(self, |record| {
                    record.state = ContainerState {
                        status: ContainerStatus::Running,
                        started_at: Some(started_at),
                        pid: Some(pid),
                        restarts: record.state.restarts,
                        ..ContainerState::created()
                    };
                    record.boot_id.clone_from(&self.foundation.machine.boot_id);
                    record.resume = false;
                    record.stopped = false;
                });
                laps.lap("record");
                self.metrics.started(&container.id, &laps);
                Ok(Arc::new(ContainerRecord { timing: laps.steps(), ..(*container.record()).clone() }))
            }
            Err(error) => {
                self.take_down(container);
                self.forget(&container.id);
                container.change(self, |record| {
                    record.state.status = ContainerStatus::Exited;
                    record.state.error = Some(with_sources(&error));
                    record.state.finished_at = Some(Timestamp::now());
                    record.state.pid = None;
                });
                container.logged.send_replace(true);
                container.streams.give_up();
                self.metrics.failed();
                Err(error)
            }
        }
    }

    fn start_process(&self, container: &Container, laps: &mut Laps) -> Result<(u32, Timestamp), ContainerError> {
        let record = container.record();
        let foundation = &self.foundation;
        let image = foundation.images.image(&record.spec.image)?;
        // overlay wants the top layer first; the image lists the bottom one first
        let images = &foundation.images;
        let layers = image.layers.iter().rev().map(|layer| images.layers().ensure(layer, &**images.blobs()));
        let layers = layers.collect::<Result<Vec<PathBuf>, _>>()?;
        let lowers: Vec<&Path> = layers.iter().map(PathBuf::as_path).collect();
        let mut user = user::resolve(record.spec.user.as_ref().unwrap_or(&image.config.user), &layers)?;
        user.join(user::groups(&record.spec.confinement.groups, &layers)?);
        laps.lap("image");
        let mounts = Mounts::open(&record, etc(&record))?;
        if !record.spec.ports.is_empty() {
            // those of a container whose end has just been told may be the same
            self.going.wait_until_gone();
        }
        let opened = self.open_ports(&record)?;
        if opened.ports != record.spec.ports {
            // a free one was chosen: it stays this one
            container.change(self, |record| record.spec.ports.clone_from(&opened.ports));
        }

        let server = Server::of(&record);
        let waiting = lock(&container.child).take();
        let child = match waiting {
            Some(Ahead::Ready(child)) => child,
            Some(Ahead::Begun(begun)) => self.finish_child(begun, &server)?,
            None => {
                let begun = self.begin_child(&container.id, &server, &record.spec.confinement)?;
                self.finish_child(begun, &server)?
            }
        };
        self.fit(&server, &child)?;
        laps.lap("server");
        container.life.store(child.pid, Ordering::SeqCst);
        container.logged.send_replace(false);

        let owners = (child.user_namespace.as_fd(), self.ids_of(&record));
        let root = self.mount_root(container, &record, &lowers, owners)?;
        let made = mounts.make(self, &record, owners, &user, &lowers)?;
        laps.lap("root");
        failpoint::reach("container_wired");

        let followers = container.streams.take_waiting();
        let spec = StartSpec {
            mounts: mounts.points.clone(),
            terminal: record.spec.terminal.then(|| container.streams.size()),
            followers: followers.len(),
            external: self.external(&record, &server)?,
            ..self.start_spec(&record, &image, &user)?
        };
        let handed: Vec<BorrowedFd<'_>> =
            [&root].into_iter().chain(&made).chain(&followers).map(|mount| mount.as_fd()).collect();
        let Reply::Started { at, pid } = foundation.supervisor.call(Request::Go(Box::new(spec)), &handed)?.0 else {
            return Err(unexpected("go"));
        };
        laps.lap("go");
        self.publish(opened);
        if child.name_service.is_some() {
            foundation.edge.add_server(&server.id, child.name_service);
        }
        Ok((pid, at))
    }

    fn start_spec(&self, record: &ContainerRecord, image: &Image, user: &User) -> Result<StartSpec, ContainerError> {
        let working_dir = record.spec.working_dir.as_ref().unwrap_or(&image.config.working_dir);
        let mut env = record.env.clone();
        if !env.iter().any(|pair| pair.starts_with("HOME=")) {
            env.push(format!("HOME={}", user.home.as_deref().unwrap_or("/")));
        }
        if record.spec.terminal && !env.iter().any(|pair| pair.starts_with("TERM=")) {
            env.push("TERM=xterm".to_owned());
        }
        Ok(StartSpec {
            id: record.id.clone(),
            host_name: record.spec.host_name.to_string(),
            process: ProcessSpec {
                args: record.command.clone(),
                env,
                cwd: if working_dir.is_empty() { "/".to_owned() } else { working_dir.clone() },
                ..self.process_spec(&record.spec.confinement, user)?
            },
            mounts: Vec::new(),
            read_only: record.spec.read_only,
            stdin: record.spec.stdin,
            terminal: None,
            init: record.spec.init,
            followers: 0,
            external: None,
        })
    }
}

pub(crate) fn cgroup_mounts(cgroup: &ContainerGroup) -> CgroupMounts {
    use sampan_runtime::cgroup::Mounts;
    match cgroup.mounts() {
        Mounts::V2 => CgroupMounts::V2,
        Mounts::V1 { hierarchies, unified } => CgroupMounts::V1 { hierarchies: hierarchies.clone(), unified: *unified },
    }
}

pub(crate) fn unexpected(what: &str) -> ContainerError {
    ContainerError::Io {
        what: format!("understand the supervisor's answer to {what}"),
        source: io::ErrorKind::InvalidData.into(),
    }
}

/// What a container finds names by: its `hosts`, `hostname` and `resolv.conf`, which are Sampan's and nobody's files.
fn etc(record: &ContainerRecord) -> Vec<MountPoint> {
    let host_name = &record.spec.host_name;
    let address = record.address;
    let files = [
        // `localhost` is 127.0.0.1 alone: what an app opens on [::1] only could not be reached
        (
            "/etc/hosts",
            format!(
                "127.0.0.1\tlocalhost\n::1\tip6-localhost ip6-loopback\nfe00::0\tip6-localnet\n\
                 ff02::1\tip6-allnodes\nff02::2\tip6-allrouters\n{address}\t{host_name}\n"
            ),
        ),
        ("/etc/hostname", format!("{host_name}\n")),
        ("/etc/resolv.conf", "# answered by sampan\nnameserver 127.0.0.11\noptions ndots:0\n".to_owned()),
    ];
    let point = |(target, text): (&str, String)| MountPoint {
        target: target.to_owned(),
        read_only: record.spec.read_only,
        kind: MountKind::File { text },
    };
    files.into_iter().map(point).collect()
}

/// An error with its sources, in one line.
pub(crate) fn with_sources(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        source = cause.source();
    }
    text
}
