//! The published state of the process: immutable, ready to run.
