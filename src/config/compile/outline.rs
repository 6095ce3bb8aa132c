//! What others need to know of a service, as far as its own file says it.

use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;

use super::connection::{self, DatabaseClaim};
use super::{dependencies, upstream};
use crate::config::address::{LooseAddress, parse_address};
use crate::config::process::Defaults;
use crate::config::raw::{RawAuth, RawService, RawStrategy, Short};
use crate::model::{Address, ProcessSettings, ServiceName, Strategy, UpstreamProtocol};

/// A service as its file shows it to others.
#[derive(Debug, Clone, PartialEq)]
pub(in crate::config) struct Outline {
    /// As named; `None` = none, or not usable.
    pub(in crate::config) port: Option<u16>,
    pub(in crate::config) listen: Option<IpAddr>,
    pub(in crate::config) addresses: Vec<LooseAddress>,
    pub(in crate::config) tls: bool,
    pub(in crate::config) protocol: UpstreamProtocol,
    /// Where its sidecar answers for health; `None` = nowhere.
    pub(in crate::config) health_path: Option<Arc<str>>,
    pub(in crate::config) accepts: Accepts,
    /// The names its database takes.
    pub(in crate::config) database: Option<DatabaseClaim>,
    /// Names to look up in the tree for it.
    pub(in crate::config) names: Vec<String>,
    /// Ports on loopback for its dependencies.
    pub(in crate::config) local_ports: Vec<(usize, u16)>,
}

/// What a caller has to show.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(in crate::config) struct Accepts {
    pub(in crate::config) strategies: Vec<Strategy>,
    pub(in crate::config) all: bool,
    /// Takes `SERVICE_API_KEY`.
    pub(in crate::config) environment_key: bool,
    /// Takes tokens signed with `SERVICE_JWT_SECRET`.
    pub(in crate::config) environment_secret: bool,
}

/// A service as a dependency of another.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::config) struct Neighbour {
    pub(in crate::config) name: ServiceName,
    /// Empty = unknown.
    pub(in crate::config) addresses: Vec<Address>,
    pub(in crate::config) protocol: UpstreamProtocol,
    pub(in crate::config) health_path: Option<Arc<str>>,
    pub(in crate::config) accepts: Accepts,
    /// The names its database takes.
    pub(in crate::config) database: Option<DatabaseClaim>,
}

impl Neighbour {
    /// A service whose file was never readable.
    pub(in crate::config) fn unknown(name: &ServiceName) -> Self {
        Self {
            name: name.clone(),
            addresses: Vec::new(),
            protocol: UpstreamProtocol::Http1,
            health_path: Some(Arc::from("/health")),
            accepts: Accepts::default(),
            database: None,
        }
    }
}

impl Outline {
    /// The outline of a file that could be read.
    pub(in crate::config) fn of(
        name: &ServiceName,
        raw: &RawService,
        defaults: &Defaults,
        only_local: bool,
    ) -> Self {
        let environment_port = defaults.framework.service_port.filter(|_| only_local);
        let health = raw.health.as_ref().and_then(|health| health.path.as_ref());
        let full_upstream = match &raw.upstream {
            Some(Short::Full(upstream)) => upstream.protocol,
            _ => None,
        };
        Self {
            port: environment_port.or(raw.port).filter(|port| *port > 0),
            listen: raw.listen.as_deref().and_then(|text| text.parse().ok()),
            addresses: raw
                .address
                .iter()
                .flat_map(|list| &list.0)
                .filter_map(|text| parse_address(text).ok())
                .collect(),
            tls: raw.tls.is_some(),
            protocol: upstream::protocol(full_upstream),
            health_path: match health {
                Some(Short::Off) => None,
                Some(Short::Text(path)) => Some(Arc::from(path.as_str())),
                _ => Some(Arc::from("/health")),
            },
            accepts: accepts(raw.auth.as_ref(), defaults),
            database: raw
                .database
                .as_ref()
                .and_then(|block| connection::claim(name, block, defaults)),
            names: dependencies::names(raw, defaults, only_local),
            local_ports: local_ports(raw),
        }
    }

