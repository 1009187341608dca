//! `sampan image`.

use std::path::PathBuf;

use clap::Subcommand;
use sampan_model::ImageName;

#[derive(Debug, Subcommand)]
pub enum ImageCommand {
    /// Make an image of a root file system's tar archive
    #[command(after_help = "Example:\n  sampan image import rootfs.tar.gz busybox")]
    Import {
        /// The archive, plain or gzipped; '-' is standard input
        file: PathBuf,
        /// The image's name
        name: ImageName,
    },
    /// List images
    #[command(after_help = "Example:\n  sampan image ls --json")]
    Ls,
    /// Remove images
    #[command(after_help = "Example:\n  sampan image rm busybox")]
    Rm {
        /// Their names
        #[arg(value_name = "NAME", required = true)]
        names: Vec<ImageName>,
    },
}
