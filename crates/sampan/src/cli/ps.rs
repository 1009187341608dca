//! `sampan ps`: what runs.

use std::collections::{HashMap, HashSet};

use jiff::Timestamp;
use sampan_model::ContainerStatus;
use sampan_model::view::{ContainerView, ServiceView};
use serde::Serialize;

use super::age::age;
use super::args::{Filter, FilterField, Globals, PsArgs};
use super::connect::connect;
use super::failure::Failure;
use super::format::Format;
use super::output;
use super::table::{columns, table};

/// One thing that is listed, as `inspect` has it.
#[derive(Serialize)]
#[serde(untagged)]
enum Listed {
    Service(Box<ServiceView>),
    Container(Box<ContainerView>),
}

/// With the service that it is, or is of: its name and URL.
struct Shown {
    what: Listed,
    service: Option<(String, String)>,
}

pub async fn ps(globals: &Globals, args: PsArgs) -> Result<(), Failure> {
    let PsArgs { all, filter, last, latest, format, no_trunc } = args;
    let lines = match format.as_deref() {
        None | Some("table" | "json") => None,
        Some(format) => Some(Lines::parse(format, no_trunc).map_err(|reason| Failure::new(reason).with_code(2))?),
    };
    let client = connect(globals).await?;
    // services first: a replica made in between is then shown as a container, rather than not at all
    let (services, containers) = (client.services().await?, client.containers().await?);
    let last = last.or(latest.then_some(1));
    let listed = match (last, filter.as_slice()) {
        (None, []) => select(services, containers, all),
        (last, filters) => pick(services, containers, filters, all, last),
    };
    if globals.json || format.as_deref() == Some("json") {
        output::print_json(&listed.iter().map(|one| &one.what).collect::<Vec<_>>())
    } else if globals.quiet {
        let id = |container: &ContainerView| id(container, no_trunc);
        output::print_lines(listed.iter().flat_map(|one| containers_of(&one.what)).map(id))
    } else if let Some(lines) = lines {
        output::print(&lines.render(&listed, Timestamp::now()))
    } else {
        output::print(&render(&listed, Timestamp::now(), no_trunc))
    }
}

/// Services with their replicas, then all other containers; those that have ended only where asked.
fn select(mut services: Vec<ServiceView>, mut containers: Vec<ContainerView>, all: bool) -> Vec<Shown> {
    services.sort_by(|a, b| a.name.cmp(&b.name));
    containers.sort_by(|a, b| a.name.cmp(&b.name));
    let replicas: HashSet<_> =
        services.iter().flat_map(|service| &service.replicas).map(|replica| replica.id.clone()).collect();
    let others = containers
        .into_iter()
        .filter(|container| !replicas.contains(&container.id))
        .filter(|container| all || container.state.status == ContainerStatus::Running)
        .map(|container| Shown { what: Listed::Container(Box::new(container)), service: None });
    let services = services.into_iter().map(|service| Shown {
        service: Some((service.name.to_string(), service.url.clone())),
        what: Listed::Service(Box::new(service)),
    });
    services.chain(others).collect()
}

/// Containers alone, of services too: those that pass the filters, or the last ones made, the newest first.
fn pick(
    services: Vec<ServiceView>,
    mut containers: Vec<ContainerView>,
    filters: &[Filter],
    all: bool,
    last: Option<usize>,
) -> Vec<Shown> {
    let all = all || last.is_some() || filters.iter().any(|filter| filter.field == FilterField::Status);
    let mut of_services = HashMap::new();
    for service in services {
        for replica in service.replicas {
            of_services.insert(replica.id, (service.name.to_string(), service.url.clone()));
        }
    }
    containers.sort_by(|a, b| a.name.cmp(&b.name));
    let shown = containers.into_iter().map(|container| Shown {
        service: of_services.get(&container.id).cloned(),
        what: Listed::Container(Box::new(container)),
    });
    let passes = |shown: &Shown| {
        let container = &containers_of(&shown.what)[0];
        (all || container.state.status == ContainerStatus::Running)
            && filters
                .iter()
                .all(|filter| filter.admits(container, shown.service.as_ref().map(|(name, _)| name.as_str())))
    };
    let mut shown: Vec<_> = shown.filter(passes).collect();
    if let Some(last) = last {
        shown.sort_by_key(|one| std::cmp::Reverse(containers_of(&one.what)[0].created_at));
        shown.truncate(last);
    }
    shown
}

impl Filter {
    fn admits(&self, container: &ContainerView, service: Option<&str>) -> bool {
        let value = self.value.as_str();
        match self.field {
            FilterField::Name => container.name.as_str().contains(value),
            FilterField::Id => container.id.as_str().starts_with(value),
            FilterField::Status if container.state.paused => value == "paused",
            FilterField::Status => container.state.status.as_str() == value,
            FilterField::Label => match value.split_once('=') {
                Some((name, value)) => container.labels.get(name).is_some_and(|label| label == value),
                None => container.labels.contains_key(value),
            },
            FilterField::Server => container.server.name.as_str() == value,
            FilterField::Service => service == Some(value),
            FilterField::Image => {
                container.image == value || container.image.split_once(':').map(|(name, _)| name) == Some(value)
            }
        }
    }
}

