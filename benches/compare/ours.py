"""Outrigger's side of the comparison: its files for what a scenario wants."""

import contextlib
import pathlib

import machine

SETTINGS = """\
workers: {workers}
log: {{level: warn}}
reload: {{poll: 1h}}
"""
SERVICE = """\
port: {port}
listen: 127.0.0.1
upstream: {upstream}
healthCheck: false
"""
KEYS = """\
  apiKey:
    keys:
      - {{id: orders, key: {key}}}
"""
JWT = """\
  jwt:
    {verifies}
    issuer: {issuer}
    audience: {audience}
    algorithms: [{algorithm}]
"""
HOOK = """\
  hook:
    url: http://127.0.0.1:{hook}/check
    cache: 60s
    timeout: 10s
    responseHeaders: [X-Auth-Request-User]
"""


def settings(want, kit):
    """The process settings; the ports of its doors are not in it."""
    text = SETTINGS.format(workers=want.workers)
    if want.log:
        text += "accessLog: all\n"
    if want.export:
        text += ("tracing:\n  exporter:\n    otlp:\n"
                 f"      endpoint: http://127.0.0.1:{kit.collector.port}\n      queue: 100000\n")
    return text


def auth(want, kit):
    """The `auth` block."""
    text = ""
    names = [name for name, wanted in (("api-key", want.key), ("jwt", want.jwt)) if wanted]
    if len(names) == 2:
        text += "  allOf: [api-key, jwt]\n"
    if want.key:
        text += KEYS.format(key=kit.key)
    if want.jwt:
        verifies = (f"secret: {kit.secret.text}" if want.jwt == "HS256"
                    else "publicKey: ${file:public.pem}")
        text += JWT.format(verifies=verifies, algorithm=want.jwt, issuer=kit.issuer,
                           audience=kit.audience)
    if want.hook:
        text += HOOK.format(hook=kit.hook.port)
    return "auth:\n" + (text or "  strategy: none\n")


def service(want, kit, port, target):
    """The service's file."""
    upstream = f"unix:{kit.app.socket}" if want.unix else f"127.0.0.1:{target}"
    text = SERVICE.format(port=port, upstream=upstream) + auth(want, kit)
    if want.trace or want.export:
        text += "tracing: {samplingRate: 1}\n"
    if want.tls:
        text += "tls: {cert: cert.pem, key: key.pem}\n"
    return text


def write(folder, name, text, files=()):
    """A service's folder; the files it names are copied there."""
    place = folder / "services" / "bench" / name
    place.mkdir(parents=True)
    (place / "service.config.yaml").write_text(text)
    for file in files:
        file = pathlib.Path(file)
        (place / file.name).write_bytes(file.read_bytes())


@contextlib.contextmanager
def start(folder, want, kit, port, target, cpus, valgrind_file=None):
    """Runs it; the process and the text of its files."""
    text, process_settings = service(want, kit, port, target), settings(want, kit)
    write(folder, "orders", text,
          [kit.public, kit.certificate, kit.certificate_key])
    with machine.sidecar(kit.binary, folder, process_settings, cpus, valgrind_file) as process:
        yield process, f"# process settings\n{process_settings}# the service\n{text}"


HOP_CALLER = """\
port: {port}
listen: 127.0.0.1
upstream: 127.0.0.1:{target}
healthCheck: false
auth: {{strategy: none}}
dependencies:
  - {{name: payments, localPort: {door}, credential: {{apiKey: {key}}}}}
"""


@contextlib.contextmanager
def pair(folder, want, kit, port, target, cpus):
    """Two sidecars between a caller and the app: the caller's door for calls
    at `port`, which adds its key, and the called service, which checks it."""
    caller, called = machine.free_ports(2)
    text = HOP_CALLER.format(port=caller, target=target, door=port, key=kit.key)
    text_called = service(want, kit, called, target)
    write(folder, "orders", text)
    write(folder, "payments", text_called)
    process_settings = settings(want, kit)
    with contextlib.ExitStack() as stack:
        made = [stack.enter_context(
            machine.sidecar(kit.binary, folder, process_settings, cpus, local=name))
            for name in ("orders", "payments")]
        yield made, called, (f"# process settings of both\n{process_settings}"
                             f"# the caller\n{text}# the called\n{text_called}")
