//! Trace context: read, decided, written.
