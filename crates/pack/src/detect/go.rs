//! Where the main package of a Go module, or of a lone file, is. Package clauses are read from the files: the `go`
//! tool is not needed to recognise Go, only to compile it.

use std::fs::File;
use std::io::Read as _;
use std::path::{Path, PathBuf};

use super::{DetectError, Selection, entries, file_name, regular_files};

/// A Go main package.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GoMain {
    /// The program's name, as `go build` would give it: the last part of the module's path, else the directory's name
    /// in its module, else the first file's. It is not the directory's own, so that the same source is the same image.
    pub name: String,
    /// What `go build` is given, from the source's directory: `.`, `./cmd/NAME`, or the files of a program that
    /// belongs to no module.
    pub arguments: Vec<String>,
}

/// How much of a file is read in search of its package clause.
const MOST_HEAD: u64 = 64 << 10;

/// `None` where the directory is not Go's business.
pub(super) fn detect(path: &Path, files: &[PathBuf], selection: &Selection) -> Result<Option<GoMain>, DetectError> {
    let module = files.iter().any(|file| file.ends_with("go.mod"));
    let main_files: Vec<&PathBuf> = files.iter().filter(|file| is_main(file)).collect();
    // a directory inside a module is a package of it; without a module, files have to be named one by one
    let in_module = module || path.ancestors().skip(1).any(|above| above.join("go.mod").is_file());
    let root = (!main_files.is_empty()).then(|| GoMain {
        name: match main_files.first() {
            Some(first) if !in_module => stem(first),
            _ => module_name(path).unwrap_or_else(|| file_name(path)),
        },
        arguments: if in_module { vec![".".into()] } else { main_files.iter().map(|file| file_name(file)).collect() },
    });
    if !module {
        return match (root, &selection.bin) {
            (Some(root), Some(wanted)) if *wanted != root.name => {
                Err(DetectError::NoSuchBinary { path: path.into(), wanted: wanted.clone(), names: vec![root.name] })
            }
            (root, _) => Ok(root),
        };
    }
    let mut mains: Vec<GoMain> = commands(path)?;
    if let Some(wanted) = &selection.bin {
        mains.extend(root);
        return match mains.iter().position(|main| main.name == *wanted) {
            Some(at) => Ok(Some(mains.swap_remove(at))),
            None => Err(DetectError::NoSuchBinary {
                path: path.into(),
                wanted: wanted.clone(),
                names: mains.into_iter().map(|main| main.name).collect(),
            }),
        };
    }
    match (root, mains.len()) {
        (Some(root), _) => Ok(Some(root)),
        (None, 0) => Err(DetectError::NoGoMain { path: path.into() }),
        (None, 1) => Ok(mains.pop()),
        (None, _) => Err(DetectError::SeveralBinaries {
            path: path.into(),
            names: mains.into_iter().map(|main| main.name).collect(),
        }),
    }
}

/// The main packages directly under `cmd/`, sorted.
fn commands(path: &Path) -> Result<Vec<GoMain>, DetectError> {
    let cmd = path.join("cmd");
    if !cmd.symlink_metadata().is_ok_and(|metadata| metadata.is_dir()) {
        return Ok(Vec::new());
    }
    let mut mains = Vec::new();
    for directory in entries(&cmd, |kind| kind.is_dir())? {
        if regular_files(&directory)?.iter().any(|file| is_main(file)) {
            let name = file_name(&directory);
            mains.push(GoMain { arguments: vec![format!("./cmd/{name}")], name });
        }
    }
    Ok(mains)
}

/// The last part of the path of the module that begins in this directory (Go Modules Reference, "`module`
/// directive"); not its major version.
fn module_name(path: &Path) -> Option<String> {
    let mut head = String::new();
    File::open(path.join("go.mod")).ok()?.take(MOST_HEAD).read_to_string(&mut head).ok()?;
    last_part(&head).map(Into::into)
}

fn last_part(go_mod: &str) -> Option<&str> {
    let words = go_mod.lines().map(|line| line.split("//").next().unwrap_or_default());
    let module = words.filter_map(|line| line.trim().strip_prefix("module")?.strip_prefix([' ', '\t'])).next()?;
    let mut parts = module.trim().trim_matches(['"', '`']).rsplit('/');
    let last = parts.next()?;
    let is_version = last.strip_prefix('v').is_some_and(|number| number.parse::<u32>().is_ok());
    let name = if is_version { parts.next().unwrap_or(last) } else { last };
    (!name.is_empty()).then_some(name)
}

fn stem(file: &Path) -> String {
    file.file_stem().unwrap_or_default().to_string_lossy().into_owned()
}

/// Whether a file is Go, no test, not left out by `//go:build ignore`, and of package main.
fn is_main(file: &Path) -> bool {
    let name = file_name(file);
    // the go tool ignores what starts with '_' or '.'
    if !name.ends_with(".go") || name.ends_with("_test.go") || name.starts_with(['_', '.']) {
        return false;
    }
    let mut head = Vec::new();
    let read = File::open(file).and_then(|file| file.take(MOST_HEAD).read_to_end(&mut head));
    read.is_ok() && package_clause(&String::from_utf8_lossy(&head)) == Some("main")
}

/// The name in a file's package clause (Go specification, "Source file organization"): what comes first after
/// comments.
fn package_clause(text: &str) -> Option<&str> {
    let mut rest = text.trim_start_matches('\u{feff}');
    loop {
        rest = rest.trim_start();
        if let Some(comment) = rest.strip_prefix("//") {
            let (line, after) = comment.split_once('\n').unwrap_or((comment, ""));
            if line.strip_prefix("go:build").is_some_and(|tags| tags.trim() == "ignore") {
                return None;
            }
            rest = after;
        } else if let Some(comment) = rest.strip_prefix("/*") {
            rest = comment.split_once("*/")?.1;
        } else {
            let name = rest.strip_prefix("package")?.strip_prefix([' ', '\t'])?.trim_start();
            let end = name.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(name.len());
            return Some(&name[..end]);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn modules_name_their_programs() {
        for (text, name) in [
            ("module example.com/shop/api\n\ngo 1.18\n", Some("api")),
            ("// ours\nmodule\t\"shop\" // quoted\n", Some("shop")),
            ("module example.com/shop/v2", Some("shop")),
            ("module v2", Some("v2")),
            ("modules x", None),
            ("", None),
        ] {
            assert_eq!(last_part(text), name, "{text:?}");
        }
    }

    #[test]
    fn package_clauses() {
        for (text, package) in [
            ("package main", Some("main")),
            ("\u{feff}// hello\n\n/* a\npackage x */ package main // y", Some("main")),
            ("package\tlib;import \"x\"", Some("lib")),
            ("//go:build linux\n\npackage main\n", Some("main")),
            ("//go:build ignore\n\npackage main\n", None),
            ("packagemain", None),
            ("/* package main", None),
            ("", None),
        ] {
            assert_eq!(package_clause(text), package, "{text:?}");
        }
    }
}
