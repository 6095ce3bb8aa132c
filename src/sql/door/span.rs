//! A client span per request that reaches the database. No literals: only the
//! first word of a statement, from a list of ours.

use std::sync::Arc;
use std::time::Instant;

use http::request::Parts;

use super::Inner;
use super::answer::Refusal;
use super::request::{Asked, Query};
use super::route::Action;
use crate::model::SpanIds;
use crate::pg::Database;
use crate::telemetry::spans::{Host, Resource, Span, SpanKind, SqlWork, Work};
use crate::trace::{Context, IdGenerator};

/// First words of statements that are told apart.
const OPERATIONS: [&str; 24] = [
    "SELECT",
    "INSERT",
    "UPDATE",
    "DELETE",
    "MERGE",
    "WITH",
    "VALUES",
    "TABLE",
    "CREATE",
    "ALTER",
    "DROP",
    "TRUNCATE",
    "BEGIN",
    "COMMIT",
    "ROLLBACK",
    "SAVEPOINT",
    "SET",
    "CALL",
    "DO",
    "COPY",
    "EXPLAIN",
    "LOCK",
    "REFRESH",
    "VACUUM",
];

/// A span under way.
pub(super) struct Seed {
    resource: Arc<Resource>,
    ids: SpanIds,
    started: Instant,
}

impl Seed {
    /// Where tracing is on for the service, spans are wanted and the request is
    /// sampled: the app's headers carry the decision it was given.
    pub(super) fn read(inner: &Inner, database: &Database, parts: &Parts) -> Option<Self> {
        if !inner.spans.wants_spans() {
            return None;
        }
        let snapshot = inner.current.load();
        let service = snapshot.services.get(&database.pool.name)?;
        let tracing = service.as_ready()?.spec.tracing.as_ref()?;
        let mut context = Context::read(&parts.headers, &IdGenerator::new());
        context.follow(tracing);
        context.is_sampled().then(|| Self {
            resource: Arc::clone(&service.resource),
            ids: context.span_ids(),
            started: Instant::now(),
        })
    }

    /// The work is done.
    pub(super) fn end(
        self,
        inner: &Inner,
        database: &Database,
        operation: &'static str,
        refusal: Option<&Refusal>,
    ) {
        let spec = database.spec();
        let work = SqlWork {
            operation,
            database: Arc::clone(&spec.database),
            host: Some(Host::Known {
                host: Arc::clone(&spec.host),
                port: spec.port,
            }),
            error: refusal.map(|refusal| Arc::from(refusal.word())),
        };
        inner.spans.send(vec![Span {
            resource: self.resource,
            ids: self.ids,
            kind: SpanKind::Client,
            started: self.started,
            ended: Instant::now(),
            work: Work::Sql(Box::new(work)),
        }]);
    }
}

/// What a request does, in one word.
pub(super) fn operation(action: Action<'_>, asked: Option<&Asked<'_>>) -> &'static str {
    match (action, asked) {
        (Action::Begin, _) => "BEGIN",
        (Action::Commit(_), _) => "COMMIT",
        (Action::Rollback(_), _) => "ROLLBACK",
        (_, Some(Asked::One(query))) => first_word(query),
        (_, Some(Asked::Batch(..))) => "BATCH",
        (_, None) => "QUERY",
    }
}

fn first_word(query: &Query<'_>) -> &'static str {
    let word = query.first_word();
    let known = OPERATIONS
        .iter()
        .find(|known| known.eq_ignore_ascii_case(word));
    known.copied().unwrap_or("QUERY")
}
