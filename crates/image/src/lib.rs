//! OCI images (image specification 1.1): what a manifest says, layers written, read and unpacked, and whom an image
//! runs as.
//!
//! An image leaves as an archive ([`save`]) or as a bundle that an OCI runtime executes ([`bundle`]), and comes in from
//! an archive ([`load`]) or as a bare root file system ([`import_rootfs`]).
//!
//! Everything is synchronous and streams: no layer is ever held in memory. Bytes come from a [`BlobSource`], which the
//! `store` implements; nothing here reaches a network, and nothing knows of containers. Foreign bytes (manifests,
//! configs, tars, `/etc/passwd`) are bounded and never trusted: a layer is unpacked below a directory that no name in
//! it can leave.
//!
//! Words: a **manifest** names a config and layers by digest, and its digest is the image's; a **diff id** is the digest
//! of a layer's tar before compression, and the name of the unpacked layer; a **whiteout** is the mark, in a layer, that
//! a name of a lower layer is gone.

#![forbid(unsafe_code)]

mod archive;
pub mod bundle;
pub mod compare;
mod compression;
mod entry_path;
mod files;
mod format;
mod import;
pub mod layers;
pub mod load;
mod manifest;
pub mod save;
mod tree;
pub mod unpack;
pub mod user;
pub mod write;

#[cfg(test)]
mod testing;

pub use archive::ArchiveError;
pub use compression::CompressionError;
pub use entry_path::BadName;
pub use files::BlobFiles;
pub use format::{History, ImageConfig, Layer, LayerMediaType, host_architecture};
pub use import::{ImportError, Imported, import_rootfs};
pub use layers::{LayerFault, Layers, LayersError};
pub use manifest::{BlobSource, Image, ImageError, LARGEST_JSON, Manifest};
pub use unpack::{UnpackError, UnpackStats, check_layer, unpack_layer};
pub use user::{User, UserError};
pub use write::{Composed, LayerWriter, TIME, WriteError, compose};
