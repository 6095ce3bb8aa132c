use std::fs;
use std::os::unix::fs::symlink;
use std::process::Command;
use std::time::Instant;

use super::*;

struct Room {
    folder: tempfile::TempDir,
}

impl Room {
    fn new() -> Self {
        let folder = tempfile::tempdir().expect("folder");
        fs::create_dir(folder.path().join("services")).expect("root");
        Self { folder }
    }

    fn root(&self) -> PathBuf {
        self.folder.path().join("services")
    }

    fn path(&self, relative: &str) -> PathBuf {
        self.root().join(relative)
    }

    fn write(&self, relative: &str, text: &str) {
        let path = self.path(relative);
        fs::create_dir_all(path.parent().expect("parent")).expect("folders");
        fs::write(path, text).expect("write");
    }

    fn scan(&self) -> Scan {
        scan(&self.root(), self.folder.path(), None)
    }
}

fn names(scan: &Scan) -> Vec<&str> {
    scan.tree.files.iter().map(|file| file.name.key()).collect()
}

fn problems(scan: &Scan) -> Vec<String> {
    scan.tree.problems.iter().map(ToString::to_string).collect()
}

fn name(domain: &str, service: &str) -> ServiceName {
    ServiceName::new(domain, service).expect("valid name")
}

#[test]
fn three_layouts_make_one_tree() {
    let room = Room::new();
    room.write("shop/cart/service.config.yaml", "port: 1");
    room.write("shop/pay/service.config.json", "{}");
    room.write("users/service.config.yml", "port: 2");
    room.write("users/src/main.rs", "");
    room.write("mail.out.yaml", "port: 3");
    room.write("shared/x/service.config.yaml", "");
    room.write("shop/shared/service.config.yaml", "");
    room.write(".git/x/service.config.yaml", "");
    room.write("..data/x/service.config.yaml", "");
    room.write("package.json", "{}");
    let scan = room.scan();
    assert_eq!(
        names(&scan),
        ["default/users", "mail/out", "shop/cart", "shop/pay"]
    );
    assert!(problems(&scan).is_empty(), "{:?}", problems(&scan));
    let cart = scan.file(&name("shop", "cart")).expect("cart");
    assert_eq!(
        cart.shown,
        Path::new("services/shop/cart/service.config.yaml")
    );
    assert_eq!(cart.folder, room.path("shop/cart"));
    assert_eq!(cart.content, FileContent::Bytes(Arc::from(&b"port: 1"[..])));
    let mail = scan.file(&name("mail", "out")).expect("mail");
    assert_eq!(mail.folder, room.root());
    assert!(scan.folders.contains_key(&room.path("shop/cart")));
    assert!(!scan.folders.contains_key(&room.path("users/src")));
    assert_eq!(scan.blind, Blind::default());
}

#[test]
fn two_files_for_one_service_are_an_error_for_both() {
    let room = Room::new();
    room.write("shop/cart/service.config.yaml", "a");
    room.write("shop/cart/service.config.json", "b");
    room.write("default.users.yaml", "c");
    room.write("users/service.config.yaml", "d");
    let scan = room.scan();
    assert_eq!(names(&scan), ["default/users", "shop/cart"]);
    for file in &scan.tree.files {
        assert!(
            matches!(file.content, FileContent::Unreadable(_)),
            "{file:?}"
        );
    }
    let problems = problems(&scan);
    assert_eq!(problems.len(), 2, "{problems:?}");
    assert!(problems[1].starts_with("services/shop/cart/service.config.yaml: shop/cart is"));
}

#[test]
fn names_outside_the_grammar_are_said() {
    let room = Room::new();
    room.write("Shop/cart/service.config.yaml", "a");
    room.write("shop/node_modules/x", "a");
    room.write("shop/my_cart/service.config.yaml", "a");
    room.write("a.b.c.yaml", "a");
    room.write("service.config.yaml", "a");
    let scan = room.scan();
    assert!(names(&scan).is_empty());
    let problems = problems(&scan);
    assert_eq!(problems.len(), 4, "{problems:?}");
    assert!(
        problems
            .iter()
            .any(|text| text.contains("`Shop` is not a name"))
    );
    assert!(
        problems
            .iter()
            .any(|text| text.contains("`my_cart` is not a name"))
    );
}

#[test]
fn a_missing_or_shadowed_root_is_no_absence() {
    let room = Room::new();
    fs::remove_dir(room.root()).expect("remove");
    let scan = room.scan();
    assert!(scan.blind.covers(&name("shop", "cart")));
    assert_eq!(scan.tree.problems.len(), 1);
    fs::write(room.root(), "a file").expect("write");
    assert!(room.scan().blind.everything);
}

