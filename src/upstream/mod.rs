//! The only HTTP client of the data path: a pool per worker and upstream.
