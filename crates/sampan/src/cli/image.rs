//! `sampan image`.

mod load;
pub mod save;
pub mod upload;

use jiff::Timestamp;
use sampan_model::ImageName;
use sampan_model::view::{FsckView, HistoryView, ImageView, PruneView};
use serde_json::json;

use super::age::{age, bytes};
use super::args::{Globals, ImageCommand};
use super::connect::connect;
use super::failure::Failure;
use super::interrupt::{INTERRUPTED, Interrupts};
use super::output;
use super::table::table;

/// The exit code comes back.
pub async fn image(globals: &Globals, command: ImageCommand) -> Result<u8, Failure> {
    match command {
        ImageCommand::Ls => list(globals).await?,
        ImageCommand::Inspect { names } => inspect(globals, &names).await?,
        ImageCommand::History { name } => history(globals, &name).await?,
        ImageCommand::Save(args) => tidily(save::save(globals, &args)).await?,
        ImageCommand::Load(args) => tidily(load::load(globals, args)).await?,
        ImageCommand::Import { file, name } => tidily(load::import(globals, file, &name)).await?,
        ImageCommand::Tag { name, new } => tag(globals, &name, &new).await?,
        ImageCommand::Rm { force, names } => remove(globals, force, &names).await?,
        ImageCommand::Prune { all, force: _ } => prune(globals, all).await?,
        ImageCommand::Fsck { repair } => return fsck(globals, repair).await,
    }
    Ok(0)
}

/// Does work that has files under passing names: an interrupt gives it up, and they go with it.
async fn tidily(work: impl Future<Output = Result<(), Failure>>) -> Result<(), Failure> {
    let mut interrupts = Interrupts::listen()?;
    tokio::select! {
        done = work => done,
        () = interrupts.first() => Err(Failure::silent(INTERRUPTED)),
    }
}

async fn list(globals: &Globals) -> Result<(), Failure> {
    let mut images = connect(globals).await?.images().await?;
    images.sort_by(|a, b| a.name.cmp(&b.name));
    if globals.json {
        output::print_json(&images)
    } else if globals.quiet {
        output::print_lines(images.iter().map(|image| &image.digest))
    } else {
        output::print(&render(&images, Timestamp::now()))
    }
}

fn render(images: &[ImageView], now: Timestamp) -> String {
    let row = |image: &ImageView| {
        let created = format!("{} ago", age(now, image.created_at));
        [image.name.clone(), image.digest.short().into(), bytes(image.size_bytes), created]
    };
    table(["NAME", "DIGEST", "SIZE", "CREATED"], &images.iter().map(row).collect::<Vec<_>>())
}

async fn inspect(globals: &Globals, names: &[ImageName]) -> Result<(), Failure> {
    let client = connect(globals).await?;
    let mut images = Vec::with_capacity(names.len());
    for name in names {
        images.push(client.image(name).await?);
    }
    output::print_json(&images)
}

async fn history(globals: &Globals, name: &ImageName) -> Result<(), Failure> {
    let history = connect(globals).await?.image(name).await?.history;
    if globals.json {
        output::print_json(&history)
    } else if globals.quiet {
        output::print_lines(history.iter().rev().filter_map(|step| step.layer.as_ref()))
    } else {
        output::print(&render_history(&history))
    }
}

/// The newest step first, as Docker has it.
fn render_history(history: &[HistoryView]) -> String {
    let row = |step: &HistoryView| {
        let layer = step.layer.as_ref().map_or(String::new(), |layer| layer.short().to_owned());
        let by = step.created_by.clone().unwrap_or_default().split_whitespace().collect::<Vec<_>>().join(" ");
        let by = if by.chars().count() > 60 { by.chars().take(59).chain(['…']).collect() } else { by };
        [layer, step.created.clone().unwrap_or_default(), bytes(step.size_bytes), by]
    };
    table(["LAYER", "CREATED", "SIZE", "CREATED BY"], &history.iter().rev().map(row).collect::<Vec<_>>())
}

async fn tag(globals: &Globals, name: &ImageName, new: &ImageName) -> Result<(), Failure> {
    let client = connect(globals).await?;
    let digest = client.image(name).await?.image.digest;
    let image = client.put_image(new, &digest).await?;
    if globals.json { output::print_json(&image) } else { output::print_lines([&image.name]) }
}

async fn remove(globals: &Globals, force: bool, names: &[ImageName]) -> Result<(), Failure> {
    let client = connect(globals).await?;
    for name in names {
        match force {
            true => client.untag_image(name).await?,
            false => client.delete_image(name).await?,
        }
    }
    if globals.json { output::print_json(&json!({ "removed": names })) } else { output::print_lines(names) }
}

