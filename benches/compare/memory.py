"""What proxies weigh: per idle connection, idle, on disk, and how soon they
are ready.
"""

import pathlib
import socket
import subprocess
import tempfile
import time

import load
import machine
import ours
import peers
from kit import Want

# Parking begins after a second of idleness.
SETTLE_SECONDS = 3
IDLE_COUNTS = (1000, 9000)
STARTS = 15
# Files that were changed later than two seconds ago may still be being written:
# Outrigger waits until they have held still for `reload.quiet`.
REST_SECONDS = 3
JUST_WRITTEN = "outrigger, files just written"


def running(name, kit, place):
    """A proxy that only passes requests on, at a port of the OS's choosing."""
    place.mkdir(parents=True)
    (port,) = machine.free_ports(1)
    if name == "outrigger":
        return port, ours.start(place, Want(), kit, port, kit.app.port, kit.proxy_cpus)
    return port, peers.start(name, place, Want(), kit, port, kit.app.port, kit.proxy_cpus)


def open_idle(port, connections, count):
    """Opens connections until there are so many; each has had an answer."""
    request = load.request("-")
    while len(connections) < count:
        connection = socket.create_connection(("127.0.0.1", port), timeout=20)
        connections.append(connection)
        connection.sendall(request)
        answer = b""
        while load.answer_size(answer) is None:
            more = connection.recv(4096)
            if not more:
                raise load.LoadError(f"connection {len(connections)} was closed")
            answer += more


def idle(name, kit, place):
    """Resident KiB of a proxy's idle connection, and what it weighs without."""
    machine.forget_cached(kit.binary if name == "outrigger" else machine.find(name) or name)
    port, proxy = running(name, kit, place)
    connections = []
    with proxy as (process, _):
        try:
            open_idle(port, connections, 10)
            time.sleep(SETTLE_SECONDS)
            base = process.rss_mib()
            figures = {"idle_mib": base}
            for count in IDLE_COUNTS:
                open_idle(port, connections, count)
                time.sleep(SETTLE_SECONDS)
                figures[f"kib_each_{count}"] = (process.rss_mib() - base) * 1024 / count
        finally:
            for connection in connections:
                connection.close()
    return figures


def starts(kit, names, place):
    """Milliseconds from start to ready, of many starts: {label: [one each]}.
    Outrigger starts on files that lie there, as where it is deployed, and on
    files that were written the moment before."""
    found = {name: [] for name in names}

    def timed(label, proxy):
        begun = time.monotonic()
        with proxy:
            found.setdefault(label, []).append((time.monotonic() - begun) * 1000)

    for number in range(STARTS):
        timed(JUST_WRITTEN, running("outrigger", kit, place / f"outrigger-{number}")[1])
    time.sleep(REST_SECONDS)
    settings = ours.settings(Want(), kit)
    for number in range(STARTS):
        for name in names:
            folder = place / f"{name}-{number}"
            if name == "outrigger":
                timed(name, machine.sidecar(kit.binary, folder, settings, kit.proxy_cpus))
            else:
                timed(name, running(name, kit, folder)[1])
    return found


def stripped_mib(binary):
    """Size of the binary without symbols, or None where `strip` is not there."""
    if machine.find("strip") is None:
        return None
    with tempfile.TemporaryDirectory() as folder:
        copy = pathlib.Path(folder) / "stripped"
        subprocess.run(["strip", "-o", copy, binary], check=True, timeout=60)
        return copy.stat().st_size / 2**20


def footprint(kit, names, place):
    """All of it but idle connections. Envoy takes its time and is left out."""
    names = [name for name in names if name != "envoy"]
    return {"stripped_mib": stripped_mib(kit.binary), "ready_ms": starts(kit, names, place)}
