//! Files as people write them: those of CONFIG.md and one with every key.

/// Service files that compile without a warning beyond those about secrets.
pub(crate) const SERVICES: [&str; 8] = [
    // The shortest useful files.
    "port: 3001
upstream: 8080
auth:
  apiKey:
    keys:
      - id: web
        sha256: ${file:web.sha256}
",
    "port: 3002
upstream: 8080
auth:
  jwt:
    jwks: {url: https://id.example/jwks}
    issuer: https://id.example/
    audience: orders
  rules:
    - {paths: [\"/public/**\"], strategy: none}
",
    "port: 3003
auth: none
database:
  url: ${env:DATABASE_URL}
",
    "port: 3004
auth: none
dependencies:
  - {name: payments, localPort: 4003}
  - {name: billing, address: http://billing.internal:8080, healthCheck: false}
",
    // The reference framework's.
    r#"{"name":"cart","version":"1.0.0","port":3001,"domain":"shop","description":"Users",
"dependencies":["payments"],"healthCheck":"/health",
"database":{"isolation":"isolated","migrations":true},
"auth":{"strategy":"api-key"},"tracing":{"enabled":true,"samplingRate":0.5}}
"#,
    // Rules in block style.
    "port: 3005
auth:
  strategy: jwt
  jwt:
    secret: ${env:JWT_SECRET}
    algorithms: [HS256]
  rules:
    - paths:
        - /public/**
        - /assets/*/logo
      strategy: none
      methods: [GET]
    - paths: [/admin/**]
      anyOf: [api-key, jwt]
      allow:
        keys: [ops]
  apiKey:
    keys:
      - id: ops
        key: ${env:OPS_KEY}
",
    "port: \"3006\"
auth: jwt
tracing: false
upstream: unix:/run/app.sock
healthCheck: grpc
upgrades: false
",
    EVERYTHING,
];

/// Every key of a service file.
pub(crate) const EVERYTHING: &str = "\
$schema: ../../schema.json
x-owner: {team: shop}
name: cart
domain: shop
version: 1.10
description: ${env:ABOUT:-the cart}
port: 3007
listen: 127.0.0.1
upstream:
  url: http://127.0.0.1:9000
  protocol: http1
  headerCase: title
  connectTimeout: 300ms
  responseTimeout: 30s
  bodyIdleTimeout: 5m
  poolIdleTimeout: 3s
  maxIdle: 64
address: [cart.internal:3007, \"https://cart.example\"]
dependencies:
  - payments
  - name: billing
    address: [\"https://billing.internal\", \"https://billing.example:8443\"]
    localPort: 4001
    required: true
    healthCheck: {path: /up, interval: 5s, timeout: 1s, unhealthyThreshold: 3, healthyThreshold: 2}
    timeout: 30s
    connectTimeout: 2s
    retries: 2
    breaker: {failures: 5, open: 60s}
    credential: {jwt: {secret: \"${env:JWT_SECRET}\", lifetime: 60s}}
    tls: {serverName: billing.example}
  - {name: stock, address: \"stock:80\", breaker: false, credential: {apiKey: \"${env:OPS_KEY}\"}}
healthCheck: {path: /ready, interval: 5s, timeout: 1s}
health: {path: /health, details: restricted, degradedStatus: 202, services: true}
limits:
  headerBytes: 64KiB
  headerCount: 100
  uriBytes: 16KiB
  bodyBytes: 10MiB
  inFlight: 10000
  connections: 10000
  headerTimeout: 10s
  idleTimeout: 75s
  writeStallTimeout: 60s
  upgradeIdleTimeout: 1h
  h2Streams: 128
upgrades: [websocket]
tls: {cert: cert.pem, key: key.pem, clientCa: ca.pem, clientCert: optional, minVersion: 1.3}
auth:
  anyOf: [mtls, custom, jwt, api-key]
  apiKey:
    keys:
      - {id: ops, key: \"${env:OPS_KEY}\", notBefore: 2026-01-01, expires: 2099-01-31T12:00:00Z}
      - {id: web, sha256: \"${file:web.sha256}\"}
  jwt:
    secrets: [\"${env:JWT_SECRET}\"]
    algorithms: [HS256, HS512]
    issuer: https://id.example/
    audience: [cart, shop]
    leeway: 30s
    requireExp: true
    maxLifetime: 1h
    types: [at+jwt]
    serviceNameClaim: serviceName
    claims: {tenant: x-tenant}
  hook:
    url: https://auth.internal/check?x=1
    preset: nginx
    timeout: 500ms
    failOpen: false
    requestHeaders: [cookie]
    responseHeaders: [x-user]
    signIn: https://auth.example/sign-in
    cache: 5s
    maxInFlight: 256
    tls: {ca: ca.pem}
  mtls: {allow: [\"spiffe://shop/ns/a\", \"dns:cart.shop\"]}
  rules:
    - {paths: [/public/**], methods: [GET], strategy: none}
    - {paths: [/both], allOf: [api-key, jwt], allow: {claims: {scope: [orders:write]}}}
    - {paths: [/oauth2/**], strategy: none, upstream: \"127.0.0.1:4180\"}
    - {paths: [/internal/**], deny: true}
    - {paths: [/some], deny: {subjects: [eve]}}
  allow: {services: [payments], keys: [ops]}
  preflight: authenticate
  hideCredentials: true
  appToken: {header: x-app-token, value: \"${env:OPS_KEY}\"}
tracing: {enabled: true, samplingRate: 0.1, propagate: [w3c, house, b3], trustParent: never}
database:
  isolation: shared
  migrations: true
  host: db.internal
  port: 5432
  database: shop
  user: admin
  password: ${env:POSTGRES_PASSWORD}
  max: 20
  idleTimeoutMillis: 30000
  connectionTimeoutMillis: 2000
  maxLifetime: 30m
  statementTimeout: 30s
  lockTimeout: 5s
  idleInTransactionTimeout: 60s
  required: true
  provision: auto
  schema: cart
  role: cart_role
  rolePassword: ${env:OPS_KEY}
  migrationsDir: migrations
  migrateOnReload: false
  reads: [payments]
  sharesWith: [payments]
  doorToken: ${env:OPS_KEY}
  reset: always
  tls: {mode: verify-full, ca: ca.pem}
  serviceName: cart
";

/// Every key of the process settings.
pub(crate) const PROCESS: &str = "\
servicesDir: services
listen: 0.0.0.0
workers: auto
observe: {listen: \"0.0.0.0:9909\"}
admin: {listen: \"127.0.0.1:9900\", token: \"${env:TOKEN}\"}
outbound: {listen: \"127.0.0.1:9901\", strict: true, allowOrigins: []}
sql: {listen: off, allowOrigins: [], maxRequest: 10MiB, maxResponse: 10MiB}
discovery: {address: \"{name}:{port}\", refresh: 5s}
database: {user: admin, password: \"${env:TOKEN}\", roleSecret: \"${env:TOKEN}\", rolePrefix: app_}
auth: {required: true}
tracing:
  exporter: {otlp: {endpoint: \"http://otel:4318\", headers: {x-key: \"${env:TOKEN}\"}, queue: 2048, timeout: 5s}}
  samplingRate: 0.5
accessLog: all
log: {level: debug, format: json}
trustedProxies: [10.0.0.0/8, loopback, private]
secretsDirs: [/run/secrets]
shutdown: {deadline: 25s, accept: 5s, quitEndpoint: false}
reload: {poll: 5s, quiet: 50ms, max: 200ms}
";
