//! Linters and schemas.

use std::fs;
use std::path::Path;

use crate::support::manifests::project;
use crate::support::tools::{passes, tool};

#[test]
fn dockerfiles_pass_hadolint() {
    let files = ["docker/Dockerfile", "examples/apps/Dockerfile"];
    if let Some(hadolint) = tool("hadolint") {
        passes(hadolint, &files);
    }
}

#[test]
fn yaml_files_pass_yamllint() {
    let folders = ["docker-compose.yml", "config", "examples"];
    if let Some(yamllint) = tool("yamllint") {
        let said = passes(yamllint, &[&["--strict"], &folders[..]].concat());
        assert_eq!(said, "");
    }
}

#[test]
fn the_compose_file_fits_its_schema() {
    if let Some(check) = tool("check-jsonschema") {
        let schema = ["--builtin-schema", "vendor.compose-spec"];
        passes(check, &[&schema[..], &["docker-compose.yml"]].concat());
    }
}

/// Kubernetes objects; kustomize's own and those of operators have no schema
/// there.
fn manifests() -> Vec<String> {
    let mut found = Vec::new();
    for folder in ["examples/kubernetes", "examples/kubernetes/jobs"] {
        for entry in fs::read_dir(project(folder)).unwrap() {
            let name = entry.unwrap().file_name().into_string().unwrap();
            let yaml = Path::new(&name)
                .extension()
                .is_some_and(|end| end == "yaml");
            if yaml && name != "kustomization.yaml" {
                found.push(format!("{folder}/{name}"));
            }
        }
    }
    found
}

#[test]
fn kubernetes_files_fit_their_schemas() {
    let files = manifests();
    assert!(files.len() >= 8, "{files:?}");
    let files: Vec<&str> = files.iter().map(String::as_str).collect();
    // The version that native sidecars came with, and the newest there is.
    for version in [&["--kubernetes-version", "1.31"][..], &[]] {
        let Some(validate) = tool("kubernetes-validate") else {
            return;
        };
        passes(validate, &[version, &["--strict"], &files].concat());
    }
}

/// `kubectl` is no part of what a test machine must have.
#[test]
fn kustomize_builds_what_the_schemas_accept() {
    let folder = tempfile::tempdir().unwrap();
    for part in ["examples/kubernetes", "examples/kubernetes/monitoring"] {
        let built = std::process::Command::new("kubectl")
            .args(["kustomize", part])
            .current_dir(project(""))
            .output();
        let Ok(built) = built else {
            println!("skipped: no `kubectl`");
            return;
        };
        let errors = String::from_utf8_lossy(&built.stderr);
        assert!(built.status.success(), "{part}: {errors}");
        let text = String::from_utf8(built.stdout).unwrap();
        if part.ends_with("monitoring") {
            assert!(text.contains("kind: PodMonitor"), "{text}");
            continue;
        }
        // Live reload needs names that stay.
        assert!(text.contains("name: outrigger-users\n"), "{text}");
        let file = folder.path().join("built.yaml");
        fs::write(&file, text).unwrap();
        if let Some(validate) = tool("kubernetes-validate") {
            passes(validate, &["--strict", file.to_str().unwrap()]);
        }
    }
}

#[test]
fn alerts_pass_their_own_tests() {
    let Some(promtool) = tool("promtool") else {
        return;
    };
    passes(
        promtool,
        &["check", "config", "examples/monitoring/prometheus.yaml"],
    );
    let promtool = tool("promtool").unwrap();
    passes(
        promtool,
        &["test", "rules", "examples/monitoring/alerts.test.yaml"],
    );
}

/// `systemd-analyze` is no part of what a test machine must have.
#[test]
fn the_unit_is_understood_by_systemd() {
    let unit = project("examples/systemd/outrigger.service");
    let text = fs::read_to_string(unit).unwrap();
    let folder = tempfile::tempdir().unwrap();
    // The verifier wants the program to be there.
    let file = folder.path().join("outrigger.service");
    fs::write(
        &file,
        text.replace("/usr/local/bin/outrigger", crate::support::daemon::BINARY),
    )
    .unwrap();
    let file = file.to_str().unwrap();
    let verified = std::process::Command::new("systemd-analyze")
        .args(["verify", "--man=no", file])
        .output();
    let Ok(verified) = verified else {
        println!("skipped: no `systemd-analyze`");
        return;
    };
    let said = String::from_utf8_lossy(&verified.stderr);
    assert!(verified.status.success() && said.is_empty(), "{said}");
    let exposed = std::process::Command::new("systemd-analyze")
        .args(["security", "--offline=true", "--threshold=20", file])
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&exposed.stdout);
    assert!(exposed.status.success(), "{said}");
}
