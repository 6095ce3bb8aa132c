//! The Kubernetes example as data: what kustomize would make of it, and what
//! the kubelet would make of a pod's volumes.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use serde_json::Value;

use super::tree::swap_link;

/// The documents of a file of the project.
#[track_caller]
pub(crate) fn documents(path: &Path) -> Vec<Value> {
    let text = fs::read_to_string(path).unwrap_or_else(|error| panic!("{path:?}: {error}"));
    text.split("\n---\n")
        .map(|part| serde_yaml::from_str(part).unwrap_or_else(|error| panic!("{path:?}: {error}")))
        .collect()
}

/// A file of the project.
pub(crate) fn project(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}

/// A list of a document; empty where there is none.
pub(crate) fn list<'a>(value: &'a Value, pointer: &str) -> &'a [Value] {
    value
        .pointer(pointer)
        .and_then(Value::as_array)
        .map_or(&[], Vec::as_slice)
}

/// A text of a document.
#[track_caller]
pub(crate) fn text<'a>(value: &'a Value, pointer: &str) -> &'a str {
    value
        .pointer(pointer)
        .and_then(Value::as_str)
        .unwrap_or_else(|| panic!("no `{pointer}` in {value:#}"))
}

/// A kustomization with everything it holds.
pub(crate) struct Cluster {
    pub(crate) documents: Vec<Value>,
    /// Files of each ConfigMap and Secret, by its name.
    files: BTreeMap<String, BTreeMap<String, String>>,
}

impl Cluster {
    /// Reads `examples/kubernetes` and these files beside it.
    pub(crate) fn read(more: &[&str]) -> Self {
        let folder = project("examples/kubernetes");
        let [kustomization] = documents(&folder.join("kustomization.yaml"))
            .try_into()
            .expect("one document");
        let mut files = BTreeMap::new();
        for generator in list(&kustomization, "/configMapGenerator") {
            let content = list(generator, "/files").iter().map(|entry| {
                let entry = entry.as_str().expect("a path");
                let path = entry.split_once('=').map_or(entry, |(_, path)| path);
                let name = entry.split_once('=').map_or_else(
                    || path.rsplit('/').next().expect("a name"),
                    |(name, _)| name,
                );
                let text = fs::read_to_string(folder.join(path)).expect("the file is there");
                (name.to_owned(), text)
            });
            files.insert(text(generator, "/name").to_owned(), content.collect());
        }
        for generator in list(&kustomization, "/secretGenerator") {
            let content = list(generator, "/literals").iter().map(|entry| {
                let (name, value) = entry
                    .as_str()
                    .and_then(|entry| entry.split_once('='))
                    .expect("a literal");
                (name.to_owned(), value.to_owned())
            });
            files.insert(text(generator, "/name").to_owned(), content.collect());
        }
        let resources = list(&kustomization, "/resources").iter();
        let named = resources.map(|name| name.as_str().expect("a path"));
        let documents = named
            .chain(more.iter().copied())
            .flat_map(|name| documents(&folder.join(name)))
            .collect();
        Self { documents, files }
    }

    /// The pods that are made, with the kind and name of what makes them.
    pub(crate) fn pods(&self) -> Vec<(&str, &str, &Value)> {
        let made = self.documents.iter().filter_map(|document| {
            let pod = document.pointer("/spec/template/spec")?;
            Some((
                text(document, "/kind"),
                text(document, "/metadata/name"),
                pod,
            ))
        });
        made.collect()
    }

    /// The pod of a Deployment or Job.
    #[track_caller]
    pub(crate) fn pod(&self, name: &str) -> &Value {
        let pods = self.pods();
        let found = pods.iter().find(|(_, owner, _)| *owner == name);
        found.unwrap_or_else(|| panic!("no pod of {name}")).2
    }

    /// The keys and contents that a volume shows, whatever it is made of.
    #[track_caller]
    pub(crate) fn content(&self, volume: &Value) -> BTreeMap<String, String> {
        let mut names: Vec<&str> = list(volume, "/projected/sources")
            .iter()
            .map(|source| text(source, "/configMap/name"))
            .collect();
        for pointer in ["/configMap/name", "/secret/secretName"] {
            names.extend(volume.pointer(pointer).and_then(Value::as_str));
        }
        let mut content = BTreeMap::new();
        for name in names {
            let files = self.files.get(name).unwrap_or_else(|| panic!("no {name}"));
            content.extend(files.clone());
        }
        content
    }
}

/// Containers of a pod, sidecars first.
pub(crate) fn containers(pod: &Value) -> impl Iterator<Item = &Value> {
    let all = list(pod, "/initContainers").iter();
    all.chain(list(pod, "/containers"))
}

/// One container of a pod.
#[track_caller]
pub(crate) fn container<'a>(pod: &'a Value, name: &str) -> &'a Value {
    containers(pod)
        .find(|container| text(container, "/name") == name)
        .unwrap_or_else(|| panic!("no container {name}"))
}

/// The variables a container is given.
pub(crate) fn variables(container: &Value) -> Vec<(String, String)> {
    list(container, "/env")
        .iter()
        .map(|entry| {
            (
                text(entry, "/name").to_owned(),
                text(entry, "/value").to_owned(),
            )
        })
        .collect()
}

/// A volume as the kubelet lays it out: files are links through `..data`, which
/// is swapped when the content changes.
pub(crate) struct Volume {
    folder: PathBuf,
    step: u32,
}

impl Volume {
    pub(crate) fn lay_out(folder: &Path, content: &BTreeMap<String, String>) -> Self {
        fs::create_dir_all(folder).expect("the folder is ours");
        let mut volume = Self {
            folder: folder.to_owned(),
            step: 0,
        };
        volume.update(content);
        for name in content.keys() {
            symlink(format!("..data/{name}"), folder.join(name)).expect("the folder is ours");
        }
        volume
    }

    /// New content, all of it at once.
    pub(crate) fn update(&mut self, content: &BTreeMap<String, String>) {
        let old = format!("..2026_{}", self.step);
        self.step += 1;
        let new = format!("..2026_{}", self.step);
        fs::create_dir(self.folder.join(&new)).expect("the folder is ours");
        for (name, text) in content {
            fs::write(self.folder.join(&new).join(name), text).expect("the folder is ours");
        }
        swap_link(&self.folder.join("..data"), &new);
        if self.step > 1 {
            fs::remove_dir_all(self.folder.join(old)).expect("the folder is ours");
        }
    }
}
