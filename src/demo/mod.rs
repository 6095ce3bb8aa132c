//! The demo: three small apps and sidecars in front of them.
