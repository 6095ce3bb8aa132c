//! The SQL door (POSTGRES.md §5): HTTP on loopback, wire-compatible with the
//! Neon serverless driver, on a runtime of its own together with the pools.
