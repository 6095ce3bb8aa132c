#!/usr/bin/env python3
"""What TLS costs: handshakes, and CPU time per request, beside nginx.

One sidecar and one nginx, each with one worker on the same CPU, with one
certificate (ECDSA P-256) between them, in front of one app. Many short rounds,
each with every variant in random order: full handshakes by `openssl s_time`
(TLS 1.3, X25519), and requests on kept connections by wrk, with and without
TLS. The cost is CPU time of the proxy (schedstat), so it does not matter that
the client is the slower side; handshakes per second are those that a CPU of
its own would do, 1 / cost. Ratios are taken within a round.

Linux, loopback only, Python 3.9 or later. openssl, nginx and wrk are installed
with apt-get if missing and allowed.
"""

import argparse
import contextlib
import dataclasses
import pathlib
import random
import re
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile

import load
import machine
import peers

SETTINGS = "workers: 1\nlog: {level: warn}\nreload: {poll: 1h}\n"
SERVICE = """\
port: {port}
listen: 127.0.0.1
upstream: 127.0.0.1:{app}
healthCheck: false
auth: {{strategy: none}}
"""
TLS = "tls: {cert: cert.pem, key: key.pem}\n"
NGINX_TLS = """\
ssl backlog=1024;
    ssl_certificate {folder}/cert.pem; ssl_certificate_key {folder}/key.pem;
    ssl_protocols TLSv1.2 TLSv1.3; ssl_session_tickets on;"""


@dataclasses.dataclass
class Variant:
    """A proxy's port, with or without TLS."""

    name: str
    port: int
    secure: bool
    process: machine.Process
    requests: list = dataclasses.field(default_factory=list)
    handshakes: list = dataclasses.field(default_factory=list)


def certificate(folder):
    """A pair for everybody, made by openssl."""
    command = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256",
               "-nodes", "-days", "2", "-subj", "/CN=localhost",
               "-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1",
               "-keyout", str(folder / "key.pem"), "-out", str(folder / "cert.pem")]
    subprocess.run(command, check=True, capture_output=True, timeout=60)


def outrigger(stack, arguments, folder, cpus, app_port):
    """One sidecar, one service in plain text and one under TLS."""
    ports = dict(zip(("plain", "secure"), machine.free_ports(2)))
    for name, port in ports.items():
        place = folder / "services" / "bench" / name
        place.mkdir(parents=True)
        text = SERVICE.format(port=port, app=app_port)
        if name == "secure":
            text += TLS
            for file in ("cert.pem", "key.pem"):
                shutil.copy(folder / file, place / file)
        (place / "service.config.yaml").write_text(text)
        print(f"Service `{name}`:\n\n```yaml\n{text}```\n")
    process = stack.enter_context(machine.sidecar(arguments.binary, folder, SETTINGS, cpus))
    return [Variant("outrigger", port, name == "secure", process)
            for name, port in ports.items()]


def nginx(stack, folder, cpus, app_port):
    """Two instances, one for each kind of port."""
    made = []
    for secure, port in zip((False, True), machine.free_ports(2)):
        instance = "nginx-tls" if secure else "nginx-plain"
        text, command = peers.config("nginx", folder, instance, port, app_port)
        if secure:
            text = text.replace("backlog=1024;", NGINX_TLS.format(folder=folder.resolve()))
            (folder / f"{instance}.conf").write_text(text)
            print(f"nginx:\n\n```text\n{text}```\n")
        process = stack.enter_context(peers.proxy(command, folder, instance, port, cpus))
        made.append(Variant("nginx", port, secure, process))
    return made


