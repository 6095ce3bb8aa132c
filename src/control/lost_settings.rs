//! What a new version of the process's file leaves out: nothing of it comes into
//! force by that alone (SPEC §1.3).

use crate::config::{LoadedProcess, Problem};
use crate::model::{Origin, ProcessSettings};

const KEPT: &str = "the settings read from it stay in force";

/// Why a good version of the process's settings is kept out of force.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Lost {
    File,
    Content,
    /// The file is the beginning of the one in force.
    End,
    AuthRequired,
    AdminToken,
}

/// The problem with `next`, if it drops by omission what is in force.
pub(super) fn lost(before: &LoadedProcess, next: &LoadedProcess) -> Option<Problem> {
    Lost::between(before, next).map(|lost| lost.problem(next))
}

impl Lost {
    fn between(before: &LoadedProcess, next: &LoadedProcess) -> Option<Self> {
        let was = before.file.bytes.as_deref().unwrap_or_default();
        let said = |bytes: &[u8]| !bytes.trim_ascii().is_empty();
        match next.file.bytes.as_deref() {
            None if before.file.bytes.is_some() => return Some(Self::File),
            Some(now) if said(was) && !said(now) => return Some(Self::Content),
            Some(now) if now.len() < was.len() && was.starts_with(now) && !same(before, next) => {
                return Some(Self::End);
            }
            _ => {}
        }
        let (was, now) = (&before.settings, &next.settings);
        if was.auth_required && !now.auth_required && !next.file.says_auth_required {
            Some(Self::AuthRequired)
        } else if was.admin.token.is_some() && now.admin.token.is_none() {
            Some(Self::AdminToken)
        } else {
            None
        }
    }

    fn problem(self, next: &LoadedProcess) -> Problem {
        let (key, message, hint) = match self {
            Self::File => (
                "",
                format!("is gone; {KEPT}"),
                "put it back; to go on without it, restart the process",
            ),
            Self::Content => (
                "",
                format!("is empty now; {KEPT}"),
                "write it again; `{}` sets nothing on purpose",
            ),
            Self::End => (
                "",
                format!("looks cut off: it is the beginning of the version in force; {KEPT}"),
                "if lines were removed on purpose, end the file with a comment",
            ),
            Self::AuthRequired => (
                "auth.required",
                "is true in force, and this version says nothing: services that name no \
                 strategy would be open"
                    .to_owned(),
                "write `auth: {required: false}` to allow that",
            ),
            Self::AdminToken => (
                "admin.token",
                "is set in force, and this version says nothing: the admin port would be open \
                 to everybody on this machine"
                    .to_owned(),
                "set it; to go on without a token, restart the process",
            ),
        };
        let origin = Origin {
            key: key.to_owned(),
            ..Origin::file(&*next.file.path)
        };
        Problem::error(origin, message).hint(hint)
    }
}

/// Whether both mean the same, but for what is told and when.
fn same(before: &LoadedProcess, next: &LoadedProcess) -> bool {
    let comparable = |settings: &ProcessSettings| ProcessSettings {
        exporter: before.settings.exporter.clone(),
        access_log: before.settings.access_log,
        log_level: before.settings.log_level,
        log_format: before.settings.log_format,
        shutdown: before.settings.shutdown.clone(),
        reload: before.settings.reload.clone(),
        ..settings.clone()
    };
    comparable(&before.settings) == comparable(&next.settings) && before.same_databases(next)
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::config::{Environment, ProcessFlags, load_process};

    const WHOLE: &str = "auth: {required: true}\nadmin: {token: 0123456789abcdef}\n\
                         trustedProxies: [10.0.0.0/8]\nlog: {level: debug}\n";

    fn load(path: &Path, text: &str) -> LoadedProcess {
        std::fs::write(path, text).expect("written");
        let flags = ProcessFlags {
            config: Some(path.to_owned()),
            ..ProcessFlags::default()
        };
        load_process(&flags, &Environment::default()).expect("loads")
    }

    #[test]
    fn nothing_is_lost_by_saying_less() {
        let folder = tempfile::tempdir().expect("folder");
        let path = folder.path().join("outrigger.yaml");
        let before = load(&path, WHOLE);
        let token = "admin: {token: 0123456789abcdef}\n";
        for (text, expected) in [
            (WHOLE.to_owned(), None),
            (format!("{WHOLE}# more\n"), None),
            // Of no consequence to anybody who calls.
            (WHOLE.replace("log: {level: debug}\n", ""), None),
            (
                "auth: {required: true}\nadmin: {token: 0123456789abcdef}\n".to_owned(),
                Some(Lost::End),
            ),
            (" \n".to_owned(), Some(Lost::Content)),
            ("# nothing\n".to_owned(), Some(Lost::AuthRequired)),
            (token.to_owned(), Some(Lost::AuthRequired)),
            (format!("auth: {{required: false}}\n{token}"), None),
            (
                "auth: {required: true}\n# no token\n".to_owned(),
                Some(Lost::AdminToken),
            ),
        ] {
            let next = load(&path, &text);
            assert_eq!(Lost::between(&before, &next), expected, "{text}");
        }
        let mut gone = load(&path, WHOLE);
        gone.file.bytes = None;
        assert_eq!(Lost::between(&before, &gone), Some(Lost::File));
        // Written again where there was none, or nothing.
        assert_eq!(Lost::between(&gone, &before), None);
        let nothing = load(&path, "");
        assert_eq!(Lost::between(&nothing, &before), None);
        assert_eq!(Lost::between(&nothing, &nothing), None);
    }
}
