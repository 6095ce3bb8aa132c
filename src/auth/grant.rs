//! What the app is told: identity headers, its own token, hidden credentials.

use http::header::{AUTHORIZATION, COOKIE, HeaderName, HeaderValue};

use crate::model::{AuthPolicy, AuthReason, FieldLines};

use super::BuildError;
use super::call::{Allowed, RemoveHeaders, label};
use super::carrier::{Bearer, X_API_KEY};
use super::named::{
    Named, X_AUTH_FAILED_OPEN, X_AUTH_STRATEGY, X_AUTH_SUBJECT, X_SERVICE_CALL, X_SERVICE_NAME,
};
use super::request::Request;
use super::settle::Proofs;

/// Pre-built changes to an allowed request.
#[derive(Debug)]
pub(super) struct Grants {
    /// Sent with every request that goes to the app.
    app_token: Option<FieldLines>,
    reserved: Box<[HeaderName]>,
    /// Carriers that somebody here may set: inbound cannot strip them before
    /// they are read, so they are dropped from every allowed request.
    settable_carriers: Box<[HeaderName]>,
    hide: Hide,
}

/// `hideCredentials`.
#[derive(Debug, Clone, Copy)]
struct Hide {
    on: bool,
    /// Whether such credentials mean anything to this service.
    keys: bool,
    bearers: bool,
}

impl Grants {
    pub(super) fn build(policy: &AuthPolicy) -> Result<Self, BuildError> {
        let mut names = vec![
            X_AUTH_STRATEGY.clone(),
            X_AUTH_SUBJECT.clone(),
            X_AUTH_FAILED_OPEN.clone(),
            X_SERVICE_CALL.clone(),
            X_SERVICE_NAME.clone(),
        ];
        let claims = policy.jwt.iter().flat_map(|jwt| jwt.claims.values());
        let answers = policy.hook.iter().flat_map(|hook| &hook.response_headers);
        for text in claims.chain(answers) {
            names.push(header_name(text)?);
        }
        let app_token = match &policy.app_token {
            None => None,
            Some(token) => {
                let name = header_name(&token.header)?;
                let value = HeaderValue::from_bytes(token.value.expose());
                let mut value = value.map_err(|_| BuildError::AppToken)?;
                value.set_sensitive(true);
                let mut lines = FieldLines::default();
                lines.push(&name, &value);
                names.push(name);
                Some(lines)
            }
        };
        let (carriers, mut reserved): (Vec<_>, Vec<_>) = names
            .into_iter()
            .partition(|name| *name == AUTHORIZATION || *name == COOKIE || *name == X_API_KEY);
        reserved.sort_by(|left, right| left.as_str().cmp(right.as_str()));
        reserved.dedup();
        Ok(Self {
            app_token,
            reserved: reserved.into(),
            settable_carriers: carriers.into(),
            hide: Hide {
                on: policy.hide_credentials,
                keys: policy.api_key.is_some(),
                bearers: policy.api_key.is_some() || policy.jwt.is_some(),
            },
        })
    }

    pub(super) fn reserved(&self) -> &[HeaderName] {
        &self.reserved
    }

    /// A request that nobody was asked about. With `hideCredentials`, what would
    /// be a credential of this service elsewhere is dropped here too; a preflight
    /// has none to show.
    pub(super) fn anonymous(&self, request: &Request<'_>, reason: AuthReason) -> Allowed {
        let mut remove = self.carriers(request);
        let preflight = reason == AuthReason::Preflight;
        if preflight {
            remove.push(COOKIE);
        }
        if preflight || (self.hide.on && self.hide.keys) {
            remove.push(X_API_KEY.clone());
        }
        let is_bearer = || !matches!(request.carried(), Ok(carried) if carried.bearer.is_none());
        if preflight || (self.hide.on && self.hide.bearers && is_bearer()) {
            remove.push(AUTHORIZATION);
        }
        Allowed {
            identity: None,
            rule: None,
            set: FieldLines::default(),
            remove,
            strategy: label(None),
            reason: reason.as_str(),
        }
    }

    /// A request whose caller is known.
    pub(super) fn authenticated(
        &self,
        request: &Request<'_>,
        named: &Named,
        proofs: &Proofs<'_>,
    ) -> Allowed {
        let mut remove = self.carriers(request);
        if self.hide.on
            && let Ok(carried) = request.carried()
        {
            if (proofs.key.is_some() || proofs.hook.is_some()) && carried.key.is_some() {
                remove.push(X_API_KEY.clone());
            }
            let shown = match carried.bearer {
                Some(Bearer::Key(_)) => proofs.key.is_some(),
                Some(Bearer::Token(_)) => proofs.token.is_some(),
                None => false,
            };
            // The hook saw it, whatever scheme it is in. Cookies stay: they are
            // the app's own session as often as a credential.
            let shown = shown || proofs.hook.is_some();
            if shown {
                remove.push(AUTHORIZATION);
            }
        }
        let mut set = named.headers.clone();
        if let Some(token) = &proofs.token {
            set.set_all(&token.headers);
        }
        if let Some(hook) = &proofs.hook {
            set.set_all(&hook.headers);
        }
        Allowed {
            identity: Some(named.identity.clone()),
            rule: None,
            set,
            remove,
            strategy: label(Some(named.identity.strategy)),
            reason: AuthReason::Good.as_str(),
        }
    }

    /// Adds the app's own token before what else is set, which goes before it
    /// where it has the same name.
    pub(super) fn add_app_token(&self, set: &mut FieldLines) {
        if let Some(token) = &self.app_token {
            let others = std::mem::replace(set, token.clone());
            set.set_all(&others);
        }
    }

    /// Carriers that the app must not take from the client, in every spelling
    /// that an app may fold into the same name (ID-1).
    fn carriers(&self, request: &Request<'_>) -> RemoveHeaders {
        let mut remove: RemoveHeaders = self.settable_carriers.to_vec();
        if !remove.is_empty() {
            let is_spelling = |name: &&HeaderName| {
                let mut carriers = self.settable_carriers.iter();
                carriers.any(|carrier| is_folded(name.as_str(), carrier.as_str()))
            };
            remove.extend(request.call.headers.keys().filter(is_spelling).cloned());
        }
        remove
    }
}

/// Whether two lower-case names are one for an app that folds punctuation.
fn is_folded(name: &str, carrier: &str) -> bool {
    let fold = |byte: u8| {
        if byte.is_ascii_alphanumeric() {
            byte
        } else {
            b'-'
        }
    };
    name.bytes().map(fold).eq(carrier.bytes().map(fold))
}

fn header_name(text: &str) -> Result<HeaderName, BuildError> {
    HeaderName::from_bytes(text.as_bytes()).map_err(|_| BuildError::HeaderName(text.to_owned()))
}
