//! The control loop: files to snapshots.
