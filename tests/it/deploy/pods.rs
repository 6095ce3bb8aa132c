//! The Deployments of `examples/kubernetes`, run: what a container may do, how
//! a ConfigMap reaches it, in which order it ends.

use std::fs;
use std::time::{Duration, Instant};

use super::pod::{Pod, from_outside, in_a_pod_s_network, open_to_others};
use crate::support::app::App;
use crate::support::client::{Request, accepts, accepts_at};
use crate::support::container::{Root, USER};
use crate::support::daemon::Daemon;
use crate::support::manifests::{Cluster, project};
use crate::support::scripts;
use crate::support::wait::{SOON, shared_machine, wait_until};

const WEB: &str = "web-key-change-me-0123456789";
const ORDERS: &str = "orders-key-change-me-0123456789";

/// Two polls, and time for a busy machine.
const NOTICED: Duration = Duration::from_secs(20);

/// No rights, a root that cannot be written, and nothing open for writing but
/// what it was started with.
fn assert_confined(sidecar: &Daemon) {
    let process = format!("/proc/{}", sidecar.pid());
    let status = fs::read_to_string(format!("{process}/status")).unwrap();
    let line = |name: &str| {
        let line = status.lines().find(|line| line.starts_with(name)).unwrap();
        line.split_whitespace()
            .skip(1)
            .map(str::to_owned)
            .collect::<Vec<_>>()
    };
    let user = USER.to_string();
    assert_eq!(line("Uid:"), vec![user.clone(); 4]);
    assert_eq!(line("Gid:"), vec![user; 4]);
    assert_eq!(line("CapEff:"), ["0000000000000000"]);
    assert_eq!(line("CapPrm:"), ["0000000000000000"]);
    let mounts = fs::read_to_string(format!("{process}/mountinfo")).unwrap();
    let root = mounts
        .lines()
        .find(|line| line.split(' ').nth(4) == Some("/"))
        .unwrap();
    assert!(root.split(' ').nth(5).unwrap().starts_with("ro"), "{root}");
    for entry in fs::read_dir(format!("{process}/fd")).unwrap() {
        let entry = entry.unwrap();
        let number: u32 = entry.file_name().to_str().unwrap().parse().unwrap();
        let target = fs::read_link(entry.path());
        let flags = fs::read_to_string(format!("{process}/fdinfo/{number}"));
        // One that was closed meanwhile is not open.
        let (Ok(target), Ok(flags)) = (target, flags) else {
            continue;
        };
        let flags = flags
            .lines()
            .find_map(|line| line.strip_prefix("flags:"))
            .unwrap();
        let writes = u32::from_str_radix(flags.trim(), 8).unwrap() & 3 != 0;
        let regular = target.is_absolute() && !target.starts_with("/dev");
        assert!(
            number < 3 || !regular || !writes,
            "open for writing: {target:?}"
        );
    }
}

#[test]
fn users_runs_reloads_and_ends_after_its_app() {
    let _machine = shared_machine();
    in_a_pod_s_network("deploy::pods::inside_users");
}

#[test]
#[ignore = "run by users_runs_reloads_and_ends_after_its_app in a network namespace"]
fn inside_users() {
    let cluster = Cluster::read(&[]);
    let mut pod = Pod::new(&cluster, "users", "outrigger", Root::image());
    let mut sidecar = pod.start_sidecar();
    // The app starts once the sidecar has: nothing answers before, and it says so.
    assert_eq!(Request::get("/readyz").status(9909), Some(503));
    let mut app = pod.start_app("app");
    wait_until("the pod is ready", SOON, || {
        Request::get("/readyz").status(9909) == Some(200)
    });

    assert_eq!(Request::get("/users").status(3001), Some(401));
    let answer = Request::get("/users").key(WEB).send(3001);
    assert_eq!(answer.status, 200, "{}", answer.text());
    assert_eq!(answer.json()["seen"]["x-auth-subject"], "web");
    assert_confined(&sidecar);
    let health = pod
        .command("outrigger", &["outrigger", "health"])
        .output()
        .unwrap();
    assert!(health.status.success(), "{health:?}");

    // Past the sidecar there is no way in.
    assert_eq!(
        Request::get("/users")
            .try_send_to(from_outside(3001))
            .unwrap()
            .status,
        401
    );
    assert!(
        accepts(8080) && !accepts_at(from_outside(8080)),
        "the app's port"
    );
    assert!(!accepts_at(from_outside(9900)), "the admin port");
    assert_eq!(
        open_to_others().into_iter().collect::<Vec<_>>(),
        [3001, 9909]
    );

    follow_changes(&cluster, &mut pod);
    end_natively(&pod, &mut app, &mut sidecar);
}

