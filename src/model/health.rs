//! How the health of a service is found out and shown (CONFIG.md `healthCheck`,
//! `health`).

use std::sync::Arc;
use std::time::Duration;

use http::Method;

/// `healthCheck`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum HealthCheckSpec {
    /// Not written: any answer below 500 counts as up.
    Unset(ProbeSpec),
    /// Written: needs 2xx or 3xx.
    Check(AppHealthCheck, ProbeSpec),
    /// `false`.
    Off,
}

impl HealthCheckSpec {
    /// Timing, unless off.
    pub fn probe(&self) -> Option<&ProbeSpec> {
        match self {
            Self::Unset(probe) | Self::Check(_, probe) => Some(probe),
            Self::Off => None,
        }
    }
}

/// What is asked of the app.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AppHealthCheck {
    /// GET of this path.
    Path(Arc<str>),
    /// `grpc.health.v1.Health/Check`.
    Grpc,
}

/// Timing of a monitor.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProbeSpec {
    pub interval: Duration,
    pub timeout: Duration,
    pub unhealthy_threshold: u32,
    pub healthy_threshold: u32,
}

impl Default for ProbeSpec {
    fn default() -> Self {
        Self {
            interval: Duration::from_secs(5),
            timeout: Duration::from_secs(1),
            unhealthy_threshold: 3,
            healthy_threshold: 2,
        }
    }
}

/// The sidecar's own `/health`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HealthSpec {
    /// Exact raw path; `None` = no such route.
    pub path: Option<Arc<str>>,
    pub details: HealthDetails,
    /// 200..=599, default 202.
    pub degraded_status: u16,
    /// `/health/services` on the public port too.
    pub services: bool,
}

/// A page of the public port that the sidecar answers itself, before
/// authentication.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OwnPage {
    /// The service's own.
    Health,
    /// Of all local services.
    Services,
}

impl HealthSpec {
    /// The page that a request is for, if it is for one; `path` raw.
    pub fn page(&self, method: &Method, path: &str) -> Option<OwnPage> {
        let page = if self.path.as_deref() == Some(path) {
            OwnPage::Health
        } else if self.services && path == "/health/services" {
            OwnPage::Services
        } else {
            return None;
        };
        let reads = matches!(*method, Method::GET | Method::HEAD);
        reads.then_some(page)
    }
}

impl Default for HealthSpec {
    fn default() -> Self {
        Self {
            path: Some(Arc::from("/health")),
            details: HealthDetails::Auto,
            degraded_status: 202,
            services: false,
        }
    }
}

/// Who sees checks, version and dependencies in `/health`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HealthDetails {
    /// Loopback and private peers without forwarding headers.
    Auto,
    Public,
    Restricted,
}
