//! The ways of changing files that fool watchers. Nobody calls `/reload` here:
//! the daemon has to notice by itself, by events or by its clock.

use std::fs;
use std::os::unix::fs::symlink;
use std::time::Duration;

use crate::support::app::App;
use crate::support::client::Request;
use crate::support::daemon::{Daemon, Setup};
use crate::support::figures::figure;
use crate::support::files::{STEP, open};
use crate::support::isolation::Wrapper;
use crate::support::ports::{free_port, free_ports};
use crate::support::scripts;
use crate::support::tree::{Tree, replace, swap_link};
use crate::support::wait::{holds_for, shared_machine, wait_until};

/// Two polls of five seconds, and time for a busy machine.
const NOTICED: Duration = Duration::from_secs(20);

#[track_caller]
fn wait_for_step(what: &str, port: u16, step: u64) {
    let expected = step.to_string();
    let took = wait_until(what, NOTICED, || {
        let answer = Request::get("/").try_send(port);
        answer.is_ok_and(|response| response.status == 200 && response.text() == expected)
    });
    figure!("{what}: in force after {took:?}");
}

fn app() -> App {
    App::start(scripts::say_header(STEP))
}

/// The daemon over a tree of one service at step 1.
fn started(tree: &Tree, port: u16) -> Daemon {
    let daemon = Setup::new(tree).start();
    wait_for_step("the first version", port, 1);
    daemon
}

#[test]
fn a_kubernetes_volume_is_swapped() {
    let (_machine, app, port) = (shared_machine(), app(), free_port());
    let tree = Tree::new();
    let file = "shop.cart.yaml";
    tree.put(
        &format!("services/..2026_1/{file}"),
        open(port, app.port(), 1),
    );
    tree.put(
        &format!("services/..2026_2/{file}"),
        open(port, app.port(), 2),
    );
    tree.put(
        &format!("services/..2026_3/{file}"),
        open(port, app.port(), 3),
    );
    let data = tree.services().join("..data");
    symlink("..2026_1", &data).unwrap();
    symlink(format!("..data/{file}"), tree.services().join(file)).unwrap();
    let _daemon = started(&tree, port);
    swap_link(&data, "..2026_2");
    fs::remove_dir_all(tree.services().join("..2026_1")).unwrap();
    wait_for_step("the first swap of ..data", port, 2);
    // Watches on files are blind from the second swap on.
    swap_link(&data, "..2026_3");
    fs::remove_dir_all(tree.services().join("..2026_2")).unwrap();
    wait_for_step("the second swap of ..data", port, 3);
}

#[test]
fn an_editor_renames_over_the_file() {
    let (_machine, app, port) = (shared_machine(), app(), free_port());
    let tree = Tree::with(&[("shop/cart", &open(port, app.port(), 1))]);
    let _daemon = started(&tree, port);
    for step in 2..=4 {
        tree.replace("shop/cart", open(port, app.port(), step));
        wait_for_step("a rename over the file", port, step);
    }
    // vim with a backup: the old file moves away, a new one is written.
    let file = tree.file("shop/cart");
    fs::rename(&file, file.with_extension("yaml~")).unwrap();
    fs::write(&file, open(port, app.port(), 5)).unwrap();
    wait_for_step("a backup and a new file", port, 5);
}

#[test]
fn folders_appear_and_are_filled_at_once() {
    let (_machine, app, ports) = (shared_machine(), app(), free_ports(2));
    let tree = Tree::with(&[("shop/cart", &open(ports[0], app.port(), 1))]);
    let _daemon = started(&tree, ports[0]);
    tree.write("deep/nested", open(ports[1], app.port(), 1));
    wait_for_step("mkdir -p and write", ports[1], 1);
    tree.write("deep/nested", open(ports[1], app.port(), 2));
    wait_for_step("a write in the new folder", ports[1], 2);
}

#[test]
fn a_service_folder_is_a_link() {
    let (_machine, app, port) = (shared_machine(), app(), free_port());
    let tree = Tree::new();
    let real = tree.put(
        "elsewhere/cart/service.config.yaml",
        open(port, app.port(), 1),
    );
    fs::create_dir(tree.services().join("shop")).unwrap();
    symlink("../../elsewhere/cart", tree.folder("shop/cart")).unwrap();
    let _daemon = started(&tree, port);
    replace(&real, open(port, app.port(), 2));
    wait_for_step("a change behind a linked folder", port, 2);
    fs::write(&real, open(port, app.port(), 3)).unwrap();
    wait_for_step("a write behind a linked folder", port, 3);
}

#[test]
fn the_root_is_renamed_away_and_back() {
    let (_machine, app, port) = (shared_machine(), app(), free_port());
    let tree = Tree::with(&[("shop/cart", &open(port, app.port(), 1))]);
    let _daemon = started(&tree, port);
    let away = tree.root().join("away");
    fs::rename(tree.services(), &away).unwrap();
    holds_for(
        "the service answers without its tree",
        Duration::from_secs(6),
        || Request::get("/").status(port) == Some(200),
    );
    fs::rename(&away, tree.services()).unwrap();
    tree.replace("shop/cart", open(port, app.port(), 2));
    wait_for_step("a change after the root came back", port, 2);
    // A new folder under the old name: watches on the old one are blind.
    fs::rename(tree.services(), &away).unwrap();
    tree.write("shop/cart", open(port, app.port(), 3));
    wait_for_step("a change in a new root", port, 3);
}

#[test]
fn a_referenced_file_changes() {
    let (_machine, app, port) = (shared_machine(), app(), free_port());
    let tree = Tree::new();
    let text = format!(
        "port: {port}\nupstream: {}\nhealthCheck: false\nauth:\n  strategy: none\n  \
         appToken: {{header: {STEP}, value: \"${{file:step}}\"}}\n",
        app.port()
    );
    let step = tree.put("services/shop/cart/step", "1\n");
    tree.write("shop/cart", text);
    let _daemon = started(&tree, port);
    replace(&step, "2\n");
    wait_for_step("a referenced file is replaced", port, 2);
    fs::write(&step, "3\n").unwrap();
    wait_for_step("a referenced file is written", port, 3);
}

#[test]
fn no_inotify_instances_are_left() {
    let Some(wrapper) = Wrapper::without_inotify() else {
        return;
    };
    let (_machine, app, port) = (shared_machine(), app(), free_port());
    let tree = Tree::with(&[("shop/cart", &open(port, app.port(), 1))]);
    let daemon = Setup::new(&tree).within(wrapper).start();
    wait_for_step("the first version, polling", port, 1);
    daemon.wait_for_line(&["poll"]);
    tree.replace("shop/cart", open(port, app.port(), 2));
    wait_for_step("a change, polling", port, 2);
}
