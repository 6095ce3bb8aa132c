"""What Outrigger is to reach, each beside what was measured."""

import statistics

import report

MET, MISSED, UNKNOWN = "met", "**not met**", "not measured"
# Every scenario in which a proxy's memory is bounded.
BOUNDED = ("plain", "key", "full", "rs256", "64k", "h2", "h2-streams", "tls", "new", "low",
           "half", "unix")


def line(number, what, bar, measured, good):
    """A row of the table."""
    verdict = UNKNOWN if good is None else MET if good else MISSED
    return f"| {number} | {what} | {bar} | {measured} | {verdict} |"


def proper(results, name):
    """A scenario, if it was measured to its end."""
    scenario = results["scenarios"].get(name)
    return scenario if scenario and scenario["whole"] else {"ways": {}}


def ratio(results, number, what, scenario, pair, most, key="cpu_us", least=None):
    """A bar for the median of ratios within a round."""
    numbers = report.ratios(proper(results, scenario), *pair, key)
    bar = f"≤ {most:.2f} ×" if least is None else f"≥ {least:.2f} ×"
    good = None
    if numbers:
        middle = statistics.median(numbers)
        good = middle <= most if least is None else middle >= least
    return line(number, f"{what}, × {pair[1]}", bar, report.shown_ratio(numbers), good)


def bound(number, what, value, most, unit, note=""):
    """A bar for a figure that does not depend on the machine's speed."""
    if value is None:
        return line(number, what, f"≤ {most} {unit}", "–", None)
    return line(number, what, f"≤ {most} {unit}", f"{value:.1f} {unit}{note}", value <= most)


def added(results):
    """Median p50 beyond the direct call's, ours over nginx's."""
    scenario, figures = proper(results, "low"), {}
    for name in ("outrigger", "nginx"):
        mine = report.column(scenario, name, "p50_us")
        direct = report.column(scenario, "direct", "p50_us")
        if not mine or not direct:
            return line(4, "p50 added at 1 000 requests/s, × nginx", "≤ 1.00 ×", "–", None)
        figures[name] = statistics.median(one - two for one, two in zip(mine, direct))
    value = figures["outrigger"] / figures["nginx"]
    return line(4, "p50 added at 1 000 requests/s, × nginx", "≤ 1.00 ×", f"{value:.2f}",
                value <= 1)


def peak(results):
    """The most memory of ours in any of the scenarios, and where."""
    found = [(way["peak_rss_mib"], name) for name in BOUNDED
             for label, way in proper(results, name)["ways"].items()
             if label.startswith("outrigger") and way["rounds"]]
    value, where = max(found) if found else (None, "")
    return bound(5, "peak RSS in any scenario of 1–4", value, 16, "MiB", f", in `{where}`")


def rows(results):
    """Every bar that a benchmark can show."""
    def cpu(number, what, scenario, other, most, mine="outrigger", **more):
        return ratio(results, number, what, scenario, (mine, other), most, **more)

    counts = results.get("instructions") or {}
    thousands = {name: number / 1000 for name, number in counts.items()}
    idle = (results.get("idle") or {}).get("outrigger", {})
    foot = results.get("footprint") or {}
    start = foot.get("ready_ms", {}).get("outrigger")
    shares = report.column(proper(results, "workers"), "outrigger", "least_share")
    share = min(shares) if shares else None
    made = [
        cpu(1, "plain: CPU", "plain", "nginx", 0.92),
        cpu(1, "plain: CPU", "plain", "envoy", 0.40),
        bound(1, "plain: user instructions", thousands.get("outrigger plain"), 22, "k"),
        cpu(1, "p99 at half of nginx's most", "half", "nginx", 1.1, key="p99_us"),
        cpu(2, "full: CPU", "full", "nginx, plain", 1.05),
        cpu(2, "full: CPU", "full", "envoy", 0.28),
        cpu(2, "full: CPU", "full", "haproxy", 0.95),
        bound(2, "full: user instructions", thousands.get("outrigger full"), 28, "k"),
        cpu(2, "full with RS256: CPU", "rs256", "outrigger, HS256", 1.1),
        cpu(3, "64 KiB: CPU", "64k", "nginx", 0.95),
        cpu(3, "HTTP/2, one stream each: CPU", "h2", "nginx", 0.65),
        cpu(3, "HTTP/2, eight streams each: CPU", "h2-streams", "nginx", 0.65),
        cpu(3, "TLS, requests: CPU", "tls", "nginx", 0.80),
        cpu(3, "TLS, handshakes: CPU", "tls", "nginx", 0.80, key="handshake_cpu_us"),
        cpu(3, "new connections: CPU", "new", "nginx", 1.15),
        cpu(3, "Unix socket: CPU", "unix", "outrigger, TCP", 0.9),
        added(results),
        peak(results),
        bound(5, "an idle connection of 1 000", idle.get("kib_each_1000"), 4, "KiB"),
        bound(5, "an idle connection of 9 000", idle.get("kib_each_9000"), 4, "KiB"),
        bound(5, "idle process", idle.get("idle_mib"), 10, "MiB"),
        bound(5, "stripped binary", foot.get("stripped_mib"), 20, "MiB"),
        bound(5, "start to ready, files at rest, median",
              statistics.median(start) if start else None, 50, "ms"),
        ratio(results, 6, "two workers: requests/s", "workers", ("outrigger", "nginx"), None,
              "rps", least=1.0),
        line(6, "two workers: least share of one in any round", "≥ 25 %",
             f"{share:.0%}" if shares else "–", share >= 0.25 if shares else None),
        cpu(7, "access log of all: CPU", "observe", "outrigger", 1.25, "outrigger, log of all"),
        cpu(7, "spans exported at rate 1: CPU", "observe", "outrigger", 1.25,
            "outrigger, spans at rate 1"),
        cpu(8, "SQL door, reset always: CPU", "sql", "node, pg", 0.45),
        ratio(results, 8, "SQL door, reset always: requests/s", "sql", ("outrigger", "node, pg"),
              None, "rps", least=2.0),
    ]
    return made


def table(results):
    """As Markdown."""
    return "\n".join(["| | what | bar | measured: median (quartiles) | |",
                      "|--:|---|--:|--:|---|", *rows(results)])
