//! The daemon's role: everything wired together, floor by floor, and taken apart again.
//!
//! ```text
//! root (lock, directories, log) ─▶ store ─▶ network, cgroups ─▶ supervisor ─▶ containers ─▶ services ─▶ API ─▶ ready
//! ```
//!
//! Each daemon begins by taking over what it finds; so `restart`, an upgrade and `kill -9` are one thing. Three orders
//! end it: *stop* (everything ends, the records stay), *purge* (nothing stays) and *restart* (this process executes its
//! binary anew; callers that connect meanwhile wait in the socket's queue).

mod layout;
mod listeners;
mod log;
mod outside;
mod socket;
mod systemd;

use std::net::{IpAddr, SocketAddr};
use std::os::fd::OwnedFd;
use std::os::unix::process::CommandExt as _;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use jiff::Timestamp;
use sampan_api::{Core, DaemonOrder};
use sampan_client::{Listen, Root};
use sampan_container::runtimes::Runtimes;
use sampan_container::{
    Connected, Containers, EdgeTables, Foundation, Images, LARGEST_POOL, Machine, POOL_SIZE, Supervisor, Volumes,
};
use sampan_image::Layers;
use sampan_model::Instance;
use sampan_model::instance::Block;
use sampan_model::view::{DaemonView, ErrorView, ProcessView};
use sampan_network::Network;
use sampan_runtime::cgroup::{Cgroups, Group};
use sampan_runtime::supervisor::SupervisorConfig;
use sampan_runtime::wire::{Event, Welcome};
use sampan_service::Services;
use sampan_store::{Blobs, Durability, LockError, Records, RootLock};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{mpsc, watch};

use crate::process;
use crate::ready::{DaemonArgs, Ready};
use layout::Layout;
use outside::{Left, Outside};
use socket::NativeSocket;
use systemd::Notify;
pub use systemd::{HTTP as HTTP_SOCKET, NATIVE as NATIVE_SOCKET};

/// How long apps may take to end when the daemon is stopped.
const GRACE: Duration = Duration::from_secs(10);
const BLOCK: &str = "default/daemon/block";

/// Runs the daemon until it is told to end.
pub fn main(args: DaemonArgs) -> ExitCode {
    let DaemonArgs { root, http, ready } = args;
    let (passed, notify) = (systemd::take(), Notify::from_environment());
    process::set_umask();
    if let Err(error) = layout::refuse_without_root() {
        ready.tell_error(&error);
        return ExitCode::FAILURE;
    }
    let layout = match Layout::prepare(&root) {
        Ok(layout) => layout,
        Err(error) => return refused(ready, &error),
    };
    let lock = match RootLock::acquire(&layout.run_dir.join("daemon.lock")) {
        Ok(lock) => lock,
        Err(error @ LockError::Held { .. }) => {
            ready.tell_error(&ErrorView {
                code: "already_running".to_owned(),
                message: format!("a daemon runs on {} already: {error}", root.path().display()),
                hint: Some("`sampan daemon status` shows it".to_owned()),
            });
            return ExitCode::FAILURE;
        }
        Err(error) => return refused(ready, &error.into()),
    };
    log::begin(&layout.daemon_log);
    process::raise_descriptor_limit();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .thread_stack_size(512 * 1024)
        .thread_keep_alive(Duration::from_secs(2))
        .enable_all()
        .build();
    let runtime = match runtime {
        Ok(runtime) => runtime,
        Err(error) => return refused(ready, &anyhow::Error::from(error).context("start the daemon's threads")),
    };
    let socket = match NativeSocket::open(&layout, passed.native) {
        Ok(socket) => socket,
        Err(error) => return refused(ready, &error),
    };
    let http = Http { asked: http, passed: &passed.http };
    let ended = runtime.block_on(run(&root, &layout, &socket, http, &notify, ready));
    // what still blocks, blocks on something that is gone
    runtime.shutdown_timeout(Duration::from_secs(1));
    match ended {
        Ok(End::Restart) => restart(&root, &socket, &passed.http),
        Ok(End::Stopped(Left::Nothing)) => {
            layout.remove_run_files(socket.whose());
            drop(lock);
            ExitCode::SUCCESS
        }
        Ok(End::Purged(Left::Nothing)) => {
            layout.remove_run_files(socket.whose());
            layout.remove_everything();
            drop(lock);
            ExitCode::SUCCESS
        }
        // its files say what is left: the next daemon goes on from there
        Ok(End::Stopped(Left::Something) | End::Purged(Left::Something)) => ExitCode::FAILURE,
        Err(error) => {
            tracing::error!("the daemon ends: {error:#}");
            layout.remove_what_is_new(socket.whose());
            ExitCode::FAILURE
        }
    }
}

