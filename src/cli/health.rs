//! `outrigger health`: a probe of the daemon, for images without a HTTP client.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::process::ExitCode;
use std::time::Duration;

use bytes::Bytes;
use clap::Args;
use http::header::AUTHORIZATION;
use http::{Request, Response};

use super::{ProcessArgs, exit, print_problems};
use crate::config::{Environment, load_process};
use crate::model::{DoorListen, ProcessSettings};
use crate::net::client::ColdClient;

/// For the whole exchange, over loopback.
const PATIENCE: Duration = Duration::from_secs(3);
/// Longer than any probe's answer.
const MAX_BYTES: usize = 64 * 1024;

/// Ask the daemon how it is: 0 when all is well, 69 otherwise
#[derive(Debug, Args)]
pub(crate) struct HealthArgs {
    /// Whether start-up has ended
    #[arg(long, group = "probe")]
    startup: bool,
    /// Whether requests may be sent (the default)
    #[arg(long, group = "probe")]
    ready: bool,
    /// Whether the daemon itself is alive
    #[arg(long, group = "probe")]
    live: bool,
    #[command(flatten)]
    process: ProcessArgs,
}

/// Runs the subcommand.
#[expect(clippy::print_stderr, reason = "a command talks to a person")]
pub(crate) fn run(args: &HealthArgs) -> ExitCode {
    let loaded = match load_process(&args.process.flags(), &Environment::capture()) {
        Ok(loaded) => loaded,
        Err(problems) => {
            print_problems(&problems);
            return ExitCode::from(exit::USAGE);
        }
    };
    let path = if args.startup {
        "/startupz"
    } else if args.live {
        "/livez"
    } else {
        "/readyz"
    };
    match ask(&loaded.settings, path) {
        Ok(answer) if answer.status().is_success() => ExitCode::SUCCESS,
        Ok(answer) => {
            let (status, text) = (answer.status(), String::from_utf8_lossy(answer.body()));
            eprintln!("{path}: {status} {text}");
            ExitCode::from(exit::UNAVAILABLE)
        }
        Err(why) => {
            eprintln!("{path}: {why}");
            ExitCode::from(exit::UNAVAILABLE)
        }
    }
}

fn ask(settings: &ProcessSettings, path: &str) -> Result<Response<Bytes>, String> {
    let (address, token) = match (settings.observe, settings.admin.listen) {
        (DoorListen::At(address), _) => (address, None),
        (DoorListen::Off, DoorListen::At(address)) => (address, settings.admin.token.as_ref()),
        (DoorListen::Off, DoorListen::Off) => {
            return Err("both observe and admin are off".to_owned());
        }
    };
    let url = format!("http://{}{path}", reachable(address));
    let mut request = Request::get(&url);
    if let Some(token) = token.and_then(|token| token.expose_str()) {
        request = request.header(AUTHORIZATION, format!("Bearer {token}"));
    }
    let request = request
        .body(Bytes::new())
        .map_err(|error| error.to_string())?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| error.to_string())?;
    runtime.block_on(async {
        let client = ColdClient::new(None, None);
        let answer = tokio::time::timeout(PATIENCE, client.send(request, MAX_BYTES));
        let answer = answer
            .await
            .map_err(|_| format!("no answer in time from {url}"))?;
        answer.map_err(|error| {
            format!(
                "no daemon answers at {url}: {error}\n\
                 hint: is it running, and does this command find its configuration (--config)?"
            )
        })
    })
}

/// Where a listener on every address is reached from here.
fn reachable(address: SocketAddr) -> SocketAddr {
    let ip = match address.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        ip => ip,
    };
    SocketAddr::new(ip, address.port())
}
