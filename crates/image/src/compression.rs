//! Streams as they come: plain, in gzip or in zstd.
//!
//! Nothing is compressed here. What other programs compress otherwise is refused by its name rather than as a broken
//! tar. A stream may be several gzip members or zstd frames one after the other, as `pigz` and `zstd` write them.
//!
//! Source: RFC 1952 (gzip), RFC 8878 (zstd; a window above 128 MiB, which `zstd --ultra --long=28` makes, is refused).

use std::io::{self, BufRead, BufReader, Cursor, Read};

use flate2::bufread::MultiGzDecoder;
use ruzstd::decoding::errors::{FrameDecoderError, ReadFrameHeaderError};
use ruzstd::decoding::{BlockDecodingStrategy, FrameDecoder};

use crate::LayerMediaType;

/// How a stream is packed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Compression {
    Plain,
    Gzip,
    Zstd,
}

/// Why a stream cannot be unpacked.
#[derive(Debug, thiserror::Error)]
pub enum CompressionError {
    /// Its kind is not known here.
    #[error("the file is compressed with {0}: unpack it, or compress it with gzip or zstd")]
    Unsupported(&'static str),
    /// Its first bytes cannot be read.
    #[error("read the beginning of the file")]
    Read(#[source] io::Error),
}

impl Compression {
    /// What the first bytes of a stream, 6 where it has as many, say.
    pub(crate) fn sniff(head: &[u8]) -> Result<Self, CompressionError> {
        match head {
            [0x1f, 0x8b, ..] => Ok(Self::Gzip),
            // a frame, or one to be skipped, which pzstd begins with
            [0x28, 0xb5, 0x2f, 0xfd, ..] | [0x50..=0x5f, 0x2a, 0x4d, 0x18, ..] => Ok(Self::Zstd),
            [0xfd, b'7', b'z', b'X', b'Z', ..] => Err(CompressionError::Unsupported("xz")),
            [b'B', b'Z', b'h', ..] => Err(CompressionError::Unsupported("bzip2")),
            [0x04, 0x22, 0x4d, 0x18, ..] => Err(CompressionError::Unsupported("lz4")),
            _ => Ok(Self::Plain),
        }
    }

    pub(crate) fn of(media_type: LayerMediaType) -> Self {
        match media_type {
            LayerMediaType::Tar => Self::Plain,
            LayerMediaType::TarGzip => Self::Gzip,
            LayerMediaType::TarZstd => Self::Zstd,
        }
    }

    /// The type of a layer that is a tar packed so.
    pub(crate) fn layer_type(self) -> LayerMediaType {
        match self {
            Self::Plain => LayerMediaType::Tar,
            Self::Gzip => LayerMediaType::TarGzip,
            Self::Zstd => LayerMediaType::TarZstd,
        }
    }

    /// The stream unpacked.
    pub(crate) fn decoder<'a>(self, reader: impl BufRead + 'a) -> Box<dyn Read + 'a> {
        match self {
            Self::Plain => Box::new(reader),
            Self::Gzip => Box::new(MultiGzDecoder::new(reader)),
            Self::Zstd => Box::new(Zstd { source: reader, decoder: FrameDecoder::new(), in_frame: false }),
        }
    }
}

/// The stream unpacked, however it is packed.
pub(crate) fn decompress<'a>(reader: impl Read + 'a) -> Result<Box<dyn Read + 'a>, CompressionError> {
    let mut reader = BufReader::with_capacity(128 << 10, reader);
    let mut head = Vec::with_capacity(6);
    reader.by_ref().take(6).read_to_end(&mut head).map_err(CompressionError::Read)?;
    let compression = Compression::sniff(&head)?;
    Ok(compression.decoder(Cursor::new(head).chain(reader)))
}

/// The frames of a zstd stream, one after the other.
struct Zstd<R> {
    source: R,
    decoder: FrameDecoder,
    in_frame: bool,
}

impl<R: BufRead> Zstd<R> {
    /// Begins the next frame that holds something; `false` at the end of the stream.
    fn next_frame(&mut self) -> io::Result<bool> {
        while !self.source.fill_buf()?.is_empty() {
            match self.decoder.reset(&mut self.source) {
                Ok(()) => return Ok(true),
                Err(FrameDecoderError::ReadFrameHeaderError(ReadFrameHeaderError::SkipFrame { length, .. })) => {
                    let skipped = io::copy(&mut self.source.by_ref().take(length.into()), &mut io::sink())?;
                    if skipped < u64::from(length) {
                        return Err(io::ErrorKind::UnexpectedEof.into());
                    }
                }
                Err(error) => return Err(io::Error::new(io::ErrorKind::InvalidData, error)),
            }
        }
        Ok(false)
    }
}

impl<R: BufRead> Read for Zstd<R> {
    fn read(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
        loop {
            if !self.in_frame {
                self.in_frame = self.next_frame()?;
                if !self.in_frame {
                    return Ok(0);
                }
            }
            while self.decoder.can_collect() == 0 && !self.decoder.is_finished() {
                let decoded = self.decoder.decode_blocks(&mut self.source, BlockDecodingStrategy::UptoBlocks(1));
                decoded.map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))?;
            }
            if self.decoder.can_collect() > 0 || bytes.is_empty() {
                return self.decoder.read(bytes);
            }
            self.in_frame = false;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::gzip;

    /// `printf hello | zstd`, as 1.5.4 writes it: one block, with a checksum.
    const HELLO: &[u8] = b"\x28\xb5\x2f\xfd\x04\x58\x29\0\0hello\xa3\x6d\x9f\x88";

    fn read(bytes: &[u8]) -> Result<String, String> {
        let mut text = String::new();
        let mut reader = decompress(bytes).map_err(|error| error.to_string())?;
        reader.read_to_string(&mut text).map_err(|error| error.to_string())?;
        Ok(text)
    }

    #[test]
    fn every_kind() {
        let skipped = b"\x50\x2a\x4d\x18\x03\0\0\0xyz";
        for (bytes, text) in [
            (b"hello".to_vec(), "hello"),
            (gzip(b"hello"), "hello"),
            ([gzip(b"hel"), gzip(b"lo")].concat(), "hello"),
            (HELLO.to_vec(), "hello"),
            ([skipped, HELLO, skipped, HELLO].concat(), "hellohello"),
            (Vec::new(), ""),
        ] {
            assert_eq!(read(&bytes).as_deref(), Ok(text), "{bytes:x?}");
        }
    }

    #[test]
    fn what_is_refused() {
        for (bytes, part) in [
            (b"\xfd7zXZ\0".to_vec(), "compressed with xz"),
            (b"BZh9".to_vec(), "compressed with bzip2"),
            (b"\x04\x22\x4d\x18".to_vec(), "compressed with lz4"),
            (HELLO[..12].to_vec(), ""),
            (b"\x50\x2a\x4d\x18\x09\0\0\0xyz".to_vec(), "unexpected end"),
            // a window of 2 TiB is not made room for
            (b"\x28\xb5\x2f\xfd\0\xf8\0\0\0".to_vec(), "window_size"),
        ] {
            let error = read(&bytes).expect_err("it is broken");
            assert!(error.contains(part), "{error}");
        }
    }
}
