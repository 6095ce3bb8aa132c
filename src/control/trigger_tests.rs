use std::fs;
use std::os::unix::fs::symlink;
use std::time::Duration;

use super::*;
use crate::control::discover::{Scan, scan};

/// Long enough for any machine, short against the 5 s poll it stands against.
const SOON: Duration = Duration::from_secs(3);

struct Room {
    folder: tempfile::TempDir,
    trigger: Trigger,
    bell: Arc<Bell>,
}

impl Room {
    fn new() -> Self {
        let folder = tempfile::tempdir().expect("folder");
        fs::create_dir(folder.path().join("services")).expect("root");
        let trigger = Trigger::new();
        let bell = trigger.bell();
        Self {
            folder,
            trigger,
            bell,
        }
    }

    fn path(&self, relative: &str) -> PathBuf {
        self.folder.path().join("services").join(relative)
    }

    fn write(&self, relative: &str, text: &str) {
        let path = self.path(relative);
        fs::create_dir_all(path.parent().expect("parent")).expect("folders");
        fs::write(path, text).expect("write");
    }

    /// As the loop does: look, and watch what was found.
    fn look(&mut self) -> (Scan, bool) {
        let root = self.folder.path().join("services");
        let scan = scan(&root, self.folder.path(), None);
        let mut folders = scan.folders.clone();
        let above = fs::metadata(self.folder.path()).expect("parent");
        folders.insert(self.folder.path().to_owned(), FolderId::of(&above));
        let added = self.trigger.watch(&folders, BTreeSet::new());
        (scan, added)
    }

    /// Until nothing new is watched and the bell is silent.
    async fn calm(&mut self) -> Scan {
        loop {
            let (scan, added) = self.look();
            let silent = tokio::time::timeout(Duration::from_millis(100), self.bell.rung()).await;
            if !added && silent.is_err() {
                return scan;
            }
        }
    }

    /// Follows the bell until the services are these.
    async fn see(&mut self, services: &[(&str, &str)]) {
        let wanted = |scan: &Scan| {
            let found = scan.tree.files.iter().map(|file| {
                let text = match &file.content {
                    crate::config::FileContent::Bytes(bytes) => {
                        String::from_utf8_lossy(bytes).into_owned()
                    }
                    crate::config::FileContent::Unreadable(text) => text.clone(),
                };
                (file.name.key().to_owned(), text)
            });
            let expected = services
                .iter()
                .map(|(name, text)| ((*name).to_owned(), (*text).to_owned()));
            found.eq(expected)
        };
        let follow = async {
            loop {
                self.bell.rung().await;
                let (scan, added) = self.look();
                if added {
                    self.bell.ring();
                }
                if wanted(&scan) {
                    return;
                }
            }
        };
        tokio::time::timeout(SOON, follow)
            .await
            .expect("an event told of the change");
    }
}

#[tokio::test]
async fn looking_rings_no_bell() {
    let mut room = Room::new();
    room.write("shop/cart/service.config.yaml", "1");
    room.calm().await;
    for _ in 0..3 {
        room.look();
    }
    fs::write(room.path("shop/cart/app.log"), "a line").expect("write");
    fs::write(room.path("shop/cart/app.log"), "another line").expect("write");
    // Creating the log rings, writing to it again does not.
    let _ = tokio::time::timeout(Duration::from_millis(200), room.bell.rung()).await;
    fs::write(room.path("shop/cart/app.log"), "a third line").expect("write");
    room.look();
    let rung = tokio::time::timeout(Duration::from_millis(300), room.bell.rung()).await;
    assert!(rung.is_err(), "the bell rang without a reason");
}

#[tokio::test]
async fn writes_renames_and_new_folders_ring() {
    let mut room = Room::new();
    room.write("shop/cart/service.config.yaml", "1");
    room.calm().await;
    room.write("shop/cart/service.config.yaml", "2");
    room.see(&[("shop/cart", "2")]).await;
    room.calm().await;
    // An editor: write beside, rename over.
    room.write("shop/cart/.service.config.yaml.swp", "3");
    fs::rename(
        room.path("shop/cart/.service.config.yaml.swp"),
        room.path("shop/cart/service.config.yaml"),
    )
    .expect("rename");
    room.see(&[("shop/cart", "3")]).await;
    room.calm().await;
    room.write("new/one/service.config.yaml", "4");
    room.see(&[("new/one", "4"), ("shop/cart", "3")]).await;
    room.calm().await;
    fs::remove_dir_all(room.path("new")).expect("remove");
    room.see(&[("shop/cart", "3")]).await;
    room.calm().await;
    // The same name again, most likely the same inode.
    room.write("new/one/service.config.yaml", "5");
    room.see(&[("new/one", "5"), ("shop/cart", "3")]).await;
    room.calm().await;
    room.write("new/one/service.config.yaml", "6");
    room.see(&[("new/one", "6"), ("shop/cart", "3")]).await;
}

