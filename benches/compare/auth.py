#!/usr/bin/env python3
"""What authentication costs: CPU time and user instructions per request.

Starts an app, a hook and one sidecar (one worker, pinned to a CPU) with a
service for each way to authenticate, drives each in turn in many short rounds,
and prints a Markdown table. Machines drift, so ratios are taken within a round
and the median of them is shown. Between the rounds every service must refuse
wrong credentials, or the run ends.

User instructions are counted by valgrind --tool=callgrind for the whole
process: two runs of different length, and the difference divided by the
difference in requests. Start-up and the end cancel out.

Linux, loopback only, Python 3.9 or later; needs openssl (keys and signatures).
wrk and valgrind are installed with apt-get if missing and allowed.
"""

import dataclasses
import random
import shutil
import statistics
import sys

import load
import machine
import minting
import options
import servers

# Enough to have each cache entry used a few times per round.
CACHED = 100
# Runs under valgrind: what the first, short run sends, and its connections.
SHORT_RUN = 500
VALGRIND_CONNECTIONS = 8
API_KEY = "benchmark-key-of-orders-000000000001"

SETTINGS = """\
workers: 1
log: {level: warn}
reload: {poll: 1h}
"""


@dataclasses.dataclass
class Variant:
    """A service, and what its clients send: header fields, `-` for none."""

    name: str
    title: str
    auth: str
    wrong: list
    # Sent over and over, or (None) the next tokens of `key`, each sent once.
    fields: list = None
    key: object = None
    files: dict = dataclasses.field(default_factory=dict)
    # More of the service's file.
    lines: str = ""
    port: int = 0
    unused: list = dataclasses.field(default_factory=list)

    def mint(self, count):
        """Makes the tokens that are sent once."""
        if self.fields is None:
            self.unused = bearers(minting.tokens(self.key, count, self.name))

    def load(self, count):
        if self.fields is not None:
            return self.fields
        taken, self.unused = self.unused[:count], self.unused[count:]
        return taken


def bearers(credentials):
    return [f"Authorization: Bearer {credential}" for credential in credentials]


def jwt(key, stranger):
    """The `auth` block of a key, its files, and tokens that it must refuse."""
    common = (f"    issuer: {minting.ISSUER}\n    audience: {minting.AUDIENCE}\n"
              f"    algorithms: [{key.algorithm}]\n")
    wrong = ["-", *bearers(minting.tokens(stranger, 1, "stranger"))]
    if key.algorithm == "HS256":
        return f"  jwt:\n    secret: {key.text}\n{common}", {}, wrong
    line = "    publicKey: ${file:public.pem}\n"
    return f"  jwt:\n{line}{common}", {"public.pem": key.public}, wrong


def variants(hook_port):
    """Every way to authenticate, the plain proxy first."""
    keys = {"HS256": (minting.Secret(), minting.Secret())}
    for algorithm in ("RS256", "ES256"):
        keys[algorithm] = tuple(minting.PrivateKey(algorithm) for _ in range(2))
    carried = {algorithm: bearers(minting.tokens(key, CACHED, "cached"))
               for algorithm, (key, _) in keys.items()}
    other_keys = "".join(
        f"      - {{id: other-{number}, key: benchmark-key-of-other-00000000000{number}}}\n"
        for number in range(3))
    made = [
        Variant("plain", "plain proxy", "  strategy: none\n", [], ["-"]),
        Variant("carried", "plain proxy, RS256 token carried unread", "  strategy: none\n", [],
                carried["RS256"]),
        Variant("api-key", "API key (one of 4)",
                f"  apiKey:\n    keys:\n{other_keys}      - {{id: orders, key: {API_KEY}}}\n",
                ["-", "X-Api-Key: benchmark-key-of-orders-000000000002"],
                [f"X-Api-Key: {API_KEY}"]),
    ]
    for algorithm in ("HS256", "RS256"):
        block, files, wrong = jwt(*keys[algorithm])
        made.append(Variant(f"{algorithm}-cached".lower(), f"JWT {algorithm}, cached", block,
                            wrong, carried[algorithm], files=files))
    made.append(Variant(
        "hook-cached", "hook, cached",
        f"  hook:\n    url: http://127.0.0.1:{hook_port}/check\n    cache: 60s\n    timeout: 10s\n"
        "    responseHeaders: [X-Auth-Request-User]\n",
        ["-", "Authorization: Bearer stranger"],
        bearers(f"session-{number:04}-0123456789abcdef0123456789abcdef"
                for number in range(CACHED))))
    for algorithm in ("HS256", "RS256", "ES256"):
        block, files, wrong = jwt(*keys[algorithm])
        made.append(Variant(f"{algorithm}-uncached".lower(), f"JWT {algorithm}, never seen before",
                            block, wrong, key=keys[algorithm][0], files=files))
    return made


