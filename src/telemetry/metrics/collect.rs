//! From the cells to the exposition format. Runs on the blocking pool only.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use prometheus::core::{Collector, Desc};
use prometheus::proto;

use super::cells::{CODES, HistogramTotal, LaneCells, METHODS, Padded, RETRY_REASONS};
use super::families::{self, Family, FamilyKind};
use super::process;
use super::service::{KeySetCells, ServiceMetrics};
use super::{HealthGauge, Inner, RELOAD_RESULTS, locked};
use crate::model::Cause;

/// The one collector of the registry.
pub(super) struct AllMetrics {
    inner: Arc<Inner>,
    descriptions: Vec<Desc>,
}

impl AllMetrics {
    pub(super) fn new(inner: Arc<Inner>) -> Result<Self, prometheus::Error> {
        let descriptions = families::ALL
            .iter()
            .map(|family| {
                Desc::new(
                    family.name.to_owned(),
                    family.help.to_owned(),
                    family
                        .labels
                        .iter()
                        .map(|label| (*label).to_owned())
                        .collect(),
                    std::collections::HashMap::new(),
                )
            })
            .collect::<Result<_, _>>()?;
        Ok(Self {
            inner,
            descriptions,
        })
    }
}

impl Collector for AllMetrics {
    fn desc(&self) -> Vec<&Desc> {
        self.descriptions.iter().collect()
    }

    fn collect(&self) -> Vec<proto::MetricFamily> {
        let services = self.inner.services();
        let mut families = Vec::with_capacity(families::ALL.len());
        lanes(&services, &mut families);
        decisions(&services, &mut families);
        key_sets(&services, &mut families);
        super::tls::collect(&services, &mut families);
        super::pool::collect(&self.inner.pools(), &mut families);
        super::migrations::collect(&self.inner.migrations(), &mut families);
        self.inner.process_wide(&services, &mut families);
        process_metrics(&mut families);
        families
    }
}

/// One family being filled.
pub(super) struct Filling {
    family: &'static Family,
    metrics: Vec<proto::Metric>,
}

impl Filling {
    pub(super) fn new(family: &'static Family) -> Self {
        Self {
            family,
            metrics: Vec::new(),
        }
    }

    /// Adds a counter or gauge; `values` in the order of the family's labels.
    pub(super) fn add(&mut self, values: &[&str], value: f64) {
        let mut metric = self.labelled(values);
        if self.family.kind == FamilyKind::Counter {
            let mut counter = proto::Counter::default();
            counter.set_value(value);
            metric.set_counter(counter);
        } else {
            let mut gauge = proto::Gauge::default();
            gauge.set_value(value);
            metric.set_gauge(gauge);
        }
        self.metrics.push(metric);
    }

    pub(super) fn add_histogram(&mut self, values: &[&str], total: &HistogramTotal) {
        let buckets = total
            .buckets
            .iter()
            .map(|(bound, count)| {
                let mut bucket = proto::Bucket::default();
                bucket.set_upper_bound(*bound);
                bucket.set_cumulative_count(*count);
                bucket
            })
            .collect();
        let mut histogram = proto::Histogram::default();
        histogram.set_bucket(buckets);
        histogram.set_sample_count(total.count);
        histogram.set_sample_sum(total.sum_seconds);
        let mut metric = self.labelled(values);
        metric.set_histogram(histogram);
        self.metrics.push(metric);
    }

    fn labelled(&self, values: &[&str]) -> proto::Metric {
        debug_assert_eq!(values.len(), self.family.labels.len(), "{:?}", self.family);
        let labels = self
            .family
            .labels
            .iter()
            .zip(values)
            // An empty label is the same as none in the data model.
            .filter(|(_, value)| !value.is_empty())
            .map(|(name, value)| {
                let mut label = proto::LabelPair::default();
                label.set_name((*name).to_owned());
                label.set_value((*value).to_owned());
                label
            })
            .collect();
        proto::Metric::from_label(labels)
    }

    pub(super) fn finish(self, families: &mut Vec<proto::MetricFamily>) {
        let mut family = proto::MetricFamily::default();
        family.set_name(self.family.name.to_owned());
        family.set_help(self.family.help.to_owned());
        family.set_field_type(match self.family.kind {
            FamilyKind::Counter => proto::MetricType::COUNTER,
            FamilyKind::Gauge => proto::MetricType::GAUGE,
            FamilyKind::Histogram => proto::MetricType::HISTOGRAM,
        });
        family.set_metric(self.metrics);
        families.push(family);
    }
}

