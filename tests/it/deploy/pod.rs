//! A pod without a kubelet: volumes laid out as it lays them out, the sidecar in
//! a container of its own, the app beside it in the same network.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::os::unix::fs::PermissionsExt as _;
use std::process::Command;

use serde_json::Value;
use tempfile::TempDir;

use crate::support::client::Request;
use crate::support::container::Root;
use crate::support::daemon::Daemon;
use crate::support::isolation::{OTHER_ADDRESS, Wrapper, run_test_within};
use crate::support::manifests::{Cluster, Volume, container, list, project, text, variables};
use crate::support::wait::{SOON, wait_until};

const PATH: &str = "/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin";

/// Runs the `#[ignore]`d test `name` in a network of its own, as root; says so
/// where the machine does not allow it.
#[track_caller]
pub(super) fn in_a_pod_s_network(name: &str) {
    if let Some(wrapper) = Wrapper::own_network_of_root() {
        run_test_within(&wrapper, name);
    }
}

pub(super) struct Pod<'a> {
    spec: &'a Value,
    pub(super) root: Root,
    volumes: BTreeMap<String, Volume>,
    /// Held for its drop.
    _folder: TempDir,
}

impl<'a> Pod<'a> {
    /// Lays out the volumes of a Deployment's or Job's pod and mounts those that
    /// the container `of` asks for.
    pub(super) fn new(cluster: &'a Cluster, owner: &str, of: &str, mut root: Root) -> Self {
        let spec = cluster.pod(owner);
        let folder = tempfile::tempdir().unwrap();
        fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755)).unwrap();
        let mut volumes = BTreeMap::new();
        for volume in list(spec, "/volumes") {
            let name = text(volume, "/name");
            let path = folder.path().join(name);
            if volume.get("emptyDir").is_some() {
                fs::create_dir(&path).unwrap();
                fs::set_permissions(&path, fs::Permissions::from_mode(0o777)).unwrap();
            } else {
                let content = cluster.content(volume);
                volumes.insert(name.to_owned(), Volume::lay_out(&path, &content));
            }
        }
        for mount in list(container(spec, of), "/volumeMounts") {
            let read_only = mount["readOnly"] == true;
            let host = folder.path().join(text(mount, "/name"));
            root.mount(&host, text(mount, "/mountPath"), !read_only);
        }
        Self {
            spec,
            root,
            volumes,
            _folder: folder,
        }
    }

    /// Changes one file of a ConfigMap or Secret, as the kubelet brings it.
    pub(super) fn update(&mut self, cluster: &Cluster, volume: &str, file: &str, content: &str) {
        let found = list(self.spec, "/volumes")
            .iter()
            .find(|one| one["name"] == volume);
        let mut all = cluster.content(found.unwrap());
        assert!(all.contains_key(file), "{volume} has no {file}");
        all.insert(file.to_owned(), content.to_owned());
        self.volumes.get_mut(volume).unwrap().update(&all);
    }

    /// A program in the sidecar's container, with its environment.
    pub(super) fn command(&self, of: &str, words: &[&str]) -> Command {
        let wrapper = self
            .root
            .wrapper("/etc/outrigger")
            .expect("root in a namespace of its own");
        let mut command = wrapper.command(words[0]);
        command
            .args(&words[1..])
            .env_clear()
            .env("PATH", PATH)
            .envs(variables(container(self.spec, of)));
        command
    }

    /// Starts a container by its `command`, else as the image's `outrigger run`.
    pub(super) fn start(&self, of: &str) -> Daemon {
        let named: Vec<&str> = list(container(self.spec, of), "/command")
            .iter()
            .map(|word| word.as_str().unwrap())
            .collect();
        let words = if named.is_empty() {
            vec!["outrigger", "run"]
        } else {
            named
        };
        Daemon::spawn(self.command(of, &words), 9900, 9909)
    }

    /// Starts the sidecar and waits as the kubelet waits: for its startup probe.
    #[track_caller]
    pub(super) fn start_sidecar(&self) -> Daemon {
        let probe = &container(self.spec, "outrigger")["startupProbe"]["httpGet"];
        let path = text(probe, "/path");
        let mut sidecar = self.start("outrigger");
        wait_until("the startup probe passes", SOON, || {
            assert!(sidecar.is_running(), "{}", sidecar.output());
            Request::get(path).status(9909) == Some(200)
        });
        sidecar
    }

    /// Starts the container of an app or job, whose files are in
    /// `examples/apps`, outside of the sidecar's.
    pub(super) fn start_app(&self, of: &str) -> Daemon {
        let apps = project("examples/apps");
        let here = |word: &str| word.replace("/app/", &format!("{}/", apps.display()));
        let spec = container(self.spec, of);
        let named = list(spec, "/command")
            .iter()
            .map(|word| here(word.as_str().unwrap()));
        let mut words: Vec<String> = named.collect();
        if words.is_empty() {
            words = ["python3", "/app/app.py"].map(here).to_vec();
        }
        let mut command = Command::new(&words[0]);
        command.args(&words[1..]).env_clear().env("PATH", PATH);
        for (name, value) in variables(spec) {
            // A mounted folder is elsewhere outside of the container.
            let mounts = list(spec, "/volumeMounts").iter();
            let mut inside = mounts.filter(|mount| value.starts_with(text(mount, "/mountPath")));
            let value = match inside.next() {
                Some(mount) => {
                    let folder = self._folder.path().join(text(mount, "/name"));
                    value.replace(text(mount, "/mountPath"), folder.to_str().unwrap())
                }
                None => value,
            };
            command.env(name, value);
        }
        Daemon::spawn(command, 0, 0)
    }

    /// What an app's `preStop` sleeps.
    pub(super) fn pre_stop_seconds(&self) -> u64 {
        let hook = &container(self.spec, "app")["lifecycle"]["preStop"];
        let sleep = hook.pointer("/sleep/seconds").and_then(Value::as_u64);
        let command = hook.pointer("/exec/command/1").and_then(Value::as_str);
        sleep.or_else(|| command?.parse().ok()).unwrap()
    }

    pub(super) fn grace_seconds(&self) -> u64 {
        self.spec["terminationGracePeriodSeconds"].as_u64().unwrap()
    }
}

/// A port of the pod as its neighbours see it.
pub(super) fn from_outside(port: u16) -> SocketAddr {
    SocketAddr::new(OTHER_ADDRESS.parse().unwrap(), port)
}

/// The TCP ports of this network that listen on more than loopback.
pub(super) fn open_to_others() -> BTreeSet<u16> {
    let mut open = BTreeSet::new();
    for file in ["/proc/self/net/tcp", "/proc/self/net/tcp6"] {
        let text = fs::read_to_string(file).unwrap_or_default();
        for line in text.lines().skip(1) {
            let fields: Vec<&str> = line.split_whitespace().collect();
            let (address, port) = fields[1].split_once(':').unwrap();
            if fields[3] == "0A" && !is_loopback(address) {
                open.insert(u16::from_str_radix(port, 16).unwrap());
            }
        }
    }
    open
}

/// An address as `/proc/net/tcp` writes it: words in the machine's byte order.
fn is_loopback(hexadecimal: &str) -> bool {
    let word = |at: usize| u32::from_str_radix(&hexadecimal[at..at + 8], 16).unwrap();
    if hexadecimal.len() == 8 {
        return IpAddr::from(Ipv4Addr::from(word(0).to_ne_bytes())).is_loopback();
    }
    let first = word(0) | word(8);
    let last = word(24).to_ne_bytes();
    first == 0 && (last == [0, 0, 0, 1] && word(16) == 0 || last[0] == 127)
}