def write_tree(folder, made, app_port, settings=SETTINGS):
    """One service per variant. Prints the files."""
    print("Process settings (and ports of the doors):\n\n```yaml\n" + settings + "```\n")
    for variant, port in zip(made, machine.free_ports(len(made))):
        variant.port = port
        place = folder / "services" / "bench" / variant.name
        place.mkdir(parents=True)
        for name, text in variant.files.items():
            (place / name).write_text(text)
        text = (f"port: {port}\nlisten: 127.0.0.1\nupstream: 127.0.0.1:{app_port}\n"
                f"healthCheck: false\nauth:\n{variant.auth}{variant.lines}")
        (place / "service.config.yaml").write_text(text)
        print(f"Service `{variant.name}`:\n\n```yaml\n{text}```\n")


def prove(made):
    """Wrong credentials are refused: what is measured is really on."""
    for variant in made:
        for field in variant.wrong:
            status = load.status(variant.port, field)
            if status != 401:
                raise load.LoadError(f"{variant.name}: `{field[:60]}` was answered {status}")


def measure(sidecar, made, client, rounds, requests):
    """CPU microseconds per request: {variant: [one per round]}."""
    costs = {variant.name: [] for variant in made}
    order = list(made)
    # The first round warms up and is thrown away.
    for number in range(rounds + 1):
        random.shuffle(order)
        for variant in order:
            fields = variant.load(requests + client.connections)
            before = sidecar.cpu_seconds()
            client.run(variant.port, fields, requests)
            cost = (sidecar.cpu_seconds() - before) * 1e6 / requests
            if number > 0:
                costs[variant.name].append(cost)
        prove(made)
        print(f"round {number} of {rounds}", file=sys.stderr)
    return costs


def count_instructions(arguments, folder, made, cpus, requests, settings=SETTINGS):
    """User instructions per request: {variant: number}."""
    found = {}
    client = load.Own(VALGRIND_CONNECTIONS)
    for variant in made:
        # Each sidecar is a new one, so both runs may send the same tokens.
        fields = variant.load(SHORT_RUN + requests)
        totals = []
        for count in (SHORT_RUN, SHORT_RUN + requests):
            output = folder / f"callgrind.{variant.name}.{count}"
            with machine.sidecar(arguments.binary, folder, settings, cpus, output):
                prove([variant])
                client.run(variant.port, fields, count)
            totals.append(machine.instructions(output))
        found[variant.name] = (totals[1] - totals[0]) / requests
        print(f"{variant.name}: {found[variant.name]:.0f} instructions", file=sys.stderr)
    return found


def table(made, costs, counts):
    """The result as Markdown."""
    lines = ["| variant | CPU µs per request | × plain (quartiles) | user instructions | over plain |",
             "|---|--:|--:|--:|--:|"]
    for variant in made:
        own = costs[variant.name]
        ratios = [mine / plain for mine, plain in zip(own, costs["plain"])]
        low, _, high = statistics.quantiles(ratios, n=4)
        spent = counts.get(variant.name)
        instructions = f"{spent / 1000:.1f} k" if spent else "–"
        over = f"{(spent - counts['plain']) / 1000:+.1f} k" if spent else "–"
        lines.append(
            f"| {variant.title} | {statistics.median(own):.1f} | "
            f"{statistics.median(ratios):.2f} ({low:.2f}–{high:.2f}) | {instructions} | {over} |")
    return "\n".join(lines)


def run(arguments, folder):
    sidecar_cpus, other_cpus = machine.split_cpus()
    with servers.Hook() as hook:
        made = variants(hook.port)
        instructions = not arguments.no_instructions and shutil.which("valgrind") is not None
        with servers.app(folder, other_cpus) as app:
            write_tree(folder, made, app.port)
            client = load.pick(arguments.client, folder, arguments.connections)
            print("minting tokens", file=sys.stderr)
            for variant in made:
                variant.mint((arguments.rounds + 1) * (arguments.requests + client.connections)
                             + SHORT_RUN + arguments.requests)
            machine.pin_self(other_cpus)
            with machine.sidecar(arguments.binary, folder, SETTINGS, sidecar_cpus) as sidecar:
                prove(made)
                costs = measure(sidecar, made, client, arguments.rounds, arguments.requests)
                decisions, rss = sidecar.decisions(), sidecar.peak_rss_mib()
            asked = hook.asked
            counts = {}
            if instructions:
                counts = count_instructions(arguments, folder, made, sidecar_cpus,
                                            arguments.requests)
    print_result(arguments, client, rss, table(made, costs, counts))
    print(f"\nThe hook was asked {asked} times in {arguments.requests * (arguments.rounds + 1)} "
          "requests and the refusals between them. Decisions counted by the sidecar:\n")
    print("```text\n" + "\n".join(decisions) + "\n```")


def print_result(arguments, client, rss, result):
    print(f"{machine.version(arguments.binary)}; {machine.name()}; "
          f"client {client.name}, {client.connections} connections, app "
          f"{'nginx' if machine.find('nginx') else 'Python'}; {arguments.rounds} rounds of "
          f"{arguments.requests} requests; peak RSS {rss:.1f} MiB.\n")
    print(result)


def main(description=__doc__, measured=run):
    arguments = options.read(options.counted(description))
    wanted = [] if arguments.client == "own" else ["wrk"]
    options.run(arguments, measured,
                wanted + ([] if arguments.no_instructions else ["valgrind"]))


if __name__ == "__main__":
    main()