/// What `--format` shows: a line an object, or columns.
struct Lines {
    format: Format,
    no_trunc: bool,
}

/// The words of `--format`, Docker's where Docker has one.
const WORDS: [&str; 16] = [
    "ID",
    "Names",
    "Image",
    "Command",
    "CreatedAt",
    "RunningFor",
    "Ports",
    "State",
    "Status",
    "Mounts",
    "Labels",
    "Label",
    "Server",
    "Service",
    "URL",
    "Address",
];

impl Lines {
    fn parse(format: &str, no_trunc: bool) -> Result<Self, String> {
        Format::parse(format, &WORDS).map(|format| Self { format, no_trunc })
    }

    fn render(&self, listed: &[Shown], now: Timestamp) -> String {
        let mut lines = Vec::new();
        for shown in listed {
            for container in containers_of(&shown.what) {
                let value = |word: &str, argument: Option<&str>| self.value(word, argument, container, shown, now);
                let json = || serde_json::to_string(container).expect("views have only text keys");
                lines.push(self.format.render(value, json));
            }
        }
        match self.format.table {
            true => columns(&self.format.header(), &lines),
            false => lines.into_iter().map(|line| line + "\n").collect(),
        }
    }

    fn value(
        &self,
        word: &str,
        argument: Option<&str>,
        container: &ContainerView,
        shown: &Shown,
        now: Timestamp,
    ) -> String {
        let service = shown.service.as_ref();
        let labels = container.labels.iter().map(|(name, value)| format!("{name}={value}"));
        match word {
            "ID" => id(container, self.no_trunc),
            "Names" => container.name.to_string(),
            "Image" => image(&container.image, self.no_trunc),
            "Command" => container.command.join(" "),
            "CreatedAt" => container.created_at.to_string(),
            "RunningFor" => format!("{} ago", age(now, container.created_at)),
            "Ports" => ports(container),
            "State" if container.state.paused => "paused".into(),
            "State" => container.state.status.as_str().into(),
            "Status" => status(container, now),
            "Mounts" => container.mounts.iter().map(|mount| mount.target.as_str()).collect::<Vec<_>>().join(","),
            "Labels" => labels.collect::<Vec<_>>().join(","),
            "Label" => argument.and_then(|name| container.labels.get(name)).cloned().unwrap_or_default(),
            "Server" => container.server.name.to_string(),
            "Service" => service.map(|(name, _)| name.clone()).unwrap_or_default(),
            "URL" => service.map(|(_, url)| url.clone()).unwrap_or_default(),
            "Address" => container.server.address.map(|address| address.to_string()).unwrap_or_default(),
            _ => unreachable!("a format has no other words"),
        }
    }
}

fn id(container: &ContainerView, no_trunc: bool) -> String {
    if no_trunc { container.id.to_string() } else { container.id.short().to_owned() }
}

fn ports(container: &ContainerView) -> String {
    container.ports.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}

fn containers_of(listed: &Listed) -> &[ContainerView] {
    match listed {
        Listed::Service(service) => &service.replicas,
        Listed::Container(container) => std::slice::from_ref(&**container),
    }
}

fn render(listed: &[Shown], now: Timestamp, no_trunc: bool) -> String {
    let mut rows = Vec::new();
    for shown in listed {
        let url = shown.service.as_ref().map_or("", |(_, url)| url);
        rows.extend(containers_of(&shown.what).iter().map(|container| row(container, url, now, no_trunc)));
        if let Listed::Service(service) = &shown.what
            && service.replicas.is_empty()
        {
            rows.push(row_without_replica(service, no_trunc));
        }
    }
    table(["NAME", "IMAGE", "STATUS", "READY", "CPUS", "MEMORY", "ADDRESS", "PORTS", "URL"], &rows)
}

fn row(container: &ContainerView, url: &str, now: Timestamp, no_trunc: bool) -> [String; 9] {
    let address = container.server.address.map(|address| address.to_string());
    let ready = container.ready.map(|ready| if ready { "yes" } else { "no" });
    [
        container.name.to_string(),
        image(&container.image, no_trunc),
        status(container, now),
        ready.unwrap_or_default().into(),
        container.server.cpus.to_string(),
        container.server.memory_bytes.to_string(),
        address.unwrap_or_default(),
        ports(container),
        url.into(),
    ]
}

