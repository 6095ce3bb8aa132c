//! The files as they are written: a serde mirror of CONFIG.md, from which the
//! JSON Schemas are generated too. Nothing is checked here but shape.

mod auth;
mod database;
mod process;
mod service;
mod values;

pub(crate) use auth::{
    RawAlgorithm, RawApiKey, RawAppToken, RawAuth, RawHook, RawHookPreset, RawJwks, RawJwt,
    RawPreflight, RawRule, RawStrategy, RawWho,
};
pub(crate) use database::{
    RawDatabase, RawIsolation, RawProcessDatabase, RawProvision, RawReset, RawTlsMode,
};
pub(crate) use process::{
    RawAccessLog, RawExporterFull, RawLogFormat, RawLogLevel, RawOtlp, RawProcess,
    RawProcessTracing,
};
pub(crate) use service::{
    RawBreaker, RawClientCert, RawCredential, RawDependency, RawHeaderCase, RawHealth,
    RawHealthCheck, RawHealthDetails, RawLimits, RawPropagation, RawProtocol, RawService,
    RawTlsClient, RawTlsServer, RawTlsVersion, RawTracing, RawTrustParent, RawUpstream,
};
pub(crate) use values::{OneOrMany, RawDuration, RawSize, Short};
