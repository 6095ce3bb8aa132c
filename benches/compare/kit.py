"""What every scenario takes from: the app, the credentials, the certificate,
the hook, the collector, and which proxies there are.
"""

import base64
import contextlib
import dataclasses
import json
import pathlib
import subprocess

import machine
import minting
import peers
import servers

# Tokens in use at once: each is seen many times, so caches of them count.
TOKENS = 100
PEERS = ("nginx", "haproxy", "envoy")


@dataclasses.dataclass(frozen=True)
class Want:
    """What a proxy shall do beside passing requests on."""

    key: bool = False
    # HS256 or RS256
    jwt: str = ""
    trace: bool = False
    tls: bool = False
    h2: bool = False
    # The app is reached on its Unix socket.
    unix: bool = False
    # A hook is asked, and its answers remembered.
    hook: bool = False
    # Every request has a line in the access log.
    log: bool = False
    # Every request's span is exported.
    export: bool = False
    workers: int = 1


@dataclasses.dataclass
class Kit:
    """See the module."""

    folder: pathlib.Path
    binary: str
    app: servers.App
    hook: servers.Hook
    collector: servers.Collector
    proxy_cpus: set
    other_cpus: set
    found: dict
    key = "benchmark-key-of-orders-000000000001"
    wrong_key = "benchmark-key-of-orders-000000000002"
    issuer = minting.ISSUER
    audience = minting.AUDIENCE

    def __post_init__(self):
        self.secret, self.private = minting.Secret(), minting.PrivateKey("RS256")
        self.public = self.folder / "public.pem"
        self.public.write_text(self.private.public)
        self.tokens = {key.algorithm: minting.tokens(key, TOKENS, "cached")
                       for key in (self.secret, self.private)}
        stranger = minting.Secret(), minting.PrivateKey("RS256")
        self.wrong_tokens = {key.algorithm: minting.tokens(key, 1, "stranger")[0]
                             for key in stranger}
        self.certificate = self.folder / "cert.pem"
        self.certificate_key = self.folder / "key.pem"
        certificate(self.certificate, self.certificate_key)
        # HAProxy takes both from one file.
        (self.folder / "pair.pem").write_text(
            self.certificate.read_text() + self.certificate_key.read_text())

    def jwks(self, algorithm):
        """The key that verifies, as a key set."""
        if algorithm == "HS256":
            encoded = minting.base64url(self.secret.text.encode()).decode()
            return json.dumps({"keys": [{"kty": "oct", "alg": algorithm, "k": encoded}]})
        text = minting.openssl("rsa", "-pubin", "-in", str(self.public), "-noout", "-modulus")
        modulus = bytes.fromhex(text.decode().strip().partition("=")[2])
        return json.dumps({"keys": [{
            "kty": "RSA", "alg": algorithm, "n": minting.base64url(modulus).decode(),
            "e": base64.urlsafe_b64encode(b"\1\0\1").decode()}]})

    def credentials(self, want):
        """What clients send, in turn: lists of header fields."""
        made = [[]]
        if want.jwt:
            made = [[("Authorization", f"Bearer {token}")] for token in self.tokens[want.jwt]]
        if want.hook:
            made = [[("Authorization", f"Bearer session-{number:04}-0123456789abcdef0123456789")]
                    for number in range(TOKENS)]
        if want.key:
            made = [[("X-Api-Key", self.key), *fields] for fields in made]
        return made

    def wrong(self, want):
        """What has to be refused, each a list of header fields."""
        good, made = self.credentials(want)[0], []
        if want.key:
            made += [[], [("X-Api-Key", self.wrong_key), *good[1:]]]
        if want.jwt:
            kept = [field for field in good if field[0] != "Authorization"]
            made += [kept, [*kept, ("Authorization", f"Bearer {self.wrong_tokens[want.jwt]}")]]
        if want.hook:
            made += [[], [("Authorization", "Bearer stranger")]]
        return made


def certificate(path, key):
    """A pair for everybody (ECDSA P-256), made by openssl."""
    command = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256",
               "-nodes", "-days", "2", "-subj", "/CN=localhost",
               "-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1",
               "-keyout", str(key), "-out", str(path)]
    subprocess.run(command, check=True, capture_output=True, timeout=60)


def versions(binary, names):
    """What each proxy says it is, and why some are left out."""
    found, skipped = {"outrigger": machine.version(binary)}, {}
    for name in PEERS:
        if name not in names:
            skipped[name] = "not asked for"
        elif machine.find(name) is None:
            skipped[name] = "not installed"
        else:
            found[name] = peers.version(name)
    return found, skipped


@contextlib.contextmanager
def kit(arguments, folder, found):
    """Starts what is there all the time."""
    proxy_cpus, other_cpus = machine.split_cpus()
    with servers.Hook() as hook, servers.Collector() as collector, \
            servers.app(folder, other_cpus) as app:
        if app.socket is None:
            raise machine.MachineError("nginx is needed for the app")
        machine.pin_self(other_cpus)
        yield Kit(folder.resolve(), arguments.binary, app, hook, collector, proxy_cpus,
                  other_cpus, found)
