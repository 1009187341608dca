//! Docker's notations of mounts: `-v SOURCE:TARGET[:ro]`, `--mount type=…,src=…,dst=…` and `--tmpfs TARGET[:size=…]`.
//!
//! A source with a slash or a dot at its start is a path of the caller's, made absolute here: the daemon is elsewhere.
//! Anything else is a volume's name. Whether there is such a path is for the daemon to say, which opens it with the
//! caller's rights.

use std::path::{Component, Path, PathBuf};

use sampan_model::{ByteSize, Label, Mount, MountSource};

const VOLUME_RULE: &str = "use NAME:/target or ./path:/target, and :ro for read-only";

/// Reads one `-v`.
pub(super) fn parse_volume(text: &str) -> Result<Mount, String> {
    let mut fields = text.split(':');
    let (source, target, options, rest) = (fields.next(), fields.next(), fields.next(), fields.next());
    let (Some(source), Some(target), None) = (source, target, rest) else {
        return Err(match text.starts_with('/') && !text.contains(':') {
            true => format!("a volume needs a name here: NAME:{text}"),
            false => VOLUME_RULE.into(),
        });
    };
    let mut read_only = false;
    for option in options.unwrap_or_default().split(',').filter(|option| !option.is_empty()) {
        match option {
            "ro" => read_only = true,
            "rw" => read_only = false,
            // labels of SELinux and kinds of propagation that this machine's mounts do not need
            "z" | "Z" | "rprivate" | "private" => {}
            other => return Err(format!("{other:?} is neither ro nor rw")),
        }
    }
    Ok(Mount { target: absolute_target(target)?, source: named_or_bind(source)?, read_only })
}

fn named_or_bind(source: &str) -> Result<MountSource, String> {
    let is_path = source.starts_with(['/', '.', '~']);
    match is_path {
        true => Ok(MountSource::Bind { path: absolute_source(source)? }),
        false => volume(source),
    }
}

fn volume(name: &str) -> Result<MountSource, String> {
    match Label::parse(name) {
        Ok(name) => Ok(MountSource::Volume { name }),
        Err(_) if name.contains('/') => Err(format!("a path begins with / or ./ : ./{name}")),
        Err(error) => Err(error.to_string()),
    }
}

/// Reads one `--mount`.
pub(super) fn parse_mount(text: &str) -> Result<Mount, String> {
    const RULE: &str = "use type=bind|volume|tmpfs,src=…,dst=…[,readonly]";
    let (mut kind, mut source, mut target, mut read_only) = ("volume", None, None, false);
    let (mut size_bytes, mut mode) = (None, None);
    for field in text.split(',') {
        let (key, value) = field.split_once('=').unwrap_or((field, "true"));
        match key {
            "type" => kind = value,
            "src" | "source" => source = Some(value),
            "dst" | "destination" | "target" => target = Some(value),
            "readonly" | "ro" => read_only = is_true(key, value)?,
            "tmpfs-size" => size_bytes = Some(size(value)?),
            "tmpfs-mode" => mode = Some(octal(value)?),
            other => return Err(format!("{other:?} is not known; {RULE}")),
        }
    }
    let target = absolute_target(target.ok_or(RULE)?)?;
    if kind != "tmpfs" && (size_bytes.is_some() || mode.is_some()) {
        return Err("tmpfs-size and tmpfs-mode go with type=tmpfs".into());
    }
    let source = match (kind, source) {
        ("tmpfs", None) => MountSource::Tmpfs { size_bytes, mode, owner: (0, 0), executable: false },
        ("tmpfs", Some(_)) => return Err("a tmpfs has no source".into()),
        ("bind", Some(path)) => MountSource::Bind { path: absolute_source(path)? },
        ("volume", Some(name)) => volume(name)?,
        ("bind" | "volume", None) => return Err(format!("src is missing; {RULE}")),
        (other, _) => return Err(format!("{other:?} is no kind of mount; {RULE}")),
    };
    Ok(Mount { target, source, read_only })
}

/// Reads one `--tmpfs`.
pub(super) fn parse_tmpfs(text: &str) -> Result<Mount, String> {
    let (target, options) = text.split_once(':').unwrap_or((text, ""));
    let (mut size_bytes, mut mode, mut read_only) = (None, None, false);
    let (mut owner, mut executable) = ((0, 0), false);
    for option in options.split(',').filter(|option| !option.is_empty()) {
        match option.split_once('=') {
            Some(("size", value)) => size_bytes = Some(size(value)?),
            Some(("mode", value)) => mode = Some(octal(value)?),
            Some(("uid", value)) => owner.0 = id(value)?,
            Some(("gid", value)) => owner.1 = id(value)?,
            None if option == "ro" => read_only = true,
            None if option == "exec" => executable = true,
            None if option == "noexec" => executable = false,
            // it is all of these anyway
            None if ["rw", "nosuid", "nodev", "async"].contains(&option) => {}
            _ => {
                return Err(format!(
                    "{option:?} is not known; use /target:size=64MiB,mode=1777,uid=1000,gid=1000,exec,ro"
                ));
            }
        }
    }
    Ok(Mount {
        target: absolute_target(target)?,
        source: MountSource::Tmpfs { size_bytes, mode, owner, executable },
        read_only,
    })
}

