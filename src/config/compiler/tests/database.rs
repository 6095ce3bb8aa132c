//! `database` (POSTGRES.md §1).

use super::*;
use crate::model::{DatabaseIsolation, DatabaseNeighbour, DatabaseSpec, DatabaseTls};

const SHARED: &str = "port: 3001\nauth: none\ndatabase: {}\n";

fn database(case: &Case) -> DatabaseSpec {
    spec(&case.compile(), "shop/cart")
        .database
        .clone()
        .expect("on")
}

fn with_env(text: &str) -> Case {
    one(text)
        .env("POSTGRES_HOST", "localhost")
        .env("POSTGRES_DB", "base")
        .env("POSTGRES_USER", "admin")
        .env("POSTGRES_PASSWORD", "swordfish")
}

#[test]
fn names_follow_the_service() {
    let shared = database(&with_env(SHARED));
    assert_eq!(shared.isolation, DatabaseIsolation::Shared);
    assert_eq!(
        (&*shared.database, &*shared.schema, &*shared.role),
        ("base", "shop_cart", "shop_cart")
    );
    assert_eq!(shared.tls, DatabaseTls::Disable);
    let isolated = database(&with_env(
        "port: 3001\nauth: none\ndatabase: {isolation: isolated}\n",
    ));
    assert_eq!(
        (
            &*isolated.database,
            &*isolated.base_database,
            &*isolated.role
        ),
        ("base_cart", "base", "shop_cart")
    );
    let own = database(&with_env(
        "port: 3001\nauth: none\ndatabase: {isolation: isolated, database: mine}\n",
    ));
    assert_eq!((&*own.database, &*own.base_database), ("mine", "base"));
    let by_default = database(&with_env(SHARED).env("DATABASE_ISOLATION", "isolated"));
    assert_eq!(by_default.isolation, DatabaseIsolation::Isolated);
}

#[test]
fn a_url_goes_before_pieces_and_the_file_before_both() {
    let by_url = with_env(SHARED).env("DATABASE_URL", "postgres://u:p@db.example:7000/other");
    let found = database(&by_url);
    assert_eq!(
        (&*found.host, found.port, &*found.database, &*found.user),
        ("db.example", 7000, "other", "u")
    );
    assert!(matches!(found.tls, DatabaseTls::VerifyFull { .. }));
    let own =
        with_env("port: 3001\nauth: none\ndatabase: {url: 'postgres://me@/mine?host=/run/pg'}\n")
            .env("DATABASE_URL", "postgres://u:p@db.example:7000/other");
    let found = database(&own);
    assert_eq!(
        (&*found.host, found.port, &*found.database, &*found.user),
        ("/run/pg", 5432, "mine", "me")
    );
}

#[test]
fn without_a_host_the_wing_is_off() {
    let case = one(SHARED);
    let compiled = case.compile();
    assert_eq!(texts(&compiled), "");
    assert!(spec(&compiled, "shop/cart").database.is_none());
    assert_eq!(compiled.notes.len(), 1);
    // And the environment alone turns it on for nobody.
    assert!(
        spec(&with_env("port: 3001\nauth: none\n").compile(), "shop/cart")
            .database
            .is_none()
    );
}

