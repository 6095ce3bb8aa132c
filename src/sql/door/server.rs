//! Accepting, reading, answering.

use std::convert::Infallible;
use std::io::{self, Write as _};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::request::Parts;
use http::{Method, Request, Response};
use http_body_util::{BodyExt as _, Full, LengthLimitError, Limited};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use serde::Serialize;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

use super::answer::{Refusal, created, json, refuse};
use super::request::{Asked, Begin, Query, read};
use super::route::{Action, find};
use super::run::Ground;
use super::span::{Seed, operation};
use super::stream::Client;
use super::transactions::{SWEEP, Transactions};
use super::{Door, gate, route};
use crate::model::{Kind, ServiceName, SqlSettings};
use crate::pg::Database;
use crate::reply::{facts, raw};
use crate::telemetry::log::ErrorLine;
use crate::telemetry::supervise::Supervisor;
use crate::trace::{IdGenerator, RequestId, request_id};

/// Connections at once; the pools behind have their own limits.
const CONNECTIONS: usize = 1024;
/// For a complete head, and so also how long a connection may idle.
const HEAD_TIME: Duration = Duration::from_secs(75);
/// For a body to arrive.
const BODY_TIME: Duration = Duration::from_secs(30);
/// Rest after `accept` failed: usually descriptors ran out.
const ACCEPT_REST: Duration = Duration::from_millis(100);

/// Serves the door until the future is dropped, which cuts its connections.
pub(crate) async fn serve(listener: std::net::TcpListener, door: Door, supervisor: Supervisor) {
    let run = || {
        let (listener, door) = (listener.try_clone(), door.clone());
        async move {
            let served = async { accept(TcpListener::from_std(listener?)?, door).await };
            let Err(error): io::Result<Infallible> = served.await;
            tracing::error!(%error, "the SQL door cannot be served");
        }
    };
    supervisor.keep("sql door", run).await;
}

async fn accept(listener: TcpListener, door: Door) -> io::Result<Infallible> {
    let places = Arc::new(Semaphore::new(CONNECTIONS));
    let mut connections = JoinSet::new();
    let mut sweep = tokio::time::interval(SWEEP);
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            Some(_) = connections.join_next() => continue,
            _ = sweep.tick() => {
                door.inner.transactions.sweep(&door.inner.databases);
                continue;
            }
        };
        match accepted {
            Ok((stream, peer)) => {
                let Ok(place) = Arc::clone(&places).try_acquire_owned() else {
                    turn_away(stream);
                    continue;
                };
                let served = serve_connection(stream, peer.ip(), door.clone());
                connections.spawn(async move {
                    served.await;
                    drop(place);
                });
            }
            Err(error) => {
                tracing::warn!(%error, "the SQL door cannot accept connections");
                sleep(ACCEPT_REST).await;
            }
        }
    }
}

/// Every place is taken: says so and hangs up. A new socket's send buffer is
/// empty, so the answer fits or the client is not there.
fn turn_away(stream: TcpStream) {
    if let Ok(mut stream) = stream.into_std() {
        // Whether it arrives is the client's affair.
        let _ = stream.write(&raw(Kind::Overloaded, None));
    }
}

async fn serve_connection(stream: TcpStream, peer: IpAddr, door: Door) {
    // Answers are written whole.
    let _ = stream.set_nodelay(true);
    let service = service_fn(move |request| {
        let door = door.clone();
        async move { Ok::<_, Infallible>(door.answer(request, peer).await.map(Full::new)) }
    });
    // What goes wrong with a connection is its client's affair.
    let _ = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIME)
        .serve_connection(TokioIo::new(Client::new(stream)), service)
        .await;
}

/// `GET …/db`.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Description<'a> {
    service: &'a str,
    database: &'a str,
    schema: &'a str,
    isolation: &'static str,
    pool: PoolBody,
    #[serde(skip_serializing_if = "Option::is_none")]
    failure: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    obstacle: Option<String>,
    migrations: Vec<MigrationBody<'a>>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct PoolBody {
    total_connections: u32,
    idle_connections: u32,
    active_connections: u32,
    waiting_requests: u32,
    max: u32,
}

#[derive(Serialize)]
struct MigrationBody<'a> {
    version: u64,
    name: &'a str,
}

