//! Programs of other languages, as apps and clients use them.

use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};

/// Runs a script to its end; gives what it printed. `None`, with a line that
/// says so, where the runtime is not there.
#[track_caller]
pub(crate) fn run(program: &str, arguments: &[&str]) -> Option<String> {
    let output = match Command::new(program)
        .args(arguments)
        .stdin(Stdio::null())
        .output()
    {
        Ok(output) => output,
        Err(error) => {
            println!("skipped: no `{program}` on this machine ({error})");
            return None;
        }
    };
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(
        output.status.success(),
        "{program} {arguments:?}: {}\n{text}{}",
        output.status,
        String::from_utf8_lossy(&output.stderr)
    );
    Some(text)
}

/// A script that runs until it is dropped, and says its port first.
pub(crate) struct Server {
    child: Child,
    pub(crate) port: u16,
}

impl Server {
    pub(crate) fn start(program: &str, arguments: &[&str]) -> Option<Self> {
        let mut command = Command::new(program);
        command
            .args(arguments)
            .stdin(Stdio::null())
            .stdout(Stdio::piped());
        let Ok(mut child) = command.spawn() else {
            println!("skipped: no `{program}` on this machine");
            return None;
        };
        let mut line = String::new();
        let stdout = child.stdout.take().expect("stdout is piped");
        BufReader::new(stdout).read_line(&mut line).expect("text");
        let port = line.trim().parse().expect("the script prints its port");
        Some(Self { child, port })
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
