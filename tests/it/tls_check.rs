//! What `check` says of certificates before anybody connects.

use std::fs;
use std::time::Duration;

use crate::support::daemon::run_to_end;
use crate::support::pki::{Authority, Dates, Pair};
use crate::support::tree::Tree;

#[test]
fn check_reads_pairs_chains_and_dates() {
    let (tree, authority) = (Tree::new(), Authority::new("shop"));
    let folder = tree.folder("shop/cart");
    let tls = "tls: {cert: server.pem, key: server.key}";
    tree.write("shop/cart", format!("port: 3001\nauth: none\n{tls}\n"));
    let check = |extra: &[&str]| {
        let arguments = [&["check"], extra].concat();
        run_to_end(tree.root(), &arguments, &[])
    };
    let good = authority.server();
    good.write(&folder, "server");
    let (code, text) = check(&[]);
    assert!(code == 0 && !text.contains("tls"), "{text}");
    for (pair, words) in [
        (authority.issue(&["x"], Dates::Past), "has expired"),
        (authority.issue(&["x"], Dates::Future), "not valid yet"),
        (
            authority.issue(&["x"], Dates::EndsIn(Duration::from_secs(300_000))),
            "expires in 3 days",
        ),
        (
            Pair {
                cert: [&good.cert, Authority::new("stranger").pem()].concat(),
                key: good.key.clone(),
            },
            "do not sign each other",
        ),
    ] {
        pair.write(&folder, "server");
        let (code, text) = check(&[]);
        assert!(code == 0 && text.contains(words), "{words}: {text}");
        assert_eq!(check(&["--strict"]).0, 64, "{words}");
    }
    fs::write(folder.join("server.key"), authority.server().key).unwrap();
    let (code, text) = check(&[]);
    assert!(
        code == 64 && text.contains("do not belong together"),
        "{text}"
    );
    for sealed in [
        "-----BEGIN ENCRYPTED PRIVATE KEY-----\nMIIB\n-----END ENCRYPTED PRIVATE KEY-----\n",
        "-----BEGIN EC PRIVATE KEY-----\nProc-Type: 4,ENCRYPTED\nDEK-Info: AES-256-CBC,00\n\n\
         MIIB\n-----END EC PRIVATE KEY-----\n",
    ] {
        fs::write(folder.join("server.key"), sealed).unwrap();
        let (code, text) = check(&[]);
        assert!(code == 64 && text.contains("is encrypted"), "{text}");
    }
    fs::write(folder.join("server.key"), "nothing of a key").unwrap();
    let (code, text) = check(&[]);
    assert!(
        code == 64 && text.contains("holds no private key"),
        "{text}"
    );
}

#[test]
fn check_reads_what_databases_and_collectors_are_shown() {
    let (tree, authority) = (Tree::new(), Authority::new("shop"));
    let folder = tree.folder("shop/cart");
    let config = tree.root().join("config");
    let good = authority.server();
    for folder in [&folder, &config] {
        good.write(folder, "client");
        fs::write(folder.join("ca.pem"), authority.pem()).unwrap();
    }
    let tls = "{ca: ca.pem, cert: client.pem, key: client.key}";
    let database = |tls: &str| {
        let text = format!(
            "port: 3001\nauth: none\ndatabase:\n  url: postgres://a:b@db.internal/shop\n  tls: {tls}\n"
        );
        tree.write("shop/cart", text);
    };
    let mode = |mode: &str| tls.replace("{ca", &format!("{{mode: {mode}, ca"));
    database(tls);
    let exporter = format!(
        "tracing: {{exporter: {{otlp: {{endpoint: 'https://collector.internal', tls: {tls}}}}}}}\n"
    );
    tree.put("config/outrigger.yaml", exporter);
    let check = || run_to_end(tree.root(), &["check"], &[]);
    let (code, text) = check();
    assert!(code == 0 && text.contains("0 errors, 0 warnings"), "{text}");
    let other = authority.server();
    let old = authority.issue(&["x"], Dates::Past);
    for (place, key) in [
        (&folder, "database.tls"),
        (&config, "tracing.exporter.otlp.tls"),
    ] {
        let wrong = |what: &str, expected: i32| {
            let (code, text) = check();
            assert!(
                code == expected && text.contains(what),
                "{key}: {what}: {text}"
            );
            assert!(text.contains(key), "{text}");
        };
        old.write(place, "client");
        wrong("has expired", 0);
        good.write(place, "client");
        fs::write(place.join("client.key"), &other.key).unwrap();
        wrong("do not belong together", 64);
        good.write(place, "client");
        fs::write(place.join("ca.pem"), "nothing").unwrap();
        wrong("ca.pem", 64);
        fs::remove_file(place.join("ca.pem")).unwrap();
        wrong("ca.pem", 64);
        fs::write(place.join("ca.pem"), authority.pem()).unwrap();
    }
    // Only what is used counts.
    fs::write(folder.join("ca.pem"), "nothing").unwrap();
    database(&mode("require"));
    let (code, text) = check();
    assert!(code == 0, "{text}");
    fs::write(folder.join("client.key"), &other.key).unwrap();
    assert_eq!(check().0, 64);
    database(&mode("disable"));
    let (code, text) = check();
    assert!(code == 0, "{text}");
}
