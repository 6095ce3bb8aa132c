//! The texts people see.

use super::*;

#[test]
fn the_reader_says_where() {
    let cases = [
        "port: 3001\nauth: {strategy: jwt\n",
        "port: 3001\nport: 3002\n",
        "a: &x 1\n",
        "port: *x\n",
        "port: !!int 1\n",
        "port: 1\n---\nport: 2\n",
        "- port\n",
        "",
        "port:\n",
        "auth:\n  <<: {a: b}\n",
        "? [a]\n: b\n",
        "port: 3001\n\tauth: none\n",
    ];
    let texts: Vec<String> = cases.iter().map(|text| one(text).problems()).collect();
    insta::assert_snapshot!(texts.join("\n--\n"), @r"
    services/shop/cart/service.config.yaml:3:1: cannot be read: while parsing a flow mapping, did not find expected ',' or '}'
    --
    services/shop/cart/service.config.yaml:2:1: `port` is there twice
    --
    services/shop/cart/service.config.yaml:1:4: anchors and aliases are not supported
    hint: write the value out
    --
    services/shop/cart/service.config.yaml:1:7: cannot be read: while parsing node, found unknown anchor
    --
    services/shop/cart/service.config.yaml:1:7: tags (`!…`) are not supported
    --
    services/shop/cart/service.config.yaml:2:1: a second document begins here
    hint: one file holds one service
    --
    services/shop/cart/service.config.yaml:1:1: holds no keys at its top level
    --
    services/shop/cart/service.config.yaml: is empty
    hint: write `{}` for a service that needs nothing but the defaults
    --
    services/shop/cart/service.config.yaml:1:1: port: has no value
    hint: give it one, or take the key out
    --
    services/shop/cart/service.config.yaml:2:3: merge keys (`<<`) are not supported
    --
    services/shop/cart/service.config.yaml:1:3: a key must be a text
    --
    services/shop/cart/service.config.yaml:1:7: cannot be read: while scanning a plain scalar, found a tab
    ");
}

#[test]
fn the_shape_says_what_fits() {
    insta::assert_snapshot!(one("\
port: 99999
").problems(), @r"services/shop/cart/service.config.yaml:1:1: port: expected a whole number from 1 to 65535");
    insta::assert_snapshot!(one("\
prot: 3001
helthCheck: /health
auth:
  stategy: jwt
  jwt: {algoritms: [HS256]}
limits: {bodyBites: 1MiB}
").problems(), @r"
services/shop/cart/service.config.yaml:1:1: unknown key `prot`
hint: did you mean `port`?
services/shop/cart/service.config.yaml:2:1: unknown key `helthCheck`
hint: did you mean `healthCheck`?
services/shop/cart/service.config.yaml:4:3: auth: unknown key `stategy`
hint: did you mean `strategy`?
services/shop/cart/service.config.yaml:5:9: auth.jwt: unknown key `algoritms`
hint: did you mean `algorithms`?
services/shop/cart/service.config.yaml:6:10: limits: unknown key `bodyBites`
hint: did you mean `bodyBytes`?
");
    insta::assert_snapshot!(one("auth: {strategy: apikey}\n").problems(), @r"
    services/shop/cart/service.config.yaml:1:8: auth.strategy: `apikey` is not one of none, api-key, jwt, custom, mtls
    hint: did you mean `api-key`?
    ");
    insta::assert_snapshot!(one("auth: apikey\n").problems(), @r"
    FOLDER/services: 1 service has no `port` and gets one in order of name from 3001: another service in the tree may move it
    hint: write `port` into each file
    services/shop/cart/service.config.yaml:1:1: auth: `apikey` is not one of none, api-key, jwt, custom, mtls
    hint: did you mean `api-key`?
    ");
    insta::assert_snapshot!(one("limits: {idleTimeout: 5}\n").problems(), @r"services/shop/cart/service.config.yaml:1:10: limits.idleTimeout: expected a duration such as 300ms, 5s, 30m or 24h");
    insta::assert_snapshot!(one("port: 3001\nauth: none\nlimits: {headerCount: 10001}\n").problems(), @r"services/shop/cart/service.config.yaml:3:10: limits.headerCount: expected at most 10000");
    insta::assert_snapshot!(one("dependencies: payments\n").problems(), @r"services/shop/cart/service.config.yaml:1:1: dependencies: expected a list");
    insta::assert_snapshot!(one("auth: {jwt: {secret: [a]}}\n").problems(), @r"services/shop/cart/service.config.yaml:1:14: auth.jwt.secret: expected a text, found a list");
}

#[test]
fn everything_wrong_is_said_at_once() {
    insta::assert_snapshot!(one("\
name: basket
port: 60000
listen: everywhere
upstream: {url: 'ftp://x', tls: {cert: a.pem}, connectTimeout: 0s}
address: 'http://user@x'
dependencies: [cart, stock, billing/x, {address: 'x:1'}]
healthCheck: health
health: {path: health, degradedStatus: 700}
limits: {headerBytes: 1, inFlight: 0, idleTimeout: 0s}
upgrades: [h2c, 'a b']
tracing: {samplingRate: 2}
tls: {cert: cert.pem, clientCert: require}
").problems(), @r"
services/shop/cart/service.config.yaml:1:1: name: differs from the folder's name, which counts: `cart`
services/shop/cart/service.config.yaml:1:1: auth: no authentication: whoever reaches the port may call
hint: name a strategy, or write `auth: none` to say that it is meant
services/shop/cart/service.config.yaml:3:1: listen: expected an IP address such as 127.0.0.1 or ::, without a port
services/shop/cart/service.config.yaml:4:12: upstream.url: only http:// and https:// are spoken
services/shop/cart/service.config.yaml:4:28: upstream.tls: has no use without an https:// url
hint: write `url: https://host:port`
services/shop/cart/service.config.yaml:4:48: upstream.connectTimeout: must be above 0
services/shop/cart/service.config.yaml:5:1: address: takes no user or password
services/shop/cart/service.config.yaml:6:16: dependencies[0]: a service cannot depend on itself
services/shop/cart/service.config.yaml:6:22: dependencies[1]: no service `stock` in the tree
hint: a service outside the tree needs `address`
services/shop/cart/service.config.yaml:6:29: dependencies[2]: no service `billing/x` in the tree
hint: a service outside the tree needs `address`
services/shop/cart/service.config.yaml:6:40: dependencies[3]: needs `name`
services/shop/cart/service.config.yaml:7:1: healthCheck: expected a path, `grpc` or false
hint: a path begins with /, such as /health
services/shop/cart/service.config.yaml:8:10: health.path: expected a path such as /health, or false
services/shop/cart/service.config.yaml:8:24: health.degradedStatus: expected a status from 200 to 599
services/shop/cart/service.config.yaml:9:10: limits.headerBytes: expected a size from 1KiB to 16MiB
services/shop/cart/service.config.yaml:9:26: limits.inFlight: must be at least 1
services/shop/cart/service.config.yaml:9:39: limits.idleTimeout: must be above 0
services/shop/cart/service.config.yaml:10:12: upgrades[0]: changes of the HTTP version are never passed on
services/shop/cart/service.config.yaml:10:17: upgrades[1]: expected a token such as websocket
services/shop/cart/service.config.yaml:11:11: tracing.samplingRate: expected a number from 0 to 1
services/shop/cart/service.config.yaml:12:1: tls: needs `key`
services/shop/cart/service.config.yaml:12:7: tls.cert: the file `FOLDER/services/shop/cart/cert.pem` does not exist
hint: files are read below the service's folder and `secretsDirs`
services/shop/cart/service.config.yaml:12:23: tls.clientCert: needs `tls.clientCa`
hint: name the file with the authorities that sign client certificates
");
}

#[test]
fn authentication_is_never_half() {
    insta::assert_snapshot!(one("\
port: 3001
auth:
  strategy: jwt
  jwt:
    secret: short
    algorithms: [HS256, RS256]
    audience: []
    claims: {a: Host, b: 'x y', c: x-a, d: x-a}
  apiKey: {keys: [{id: a, key: k}]}
  rules:
    - {paths: [x, '/a*', '/**/b', '/a/../b']}
    - {strategy: none}
    - {strategy: none, anyOf: [jwt]}
    - {paths: [/a], anyOf: []}
    - {paths: [/a], allOf: [none, jwt, jwt]}
    - {paths: [/a], strategy: none, allow: {keys: [a]}}
    - {methods: []}
    - {paths: [/b], allow: {}}
").problems(), @r"
services/shop/cart/service.config.yaml:5:5: auth.jwt.secret: is shorter than 32 bytes
hint: make one with `openssl rand -base64 32`
services/shop/cart/service.config.yaml:6:25: auth.jwt.algorithms[1]: RS256 needs a public key or a key set
hint: set auth.jwt.publicKey or auth.jwt.jwks, or list HS256
services/shop/cart/service.config.yaml:7:5: auth.jwt.audience: is empty
services/shop/cart/service.config.yaml:8:14: auth.jwt.claims.a: this header cannot be set
services/shop/cart/service.config.yaml:8:23: auth.jwt.claims.b: is no header name
services/shop/cart/service.config.yaml:8:41: auth.jwt.claims.d: another claim has this header already
services/shop/cart/service.config.yaml:9:3: auth.apiKey: is not used: no strategy or rule names api-key
services/shop/cart/service.config.yaml:11:16: auth.rules[0].paths[0]: must begin with /
services/shop/cart/service.config.yaml:11:19: auth.rules[0].paths[1]: `*` stands for a whole segment
services/shop/cart/service.config.yaml:11:26: auth.rules[0].paths[2]: `**` may only stand at the end
services/shop/cart/service.config.yaml:11:35: auth.rules[0].paths[3]: must not hold `.` or `..` segments
services/shop/cart/service.config.yaml:12:7: auth.rules[1]: an exemption needs `paths`
hint: to open everything, write `strategy: none` in `auth` itself
services/shop/cart/service.config.yaml:13:7: auth.rules[2]: takes only one of `strategy`, `anyOf` and `allOf`
services/shop/cart/service.config.yaml:13:7: auth.rules[2]: an exemption needs `paths`
hint: to open everything, write `strategy: none` in `auth` itself
services/shop/cart/service.config.yaml:13:7: auth.rules[2]: is never reached: rule 1 matches every request
services/shop/cart/service.config.yaml:14:7: auth.rules[3]: is never reached: rule 1 matches every request
services/shop/cart/service.config.yaml:14:21: auth.rules[3].anyOf: is empty
hint: name at least one strategy
services/shop/cart/service.config.yaml:15:7: auth.rules[4]: is never reached: rule 1 matches every request
services/shop/cart/service.config.yaml:15:29: auth.rules[4].allOf[0]: `none` has no place in a list
hint: a rule with `strategy: none` opens single paths
services/shop/cart/service.config.yaml:15:40: auth.rules[4].allOf[2]: is there twice
services/shop/cart/service.config.yaml:16:7: auth.rules[5]: nobody is authenticated here, so nobody can be allowed or denied by name
services/shop/cart/service.config.yaml:16:7: auth.rules[5]: is never reached: rule 1 matches every request
services/shop/cart/service.config.yaml:16:52: auth.rules[5].allow.keys[0]: no key of this service has the id `a`
hint: ids are those of `auth.apiKey.keys`, and `default`
services/shop/cart/service.config.yaml:17:7: auth.rules[6]: is never reached: rule 1 matches every request
services/shop/cart/service.config.yaml:17:8: auth.rules[6].methods: is empty
services/shop/cart/service.config.yaml:18:7: auth.rules[7]: is never reached: rule 1 matches every request
services/shop/cart/service.config.yaml:18:21: auth.rules[7].allow: names nobody
hint: list `services`, `keys`, `subjects` or `claims`
");
}

#[test]
fn keys_and_names_are_never_half() {
    insta::assert_snapshot!(one("\
port: 3001
auth:
  anyOf: [api-key, custom, mtls]
  apiKey:
    keys:
      - {id: a, key: 0123456789abcdef01234567, sha256: x}
      - {id: 'a b', key: ''}
      - {id: b, sha256: zz}
      - {id: b, key: 0123456789abcdef01234567, expires: soon}
      - {id: c, key: 0123456789abcdef01234567, notBefore: 2026-02-01, expires: 2026-01-01}
      - {key: 0123456789abcdef01234567}
  mtls: {allow: ['spiffe://x', '*.a', 'dns:']}
  appToken: {header: Host}
").problems(), @r"
services/shop/cart/service.config.yaml:2:1: auth: strategy custom needs `auth.hook`
hint: set `auth.hook.url` to the service that decides
services/shop/cart/service.config.yaml:2:1: auth: strategy mtls needs `tls.clientCa`
hint: client certificates are checked on the service's own TLS port
services/shop/cart/service.config.yaml:6:9: auth.apiKey.keys[0]: needs exactly one of `sha256` and `key`
services/shop/cart/service.config.yaml:7:10: auth.apiKey.keys[1].id: expected 1 to 128 visible characters without spaces
services/shop/cart/service.config.yaml:7:21: auth.apiKey.keys[1].key: is empty
services/shop/cart/service.config.yaml:8:17: auth.apiKey.keys[2].sha256: expected 64 hexadecimal digits
hint: `outrigger key generate` prints a key and its digest
services/shop/cart/service.config.yaml:9:48: auth.apiKey.keys[3].expires: expected a time such as 2027-01-31 or 2027-01-31T12:00:00Z
services/shop/cart/service.config.yaml:10:9: auth.apiKey.keys[4]: this key is listed already
services/shop/cart/service.config.yaml:10:71: auth.apiKey.keys[4].expires: is not after `notBefore`
services/shop/cart/service.config.yaml:11:9: auth.apiKey.keys[5]: needs `id`
services/shop/cart/service.config.yaml:12:18: auth.mtls.allow[0]: expected an exact name: spiffe://trust-domain/path or dns:name
services/shop/cart/service.config.yaml:12:32: auth.mtls.allow[1]: expected an exact name: spiffe://trust-domain/path or dns:name
services/shop/cart/service.config.yaml:12:39: auth.mtls.allow[2]: expected an exact name: spiffe://trust-domain/path or dns:name
services/shop/cart/service.config.yaml:13:3: auth.appToken: needs `value`
services/shop/cart/service.config.yaml:13:14: auth.appToken.header: this header cannot be set
");
}

#[test]
fn a_policy_without_its_means_is_no_policy() {
    for text in [
        "auth: {strategy: custom, secretKey: x}",
        "auth: {strategy: custom}",
        "auth: {strategy: mtls}",
        "auth: {strategy: api-key}",
        "auth: {strategy: jwt}",
        "auth: {strategy: none, secretKey: x}",
        "auth: {secretKey: x}",
        "auth: {anyOf: [jwt, api-key], secretKey: x}",
        "auth: {jwt: {}, apiKey: {}}",
        "auth: {jwt: {jwks: {url: 'http://id.example/'}}}",
        "auth: {jwt: {jwks: {}}}",
        "auth: {jwt: {publicKey: x}}",
        "auth: {jwt: {publicKey: '-----BEGIN PRIVATE KEY-----'}}",
        "auth: {jwt: {secret: 'x', publicKey: 'y'}}",
        "auth: {hook: {url: 'ftp://x'}}",
        "auth: false",
        "auth: {strategy: jwt, anyOf: [jwt]}",
        "auth: {strategy: none, allow: {keys: [a]}}",
        "auth: {strategy: none, rules: [{paths: [/a], allow: {keys: [a]}}]}",
        "auth: {rules: [{paths: [/a], deny: {subjects: [a]}}]}",
        "auth: {hook: {url: 'http://127.0.0.1:1/', requestHeaders: [host]}}",
        "auth: {hook: {url: 'http://127.0.0.1:1/', responseHeaders: [x_api_key]}}",
        "auth: {hook: {url: 'http://127.0.0.1:1/', signIn: \"/in\\r\\nX-A: b\"}}",
        "auth: {apiKey: {keys: [{id: a, key: 0123456789abcdef01234567}, {id: b, key: 0123456789abcdef01234567}]}}",
    ] {
        let case = one(&format!("port: 3001\n{text}\n"));
        let compiled = case.compile();
        let has_error = compiled.problems.iter().any(Problem::is_error);
        assert!(has_error, "{text}\n{}", texts(&compiled));
    }
}

#[test]
fn an_open_service_is_named() {
    insta::assert_snapshot!(one("port: 3001\n").problems(), @r"
    services/shop/cart/service.config.yaml:1:1: auth: no authentication: whoever reaches the port may call
    hint: name a strategy, or write `auth: none` to say that it is meant
    ");
    assert_eq!(one("port: 3001\nauth: none\n").problems(), "");
    // An environment that says `none` says it for nobody's file.
    assert_eq!(
        one("port: 3001\n").env("AUTH_STRATEGY", "none").problems(),
        one("port: 3001\n").problems()
    );
    let required = one("port: 3001\n").env("OUTRIGGER_AUTH_REQUIRED", "true");
    insta::assert_snapshot!(required.problems(), @r"
    services/shop/cart/service.config.yaml:1:1: auth: the process requires authentication (`auth.required`)
    hint: name a strategy, or write `auth: none` to leave the service open
    ");
    let both = one("port: 3001\n")
        .env("OUTRIGGER_AUTH_REQUIRED", "true")
        .env("AUTH_STRATEGY", "none");
    assert_eq!(both.problems(), required.problems());
    let stated = one("port: 3001\nauth: none\n").env("OUTRIGGER_AUTH_REQUIRED", "true");
    assert_eq!(stated.problems(), "");
    // A caller changes its key with an overlap.
    let keys = "auth: {apiKey: {keys: [{id: a, key: 0123456789abcdef01234567}, \
                {id: a, key: abcdef0123456789abcdef01}]}}";
    assert_eq!(one(&format!("port: 3001\n{keys}\n")).problems(), "");
}

#[test]
fn weak_keys_and_other_names_are_warned_about() {
    insta::assert_snapshot!(one("\
name: basket
domain: store
port: 3001
auth: {strategy: api-key, secretKey: short}
").problems(), @r"
services/shop/cart/service.config.yaml:1:1: name: differs from the folder's name, which counts: `cart`
services/shop/cart/service.config.yaml:2:1: domain: differs from the folder's name, which counts: `shop`
services/shop/cart/service.config.yaml:4:27: auth.secretKey: is shorter than 24 characters
hint: make one with `outrigger key generate`
");
}

#[test]
fn a_quoted_or_short_form_is_the_long_one() {
    let long = one(
        "port: 3001\nupstream: {url: 8080}\nhealthCheck: {path: /h}\nauth: {strategy: none}\ntracing: {enabled: true}\n",
    );
    let short = one("port: '3001'\nupstream: 8080\nhealthCheck: /h\nauth: none\ntracing: on\n");
    assert_eq!(
        spec(&long.compile(), "shop/cart"),
        spec(&short.compile(), "shop/cart")
    );
    let json = one(
        "{\t\"port\": 3001,\n\t\"upstream\": \"8080\", \"healthCheck\": \"\\/h\", \"auth\": \"none\", \"tracing\": true}",
    );
    let mut tree = json.tree();
    tree.files[0].shown = PathBuf::from("x.json");
    let compiled = json.compiler().compile(&tree);
    assert_eq!(
        spec(&compiled, "shop/cart"),
        spec(&long.compile(), "shop/cart")
    );
}

#[test]
fn what_can_never_be_met_is_told() {
    let key = "{id: web, key: an-api-key-of-24-characters}";
    insta::assert_snapshot!(one(&format!("\
port: 3001
auth:
  apiKey: {{keys: [{key}]}}
  allow: {{keys: [wbe]}}
  rules:
    - {{paths: [/a], methods: [GTE, PROPFIND, patch], deny: {{keys: [web]}}}}
    - {{paths: [/b], allow: {{keys: [web, ops]}}}}
")).problems(), @r"
services/shop/cart/service.config.yaml:4:18: auth.allow.keys[0]: no key of this service has the id `wbe`
hint: ids are those of `auth.apiKey.keys`, and `default`
services/shop/cart/service.config.yaml:6:31: auth.rules[0].methods[0]: `GTE` is not one of HTTP's own methods
hint: did you mean `GET`?
services/shop/cart/service.config.yaml:7:41: auth.rules[1].allow.keys[1]: no key of this service has the id `ops`
hint: ids are those of `auth.apiKey.keys`, and `default`
");
    insta::assert_snapshot!(one("\
port: 3001
auth: {apiKey: {keys: [{id: web, sha256: '${file:nowhere}'}]}}
description: ${env:NOWHERE}
").problems(), @r"
services/shop/cart/service.config.yaml:2:34: auth.apiKey.keys[0].sha256: `FOLDER/services/shop/cart/nowhere` does not exist
services/shop/cart/service.config.yaml:3:1: description: `NOWHERE` is not set
hint: set it in the environment of this process
");
}
