//! Data threads: one runtime each, own listeners and pools.
