//! What a file is, by its name: its content type, whether compressing it is worth it, and how long it may be kept.

/// What a file is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Kind {
    /// Its content type, with the character set where it is text.
    pub(crate) content_type: &'static str,
    /// Whether it gets smaller: what is compressed already does not.
    pub(crate) is_compressible: bool,
}

/// By extension, in lower case. Text is UTF-8, as HTML demands (HTML Standard §4.2.5.4). Types of images, sound and
/// video are what browsers know; anything else is a download.
#[rustfmt::skip]
const KINDS: [(&str, &str, bool); 52] = [
    ("html", "text/html; charset=utf-8", true),
    ("htm", "text/html; charset=utf-8", true),
    ("xhtml", "application/xhtml+xml; charset=utf-8", true),
    ("css", "text/css; charset=utf-8", true),
    ("js", "text/javascript; charset=utf-8", true),
    ("mjs", "text/javascript; charset=utf-8", true),
    ("json", "application/json", true),
    ("map", "application/json", true),
    ("jsonld", "application/ld+json", true),
    ("geojson", "application/geo+json", true),
    ("webmanifest", "application/manifest+json", true),
    ("wasm", "application/wasm", true),
    ("txt", "text/plain; charset=utf-8", true),
    ("md", "text/markdown; charset=utf-8", true),
    ("csv", "text/csv; charset=utf-8", true),
    ("ics", "text/calendar; charset=utf-8", true),
    ("vtt", "text/vtt; charset=utf-8", true),
    ("xml", "application/xml; charset=utf-8", true),
    ("rss", "application/rss+xml; charset=utf-8", true),
    ("atom", "application/atom+xml; charset=utf-8", true),
    ("yaml", "application/yaml", true),
    ("yml", "application/yaml", true),
    ("svg", "image/svg+xml", true),
    ("ico", "image/vnd.microsoft.icon", true),
    ("bmp", "image/bmp", true),
    ("png", "image/png", false),
    ("apng", "image/apng", false),
    ("jpg", "image/jpeg", false),
    ("jpeg", "image/jpeg", false),
    ("gif", "image/gif", false),
    ("webp", "image/webp", false),
    ("avif", "image/avif", false),
    ("jxl", "image/jxl", false),
    ("mp4", "video/mp4", false),
    ("m4v", "video/mp4", false),
    ("webm", "video/webm", false),
    ("ogv", "video/ogg", false),
    ("mov", "video/quicktime", false),
    ("mp3", "audio/mpeg", false),
    ("m4a", "audio/mp4", false),
    ("ogg", "audio/ogg", false),
    ("opus", "audio/ogg", false),
    ("flac", "audio/flac", false),
    ("wav", "audio/wav", true),
    ("woff", "font/woff", false),
    ("woff2", "font/woff2", false),
    ("ttf", "font/ttf", true),
    ("otf", "font/otf", true),
    ("pdf", "application/pdf", false),
    ("epub", "application/epub+zip", false),
    ("zip", "application/zip", false),
    ("gz", "application/gzip", false),
];

const OTHER: Kind = Kind { content_type: "application/octet-stream", is_compressible: false };

/// What the file of this name is.
pub(crate) fn kind(name: &[u8]) -> Kind {
    let extension = extension(name).to_ascii_lowercase();
    let found = KINDS.iter().find(|(known, ..)| known.as_bytes() == extension);
    found.map_or(OTHER, |(_, content_type, is_compressible)| Kind { content_type, is_compressible: *is_compressible })
}

/// How a browser may keep it: for ever where the name changes with the content, else only to ask whether it still is
/// so, which costs a question and never shows an old page with a new style sheet.
pub(crate) fn cache_control(name: &[u8]) -> &'static str {
    if is_hashed(name) { "public, max-age=31536000, immutable" } else { "no-cache" }
}

/// Whether the last part of a name before its extension is a digest, as bundlers write it: `app.3f2a9c1b.js`,
/// `index-B4x9kQ2z.css`. A date or a size (`20240131`, `1024x768`) is none.
fn is_hashed(name: &[u8]) -> bool {
    let name = name.rsplit(|byte| *byte == b'/').next().unwrap_or_default();
    let Some(stem) = name.len().checked_sub(extension(name).len() + 1).map(|end| &name[..end]) else { return false };
    let Some(at) = stem.iter().rposition(|byte| matches!(byte, b'.' | b'-')) else { return false };
    let part = &stem[at + 1..];
    let any = |is: fn(&u8) -> bool| part.iter().any(is);
    let is_hex = part.iter().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
    let is_word = part.iter().all(|byte| byte.is_ascii_alphanumeric() || *byte == b'_');
    let is_mixed = any(u8::is_ascii_lowercase) && any(u8::is_ascii_digit) && (is_hex || any(u8::is_ascii_uppercase));
    (8..=64).contains(&part.len()) && is_word && is_mixed
}

/// What is after the last dot of a name; nothing where it has none.
fn extension(name: &[u8]) -> &[u8] {
    let name = name.rsplit(|byte| *byte == b'/').next().unwrap_or_default();
    name.iter().rposition(|byte| *byte == b'.').map_or(&[], |dot| &name[dot + 1..])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn types() {
        for (name, content_type) in [
            ("a/b.HTML", "text/html; charset=utf-8"),
            ("x.min.js", "text/javascript; charset=utf-8"),
            ("a.b/c", "application/octet-stream"),
            ("tool", "application/octet-stream"),
            ("x.", "application/octet-stream"),
            ("x.tar.gz", "application/gzip"),
        ] {
            assert_eq!(kind(name.as_bytes()).content_type, content_type, "{name}");
        }
    }

    #[test]
    fn names_that_change_with_the_content() {
        for (name, expected) in [
            ("app.3f2a9c1b.js", true),
            ("assets/index-B4x9kQ2z.css", true),
            ("chunk-0123456789abcdef.mjs", true),
            ("app.js", false),
            ("index.html", false),
            ("report-20240131.pdf", false),
            ("photo-1024x768.jpg", false),
            ("my-component.js", false),
            ("3f2a9c1b", false),
            ("3f2a9c1b.js", false),
            ("a-3f2a9c.js", false),
        ] {
            assert_eq!(is_hashed(name.as_bytes()), expected, "{name}");
        }
    }
}