enum End {
    Stopped(Left),
    Purged(Left),
    Restart,
}

/// Where services are to be reached.
struct Http<'a> {
    /// What the command line says.
    asked: Option<Listen>,
    /// What systemd listens on.
    passed: &'a [OwnedFd],
}

fn refused(ready: Ready, error: &anyhow::Error) -> ExitCode {
    tracing::error!("the daemon could not start: {error:#}");
    ready.tell_error(&error_view(error));
    ExitCode::FAILURE
}

fn error_view(error: &anyhow::Error) -> ErrorView {
    if let Some(listen) = error.downcast_ref::<listeners::ListenError>() {
        return listen.view();
    }
    if let Some(directory) = error.downcast_ref::<layout::UnsafeDirectory>() {
        return directory.view();
    }
    ErrorView {
        code: "internal".to_owned(),
        message: format!("the daemon could not start: {error:#}"),
        hint: Some("`sampan doctor` looks for what this machine lacks".to_owned()),
    }
}

/// Everything that has to be taken apart at the end.
struct House {
    outside: Outside,
    containers: Containers,
    services: Services,
}

async fn run(
    root: &Root,
    layout: &Layout,
    socket: &NativeSocket,
    http: Http<'_>,
    notify: &Notify,
    ready: Ready,
) -> anyhow::Result<End> {
    let started_at = Timestamp::now();
    let (end, mut ended) = watch::channel(false);
    let (found, mut outside) = (Supervisor::find(&layout.run_dir), Outside::default());
    // what a daemon before this one left is not this one's to take down
    let is_first = matches!(found, Ok(None));
    let built = async { build(root, layout, http, started_at, found?, &mut outside).await }.await;
    let (house, core, orders, gone) = match built {
        Ok(built) => built,
        Err(error) => {
            if is_first {
                let _ = tokio::task::spawn_blocking(move || outside.take_down()).await;
            }
            refused(ready, &error);
            return Err(error);
        }
    };
    let access = socket.admit(layout);
    let listener = socket.listener()?;
    let stop = async move {
        let _ = ended.wait_for(|ended| *ended).await;
    };
    let status = status(&core);
    let api = tokio::spawn(sampan_api::native::serve(listener, core, access, stop));
    notify.ready(&status);
    ready.tell_ready();
    tracing::info!(root = %root.path().display(), "ready");

    let order = next_order(orders, gone).await;
    tracing::info!(?order, "ending");
    match order {
        DaemonOrder::Restart => notify.reloading(),
        DaemonOrder::Stop | DaemonOrder::Purge => notify.stopping(),
    }
    let result = match order {
        DaemonOrder::Restart => End::Restart,
        DaemonOrder::Stop => End::Stopped(house.take_down().await),
        DaemonOrder::Purge => End::Purged(house.take_down().await),
    };
    end.send_replace(true);
    // whoever is being answered gets the rest, but nobody keeps the daemon
    let _ = tokio::time::timeout(Duration::from_secs(1), api).await;
    Ok(result)
}

/// The next thing that ends this process: an order, a signal, or the supervisor's death, after which the next daemon
/// finds what is left.
async fn next_order(mut orders: mpsc::Receiver<DaemonOrder>, gone: tokio::task::JoinHandle<()>) -> DaemonOrder {
    let mut signals =
        [SignalKind::terminate(), SignalKind::interrupt(), SignalKind::hangup()].map(|kind| signal(kind).ok());
    let [terminate, interrupt, hang_up] = &mut signals;
    let received = |signal: &mut Option<tokio::signal::unix::Signal>| {
        let taken = signal.take();
        async move {
            match taken {
                Some(mut signal) => {
                    signal.recv().await;
                }
                None => std::future::pending().await,
            }
        }
    };
    tokio::select! {
        order = orders.recv() => order.unwrap_or(DaemonOrder::Stop),
        () = received(terminate) => DaemonOrder::Stop,
        () = received(interrupt) => DaemonOrder::Stop,
        () = received(hang_up) => DaemonOrder::Restart,
        _ = gone => {
            tracing::error!("the supervisor is gone: the daemon starts anew");
            DaemonOrder::Restart
        }
    }
}

type Built = (House, Arc<Core>, mpsc::Receiver<DaemonOrder>, tokio::task::JoinHandle<()>);

