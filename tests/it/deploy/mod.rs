//! What people deploy with: image, compose, Kubernetes, systemd, alerts. The
//! files are checked by the tools of their trade, and what they promise is tried
//! with the real binary in containers made of namespaces.

mod compose;
mod database;
mod examples;
mod jobs;
mod kubernetes;
mod lint;
mod metrics;
mod pod;
mod pods;
