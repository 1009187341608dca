//! `sampan volume create|ls|inspect|rm|prune`.

use std::io::{BufRead as _, IsTerminal as _, Write as _};

use jiff::Timestamp;
use sampan_client::Client;
use sampan_model::Label;
use sampan_model::view::{VolumeCreate, VolumeView};
use serde_json::json;

use super::age::{age, bytes};
use super::args::{Globals, VolumeCommand};
use super::connect::connect;
use super::failure::Failure;
use super::output;
use super::table::table;

pub async fn volume(globals: &Globals, command: VolumeCommand) -> Result<(), Failure> {
    let client = connect(globals).await?;
    match command {
        VolumeCommand::Create { label, names } => create(globals, &client, label, names).await,
        VolumeCommand::Ls => list(globals, &client).await,
        VolumeCommand::Inspect { names } => inspect(&client, &names).await,
        VolumeCommand::Rm { force, names } => remove(globals, &client, force, &names).await,
        VolumeCommand::Prune { yes } => prune(globals, &client, yes).await,
    }
}

async fn create(
    globals: &Globals,
    client: &Client,
    labels: Vec<(String, String)>,
    names: Vec<Label>,
) -> Result<(), Failure> {
    let labels: std::collections::BTreeMap<String, String> = labels.into_iter().collect();
    let mut made = Vec::new();
    for name in names {
        made.push(client.create_volume(&VolumeCreate { name, labels: labels.clone() }).await?);
    }
    if globals.json { output::print_json(&made) } else { output::print_lines(made.iter().map(|volume| &volume.name)) }
}

async fn list(globals: &Globals, client: &Client) -> Result<(), Failure> {
    let volumes = client.volumes().await?;
    if globals.json {
        output::print_json(&volumes)
    } else if globals.quiet {
        output::print_lines(volumes.iter().map(|volume| &volume.name))
    } else {
        output::print(&render(&volumes, Timestamp::now()))
    }
}

fn render(volumes: &[VolumeView], now: Timestamp) -> String {
    let row = |volume: &VolumeView| {
        let created = format!("{} ago", age(now, volume.created_at));
        [volume.name.to_string(), volume.used_by.join(", "), created]
    };
    table(["NAME", "USED BY", "CREATED"], &volumes.iter().map(row).collect::<Vec<_>>())
}

async fn inspect(client: &Client, names: &[Label]) -> Result<(), Failure> {
    let mut found = Vec::new();
    for name in names {
        found.push(client.volume(name).await?);
    }
    output::print_json(&found)
}

async fn remove(globals: &Globals, client: &Client, force: bool, names: &[Label]) -> Result<(), Failure> {
    for name in names {
        match client.delete_volume(name).await {
            // as with rm(1): what is to be gone is gone
            Err(error) if force && error.is("not_found") => {}
            result => result?,
        }
    }
    if globals.json { output::print_json(&json!({ "removed": names })) } else { output::print_lines(names) }
}

async fn prune(globals: &Globals, client: &Client, yes: bool) -> Result<(), Failure> {
    if !yes && !ask(client).await? {
        return Err(Failure::silent(1));
    }
    let pruned = client.prune_volumes().await?;
    if globals.json {
        return output::print_json(&pruned);
    }
    output::print_lines(&pruned.removed)?;
    if !globals.quiet {
        eprintln!("freed {}", bytes(pruned.freed_bytes));
    }
    Ok(())
}

/// Whether somebody says yes to what would be removed.
async fn ask(client: &Client) -> Result<bool, Failure> {
    let unused: Vec<_> = client.volumes().await?.into_iter().filter(|volume| volume.used_by.is_empty()).collect();
    if unused.is_empty() {
        return Ok(true);
    }
    let names = unused.iter().map(|volume| volume.name.as_str()).collect::<Vec<_>>().join(", ");
    if !std::io::stdin().is_terminal() {
        return Err(Failure::new(format!("this would remove {names} and what is in them"))
            .with_hint("say that it is meant with --yes"));
    }
    eprint!("Remove {names} and what is in them? [y/N] ");
    std::io::stderr().flush()?;
    let mut answer = String::new();
    std::io::stdin()
        .lock()
        .read_line(&mut answer)
        .map_err(|error| Failure::new(format!("read the answer: {error}")))?;
    Ok(matches!(answer.trim(), "y" | "Y" | "yes"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn for_people() {
        let volume = |name: &str, used_by: &[&str]| VolumeView {
            kind: "volume".into(),
            name: Label::parse(name).unwrap(),
            path: "/var/lib/sampan/volumes/data/data".into(),
            labels: Default::default(),
            used_by: used_by.iter().map(|&name| name.into()).collect(),
            owner: Default::default(),
            created_at: Timestamp::from_second(0).unwrap(),
        };
        let expected = "\
NAME    USED BY        CREATED
data    courses, job   2 minutes ago
spare   -              2 minutes ago
";
        let volumes = [volume("data", &["courses", "job"]), volume("spare", &[])];
        assert_eq!(render(&volumes, Timestamp::from_second(150).unwrap()), expected);
    }
}
