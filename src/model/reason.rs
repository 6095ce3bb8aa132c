//! Why authentication decided as it did.

/// Why a request was let through or refused: the closed set of `reason` labels
/// of `outrigger_auth_decisions_total` and of denial log lines. Clients never
/// see it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum AuthReason {
    // Let through.
    /// A credential was shown and is good.
    Good,
    /// `none` applies.
    Open,
    /// A CORS preflight, forwarded without identity.
    Preflight,
    /// The hook did not answer and `failOpen` is set.
    FailedOpen,
    // Refused for the request's form.
    /// The target is not in the plain form that path rules need (PATH-1).
    Path,
    /// Two `Authorization` fields, or an empty credential.
    Ambiguous,
    /// No credential of a listed strategy.
    Missing,
    // Refused for the credential.
    UnknownKey,
    NotYetValid,
    Expired,
    /// Cannot be parsed as what its carrier says it is.
    Malformed,
    TooLong,
    /// `alg` is not listed.
    Algorithm,
    /// A `crit` header parameter is present (RFC 7515 §4.1.11).
    Critical,
    /// `typ` is not listed.
    Type,
    UnknownKeyId,
    Signature,
    Issuer,
    Audience,
    /// A claim is missing or ill-typed.
    Claims,
    /// Valid for longer than `maxLifetime`.
    Lifetime,
    /// The hook said no.
    HookDenied,
    // Refused although the credential is good.
    /// `allow` does not list the caller.
    NotListed,
    /// `deny` does.
    DenyRule,
    // Cannot be judged.
    /// The strategy has no policy; the configuration's validation keeps that out.
    NotBuilt,
    /// No key set has been loaded yet.
    NoKeys,
    HookTimeout,
    /// Connecting to the hook failed, or the connection broke.
    HookUnreachable,
    /// 408, 429, 5xx, or an answer outside HTTP's rules or our bounds.
    HookAnswer,
    /// `maxInFlight` calls are under way.
    HookBusy,
}

impl AuthReason {
    /// Every reason, in declaration order: `ALL[reason as usize] == reason`.
    pub const ALL: [Self; 30] = [
        Self::Good,
        Self::Open,
        Self::Preflight,
        Self::FailedOpen,
        Self::Path,
        Self::Ambiguous,
        Self::Missing,
        Self::UnknownKey,
        Self::NotYetValid,
        Self::Expired,
        Self::Malformed,
        Self::TooLong,
        Self::Algorithm,
        Self::Critical,
        Self::Type,
        Self::UnknownKeyId,
        Self::Signature,
        Self::Issuer,
        Self::Audience,
        Self::Claims,
        Self::Lifetime,
        Self::HookDenied,
        Self::NotListed,
        Self::DenyRule,
        Self::NotBuilt,
        Self::NoKeys,
        Self::HookTimeout,
        Self::HookUnreachable,
        Self::HookAnswer,
        Self::HookBusy,
    ];

    /// The label value.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Good => "good",
            Self::Open => "open",
            Self::Preflight => "preflight",
            Self::FailedOpen => "failed_open",
            Self::Path => "path",
            Self::Ambiguous => "ambiguous",
            Self::Missing => "missing",
            Self::UnknownKey => "unknown_key",
            Self::NotYetValid => "not_yet_valid",
            Self::Expired => "expired",
            Self::Malformed => "malformed",
            Self::TooLong => "too_long",
            Self::Algorithm => "algorithm",
            Self::Critical => "critical",
            Self::Type => "type",
            Self::UnknownKeyId => "unknown_key_id",
            Self::Signature => "signature",
            Self::Issuer => "issuer",
            Self::Audience => "audience",
            Self::Claims => "claims",
            Self::Lifetime => "lifetime",
            Self::HookDenied => "hook_denied",
            Self::NotListed => "not_listed",
            Self::DenyRule => "deny_rule",
            Self::NotBuilt => "not_built",
            Self::NoKeys => "no_keys",
            Self::HookTimeout => "hook_timeout",
            Self::HookUnreachable => "hook_unreachable",
            Self::HookAnswer => "hook_answer",
            Self::HookBusy => "hook_busy",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reasons_index_themselves_and_have_their_own_labels() {
        let mut labels = std::collections::BTreeSet::new();
        for (index, reason) in AuthReason::ALL.into_iter().enumerate() {
            assert_eq!(reason as usize, index);
            assert!(labels.insert(reason.as_str()), "{}", reason.as_str());
        }
    }
}
