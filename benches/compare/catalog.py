"""The list of scenarios, in the order in which they are run."""

import contextlib
import os

import clients
import load
import machine
import ours
import peers
import sql
from kit import Want
from scenarios import (Scenario, Way, drive_h2, drive_paced, drive_tls, drive_wrk, everybody,
                       start)

FULL = Want(key=True, jwt="HS256", trace=True)
FULL_RS256 = Want(key=True, jwt="RS256", trace=True)
# What nginx gets through is asked of one that is there for that only.
HALF_TRIES = 3


def nginx_half(kit):
    """Half of what nginx gets through as fast as it goes (requests/s), found
    out once a run."""
    if not hasattr(kit, "half"):
        place = kit.folder / "half-of-nginx"
        place.mkdir()
        (port,) = machine.free_ports(1)
        with peers.start("nginx", place, Want(), kit, port, kit.app.port, kit.proxy_cpus):
            seen = [clients.wrk(kit.folder, f"http://localhost:{port}/", [[]], 64, 0.5)
                    for _ in range(HALF_TRIES + 1)]
        rates = sorted(one["requests"] / one["seconds"] for one in seen[1:])
        kit.half = rates[HALF_TRIES // 2] / 2
    return kit.half


@contextlib.contextmanager
def start_hop(way, kit, place):
    """Two proxies of a kind between caller and app; one pair of sidecars."""
    place.mkdir(parents=True)
    if way.proxy == "direct":
        way.port = kit.app.port
        yield
        return
    (way.port,) = machine.free_ports(1)
    if way.proxy == "outrigger":
        with ours.pair(place, Want(key=True), kit, way.port, kit.app.port,
                       kit.proxy_cpus) as (way.between, called, way.config):
            if load.status(called, "-") != 401:
                raise load.LoadError("the called sidecar does not check the key")
            yield
        return
    (second,) = machine.free_ports(1)
    with contextlib.ExitStack() as stack:
        for number, (port, target) in enumerate(((way.port, second), (second, kit.app.port))):
            folder = place / str(number)
            folder.mkdir()
            process, way.config = stack.enter_context(peers.start(
                way.proxy, folder, Want(), kit, port, target, kit.proxy_cpus))
            way.between.append(process)
        yield


@contextlib.contextmanager
def start_everywhere(way, kit, place):
    """Proxy, app and client share all CPUs."""
    everywhere = kit.proxy_cpus | kit.other_cpus
    for pid in (0, kit.app.pid):
        os.sched_setaffinity(pid, everywhere)
    try:
        with start(way, kit, place):
            yield
    finally:
        for pid in (0, kit.app.pid):
            os.sched_setaffinity(pid, kit.other_cpus)


def drive_hop(way, kit, arguments):
    """As fast as it goes for the cost, one after another for the latency."""
    one = clients.singles(way.port, max(round(500 * arguments.seconds), 100))
    before = way.cpu_seconds() if way.between else 0
    seen = drive_wrk()(way, kit, arguments)
    spent = way.cpu_seconds() - before if way.between else 0
    return {**seen, "cpu_seconds": spent, "single_p50_us": one["p50_us"],
            "single_p99_us": one["p99_us"]}


def catalog():
    """Every scenario of equal rounds, made anew."""
    direct = Way("direct", "direct")
    return [
        Scenario("plain", "Plain proxy", everybody(), drive_wrk()),
        Scenario("key", "API key", everybody(Want(key=True)), drive_wrk()),
        Scenario("full", "Full: key, JWT (HS256), trace, metrics", everybody(FULL, True),
                 drive_wrk()),
        Scenario("rs256", "The same with RS256",
                 [*everybody(FULL_RS256), Way("outrigger, HS256", "outrigger", FULL)],
                 drive_wrk()),
        Scenario("64k", "Answers of 64 KiB", everybody(), drive_wrk("/64k")),
        Scenario("h2", "HTTP/2, 64 connections, one stream each", everybody(Want(h2=True)),
                 drive_h2(64, 1)),
        Scenario("h2-streams", "HTTP/2, 8 connections, eight streams each",
                 everybody(Want(h2=True)), drive_h2(8, 8)),
        Scenario("tls", "TLS: requests on kept connections, and full handshakes",
                 everybody(Want(tls=True)), drive_tls),
        Scenario("new", "A new connection for each request", everybody(),
                 drive_wrk(close=True)),
        Scenario("low", "1 000 requests per second", [*everybody(), direct], drive_paced(1000)),
        Scenario("half", "Half of what nginx gets through", everybody(),
                 drive_paced(nginx_half)),
        Scenario("unix", "The app on a Unix socket",
                 [Way("outrigger", "outrigger", Want(unix=True)),
                  Way("outrigger, TCP", "outrigger"),
                  Way("nginx", "nginx", Want(unix=True)), Way("nginx, TCP", "nginx")],
                 drive_wrk()),
        Scenario("hop", "A call from service to service, two proxies in between",
                 [*everybody(), Way("direct", "direct")], drive_hop, start_hop),
        Scenario("hook", "A hook, cached", everybody(Want(hook=True), True), drive_wrk()),
        Scenario("observe", "Access log and export of every span",
                 [Way("outrigger, log of all", "outrigger", Want(log=True)),
                  Way("outrigger, spans at rate 1", "outrigger", Want(export=True)),
                  Way("outrigger", "outrigger")], drive_wrk()),
        Scenario("workers", "Two workers on all CPUs",
                 [Way(name, name, Want(workers=2)) for name in ("outrigger", "nginx")],
                 drive_wrk(), start_everywhere),
        Scenario("sql", "A query through the SQL door",
                 [Way("outrigger", "outrigger"), Way("outrigger, reset: dirty", "outrigger"),
                  Way("node, pg", "node")], sql.drive, sql.start, sql.prove, sql.database),
    ]
