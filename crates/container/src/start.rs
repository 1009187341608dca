//! A container's start: a server with a sealed child in it, a root file system, go.
//!
//! What it costs, in order: the image's manifest and config read from disk; where no server waited ready
//! ([`pool`](crate::pool)), one is made, of two cgroup directories a hierarchy, one clone in the supervisor and some ten
//! netlink messages; while the child makes its kernel file systems, here an overlay mount; one message to let the child
//! go. Nothing runs another program. What was made is taken down again where a later step fails.

use std::fs::File;
use std::io::{self, Write as _};
use std::os::fd::{AsFd as _, BorrowedFd};
use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering;

use jiff::Timestamp;
use rustix::fs::{Mode, OFlags, ResolveFlags};
use sampan_image::Image;
use sampan_image::user::{self, User};
use sampan_model::{ContainerState, ContainerStatus};
use sampan_runtime::cgroup::ContainerGroup;
use sampan_runtime::rootfs;
use sampan_runtime::wire::{CgroupMounts, ProcessSpec, Reply, Request, StartSpec};

use crate::containers::{Container, Inner, lock};
use crate::mounts::Mounts;
use crate::server::Server;
use crate::timing::Laps;
use crate::{ContainerError, ContainerRecord, failpoint};

impl Inner {
    /// Starts a container, or says why not: its state then says it too.
    pub(crate) fn start(&self, container: &Container) -> Result<ContainerRecord, ContainerError> {
        let _turn = lock(&container.turn);
        self.refuse_to_start(container)?;
        if container.record().state.restarts != 0 {
            // somebody wants it to run: its policy counts anew
            container.change(self, |record| record.state.restarts = 0);
        }
        self.start_in_turn(container)
    }

    fn refuse_to_start(&self, container: &Container) -> Result<(), ContainerError> {
        self.refuse_while_stopping("starting a container")?;
        match container.record().state.status {
            ContainerStatus::Created | ContainerStatus::Exited => Ok(()),
            ContainerStatus::Running => Err(ContainerError::Running(container.record().spec.name.to_string())),
            ContainerStatus::Removing => Err(ContainerError::NotFound(container.id.short().to_owned())),
        }
    }

    /// The container has its turn.
    pub(crate) fn start_in_turn(&self, container: &Container) -> Result<ContainerRecord, ContainerError> {
        self.refuse_to_start(container)?;
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
                Ok(ContainerRecord { timing: laps.steps(), ..container.record() })
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
        let image = Image::read(&**foundation.images.blobs(), &record.spec.image)?;
        // overlay wants the top layer first; the image lists the bottom one first
        let images = &foundation.images;
        let layers = image.layers.iter().rev().map(|layer| images.layers().ensure(layer, &**images.blobs()));
        let layers = layers.collect::<Result<Vec<PathBuf>, _>>()?;
        let lowers: Vec<&Path> = layers.iter().map(PathBuf::as_path).collect();
        let mut user = user::resolve(record.spec.user.as_ref().unwrap_or(&image.config.user), &layers)?;
        user.join(user::groups(&record.spec.confinement.groups, &layers)?);
        laps.lap("image");
        let mounts = Mounts::open(&record)?;
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
            Some(child) => {
                self.fit(&server)?;
                child
            }
            None => self.make_child(&container.id, &server, &record.spec.confinement)?,
        };
        laps.lap("server");
        container.life.store(child.pid, Ordering::SeqCst);
        container.logged.send_replace(false);

