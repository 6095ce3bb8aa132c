#!/usr/bin/env python3
"""What tracing costs: CPU time and user instructions per request.

Runs as auth.py does (see there for how), with services that differ in
`tracing`: none, and rates 0, 0.1 and 1, exported to a collector that takes
everything. All of the exporter's work is in the figures, encoding included.
Requests come without a trace, and with a parent that is followed.

Linux, loopback only, Python 3.9 or later. wrk and valgrind are installed with
apt-get if missing and allowed.
"""

import shutil
import sys

import auth
import load
import machine
import servers

OPEN = "  strategy: none\n"
# Sampled or not, as the rate says: nobody has decided.
PARENT = "traceparent: 00-{number:032x}-00f067aa0ba902b7-{flags}"


def variants():
    """Every kind of tracing, none first."""
    def parents(flags):
        return [PARENT.format(number=number + 1, flags=flags) for number in range(100)]

    def traced(rate):
        return f"tracing: {{samplingRate: {rate}}}\n"

    return [
        auth.Variant("plain", "no tracing", OPEN, [], ["-"]),
        auth.Variant("rate-0", "rate 0", OPEN, [], ["-"], lines=traced(0)),
        auth.Variant("rate-0-1", "rate 0.1", OPEN, [], ["-"],
                     lines=traced(0.1)),
        auth.Variant("rate-1", "rate 1", OPEN, [], ["-"], lines=traced(1)),
        auth.Variant("carried", "no tracing, `traceparent` passed through", OPEN, [],
                     parents("00")),
        auth.Variant("parent-00", "rate 1, a parent that is not sampled", OPEN, [],
                     parents("00"), lines=traced(1)),
        auth.Variant("parent-01", "rate 0, a parent that is sampled", OPEN, [],
                     parents("01"), lines=traced(0)),
    ]


def run(arguments, folder):
    sidecar_cpus, other_cpus = machine.split_cpus()
    made = variants()
    with servers.Collector() as collector, servers.app(folder, other_cpus) as app:
        settings = (f"{auth.SETTINGS}tracing:\n  exporter:\n    otlp:\n"
                    f"      endpoint: http://127.0.0.1:{collector.port}\n      queue: 100000\n")
        auth.write_tree(folder, made, app.port, settings)
        client = load.pick(arguments.client, folder, arguments.connections)
        machine.pin_self(other_cpus)
        with machine.sidecar(arguments.binary, folder, settings, sidecar_cpus) as sidecar:
            costs = auth.measure(sidecar, made, client, arguments.rounds, arguments.requests)
            dropped, rss = sidecar.metric("outrigger_spans_dropped_total"), sidecar.peak_rss_mib()
        exports, size = collector.exports, collector.bytes
        if exports == 0 or dropped != ["outrigger_spans_dropped_total 0"]:
            sys.exit(f"error: {exports} exports; {dropped}: not what was to be measured")
        counts = {}
        if not arguments.no_instructions and shutil.which("valgrind") is not None:
            counts = auth.count_instructions(arguments, folder, made, sidecar_cpus,
                                             arguments.requests, settings)
    auth.print_result(arguments, client, rss, auth.table(made, costs, counts))
    print(f"\nThe collector got {exports} exports, {size / 2**20:.1f} MiB; no span was dropped.")


if __name__ == "__main__":
    auth.main(__doc__, run)
