"""The scenarios whose rounds are alike: every way is driven once a round, in
random order, and its cost is the CPU time of the proxy's processes.
"""

import contextlib
import dataclasses
import random
import re
import sys

import clients
import load
import machine
import ours
import peers
from kit import Want

TRACE_ID = "4bf92f3577b34da6a3ce929d0e0e4736"
PARENT = f"00-{TRACE_ID}-00f067aa0ba902b7-01"


@dataclasses.dataclass
class Way:
    """A proxy, and what it is to do. `name` is `direct` for no proxy."""

    label: str
    proxy: str
    want: Want = Want()
    port: int = 0
    process: machine.Process = None
    # Of all processes between client and app.
    between: list = dataclasses.field(default_factory=list)
    rounds: list = dataclasses.field(default_factory=list)
    peak_rss_mib: float = 0
    config: str = ""

    def cpu_seconds(self):
        """Of all of them."""
        return sum(process.cpu_seconds() for process in self.between)


@dataclasses.dataclass
class Scenario:
    """What is driven, how, and what is printed above its table."""

    name: str
    title: str
    ways: list
    # (way, kit, arguments) -> what a client saw
    drive: object
    # Starts a way: (way, kit, place) -> a context.
    start: object = None
    # (way, kit): that it does what is to be measured.
    prove: object = None
    # What all ways share: (kit, place) -> a context.
    around: object = None
    problems: list = dataclasses.field(default_factory=list)


def everybody(want=Want(), reference=False):
    """Outrigger and each other proxy, as far as it can; for reference nginx
    without anything."""
    ways = [Way("outrigger", "outrigger", want)]
    ways += [Way(name, name, want) for name in ("nginx", "haproxy", "envoy")
             if not peers.lacks(name, want)]
    if reference:
        ways.append(Way("nginx, plain", "nginx"))
    return ways


@contextlib.contextmanager
def start(way, kit, place):
    """Runs a way's proxy."""
    place.mkdir(parents=True)
    if way.proxy == "direct":
        way.port = kit.app.port
        yield
        return
    (way.port,) = machine.free_ports(1)
    cpus = kit.proxy_cpus
    if way.want.workers > 1:
        cpus = kit.proxy_cpus | kit.other_cpus
    if way.proxy == "outrigger":
        running = ours.start(place, way.want, kit, way.port, kit.app.port, cpus)
    else:
        running = peers.start(way.proxy, place, way.want, kit, way.port, kit.app.port, cpus)
    with running as (way.process, way.config):
        way.between = [way.process]
        yield


def prove(way, kit):
    """What is measured is on: wrong credentials are refused, good ones pass,
    requests have ids, a trace goes on, the socket is used."""
    # A port of HTTP/2 only is not asked; its client speaks nothing else.
    if way.want.h2:
        return
    certificate = kit.certificate if way.want.tls else None
    for fields in kit.wrong(way.want):
        status, _, _ = clients.ask(way.port, fields, certificate=certificate)
        if status != 401:
            raise load.LoadError(f"{way.label}: wrong credentials were answered {status}")
    fields = kit.credentials(way.want)[0]
    status, headers, body = clients.ask(
        way.port, [*fields, ("traceparent", PARENT)], certificate=certificate)
    if status != 200:
        raise load.LoadError(f"{way.label}: good credentials were answered {status}")
    seen = dict(line.partition("=")[::2] for line in body.splitlines())
    if way.proxy != "direct":
        if not seen["id"] or headers.get("x-request-id") != seen["id"]:
            raise load.LoadError(f"{way.label}: app and client are not told of one request id")
        known = [*fields, ("x-request-id", "known-17")]
        _, headers, body = clients.ask(way.port, known, certificate=certificate)
        if headers.get("x-request-id") != "known-17" or "id=known-17\n" not in body:
            raise load.LoadError(f"{way.label}: a request did not keep its id")
    if way.want.trace or way.want.export:
        parent = re.fullmatch(rf"00-{TRACE_ID}-([0-9a-f]{{16}})-\d\d", seen["traceparent"])
        if not parent or parent[1] in PARENT:
            raise load.LoadError(f"{way.label}: the trace did not go on: {seen['traceparent']}")
    if way.want.jwt and not seen["subject"].startswith("user-"):
        raise load.LoadError(f"{way.label}: the app was not told who calls")
    if way.want.unix and not seen["server"].startswith("unix:"):
        raise load.LoadError(f"{way.label}: the app was not reached on its socket")
    if way.want.hook and not seen["user"].startswith("session-"):
        raise load.LoadError(f"{way.label}: the hook's answer did not reach the app")


def drive_wrk(path="/", **more):
    """As many requests as wrk gets through in a while."""
    def drive(way, kit, arguments):
        scheme = "https" if way.want.tls else "http"
        fields = kit.credentials(way.want)
        if more.get("close"):
            fields = [[("Connection", "close")]]
        return clients.wrk(kit.folder, f"{scheme}://localhost:{way.port}{path}", fields,
                           arguments.connections, arguments.seconds)
    return drive


