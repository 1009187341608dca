//! `sampan server`: servers that are asked for by name.

use jiff::Timestamp;
use sampan_model::view::{ServerCreate, ServerResize, ServerView};
use sampan_model::{Disk, Label, ServerSize, ServerStatus};

use super::age::age;
use super::args::{
    Globals, RunArgs, ServerCommand, ServerCreateArgs, ServerResizeArgs, ServerRunArgs, ServerStopArgs, UpArgs,
};
use super::connect::connect;
use super::containers::each;
use super::failure::Failure;
use super::table::table;
use super::{output, run, up};

/// `sampan server …`.
pub async fn server(globals: &Globals, command: ServerCommand) -> Result<u8, Failure> {
    match command {
        ServerCommand::Create(args) => create(globals, args).await?,
        ServerCommand::Ls => list(globals).await?,
        ServerCommand::Inspect { names } => inspect(globals, &names).await?,
        ServerCommand::Run(args) => {
            let ServerRunArgs { on, detach, timing, attend, create } = *args;
            return run::run_on(globals, RunArgs { detach, timing, attend, create }, on).await;
        }
        ServerCommand::Deploy { name, source, service } => {
            return up::up(globals, UpArgs { source, name: service, server: Some(name), ..UpArgs::default() }).await;
        }
        ServerCommand::Resize(args) => resize(globals, args).await?,
        ServerCommand::Stop(ServerStopArgs { timeout, names }) => {
            let client = connect(globals).await?;
            let stop = async |name: &str| client.stop_server(&label(name), timeout).await.map(drop);
            each(globals, "stopped", &names, stop).await?;
        }
        ServerCommand::Start { names } => {
            let client = connect(globals).await?;
            each(globals, "started", &names, async |name| client.start_server(&label(name)).await.map(drop)).await?;
        }
        ServerCommand::Close { names } => {
            let client = connect(globals).await?;
            each(globals, "closed", &names, async |name| client.close_server(&label(name)).await).await?;
        }
    }
    Ok(0)
}

fn label(name: &str) -> Label {
    Label::parse(name).expect("it was a label when the command line was read")
}

async fn create(globals: &Globals, args: ServerCreateArgs) -> Result<(), Failure> {
    let ServerCreateArgs { name, cpus, memory, pids_limit, disk, disk_loop } = args;
    let default = ServerSize::default();
    let size = ServerSize {
        cpus: cpus.unwrap_or(default.cpus),
        memory_bytes: memory.unwrap_or(default.memory_bytes),
        pids: pids_limit.map_or(default.pids, Into::into),
    };
    let disk = disk.map(|size_bytes| Disk { size_bytes, loop_mounted: disk_loop });
    let server = connect(globals).await?.create_server(&ServerCreate { name, size, disk }).await?;
    if globals.json { output::print_json(&server) } else { output::print_lines([&server.name]) }
}

async fn list(globals: &Globals) -> Result<(), Failure> {
    let mut servers = connect(globals).await?.servers().await?;
    servers.sort_by(|a, b| a.name.cmp(&b.name));
    if globals.json {
        output::print_json(&servers)
    } else if globals.quiet {
        output::print_lines(servers.iter().map(|server| &server.name))
    } else {
        output::print(&render(&servers, Timestamp::now()))
    }
}

async fn inspect(globals: &Globals, names: &[Label]) -> Result<(), Failure> {
    let client = connect(globals).await?;
    let mut servers = Vec::new();
    for name in names {
        servers.push(client.server(name).await?);
    }
    if globals.quiet {
        return output::print_lines(servers.iter().map(|server| &server.id));
    }
    output::print_json(&servers)
}

async fn resize(globals: &Globals, args: ServerResizeArgs) -> Result<(), Failure> {
    let size = ServerResize { cpus: args.cpus, memory_bytes: args.memory, pids: args.pids_limit.map(Into::into) };
    let server = connect(globals).await?.resize_server(&args.name, &size).await?;
    if globals.json { output::print_json(&server) } else { output::print_lines([&server.name]) }
}

fn render(servers: &[ServerView], now: Timestamp) -> String {
    let rows: Vec<_> = servers.iter().map(|server| row(server, now)).collect();
    table(["NAME", "STATUS", "CPUS", "MEMORY", "DISK", "ADDRESS", "RUNS", "CREATED"], &rows)
}

fn row(server: &ServerView, now: Timestamp) -> [String; 8] {
    let status = match server.status {
        ServerStatus::Running => "running",
        ServerStatus::Stopped => "stopped",
        ServerStatus::Closing => "closing",
    };
    // a service's replica is shown by its service
    let services = server.services.iter().map(ToString::to_string);
    let is_service_s = |name: &str| {
        let service = name.rsplit_once('.').map(|(service, _)| service);
        server.services.iter().any(|known| Some(known.as_str()) == service)
    };
    let containers = server.containers.iter().map(|container| container.name.to_string());
    let runs: Vec<_> = services.chain(containers.filter(|name| !is_service_s(name))).collect();
    [
        server.name.to_string(),
        status.into(),
        server.cpus.to_string(),
        server.memory_bytes.to_string(),
        server.disk.map(|disk| disk.size_bytes.to_string()).unwrap_or_default(),
        server.address.map(|address| address.to_string()).unwrap_or_default(),
        runs.join(", "),
        format!("{} ago", age(now, server.created_at)),
    ]
}

#[cfg(test)]
mod tests {
    use sampan_model::{ByteSize, ContainerId, Cpus};

    use super::*;

    #[test]
    fn servers_as_people_see_them() {
        let at = |second| Timestamp::from_second(second).unwrap();
        let server = |name: &str, status, disk| ServerView {
            kind: "server".into(),
            id: ContainerId::from_bytes([1; 32]),
            name: Label::parse(name).unwrap(),
            cpus: Cpus::ONE,
            memory_bytes: ByteSize::gib(8),
            pids: 100,
            disk,
            status,
            address: (status == ServerStatus::Running).then_some([10, 0, 0, 1].into()),
            containers: vec![],
            services: vec![Label::parse("web").unwrap()],
            owner: Default::default(),
            created_at: at(0),
        };
        let disk = Disk { size_bytes: ByteSize::gib(10), loop_mounted: false };
        let servers = [server("box", ServerStatus::Running, Some(disk)), server("old", ServerStatus::Stopped, None)];
        let expected = "\
NAME   STATUS    CPUS   MEMORY   DISK    ADDRESS    RUNS   CREATED
box    running   1      8GiB     10GiB   10.0.0.1   web    1 minute ago
old    stopped   1      8GiB     -       -          web    1 minute ago
";
        assert_eq!(render(&servers, at(60)), expected);
    }
}
