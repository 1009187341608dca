//! `sampan ps`: what runs.

use std::collections::HashSet;

use jiff::Timestamp;
use sampan_model::ContainerStatus;
use sampan_model::view::{ContainerView, ServiceView};
use serde::Serialize;

use super::age::age;
use super::args::{Globals, PsArgs};
use super::connect::connect;
use super::failure::Failure;
use super::output;
use super::table::table;

/// One thing that is listed, as `inspect` has it.
#[derive(Serialize)]
#[serde(untagged)]
enum Listed {
    Service(ServiceView),
    Container(ContainerView),
}

pub async fn ps(globals: &Globals, args: PsArgs) -> Result<(), Failure> {
    let client = connect(globals).await?;
    // services first: a replica made in between is then shown as a container, rather than not at all
    let (services, containers) = (client.services().await?, client.containers().await?);
    let listed = select(services, containers, args.all);
    if globals.json {
        output::print_json(&listed)
    } else if globals.quiet {
        output::print_lines(listed.iter().flat_map(containers_of).map(|container| container.id.short()))
    } else {
        output::print(&render(&listed, Timestamp::now()))
    }
}

/// Services with their replicas, then all other containers; those that have ended only where asked.
fn select(mut services: Vec<ServiceView>, mut containers: Vec<ContainerView>, all: bool) -> Vec<Listed> {
    services.sort_by(|a, b| a.name.cmp(&b.name));
    containers.sort_by(|a, b| a.name.cmp(&b.name));
    let replicas: HashSet<_> =
        services.iter().flat_map(|service| &service.replicas).map(|replica| replica.id.clone()).collect();
    let others = containers
        .into_iter()
        .filter(|container| !replicas.contains(&container.id))
        .filter(|container| all || container.state.status == ContainerStatus::Running);
    services.into_iter().map(Listed::Service).chain(others.map(Listed::Container)).collect()
}

fn containers_of(listed: &Listed) -> &[ContainerView] {
    match listed {
        Listed::Service(service) => &service.replicas,
        Listed::Container(container) => std::slice::from_ref(container),
    }
}

fn render(listed: &[Listed], now: Timestamp) -> String {
    let mut rows = Vec::new();
    for listed in listed {
        let url = match listed {
            Listed::Service(service) => service.url.as_str(),
            Listed::Container(_) => "",
        };
        rows.extend(containers_of(listed).iter().map(|container| row(container, url, now)));
        if let Listed::Service(service) = listed
            && service.replicas.is_empty()
        {
            rows.push(row_without_replica(service));
        }
    }
    table(["NAME", "IMAGE", "STATUS", "READY", "CPUS", "MEMORY", "ADDRESS", "URL"], &rows)
}

fn row(container: &ContainerView, url: &str, now: Timestamp) -> [String; 8] {
    let address = container.server.address.map(|address| address.to_string());
    let ready = container.ready.map(|ready| if ready { "yes" } else { "no" });
    [
        container.name.to_string(),
        image(&container.image),
        status(container, now),
        ready.unwrap_or_default().into(),
        container.server.cpus.to_string(),
        container.server.memory_bytes.to_string(),
        address.unwrap_or_default(),
        url.into(),
    ]
}

fn row_without_replica(service: &ServiceView) -> [String; 8] {
    [
        service.name.to_string(),
        service.image.short().into(),
        service.health.clone(),
        "no".into(),
        service.size.cpus.to_string(),
        service.size.memory_bytes.to_string(),
        String::new(),
        service.url.clone(),
    ]
}

/// An image that was named by its digest is shown by the digits that people are shown.
fn image(name: &str) -> String {
    sampan_model::Digest::parse(name).map_or_else(|_| name.into(), |digest| digest.short().into())
}

fn status(container: &ContainerView, now: Timestamp) -> String {
    let state = &container.state;
    let ago = |then: Option<Timestamp>| then.map(|then| format!(" {} ago", age(now, then))).unwrap_or_default();
    match state.status {
        ContainerStatus::Running => {
            let since = state.started_at.map(|then| format!(" {}", age(now, then))).unwrap_or_default();
            format!("up{since}")
        }
        ContainerStatus::Exited if state.error.is_some() => format!("failed to start{}", ago(state.finished_at)),
        ContainerStatus::Exited => {
            let code = state.exit_code.map_or_else(|| "unknown".into(), |code| code.to_string());
            let reason = if state.oom_killed { ", out of memory" } else { "" };
            format!("exited ({code}{reason}){}", ago(state.finished_at))
        }
        ContainerStatus::Created | ContainerStatus::Removing => state.status.as_str().into(),
    }
}