#[tokio::test]
async fn a_root_that_went_and_came_back_is_watched_again() {
    let mut room = Room::new();
    room.write("shop/cart/service.config.yaml", "1");
    room.calm().await;
    let (root, away) = (room.path(""), room.folder.path().join("away"));
    let root = root.as_path();
    for text in ["2", "3"] {
        fs::rename(root, &away).expect("away");
        room.see(&[]).await;
        fs::rename(&away, root).expect("back");
        room.calm().await;
        room.write("shop/cart/service.config.yaml", text);
        room.see(&[("shop/cart", text)]).await;
        room.calm().await;
    }
    // Faster than anybody looks.
    fs::rename(root, &away).expect("away");
    fs::rename(&away, root).expect("back");
    room.calm().await;
    room.write("shop/cart/service.config.yaml", "4");
    room.see(&[("shop/cart", "4")]).await;
}

#[tokio::test]
async fn kubernetes_swaps_and_linked_folders_ring() {
    let mut room = Room::new();
    for (version, text) in [("..1", "1"), ("..2", "2")] {
        room.write(&format!("{version}/shop.cart.yaml"), text);
    }
    symlink("..1", room.path("..data")).expect("link");
    symlink("..data/shop.cart.yaml", room.path("shop.cart.yaml")).expect("link");
    let outside = room.folder.path().join("outside");
    for version in ["a", "b"] {
        fs::create_dir_all(outside.join(version)).expect("folder");
        fs::write(outside.join(version).join("service.config.yaml"), version).expect("write");
    }
    symlink(outside.join("a"), room.path("users")).expect("link");
    room.calm().await;
    symlink("..2", room.path("..data_tmp")).expect("link");
    fs::rename(room.path("..data_tmp"), room.path("..data")).expect("swap");
    room.see(&[("default/users", "a"), ("shop/cart", "2")])
        .await;
    room.calm().await;
    // Inside a linked folder.
    fs::write(outside.join("a/service.config.yaml"), "aa").expect("write");
    room.see(&[("default/users", "aa"), ("shop/cart", "2")])
        .await;
    room.calm().await;
    // The link itself, and then inside its new target.
    symlink(outside.join("b"), room.path("users_tmp")).expect("link");
    fs::rename(room.path("users_tmp"), room.path("users")).expect("swap");
    room.see(&[("default/users", "b"), ("shop/cart", "2")])
        .await;
    room.calm().await;
    fs::write(outside.join("b/service.config.yaml"), "bb").expect("write");
    room.see(&[("default/users", "bb"), ("shop/cart", "2")])
        .await;
}

#[tokio::test]
async fn without_inotify_instances_there_are_no_watches_and_no_error() {
    let mut room = Room::new();
    let exhausted = Arc::new(std::sync::atomic::AtomicBool::new(true));
    let state = Arc::clone(&exhausted);
    room.trigger = Trigger::with_watcher(
        Arc::default(),
        Box::new(move |bell: Arc<Bell>| {
            if state.load(std::sync::atomic::Ordering::Relaxed) {
                return Err(notify::Error::io(std::io::Error::from_raw_os_error(
                    libc::EMFILE,
                )));
            }
            notify::recommended_watcher(move |event| bell.event(&event))
        }),
    );
    room.bell = room.trigger.bell();
    room.write("shop/cart/service.config.yaml", "1");
    let (scan, added) = room.look();
    assert_eq!((scan.tree.files.len(), added), (1, false));
    assert_eq!((room.trigger.watches(), room.trigger.said), (0, true));
    // Instances are free again: the next look uses them.
    exhausted.store(false, std::sync::atomic::Ordering::Relaxed);
    let (_, added) = room.look();
    assert!(added && !room.trigger.said && room.trigger.watches() > 0);
    room.calm().await;
    room.write("shop/cart/service.config.yaml", "2");
    room.see(&[("shop/cart", "2")]).await;
}
