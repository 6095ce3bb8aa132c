//! The example configurations are good, these and those of the minor version
//! before, and as short as they say.

use std::fs;
use std::path::PathBuf;

use crate::support::daemon::run_to_end;
use crate::support::manifests::project;
use crate::support::tree::Tree;

/// `examples/configs` and, from the first release on, what it was at the last
/// minor version: `tests/previous/<version>`.
fn folders() -> Vec<PathBuf> {
    let mut folders = vec![project("examples/configs")];
    if let Ok(previous) = fs::read_dir(project("tests/previous")) {
        folders.extend(previous.map(|entry| entry.unwrap().path()));
    }
    folders
}

#[test]
fn every_file_passes_check() {
    let mut count = 0;
    for folder in folders() {
        for entry in fs::read_dir(&folder).unwrap() {
            let path = entry.unwrap().path();
            let text = fs::read_to_string(&path).unwrap();
            let name = path.file_stem().unwrap().to_str().unwrap();
            let tree = Tree::with(&[(&format!("shop/{name}"), &text)]);
            let arguments = ["check", "--strict", "--no-secrets"];
            let (code, output) = run_to_end(tree.root(), &arguments, &[]);
            assert_eq!(code, 0, "{}: {output}", path.display());
            assert!(
                !output.contains("not stated"),
                "{}: {output}",
                path.display()
            );
            assert!(
                text.starts_with("# ") && text.lines().count() <= 25,
                "{name}"
            );
            count += 1;
        }
    }
    assert!(count >= 16, "{count}");
}

#[test]
fn the_trees_of_compose_and_kubernetes_pass_check() {
    let compose = Tree::new();
    let kubernetes = Tree::new();
    copy("config/containers.yaml", &compose, "config/outrigger.yaml");
    for name in ["users", "orders", "payments"] {
        let from = format!("examples/compose/services/ecommerce/{name}/service.config.yaml");
        let to = format!("services/ecommerce/{name}/service.config.yaml");
        copy(&from, &compose, &to);
    }
    let folder = "examples/kubernetes/config";
    copy(
        &format!("{folder}/outrigger.yaml"),
        &kubernetes,
        "config/outrigger.yaml",
    );
    for name in ["users", "orders", "payments", "report"] {
        let file = format!("shop.{name}.yaml");
        copy(
            &format!("{folder}/{file}"),
            &kubernetes,
            &format!("services/{file}"),
        );
    }
    for (tree, names) in [(&compose, 3), (&kubernetes, 4)] {
        for name in &["users", "orders", "payments", "report"][..names] {
            let arguments = ["check", "--strict", "--no-secrets"];
            let (code, output) = run_to_end(
                tree.root(),
                &arguments,
                &[
                    ("SERVICES", name),
                    ("POSTGRES_HOST", "postgres"),
                    ("POSTGRES_DB", "zintrust"),
                ],
            );
            assert_eq!(code, 0, "{name}: {output}");
            assert!(!output.contains("unknown address"), "{name}: {output}");
        }
    }
}

fn copy(from: &str, tree: &Tree, to: &str) {
    tree.put(to, fs::read_to_string(project(from)).unwrap());
}
