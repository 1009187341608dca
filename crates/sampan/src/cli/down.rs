//! `sampan down`: removes services, by name or those of the directory one is in.

use std::path::Path;

use sampan_client::Client;
use sampan_client::pack;
use sampan_model::Label;
use serde_json::json;

use super::args::Globals;
use super::connect::connect;
use super::failure::Failure;
use super::output;

/// `volumes`: theirs alone go with them.
pub async fn down(globals: &Globals, names: Vec<Label>, volumes: bool) -> Result<(), Failure> {
    let client = connect(globals).await?;
    let names = if names.is_empty() { of_this_directory(&client).await? } else { names };
    let theirs = if volumes { volumes_of(&client, &names).await? } else { Vec::new() };
    for name in &names {
        match client.delete_service(name).await {
            Ok(()) => {}
            Err(error) if error.is("not_found") && client.container(name.as_str()).await.is_ok() => {
                return Err(Failure::from(error).with_hint(format!("{name} is a container: `sampan rm -f {name}`")));
            }
            Err(error) => return Err(error.into()),
        }
    }
    for volume in theirs {
        match client.delete_volume(&volume).await {
            Err(error) if error.is("in_use") && !globals.quiet => eprintln!("sampan: {error}: it stays"),
            Err(error) if error.is("in_use") || error.is("not_found") => {}
            result => result?,
        }
    }
    if globals.json {
        return output::print_json(&json!({ "removed": names }));
    }
    output::print_lines(names)
}

/// The volumes that these services have.
async fn volumes_of(client: &Client, services: &[Label]) -> Result<Vec<Label>, Failure> {
    let is_theirs = |user: &String| services.iter().any(|service| service.as_str() == user);
    let volumes = client.volumes().await?.into_iter().filter(|volume| volume.used_by.iter().any(is_theirs));
    Ok(volumes.map(|volume| volume.name).collect())
}

/// The services that are up and were made from this directory under the names that it gives them; what depends on
/// another goes before it.
async fn of_this_directory(client: &Client) -> Result<Vec<Label>, Failure> {
    let own = pack::names(Path::new(".")).map_err(|error| {
        Failure::of(&error).with_hint("name the services to remove: `sampan down NAME`; `sampan ps` lists them")
    })?;
    let up = client.services().await?;
    let is_up = |name: &Label, path: &Path| {
        up.iter().any(|service| service.name == *name && service.source.as_deref() == Some(path))
    };
    let names: Vec<Label> =
        own.iter().rev().filter(|(name, path)| is_up(name, path)).map(|(name, _)| name.clone()).collect();
    if names.is_empty() {
        let own: Vec<&str> = own.iter().map(|(name, _)| name.as_str()).collect();
        return Err(Failure::new(format!("no service of this directory is up (it is of {})", own.join(", ")))
            .with_hint("`sampan ps` lists what is up; `sampan down NAME` removes it"));
    }
    Ok(names)
}