def handshakes(port, folder, seconds):
    """Full handshakes that one client makes in so many seconds."""
    command = ["openssl", "s_time", "-connect", f"127.0.0.1:{port}", "-new", "-tls1_3",
               "-time", str(seconds), "-CAfile", str(folder / "cert.pem"), "-verify", "1"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    found = re.search(r"(\d+) connections in \d+ real seconds", done.stdout)
    if not found or int(found[1]) < 10:
        raise load.LoadError(f"no handshakes:\n{done.stdout[-500:]}{done.stderr[-500:]}")
    return int(found[1])


def measure(made, clients, folder, arguments):
    """Fills the variants with one figure per round."""
    order = list(made)
    # The first round warms up and is thrown away.
    for number in range(arguments.rounds + 1):
        random.shuffle(order)
        for variant in order:
            before = variant.process.cpu_seconds()
            clients[variant.secure].run(variant.port, ["-"], arguments.requests)
            cost = (variant.process.cpu_seconds() - before) * 1e6 / arguments.requests
            if number > 0:
                variant.requests.append(cost)
            if variant.secure:
                before = variant.process.cpu_seconds()
                count = handshakes(variant.port, folder, arguments.seconds)
                cost = (variant.process.cpu_seconds() - before) * 1e6 / count
                if number > 0:
                    variant.handshakes.append(cost)
        print(f"round {number} of {arguments.rounds}", file=sys.stderr)


def row(title, ours, theirs, shown):
    ratios = [mine / other for mine, other in zip(ours, theirs)]
    low, _, high = statistics.quantiles(ratios, n=4)
    return (f"| {title} | {shown(statistics.median(ours))} | {shown(statistics.median(theirs))} | "
            f"{statistics.median(ratios):.2f} ({low:.2f}–{high:.2f}) |")


def table(made):
    """The result as Markdown."""
    of = {(variant.name, variant.secure): variant for variant in made}
    ours, theirs = of["outrigger", True], of["nginx", True]
    added = [[secure - plain for secure, plain in zip(
        of[name, True].requests, of[name, False].requests)] for name in ("outrigger", "nginx")]
    micros = "{:.1f} µs".format
    lines = ["| what | outrigger | nginx | × nginx (quartiles) |", "|---|--:|--:|--:|",
             row("full handshake, CPU", ours.handshakes, theirs.handshakes, micros),
             row("handshakes per CPU second", [1e6 / one for one in ours.handshakes],
                 [1e6 / one for one in theirs.handshakes], "{:.0f}".format),
             row("request under TLS, CPU", ours.requests, theirs.requests, micros),
             row("request in plain text, CPU", of["outrigger", False].requests,
                 of["nginx", False].requests, micros),
             f"| TLS adds to a request | {micros(statistics.median(added[0]))} | "
             f"{micros(statistics.median(added[1]))} | |"]
    return "\n".join(lines)


def read_arguments():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--binary", default="target/release/outrigger",
                        help="the sidecar, a release build [default: %(default)s]")
    parser.add_argument("--rounds", type=int, default=11,
                        help="rounds that count, after one to warm up [default: %(default)s]")
    parser.add_argument("--requests", type=int, default=6000,
                        help="requests of a variant in a round [default: %(default)s]")
    parser.add_argument("--seconds", type=int, default=1,
                        help="of handshakes in a round [default: %(default)s]")
    parser.add_argument("--connections", type=int, default=32,
                        help="kept connections of the client [default: %(default)s]")
    parser.add_argument("--no-install", action="store_true", help="never call apt-get")
    arguments = parser.parse_args()
    if min(arguments.rounds, arguments.requests, arguments.connections) < 2:
        parser.error("too few rounds, requests or connections to say anything")
    if shutil.which(arguments.binary) is None:
        parser.error(f"no binary at {arguments.binary}: cargo build --release, or --binary")
    arguments.binary = str(pathlib.Path(shutil.which(arguments.binary)).resolve())
    return arguments


def run(arguments, folder):
    proxy_cpus, other_cpus = machine.split_cpus()
    certificate(folder)
    with contextlib.ExitStack() as stack:
        app_port = stack.enter_context(machine.app(folder, other_cpus))
        made = [*outrigger(stack, arguments, folder, proxy_cpus, app_port),
                *nginx(stack, folder, proxy_cpus, app_port)]
        machine.pin_self(other_cpus)
        clients = {secure: load.Wrk(folder, arguments.connections, "https" if secure else "http")
                   for secure in (False, True)}
        measure(made, clients, folder, arguments)
    print(f"{machine.version(arguments.binary)}; {machine.name()}; client wrk, "
          f"{arguments.connections} connections; {arguments.rounds} rounds of "
          f"{arguments.requests} requests and {arguments.seconds} s of handshakes.\n")
    print(table(made))


def main():
    arguments = read_arguments()
    # Ended from outside, everything it started still ends with it.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("terminated"))
    if not arguments.no_install:
        machine.install(["wrk", "openssl"] + ([] if machine.find_nginx() else ["nginx"]))
    if not machine.find_nginx() or not shutil.which("wrk"):
        sys.exit("error: nginx and wrk are needed")
    with tempfile.TemporaryDirectory(prefix="outrigger-bench-") as name:
        try:
            run(arguments, pathlib.Path(name))
        except (machine.MachineError, load.LoadError) as error:
            sys.exit(f"error: {error}")


if __name__ == "__main__":
    main()
