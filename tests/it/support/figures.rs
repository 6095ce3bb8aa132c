//! Measured figures: printed, and gathered in a file that `scripts/test` shows
//! at its end, because the output of tests that pass is hidden.

use std::fs::OpenOptions;
use std::io::Write as _;
use std::path::Path;

/// States a figure.
pub(crate) fn state(figure: &str) {
    println!("{figure}");
    let file = Path::new(env!("CARGO_TARGET_TMPDIR")).join("figures.txt");
    // Opened for appending, so that lines of parallel tests do not mix.
    let opened = OpenOptions::new().create(true).append(true).open(file);
    let mut file = opened.expect("the target folder is ours");
    file.write_all(format!("{figure}\n").as_bytes())
        .expect("the target folder is ours");
}

/// The same with a format.
macro_rules! figure {
    ($($part:tt)*) => { $crate::support::figures::state(&format!($($part)*)) };
}

pub(crate) use figure;