#[cfg(test)]
mod tests {
    use sampan_model::{ByteSize, ContainerId, ContainerName, ContainerState, Cpus, Digest, Label, ServerSize};

    use super::*;
    use sampan_model::view::ServerBrief;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(1_000_000 + second).unwrap()
    }

    fn container(name: &str, number: u8, state: ContainerState) -> ContainerView {
        ContainerView {
            kind: "container".into(),
            id: ContainerId::from_bytes([number; 32]),
            name: ContainerName::parse(name).unwrap(),
            image: "box:latest".into(),
            server: ServerBrief {
                name: ContainerName::parse(name).unwrap(),
                cpus: Cpus::from_milli(500),
                memory_bytes: ByteSize::mib(64),
                address: Some([10, 192, 0, number].into()),
            },
            state,
            ready: None,
            command: vec![],
            user: None,
            mounts: vec![],
            env: vec![],
            ports: vec![],
            labels: Default::default(),
            terminal: false,
            stdin: false,
            restart: Default::default(),
            owner: Default::default(),
            created_at: at(0),
        }
    }

    fn running() -> ContainerState {
        ContainerState { status: ContainerStatus::Running, started_at: Some(at(0)), ..ContainerState::created() }
    }

    fn exited(code: Option<u8>) -> ContainerState {
        ContainerState {
            status: ContainerStatus::Exited,
            exit_code: code,
            finished_at: Some(at(60)),
            ..ContainerState::created()
        }
    }

    fn service(name: &str, replicas: Vec<ContainerView>) -> ServiceView {
        ServiceView {
            kind: "service".into(),
            name: Label::parse(name).unwrap(),
            url: format!("http://{name}.localhost:8080/"),
            image: Digest::from_sha256([0xab; 32]),
            source: None,
            size: ServerSize::default(),
            replicas,
            health: "starting".into(),
            version: 1,
            port: None,
            created_at: at(0),
        }
    }

    fn check(all: bool, expected: &str) {
        let replica = ContainerView { ready: Some(true), ..container("hello.1", 1, running()) };
        let services = vec![service("new", vec![]), service("hello", vec![replica.clone()])];
        let killed = ContainerState { oom_killed: true, ..exited(Some(137)) };
        let broken = ContainerState { error: Some("no such file".into()), ..exited(None) };
        let containers = vec![
            replica,
            container("job", 2, running()),
            container("killed", 3, killed),
            container("broken", 4, broken),
            container("lost", 5, exited(None)),
        ];
        assert_eq!(render(&select(services, containers, all), at(120)), expected);
    }

    #[test]
    fn what_runs() {
        check(
            false,
            "\
NAME      IMAGE          STATUS         READY   CPUS   MEMORY   ADDRESS      URL
hello.1   box:latest     up 2 minutes   yes     0.5    64MiB    10.192.0.1   http://hello.localhost:8080/
new       abababababab   starting       no      1      512MiB   -            http://new.localhost:8080/
job       box:latest     up 2 minutes   -       0.5    64MiB    10.192.0.2   -
",
        );
    }

    #[test]
    fn what_has_ended() {
        check(
            true,
            "\
NAME      IMAGE          STATUS                                     READY   CPUS   MEMORY   ADDRESS      URL
hello.1   box:latest     up 2 minutes                               yes     0.5    64MiB    10.192.0.1   http://hello.localhost:8080/
new       abababababab   starting                                   no      1      512MiB   -            http://new.localhost:8080/
broken    box:latest     failed to start 1 minute ago               -       0.5    64MiB    10.192.0.4   -
job       box:latest     up 2 minutes                               -       0.5    64MiB    10.192.0.2   -
killed    box:latest     exited (137, out of memory) 1 minute ago   -       0.5    64MiB    10.192.0.3   -
lost      box:latest     exited (unknown) 1 minute ago              -       0.5    64MiB    10.192.0.5   -
",
        );
    }
}