        let upper = self.open_upper(&record)?;
        if let Some(top) = lowers.first() {
            rootfs::prepare(top, &upper.path())?;
        }
        write_etc(&upper.path().join("u"), &record)?;
        let owners = (child.user_namespace.as_fd(), self.ids_of(&record));
        let root = upper.mount(&lowers, owners.0, owners.1)?;
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

/// Writes the container's `hosts`, `hostname` and `resolv.conf` into its upper directory, before it is mounted.
///
/// The directory may have been a container's before (it is started again), and what is in it is a stranger's: every
/// step is taken below it, through no symbolic link, and each file is made anew.
fn write_etc(upper: &Path, record: &ContainerRecord) -> Result<(), ContainerError> {
    let host_name = &record.spec.host_name;
    let address = record.address;
    let files = [
        ("hostname", format!("{host_name}\n")),
        (
            "hosts",
            // `localhost` is 127.0.0.1 alone: what an app opens on [::1] only could not be reached
            format!(
                "127.0.0.1\tlocalhost\n::1\tip6-localhost ip6-loopback\nfe00::0\tip6-localnet\n\
                 ff02::1\tip6-allnodes\nff02::2\tip6-allrouters\n{address}\t{host_name}\n"
            ),
        ),
        ("resolv.conf", "# answered by sampan\nnameserver 127.0.0.11\noptions ndots:0\n".to_owned()),
    ];
    let error = |what: &str| {
        let what = format!("{what} in {}", upper.display());
        move |source: io::Error| ContainerError::Io { what, source }
    };
    let upper_fd = File::open(upper).map_err(error("open"))?;
    let below = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS;
    match rustix::fs::mkdirat(&upper_fd, "etc", Mode::from_raw_mode(0o755)) {
        Ok(()) | Err(rustix::io::Errno::EXIST) => {}
        Err(source) => return Err(error("make etc")(source.into())),
    }
    let etc =
        rustix::fs::openat2(&upper_fd, "etc", OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty(), below)
            .map_err(|source| error("open etc")(source.into()))?;
    for (name, text) in files {
        match rustix::fs::unlinkat(&etc, name, rustix::fs::AtFlags::empty()) {
            Ok(()) | Err(rustix::io::Errno::NOENT) => {}
            Err(source) => return Err(error(&format!("replace etc/{name}"))(source.into())),
        }
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let file = rustix::fs::openat2(&etc, name, flags, Mode::from_raw_mode(0o644), below)
            .map_err(|source| error(&format!("make etc/{name}"))(source.into()))?;
        File::from(file).write_all(text.as_bytes()).map_err(error(&format!("write etc/{name}")))?;
    }
    Ok(())
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

#[cfg(test)]
mod tests {
    use sampan_model::{ByteSize, ContainerId, ContainerName, ContainerSpec, Cpus, Digest, ServerSize};

    use super::*;

    fn record() -> ContainerRecord {
        ContainerRecord {
            id: ContainerId::from_bytes([1; 32]),
            spec: ContainerSpec {
                size: ServerSize { cpus: Cpus::ONE, memory_bytes: ByteSize::mib(64), pids: 10 },
                ..ContainerSpec::new(
                    ContainerName::parse("hello.1").expect("name"),
                    Digest::from_sha256([2; 32]),
                    "hello:latest",
                )
            },
            server_id: None,
            server_index: 0,
            address: std::net::Ipv4Addr::new(10, 192, 0, 2),
            command: Vec::new(),
            env: Vec::new(),
            state: ContainerState::created(),
            boot_id: String::new(),
            resume: false,
            stopped: false,
            for_later: false,
            created_at: Timestamp::UNIX_EPOCH,
            timing: Vec::new(),
        }
    }

    #[test]
    fn etc_is_written_through_no_link_of_the_containers() {
        let directory = tempfile::tempdir().expect("temporary directory");
        let outside = directory.path().join("outside");
        std::fs::write(&outside, "sentinel").expect("sentinel");
        let upper = directory.path().join("upper");
        std::fs::create_dir(&upper).expect("upper");
        write_etc(&upper, &record()).expect("first start");
        let hosts = upper.join("etc/hosts");
        assert!(std::fs::read_to_string(&hosts).expect("hosts").ends_with("10.192.0.2\thello-1\n"));

        // the container puts links in its place; a second start replaces a file's link and refuses the directory's
        std::fs::remove_file(&hosts).expect("remove");
        std::os::unix::fs::symlink(&outside, &hosts).expect("link");
        write_etc(&upper, &record()).expect("second start");
        assert!(!hosts.is_symlink());
        let etc = upper.join("etc");
        std::fs::rename(&etc, directory.path().join("elsewhere")).expect("move");
        std::os::unix::fs::symlink(directory.path(), &etc).expect("link");
        write_etc(&upper, &record()).expect_err("a linked etc is refused");
        assert_eq!(std::fs::read_to_string(&outside).expect("sentinel"), "sentinel");
    }
}
