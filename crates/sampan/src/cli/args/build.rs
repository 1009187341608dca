//! `sampan build`.

use std::path::PathBuf;
use std::str::FromStr;

use clap::Args;
use sampan_model::ImageName;

#[derive(Debug, Args)]
#[command(
    after_help = "Example:\n  sampan build examples/hello-rust -t hello:1.0\n  sampan build examples/hello-rust -o type=docker,dest=hello.tar && docker load -i hello.tar\n  sampan build examples/hello-rust -o type=dir,dest=bundle && runc run -b bundle hello\n  sampan build examples/hello-rust --verify hello:1.0"
)]
pub struct BuildArgs {
    /// The directory of source, or a binary that is ready
    #[arg(value_name = "DIR", default_value = ".")]
    pub source: PathBuf,
    /// The image's name [default: the service's that `up` would make]; loaded unless there is only -o
    #[arg(long = "tag", short = 't', value_name = "NAME")]
    pub tags: Vec<ImageName>,
    /// Write the image out: an OCI archive, one for `docker load`, or a bundle for runc; '-' is standard output
    #[arg(long = "output", short = 'o', value_name = "type=oci|docker|dir,dest=PATH[,name=NAME]")]
    pub outputs: Vec<Output>,
    /// Compile everything anew, and say whether it comes to this image
    #[arg(long, value_name = "IMAGE", conflicts_with_all = ["tags", "outputs"])]
    pub verify: Option<ImageName>,
    /// Which binary, where there are several
    #[arg(long)]
    pub bin: Option<String>,
    /// Which package of a workspace
    #[arg(long)]
    pub package: Option<String>,
}

/// `type=oci,dest=x.tar`, and `name=hello:1.0` as for BuildKit
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Output {
    pub kind: OutputKind,
    pub dest: PathBuf,
    /// The image's name in the archive, where it is another than those of --tag.
    pub name: Option<ImageName>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OutputKind {
    /// An OCI image layout in a tar.
    Oci,
    /// What `docker load` takes.
    Docker,
    /// A bundle for an OCI runtime.
    Dir,
}

impl FromStr for Output {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        const USE: &str = "use type=oci,dest=FILE, type=docker,dest=FILE or type=dir,dest=DIR";
        let (mut kind, mut dest, mut name) = (None, None, None);
        let mut rest = text;
        while !rest.is_empty() {
            let (key, value) = rest.split_once('=').ok_or_else(|| USE.to_owned())?;
            // a path may have commas: what follows one is the next field only where it looks like one
            let end =
                [",type=", ",dest=", ",name="].iter().filter_map(|next| value.find(next)).min().unwrap_or(value.len());
            let (value, after) = value.split_at(end);
            rest = after.strip_prefix(',').unwrap_or_default();
            match (key, value) {
                (_, "") => return Err(format!("the value of {key} is missing: {USE}")),
                ("type", "oci") => kind = Some(OutputKind::Oci),
                ("type", "docker") => kind = Some(OutputKind::Docker),
                ("type", "dir") => kind = Some(OutputKind::Dir),
                ("type", other) => return Err(format!("there is no type {other:?}: {USE}")),
                ("name", text) => name = Some(ImageName::parse(text).map_err(|error| error.to_string())?),
                ("dest", path) => dest = Some(PathBuf::from(path)),
                (key, _) => return Err(format!("there is no field {key:?}: {USE}")),
            }
        }
        let (Some(kind), Some(dest)) = (kind, dest) else { return Err(USE.to_owned()) };
        if kind == OutputKind::Dir && dest.as_os_str() == "-" {
            return Err("a directory cannot be written to standard output: use type=oci or type=docker".to_owned());
        }
        Ok(Self { kind, dest, name })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn outputs() {
        for (text, expected) in [
            ("type=oci,dest=x.tar", Some((OutputKind::Oci, "x.tar"))),
            ("dest=-,type=docker", Some((OutputKind::Docker, "-"))),
            ("type=dir,dest=a,b=c", Some((OutputKind::Dir, "a,b=c"))),
            ("type=dir,dest=-", None),
            ("x.tar", None),
            ("type=oci", None),
            ("dest=x", None),
            ("type=zip,dest=x", None),
            ("type=oci,dest=", None),
            ("kind=oci,dest=x", None),
        ] {
            let parsed = text.parse::<Output>();
            let expected = expected.map(|(kind, dest)| Output { kind, dest: dest.into(), name: None });
            assert_eq!(parsed.clone().ok(), expected, "{text}: {parsed:?}");
        }
        let named = "type=oci,name=a/b:1,dest=x".parse::<Output>().map(|output| output.name.map(String::from));
        assert_eq!(named, Ok(Some("a/b:1".to_owned())));
        assert!("type=oci,name=A,dest=x".parse::<Output>().is_err());
    }
}
