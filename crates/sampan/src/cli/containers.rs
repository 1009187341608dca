//! What is done to containers: `stop`, `kill`, `restart`, `rm`… One request a name; several names go on past failures.

use std::fmt::Display;

use sampan_client::{Client, ClientError};
use sampan_model::view::ContainerUpdate;
use sampan_model::{ContainerName, Label, PublishedPort};
use serde_json::{Value, json};

use super::args::{Globals, KillArgs, PortArgs, RestartArgs, StopArgs, UpdateArgs};
use super::connect::connect;
use super::failure::Failure;
use super::output;

/// `sampan inspect`.
pub async fn inspect(globals: &Globals, names: &[String]) -> Result<(), Failure> {
    let client = connect(globals).await?;
    let mut found = Vec::new();
    for name in names {
        found.extend(client.inspect(name).await?);
    }
    if globals.quiet {
        let id = |value: &Value| value["id"].as_str().or(value["name"].as_str()).map(str::to_owned);
        return output::print_lines(found.iter().filter_map(id));
    }
    output::print_json(&found)
}

/// `sampan stop`.
pub async fn stop(globals: &Globals, args: StopArgs) -> Result<(), Failure> {
    let client = connect(globals).await?;
    each(globals, "stopped", &args.names, async |name| match client.stop_container(name, args.timeout).await {
        Ok(()) => Ok(()),
        Err(error) => Err(hint_at_service(&client, name, error).await),
    })
    .await
}

/// `sampan kill`.
pub async fn kill(globals: &Globals, args: KillArgs) -> Result<(), Failure> {
    let client = connect(globals).await?;
    each(globals, "signalled", &args.names, async |name| client.kill_container(name, &args.signal).await).await
}

/// `sampan restart`.
pub async fn restart(globals: &Globals, args: RestartArgs) -> Result<(), Failure> {
    let client = connect(globals).await?;
    let restart = async |name: &str| client.restart_container(name, args.timeout).await.map(drop);
    each(globals, "restarted", &args.names, restart).await
}

/// `sampan pause`.
pub async fn pause(globals: &Globals, names: &[String]) -> Result<(), Failure> {
    let client = connect(globals).await?;
    each(globals, "paused", names, async |name| client.pause_container(name).await).await
}

/// `sampan unpause`.
pub async fn unpause(globals: &Globals, names: &[String]) -> Result<(), Failure> {
    let client = connect(globals).await?;
    each(globals, "unpaused", names, async |name| client.unpause_container(name).await).await
}

/// `sampan rename`.
pub async fn rename(globals: &Globals, name: &str, new: &ContainerName) -> Result<(), Failure> {
    let view = connect(globals).await?.rename_container(name, new).await?;
    if globals.json { output::print_json(&view) } else { output::print_lines([&view.name]) }
}

/// `sampan update`.
pub async fn update(globals: &Globals, args: UpdateArgs) -> Result<(), Failure> {
    let UpdateArgs { cpus, memory, pids_limit, restart, names } = args;
    let update = ContainerUpdate { cpus, memory_bytes: memory, pids: pids_limit.map(Into::into), restart };
    if update == ContainerUpdate::default() {
        return Err(Failure::new("there is nothing to change")
            .with_hint("give --cpus, --memory, --pids-limit or --restart")
            .with_code(2));
    }
    let client = connect(globals).await?;
    each(globals, "updated", &names, async |name| client.update_container(name, &update).await.map(drop)).await
}

/// `sampan port`.
pub async fn port(globals: &Globals, args: PortArgs) -> Result<(), Failure> {
    let container = connect(globals).await?.container(&args.name).await?;
    let Some(wanted) = args.port else {
        return match globals.json {
            true => output::print_json(&container.ports),
            false => output::print_lines(container.ports.iter().map(port_line)),
        };
    };
    let (number, protocol) = wanted.split_once('/').unwrap_or((&wanted, "tcp"));
    let is_wanted =
        |port: &&PublishedPort| port.container_port.to_string() == number && port.protocol.to_string() == protocol;
    let found: Vec<_> = container.ports.iter().filter(is_wanted).collect();
    if found.is_empty() {
        let failure = Failure::new(format!("port {number}/{protocol} of {} is not published", args.name));
        return Err(failure.with_hint("`sampan run -p HOST:PORT` publishes one, when a container is made"));
    }
    if globals.json {
        return output::print_json(&found);
    }
    output::print_lines(found.into_iter().map(host_side))
}