impl Door {
    async fn answer(&self, request: Request<Incoming>, peer: IpAddr) -> Response<Bytes> {
        let began = Instant::now();
        let (parts, body) = request.into_parts();
        let id = request_id(&parts.headers, &IdGenerator::new());
        let head = parts.method == Method::HEAD;
        let mut allow = "POST";
        let mut service = None;
        let result = self
            .dispatch(&parts, body, &id, &mut allow, &mut service)
            .await;
        let mut response = match result {
            Ok(response) => response,
            Err(refusal) => {
                let name = service.as_ref().map(|database| &database.pool.name);
                if let Some(kind) = refusal.kind() {
                    self.tell(kind, refusal.reason(), name, began, &id, peer);
                }
                refuse(&refusal, name, &id, allow)
            }
        };
        if head {
            *response.body_mut() = Bytes::new();
        }
        response
    }

    /// Counts and logs an answer of ours.
    fn tell(
        &self,
        kind: Kind,
        reason: &str,
        service: Option<&ServiceName>,
        began: Instant,
        id: &RequestId,
        peer: IpAddr,
    ) {
        let facts = facts(kind);
        if let Some(service) = service {
            let metrics = self.inner.metrics.service(service);
            metrics.shard(0).proxy_error(facts.cause);
        }
        self.inner.log.error(&ErrorLine {
            level: facts.level,
            service: service.map_or("", ServiceName::key),
            cause: facts.cause,
            status: facts.status,
            detail: reason,
            dependency: None,
            upstream_address: None,
            attempt: 0,
            reused: false,
            connect: None,
            wait: None,
            total: began.elapsed(),
            generation: self.inner.current.load().generation,
            request_id: id.as_str(),
            trace_id: None,
            house_trace_id: None,
            peer: Some(peer),
        });
    }

    async fn dispatch(
        &self,
        parts: &Parts,
        body: Incoming,
        id: &RequestId,
        allow: &mut &'static str,
        service: &mut Option<Arc<Database>>,
    ) -> Result<Response<Bytes>, Refusal> {
        let inner = &self.inner;
        let settings = Arc::clone(&inner.current.load().settings);
        gate::check(parts, &settings.sql)?;
        let (name, action) = route::read(parts.uri.path()).ok_or(Kind::NotFound)?;
        let database = find(&inner.databases, name)?;
        let database: &Arc<Database> = service.insert(database);
        let needed = inner.exposed || inner.databases.count() > 1;
        gate::check_token(&parts.headers, database.spec().door_token.as_ref(), needed)?;
        *allow = action.allow();
        if !action.allows(&parts.method) {
            return Err(Kind::MethodNotAllowed.into());
        }
        if action == Action::Describe {
            return Ok(json(200, description(database), id));
        }
        let body = read_body(body, settings.sql.max_request_bytes).await?;
        let asked = match action {
            Action::Query => Some(read(&body, &parts.headers, true)?),
            Action::QueryIn(_) => Some(read(&body, &parts.headers, false)?),
            _ => None,
        };
        let span = Seed::read(inner, database, parts);
        let operation = operation(action, asked.as_ref());
        let work = Work {
            database,
            settings: &settings.sql,
            transactions: &inner.transactions,
            id,
        };
        let result = work.run(action, asked, &body, name).await;
        if let Some(span) = span {
            span.end(inner, database, operation, result.as_ref().err());
        }
        result
    }
}

async fn read_body(body: Incoming, limit: u64) -> Result<Bytes, Kind> {
    let limit = usize::try_from(limit).unwrap_or(usize::MAX);
    match timeout(BODY_TIME, Limited::new(body, limit).collect()).await {
        Ok(Ok(collected)) => Ok(collected.to_bytes()),
        Ok(Err(error)) if error.is::<LengthLimitError>() => Err(Kind::BodyTooLarge),
        Ok(Err(_)) => Err(Kind::BadRequest),
        Err(_) => Err(Kind::ClientTimeout),
    }
}

/// A request that may come in.
struct Work<'a> {
    database: &'a Arc<Database>,
    settings: &'a SqlSettings,
    transactions: &'a Transactions,
    id: &'a RequestId,
}

