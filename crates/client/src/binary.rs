//! Finding the `sampan` binary, for programs that are not it.

use std::path::{Path, PathBuf};

/// The variable that names it.
pub const VARIABLE: &str = "SAMPAN_BIN";

/// The `sampan` binary: the one that `SAMPAN_BIN` names, else one beside this program, else the first on `PATH`.
pub(crate) fn find() -> Option<PathBuf> {
    let own = std::env::current_exe().ok();
    let named = std::env::var_os(VARIABLE).filter(|path| !path.is_empty()).map(PathBuf::from);
    let path = std::env::var_os("PATH").unwrap_or_default();
    find_among(named, own.as_deref(), std::env::split_paths(&path))
}

fn find_among(named: Option<PathBuf>, own: Option<&Path>, path: impl Iterator<Item = PathBuf>) -> Option<PathBuf> {
    if named.is_some() {
        return named;
    }
    // cargo puts examples and tests into a directory beside the programs
    let beside = own.and_then(Path::parent).map(|directory| match directory.file_name() {
        Some(name) if name == "examples" || name == "deps" => directory.parent().unwrap_or(directory),
        _ => directory,
    });
    // an entry of PATH that is not absolute would be another one in each directory
    let directories = beside.map(Path::to_path_buf).into_iter().chain(path.filter(|entry| entry.is_absolute()));
    directories.map(|directory| directory.join("sampan")).find(|path| is_executable(path))
}

fn is_executable(path: &Path) -> bool {
    path.is_file() && rustix::fs::access(path, rustix::fs::Access::EXEC_OK).is_ok()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn named_then_beside_then_on_the_path() {
        let dir = tempfile::tempdir().unwrap();
        let place = |name: &str, mode: u32| {
            let directory = dir.path().join(name);
            std::fs::create_dir_all(&directory).unwrap();
            std::fs::write(directory.join("sampan"), "").unwrap();
            std::fs::set_permissions(directory.join("sampan"), PermissionsExt::from_mode(mode)).unwrap();
            directory
        };
        let (debug, bin, data) = (place("debug", 0o755), place("bin", 0o755), place("data", 0o644));
        let check = |named: Option<&str>, own: Option<PathBuf>, path: &[&PathBuf], expected: Option<PathBuf>| {
            let found =
                find_among(named.map(PathBuf::from), own.as_deref(), path.iter().map(|path| path.to_path_buf()));
            assert_eq!(found, expected);
        };
        check(Some("/x"), Some(debug.join("app")), &[&bin], Some("/x".into()));
        check(None, Some(debug.join("app")), &[&bin], Some(debug.join("sampan")));
        check(None, Some(debug.join("examples/app")), &[&bin], Some(debug.join("sampan")));
        check(None, Some(dir.path().join("elsewhere/app")), &[&data, &bin], Some(bin.join("sampan")));
        check(None, None, &[&PathBuf::from("bin"), &data], None);
    }
}
