//! A setting as it is in force, for `explain` and the admin port.

/// One effective value of a service, already redacted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EffectiveValue {
    /// Dotted key path such as `auth.strategy`.
    pub key: String,
    /// As a person would write it; `***` where the value is or holds a secret.
    pub value: String,
    /// `services/…/service.config.yaml:3:7`, `env DATABASE_URL`,
    /// `config/outrigger.yaml:4:3`, `flag --port-offset`, `default`.
    pub origin: String,
}
