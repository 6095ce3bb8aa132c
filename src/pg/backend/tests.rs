use std::io::{Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::thread;
use std::time::Duration;

use super::*;
use crate::model::DatabaseReset;
use crate::pg::prepare::Login;

const LOGGED_IN: &[u8] = b"R\0\0\0\x08\0\0\0\0Z\0\0\0\x05I";
const ENDED: &[u8] = b"E\0\0\0\x29SFATAL\0VFATAL\0C57P05\0Mended for now\0\0";

/// Logs a client in.
fn log_in(listener: &UnixListener) -> UnixStream {
    let (mut stream, _) = listener.accept().expect("a client");
    let mut length = [0; 4];
    stream.read_exact(&mut length).expect("a startup message");
    let rest = u32::from_be_bytes(length) - 4;
    let mut startup = vec![0; usize::try_from(rest).expect("short")];
    stream.read_exact(&mut startup).expect("all of it");
    stream.write_all(LOGGED_IN).expect("read");
    stream
}

fn target(folder: &Path) -> Arc<Target> {
    Arc::new(Target {
        host: folder.to_str().expect("UTF-8").into(),
        port: 5432,
        database: "shop".into(),
        login: Login {
            user: "shop".into(),
            password: None,
        },
        settings: Vec::new(),
        tls: None,
        timeout: Duration::from_secs(10),
        reset: DatabaseReset::Always,
    })
}

/// What a server said before it closed is not lost because it cannot be written
/// to any more, as a Unix socket says at once.
#[tokio::test]
async fn the_last_word_is_read_where_nothing_can_be_sent() {
    let folder = tempfile::tempdir().expect("a folder");
    let listener = UnixListener::bind(folder.path().join(".s.PGSQL.5432")).expect("a socket");
    let server = thread::spawn(move || log_in(&listener));
    let mut connection = Connection::connect(&target(folder.path()))
        .await
        .expect("logged in");
    let mut stream = server.join().expect("no panic");
    stream.write_all(ENDED).expect("read");
    drop(stream);
    let statement = Statement {
        sql: "select 1",
        parameters: Vec::new(),
    };
    connection.statement(&statement).expect("no parameters");
    connection.sync(Flight::Work);
    match connection.next().await {
        Err(Lost::Server(error)) => assert_eq!(error.code, "57P05"),
        other => panic!("{:?}", other.err()),
    }
    assert!(connection.is_broken());
}
