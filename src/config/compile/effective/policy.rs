//! Effective values of authentication, dependencies and the database.

use crate::model::{Deny, Rule, Who};

use super::{
    AuthPolicy, DatabaseIsolation, DatabaseSpec, DatabaseTls, DependencyCredential, DependencySpec,
    JwksSource, JwtKeys, JwtPolicy, List, Provision, Requirement, show,
};

fn names(list: &[crate::model::Strategy]) -> String {
    let names: Vec<&str> = list.iter().map(|one| one.as_str()).collect();
    names.join(", ")
}

/// Whom a list names, on one line.
fn who(list: &Who) -> String {
    let Who {
        services,
        keys,
        subjects,
        claims,
    } = list;
    let claims = claims
        .iter()
        .map(|(claim, values)| (format!("claim {claim}"), values));
    [
        ("services", services),
        ("keys", keys),
        ("subjects", subjects),
    ]
    .into_iter()
    .filter(|(_, values)| !values.is_empty())
    .map(|(what, values)| (what.to_owned(), values))
    .chain(claims)
    .map(|(what, values)| format!("{what}: {}", values.join(", ")))
    .collect::<Vec<_>>()
    .join("; ")
}

impl List<'_> {
    pub(super) fn auth(&mut self, policy: &AuthPolicy) {
        let default = self.defaults.framework.strategy.as_ref();
        let named = default.map(|(name, _)| *name);
        let variable = named.filter(|_| policy.explicit);
        match &policy.requirement {
            Requirement::None => self.add_from("auth.strategy", "none", named),
            Requirement::AnyOf(list) if list.len() == 1 => {
                self.add_from("auth.strategy", names(list), variable);
            }
            Requirement::AnyOf(list) => self.add("auth.anyOf", names(list)),
            Requirement::AllOf(list) => self.add("auth.allOf", names(list)),
        }
        if let Some(api_key) = &policy.api_key {
            for (index, key) in api_key.keys.iter().enumerate() {
                let name = format!("auth.apiKey.keys[{index}]");
                self.add(&format!("{name}.id"), &key.id);
                let is_written = self.places.has(&name);
                let variable = (!is_written).then_some("SERVICE_API_KEY");
                self.add_secret(&format!("{name}.sha256"), variable);
            }
        }
        if let Some(jwt) = &policy.jwt {
            self.jwt(jwt);
        }
        if let Some(hook) = &policy.hook {
            self.add("auth.hook.url", &hook.url);
            self.add_time("auth.hook.timeout", hook.timeout);
            self.add("auth.hook.failOpen", hook.fail_open);
            self.add_time("auth.hook.cache", hook.cache);
            self.add("auth.hook.maxInFlight", hook.max_in_flight);
        }
        if let Some(mtls) = &policy.mtls {
            let names: Vec<String> = mtls.allow.iter().map(mtls_name).collect();
            self.add("auth.mtls.allow", names.join(", "));
        }
        for (index, rule) in policy.rules.iter().enumerate() {
            self.rule(&format!("auth.rules[{index}]"), rule);
        }
        if let Some(allow) = &policy.allow {
            self.add("auth.allow", who(allow));
        }
        self.add("auth.hideCredentials", policy.hide_credentials);
        let preflight = match policy.preflight {
            crate::model::Preflight::Forward => "forward",
            crate::model::Preflight::Authenticate => "authenticate",
        };
        self.add("auth.preflight", preflight);
        if let Some(token) = &policy.app_token {
            self.add("auth.appToken.header", &token.header);
            self.add_secret("auth.appToken.value", None);
        }
    }

    fn rule(&mut self, key: &str, rule: &Rule) {
        let paths: Vec<&str> = rule.paths.iter().map(|glob| &*glob.text).collect();
        let paths = if paths.is_empty() {
            "every path".to_owned()
        } else {
            paths.join(", ")
        };
        let requirement = match &rule.requirement {
            None => "as the service".to_owned(),
            Some(Requirement::None) => "none".to_owned(),
            Some(Requirement::AnyOf(list)) => names(list),
            Some(Requirement::AllOf(list)) => format!("all of {}", names(list)),
        };
        self.add(&format!("{key}.paths"), paths);
        self.add(&format!("{key}.strategy"), requirement);
        if !rule.methods.is_empty() {
            self.add(&format!("{key}.methods"), rule.methods.join(", "));
        }
        if let Some(allow) = &rule.allow {
            self.add(&format!("{key}.allow"), who(allow));
        }
        match &rule.deny {
            Deny::Nobody => {}
            Deny::Everyone => self.add(&format!("{key}.deny"), "everyone"),
            Deny::Who(list) => self.add(&format!("{key}.deny"), who(list)),
        }
    }

    fn jwt(&mut self, jwt: &JwtPolicy) {
        match &jwt.keys {
            JwtKeys::Secrets(_) => {
                let is_written = self.places.has("auth.jwt.secret")
                    || self.places.has("auth.jwt.secrets")
                    || self.places.has("auth.secretKey");
                let variable = (!is_written).then_some("SERVICE_JWT_SECRET");
                self.add_secret("auth.jwt.secret", variable);
            }
            JwtKeys::PublicKey(_) => self.add("auth.jwt.publicKey", "a PEM key"),
            JwtKeys::Jwks(JwksSource::Url { url, .. }) => self.add("auth.jwt.jwks.url", url),
            JwtKeys::Jwks(JwksSource::File { path, .. }) => {
                self.add("auth.jwt.jwks.file", path.display());
            }
        }
        let algorithms: Vec<&str> = jwt.algorithms.iter().map(|one| one.as_str()).collect();
        self.add("auth.jwt.algorithms", algorithms.join(", "));
        if let Some(issuer) = &jwt.issuer {
            self.add("auth.jwt.issuer", issuer);
        }
        if !jwt.audience.is_empty() {
            self.add("auth.jwt.audience", jwt.audience.join(", "));
        }
        for (claim, header) in &jwt.claims {
            self.add(&format!("auth.jwt.claims.{claim}"), header);
        }
        self.add_time("auth.jwt.leeway", jwt.leeway);
        self.add("auth.jwt.requireExp", jwt.require_exp);
    }

    pub(super) fn dependency(&mut self, index: usize, dependency: &DependencySpec) {
        let key = format!("dependencies[{index}]");
        let call = &self.defaults.framework.call;
        let timeout_from = call.timeout.map(|_| "SERVICE_CALL_TIMEOUT");
        let retries_from = call.retries.map(|_| "SERVICE_CALL_RETRIES");
        let is_written = self.places.has(&key);
        let named_by = (!is_written).then_some("SERVICE_DEPENDENCIES");
        let is_hidden = !self.places.has_below(&key) && self.places.is_resolved(&key);
        let name = if is_hidden {
            super::MASK
        } else {
            &dependency.name
        };
        self.add_from(&format!("{key}.name"), name, named_by);
        let addresses: Vec<String> = dependency
            .addresses
            .iter()
            .map(ToString::to_string)
            .collect();
        self.add(&format!("{key}.address"), addresses.join(", "));
        if let Some(port) = dependency.local_port {
            self.add(&format!("{key}.localPort"), port);
        }
        self.add(&format!("{key}.required"), dependency.required);
        self.over(
            &format!("{key}.timeout"),
            show(dependency.timeout),
            timeout_from,
        );
        self.add_time(&format!("{key}.connectTimeout"), dependency.connect_timeout);
        self.over(&format!("{key}.retries"), dependency.retries, retries_from);
        match &dependency.breaker {
            None => {
                let switch = call.breaker_enabled.map(|_| "CIRCUIT_BREAKER_ENABLED");
                self.over(&format!("{key}.breaker"), "off", switch);
            }
            Some(breaker) => {
                let failures = call.breaker_threshold.map(|_| "CIRCUIT_BREAKER_THRESHOLD");
                let open = call.breaker_timeout.map(|_| "CIRCUIT_BREAKER_TIMEOUT");
                let of = |name: &str| format!("{key}.breaker.{name}");
                self.over(&of("failures"), breaker.failures, failures);
                self.over(&of("open"), show(breaker.open), open);
            }
        }
        let own = self.places.has(&format!("{key}.credential"));
        match &dependency.credential {
            None => {}
            Some(DependencyCredential::ApiKey(_)) => self.add_secret(
                &format!("{key}.credential.apiKey"),
                (!own).then_some("SERVICE_API_KEY"),
            ),
            Some(DependencyCredential::Jwt { lifetime, .. }) => {
                self.add_secret(
                    &format!("{key}.credential.jwt.secret"),
                    (!own).then_some("SERVICE_JWT_SECRET"),
                );
                self.add_time(&format!("{key}.credential.jwt.lifetime"), *lifetime);
            }
        }
    }

    pub(super) fn database(&mut self, database: &DatabaseSpec) {
        let env = &self.defaults.framework.database;
        let url = env.url.as_ref().map(|_| "DATABASE_URL");
        let isolation_from = env.isolation.map(|_| "DATABASE_ISOLATION");
        let port_from = url.or(env.port.as_ref().map(|(name, _)| *name));
        let host_from = url.or(env.host.as_ref().map(|(name, _)| *name));
        let user_from = url.or(env.user.as_ref().map(|(name, _)| *name));
        let database_from = url.or(env.database.as_ref().map(|(name, _)| *name));
        let password_from = url.or(env.password.as_ref().map(|(name, _)| *name));
        let isolation = match database.isolation {
            DatabaseIsolation::Shared => "shared",
            DatabaseIsolation::Isolated => "isolated",
        };
        self.add_from("database.isolation", isolation, isolation_from);
        self.add("database.migrations", database.migrations);
        // The parts of a URL are as secret as the reference it came from.
        let below = self.defaults.places.is_resolved("database.url");
        let own = self.places.exact("database.url").is_some();
        let is_hidden = self.places.is_resolved("database.url") || (below && !own && url.is_none());
        let shown = |text: &str| {
            if is_hidden {
                super::MASK.to_owned()
            } else {
                text.to_owned()
            }
        };
        let login = [
            ("database.host", shown(&database.host), host_from),
            ("database.user", shown(&database.user), user_from),
            (
                "database.database",
                shown(&database.database),
                database_from,
            ),
        ];
        for (key, value, variable) in login {
            self.add_from(key, value, variable);
        }
        self.add_from("database.port", database.port, port_from);
        if database.password.is_some() {
            self.add_secret("database.password", password_from);
        }
        self.add("database.schema", &database.schema);
        self.add("database.role", &database.role);
        self.add("database.max", database.max);
        self.add_time("database.idleTimeoutMillis", database.idle_timeout);
        self.add_time(
            "database.connectionTimeoutMillis",
            database.connection_timeout,
        );
        self.add_time("database.maxLifetime", database.max_lifetime);
        self.add_time("database.statementTimeout", database.statement_timeout);
        self.add("database.required", database.required);
        let provision = match database.provision {
            Provision::Auto => "auto",
            Provision::Always => "true",
            Provision::Never => "false",
        };
        self.add("database.provision", provision);
        self.add("database.migrationsDir", database.migrations_dir.display());
        let tls = match &database.tls {
            DatabaseTls::Disable => "disable",
            DatabaseTls::Require { .. } => "require",
            DatabaseTls::VerifyFull { .. } => "verify-full",
        };
        self.add("database.tls.mode", tls);
    }
}

fn mtls_name(name: &crate::model::MtlsName) -> String {
    match name {
        crate::model::MtlsName::Spiffe(name) => name.to_string(),
        crate::model::MtlsName::Dns(name) => format!("dns:{name}"),
    }
}
