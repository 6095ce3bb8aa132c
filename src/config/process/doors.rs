//! The process's own doors: where they listen, and who that exposes them to.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;

use crate::config::address::parse_door;
use crate::config::raw::{OneOrMany, RawProcess, RawSize};
use crate::config::report::Report;
use crate::model::{AdminSettings, DoorListen, OutboundSettings, ProcessSettings, SqlSettings};

/// The address of a door, by default on its standard port.
pub(super) fn door(
    written: Option<&str>,
    (key, default, port): (&str, Ipv4Addr, u16),
    report: &mut Report,
) -> DoorListen {
    let default = IpAddr::V4(default);
    let standard = DoorListen::At(SocketAddr::new(default, port));
    let Some(text) = written else {
        return standard;
    };
    parse_door(text, default).unwrap_or_else(|message| {
        report.error(key, message);
        standard
    })
}

/// Whether others than this machine can reach a door.
fn is_exposed(door: DoorListen) -> bool {
    matches!(door, DoorListen::At(address) if !address.ip().is_loopback())
}

/// Says which doors would be in each other's way.
pub(super) fn clashes(settings: &ProcessSettings, report: &mut Report) {
    let doors = [
        ("observe.listen", settings.observe),
        ("admin.listen", settings.admin.listen),
        ("outbound.listen", settings.outbound.listen),
        ("sql.listen", settings.sql.listen),
    ];
    for (index, (key, door)) in doors.iter().enumerate() {
        let mut before = doors.iter().take(index);
        let Some((taken, _)) = before.find(|(_, other)| overlap(*door, *other)) else {
            continue;
        };
        let message = format!("is the port of `{taken}`");
        let hint = "give each door a port of its own, or close one with `off`";
        // The other two are opened only where a service needs them.
        match *key {
            "admin.listen" => report.error_hint(key, message, hint),
            _ => report.warn_hint(key, message, hint),
        }
    }
}

/// Whether two doors cannot be open at once. Port 0 is any free one.
fn overlap(one: DoorListen, other: DoorListen) -> bool {
    let (DoorListen::At(one), DoorListen::At(other)) = (one, other) else {
        return false;
    };
    let (ip, other_ip) = (one.ip(), other.ip());
    one.port() == other.port()
        && one.port() != 0
        && (ip == other_ip || ip.is_unspecified() || other_ip.is_unspecified())
}

/// `admin`.
pub(super) fn admin(raw: &RawProcess, report: &mut Report) -> AdminSettings {
    let written = raw.admin.as_ref();
    let listen = door(
        written.and_then(|door| door.listen.as_deref()),
        ("admin.listen", Ipv4Addr::LOCALHOST, 9900),
        report,
    );
    let token = written
        .and_then(|door| door.token.as_ref())
        .map(|token| token.0.clone());
    if let Some(token) = &token
        && token.len() < 16
    {
        report.error("admin.token", "is shorter than 16 characters");
    }
    if is_exposed(listen) && token.is_none() {
        report.error_hint(
            "admin.listen",
            "another address than loopback needs `admin.token`",
            "set `admin.token` (or `OUTRIGGER_ADMIN_TOKEN`), or listen on 127.0.0.1",
        );
    }
    AdminSettings { listen, token }
}

/// `outbound`.
pub(super) fn outbound(raw: &RawProcess, report: &mut Report) -> OutboundSettings {
    let written = raw.outbound.as_ref();
    let listen = door(
        written.and_then(|door| door.listen.as_deref()),
        ("outbound.listen", Ipv4Addr::LOCALHOST, 9901),
        report,
    );
    if is_exposed(listen) {
        report.warn(
            "outbound.listen",
            "whoever reaches this address can call other services in the name of yours",
        );
    }
    OutboundSettings {
        listen,
        strict: written.and_then(|door| door.strict).unwrap_or(true),
        allow_origins: texts(written.and_then(|door| door.allow_origins.as_ref())),
    }
}

/// `sql`.
pub(super) fn sql(raw: &RawProcess, report: &mut Report) -> SqlSettings {
    let written = raw.sql.as_ref();
    let listen = door(
        written.and_then(|door| door.listen.as_deref()),
        ("sql.listen", Ipv4Addr::LOCALHOST, 9902),
        report,
    );
    if is_exposed(listen) {
        report.warn_hint(
            "sql.listen",
            "whoever reaches this address can ask the databases of services",
            "give each service a `database.doorToken`, or listen on 127.0.0.1",
        );
    }
    let mut size = |key: &str, written: Option<RawSize>| match written {
        None => 10 << 20,
        Some(RawSize(Some(bytes))) if bytes > 0 => bytes,
        Some(_) => {
            report.error(key, "expected a size above 0");
            10 << 20
        }
    };
    SqlSettings {
        max_request_bytes: size("sql.maxRequest", written.and_then(|door| door.max_request)),
        max_response_bytes: size(
            "sql.maxResponse",
            written.and_then(|door| door.max_response),
        ),
        listen,
        allow_origins: texts(written.and_then(|door| door.allow_origins.as_ref())),
    }
}

fn texts(written: Option<&OneOrMany>) -> Vec<Arc<str>> {
    written
        .map(|list| list.0.iter().map(|text| Arc::from(text.as_str())).collect())
        .unwrap_or_default()
}