/// Requests, durations and requests in flight, per (service, direction, peer).
fn lanes(services: &[Arc<ServiceMetrics>], families: &mut Vec<proto::MetricFamily>) {
    let mut output = LaneFamilies {
        requests: Filling::new(&families::HTTP_REQUESTS),
        duration: Filling::new(&families::HTTP_REQUEST_DURATION),
        overhead: Filling::new(&families::HTTP_OVERHEAD),
        in_flight: Filling::new(&families::HTTP_REQUESTS_IN_FLIGHT),
    };
    let mut circuits = Filling::new(&families::CIRCUIT_STATE);
    for service in services {
        let codes = service.tables.codes.labels();
        let shards: Vec<&LaneCells> = service.shards.iter().map(|s| &s.0.inbound).collect();
        output.add([service.name.key(), "inbound", ""], &codes, &shards);
        let peers: Vec<_> = locked(&service.peers)
            .values()
            .filter_map(std::sync::Weak::upgrade)
            .collect();
        for peer in peers {
            if !peer.peer.is_empty() {
                let state = f64::from(peer.circuit.load().load(Ordering::Relaxed));
                circuits.add(&[service.name.key(), &peer.peer], state);
            }
            let shards: Vec<&LaneCells> = peer.shards.iter().map(|Padded(s)| s).collect();
            output.add(
                [service.name.key(), "outbound", &peer.peer],
                &codes,
                &shards,
            );
        }
    }
    let LaneFamilies {
        requests,
        duration,
        overhead,
        in_flight,
    } = output;
    for filling in [requests, duration, overhead, in_flight, circuits] {
        filling.finish(families);
    }
}

struct LaneFamilies {
    requests: Filling,
    duration: Filling,
    overhead: Filling,
    in_flight: Filling,
}

impl LaneFamilies {
    fn add(&mut self, lane: [&str; 3], codes: &[String], shards: &[&LaneCells]) {
        let mut totals = [[0_u64; CODES]; METHODS.len()];
        let mut in_flight = 0;
        for shard in shards {
            shard.add_to(&mut totals);
            in_flight += shard.in_flight.load(Ordering::Relaxed);
        }
        let [service, direction, peer] = lane;
        for (method, row) in METHODS.iter().zip(totals) {
            for (code, count) in codes.iter().zip(row).filter(|(_, count)| *count > 0) {
                self.requests
                    .add(&[service, direction, peer, method, code], count as f64);
            }
        }
        if let Some(total) = HistogramTotal::of(shards.iter().map(|s| &s.duration)) {
            self.duration.add_histogram(&lane, &total);
        }
        if let Some(total) = HistogramTotal::of(shards.iter().map(|s| &s.overhead)) {
            self.overhead.add_histogram(&lane, &total);
        }
        self.in_flight.add(&lane, in_flight as f64);
    }
}

/// Errors, retries and authentication decisions, per service.
fn decisions(services: &[Arc<ServiceMetrics>], families: &mut Vec<proto::MetricFamily>) {
    let mut errors = Filling::new(&families::PROXY_ERRORS);
    let mut retries = Filling::new(&families::RETRIES);
    let mut auth = Filling::new(&families::AUTH_DECISIONS);
    for service in services {
        let key = service.name.key();
        let shards = || service.shards.iter().map(|shard| &shard.0);
        for (index, cause) in Cause::ALL.iter().enumerate() {
            let count = sum(shards().filter_map(|shard| shard.errors.get(index)));
            if count > 0 {
                errors.add(&[key, cause.as_str()], count as f64);
            }
        }
        for (index, reason) in RETRY_REASONS.iter().enumerate() {
            let count = sum(shards().filter_map(|shard| shard.retries.get(index)));
            if count > 0 {
                retries.add(&[key, reason], count as f64);
            }
        }
        for index in 0..super::auth::KEYS {
            let count = sum(shards().filter_map(|shard| shard.auth.get()?.get(index)));
            if count > 0 {
                let decision = service.tables.auth.key(index);
                let labels = [
                    key,
                    decision.strategy,
                    decision.result.as_str(),
                    decision.reason,
                ];
                auth.add(&labels, count as f64);
            }
        }
    }
    for filling in [errors, retries, auth] {
        filling.finish(families);
    }
}

