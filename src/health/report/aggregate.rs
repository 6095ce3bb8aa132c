//! All services in one answer.

use serde::Serialize;

use super::{Moment, Report, ReportBody, ServiceHealth, View, json};
use crate::health::severity::Severity;
use crate::model::rfc3339_string;

/// The answer of `/health/services`.
#[derive(Debug, Clone)]
pub struct Aggregate {
    pub http_status: u16,
    body: AggregateBody,
}

#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
struct AggregateBody {
    timestamp: String,
    total_services: usize,
    healthy: usize,
    degraded: usize,
    unhealthy: usize,
    services: Vec<ReportBody>,
}

impl Aggregate {
    /// The body, `application/json`.
    pub fn json(&self) -> Vec<u8> {
        json(&self.body)
    }
}

/// All services at once: 503 if any is unhealthy or stopped, or if none was
/// checked yet; 202 if any is degraded.
pub fn aggregate<'a>(
    services: impl IntoIterator<Item = &'a ServiceHealth>,
    view: View,
    now: Moment,
) -> Aggregate {
    let mut checked = false;
    let reports: Vec<Report> = services
        .into_iter()
        .map(|service| {
            checked |= service.was_checked(now.instant);
            service.report(view, now)
        })
        .collect();
    let count = |severity| {
        reports
            .iter()
            .filter(|report| report.severity == severity)
            .count()
    };
    let (healthy, degraded) = (count(Severity::Healthy), count(Severity::Degraded));
    let unhealthy = reports.len() - healthy - degraded;
    let http_status = if unhealthy > 0 || !checked {
        503
    } else if degraded > 0 {
        202
    } else {
        200
    };
    Aggregate {
        http_status,
        body: AggregateBody {
            timestamp: rfc3339_string(now.wall),
            total_services: reports.len(),
            healthy,
            degraded,
            unhealthy,
            services: reports.into_iter().map(|report| report.body).collect(),
        },
    }
}