#[test]
fn links_are_followed_and_never_loop() {
    let room = Room::new();
    let outside = room.folder.path().join("elsewhere");
    fs::create_dir_all(outside.join("cart")).expect("folders");
    fs::write(outside.join("cart/service.config.yaml"), "port: 1").expect("write");
    fs::write(outside.join("mail.yaml"), "port: 2").expect("write");
    symlink(&outside, room.path("shop")).expect("link");
    symlink(outside.join("cart"), room.path("users")).expect("link");
    symlink(outside.join("mail.yaml"), room.path("mail.out.yaml")).expect("link");
    symlink(room.root(), room.path("again")).expect("link");
    symlink("..", room.path("up")).expect("link");
    symlink("round", room.path("round")).expect("link");
    symlink("gone", room.path("lost")).expect("link");
    fs::create_dir(room.path("own")).expect("folder");
    symlink("gone", room.path("own/lost")).expect("link");
    symlink(".", room.path("own/self")).expect("link");
    let scan = room.scan();
    assert_eq!(names(&scan), ["default/users", "mail/out", "shop/cart"]);
    assert_eq!(scan.tree.problems.len(), 6, "{:?}", problems(&scan));
    assert!(scan.blind.covers(&name("lost", "anything")));
    assert!(scan.blind.covers(&name("default", "lost")));
    assert!(scan.blind.covers(&name("own", "lost")));
    assert!(!scan.blind.covers(&name("own", "other")));
    assert!(!scan.blind.everything);
}

#[test]
fn a_kubernetes_volume_is_a_flat_tree() {
    let room = Room::new();
    room.write("..2024_1/shop.cart.yaml", "port: 1");
    symlink("..2024_1", room.path("..data")).expect("link");
    symlink("..data/shop.cart.yaml", room.path("shop.cart.yaml")).expect("link");
    let before = room.scan();
    assert_eq!(names(&before), ["shop/cart"]);
    room.write("..2024_2/shop.cart.yaml", "port: 2");
    symlink("..2024_2", room.path("..data_tmp")).expect("link");
    fs::rename(room.path("..data_tmp"), room.path("..data")).expect("swap");
    fs::remove_dir_all(room.path("..2024_1")).expect("remove");
    let after = room.scan();
    assert_eq!(names(&after), ["shop/cart"]);
    assert!(!before.same_as(&after));
    assert!(after.same_as(&room.scan()));
}

#[test]
fn what_is_no_regular_file_is_never_opened() {
    let room = Room::new();
    room.write("shop/cart/x", "");
    for path in ["shop/cart/service.config.yaml", "mail.out.yaml"] {
        let made = Command::new("mkfifo").arg(room.path(path)).status();
        assert!(made.expect("mkfifo runs").success());
    }
    room.write("shop/pay/service.config.yaml/x", "");
    let large = vec![b'#'; usize::try_from(crate::config::MAX_FILE_BYTES).unwrap() + 1];
    room.write("shop/mass/x", "");
    fs::write(room.path("shop/mass/service.config.json"), large).expect("write");
    let scan = room.scan();
    let said: Vec<_> = scan
        .tree
        .files
        .iter()
        .map(|file| match &file.content {
            FileContent::Unreadable(text) => (file.name.key(), text.as_str()),
            FileContent::Bytes(_) => (file.name.key(), "read"),
        })
        .collect();
    let fifo = "is a FIFO, not a regular file";
    assert_eq!(
        said,
        [
            ("mail/out", fifo),
            ("shop/cart", fifo),
            ("shop/mass", "is larger than 1024 KiB"),
            ("shop/pay", "is a folder, not a regular file"),
        ]
    );
}

#[test]
fn bytes_that_stay_are_shared() {
    let room = Room::new();
    room.write("shop/cart/service.config.yaml", "port: 1");
    room.write("shop/pay/service.config.yaml", "port: 2");
    let first = room.scan();
    room.write("shop/pay/service.config.yaml", "port: 3");
    let second = scan(&room.root(), room.folder.path(), Some(&first));
    let shared = |service: &str| {
        let pair = [&first, &second].map(|scan| {
            match &scan.file(&name("shop", service)).unwrap().content {
                FileContent::Bytes(bytes) => Arc::clone(bytes),
                FileContent::Unreadable(text) => panic!("{text}"),
            }
        });
        Arc::ptr_eq(&pair[0], &pair[1])
    };
    assert!(shared("cart"));
    assert!(!shared("pay"));
}

/// A figure, printed rather than asserted: `cargo test -- --nocapture`.
#[test]
fn a_thousand_services_are_read_quickly() {
    let room = Room::new();
    for index in 0..1000 {
        let path = format!("domain-{}/service-{index}/service.config.yaml", index % 10);
        room.write(&path, "port: 3001\nupstream: 8080\n");
    }
    let first = room.scan();
    let begun = Instant::now();
    let second = scan(&room.root(), room.folder.path(), Some(&first));
    println!("scan of 1 000 services: {:?}", begun.elapsed());
    assert_eq!(second.tree.files.len(), 1000);
    assert!(first.same_as(&second));
}
