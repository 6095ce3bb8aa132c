"""Keys and signed tokens for the benchmark, made with the openssl of the machine.

Keys come from the `openssl` command, signatures from its library through
ctypes: tens of thousands of tokens are needed, and a process for each would
take minutes. Nothing here is fit for anything but throw-away keys.
"""

import base64
import ctypes
import ctypes.util
import hashlib
import hmac
import json
import subprocess
import time

ISSUER = "https://id.bench.invalid/"
AUDIENCE = "bench"
# Longer than any run: an expired token would be refused, and the run stops.
LIFETIME_SECONDS = 4 * 3600


class MintError(Exception):
    """A sentence about what is missing."""


def base64url(data):
    return base64.urlsafe_b64encode(data).rstrip(b"=")


def openssl(*arguments, stdin=None):
    """Standard output of one `openssl` command."""
    try:
        done = subprocess.run(["openssl", *arguments], input=stdin,
                              capture_output=True, check=True, timeout=60)
    except FileNotFoundError as error:
        raise MintError("the openssl command is needed to make keys") from error
    except subprocess.CalledProcessError as error:
        raise MintError(f"openssl {arguments[0]}: {error.stderr.decode()}") from error
    return done.stdout


class Secret:
    """HS256 with a random secret."""

    algorithm = "HS256"

    def __init__(self):
        self.text = openssl("rand", "-hex", "32").decode().strip()

    def sign(self, message):
        return hmac.new(self.text.encode(), message, hashlib.sha256).digest()


class PrivateKey:
    """RS256 (2048 bits) or ES256 (P-256)."""

    KINDS = {
        "RS256": ("-algorithm", "RSA", "-pkeyopt", "rsa_keygen_bits:2048"),
        "ES256": ("-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-256"),
    }

    def __init__(self, algorithm):
        self.algorithm = algorithm
        pem = openssl("genpkey", *self.KINDS[algorithm])
        self.public = openssl("pkey", "-pubout", stdin=pem).decode()
        self.library = load_library()
        buffer = self.library.BIO_new_mem_buf(pem, len(pem))
        self.key = self.library.PEM_read_bio_PrivateKey(buffer, None, None, None)
        self.library.BIO_free(buffer)
        if not self.key:
            raise MintError("libcrypto does not read the key that openssl made")

    def sign(self, message):
        library = self.library
        context = library.EVP_MD_CTX_new()
        try:
            out = ctypes.create_string_buffer(512)
            length = ctypes.c_size_t(len(out))
            begun = library.EVP_DigestSignInit(
                context, None, library.EVP_sha256(), None, self.key)
            if begun != 1 or library.EVP_DigestSign(
                    context, out, ctypes.byref(length), message, len(message)) != 1:
                raise MintError(f"libcrypto does not sign with {self.algorithm}")
        finally:
            library.EVP_MD_CTX_free(context)
        signature = out.raw[:length.value]
        return der_to_raw(signature) if self.algorithm == "ES256" else signature


def load_library():
    name = ctypes.util.find_library("crypto")
    if name is None:
        raise MintError("libcrypto is needed to sign tokens (Debian: libssl3)")
    library = ctypes.CDLL(name)
    pointer, size = ctypes.c_void_p, ctypes.c_size_t
    signatures = {
        "BIO_new_mem_buf": (pointer, [ctypes.c_char_p, ctypes.c_int]),
        "BIO_free": (ctypes.c_int, [pointer]),
        "PEM_read_bio_PrivateKey": (pointer, [pointer] * 4),
        "EVP_MD_CTX_new": (pointer, []),
        "EVP_MD_CTX_free": (None, [pointer]),
        "EVP_sha256": (pointer, []),
        "EVP_DigestSignInit": (ctypes.c_int, [pointer] * 5),
        "EVP_DigestSign": (ctypes.c_int, [pointer, pointer, pointer, ctypes.c_char_p, size]),
    }
    for function, (result, arguments) in signatures.items():
        getattr(library, function).restype = result
        getattr(library, function).argtypes = arguments
    return library


def der_to_raw(signature):
    """ECDSA-Sig-Value to the 64 bytes of RFC 7518 §3.4."""
    parts, at = [], 2
    for _ in range(2):
        length = signature[at + 1]
        part = signature[at + 2:at + 2 + length]
        parts.append(part.lstrip(b"\0").rjust(32, b"\0"))
        at += 2 + length
    return b"".join(parts)


def tokens(key, count, prefix):
    """`count` different tokens of an identity provider's usual size."""
    header = base64url(json.dumps({"alg": key.algorithm, "typ": "JWT"}).encode())
    now = int(time.time())
    made = []
    for number in range(count):
        claims = {"iss": ISSUER, "aud": AUDIENCE, "sub": f"user-{number % 1000}",
                  "iat": now, "exp": now + LIFETIME_SECONDS,
                  "jti": f"{prefix}-{number:08}", "serviceName": "orders",
                  "scope": "orders:read orders:write"}
        message = header + b"." + base64url(json.dumps(claims).encode())
        made.append((message + b"." + base64url(key.sign(message))).decode())
    return made