/// Wires everything together. What is made outside the root is told in `outside` at once, so that it can be taken down
/// where a later step fails.
async fn build(
    root: &Root,
    layout: &Layout,
    http: Http<'_>,
    started_at: Timestamp,
    found: Option<Connected>,
    outside: &mut Outside,
) -> anyhow::Result<Built> {
    let records = Arc::new(Records::open(&layout.root.join("records.db"))?);
    let blobs = Arc::new(Blobs::open(&layout.root.join("blobs"))?);
    let layers = Arc::new(Layers::open(&layout.root.join("layers"))?);
    let images = Images::new(Arc::clone(&records), blobs, Arc::clone(&layers));
    let machine = Machine::look().context("look at this machine")?;
    let instance = Instance::of_root(&layout.root);
    let resolvers = resolvers();

    // what is likeliest to be refused comes first, before anything is made outside the root
    let held = found.as_ref().map_or(&[][..], |(_, welcome, _)| &welcome.sockets);
    let listening = listeners::http(&records, held, http.asked, http.passed)?;

    let preferred = records.get::<Block>(BLOCK)?.map(|record| record.value);
    let avoid: Vec<IpAddr> = resolvers.iter().map(SocketAddr::ip).collect();
    let all_cgroups = Cgroups::detect()?;
    let network = Arc::new(Network::open(&instance, preferred, &avoid)?);
    outside.network = Some(Arc::clone(&network));
    if preferred != Some(network.block()) {
        records.put(BLOCK, &network.block(), Durability::Intent)?;
    }
    layout.give_logs_to(network.block().logger_id())?;
    let cgroups = Arc::new(all_cgroups.instance(&instance.cgroup_name())?);
    outside.cgroups = Some(Arc::clone(&cgroups));

    let config = supervisor_config(layout, &instance, network.block(), &cgroups)?;
    let (supervisor, welcome, events) = match found {
        Some(connected) => connected,
        None => Supervisor::start(&layout.run_dir, &config)?,
    };
    let supervisor = Arc::new(supervisor);
    outside.supervisor = Some(Arc::clone(&supervisor));
    let edge = EdgeTables::new(Arc::clone(&supervisor), welcome.table);
    edge.set_listeners(listening.keys, listening.sockets, resolvers);

    let containers = Containers::new(Foundation {
        records: Arc::clone(&records),
        images: images.clone(),
        volumes: Volumes::open(Arc::clone(&records), &layout.root.join("volumes"))?,
        network: Arc::clone(&network),
        cgroups: Arc::clone(&cgroups),
        supervisor: Arc::clone(&supervisor),
        edge,
        machine,
        containers_dir: layout.root.join("containers"),
        roots_dir: layout.root.join("roots"),
        logs_dir: layout.root.join("logs"),
        pool_size: pool_size(),
        runtimes: runtimes()?,
    });
    let roles = watch::Sender::new(processes(&welcome));
    let to_start = containers.adopt(&welcome).await?;
    let gone = tokio::spawn(follow(containers.clone(), events, roles.clone()));
    containers.resume(to_start).await;
    tokio::spawn(containers.clone().keep_ready());
    tokio::spawn(containers.clone().clear_roots());
    let services = Services::load(containers.clone(), Arc::clone(&records), listening.addresses.clone()).await?;
    tokio::task::spawn_blocking(move || {
        if let Err(error) = layers.sync() {
            tracing::warn!(%error, "the layers could not be synced");
        }
    });

    let (orders, ordered) = mpsc::channel(4);
    let mut warnings = listening.warnings;
    let findings = tokio::task::spawn_blocking(sampan_network::check).await.unwrap_or_default();
    warnings.extend(findings.into_iter().filter(|finding| !finding.ok).map(|finding| {
        let fix = finding.fix.map_or(String::new(), |fix| format!(" ({fix})"));
        format!("{}: {}{fix}", finding.what, finding.detail)
    }));
    let view = DaemonView {
        version: env!("CARGO_PKG_VERSION").to_owned(),
        root: layout.root.clone(),
        socket: root.socket(),
        started_at,
        revision: 0,
        http: listening.addresses,
        processes: Vec::new(),
        parked: Vec::new(),
        warnings,
    };
    let waiting = containers.clone();
    let revisions = Arc::clone(&records);
    let core = Core {
        containers: containers.clone(),
        services: services.clone(),
        records,
        daemon: Box::new(move || DaemonView {
            revision: revisions.revision(),
            processes: roles.borrow().clone(),
            parked: waiting.parked().iter().map(ToString::to_string).collect(),
            ..view.clone()
        }),
        orders,
        root: layout.root.clone(),
    };
    let house = House { outside: outside.clone(), containers, services };
    Ok((house, Arc::new(core), ordered, gone))
}

