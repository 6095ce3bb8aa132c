//! `outrigger key generate`: an API key and its digest.

use std::io::{self, Write};
use std::process::ExitCode;

use aws_lc_rs::rand;
use clap::{Args, Subcommand};

use crate::auth::digest_of;
use crate::model::ApiKeyDigest;

/// Bytes of randomness in a key: 192 bit, of which 128 would do.
const KEY_BYTES: usize = 24;

/// URL-safe base64 (RFC 4648 §5); holds no dot, so a key is never taken for a JWT.
const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";

/// API keys.
#[derive(Debug, Args)]
pub(crate) struct KeyArgs {
    #[command(subcommand)]
    command: KeyCommand,
}

#[derive(Debug, Subcommand)]
enum KeyCommand {
    /// Print a new random key, its SHA-256, and the lines for a service file
    Generate {
        /// Name of the caller the key stands for
        #[arg(long, value_name = "ID", default_value = "default")]
        id: String,
    },
}

/// Runs the subcommand.
pub(crate) fn run(args: &KeyArgs) -> ExitCode {
    let KeyCommand::Generate { id } = &args.command;
    let mut random = [0; KEY_BYTES];
    if rand::fill(&mut random).is_err() {
        return failed("the system gave no random bytes");
    }
    let text = describe(id, &key_text(&random));
    match io::stdout().write_all(text.as_bytes()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => failed(&error.to_string()),
    }
}

/// Exit code 70: an internal error (sysexits).
fn failed(why: &str) -> ExitCode {
    let _written = writeln!(io::stderr(), "outrigger key: {why}");
    ExitCode::from(70)
}

/// Three bytes to four characters; the length is a multiple of three.
fn key_text(random: &[u8; KEY_BYTES]) -> String {
    let mut text = String::with_capacity(KEY_BYTES / 3 * 4);
    for chunk in random.chunks_exact(3) {
        let bits = chunk
            .iter()
            .fold(0_usize, |bits, byte| bits << 8 | usize::from(*byte));
        for shift in [18, 12, 6, 0] {
            let index = bits >> shift & 0x3f;
            text.push(ALPHABET.get(index).copied().map_or('A', char::from));
        }
    }
    text
}

fn describe(id: &str, key: &str) -> String {
    let ApiKeyDigest(digest) = digest_of(key.as_bytes());
    let sha256: String = digest.iter().map(|byte| format!("{byte:02x}")).collect();
    format!(
        "key:    {key}\n\
         sha256: {sha256}\n\
         \n\
         # the service file needs the digest only:\n\
         auth:\n\
         \x20 apiKey:\n\
         \x20   keys:\n\
         \x20     - id: {id}\n\
         \x20       sha256: {sha256}\n"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_url_safe_base64_of_its_bytes() {
        let mut bytes = [0; KEY_BYTES];
        bytes[..6].copy_from_slice(&[0xfb, 0xff, 0xbf, 0x00, 0x10, 0x83]);
        let text = key_text(&bytes);
        assert!(text.starts_with("-_-_ABCD"), "{text}");
        assert_eq!(text.len(), 32);
        assert!(!text.contains('.'));
    }

    #[test]
    fn what_is_printed_fits_together() {
        let text = describe("web", "abc");
        let digest = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
        assert!(text.starts_with(&format!("key:    abc\nsha256: {digest}\n")));
        assert!(text.contains("- id: web\n"));
    }
}
