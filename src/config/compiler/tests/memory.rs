//! What is compiled again, and what a bad neighbour cannot do.

use super::*;

#[test]
fn one_change_among_a_thousand_compiles_one() {
    let mut case = Case::new();
    for index in 0..1000 {
        let before = index.max(1) - 1;
        let dependencies = if index == 0 {
            String::new()
        } else {
            format!("dependencies: [s{before}]\n")
        };
        case = case.file(
            &format!("shop/s{index}"),
            &format!("port: {}\nauth: none\n{dependencies}", 10_000 + index),
        );
    }
    let mut tree = case.tree();
    let mut compiler = case.compiler();
    let first = compiler.compile(&tree);
    assert_eq!(texts(&first), "");
    assert_eq!(first.compiled, 1000);
    assert_eq!(compiler.compile(&tree).compiled, 0);
    let text = b"port: 10000\nauth: none\nversion: 2\n";
    let index = tree
        .files
        .iter()
        .position(|file| file.name.name() == "s0")
        .expect("a file");
    tree.files[index].content = FileContent::Bytes(Arc::from(text.as_slice()));
    let started = std::time::Instant::now();
    let second = compiler.compile(&tree);
    let took = started.elapsed();
    assert_eq!(second.compiled, 1);
    // Unoptimized and on a busy machine; optimized it is a few milliseconds.
    assert!(took.as_millis() < 2000, "{took:?}");
    println!("one of a thousand: {took:?}");
    let untouched = |compilation: &Compilation| spec(compilation, "shop/s1");
    assert!(Arc::ptr_eq(&untouched(&first), &untouched(&second)));
}

#[test]
fn a_moved_neighbour_compiles_its_callers_too() {
    let mut case = Case::new()
        .file("shop/a", "port: 3001\nauth: none\ndependencies: [b]\n")
        .file("shop/b", "port: 3002\nauth: none\n")
        .file("shop/c", "port: 3003\nauth: none\n");
    let mut compiler = case.compiler();
    compiler.compile(&case.tree());
    case = case.file("shop/b", "port: 4002\nauth: none\n");
    let moved = compiler.compile(&case.tree());
    assert_eq!(moved.compiled, 2);
    assert_eq!(
        spec(&moved, "shop/a").dependencies[0].addresses[0].port,
        4002
    );
}

#[test]
fn a_broken_file_moves_nobody() {
    let mut case = Case::new()
        .file("shop/a", "auth: none\ndependencies: [b]\n")
        .file("shop/b", "auth: none\n")
        .file("shop/c", "auth: none\n");
    let mut compiler = case.compiler();
    let good = compiler.compile(&case.tree());
    assert_eq!(spec(&good, "shop/c").port, 3003);
    for broken in [
        "port: [",
        "",
        "port: 3001\nauth: jvt\n",
        "port: 3003\nauth: jvt\n",
    ] {
        case = case.file("shop/b", broken);
        let bad = compiler.compile(&case.tree());
        for name in ["shop/a", "shop/c"] {
            assert_eq!(spec(&good, name), spec(&bad, name), "{broken}");
        }
        let Some(Compiled::Local(LocalService {
            spec: Err(invalid), ..
        })) = bad
            .services
            .get(&ServiceName::new("shop", "b").expect("name"))
        else {
            panic!("{broken}: {bad:?}");
        };
        assert!(invalid.port.is_some(), "{broken}");
    }
    case = case.file("shop/b", "auth: none\n");
    assert_eq!(
        spec(&good, "shop/b"),
        spec(&compiler.compile(&case.tree()), "shop/b")
    );
}

#[test]
fn the_one_that_changed_is_refused() {
    let mut case = Case::new()
        .file("shop/a", "port: 3001\nauth: none\n")
        .file("shop/b", "port: 3002\nauth: none\n");
    let mut compiler = case.compiler();
    compiler.compile(&case.tree());
    case = case.file("shop/a", "port: 3002\nauth: none\n");
    let clash = compiler.compile(&case.tree());
    insta::assert_snapshot!(texts(&clash), @r"
    services/shop/a/service.config.yaml:1:1: port: port 3002 belongs to `shop/b` too
    hint: give one of them another `port`
    ");
    assert_eq!(spec(&clash, "shop/b").port, 3002);
    // Still, while the other's file is bad: it keeps running as it was.
    case = case.file("shop/b", "port: 4000\nauth: jvt\n");
    let still = compiler.compile(&case.tree());
    assert!(texts(&still).contains("port 3002 belongs to `shop/b` too"));
    // And no longer, once the other has left.
    case = case.file("shop/b", "port: 4000\nauth: none\n");
    compiler.compile(&case.tree());
    assert_eq!(spec(&compiler.compile(&case.tree()), "shop/a").port, 3002);
}

#[test]
fn two_that_begin_with_one_port_are_both_refused() {
    let case = Case::new()
        .file("shop/a", "port: 3001\nauth: none\n")
        .file("shop/b", "port: 3001\nauth: none\n")
        .file("shop/c", "port: 3001\nauth: none\nlisten: 127.0.0.1\n")
        .file("shop/d", "port: 9909\nauth: none\n")
        .file("shop/e", "port: 3005\nauth: none\nupstream: 3005\n")
        .file(
            "shop/f",
            "port: 3006\nauth: none\ndependencies: [{name: a, localPort: 3005}]\n",
        );
    insta::assert_snapshot!(case.problems(), @r"
    services/shop/a/service.config.yaml:1:1: port: port 3001 belongs to `shop/b` too
    hint: give one of them another `port`
    services/shop/b/service.config.yaml:1:1: port: port 3001 belongs to `shop/a` too
    hint: give one of them another `port`
    services/shop/c/service.config.yaml:1:1: port: port 3001 belongs to `shop/a` too
    hint: give one of them another `port`
    services/shop/d/service.config.yaml:1:1: port: port 9909 is the process's own: `observe.listen`
    services/shop/e/service.config.yaml:3:1: upstream: port 3005 of this machine is the sidecar itself
    hint: let the app listen on another port and name it here
    services/shop/f/service.config.yaml:3:26: dependencies[0].localPort: port 3005 is the public port of `shop/e`
    ");
}

#[test]
fn settings_of_the_process_compile_everything_again() {
    let case = one("port: 3001\nauth: none\n");
    let mut compiler = case.compiler();
    compiler.compile(&case.tree());
    let environment = Environment::from_pairs([("SERVICE_HEALTH_CHECK_INTERVAL", "250")]);
    let process = load_process(&case.flags, &environment).expect("settings");
    compiler.set_process(process);
    let compiled = compiler.compile(&case.tree());
    assert_eq!(compiled.compiled, 1);
    let spec = spec(&compiled, "shop/cart");
    let probe = spec.health_check.probe().expect("on");
    assert_eq!(probe.interval.as_millis(), 250);
}
