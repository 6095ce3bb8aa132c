//! `postgres://user:password@host:port/database?sslmode=…`.

use crate::config::raw::RawTlsMode;
use crate::secret::Secret;

/// The parts of a URL that are there.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct PostgresUrl {
    pub(super) host: Option<String>,
    pub(super) port: Option<u16>,
    pub(super) database: Option<String>,
    pub(super) user: Option<String>,
    pub(super) password: Option<Secret>,
    pub(super) tls: Option<RawTlsMode>,
    /// Names of parameters that are not understood.
    pub(super) ignored: Vec<String>,
}

/// Parses a URL.
///
/// # Errors
/// What is wrong, without any part of the URL.
pub(super) fn parse(text: &str) -> Result<PostgresUrl, &'static str> {
    let rest = text
        .strip_prefix("postgres://")
        .or_else(|| text.strip_prefix("postgresql://"))
        .ok_or("expected postgres://…")?;
    let (rest, query) = rest.split_once('?').unwrap_or((rest, ""));
    let (authority, path) = rest.split_once('/').unwrap_or((rest, ""));
    let (login, place) = match authority.rsplit_once('@') {
        Some((login, place)) => (login, place),
        None => ("", authority),
    };
    let (user, password) = match login.split_once(':') {
        Some((user, password)) => (user, Some(decode(password)?)),
        None => (login, None),
    };
    if place.contains(',') {
        return Err("names several hosts");
    }
    let (host, port) = split_place(place)?;
    let mut url = PostgresUrl {
        host: some(decode(host)?),
        port,
        database: some(decode(path)?),
        user: some(decode(user)?),
        password: password.map(Secret::new),
        ..PostgresUrl::default()
    };
    for pair in query.split('&').filter(|pair| !pair.is_empty()) {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        let value = decode(value)?;
        match name {
            "host" => url.host = some(value),
            "port" => url.port = Some(value.parse().map_err(|_| "the port is no port")?),
            "dbname" => url.database = some(value),
            "user" => url.user = some(value),
            "password" => url.password = Some(Secret::new(value)),
            "sslmode" => url.tls = Some(mode(&value)?),
            _ => url.ignored.push(name.chars().take(40).collect()),
        }
    }
    Ok(url)
}

fn mode(word: &str) -> Result<RawTlsMode, &'static str> {
    match word {
        "disable" => Ok(RawTlsMode::Disable),
        "allow" | "prefer" => Ok(RawTlsMode::Prefer),
        "require" | "no-verify" => Ok(RawTlsMode::Require),
        // Checking the authority without the name is no check; do both.
        "verify-ca" | "verify-full" => Ok(RawTlsMode::VerifyFull),
        _ => Err("the sslmode is none of disable, require, verify-full"),
    }
}

fn split_place(place: &str) -> Result<(&str, Option<u16>), &'static str> {
    let (host, port) = if let Some(rest) = place.strip_prefix('[') {
        let (host, after) = rest.split_once(']').ok_or("the bracket is not closed")?;
        (host, after.strip_prefix(':'))
    } else {
        match place.split_once(':') {
            Some((host, port)) => (host, Some(port)),
            None => (place, None),
        }
    };
    let port = port
        .filter(|port| !port.is_empty())
        .map(str::parse::<u16>)
        .transpose()
        .map_err(|_| "the port is no port")?;
    if port == Some(0) {
        return Err("the port is no port");
    }
    Ok((host, port))
}

fn some(text: String) -> Option<String> {
    (!text.is_empty()).then_some(text)
}

/// Percent-decoding (RFC 3986 §2.1).
fn decode(text: &str) -> Result<String, &'static str> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((first, after)) = rest.split_first() {
        if *first != b'%' {
            bytes.push(*first);
            rest = after;
            continue;
        }
        let digits = after
            .get(..2)
            .and_then(|pair| std::str::from_utf8(pair).ok());
        let byte = digits
            .filter(|pair| pair.bytes().all(|byte| byte.is_ascii_hexdigit()))
            .and_then(|pair| u8::from_str_radix(pair, 16).ok())
            .ok_or("a % is not followed by two hexadecimal digits")?;
        bytes.push(byte);
        rest = after.get(2..).unwrap_or_default();
    }
    String::from_utf8(bytes).map_err(|_| "is not UTF-8 after decoding")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_of_urls() {
        let url = parse("postgres://app:p%40ss:w@db.example:6432/shop?sslmode=require&x=1")
            .expect("valid");
        assert_eq!(url.host.as_deref(), Some("db.example"));
        assert_eq!(url.port, Some(6432));
        assert_eq!(url.database.as_deref(), Some("shop"));
        assert_eq!(url.user.as_deref(), Some("app"));
        assert_eq!(url.password, Some(Secret::new("p@ss:w")));
        assert_eq!(url.tls, Some(RawTlsMode::Require));
        assert_eq!(url.ignored, ["x"]);
        let socket = parse("postgresql:///shop?host=/run/postgresql").expect("valid");
        assert_eq!(socket.host.as_deref(), Some("/run/postgresql"));
        assert_eq!(
            parse("postgres://[::1]:5/x")
                .expect("valid")
                .host
                .as_deref(),
            Some("::1")
        );
        for bad in [
            "mysql://x",
            "postgres://a,b/x",
            "postgres://x:0/",
            "postgres://%zz@x/",
            "postgres://x/?sslmode=maybe",
        ] {
            assert!(parse(bad).is_err(), "{bad}");
        }
    }
}
