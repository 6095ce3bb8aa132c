//! Dependencies whose address is a door of their own caller.

use std::net::IpAddr;

use super::context::Context;
use crate::config::raw::RawDependency;
use crate::model::{Address, DependencySpec, DoorListen, ProcessSettings};

/// Ports of this machine at which the service's app calls others.
pub(super) fn ports(list: &[RawDependency], settings: &ProcessSettings) -> Vec<u16> {
    let door = match settings.outbound.listen {
        DoorListen::At(address) => Some(address.port()),
        DoorListen::Off => None,
    };
    let local = list.iter().filter_map(|dependency| dependency.local_port);
    local.chain(door).collect()
}

/// Each call there would come back, again and again, until its timeout.
pub(super) fn refuse(spec: &DependencySpec, key: &str, ports: &[u16], context: &mut Context<'_>) {
    let is_ours = |address: &Address| {
        let ip = address.host.parse::<IpAddr>();
        let is_here = address.host.eq_ignore_ascii_case("localhost")
            || ip.is_ok_and(|ip| ip.is_loopback() || ip.is_unspecified());
        is_here && ports.contains(&address.port)
    };
    if spec.addresses.iter().any(is_ours) {
        context.report.error_hint(
            &format!("{key}.address"),
            "is a port at which this sidecar takes calls: each would come back",
            "write where the service itself is reached",
        );
    }
}