/// As `docker port` has it: `80/tcp -> 127.0.0.1:8080`.
fn port_line(port: &PublishedPort) -> String {
    format!("{}/{} -> {}", port.container_port, port.protocol, host_side(port))
}

fn host_side(port: &PublishedPort) -> String {
    let text = port.to_string();
    text.split_once("->").map_or(text.clone(), |(host, _)| host.to_owned())
}

/// `sampan rm`.
pub async fn rm(globals: &Globals, force: bool, names: &[String]) -> Result<(), Failure> {
    let client = connect(globals).await?;
    each(globals, "removed", names, async |name| {
        let removed = match force {
            true => client.kill_and_delete_container(name).await,
            false => client.delete_container(name).await,
        };
        match removed {
            Ok(()) => Ok(()),
            // as with rm(1): what is to be gone is gone
            Err(error) if force && error.is("not_found") && !is_service(&client, name).await => Ok(()),
            Err(error) => Err(hint_at_service(&client, name, error).await),
        }
    })
    .await
}

/// `sampan wait`.
pub async fn wait(globals: &Globals, names: &[String]) -> Result<(), Failure> {
    let client = connect(globals).await?;
    let mut failed = false;
    for name in names {
        match client.wait_container(name).await {
            Ok(exit) if globals.json => output::print_json(&exit)?,
            Ok(exit) => {
                output::print_lines([exit.exit_code.map_or_else(|| "unknown".into(), |code| code.to_string())])?;
            }
            Err(error) => {
                Failure::from(error).report();
                failed = true;
            }
        }
    }
    if failed { Err(Failure::silent(1)) } else { Ok(()) }
}

/// Does one thing with each of several; goes on past failures, says each, and fails at the end. What was done is printed.
pub async fn each<T: Display, E: Into<Failure>>(
    globals: &Globals,
    word: &str,
    names: &[T],
    act: impl AsyncFn(&str) -> Result<(), E>,
) -> Result<(), Failure> {
    let (mut done, mut failures) = (Vec::new(), 0_u32);
    for name in names {
        let name = name.to_string();
        match act(&name).await {
            Ok(()) if globals.json => done.push(name),
            // at once: the next one may take its time
            Ok(()) => output::print_lines([name])?,
            Err(error) if names.len() == 1 => return Err(error.into()),
            Err(error) => {
                error.into().report();
                failures += 1;
            }
        }
    }
    if globals.json {
        output::print_json(&json!({ word: done }))?;
    }
    if failures > 0 { Err(Failure::silent(1)) } else { Ok(()) }
}

async fn is_service(client: &Client, name: &str) -> bool {
    match Label::parse(name) {
        Ok(label) => client.service(&label).await.is_ok(),
        Err(_) => false,
    }
}

/// Somebody who means a service is told which command is for services.
async fn hint_at_service(client: &Client, name: &str, error: ClientError) -> Failure {
    let is_missing = error.is("not_found");
    let failure = Failure::from(error);
    if is_missing && is_service(client, name).await {
        return failure.with_hint(format!("{name} is a service: `sampan down {name}` removes it"));
    }
    failure
}

#[cfg(test)]
mod tests {
    use sampan_model::Protocol;

    use super::*;

    #[test]
    fn ports_as_docker_has_them() {
        let port = PublishedPort {
            host_ip: Some([127, 0, 0, 1].into()),
            host_port: 8080,
            container_port: 80,
            protocol: Protocol::Tcp,
        };
        assert_eq!(port_line(&port), "80/tcp -> 127.0.0.1:8080");
    }
}
