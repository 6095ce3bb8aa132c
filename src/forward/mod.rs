//! What is shared by both directions: headers, bodies, sending.