/// Of services that have had a fetch.
fn key_sets(services: &[Arc<ServiceMetrics>], families: &mut Vec<proto::MetricFamily>) {
    let mut fetches = Filling::new(&families::JWKS_FETCHES);
    let mut keys = Filling::new(&families::JWKS_KEYS);
    let mut success = Filling::new(&families::JWKS_LAST_SUCCESS);
    let load = |cell: &std::sync::atomic::AtomicU64| cell.load(Ordering::Relaxed) as f64;
    for service in services {
        let name = service.name.key();
        let KeySetCells {
            good,
            failed,
            keys: in_force,
            last_success_ms,
        } = &service.key_set;
        let (good, failed) = (load(good), load(failed));
        if good + failed > 0.0 {
            fetches.add(&[name, "good"], good);
            fetches.add(&[name, "failed"], failed);
            keys.add(&[name], load(in_force));
            success.add(&[name], load(last_success_ms) / 1e3);
        }
    }
    for filling in [fetches, keys, success] {
        filling.finish(families);
    }
}

fn sum<'a>(cells: impl Iterator<Item = &'a std::sync::atomic::AtomicU64>) -> u64 {
    cells.map(|cell| cell.load(Ordering::Relaxed)).sum()
}

impl Inner {
    /// Everything that is not counted per worker.
    fn process_wide(
        &self,
        services: &[Arc<ServiceMetrics>],
        families: &mut Vec<proto::MetricFamily>,
    ) {
        let single = |family: &'static Family, value: f64, families: &mut Vec<_>| {
            let mut filling = Filling::new(family);
            filling.add(&[], value);
            filling.finish(families);
        };
        let load = |cell: &std::sync::atomic::AtomicU64| cell.load(Ordering::Relaxed) as f64;
        single(
            &families::CONFIG_GENERATION,
            load(&self.generation),
            families,
        );
        let success = load(&self.last_success_ms) / 1e3;
        single(&families::CONFIG_LAST_SUCCESS, success, families);
        let alive = load(&self.generations_alive);
        single(&families::CONFIG_GENERATIONS_ALIVE, alive, families);
        single(
            &families::CONFIG_SERVICES_COMPILED,
            load(&self.compiled),
            families,
        );
        single(
            &families::CONFIG_SERVICES_BUILT,
            load(&self.built),
            families,
        );
        single(
            &families::LOG_LINES_DROPPED,
            load(&self.lines_dropped),
            families,
        );
        single(
            &families::SPANS_DROPPED,
            load(&self.spans_dropped),
            families,
        );

        let mut reloads = Filling::new(&families::CONFIG_RELOADS);
        for (result, count) in RELOAD_RESULTS.iter().zip(&self.reloads) {
            reloads.add(&[result], load(count));
        }
        let mut stale = Filling::new(&families::CONFIG_STALE);
        for service in services {
            let value = service.stale.load(Ordering::Relaxed);
            stale.add(&[service.name.key()], f64::from(u8::from(value)));
        }
        let mut info = Filling::new(&families::CONFIG_INFO);
        if let Some(hash) = locked(&self.hash).as_deref() {
            info.add(&[hash], 1.0);
        }
        let mut panics = Filling::new(&families::TASK_PANICS);
        for (task, count) in locked(&self.panics).iter() {
            panics.add(&[task], *count as f64);
        }
        let mut health = Filling::new(&families::HEALTH_STATUS);
        let gauges: Vec<Arc<HealthGauge>> = locked(&self.health)
            .values()
            .filter_map(std::sync::Weak::upgrade)
            .collect();
        for gauge in gauges {
            if let Some(up) = gauge.is_up() {
                let value = f64::from(u8::from(up));
                health.add(&[&gauge.target, gauge.kind.as_str()], value);
            }
        }
        let mut build = Filling::new(&families::BUILD_INFO);
        build.add(&[env!("CARGO_PKG_VERSION")], 1.0);
        for filling in [reloads, stale, info, panics, health, build] {
            filling.finish(families);
        }
    }
}

fn process_metrics(families: &mut Vec<proto::MetricFamily>) {
    let process::ProcessReading {
        cpu_seconds,
        open_fds,
        max_fds,
        virtual_bytes,
        resident_bytes,
        start_time_seconds,
        threads,
    } = process::read();
    for (family, value) in [
        (&families::PROCESS_CPU, cpu_seconds),
        (&families::PROCESS_OPEN_FDS, open_fds),
        (&families::PROCESS_MAX_FDS, max_fds),
        (&families::PROCESS_VIRTUAL_MEMORY, virtual_bytes),
        (&families::PROCESS_RESIDENT_MEMORY, resident_bytes),
        (&families::PROCESS_START_TIME, start_time_seconds),
        (&families::PROCESS_THREADS, threads),
    ] {
        if let Some(value) = value {
            let mut filling = Filling::new(family);
            filling.add(&[], value);
            filling.finish(families);
        }
    }
}
