"""Tables of what was measured, and the statistics behind them.

Only ratios within a round are worth something on a machine that drifts: a
figure of one way over the figure of another in the same round; of those the
median, and the quartiles for the spread.
"""

import statistics

# Columns: key of a round, heading, how it is shown, whether less is better.
COLUMNS = (
    ("cpu_us", "CPU", "{:.1f} µs"),
    ("handshake_cpu_us", "CPU of a handshake", "{:.0f} µs"),
    ("rps", "requests/s", "{:.0f}"),
    ("p50_us", "p50", "{:.0f} µs"),
    ("p99_us", "p99", "{:.0f} µs"),
    ("single_p50_us", "p50 one by one", "{:.0f} µs"),
    ("single_p99_us", "p99 one by one", "{:.0f} µs"),
    ("least_share", "least worker's share", "{:.0%}"),
)
# What the others are compared with, the first of them that is there.
REFERENCES = ("nginx", "nginx, plain", "node, pg", "outrigger", "direct")


def spread(numbers):
    """Median and quartiles."""
    if len(numbers) < 2:
        return (numbers[0],) * 3
    low, _, high = statistics.quantiles(numbers, n=4)
    return statistics.median(numbers), low, high


def column(scenario, label, key):
    """A figure of every round, or None."""
    way = scenario["ways"].get(label)
    if not way or not way["rounds"] or key not in way["rounds"][0]:
        return None
    return [one[key] for one in way["rounds"]]


def ratios(scenario, label, other, key="cpu_us"):
    """Of each round, or None where one of both is missing."""
    mine, theirs = column(scenario, label, key), column(scenario, other, key)
    if mine is None or theirs is None:
        return None
    pairs = [(one, two) for one, two in zip(mine, theirs) if two]
    return [one / two for one, two in pairs] or None


def shown_ratio(numbers):
    """`1.02 (0.98–1.05)`."""
    if not numbers:
        return "–"
    middle, low, high = spread(numbers)
    return f"{middle:.2f} ({low:.2f}–{high:.2f})"


def reference(scenario):
    """Who the others are compared with."""
    measured = [label for label, way in scenario["ways"].items() if way["rounds"]]
    return next((label for label in REFERENCES if label in measured), None)


def table(scenario):
    """A scenario's ways, a line each."""
    keys = [one for one in COLUMNS if any(
        way["rounds"] and one[0] in way["rounds"][0] for way in scenario["ways"].values())]
    base = reference(scenario)
    lines = ["| | " + " | ".join(
        f"{heading} | × {base}" if key in ("cpu_us", "rps", "handshake_cpu_us") else heading
        for key, heading, _ in keys) + " | peak RSS |"]
    width = lines[0].count("|") - 1
    lines.append("|---" * 1 + "|--:" * (width - 1) + "|")
    for label, way in scenario["ways"].items():
        cells = [label]
        for key, _, form in keys:
            numbers = column(scenario, label, key)
            cells.append(form.format(statistics.median(numbers)) if numbers else "–")
            if key in ("cpu_us", "rps", "handshake_cpu_us"):
                cells.append(shown_ratio(ratios(scenario, label, base, key)))
        rss = way.get("peak_rss_mib")
        cells.append(f"{rss:.1f} MiB" if rss else "–")
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def idle_table(found):
    """Resident memory of idle connections."""
    counts = sorted(int(key.rsplit("_", 1)[1]) for key in next(iter(found.values()))
                    if key.startswith("kib_each_"))
    lines = ["| | idle process | " + " | ".join(
        f"each of {count:,}".replace(",", " ") + " idle connections" for count in counts) + " |",
        "|---|--:" + "|--:" * len(counts) + "|"]
    for name, figures in found.items():
        each = [f"{figures[f'kib_each_{count}']:.1f} KiB" for count in counts]
        lines.append(f"| {name} | {figures['idle_mib']:.1f} MiB | " + " | ".join(each) + " |")
    return "\n".join(lines)


def footprint_table(found):
    """Size and start."""
    lines = ["| | start to ready: median (quartiles) |", "|---|--:|"]
    for name, times in found["ready_ms"].items():
        middle, low, high = spread(times)
        lines.append(f"| {name} | {middle:.0f} ms ({low:.0f}–{high:.0f}) |")
    if found["stripped_mib"]:
        lines.append(f"\nOutrigger's binary, stripped: {found['stripped_mib']:.1f} MiB.")
    return "\n".join(lines)


def instructions_table(found):
    """User instructions per request."""
    lines = ["| | user instructions per request |", "|---|--:|"]
    lines += [f"| {name} | {number / 1000:.1f} k |" for name, number in found.items()]
    return "\n".join(lines)


def markdown(results):
    """Everything, as one document's part."""
    parts = []
    for scenario in results["scenarios"].values():
        text = f"### {scenario['title']}\n\n"
        if any(way["rounds"] for way in scenario["ways"].values()):
            text += table(scenario) + "\n"
        for problem in scenario["problems"]:
            first = problem.splitlines()[0]
            text += f"\n{first[:1].upper()}{first[1:]}\n"
        parts.append(text)
    for key, title, show in (("idle", "Idle connections", idle_table),
                             ("footprint", "Size and start", footprint_table),
                             ("instructions", "Instructions", instructions_table)):
        if results.get(key):
            parts.append(f"### {title}\n\n{show(results[key])}\n")
    return "\n".join(parts)


def setting(results):
    """Who was measured, where and how, in a sentence."""
    load = " to ".join(f"{one:.1f}" for one in results["load"])
    skipped = "".join(f" {name}: {why}." for name, why in results["skipped"].items())
    return (f"{', '.join(results['versions'].values())}; {results['machine']}; load of the machine "
            f"from start to end {load}. One worker pinned to a CPU, client and app on the others; "
            f"{results['connections']} connections; answers of 200 bytes; {results['rounds']} "
            f"rounds of {results['seconds']} s a way.{skipped}")
