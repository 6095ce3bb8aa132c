//! Severity and the `/health` report: pure, no I/O.
