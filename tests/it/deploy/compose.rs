//! `docker-compose.yml` and `docker/Dockerfile`: what they promise.

use std::collections::BTreeSet;
use std::fs;

use serde_json::Value;

use crate::support::manifests::{documents, list, project, text};

/// The compose file with anchors and merge keys resolved.
fn services() -> Vec<(String, Value)> {
    let [document] = documents(&project("docker-compose.yml"))
        .try_into()
        .unwrap();
    let all = document["services"].as_object().unwrap().clone();
    let merged = all.into_iter().map(|(name, mut service)| {
        if let Some(Value::Object(base)) = service.as_object_mut().unwrap().remove("<<") {
            for (key, value) in base {
                service.as_object_mut().unwrap().entry(key).or_insert(value);
            }
        }
        (name, service)
    });
    merged.collect()
}

fn networks(service: &Value) -> BTreeSet<&str> {
    list(service, "/networks")
        .iter()
        .map(|name| name.as_str().unwrap())
        .collect()
}

fn seconds(text: &str) -> u32 {
    text.trim_end_matches('s').parse().unwrap()
}

#[test]
fn an_app_shares_a_network_with_its_sidecar_only() {
    let services = services();
    let mut forms = BTreeSet::new();
    for name in ["users", "orders", "payments"] {
        let app_name = format!("{name}-app");
        let find = |name: &str| &services.iter().find(|(other, _)| other == name).unwrap().1;
        let (app, sidecar) = (find(&app_name), find(name));
        assert!(
            app.get("ports").is_none() && app.get("expose").is_none(),
            "{app_name}"
        );
        assert_eq!(list(sidecar, "/ports").len(), 1, "{name}");
        if let Some(mode) = app.get("network_mode") {
            // In the sidecar's network: on loopback, which is the app's default.
            assert_eq!(mode.as_str().unwrap(), format!("service:{name}"));
            assert!(app.pointer("/environment/HOST").is_none(), "{app_name}");
            forms.insert("owned");
        } else {
            let own = networks(app);
            for (other, service) in &services {
                let shared = networks(service).intersection(&own).count() > 0;
                let allowed = *other == app_name || other == name;
                assert!(!shared || allowed, "{other} reaches {app_name}");
            }
            assert_eq!(own.len(), 1);
            forms.insert("named");
        }
    }
    assert_eq!(forms.len(), 2, "both forms are shown");
    let file = fs::read_to_string(project("docker-compose.yml")).unwrap();
    assert!(file.contains("payments-private:\n    internal: true\n"));
}

#[test]
fn sidecars_may_write_nothing_and_have_time_to_end() {
    let settings = documents(&project("config/containers.yaml")).remove(0);
    let deadline = seconds(text(&settings, "/shutdown/deadline"));
    let mut sidecars = 0;
    for (name, service) in services() {
        if service.get("image").and_then(Value::as_str) != Some("outrigger:0.1.0") {
            continue;
        }
        sidecars += 1;
        assert_eq!(service["read_only"], true, "{name}");
        assert_eq!(service["cap_drop"][0], "ALL", "{name}");
        assert!(
            service["user"].as_str().unwrap().starts_with("65532"),
            "{name}"
        );
        assert!(
            seconds(text(&service, "/stop_grace_period")) > deadline,
            "{name}"
        );
        assert_eq!(service["healthcheck"]["test"][1], "outrigger", "{name}");
        for volume in list(&service, "/volumes") {
            assert!(
                volume.as_str().unwrap().ends_with(":ro"),
                "{name}: {volume}"
            );
        }
    }
    assert_eq!(sidecars, 3);
}

#[test]
fn every_file_that_is_mounted_is_there() {
    for (name, service) in services() {
        for volume in list(&service, "/volumes") {
            let source = volume.as_str().unwrap().split(':').next().unwrap();
            if let Some(path) = source.strip_prefix("./") {
                assert!(project(path).exists(), "{name}: {path}");
            }
        }
        for pointer in ["/build/context", "/build/dockerfile"] {
            if let Some(path) = service.pointer(pointer).and_then(Value::as_str) {
                assert!(project(path).exists(), "{name}: {path}");
            }
        }
    }
}

#[test]
fn the_image_runs_without_rights_and_checks_itself() {
    let file = fs::read_to_string(project("docker/Dockerfile")).unwrap();
    let last = file.rsplit("\nFROM ").next().unwrap();
    for line in [
        "USER 65532:65532",
        "WORKDIR /etc/outrigger",
        "ENTRYPOINT [\"outrigger\"]",
        "    CMD [\"outrigger\", \"health\"]",
    ] {
        assert!(last.lines().any(|other| other == line), "no `{line}`");
    }
    assert!(file.contains("ARG RUST_IMAGE=") && file.contains("ARG RUNTIME_IMAGE="));
    assert!(file.contains("cargo chef cook"));
    // What is left out of the context must not be needed: everything that the
    // manifest or the sources name is let in.
    let context = fs::read_to_string(project("docker/Dockerfile.dockerignore")).unwrap();
    for needed in [
        "Cargo.toml",
        "Cargo.lock",
        "README.md",
        "src",
        "benches",
        "tests",
        "examples",
    ] {
        assert!(
            context.lines().any(|line| line == format!("!{needed}")),
            "{needed}"
        );
    }
}
