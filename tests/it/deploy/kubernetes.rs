//! `examples/kubernetes`: what the manifests promise, read off them.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use crate::support::manifests::{
    Cluster, container, containers, documents, list, project, text, variables,
};

const JOBS: [&str; 3] = [
    "jobs/report-native.yaml",
    "jobs/report-exec.yaml",
    "jobs/report-classic.yaml",
];

fn seconds(text: &str) -> i64 {
    text.trim_end_matches('s').parse().unwrap()
}

#[test]
fn pods_have_no_rights_and_no_service_links() {
    let cluster = Cluster::read(&JOBS);
    assert_eq!(cluster.pods().len(), 6);
    for (_, name, pod) in cluster.pods() {
        assert_eq!(pod["enableServiceLinks"], false, "{name}");
        assert_eq!(pod["automountServiceAccountToken"], false, "{name}");
        let context = &pod["securityContext"];
        assert_eq!(
            (&context["runAsNonRoot"], &context["runAsUser"]),
            (&Value::Bool(true), &Value::from(65532))
        );
        for one in containers(pod) {
            let context = &one["securityContext"];
            assert_eq!(context["readOnlyRootFilesystem"], true, "{name}: {one:#}");
            assert_eq!(context["allowPrivilegeEscalation"], false, "{name}");
            assert_eq!(context["capabilities"]["drop"][0], "ALL", "{name}");
            // A file mounted by its own would never be updated.
            for mount in list(one, "/volumeMounts") {
                assert!(mount.get("subPath").is_none(), "{name}: {mount}");
            }
        }
    }
}

#[test]
fn nothing_leads_around_a_sidecar() {
    let cluster = Cluster::read(&JOBS);
    let mut sidecar_ports = BTreeSet::new();
    for (_, name, pod) in cluster.pods() {
        for one in containers(pod) {
            let ports = list(one, "/ports");
            let is_sidecar = text(one, "/name") == "outrigger";
            assert!(
                is_sidecar || ports.is_empty(),
                "{name}: an app's port is declared"
            );
            sidecar_ports.extend(ports.iter().map(|port| port["containerPort"].to_string()));
            // An app listens on loopback or on a socket.
            for (variable, value) in variables(one) {
                assert!(
                    variable != "HOST" || value == "127.0.0.1",
                    "{name}: {value}"
                );
            }
        }
    }
    let kind = |kind: &'static str| {
        cluster
            .documents
            .iter()
            .filter(move |one| one["kind"] == kind)
    };
    for service in kind("Service") {
        for port in list(service, "/spec/ports") {
            let target = port["targetPort"].to_string();
            assert!(sidecar_ports.contains(&target), "{service:#}");
        }
    }
    let policy = kind("NetworkPolicy").next().unwrap();
    assert_eq!(policy["spec"]["policyTypes"][0], "Ingress");
    for rule in list(policy, "/spec/ingress") {
        assert!(
            !list(rule, "/ports").is_empty(),
            "a rule without ports opens all"
        );
        for port in list(rule, "/ports") {
            assert!(sidecar_ports.contains(&port["port"].to_string()), "{port}");
        }
    }
    let selected = policy.pointer("/spec/podSelector/matchLabels").unwrap();
    for workload in cluster
        .documents
        .iter()
        .filter(|one| one.pointer("/spec/template").is_some())
    {
        let labels = workload.pointer("/spec/template/metadata/labels").unwrap();
        for (name, value) in selected.as_object().unwrap() {
            assert_eq!(
                labels.get(name),
                Some(value),
                "the policy misses {workload:#}"
            );
        }
    }
}

#[test]
fn probes_and_the_monitor_ask_the_observe_port() {
    let cluster = Cluster::read(&JOBS);
    for (_, name, pod) in cluster.pods() {
        let Some(sidecar) = containers(pod).find(|one| text(one, "/name") == "outrigger") else {
            assert_eq!(name, "report-exec");
            continue;
        };
        let observe = list(sidecar, "/ports")
            .iter()
            .find(|port| port["name"] == "observe")
            .unwrap();
        assert_eq!(observe["containerPort"], 9909, "{name}");
        let mut paths = BTreeSet::new();
        for probe in ["startupProbe", "readinessProbe", "livenessProbe"] {
            if let Some(probe) = sidecar.get(probe) {
                assert_eq!(probe["httpGet"]["port"], "observe", "{name}");
                paths.insert(text(probe, "/httpGet/path"));
            }
        }
        let readiness = !name.starts_with("report");
        assert_eq!(paths.contains("/readyz"), readiness, "{name}");
        assert!(
            paths.contains("/startupz") && paths.contains("/livez"),
            "{name}"
        );
    }
    let monitor = documents(&project("examples/kubernetes/monitoring/pod-monitor.yaml")).remove(0);
    assert_eq!(monitor["spec"]["podMetricsEndpoints"][0]["port"], "observe");
    let selected = &monitor["spec"]["selector"]["matchLabels"];
    assert_eq!(selected["app.kubernetes.io/part-of"], "shop");
}

#[test]
fn lifecycles_add_up() {
    let cluster = Cluster::read(&JOBS);
    let settings = documents(&project("examples/kubernetes/config/outrigger.yaml")).remove(0);
    let deadline = seconds(text(&settings, "/shutdown/deadline"));
    let accept = seconds(text(&settings, "/shutdown/accept"));
    let mut forms = BTreeMap::new();
    for (kind, name, pod) in cluster.pods() {
        let grace = pod["terminationGracePeriodSeconds"].as_i64().unwrap();
        let native = list(pod, "/initContainers")
            .iter()
            .any(|one| one["restartPolicy"] == "Always");
        forms
            .entry((kind, native))
            .or_insert_with(Vec::new)
            .push(name);
        if kind == "Job" {
            continue;
        }
        let hook = &container(pod, "app")["lifecycle"]["preStop"];
        let sleep = hook.pointer("/sleep/seconds").and_then(Value::as_i64);
        let command = hook
            .pointer("/exec/command/1")
            .and_then(Value::as_str)
            .map(seconds);
        let sleep = sleep
            .or(command)
            .unwrap_or_else(|| panic!("{name}: no preStop"));
        assert!(grace > deadline + sleep, "{name}");
        // Side by side, the app has to outlast the sidecar's accepting.
        assert!(native || sleep > accept, "{name}");
    }
    assert_eq!(forms[&("Deployment", true)], ["users", "payments"]);
    assert_eq!(forms[&("Deployment", false)], ["orders"]);
    assert_eq!(forms[&("Job", true)], ["report-native"]);
    assert_eq!(forms[&("Job", false)], ["report-exec", "report-classic"]);
}
