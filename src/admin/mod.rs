//! The observe and admin doors.
