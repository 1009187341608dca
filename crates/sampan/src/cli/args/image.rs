//! `sampan image`.

use std::path::PathBuf;

use clap::{Args, Subcommand};
use sampan_model::ImageName;

#[derive(Debug, Subcommand)]
pub enum ImageCommand {
    /// List images
    #[command(after_help = "Example:\n  sampan image ls --json")]
    Ls,
    /// Print all there is to know about images, as JSON
    #[command(after_help = "Example:\n  sampan image inspect busybox")]
    Inspect {
        /// Their names
        #[arg(value_name = "NAME", required = true)]
        names: Vec<ImageName>,
    },
    /// Show the steps an image was made in
    #[command(after_help = "Example:\n  sampan image history busybox")]
    History {
        /// Its name
        name: ImageName,
    },
    /// Write images into an archive that Docker, Podman and others load
    Save(SaveArgs),
    /// Load images from an archive that Docker, Podman or others wrote
    Load(LoadArgs),
    /// Make an image of a root file system's tar archive
    #[command(after_help = "Example:\n  sampan image import rootfs.tar.gz busybox")]
    Import {
        /// The archive, plain or in gzip or zstd; '-' is standard input
        file: PathBuf,
        /// The image's name
        name: ImageName,
    },
    /// Give an image one more name
    #[command(after_help = "Example:\n  sampan image tag hello-rust hello-rust:1.0")]
    Tag {
        /// A name it has
        name: ImageName,
        /// The name it is to have as well
        #[arg(value_name = "NEW")]
        new: ImageName,
    },
    /// Remove images
    #[command(after_help = "Example:\n  sampan image rm busybox")]
    Rm {
        /// Take the name away although something uses the image
        #[arg(long, short)]
        force: bool,
        /// Their names
        #[arg(value_name = "NAME", required = true)]
        names: Vec<ImageName>,
    },
    /// Remove what no image needs
    #[command(after_help = "Example:\n  sampan image prune --all")]
    Prune {
        /// Also the images that no container and no service uses
        #[arg(long, short)]
        all: bool,
        /// Nothing is asked anyway: for scripts that say so
        #[arg(long, short, hide = true)]
        force: bool,
    },
    /// Read every image and say what is wrong with any; ends with 1 where something is left so
    #[command(after_help = "Example:\n  sampan image fsck --repair")]
    Fsck {
        /// Mend what can be: what is damaged is moved aside, and unpacked or asked for again
        #[arg(long)]
        repair: bool,
    },
}

#[derive(Debug, Args)]
#[command(
    after_help = "Example:\n  sampan image save -o hello.tar hello-rust\n  sampan image save hello-rust | gzip > hello.tar.gz"
)]
pub struct SaveArgs {
    /// The file [default: standard output]
    #[arg(long, short, value_name = "FILE")]
    pub output: Option<PathBuf>,
    /// The images' names
    #[arg(value_name = "NAME", required = true)]
    pub names: Vec<ImageName>,
}

#[derive(Debug, Args)]
#[command(after_help = "Example:\n  sampan image load -i hello.tar\n  docker save alpine | sampan image load")]
pub struct LoadArgs {
    /// The archive, plain or in gzip or zstd [default: standard input]
    #[arg(long, short, value_name = "FILE")]
    pub input: Option<PathBuf>,
    /// The image's name, instead of those in the archive
    #[arg(long, short, value_name = "NAME")]
    pub tag: Option<ImageName>,
}
