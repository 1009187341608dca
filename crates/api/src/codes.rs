//! The words that errors are known by: each with its status and its meaning, as the page lists them.

/// A code.
pub(crate) struct Code {
    /// The word.
    pub(crate) word: &'static str,
    /// The HTTP status that it comes with.
    pub(crate) status: u16,
    /// What it means.
    pub(crate) meaning: &'static str,
}

/// Codes that any request may be refused with.
pub(crate) const ANY: &[&str] =
    &["bad_request", "forbidden", "method_not_allowed", "body_too_large", "internal", "stopping", "no_space"];

/// Every code there is.
pub(crate) const CODES: &[Code] = &[
    code("bad_request", 400, "the request itself is wrong"),
    code("bad_image", 400, "the image, or a layer of it, cannot be used"),
    code("blob_missing", 400, "a blob that is needed was not uploaded"),
    code("bad_confinement", 400, "what a container is to be kept from, or to be let, cannot be so"),
    code("bad_disk", 400, "what a container writes cannot be bounded"),
    code("no_quota", 400, "what a container writes cannot be bounded by a quota here"),
    code("bad_mount", 400, "what is to be mounted cannot be"),
    code("no_runtime", 400, "there is no such OCI runtime here, or it is not for this caller"),
    code("cannot_copy", 400, "files cannot be copied"),
    code("cannot_listen", 400, "a port cannot be listened on at that address"),
    code("digest_mismatch", 400, "the bytes that came are not those of the digest"),
    code("start_failed", 400, "the container could not be started"),
    code("not_executable", 400, "the command cannot be executed"),
    code("not_found_executable", 400, "the command is not in the image"),
    code("no_shared_disk", 400, "a container on a server with a name shares the server's disk"),
    code("too_large", 400, "more is asked for than this machine has"),
    code("too_small", 400, "less is asked for than anything can run with"),
    code("forbidden", 403, "the caller may not speak to this daemon"),
    code("not_found", 404, "there is nothing of this name"),
    code("method_not_allowed", 405, "the path has no such method"),
    code("ambiguous", 409, "the beginning of an id is that of several"),
    code("in_use", 409, "something else needs it"),
    code("name_taken", 409, "something else has this name"),
    code("no_server_left", 409, "every address of this instance is in use"),
    code("port_taken", 409, "another program listens on the port already"),
    code("removing", 409, "it is being removed"),
    code("not_paused", 409, "it is not paused"),
    code("not_running", 409, "it does not run, and must for this"),
    code("paused", 409, "its processes are at a halt"),
    code("server_stopped", 409, "the server that it is on is stopped"),
    code("shared_size", 409, "it has no size of its own: it shares its server's"),
    code("running", 409, "it runs, and must not for this"),
    code("streams_lost", 409, "what it writes cannot be handed on: it has ended, or its supervisor was killed"),
    code("revision_too_old", 410, "the changes since that revision are no longer kept: list, and follow from there"),
    code("body_too_large", 413, "the body is longer than it may be"),
    code("internal", 500, "the daemon failed; its log says more"),
    code("stopping", 503, "the daemon is stopping or starting anew: ask again"),
    code("no_space", 507, "the disk is full"),
];

const fn code(word: &'static str, status: u16, meaning: &'static str) -> Code {
    Code { word, status, meaning }
}

/// The code of this word.
pub(crate) fn of(word: &str) -> Option<&'static Code> {
    CODES.iter().find(|code| code.word == word)
}

#[cfg(test)]
mod tests {
    use axum::http::StatusCode;

    use super::*;

    /// The codes that a source file says, by what stands around them: `StatusCode::X, "code"`.
    fn said(text: &str) -> Vec<(String, String)> {
        let pieces = text.split("StatusCode::").skip(1);
        let pairs = pieces.filter_map(|piece| {
            let (status, rest) = piece.split_once(',')?;
            let word = rest.trim_start().strip_prefix('"')?.split('"').next()?;
            status.chars().all(|c| c.is_ascii_uppercase() || c == '_').then(|| (status.to_owned(), word.to_owned()))
        });
        pairs.collect()
    }

    #[test]
    fn every_code_that_is_said_is_in_the_table_with_its_status() {
        let statuses: Vec<(String, u16)> = (400..600)
            .filter_map(|number| StatusCode::from_u16(number).ok())
            .filter_map(|status| {
                let name = status.canonical_reason()?.to_ascii_uppercase().replace([' ', '-'], "_").replace('\'', "");
                Some((name, status.as_u16()))
            })
            .collect();
        let mut count = 0;
        let mut directories = vec![std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("src")];
        while let Some(directory) = directories.pop() {
            for entry in std::fs::read_dir(directory).expect("the sources").flatten() {
                if entry.path().is_dir() {
                    directories.push(entry.path());
                    continue;
                } else if entry.path().ends_with("codes.rs") {
                    continue;
                }
                let text = std::fs::read_to_string(entry.path()).expect("a source");
                for (status, word) in said(&text) {
                    let file = entry.path();
                    let code = of(&word).unwrap_or_else(|| panic!("{word:?} of {} is not in codes.rs", file.display()));
                    assert!(
                        statuses.contains(&(status.clone(), code.status)),
                        "{word:?} of {} is {status} there and {} in codes.rs",
                        file.display(),
                        code.status
                    );
                    count += 1;
                }
            }
        }
        assert!(count > 20, "only {count} codes were found: does the search still fit the sources?");
    }

    #[test]
    fn words_are_told_apart() {
        for (at, code) in CODES.iter().enumerate() {
            assert!(CODES[at + 1..].iter().all(|other| other.word != code.word), "{} is there twice", code.word);
            assert!(StatusCode::from_u16(code.status).is_ok() && !code.meaning.is_empty());
        }
    }
}