fn row_without_replica(service: &ServiceView, no_trunc: bool) -> [String; 9] {
    [
        service.name.to_string(),
        image(&service.image.to_string(), no_trunc),
        service.health.clone(),
        "no".into(),
        service.size.cpus.to_string(),
        service.size.memory_bytes.to_string(),
        String::new(),
        String::new(),
        service.url.clone(),
    ]
}

/// An image that was named by its digest is shown by the digits that people are shown.
fn image(name: &str, no_trunc: bool) -> String {
    match sampan_model::Digest::parse(name) {
        Ok(digest) if !no_trunc => digest.short().into(),
        _ => name.into(),
    }
}

fn status(container: &ContainerView, now: Timestamp) -> String {
    let state = &container.state;
    let ago = |then: Option<Timestamp>| then.map(|then| format!(" {} ago", age(now, then))).unwrap_or_default();
    match state.status {
        ContainerStatus::Running => {
            let since = state.started_at.map(|then| format!(" {}", age(now, then))).unwrap_or_default();
            format!("{}{since}", if state.paused { "paused, up" } else { "up" })
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
                name: name.to_owned(),
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
            confinement: Default::default(),
            ports: vec![],
            labels: Default::default(),
            terminal: false,
            stdin: false,
            runtime: None,
            restart: Default::default(),
            owner: Default::default(),
            created_at: at(0),
            timing: vec![],
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
            reason: None,
            version: 1,
            port: None,
            created_at: at(0),
        }
    }

    fn everything() -> (Vec<ServiceView>, Vec<ContainerView>) {
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
        (services, containers)
    }

    fn check(all: bool, expected: &str) {
        let (services, containers) = everything();
        assert_eq!(render(&select(services, containers, all), at(120), false), expected);
    }

    #[test]
    fn filters() {
        let picked = |filters: &[(FilterField, &str)], last| {
            let (services, mut containers) = everything();
            containers[1].labels.insert("app".into(), "web".into());
            containers[1].state.paused = true;
            let filters: Vec<_> =
                filters.iter().map(|(field, value)| Filter { field: *field, value: (*value).into() }).collect();
            let lines = Lines::parse("{{.Names}}", false).unwrap();
            lines.render(&pick(services, containers, &filters, false, last), at(120)).replace('\n', " ")
        };
        use FilterField::{Id, Image, Label, Name, Server, Service, Status};
        assert_eq!(picked(&[(Name, "o")], None), "hello.1 job ");
        assert_eq!(picked(&[(Status, "exited")], None), "broken killed lost ");
        assert_eq!(picked(&[(Status, "running")], None), "hello.1 ");
        assert_eq!(picked(&[(Status, "paused")], None), "job ");
        assert_eq!(picked(&[(Label, "app")], None), "job ");
        assert_eq!(picked(&[(Label, "app=api")], None), "");
        assert_eq!(picked(&[(Service, "hello"), (Image, "box")], None), "hello.1 ");
        assert_eq!(picked(&[(Server, "job"), (Id, "0202")], None), "job ");
        assert_eq!(picked(&[], Some(2)).split(' ').count(), 3);
    }

    #[test]
    fn formats() {
        let (services, containers) = everything();
        let listed = select(services, containers, false);
        let lines = |format| Lines::parse(format, false).unwrap().render(&listed, at(120));
        assert_eq!(lines("{{.Names}}={{.State}}"), "hello.1=running\njob=running\n");
        assert_eq!(
            lines("table {{.Names}}\\t{{.URL}}"),
            "NAMES     URL\nhello.1   http://hello.localhost:8080/\njob       -\n"
        );
    }

    #[test]
    fn what_runs() {
        check(
            false,
            "\
NAME      IMAGE          STATUS         READY   CPUS   MEMORY   ADDRESS      PORTS   URL
hello.1   box:latest     up 2 minutes   yes     0.5    64MiB    10.192.0.1   -       http://hello.localhost:8080/
new       abababababab   starting       no      1      512MiB   -            -       http://new.localhost:8080/
job       box:latest     up 2 minutes   -       0.5    64MiB    10.192.0.2   -       -
",
        );
    }

    #[test]
    fn what_has_ended() {
        check(
            true,
            "\
NAME      IMAGE          STATUS                                     READY   CPUS   MEMORY   ADDRESS      PORTS   URL
hello.1   box:latest     up 2 minutes                               yes     0.5    64MiB    10.192.0.1   -       http://hello.localhost:8080/
new       abababababab   starting                                   no      1      512MiB   -            -       http://new.localhost:8080/
broken    box:latest     failed to start 1 minute ago               -       0.5    64MiB    10.192.0.4   -       -
job       box:latest     up 2 minutes                               -       0.5    64MiB    10.192.0.2   -       -
killed    box:latest     exited (137, out of memory) 1 minute ago   -       0.5    64MiB    10.192.0.3   -       -
lost      box:latest     exited (unknown) 1 minute ago              -       0.5    64MiB    10.192.0.5   -       -
",
        );
    }
}