#[test]
fn what_cannot_work_is_refused() {
    let refused =
        |block: &str| with_env(&format!("port: 3001\nauth: none\ndatabase: {block}\n")).problems();
    let long = "x".repeat(64);
    let texts: Vec<String> = [
        format!("{{role: {long}}}"),
        "{schema: public}".to_owned(),
        "{role: pg_monitor}".to_owned(),
        "{role: 'a-b'}".to_owned(),
        "{isolation: isolated, database: postgres}".to_owned(),
        "{url: 'mysql://x'}".to_owned(),
        "{url: 'postgres://x', host: y}".to_owned(),
        "{host: db.example, tls: {mode: prefer}}".to_owned(),
        "{max: 0, statementTimeout: 0s, doorToken: x}".to_owned(),
        "{reads: [cart, nobody]}".to_owned(),
        "{migrationsDir: ../other}".to_owned(),
        "{host: 'a b'}".to_owned(),
    ]
    .iter()
    .map(|block| refused(block))
    .collect();
    insta::assert_snapshot!(texts.join("\n"), @r"
    services/shop/cart/service.config.yaml:3:12: database.role: `xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx` has more than 63 bytes
    hint: set `database.role`
    services/shop/cart/service.config.yaml:3:12: database.schema: this name belongs to PostgreSQL
    hint: set `database.schema`
    services/shop/cart/service.config.yaml:3:12: database.role: this name belongs to PostgreSQL
    hint: set `database.role`
    services/shop/cart/service.config.yaml:3:12: database.role: expected a-z, 0-9 and _
    hint: names are used without quotes elsewhere
    services/shop/cart/service.config.yaml:3:33: database.database: this name belongs to PostgreSQL
    hint: set `database.database`
    services/shop/cart/service.config.yaml:3:12: database.url: expected postgres://…
    services/shop/cart/service.config.yaml:3:33: database.host: is there beside `database.url`
    services/shop/cart/service.config.yaml:3:36: database.tls.mode: `prefer` and `allow` can be stripped by whoever is in between
    hint: use verify-full, require or disable
    services/shop/cart/service.config.yaml:3:12: database.max: must be at least 1
    services/shop/cart/service.config.yaml:3:20: database.statementTimeout: must be above 0
    services/shop/cart/service.config.yaml:3:42: database.doorToken: is shorter than 16 characters
    services/shop/cart/service.config.yaml:3:20: database.reads[0]: is the service itself
    services/shop/cart/service.config.yaml:3:26: database.reads[1]: no service `nobody` in the tree
    services/shop/cart/service.config.yaml:3:12: database.migrationsDir: must lie below the service's folder or one of `secretsDirs`
    services/shop/cart/service.config.yaml:3:1: database: the host is no host name, address or absolute path
    ");
    insta::assert_snapshot!(one(SHARED).env("POSTGRES_HOST", "db").problems(), @r"
    services/shop/cart/service.config.yaml:3:1: database: no database is named
    hint: set POSTGRES_DB, or `database.database`
    services/shop/cart/service.config.yaml:3:1: database: no user is named
    hint: set POSTGRES_USER, or `database.user`
    ");
}

#[test]
fn two_services_never_share_a_name() {
    let block = "auth: none\ndatabase: {}\n";
    let case = with_env("port: 3001\nauth: none\n")
        .file("a-b/c", &format!("port: 3002\n{block}"))
        .file("a/b-c", &format!("port: 3003\n{block}"))
        .file(
            "x/pay",
            "port: 3004\nauth: none\ndatabase: {isolation: isolated}\n",
        )
        .file(
            "y/pay",
            "port: 3005\nauth: none\ndatabase: {isolation: isolated}\n",
        );
    insta::assert_snapshot!(case.problems(), @r"
    services/a-b/c/service.config.yaml:3:1: database.role: the role `a_b_c` belongs to `a/b-c` too
    hint: set `database.role` for one of them
    services/a-b/c/service.config.yaml:3:1: database.schema: the schema `base.a_b_c` belongs to `a/b-c` too
    hint: set `database.schema` for one of them
    services/a/b-c/service.config.yaml:3:1: database.role: the role `a_b_c` belongs to `a-b/c` too
    hint: set `database.role` for one of them
    services/a/b-c/service.config.yaml:3:1: database.schema: the schema `base.a_b_c` belongs to `a-b/c` too
    hint: set `database.schema` for one of them
    services/x/pay/service.config.yaml:3:1: database.database: the database `base_pay` belongs to `y/pay` too
    hint: set `database.database` for one of them
    services/y/pay/service.config.yaml:3:1: database.database: the database `base_pay` belongs to `x/pay` too
    hint: set `database.database` for one of them
    ");
}

#[test]
fn a_join_takes_two_who_agree_in_one_database() {
    let file = |port: u16, keys: &str| format!("port: {port}\nauth: none\ndatabase: {{{keys}}}\n");
    let agreed = with_env(&file(3001, "reads: [pay]"))
        .file("shop/pay", &file(3002, "sharesWith: [cart, crm/cart]"))
        .file("crm/cart", &file(3003, "reads: [shop/pay]"));
    let compiled = agreed.compile();
    assert_eq!(texts(&compiled), "");
    let names = |name: &str| {
        let database = spec(&compiled, name).database.clone().expect("on");
        let names = |list: Vec<DatabaseNeighbour>| {
            let names = list
                .iter()
                .map(|one| format!("{} {}", one.role, one.schema));
            names.collect::<Vec<_>>()
        };
        (names(database.reads), names(database.shares_with))
    };
    let pay = vec!["shop_pay shop_pay".to_owned()];
    assert_eq!(names("shop/cart"), (pay.clone(), vec![]));
    assert_eq!(names("crm/cart"), (pay, vec![]));
    assert_eq!(names("shop/pay").1.len(), 2);
    let alone = with_env(&file(3001, "reads: [pay, far, isle, bare]"))
        .file("shop/pay", &file(3002, ""))
        .file("shop/far", &file(3003, "host: other, sharesWith: [cart]"))
        .file(
            "shop/isle",
            &file(3004, "isolation: isolated, sharesWith: [cart]"),
        )
        .file("shop/bare", "port: 3005\nauth: none\n")
        // A bare name is one of its own domain: this is another cart.
        .file("crm/pay", &file(3006, "sharesWith: [cart]"))
        .file("crm/cart", &file(3007, ""));
    insta::assert_snapshot!(alone.problems(), @r"
    services/shop/cart/service.config.yaml:3:20: database.reads[0]: `shop/pay` does not have this service in `sharesWith`, so nothing is granted
    services/shop/cart/service.config.yaml:3:25: database.reads[1]: `shop/far` is in another database
    services/shop/cart/service.config.yaml:3:30: database.reads[2]: `shop/isle` and this service cannot be joined: one is isolated
    services/shop/cart/service.config.yaml:3:36: database.reads[3]: `shop/bare` has no database, so nothing is granted
    ");
    let stranger = with_env(&file(3001, "reads: [crm/pay]"))
        .file("crm/pay", &file(3006, "sharesWith: [cart]"))
        .file("crm/cart", &file(3007, "reads: [pay]"));
    insta::assert_snapshot!(stranger.problems(), @"services/shop/cart/service.config.yaml:3:20: database.reads[0]: `crm/pay` does not have this service in `sharesWith`, so nothing is granted");
}

#[test]
fn without_an_administrative_login_the_service_logs_in_as_itself() {
    let case = one("port: 3001\nauth: none\ndatabase: {rolePassword: herring}\n")
        .env("POSTGRES_HOST", "localhost")
        .env("POSTGRES_DB", "base");
    assert_eq!(texts(&case.compile()), "");
    assert_eq!(&*database(&case).user, "shop_cart");
}