async fn prune(globals: &Globals, all: bool) -> Result<(), Failure> {
    let pruned = connect(globals).await?.prune_images(all).await?;
    if globals.json {
        output::print_json(&pruned)
    } else if globals.quiet {
        output::print_lines(&pruned.removed)
    } else {
        output::print(&render_pruned(&pruned, all))
    }
}

fn render_pruned(pruned: &PruneView, all: bool) -> String {
    let mut text: String = pruned.removed.iter().map(|name| format!("removed {name}\n")).collect();
    text.push_str(&format!("freed {}\n", bytes(pruned.freed_bytes)));
    if !all && pruned.freed_bytes == 0 {
        text.push_str("images that have names are kept: `sampan image prune --all` removes those that nothing uses\n");
    }
    text
}

async fn fsck(globals: &Globals, repair: bool) -> Result<u8, Failure> {
    let view = connect(globals).await?.examine_images(repair).await?;
    if globals.json {
        output::print_json(&view)?;
    } else if globals.quiet {
        output::print_lines(view.problems.iter().map(|problem| &problem.subject))?;
    } else {
        output::print(&render_fsck(&view))?;
    }
    let is_left = view.problems.iter().any(|problem| problem.repaired.is_none());
    Ok(u8::from(is_left))
}

fn render_fsck(view: &FsckView) -> String {
    let mut text = String::new();
    for problem in &view.problems {
        text.push_str(&format!("{} {}: {}\n", problem.kind, problem.subject, problem.message));
        if let Some(repaired) = &problem.repaired {
            text.push_str(&format!("  repaired: {repaired}\n"));
        }
        if let Some(hint) = &problem.hint {
            text.push_str(&format!("  hint: {hint}\n"));
        }
    }
    let count = |count: u64, one: &str| format!("{count} {one}{}", if count == 1 { "" } else { "s" });
    let (images, blobs, layers) =
        (count(view.images, "image"), count(view.blobs, "blob"), count(view.layers, "unpacked layer"));
    text.push_str(&format!("read {images}, {blobs}, {layers}: "));
    text.push_str(&match view.problems.len() as u64 {
        0 => "nothing is wrong\n".to_owned(),
        problems => format!("{}\n", count(problems, "problem")),
    });
    if view.unused_bytes > 0 {
        text.push_str(&format!("{} are of no use: `sampan image prune` frees them\n", bytes(view.unused_bytes)));
    }
    text
}

#[cfg(test)]
mod tests {
    use sampan_model::Digest;
    use sampan_model::view::FsckProblem;

    use super::*;

    #[test]
    fn steps_for_people() {
        let step = |by: &str, layer: Option<u8>| HistoryView {
            created: None,
            created_by: Some(by.into()),
            comment: None,
            layer: layer.map(|byte| Digest::from_sha256([byte; 32])),
            size_bytes: if layer.is_some() { 2048 } else { 0 },
        };
        let expected = "\
LAYER          CREATED   SIZE      CREATED BY
-              -         0 B       CMD [sh]
abababababab   -         2.0 KiB   ADD file in /
";
        assert_eq!(render_history(&[step("ADD  file\tin /", Some(0xab)), step("CMD [sh]", None)]), expected);
    }

    #[test]
    fn an_examination_for_people() {
        let mut view = FsckView { images: 1, blobs: 3, layers: 1, ..FsckView::default() };
        assert_eq!(render_fsck(&view), "read 1 image, 3 blobs, 1 unpacked layer: nothing is wrong\n");
        view.unused_bytes = 1024;
        view.problems.push(FsckProblem {
            kind: "blob".into(),
            subject: "x".into(),
            message: "gone".into(),
            repaired: None,
            hint: Some("look".into()),
        });
        let expected = "\
blob x: gone
  hint: look
read 1 image, 3 blobs, 1 unpacked layer: 1 problem
1.0 KiB are of no use: `sampan image prune` frees them
";
        assert_eq!(render_fsck(&view), expected);
    }

    #[test]
    fn a_cleaning_for_people() {
        let pruned = PruneView { removed: vec!["box:latest".into()], blobs: 3, layers: 1, freed_bytes: 3 << 20 };
        assert_eq!(render_pruned(&pruned, true), "removed box:latest\nfreed 3.0 MiB\n");
    }

    #[test]
    fn for_people() {
        let image = ImageView {
            kind: "image".into(),
            name: "box:latest".into(),
            digest: Digest::from_sha256([0xab; 32]),
            size_bytes: 3 << 20,
            created_at: Timestamp::from_second(0).unwrap(),
        };
        let expected = "\
NAME         DIGEST         SIZE      CREATED
box:latest   abababababab   3.0 MiB   2 minutes ago
";
        assert_eq!(render(&[image], Timestamp::from_second(150).unwrap()), expected);
    }
}