/// Takes in the supervisor's events; those of its own processes go on to the daemon's view.
async fn follow(containers: Containers, mut events: mpsc::Receiver<Event>, roles: watch::Sender<Vec<ProcessView>>) {
    let (sender, receiver) = mpsc::channel(64);
    let followed = tokio::spawn(async move { containers.follow(receiver).await });
    while let Some(event) = events.recv().await {
        if let Event::RoleStarted { role, pid } = &event {
            roles.send_modify(|processes| {
                processes.retain(|process| process.role != *role);
                processes.push(ProcessView { role: role.clone(), pid: *pid });
            });
        }
        if sender.send(event).await.is_err() {
            break;
        }
    }
    drop(sender);
    let _ = followed.await;
}

fn processes(welcome: &Welcome) -> Vec<ProcessView> {
    let process = |role: &str, pid| ProcessView { role: role.to_owned(), pid };
    let mut processes = vec![process("daemon", std::process::id()), process("supervisor", welcome.pid)];
    processes.extend(welcome.logger.map(|pid| process("logger", pid)));
    processes.extend(welcome.edge.map(|pid| process("edge", pid)));
    processes
}

fn supervisor_config(
    layout: &Layout,
    instance: &Instance,
    block: Block,
    cgroups: &Group,
) -> anyhow::Result<SupervisorConfig> {
    Ok(SupervisorConfig {
        exe: process::own_binary().context("find Sampan's own binary")?,
        run_dir: layout.run_dir.clone(),
        log_dir: layout.root.join("logs"),
        stderr: layout.root.join("supervisor.log"),
        tag: instance.tag().to_owned(),
        logger_id: block.logger_id(),
        edge_id: block.edge_id(),
        cgroup_files: cgroups.role("supervisor")?,
    })
}

/// The runtimes beside Sampan's own: what `SAMPAN_RUNTIMES` says, and what is in `PATH`.
fn runtimes() -> anyhow::Result<Runtimes> {
    let variable = |name| std::env::var(name).unwrap_or_default();
    Runtimes::new(&variable("SAMPAN_RUNTIMES"), &variable("PATH")).context("read SAMPAN_RUNTIMES")
}

/// How many servers are to wait ready: what `SAMPAN_POOL` says.
fn pool_size() -> usize {
    let Some(text) = std::env::var_os("SAMPAN_POOL") else { return POOL_SIZE };
    match text.to_str().and_then(|text| text.parse().ok()) {
        Some(size) if size <= LARGEST_POOL => size,
        _ => {
            tracing::warn!("SAMPAN_POOL={} is not from 0 to {LARGEST_POOL}: it is {POOL_SIZE}", text.display());
            POOL_SIZE
        }
    }
}

/// The machine's resolvers, as `/etc/resolv.conf` names them.
fn resolvers() -> Vec<SocketAddr> {
    let text = std::fs::read_to_string("/etc/resolv.conf").unwrap_or_default();
    let named = text.lines().filter_map(|line| line.trim().strip_prefix("nameserver"));
    named.filter_map(|rest| rest.trim().parse::<IpAddr>().ok()).take(3).map(|ip| SocketAddr::new(ip, 53)).collect()
}

impl House {
    /// Ends everything that runs and removes everything that was made; goes on past failures.
    async fn take_down(&self) -> Left {
        self.services.stop().await;
        self.containers.stop_all(GRACE).await;
        let outside = self.outside.clone();
        tokio::task::spawn_blocking(move || outside.take_down()).await.unwrap_or(Left::Something)
    }
}

/// What `systemctl status` shows.
fn status(core: &Core) -> String {
    let http: Vec<_> = (core.daemon)().http.iter().map(ToString::to_string).collect();
    format!("services are reached at {}", http.join(", "))
}

/// Executes the binary anew. The API's socket stays open under its number, so that nobody is refused meanwhile.
fn restart(root: &Root, socket: &NativeSocket, http: &[OwnedFd]) -> ExitCode {
    let exe = process::own_binary().unwrap_or_else(|_| "/proc/self/exe".into());
    let mut command = std::process::Command::new(exe);
    command.arg0("sampan").arg("daemon").arg("--root").arg(root.path()).env_remove("SAMPAN_READY_FD");
    socket.keep(&mut command);
    systemd::keep(http, &mut command);
    let error = command.exec();
    tracing::error!(%error, "the daemon could not be executed anew");
    ExitCode::FAILURE
}
