//! Specs and settings for tests of this room.

use std::sync::Arc;
use std::time::Duration;

use crate::config::{Environment, ProcessFlags, load_process};
use crate::model::{
    AuthPolicy, DependencySpec, HeaderCase, HealthCheckSpec, HealthSpec, Limits, ProbeSpec,
    ProcessSettings, ServiceName, ServiceSpec, UpstreamProtocol, UpstreamSpec, UpstreamTarget,
};

/// `shop/<service>`.
pub(super) fn name(service: &str) -> ServiceName {
    ServiceName::new("shop", service).expect("valid name")
}

/// The defaults.
pub(super) fn settings() -> ProcessSettings {
    let loaded = load_process(&ProcessFlags::default(), &Environment::default());
    (*loaded.expect("defaults load").settings).clone()
}

/// An open service with defaults.
pub(super) fn spec(service: &str, port: u16) -> ServiceSpec {
    ServiceSpec {
        name: name(service),
        version: None,
        description: None,
        port,
        listen: None,
        upstream: UpstreamSpec {
            target: UpstreamTarget::Loopback { port: 8080 },
            protocol: UpstreamProtocol::Http1,
            header_case: HeaderCase::Lower,
            connect_timeout: Duration::from_millis(300),
            response_timeout: Duration::from_secs(30),
            body_idle_timeout: Duration::from_secs(300),
            pool_idle_timeout: Duration::from_secs(3),
            max_idle: 64,
            tls: None,
        },
        dependencies: Vec::new(),
        health_check: HealthCheckSpec::Unset(ProbeSpec::default()),
        health: HealthSpec::default(),
        limits: Limits::default(),
        upgrades: vec![Arc::from("websocket")],
        tls: None,
        auth: AuthPolicy::open(),
        tracing: None,
        database: None,
    }
}

/// A dependency with this port of its own.
pub(super) fn dependency(local_port: u16) -> DependencySpec {
    DependencySpec {
        name: Arc::from("pay"),
        service: None,
        addresses: Vec::new(),
        local_port: Some(local_port),
        required: false,
        health_check: HealthCheckSpec::Unset(ProbeSpec::default()),
        has_sidecar: false,
        protocol: UpstreamProtocol::Http1,
        timeout: Duration::from_secs(30),
        connect_timeout: Duration::from_secs(1),
        retries: 0,
        retry_delay: Duration::from_millis(100),
        breaker: None,
        credential: None,
        tls: None,
    }
}
