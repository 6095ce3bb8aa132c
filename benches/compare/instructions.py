"""User instructions per request of the whole process, by callgrind: two runs
of different length, the difference divided by the difference in requests.
Start-up and the end cancel out. Steady to about a percent on one machine.
"""

import json
import pathlib
import sys

import load
import machine
import ours
import peers
import scenarios
from catalog import FULL
from kit import Want

# Requests of the short run, and how many more the long one has.
SHORT_RUN = 500
MORE = 3000
CONNECTIONS = 8
# More than callgrind varies by.
TOLERANCE = 0.03
RECORD = pathlib.Path(__file__).with_name("instructions.json")


def kinds(kit, everybody):
    """(name, proxy, want) of all that is counted."""
    made = [("outrigger plain", "outrigger", Want()), ("outrigger full", "outrigger", FULL)]
    if everybody:
        for name in ("nginx", "haproxy"):
            if name in kit.found:
                made.append((f"{name} plain", name, Want()))
        if "haproxy" in kit.found:
            made.append(("haproxy full", "haproxy", FULL))
    return made


def total(kit, name, want, place, requests):
    """Instructions of a process that served so many requests."""
    place.mkdir(parents=True)
    output = place / "callgrind.out"
    (port,) = machine.free_ports(1)
    way = scenarios.Way(name, name, want, port)
    if name == "outrigger":
        proxy = ours.start(place, want, kit, port, kit.app.port, kit.proxy_cpus, output)
    else:
        proxy = peers.start(name, place, want, kit, port, kit.app.port, kit.proxy_cpus, output)
    fields = ["\r\n".join(f"{key}: {value}" for key, value in one) or "-"
              for one in kit.credentials(want)]
    with proxy:
        scenarios.prove(way, kit)
        load.Own(CONNECTIONS).run(port, fields, requests)
    return machine.instructions(output)


def per_request(kit, place, name, proxy, want):
    """User instructions per request of one kind."""
    if machine.find("valgrind") is None:
        raise machine.MachineError("valgrind is not installed")
    short, long = (total(kit, proxy, want, place / f"{name}-{number}".replace(" ", "-"), number)
                   for number in (SHORT_RUN, SHORT_RUN + MORE))
    found = (long - short) / MORE
    print(f"{name}: {found:.0f} instructions per request", file=sys.stderr)
    return found


def compare(found):
    """What there is to say of figures beside those on record; whether they hold."""
    record, lines, good = json.loads(RECORD.read_text()), [], True
    for name, before in record.items():
        change = found[name] / before - 1
        line = f"{name}: {found[name]:.0f} instructions per request, {change:+.1%} of {before}"
        if change > TOLERANCE:
            line, good = f"{line}: too many", False
        elif change < -TOLERANCE:
            line, good = f"{line}: fewer, which --record puts on record", False
        lines.append(line)
    return "\n".join(lines), good


def record(found):
    """Puts our figures on record."""
    ours_only = {name: round(value) for name, value in found.items()
                 if name.startswith("outrigger ")}
    RECORD.write_text(json.dumps(ours_only, indent=2) + "\n")