/// A ConfigMap and a Secret change in the running pod.
fn follow_changes(cluster: &Cluster, pod: &mut Pod<'_>) {
    let file = project("examples/kubernetes/config/shop.users.yaml");
    let text = fs::read_to_string(file).unwrap();
    let open = format!("{text}  rules:\n    - {{paths: [\"/public/**\"], strategy: none}}\n");
    assert_eq!(Request::get("/public/a").status(3001), Some(401));
    pod.update(cluster, "services", "shop.users.yaml", &open);
    wait_until("the ConfigMap's change is in force", NOTICED, || {
        Request::get("/public/a").status(3001) == Some(200)
    });
    // A bad one changes nothing.
    pod.update(cluster, "services", "shop.users.yaml", "port: [\n");
    wait_until("the bad file is seen", NOTICED, || {
        let metrics = Request::get("/metrics").send(9909).text();
        metrics.contains("outrigger_config_stale{service=\"shop/users\"} 1")
    });
    assert_eq!(Request::get("/public/a").status(3001), Some(200));
    assert_eq!(Request::get("/users").key(WEB).status(3001), Some(200));
    pod.update(cluster, "services", "shop.users.yaml", &text);
    wait_until("the first file is back in force", NOTICED, || {
        Request::get("/public/a").status(3001) == Some(401)
    });
    let other = "another-web-key-of-the-secret-store";
    pod.update(cluster, "keys", "web", other);
    wait_until("the Secret's change is in force", NOTICED, || {
        Request::get("/users").key(other).status(3001) == Some(200)
    });
    assert_eq!(Request::get("/users").key(WEB).status(3001), Some(401));
}

/// The kubelet's order with native sidecars: the app's `preStop`, its SIGTERM,
/// its end, and only then the sidecar's SIGTERM.
fn end_natively(pod: &Pod<'_>, app: &mut Daemon, sidecar: &mut Daemon) {
    let begun = Instant::now();
    while begun.elapsed() < Duration::from_secs(pod.pre_stop_seconds()) {
        let answer = Request::get("/users").key(ORDERS).status(3001);
        assert_eq!(answer, Some(200), "after {:?}", begun.elapsed());
    }
    app.signal("TERM");
    let (status, output) = app.wait_for_exit(SOON);
    assert_eq!(status.code(), Some(0), "{output}");
    let told = Instant::now();
    sidecar.signal("TERM");
    let (status, output) = sidecar.wait_for_exit(SOON);
    assert_eq!(status.code(), Some(0), "{output}");
    assert!(
        told.elapsed() < Duration::from_secs(3),
        "{:?}",
        told.elapsed()
    );
    assert!(begun.elapsed().as_secs() < pod.grace_seconds());
}

#[test]
fn payments_has_no_port_beside_the_sidecar() {
    let _machine = shared_machine();
    in_a_pod_s_network("deploy::pods::inside_payments");
}

