//! `tls`, as a server and as a client.

use std::sync::Arc;

use super::context::Context;
use crate::config::raw::{RawClientCert, RawTlsClient, RawTlsServer, RawTlsVersion};
use crate::model::{TlsClientSpec, TlsServerSpec, TlsVersion};

/// Compiles `tls` of the public port.
pub(super) fn server(written: &RawTlsServer, context: &mut Context<'_>) -> Option<TlsServerSpec> {
    for (key, value) in [("cert", &written.cert), ("key", &written.key)] {
        if value.is_none() {
            context.report.error("tls", format!("needs `{key}`"));
        }
    }
    let cert = context.file("tls.cert", written.cert.as_ref());
    let key = context.file("tls.key", written.key.as_ref());
    let client_ca = context.file("tls.clientCa", written.client_ca.as_ref());
    if written.client_cert.is_some() && written.client_ca.is_none() {
        context.report.error_hint(
            "tls.clientCert",
            "needs `tls.clientCa`",
            "name the file with the authorities that sign client certificates",
        );
    }
    let digest = context.digest(&[cert.as_ref(), key.as_ref(), client_ca.as_ref()]);
    Some(TlsServerSpec {
        cert: cert?,
        key: key?,
        require_client_cert: client_ca.is_some()
            && written.client_cert != Some(RawClientCert::Optional),
        client_ca,
        min_version: match written.min_version {
            Some(RawTlsVersion::Tls13) => TlsVersion::Tls13,
            Some(RawTlsVersion::Tls12) | None => TlsVersion::Tls12,
        },
        digest,
    })
}

/// Compiles a client's `tls` block at `key`.
pub(super) fn client(
    written: &RawTlsClient,
    key: &str,
    context: &mut Context<'_>,
) -> TlsClientSpec {
    if written.cert.is_some() != written.key.is_some() {
        context.report.error(key, "`cert` and `key` go together");
    }
    if let Some(name) = &written.server_name
        && crate::config::address::parse_address(name)
            .is_ok_and(|address| address.port.is_some() || address.is_url)
    {
        context
            .report
            .error(&format!("{key}.serverName"), "expected a host name");
    }
    let ca = context.file(&format!("{key}.ca"), written.ca.as_ref());
    let cert = context.file(&format!("{key}.cert"), written.cert.as_ref());
    let private = context.file(&format!("{key}.key"), written.key.as_ref());
    TlsClientSpec {
        digest: context.digest(&[ca.as_ref(), cert.as_ref(), private.as_ref()]),
        ca,
        cert,
        key: private,
        server_name: written.server_name.as_deref().map(Arc::from),
    }
}
