//! Listeners, connections, deadlines: sockets and time.