def drive_h2(connections, streams):
    """As many requests over HTTP/2 as a quick proxy does in that while."""
    def drive(way, kit, arguments):
        return clients.h2load(kit.folder, f"http://127.0.0.1:{way.port}/",
                              round(10000 * arguments.seconds), connections, streams)
    return drive


def drive_paced(rate):
    """So many requests per second; `rate` may be found out by a call."""
    def drive(way, kit, arguments):
        per_second = rate(kit) if callable(rate) else rate
        count = max(round(per_second * arguments.seconds * 1.4), 300)
        return clients.h2load(kit.folder, f"http://127.0.0.1:{way.port}/", count,
                              arguments.connections, rate=per_second)
    return drive


def drive_tls(way, kit, arguments):
    """Requests on kept connections, and the cost of handshakes beside them."""
    count = max(round(160 * arguments.seconds), 20)
    before = way.cpu_seconds()
    seen = clients.handshakes(way.port, kit.certificate, count)
    cost = (way.cpu_seconds() - before) * 1e6 / count
    begun = way.cpu_seconds()
    result = drive_wrk()(way, kit, arguments)
    result["cpu_seconds"] = way.cpu_seconds() - begun
    return {**result, "handshake_cpu_us": cost, "agreed": seen["agreed"]}


def measure(scenario, kit, arguments, place):
    """Runs a scenario to its end (True); its ways are filled. What the clients saw becomes one
    dictionary a round and way, with the cost of a request in it."""
    begin, check = scenario.start or start, scenario.prove or prove
    with contextlib.ExitStack() as stack:
        if scenario.around:
            stack.enter_context(scenario.around(kit, place / "shared"))
        for number, way in enumerate(list(scenario.ways)):
            try:
                stack.enter_context(begin(way, kit, place / f"{number}-{way.proxy}"))
                check(way, kit)
            except machine.MachineError as error:
                # Without ours, or with nothing to compare, there is no scenario.
                if way.proxy == "outrigger":
                    raise
                scenario.ways.remove(way)
                scenario.problems.append(f"{way.label} is left out: {error}")
        # The first round warms up and is thrown away.
        for number in range(arguments.rounds + 1):
            for way in random.sample(scenario.ways, len(scenario.ways)):
                seen = one(scenario, way, kit, arguments)
                if number > 0:
                    way.rounds.append(seen)
            print(f"\r{scenario.name}: round {number} of {arguments.rounds}", end="",
                  file=sys.stderr, flush=True)
        print(file=sys.stderr)
        for way in scenario.ways:
            check(way, kit)
            if check is prove:
                prove_observed(way, kit)
            way.peak_rss_mib = sum(process.peak_rss_mib() for process in way.between)
    return True


def one(scenario, way, kit, arguments):
    """One round of one way."""
    workers = worker_seconds(way) if way.want.workers > 1 else {}
    before = way.cpu_seconds()
    seen = scenario.drive(way, kit, arguments)
    requests = seen.pop("requests")
    seconds = seen.pop("seconds", None)
    spent = seen.pop("cpu_seconds", None)
    if way.between:
        if spent is None:
            spent = way.cpu_seconds() - before
        seen["cpu_us"] = spent * 1e6 / requests
    if seconds:
        seen["rps"] = requests / seconds
    if way.want.workers > 1:
        spent = {name: now - workers.get(name, 0) for name, now in worker_seconds(way).items()}
        seen["least_share"] = min(spent.values()) / sum(spent.values())
    return seen


def worker_seconds(way):
    """CPU time of each worker: a thread of ours, a process of theirs."""
    spent = {}
    for process in way.between:
        for pid, name, now in process.tasks():
            if way.proxy == "outrigger" and name.startswith("worker-"):
                spent[name] = now
            elif way.proxy != "outrigger" and pid != process.pid:
                spent[pid] = now
    return spent


def prove_observed(way, kit):
    """After the rounds: requests were counted, lines written, spans taken."""
    if not isinstance(way.process, machine.Sidecar):
        return
    counted = way.process.total("outrigger_http_requests_total")
    if counted < 100:
        raise load.LoadError(f"{way.label}: {counted} requests in the metrics")
    if way.want.log and way.process.total("outrigger_log_lines_dropped_total") > counted / 100:
        raise load.LoadError(f"{way.label}: lines of the access log were lost")
    if way.want.export:
        dropped = way.process.total("outrigger_spans_dropped_total")
        if kit.collector.exports == 0 or dropped > counted / 100:
            raise load.LoadError(f"{way.label}: {kit.collector.exports} exports, {dropped} of "
                                 f"{counted} spans dropped")
