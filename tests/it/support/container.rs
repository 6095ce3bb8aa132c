//! A container without a container engine: a root that holds only what the
//! image and the volumes put there, read-only, and a user without rights.

use std::fs;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;

use tempfile::TempDir;

use super::daemon::BINARY;
use super::isolation::Wrapper;

/// The user of the image (`docker/Dockerfile`).
pub(crate) const USER: u32 = 65532;

/// The root of a container's file system.
pub(crate) struct Root {
    folder: TempDir,
    /// Folders of the host and where they are seen, read-only unless it says so.
    mounts: Vec<(PathBuf, String, bool)>,
}

impl Root {
    /// As `docker/Dockerfile` makes it: the binary, the C library it needs, the
    /// certificates; `/proc` and `/etc/hosts` come from the engine.
    pub(crate) fn image() -> Self {
        let root = Self::empty();
        let output = Command::new("ldd")
            .arg(BINARY)
            .output()
            .expect("ldd is there");
        for word in String::from_utf8_lossy(&output.stdout).split_whitespace() {
            if word.starts_with('/') {
                root.copy(Path::new(word), word);
            }
        }
        let certificates = "/etc/ssl/certs/ca-certificates.crt";
        if Path::new(certificates).exists() {
            root.copy(Path::new(certificates), certificates);
        }
        root
    }

    /// The same with the host's programs in it, for images with an app.
    pub(crate) fn with_programs() -> Self {
        let mut root = Self::empty();
        for folder in ["bin", "lib", "lib64"] {
            let target = format!("usr/{folder}");
            symlink(target, root.path().join(folder)).expect("the folder is ours");
            root.mount(
                &Path::new("/usr").join(folder),
                &format!("/usr/{folder}"),
                false,
            );
        }
        root
    }

    fn empty() -> Self {
        let folder = tempfile::Builder::new()
            .prefix("outrigger-root-")
            .tempdir()
            .expect("a temporary folder can be made");
        // The user of the container has to get in.
        let open = fs::Permissions::from_mode(0o755);
        fs::set_permissions(folder.path(), open).expect("the folder is ours");
        let mut root = Self {
            folder,
            mounts: Vec::new(),
        };
        root.copy(Path::new(BINARY), "/usr/local/bin/outrigger");
        root.write("/etc/hosts", "127.0.0.1 localhost users orders payments\n");
        root.write("/etc/nsswitch.conf", "hosts: files\n");
        root.mount(Path::new("/proc"), "/proc", true);
        root
    }

    pub(crate) fn path(&self) -> &Path {
        self.folder.path()
    }

    /// Where a path of the container is on the host.
    pub(crate) fn outside(&self, path: &str) -> PathBuf {
        self.path().join(path.trim_start_matches('/'))
    }

    pub(crate) fn write(&self, path: &str, text: &str) {
        let file = self.outside(path);
        fs::create_dir_all(file.parent().expect("below the root")).expect("the folder is ours");
        fs::write(file, text).expect("the folder is ours");
    }

    pub(crate) fn copy(&self, from: &Path, to: &str) {
        let to = self.outside(to);
        fs::create_dir_all(to.parent().expect("below the root")).expect("the folder is ours");
        // The binary is large: a second name is enough where that is possible.
        let from = from.canonicalize().expect("the file is there");
        if fs::hard_link(&from, &to).is_err() {
            fs::copy(&from, &to).expect("the file is readable");
        }
    }

    /// Shows a folder of the host at `path`.
    pub(crate) fn mount(&mut self, host: &Path, path: &str, writable: bool) {
        fs::create_dir_all(self.outside(path)).expect("the folder is ours");
        self.mounts
            .push((host.to_owned(), path.to_owned(), writable));
    }

    /// Starts a program of the container, as its user in `workdir`. `None` where
    /// the machine does not allow it.
    pub(crate) fn wrapper(&self, workdir: &str) -> Option<Wrapper> {
        let root = self.path().display();
        let mut script = format!("mount --bind {root} {root}");
        for (host, path, writable) in &self.mounts {
            let (host, path) = (host.display(), self.outside(path));
            let path = path.display();
            script.push_str(&format!(" && mount --rbind {host} {path}"));
            if !writable {
                script.push_str(&format!(" && mount -o remount,bind,ro {path}"));
            }
        }
        script.push_str(&format!(" && mount -o remount,bind,ro {root}"));
        let user = USER.to_string();
        let enter = [
            "unshare",
            &format!("--root={root}"),
            &format!("--wd={workdir}"),
            "--setgid",
            &user,
            "--setuid",
            &user,
        ];
        Wrapper::machine(&["--mount"], &script, &enter)
    }
}