    /// As a dependency of others; `port` is its public port, after the offset.
    pub(in crate::config) fn neighbour(
        &self,
        name: &ServiceName,
        port: Option<u16>,
        is_local: bool,
        settings: &ProcessSettings,
    ) -> Neighbour {
        let mut addresses: Vec<Address> = if is_local && !self.tls {
            let listen = self.listen.or(settings.listen);
            let host = listen.filter(|address| !address.is_unspecified());
            let host = host.unwrap_or(IpAddr::V4(Ipv4Addr::LOCALHOST));
            port.map(|port| Address {
                tls: false,
                host: Arc::from(host.to_string()),
                port,
            })
            .into_iter()
            .collect()
        } else if self.addresses.is_empty() {
            template(&settings.discovery.address, name, port)
                .into_iter()
                .collect()
        } else {
            self.addresses
                .iter()
                .filter_map(|address| address.with_port(port))
                .collect()
        };
        for address in &mut addresses {
            address.tls |= self.tls;
        }
        Neighbour {
            name: name.clone(),
            addresses,
            protocol: self.protocol,
            health_path: self.health_path.clone(),
            accepts: self.accepts.clone(),
            database: self.database.clone(),
        }
    }
}

/// Fills the template in; `None` when it needs a port that is not known.
fn template(template: &str, name: &ServiceName, port: Option<u16>) -> Option<Address> {
    let mut text = template
        .replace("{name}", name.name())
        .replace("{domain}", name.domain());
    if text.contains("{port}") {
        text = text.replace("{port}", &port?.to_string());
    }
    parse_address(&text).ok()?.with_port(port)
}

fn accepts(written: Option<&Short<RawAuth>>, defaults: &Defaults) -> Accepts {
    let empty = RawAuth::default();
    let (raw, short) = match written {
        Some(Short::Full(raw)) => (raw, None),
        Some(Short::Text(word)) => (&empty, RawStrategy::parse(word)),
        _ => (&empty, None),
    };
    let convert = |strategy: &RawStrategy| super::requirement::convert(*strategy);
    let blocks = [
        (raw.api_key.is_some(), Strategy::ApiKey),
        (raw.jwt.is_some(), Strategy::Jwt),
        (raw.hook.is_some(), Strategy::Custom),
        (raw.mtls.is_some(), Strategy::Mtls),
    ];
    let strategies: Vec<Strategy> = if let Some(strategy) = raw.strategy.or(short) {
        convert(&strategy).into_iter().collect()
    } else if let Some(list) = raw.any_of.as_ref().or(raw.all_of.as_ref()) {
        list.iter().filter_map(convert).collect()
    } else if let Some((_, strategy)) = blocks.iter().find(|(present, _)| *present) {
        vec![*strategy]
    } else {
        let default = defaults.framework.strategy.as_ref();
        default
            .and_then(|(_, strategy)| convert(strategy))
            .into_iter()
            .collect()
    };
    let has_default_key = raw
        .api_key
        .iter()
        .filter_map(|block| block.keys.as_ref())
        .flatten()
        .any(|key| key.id.as_deref() == Some("default"));
    Accepts {
        environment_key: strategies.contains(&Strategy::ApiKey)
            && !has_default_key
            && raw.secret_key.is_none(),
        environment_secret: strategies.contains(&Strategy::Jwt)
            && raw.secret_key.is_none()
            && raw.public_key.is_none()
            && raw.jwt.as_ref().is_none_or(|block| {
                block.secret.is_none()
                    && block.secrets.is_none()
                    && block.public_key.is_none()
                    && block.jwks.is_none()
            }),
        all: raw.all_of.is_some(),
        strategies,
    }
}

fn local_ports(raw: &RawService) -> Vec<(usize, u16)> {
    raw.dependencies
        .iter()
        .flatten()
        .enumerate()
        .filter_map(|(index, dependency)| match dependency {
            Short::Full(full) => Some((index, full.local_port?)),
            _ => None,
        })
        .collect()
}