impl Work<'_> {
    fn ground(&self) -> Ground<'_> {
        Ground {
            database: self.database,
            limit: self.database.spec().statement_timeout,
            max_bytes: self.settings.max_response_bytes,
        }
    }

    async fn run(
        &self,
        action: Action<'_>,
        asked: Option<Asked<'_>>,
        body: &[u8],
        name: &str,
    ) -> Result<Response<Bytes>, Refusal> {
        let ground = self.ground();
        let output = match (action, asked) {
            (Action::Query, Some(Asked::One(query))) => ground.one(&query).await?,
            (Action::Query, Some(Asked::Batch(queries, begin))) => {
                ground.batch(&queries, begin).await?
            }
            (Action::QueryIn(id), Some(Asked::One(query))) => self.within(id, &query).await?,
            (Action::Begin, _) => return self.begin(Begin::of_body(body)?, name).await,
            (Action::Commit(id), _) => return self.end(id, "COMMIT").await,
            (Action::Rollback(id), _) => return self.end(id, "ROLLBACK").await,
            _ => return Err(Kind::BadRequest.into()),
        };
        Ok(json(200, output, self.id))
    }

    async fn within(&self, transaction: &str, query: &Query<'_>) -> Result<Vec<u8>, Refusal> {
        if query.ends_transaction() {
            return Err(Refusal::Statement {
                code: "2D000",
                message: "a transaction is ended by …/commit or …/rollback".to_owned(),
            });
        }
        let (mut turn, rest) = self.transactions.turn(self.database, transaction).await?;
        let mut ground = self.ground();
        ground.limit = ground.limit.min(rest);
        let result = ground.within(turn.checkout(), query).await;
        // The session may be gone, and the transaction with it.
        let gone = matches!(&result, Err(Refusal::Kind(..)));
        match gone || turn.checkout().connection().is_broken() {
            true => self.transactions.remove(transaction),
            false => turn.keep(),
        }
        result
    }

    async fn begin(&self, begin: Begin, name: &str) -> Result<Response<Bytes>, Refusal> {
        let full = || Refusal::unavailable("too_many_transactions");
        if !self.transactions.has_room(self.database) {
            return Err(full());
        }
        let checkout = self.ground().begun(begin).await?;
        // Others may have been as quick.
        if !self.transactions.has_room(self.database) {
            return Err(full());
        }
        let id = self.transactions.insert(self.database, checkout)?;
        let slash = if name.is_empty() { "" } else { "/" };
        let location = format!("{slash}{name}/tx/{id}");
        let body = format!("{{\"id\":\"{id}\",\"location\":\"{location}\"}}\n");
        Ok(created(&location, body.into_bytes(), self.id))
    }

    async fn end(&self, transaction: &str, sql: &'static str) -> Result<Response<Bytes>, Refusal> {
        let (mut turn, _) = self.transactions.turn(self.database, transaction).await?;
        self.transactions.remove(transaction);
        let command = self.ground().own(turn.checkout(), sql).await?;
        if command != sql {
            // The server answers COMMIT so when a statement had failed.
            return Err(Refusal::Statement {
                code: "25P02",
                message: "the transaction was rolled back, because a statement of it failed"
                    .to_owned(),
            });
        }
        let body = format!("{{\"command\":\"{command}\"}}\n");
        Ok(json(200, body.into_bytes(), self.id))
    }
}

fn description(database: &Database) -> Vec<u8> {
    let spec = database.spec();
    let applied = database.applied();
    let stats = database.pool.stats();
    let body = Description {
        service: database.pool.name.key(),
        database: &spec.database,
        schema: &spec.schema,
        isolation: match spec.isolation {
            crate::model::DatabaseIsolation::Shared => "shared",
            crate::model::DatabaseIsolation::Isolated => "isolated",
        },
        pool: PoolBody {
            total_connections: stats.total,
            idle_connections: stats.idle,
            active_connections: stats.active,
            waiting_requests: stats.waiting,
            max: stats.max,
        },
        failure: database.pool.failure().map(|failure| failure.reason()),
        obstacle: database.obstacle(),
        migrations: applied
            .iter()
            .map(|one| MigrationBody {
                version: one.version,
                name: &one.name,
            })
            .collect(),
    };
    let mut bytes = serde_json::to_vec(&body).expect("structs of text and numbers serialize");
    bytes.push(b'\n');
    bytes
}
