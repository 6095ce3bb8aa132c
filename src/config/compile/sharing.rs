//! `database.reads` and `database.sharesWith`: what one service sees of
//! another's tables takes both of them to say so.

use std::sync::Arc;

use super::connection::DatabaseClaim;
use super::context::{Context, Resolution};
use super::outline::Neighbour;
use crate::config::raw::OneOrMany;
use crate::model::{DatabaseNeighbour, ServiceName};

/// One of the two lists.
#[derive(Debug, Clone, Copy)]
pub(super) struct List<'a> {
    pub(super) key: &'static str,
    /// What the other side must have us in.
    pub(super) counterpart: &'static str,
    pub(super) written: Option<&'a OneOrMany>,
    /// Index of its first name among the names looked up in the tree.
    pub(super) first: usize,
}

impl List<'_> {
    fn names_in(self, claim: &DatabaseClaim) -> &[String] {
        match self.counterpart {
            "sharesWith" => &claim.shares_with,
            _ => &claim.reads,
        }
    }
}

/// The services that agreed, by their names in the cluster.
pub(super) fn neighbours(
    list: List<'_>,
    own: Option<&DatabaseClaim>,
    context: &mut Context<'_>,
) -> Vec<DatabaseNeighbour> {
    let mut found = Vec::new();
    for (index, name) in list.written.iter().flat_map(|list| &list.0).enumerate() {
        let key = format!("database.{}[{index}]", list.key);
        let shown = context.report.shown(&key, name);
        match context.resolutions.get(list.first + index) {
            Some(Resolution::Known(neighbour)) if neighbour.name == *context.name => {
                context.report.error(&key, "is the service itself");
            }
            Some(Resolution::Known(neighbour)) => {
                let neighbour = Arc::clone(neighbour);
                found.extend(agreed(list, &key, own, &neighbour, context));
            }
            Some(Resolution::Ambiguous(_)) => context.report.error_hint(
                &key,
                format!("several services are called {shown}"),
                "write domain/name",
            ),
            Some(Resolution::Unknown(Some(likely))) => context.report.error_hint(
                &key,
                format!("no service {shown} in the tree"),
                format!("did you mean `{likely}`?"),
            ),
            Some(Resolution::Unknown(None)) | None => context
                .report
                .error(&key, format!("no service {shown} in the tree")),
        }
    }
    found
}

/// The neighbour, if it says the same of us and a join is possible.
fn agreed(
    list: List<'_>,
    key: &str,
    own: Option<&DatabaseClaim>,
    neighbour: &Neighbour,
    context: &mut Context<'_>,
) -> Option<DatabaseNeighbour> {
    let own = own?;
    let name = &neighbour.name;
    // Whoever shares with somebody who cannot read or does not loses nothing.
    let is_told = list.key == "reads";
    let Some(claim) = &neighbour.database else {
        if is_told {
            let message = format!("`{name}` has no database, so nothing is granted");
            context.report.warn(key, message);
        }
        return None;
    };
    let apart = match (&claim.schema, &own.schema) {
        (Some(_), Some(_))
            if (&claim.cluster, &claim.database) == (&own.cluster, &own.database) =>
        {
            None
        }
        (Some(_), Some(_)) => Some(format!("`{name}` is in another database")),
        _ => Some(format!(
            "`{name}` and this service cannot be joined: one is isolated"
        )),
    };
    if let Some(message) = apart {
        if is_told {
            context.report.error(key, message);
        }
        return None;
    }
    let says_so = list.names_in(claim);
    if !says_so.iter().any(|text| means(text, context.name, name)) {
        if is_told {
            let counterpart = list.counterpart;
            let message = format!(
                "`{name}` does not have this service in `{counterpart}`, so nothing is granted"
            );
            context.report.warn(key, message);
        }
        return None;
    }
    Some(DatabaseNeighbour {
        name: name.shared_key(),
        role: Arc::from(claim.role.as_str()),
        schema: claim.schema.as_deref().map(Arc::from)?,
    })
}

/// Whether a name in the file of `writer` is `service`. A bare name means one of
/// the writer's own domain: who may read must not hang on what else is there.
fn means(text: &str, service: &ServiceName, writer: &ServiceName) -> bool {
    text == service.key() || (text == service.name() && writer.domain() == service.domain())
}
