//! Local services, peers, dependencies and ports.

use super::*;
use crate::model::{DependencyCredential, UpstreamTarget};

fn peers(case: &Case) -> Vec<String> {
    case.compile()
        .services
        .iter()
        .filter(|(_, compiled)| matches!(compiled, Compiled::Peer(_)))
        .map(|(name, _)| name.to_string())
        .collect()
}

fn three() -> Case {
    Case::new()
        .file("shop/users", "port: 3001\nauth: none\n")
        .file(
            "shop/orders",
            "port: 3002\nauth: none\ndependencies: [users]\n",
        )
        .file("bank/orders", "port: 3003\nauth: none\n")
}

#[test]
fn the_listed_services_are_local() {
    assert_eq!(peers(&three()), [""; 0]);
    let all_but_users = ["bank/orders", "shop/orders"];
    assert_eq!(peers(&three().env("SERVICES", "users")), all_but_users);
    assert_eq!(
        peers(&three().env("SERVICE_NAME", "shop/users")),
        all_but_users
    );
    let both = three()
        .env("SERVICES", "users,orders")
        .env("SERVICE_NAME", "users");
    assert_eq!(peers(&both), all_but_users);
    let mut flag = three().env("SERVICE_NAME", "orders");
    flag.flags.service = vec!["users".to_owned()];
    assert_eq!(peers(&flag), all_but_users);
    assert_eq!(peers(&three().env("MICROSERVICES", "false")).len(), 3);
    insta::assert_snapshot!(three().env("SERVICES", "user,orders").problems(), @r"
    SERVICES: no service `user` in FOLDER/services
    hint: did you mean `users`?
    SERVICES: several services are called `orders`
    hint: write `bank/orders`
    ");
}

#[test]
fn ports_are_given_in_order_while_all_are_local() {
    let case = Case::new()
        .file("a/a", "auth: none\n")
        .file("a/b", "auth: none\nport: 3002\n")
        .file("a/c", "auth: none\n");
    let compiled = case.compile();
    assert_eq!(spec(&compiled, "a/a").port, 3001);
    assert_eq!(spec(&compiled, "a/c").port, 3003);
    assert_eq!(
        spec(&compiled, "a/c").upstream.target,
        UpstreamTarget::Loopback { port: 13_003 }
    );
    insta::assert_snapshot!(texts(&compiled).replace(&*case.folder.path().to_string_lossy(), "FOLDER"), @r"
    FOLDER/services: 2 services have no `port` and get one in order of name from 3001: another service in the tree may move it
    hint: write `port` into each file
    ");
    let one_local = Case::new()
        .file("a/a", "auth: none\n")
        .file("a/b", "auth: none\nport: 3002\n")
        .env("SERVICES", "a");
    insta::assert_snapshot!(one_local.problems(), @r"
    services/a/a/service.config.yaml:1:1: port: is missing, and cannot be given while some services are fronted elsewhere
    hint: write the port that the other sidecars use for this service
    ");
}

#[test]
fn a_bad_port_gets_none_and_moves_nobody() {
    for bad in ["0", "abc", "70000", "[1]", "${env:NOWHERE}"] {
        let case = Case::new()
            .file("shop/a", &format!("port: {bad}\nauth: none\n"))
            .file("shop/b", "auth: none\n")
            .file("shop/c", "auth: none\n");
        let compilation = case.compile();
        assert_eq!(spec(&compilation, "shop/b").port, 3001, "{bad}");
        assert_eq!(spec(&compilation, "shop/c").port, 3002, "{bad}");
        let name = ServiceName::new("shop", "a").expect("name");
        match compilation.services.get(&name) {
            Some(Compiled::Local(LocalService {
                spec: Err(invalid), ..
            })) => assert_eq!(invalid.port, None, "{bad}"),
            other => panic!("{bad}: {other:?}"),
        }
    }
}

#[test]
fn the_offset_moves_public_ports_only() {
    let mut case = three();
    case.flags.port_offset = 20_000;
    let compiled = case.compile();
    let orders = spec(&compiled, "shop/orders");
    assert_eq!(orders.port, 23_002);
    assert_eq!(
        orders.upstream.target,
        UpstreamTarget::Loopback { port: 13_002 }
    );
    assert_eq!(orders.dependencies[0].addresses[0].port, 23_001);
}

#[test]
fn variables_mean_the_only_local_service() {
    let case = three()
        .env("SERVICE_NAME", "users")
        .env("SERVICE_PORT", "4001")
        .env("SERVICE_DEPENDENCIES", "bank/orders");
    let compiled = case.compile();
    let users = spec(&compiled, "shop/users");
    assert_eq!((users.port, users.dependencies.len()), (4001, 1));
    insta::assert_snapshot!(three().env("SERVICE_PORT", "4001").problems(), @r"
    SERVICE_PORT: is ignored: it means one service, and 3 are fronted here
    hint: set SERVICE_NAME to the one that is meant
    ");
    let linked = three()
        .env("SERVICE_NAME", "users")
        .env("SERVICE_PORT", "tcp://1.2.3.4:80");
    assert_eq!(spec(&linked.compile(), "shop/users").port, 3001);
}

#[test]
fn dependencies_find_their_addresses() {
    let address = |case: &Case| {
        let compiled = case.compile();
        let users = spec(&compiled, "shop/users");
        let texts: Vec<String> = users.dependencies[0]
            .addresses
            .iter()
            .map(ToString::to_string)
            .collect();
        texts.join(" ")
    };
    let with = |peer: &str| {
        Case::new()
            .file(
                "shop/users",
                "port: 3001\nauth: none\ndependencies: [pay]\n",
            )
            .file("shop/pay", peer)
            .env("SERVICES", "users")
    };
    assert_eq!(address(&with("port: 3005\n")), "http://127.0.0.1:3005");
    assert_eq!(
        address(&with("port: 3005\naddress: pay.internal\n")),
        "http://pay.internal:3005"
    );
    assert_eq!(
        address(&with("address: ['https://a.example', 'b:1']\n")),
        "https://a.example:443 http://b:1"
    );
    assert_eq!(
        address(&with("port: 3005\ntls: {cert: /none, key: /none}\n")),
        "https://127.0.0.1:3005"
    );
    let template =
        with("port: 3005\n").env("OUTRIGGER_DISCOVERY_ADDRESS", "{name}.{domain}.svc:{port}");
    assert_eq!(address(&template), "http://pay.shop.svc:3005");
    insta::assert_snapshot!(with("version: 1\n").problems(), @r"
    services/shop/users/service.config.yaml:3:16: dependencies[0]: unknown address
    hint: give the service a `port` in its own file, or set `address` here
    ");
}

#[test]
fn names_are_of_the_own_domain_first_and_else_unique() {
    let case = |name: &str| {
        let compiled = three()
            .file(
                "hub/gate",
                &format!("port: 3004\nauth: none\ndependencies: [{name}]\n"),
            )
            .compile();
        match compiled
            .services
            .get(&ServiceName::new("hub", "gate").expect("name"))
        {
            Some(Compiled::Local(LocalService { spec: Ok(spec), .. })) => spec.dependencies[0]
                .service
                .as_ref()
                .expect("known")
                .to_string(),
            _ => texts(&compiled),
        }
    };
    assert_eq!(case("users"), "shop/users");
    assert_eq!(case("bank/orders"), "bank/orders");
    insta::assert_snapshot!(case("orders"), @r"
    services/hub/gate/service.config.yaml:3:16: dependencies[0]: several services are called `orders`
    hint: write `bank/orders` or `shop/orders`
    ");
    insta::assert_snapshot!(case("uesrs"), @r"
    services/hub/gate/service.config.yaml:3:16: dependencies[0]: no service `uesrs` in the tree
    hint: did you mean `shop/users`?
    ");
    insta::assert_snapshot!(case("bank/users"), @r"
    services/hub/gate/service.config.yaml:3:16: dependencies[0]: no service `bank/users` in the tree
    hint: did you mean `shop/users`?
    ");
    insta::assert_snapshot!(case("gate"), @r"services/hub/gate/service.config.yaml:3:16: dependencies[0]: a service cannot depend on itself");
}

#[test]
fn of_a_peer_only_the_listed_keys_are_read() {
    let case = Case::new()
        .file(
            "shop/users",
            "port: 3001\nauth: none\ndependencies: [pay]\n",
        )
        .file(
            "shop/pay",
            "port: 3005\nversion: 3\nlimits: nonsense\nfuture: true\n\
             upstream: {url: 1, protocol: h2c, later: 1}\n\
             auth: {jwt: {secret: '${env:NOT_HERE}'}}\n",
        )
        .env("SERVICES", "users")
        .env("SERVICE_JWT_SECRET", "s3cret-s3cret-s3cret-s3cret-s3cret");
    let compiled = case.compile();
    insta::assert_snapshot!(texts(&compiled), @r"
    services/shop/users/service.config.yaml:3:16: dependencies[0]: `pay` asks for jwt, but no credential is set
    hint: set `credential`, unless the app sends its own
    ");
    let Some(Compiled::Peer(pay)) = compiled
        .services
        .get(&ServiceName::new("shop", "pay").expect("name"))
    else {
        panic!("{compiled:?}");
    };
    assert_eq!(pay.version.as_deref(), Some("3"));
    assert!(pay.auth.is_some());
}

#[test]
fn shared_secrets_become_credentials() {
    let case = Case::new()
        .file(
            "shop/users",
            "port: 3001\nauth: none\ndependencies: [keyed, signed, own]\n",
        )
        .file("shop/keyed", "port: 3005\nauth: api-key\n")
        .file("shop/signed", "port: 3006\nauth: jwt\n")
        .file(
            "shop/own",
            "port: 3007\nauth: {strategy: api-key, secretKey: '0123456789abcdef01234567'}\n",
        )
        .env("SERVICE_API_KEY", "k3y-k3y-k3y-k3y-k3y-k3y-k3y")
        .env("SERVICE_JWT_SECRET", "s3cret-s3cret-s3cret-s3cret-s3cret");
    let compiled = case.compile();
    insta::assert_snapshot!(texts(&compiled), @r"
    services/shop/users/service.config.yaml:3:31: dependencies[2]: `own` asks for api-key, but no credential is set
    hint: set `credential`, unless the app sends its own
    ");
    let users = spec(&compiled, "shop/users");
    let credentials: Vec<_> = users
        .dependencies
        .iter()
        .map(|one| &one.credential)
        .collect();
    assert!(matches!(
        credentials.as_slice(),
        [
            Some(DependencyCredential::ApiKey(_)),
            Some(DependencyCredential::Jwt { .. }),
            None
        ]
    ));
}

#[test]
fn no_address_leads_back_to_the_caller() {
    let calling = |address: &str| {
        let text = format!(
            "port: 3001\nauth: none\ndependencies: [{{name: pay, address: '{address}', localPort: 4001}}, \
             {{name: mail, address: 'mail:25', localPort: 4002}}]\n"
        );
        Case::new().file("shop/users", &text).problems()
    };
    for address in [
        "127.0.0.1:4001",
        "http://localhost:4001",
        "[::1]:4002",
        "0.0.0.0:4001",
        "127.0.0.1:9901",
    ] {
        let problems = calling(address);
        assert!(
            problems.contains("dependencies[0].address: is a port at which"),
            "{address}: {problems}"
        );
    }
    for address in ["pay:4001", "127.0.0.1:4003", "10.0.0.1:4001"] {
        assert_eq!(calling(address), "", "{address}");
    }
}
