//! Free ports below the range the kernel hands out by itself.

use std::net::{Ipv6Addr, SocketAddr, TcpListener};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};

const FIRST: u32 = 15_000;
const LAST: u32 = 32_000;

fn next() -> &'static AtomicU32 {
    static NEXT: OnceLock<AtomicU32> = OnceLock::new();
    NEXT.get_or_init(|| AtomicU32::new(fastrand::u32(0..LAST - FIRST)))
}

/// Whether nobody listens on the port, on any address.
pub(crate) fn is_free(port: u16) -> bool {
    let any = SocketAddr::from(([0, 0, 0, 0], port));
    let loopback = SocketAddr::from(([127, 0, 0, 1], port));
    let any_v6 = SocketAddr::from((Ipv6Addr::UNSPECIFIED, port));
    TcpListener::bind(loopback).is_ok()
        && TcpListener::bind(any).is_ok()
        && TcpListener::bind(any_v6).is_ok_and(|_| true)
}

/// A port nobody listens on and this process has not given out.
pub(crate) fn free_port() -> u16 {
    free_ports(1)[0]
}

/// `count` ports in a row.
pub(crate) fn free_ports(count: u16) -> Vec<u16> {
    for _ in 0..200 {
        let start = FIRST + next().fetch_add(u32::from(count), Ordering::Relaxed) % (LAST - FIRST);
        let Ok(start) = u16::try_from(start) else {
            continue;
        };
        let ports: Vec<u16> = (start..start + count).collect();
        if ports.iter().all(|port| is_free(*port)) {
            return ports;
        }
    }
    panic!("no {count} free ports in a row between {FIRST} and {LAST}");
}
