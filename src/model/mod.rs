//! The vocabulary every room shares: what a service is, who may call it, what
//! can go wrong. Plain data: no serde, no I/O, no clock.

mod auth;
mod database;
mod effective;
mod failure;
mod fields;
mod health;
pub mod hex;
mod identity;
mod name;
mod origin;
mod process;
mod reason;
mod request_id;
mod service;
mod span;
mod timestamp;

pub use auth::{
    ApiKey, ApiKeyDigest, ApiKeyPolicy, AppToken, AuthPolicy, Deny, FRAMING_HEADERS, HookPolicy,
    HookPreset, JwksSource, JwtAlgorithm, JwtKeys, JwtPolicy, MtlsName, MtlsPolicy, PathGlob,
    Preflight, Requirement, Rule, Segment, Strategy, Who,
};
pub use database::{
    DatabaseIsolation, DatabaseNeighbour, DatabaseReset, DatabaseSpec, DatabaseTls, Provision,
};
pub use effective::EffectiveValue;
pub use failure::{Cause, Failure, Kind};
pub use fields::{FieldLines, Line, LineStart, Marks};
pub use health::{AppHealthCheck, HealthCheckSpec, HealthDetails, HealthSpec, OwnPage, ProbeSpec};
pub use identity::Identity;
pub use name::{InvalidName, ServiceName};
pub use origin::Origin;
pub use process::{
    AccessLog, AdminSettings, DiscoverySettings, DoorListen, LogFormat, LogLevel, OutboundSettings,
    ProcessSettings, ReloadSettings, ShutdownSettings, SpanExporter, SqlSettings, TrustedProxies,
    is_private,
};
pub use reason::AuthReason;
pub use request_id::{RequestId, is_safe_id};
pub use service::{
    Address, BreakerSpec, DependencyCredential, DependencySpec, HeaderCase, Limits, PeerSpec,
    Propagation, ServiceSpec, TlsClientSpec, TlsServerSpec, TlsVersion, TracingSpec, TrustParent,
    UpstreamProtocol, UpstreamSpec, UpstreamTarget,
};
pub use span::{SpanIds, TraceId, TraceIdText};
pub use timestamp::{rfc3339, rfc3339_string};
