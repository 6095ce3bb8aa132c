//! Namespaces and other users, where the machine allows them. A test that needs
//! one and cannot have it says so and ends; on the machines that check changes,
//! all of them are there.

use std::path::Path;
use std::process::{Command, Stdio};

/// Something that starts another command: `unshare …`, `setpriv …`.
#[derive(Default)]
pub(crate) struct Wrapper(Vec<String>);

impl Wrapper {
    fn shell(prefix: &[&str], script: &str) -> Self {
        let mut words: Vec<String> = prefix.iter().map(|word| (*word).to_owned()).collect();
        words.extend(["sh", "-c", &format!("{script} && exec \"$@\""), "sh"].map(str::to_owned));
        Self(words)
    }

    /// A user namespace in which no inotify instance can be made.
    pub(crate) fn without_inotify() -> Option<Self> {
        let wrapper = Self::shell(
            &["unshare", "--user", "--map-root-user"],
            "echo 0 > /proc/sys/user/max_inotify_instances",
        );
        wrapper.works().then_some(wrapper)
    }

    /// A network of its own with loopback and, beside it, the addresses
    /// [`OTHER_ADDRESS`] and [`PUBLIC_ADDRESS`]; nothing else can be reached.
    pub(crate) fn own_network() -> Option<Self> {
        let script = format!(
            "ip link set lo up && ip address add {OTHER_ADDRESS}/32 dev lo \
             && ip address add {PUBLIC_ADDRESS}/32 dev lo"
        );
        let wrapper = Self::shell(&["unshare", "--user", "--map-root-user", "--net"], &script);
        wrapper.works().then_some(wrapper)
    }

    /// A file system at `path`, which must be a folder, on which every access
    /// waits for ever: a mount whose server is gone.
    pub(crate) fn hung_mount(path: &Path) -> Option<Self> {
        let options = "fd=3,rootmode=40000,user_id=0,group_id=0";
        let script = format!(
            "exec 3<>/dev/fuse && mount -i -t fuse -o {options} hung {}",
            path.display()
        );
        let prefix = ["unshare", "--user", "--map-root-user", "--mount"];
        let wrapper = Self::shell(&prefix, &script);
        wrapper.works().then_some(wrapper)
    }

    /// With these limits or redirections of the shell: `ulimit -n 128`,
    /// `exec >&-`.
    pub(crate) fn after(script: &str) -> Self {
        Self::shell(&[], script)
    }

    /// Process 1 of a process namespace of its own, whose end ends it.
    pub(crate) fn process_one() -> Option<Self> {
        let words = [
            "unshare",
            "--user",
            "--map-root-user",
            "--pid",
            "--fork",
            "--kill-child",
        ];
        let wrapper = Self(words.map(str::to_owned).to_vec());
        wrapper.works().then_some(wrapper)
    }

    /// These files in the place of `/etc/hosts` and `/etc/resolv.conf`; written
    /// to in place, they change what names mean.
    pub(crate) fn own_names(hosts: &Path, resolver: &Path) -> Option<Self> {
        let script = format!(
            "mount --bind {} /etc/hosts && mount --bind {} /etc/resolv.conf",
            hosts.display(),
            resolver.display()
        );
        let prefix = ["unshare", "--user", "--map-root-user", "--mount"];
        let wrapper = Self::shell(&prefix, &script);
        wrapper.works().then_some(wrapper)
    }

    /// New namespaces of the machine itself, which only root may make, prepared
    /// by `script`; `enter` starts the command in them.
    pub(crate) fn machine(namespaces: &[&str], script: &str, enter: &[&str]) -> Option<Self> {
        if !super::process::is_root() {
            println!("skipped: needs root");
            return None;
        }
        let mut prefix = vec!["unshare"];
        prefix.extend(namespaces);
        let mut wrapper = Self::shell(&prefix, script);
        if !wrapper.works() {
            return None;
        }
        wrapper
            .0
            .extend(enter.iter().map(|word| (*word).to_owned()));
        Some(wrapper)
    }

    /// As [`Wrapper::own_network`], for root as itself: other users can be become.
    pub(crate) fn own_network_of_root() -> Option<Self> {
        let script = format!("ip link set lo up && ip address add {OTHER_ADDRESS}/32 dev lo");
        Self::machine(&["--net"], &script, &[])
    }

    /// A user without rights.
    pub(crate) fn nobody() -> Option<Self> {
        let words = [
            "setpriv",
            "--reuid=65534",
            "--regid=65534",
            "--clear-groups",
        ];
        let wrapper = Self(words.map(str::to_owned).to_vec());
        wrapper.works().then_some(wrapper)
    }

    fn works(&self) -> bool {
        let works = self
            .command("true")
            .stdin(Stdio::null())
            .output()
            .is_ok_and(|output| output.status.success());
        if !works {
            println!(
                "skipped: this machine does not allow `{}`",
                self.0.join(" ")
            );
        }
        works
    }

    /// The command that starts `program`.
    pub(crate) fn command(&self, program: &str) -> Command {
        match self.0.split_first() {
            None => Command::new(program),
            Some((first, rest)) => {
                let mut command = Command::new(first);
                command.args(rest).arg(program);
                command
            }
        }
    }
}

/// An address of the machine that is not loopback, inside [`Wrapper::own_network`].
pub(crate) const OTHER_ADDRESS: &str = "10.201.0.1";

/// The same, of a kind that anybody on the internet may have.
pub(crate) const PUBLIC_ADDRESS: &str = "203.0.113.7";

/// Runs one `#[ignore]`d test of this binary inside `wrapper` and passes its
/// verdict on.
#[track_caller]
pub(crate) fn run_test_within(wrapper: &Wrapper, name: &str) {
    let this = std::env::current_exe().expect("a test knows its binary");
    let output = wrapper
        .command(this.to_str().expect("a target folder is text"))
        .args([
            "--exact",
            name,
            "--ignored",
            "--nocapture",
            "--test-threads=1",
        ])
        .stdin(Stdio::null())
        .output()
        .expect("this binary can be started again");
    let text = String::from_utf8_lossy(&output.stdout);
    println!("{text}");
    assert!(
        output.status.success() && text.contains("1 passed"),
        "`{name}` failed:\n{}",
        String::from_utf8_lossy(&output.stderr)
    );
}

/// Runs the `#[ignore]`d test `name`, which is `test`, with every port of the
/// machine to itself, or where the machine does not allow that, as it is.
#[track_caller]
pub(crate) fn with_own_ports(name: &str, test: fn()) {
    match Wrapper::own_network() {
        Some(wrapper) => run_test_within(&wrapper, name),
        None => test(),
    }
}
