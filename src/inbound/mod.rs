//! The public door: one request, one corridor.