fn size(text: &str) -> Result<ByteSize, String> {
    text.parse::<ByteSize>().map_err(|error| error.to_string())
}

fn id(text: &str) -> Result<u32, String> {
    text.parse().map_err(|_| format!("{text:?} is no number of a user or group"))
}

fn octal(text: &str) -> Result<u32, String> {
    let mode = u32::from_str_radix(text, 8).ok().filter(|&mode| mode <= 0o7777);
    mode.ok_or_else(|| format!("{text:?} is no mode, such as 1777"))
}

fn is_true(key: &str, value: &str) -> Result<bool, String> {
    match value {
        "true" | "1" => Ok(true),
        "false" | "0" => Ok(false),
        _ => Err(format!("{key} is true or false")),
    }
}

fn absolute_target(target: &str) -> Result<String, String> {
    match target.starts_with('/') {
        true => Ok(target.to_owned()),
        false => Err(format!("{target:?} is where it is mounted in the container: it begins with /")),
    }
}

/// A path of the caller's: `~/x` is in the home directory, `./x` and `../x` where they are.
fn absolute_source(source: &str) -> Result<PathBuf, String> {
    let path = match source.strip_prefix('~') {
        Some(rest) if rest.is_empty() || rest.starts_with('/') => {
            let home = std::env::var_os("HOME").ok_or("~ is nowhere: HOME is not set")?;
            Path::new(&home).join(rest.trim_start_matches('/'))
        }
        _ => PathBuf::from(source),
    };
    let here = || std::env::current_dir().map_err(|error| format!("the present directory is not known: {error}"));
    let path = if path.is_absolute() { path } else { here()?.join(path) };
    Ok(without_dots(&path))
}

/// Without `.`; a `..` stays, since what it means is a matter of links.
fn without_dots(path: &Path) -> PathBuf {
    path.components().filter(|part| !matches!(part, Component::CurDir)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bind(path: impl Into<PathBuf>) -> MountSource {
        MountSource::Bind { path: path.into() }
    }

    fn named(name: &str) -> MountSource {
        MountSource::Volume { name: Label::parse(name).unwrap() }
    }

    fn tmpfs(mib: Option<u64>, mode: Option<u32>) -> MountSource {
        MountSource::Tmpfs { size_bytes: mib.map(ByteSize::mib), mode, owner: (0, 0), executable: false }
    }

    #[test]
    fn mounts() {
        let here = std::env::current_dir().unwrap();
        let check = |mount: Result<Mount, String>, target: &str, source: MountSource, read_only| {
            assert_eq!(mount, Ok(Mount { target: target.into(), source, read_only }));
        };
        check(parse_volume("data:/data"), "/data", named("data"), false);
        check(parse_volume("/etc:/x:ro"), "/x", bind("/etc"), true);
        check(parse_volume("./a/./b:/x:rw,Z"), "/x", bind(here.join("a/b")), false);
        check(parse_volume(".:/x"), "/x", bind(here.clone()), false);
        check(parse_volume("../a:/x"), "/x", bind(here.join("../a")), false);
        check(parse_mount("type=bind,source=/a,target=/b,readonly"), "/b", bind("/a"), true);
        check(parse_mount("src=data,dst=/b,ro=false"), "/b", named("data"), false);
        check(parse_mount("type=tmpfs,dst=/t,tmpfs-size=1m,tmpfs-mode=700"), "/t", tmpfs(Some(1), Some(0o700)), false);
        check(parse_tmpfs("/t"), "/t", tmpfs(None, None), false);
        check(parse_tmpfs("/t:size=64MiB,mode=1777,nosuid"), "/t", tmpfs(Some(64), Some(0o1777)), false);
        let theirs = MountSource::Tmpfs { size_bytes: None, mode: None, owner: (1000, 100), executable: true };
        check(parse_tmpfs("/t:uid=1000,gid=100,exec,rw"), "/t", theirs, false);
        let home = std::env::var("HOME").unwrap();
        check(parse_volume("~/x:/x"), "/x", bind(Path::new(&home).join("x")), false);
    }

    #[test]
    fn what_is_no_mount() {
        let check = |mount: Result<Mount, String>, says: &str| {
            let error = mount.unwrap_err();
            assert!(error.contains(says), "{error}");
        };
        check(parse_volume("/data"), "NAME:/data");
        check(parse_volume("data"), "use NAME:/target");
        check(parse_volume("src/app:/x"), "./src/app");
        check(parse_volume("data:target"), "begins with /");
        check(parse_volume("data:/x:rx"), "neither ro nor rw");
        check(parse_volume("a:/b:ro:c"), "use NAME:/target");
        check(parse_volume("Data:/x"), "lower-case");
        check(parse_mount("type=bind,dst=/x"), "src is missing");
        check(parse_mount("type=nfs,src=a,dst=/x"), "no kind of mount");
        check(parse_mount("src=data,dst=/x,tmpfs-size=1m"), "type=tmpfs");
        check(parse_mount("src=data"), "use type=");
        check(parse_mount("src=data,dst=/x,propagation=shared"), "not known");
        check(parse_tmpfs("/t:size=lots"), "512MiB");
        check(parse_tmpfs("/t:mode=9"), "no mode");
        check(parse_tmpfs("/t:uid=me"), "no number");
        check(parse_tmpfs("/t:suid"), "not known");
        check(parse_tmpfs("t"), "begins with /");
    }
}
