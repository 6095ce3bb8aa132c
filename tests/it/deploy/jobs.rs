//! The Jobs of `examples/kubernetes/jobs`, run: each completes, and nothing of
//! it goes on.

use std::time::{Duration, Instant};

use super::pod::{Pod, in_a_pod_s_network};
use crate::support::client::{Request, accepts};
use crate::support::container::Root;
use crate::support::daemon::{Daemon, Setup};
use crate::support::manifests::{Cluster, project};
use crate::support::tree::Tree;
use crate::support::wait::{SOON, shared_machine, wait_until};

/// What the job prints when the call went through the sidecar with its key.
const FOUND: &str = "report: users knows me as report";

/// The service users as another pod would be: an app, and a sidecar that knows
/// the job by its key.
struct Users {
    _app: Daemon,
    _sidecar: Daemon,
    _tree: Tree,
}

fn users() -> Users {
    let mut app = std::process::Command::new("python3");
    app.arg(project("examples/apps/app.py"))
        .env("NAME", "users")
        .env("PORT", "13001");
    let app = Daemon::spawn(app, 0, 0);
    let file = "port: 3001\nauth:\n  apiKey:\n    keys:\n      \
                - {id: report, key: report-key-change-me-0123456789}\n";
    let tree = Tree::with(&[("shop/users", file)]);
    let sidecar = Setup::new(&tree).start();
    wait_until("users answers", SOON, || accepts(13001));
    Users {
        _app: app,
        _sidecar: sidecar,
        _tree: tree,
    }
}

#[test]
fn a_job_with_a_native_sidecar_completes() {
    let _machine = shared_machine();
    in_a_pod_s_network("deploy::jobs::inside_native");
}

#[test]
#[ignore = "run by a_job_with_a_native_sidecar_completes in a network namespace"]
fn inside_native() {
    let _users = users();
    let cluster = Cluster::read(&["jobs/report-native.yaml"]);
    let pod = Pod::new(&cluster, "report-native", "outrigger", Root::image());
    let mut sidecar = pod.start_sidecar();
    let (status, output) = pod.start_app("report").wait_for_exit(SOON);
    assert_eq!(status.code(), Some(0), "{output}");
    assert!(output.contains(FOUND), "{output}");
    // The kubelet ends the sidecar once the job's container has ended.
    let told = Instant::now();
    sidecar.signal("TERM");
    let (status, output) = sidecar.wait_for_exit(SOON);
    assert_eq!(status.code(), Some(0), "{output}");
    assert!(
        told.elapsed() < Duration::from_secs(3),
        "{:?}",
        told.elapsed()
    );
}

#[test]
fn a_job_in_one_container_completes() {
    let _machine = shared_machine();
    in_a_pod_s_network("deploy::jobs::inside_exec");
}

#[test]
#[ignore = "run by a_job_in_one_container_completes in a network namespace"]
fn inside_exec() {
    let _users = users();
    let cluster = Cluster::read(&["jobs/report-exec.yaml"]);
    let mut root = Root::with_programs();
    root.mount(&project("examples/apps"), "/app", false);
    let pod = Pod::new(&cluster, "report-exec", "report", root);
    let (status, output) = pod.start("report").wait_for_exit(SOON);
    assert_eq!(status.code(), Some(0), "{output}");
    assert!(output.contains(FOUND), "{output}");
    // What the command finds around it: the address of users, and neither a
    // secret nor a connection of the sidecar.
    let script = "env; readlink /proc/$$/fd/*; echo end of list";
    let words = ["outrigger", "exec", "--", "sh", "-c", script];
    let mut command = pod.command("report", &words);
    command
        .env("SERVICE_API_KEY", "a-key-of-the-sidecar-0123456789")
        .env("SERVICE_JWT_SECRET", "a-secret-of-the-sidecar-0123456789")
        .env("OUTRIGGER_ADMIN_TOKEN", "a-token-of-the-sidecar-0123456789");
    let (status, output) = Daemon::spawn(command, 9900, 9909).wait_for_exit(SOON);
    assert_eq!(status.code(), Some(0), "{output}");
    assert!(
        output.contains("USERS_URL=http://127.0.0.1:4001"),
        "{output}"
    );
    assert!(!output.contains("-of-the-sidecar-0123456789"), "{output}");
    assert!(
        output.contains("pipe:") && output.contains("end of list"),
        "{output}"
    );
    for open in ["socket:", "anon_inode:", "service.config", "/run/secrets"] {
        assert!(!output.contains(open), "{open} in {output}");
    }
}

#[test]
fn a_job_that_ends_its_sidecar_completes() {
    let _machine = shared_machine();
    in_a_pod_s_network("deploy::jobs::inside_classic");
}

#[test]
#[ignore = "run by a_job_that_ends_its_sidecar_completes in a network namespace"]
fn inside_classic() {
    let _users = users();
    let cluster = Cluster::read(&["jobs/report-classic.yaml"]);
    let pod = Pod::new(&cluster, "report-classic", "outrigger", Root::image());
    // In no order: the job's container waits for the sidecar by itself.
    let mut job = pod.start_app("report");
    let mut sidecar = pod.start("outrigger");
    let (status, output) = job.wait_for_exit(SOON);
    assert_eq!(status.code(), Some(0), "{output}{}", sidecar.output());
    assert!(output.contains(FOUND), "{output}");
    let (status, output) = sidecar.wait_for_exit(SOON);
    assert_eq!(status.code(), Some(0), "{output}");
    assert!(Request::get("/livez").status(9909).is_none());
}
