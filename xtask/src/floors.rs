//! The floors: the table in `ARCHITECTURE.md` says which crate may use which; cargo says which does. A page that is
//! checked cannot grow stale.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Context as _, Result, bail};

use crate::workspace::{self, Metadata};

const PAGE: &str = "ARCHITECTURE.md";
/// Everybody may use it: the words.
const WORDS: &str = "model";
/// Where crates for development begin.
const DEVELOPMENT: usize = 1000;
/// Everybody may test with it.
const TESTKIT: &str = "testkit";

/// A row of the table.
#[derive(Debug, PartialEq, Eq)]
struct Row {
    /// 0 and up; the crates for development (`dev`) stand above all, each above those in rows before it.
    floor: usize,
    uses: Uses,
}

#[derive(Debug, PartialEq, Eq)]
enum Uses {
    All,
    These(BTreeSet<String>),
}

/// An arrow between two crates.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Arrow {
    from: String,
    to: String,
    dev: bool,
}

/// Fails on the first look at an arrow that the table does not have.
pub fn check() -> Result<()> {
    let path = workspace::root().join(PAGE);
    let page = std::fs::read_to_string(&path).with_context(|| format!("read {}", path.display()))?;
    let metadata = workspace::metadata()?;
    let names: BTreeSet<String> = metadata.members().map(|package| crate_of(&package.name).to_owned()).collect();
    let faults = faults(&parse(&page)?, &names, &arrows(&metadata));
    if !faults.is_empty() {
        bail!("the floors of {PAGE} are not kept:\n  {}", faults.join("\n  "));
    }
    eprintln!("xtask: floors kept by {} crates", names.len());
    Ok(())
}

fn crate_of(package: &str) -> &str {
    package.strip_prefix("sampan-").unwrap_or(package)
}

fn arrows(metadata: &Metadata) -> BTreeSet<Arrow> {
    let own: BTreeSet<&str> = metadata.members().map(|package| package.name.as_str()).collect();
    let mut arrows = BTreeSet::new();
    for package in metadata.members() {
        for dependency in package.dependencies.iter().filter(|dependency| own.contains(dependency.name.as_str())) {
            arrows.insert(Arrow {
                from: crate_of(&package.name).to_owned(),
                to: crate_of(&dependency.name).to_owned(),
                dev: dependency.kind.as_deref() == Some("dev"),
            });
        }
    }
    arrows
}

/// Reads rows such as ``| 2 | `image` | what it is for | `store` |``; other lines are text.
fn parse(page: &str) -> Result<BTreeMap<String, Row>> {
    let mut table = BTreeMap::new();
    for line in page.lines() {
        let cells: Vec<&str> = line.trim().trim_matches('|').split('|').map(str::trim).collect();
        let [floor, name, _, uses] = cells[..] else { continue };
        let floor = match floor {
            "dev" => DEVELOPMENT + table.len(),
            number => match number.parse() {
                Ok(floor) => floor,
                Err(_) => continue,
            },
        };
        let [name] = &quoted(name)[..] else { bail!("{PAGE}: no crate's name in the second cell of {line:?}") };
        let uses = match uses {
            "all" => Uses::All,
            "–" => Uses::These(BTreeSet::new()),
            list => Uses::These(quoted(list).into_iter().collect()),
        };
        if table.insert(name.clone(), Row { floor, uses }).is_some() {
            bail!("{PAGE}: two rows for `{name}`");
        }
    }
    if table.is_empty() {
        bail!("{PAGE}: no table of floors in it");
    }
    Ok(table)
}

fn quoted(cell: &str) -> Vec<String> {
    cell.split('`').skip(1).step_by(2).map(str::to_owned).collect()
}

fn faults(table: &BTreeMap<String, Row>, names: &BTreeSet<String>, arrows: &BTreeSet<Arrow>) -> Vec<String> {
    let mut faults = Vec::new();
    for name in names {
        if !table.contains_key(name) {
            faults.push(format!("`{name}` is a crate without a row in the table"));
        }
    }
    for (name, row) in table {
        if !names.contains(name) {
            faults.push(format!("`{name}` has a row in the table and is no crate"));
        }
        let Uses::These(uses) = &row.uses else { continue };
        for used in uses {
            match table.get(used) {
                None => faults.push(format!("`{name}` may use `{used}`, which has no row")),
                Some(other) if other.floor >= row.floor => {
                    faults.push(format!("the table lets `{name}` use `{used}`, which is on no lower floor"));
                }
                Some(_) => {}
            }
        }
    }
    for Arrow { from, to, dev } in arrows {
        let for_all = to == WORDS || *dev && to == TESTKIT;
        let listed = table.get(from).is_none_or(|row| match &row.uses {
            Uses::All => to != TESTKIT,
            Uses::These(uses) => uses.contains(to),
        });
        if !for_all && !listed {
            let kind = if *dev { " (for its tests)" } else { "" };
            faults.push(format!("`{from}` uses `{to}`{kind}; the table does not let it"));
        }
    }
    faults
}

#[cfg(test)]
mod tests {
    use super::*;

    const TABLE: &str = "\
Text | with bars.
| floor | crate | its one job | may use |
|---|---|---|---|
| 0 | `model` | words | – |
| 1 | `store` | bytes | – |
| 2 | `image` | `tar` and so on | `store` |
| 3 | `sampan` | the binary | all |
| dev | `testkit` | roots | `store` |
";

    fn check(arrows: &[(&str, &str, bool)], expected: &[&str]) {
        let arrows = arrows.iter().map(|&(from, to, dev)| Arrow { from: from.into(), to: to.into(), dev }).collect();
        let table = parse(TABLE).expect("a table");
        let names = table.keys().cloned().collect();
        assert_eq!(faults(&table, &names, &arrows), expected);
    }

    #[test]
    fn arrows_against_the_table() {
        check(&[("image", "store", false), ("store", "model", false), ("sampan", "image", false)], &[]);
        check(&[("store", "testkit", true)], &[]);
        check(&[("store", "testkit", false)], &["`store` uses `testkit`; the table does not let it"]);
        check(&[("sampan", "testkit", false)], &["`sampan` uses `testkit`; the table does not let it"]);
        check(&[("store", "image", false)], &["`store` uses `image`; the table does not let it"]);
        check(&[("store", "image", true)], &["`store` uses `image` (for its tests); the table does not let it"]);
    }

    #[test]
    fn tables_against_themselves() {
        let upwards = parse(&TABLE.replace("| bytes | – |", "| bytes | `image` |")).expect("a table");
        let names: BTreeSet<String> =
            upwards.keys().filter(|name| *name != "sampan").cloned().chain(["new".into()]).collect();
        assert_eq!(
            faults(&upwards, &names, &BTreeSet::new()),
            [
                "`new` is a crate without a row in the table",
                "`sampan` has a row in the table and is no crate",
                "the table lets `store` use `image`, which is on no lower floor",
            ]
        );
        assert!(parse("no table").is_err());
        assert!(parse(&TABLE.replace("`store` | bytes", "`image` | bytes")).is_err(), "two rows for one crate");
    }
}
