//! Who may call: rules, strategies, identity.
