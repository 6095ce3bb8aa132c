//! What a name in the tree stands for.

use std::ffi::OsStr;

use crate::model::ServiceName;

/// The file names of a service's own folder.
pub(super) const CONFIG_NAMES: [&str; 3] = [
    "service.config.json",
    "service.config.yaml",
    "service.config.yml",
];

/// What a file directly in the root is.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum FlatFile {
    /// `<domain>.<service>.{json,yaml,yml}`.
    Service(ServiceName),
    /// `service.config.*` without a folder.
    Misplaced,
    /// Looks like the flat layout, but a part is no name.
    Misnamed,
    /// Something else: a README, `package.json`.
    Other,
}

impl FlatFile {
    /// By name alone.
    pub(super) fn of(name: &str) -> Self {
        if CONFIG_NAMES.contains(&name) {
            return Self::Misplaced;
        }
        let Some(stem) = [".json", ".yaml", ".yml"]
            .iter()
            .find_map(|extension| name.strip_suffix(extension))
        else {
            return Self::Other;
        };
        let Some((domain, service)) = stem.split_once('.') else {
            return Self::Other;
        };
        ServiceName::new(domain, service).map_or(Self::Misnamed, Self::Service)
    }
}

/// Whether a name is passed over: editors' and tools' own files, and the
/// `..data` and `..2024_…` folders of a Kubernetes volume.
pub(super) fn is_hidden(name: &OsStr) -> bool {
    name.as_encoded_bytes().first() == Some(&b'.')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flat_names_hold_exactly_domain_and_service() {
        let service = |domain, name| FlatFile::Service(ServiceName::new(domain, name).unwrap());
        for (name, expected) in [
            ("shop.cart.yaml", service("shop", "cart")),
            ("shop.cart.yml", service("shop", "cart")),
            ("a-1.b-2.json", service("a-1", "b-2")),
            ("service.config.json", FlatFile::Misplaced),
            ("shop.cart.eu.yaml", FlatFile::Misnamed),
            ("Shop.cart.yaml", FlatFile::Misnamed),
            (".cart.yaml", FlatFile::Misnamed),
            ("package.json", FlatFile::Other),
            ("shop.cart.yaml~", FlatFile::Other),
            ("README.md", FlatFile::Other),
            (".yaml", FlatFile::Other),
        ] {
            assert_eq!(FlatFile::of(name), expected, "{name}");
        }
    }
}