#[test]
#[ignore = "run by payments_has_no_port_beside_the_sidecar in a network namespace"]
fn inside_payments() {
    let cluster = Cluster::read(&[]);
    let pod = Pod::new(&cluster, "payments", "outrigger", Root::image());
    let sidecar = pod.start_sidecar();
    let _app = pod.start_app("app");
    wait_until("the pod is ready", SOON, || {
        Request::get("/readyz").status(9909) == Some(200)
    });
    let answer = Request::get("/payments/7").key(ORDERS).send(3003);
    assert_eq!(
        (answer.status, answer.json()["app"].as_str()),
        (200, Some("payments"))
    );
    assert_eq!(Request::get("/payments/7").status(3003), Some(401));
    assert_confined(&sidecar);
    assert_eq!(
        open_to_others().into_iter().collect::<Vec<_>>(),
        [3003, 9909]
    );
}

#[test]
fn orders_calls_the_others_and_ends_beside_its_app() {
    let _machine = shared_machine();
    in_a_pod_s_network("deploy::pods::inside_orders");
}

#[test]
#[ignore = "run by orders_calls_the_others_and_ends_beside_its_app in a network namespace"]
fn inside_orders() {
    let users = App::start_on(3001, scripts::echo);
    let payments = App::start_on(3003, scripts::echo);
    let cluster = Cluster::read(&[]);
    let pod = Pod::new(&cluster, "orders", "outrigger", Root::image());
    let mut sidecar = pod.start_sidecar();
    let mut app = pod.start_app("app");
    wait_until("the pod is ready", SOON, || {
        Request::get("/readyz").status(9909) == Some(200)
    });
    let minted = pod
        .command(
            "outrigger",
            &["outrigger", "token", "mint", "orders", "--sub", "ada"],
        )
        .output()
        .unwrap();
    let token = String::from_utf8(minted.stdout).unwrap();
    let token = token.lines().find(|line| line.starts_with("ey")).unwrap();
    let bearer = format!("Bearer {token}");
    let answer = Request::get("/")
        .header("Authorization", &bearer)
        .send(3002);
    assert_eq!(answer.status, 200, "{}", answer.text());
    let document = answer.json();
    assert_eq!(document["seen"]["x-auth-subject"], "ada", "{document:#}");
    for (name, peer) in [("users", &users), ("payments", &payments)] {
        assert_eq!(document["called"][name]["status"], 200, "{document:#}");
        let asked = peer
            .take()
            .into_iter()
            .rfind(|request| request.target == "/")
            .unwrap();
        assert_eq!(asked.header("x-api-key"), Some(ORDERS), "{name}");
        let own = document["seen"]["traceparent"].as_str().unwrap();
        let passed = asked.header("traceparent").unwrap();
        assert_eq!(own.split('-').nth(1), passed.split('-').nth(1), "one trace");
    }
    end_side_by_side(&pod, &mut app, &mut sidecar);
}

/// The kubelet's order for containers side by side: the sidecar's SIGTERM and
/// the app's `preStop` at the same moment.
fn end_side_by_side(pod: &Pod<'_>, app: &mut Daemon, sidecar: &mut Daemon) {
    let begun = Instant::now();
    sidecar.signal("TERM");
    wait_until("it is not ready any more", SOON, || {
        Request::get("/readyz").status(9909) == Some(503)
    });
    // `shutdown.accept`, less what this machine may be late.
    let accepting = Duration::from_millis(4500);
    while begun.elapsed() < accepting {
        let answer = Request::get("/public/a").status(3002);
        assert_eq!(answer, Some(200), "after {:?}", begun.elapsed());
    }
    let left = Duration::from_secs(pod.pre_stop_seconds()).saturating_sub(begun.elapsed());
    crate::support::wait::pause(left);
    assert!(sidecar.is_running(), "the app may still call others");
    app.signal("TERM");
    let (status, output) = app.wait_for_exit(SOON);
    assert_eq!(status.code(), Some(0), "{output}");
    let (status, output) = sidecar.wait_for_exit(SOON);
    assert_eq!(status.code(), Some(0), "{output}");
    assert!(begun.elapsed().as_secs() < pod.grace_seconds());
}
