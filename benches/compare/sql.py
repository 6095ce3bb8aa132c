#!/usr/bin/env python3
"""What a query through the SQL door costs beside the same in a Node service.

One PostgreSQL, one client (wrk), the same request and the same answer:
- Outrigger's SQL door, `reset: always` (default) and `reset: dirty`,
- a Node service: `node:http` and a pool of `pg`, which resets nothing.

Short rounds, each with every variant in random order: queries per second, and
CPU time per query of the process in between (schedstat); PostgreSQL's own and
the client's are not counted. Ratios are taken within a round, and their median
is shown.

Linux, loopback only, Python 3.9 or later, PostgreSQL's binaries, node and npm
(`pg` is installed from the registry). wrk is installed with apt-get if missing
and allowed.
"""

import argparse
import contextlib
import glob
import json
import os
import pathlib
import pwd
import random
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request

import machine

PASSWORD = "benchmark-password"
CLIENTS = 16
POOL = 10
QUERY = {"query": "select id, name, price from items where id = $1", "params": [7]}
SETTINGS = "workers: 1\nlog: {{level: warn}}\nreload: {{poll: 1h}}\nsql: {{listen: \"127.0.0.1:{door}\"}}\n"
SERVICE = """\
port: {port}
listen: 127.0.0.1
upstream: 127.0.0.1:9
healthCheck: false
auth: none
database:
  host: 127.0.0.1
  port: {database}
  database: bench
  isolation: isolated
  user: bench
  password: {password}
  provision: false
  migrations: false
  max: {pool}
  reset: {reset}
"""
NODE = """\
const http = require("node:http");
const { Pool } = require("pg");
const pool = new Pool({ host: "127.0.0.1", port: %(database)d, database: "bench",
  user: "bench", password: "%(password)s", max: %(pool)d });
http.createServer((request, response) => {
  const chunks = [];
  request.on("data", (chunk) => chunks.push(chunk));
  request.on("end", async () => {
    const { query, params } = JSON.parse(Buffer.concat(chunks).toString());
    const result = await pool.query(query, params);
    const body = JSON.stringify({ rows: result.rows, command: result.command,
      rowCount: result.rowCount });
    response.writeHead(200, { "content-type": "application/json",
      "content-length": Buffer.byteLength(body) });
    response.end(body);
  });
}).listen(%(port)d, "127.0.0.1");
"""
WRK_SCRIPT = """\
wrk.method = "POST"
wrk.headers["Content-Type"] = "application/json"
wrk.body = [[%s]]
function response(status) if status ~= 200 then bad = (bad or 0) + 1 end end
function done(summary, latency)
  local e = summary.errors
  io.write(string.format("requests=%%d us=%%d errors=%%d p99=%%d\\n", summary.requests,
    summary.duration, e.connect + e.read + e.write + e.status + e.timeout, latency:percentile(99)))
end
"""


def binaries():
    found = sorted(glob.glob("/usr/lib/postgresql/*/bin/initdb"))
    return pathlib.Path(found[-1]).parent if found else pathlib.Path(shutil.which("initdb")).parent


@contextlib.contextmanager
def postgres(folder, cpus):
    """A private cluster with the database, the role and a table."""
    place, (port,) = folder / "postgres", machine.free_ports(1)
    place.mkdir()
    prefix = []
    if os.geteuid() == 0:
        names = {entry.pw_name: entry for entry in pwd.getpwall()}
        user = names.get("postgres") or names["nobody"]
        for path in (folder, place):
            os.chmod(path, 0o755)
        os.chown(place, user.pw_uid, user.pw_gid)
        prefix = ["setpriv", f"--reuid={user.pw_uid}", f"--regid={user.pw_gid}", "--clear-groups"]
    data = place / "data"
    subprocess.run([*prefix, binaries() / "initdb", "-U", "postgres", "-A", "trust", "-N", "-D",
                    data], check=True, stdout=subprocess.DEVNULL, cwd=place)
    hba = data / "pg_hba.conf"
    hba.write_text("host all bench all scram-sha-256\nhost all all all trust\nlocal all all trust\n")
    command = [*prefix, binaries() / "postgres", "-D", data, "-p", str(port), "-k", place,
               "-c", "listen_addresses=127.0.0.1", "-c", "fsync=off"]
    log = folder / "postgres.log"
    psql = [*prefix, binaries() / "psql", "-h", "127.0.0.1", "-p", str(port), "-U", "postgres",
            "-qXc"]
    with machine.process([str(part) for part in command], cpus, log, cwd=place) as child:
        ready = [str(part) for part in [binaries() / "pg_isready", "-h", "127.0.0.1", "-p", port]]
        machine.wait_until(lambda: subprocess.run(ready, stdout=subprocess.DEVNULL).returncode == 0,
                           "PostgreSQL", 30, child, log)
        for database, sql in (
                ("postgres", f"create role bench login password '{PASSWORD}'"),
                ("postgres", "create database bench owner bench"),
                ("bench", "create table items as select n as id, 'item ' || n as name, "
                          "n * 1.5 as price from generate_series(1, 1000) n"),
                ("bench", "alter table items owner to bench; alter table items add primary key (id);"
                          " analyze items")):
            subprocess.run([*psql, sql, database], check=True, cwd=place)
        yield port


@contextlib.contextmanager
def node(folder, database, cpus):
    place, (port,) = folder / "node", machine.free_ports(1)
    place.mkdir()
    subprocess.run(["npm", "install", "--no-audit", "--no-fund", "--silent", "pg@8"], cwd=place,
                   check=True)
    version = json.loads((place / "node_modules/pg/package.json").read_text())["version"]
    values = {"database": database, "password": PASSWORD, "pool": POOL, "port": port}
    (place / "service.js").write_text(NODE % values)
    log = folder / "node.log"
    with machine.process(["node", "service.js"], cpus, log, cwd=place) as child:
        url = f"http://127.0.0.1:{port}/sql"
        machine.wait_until(lambda: ask(url), "the Node service", 30, child, log)
        yield Variant(f"Node, pg {version}", url, machine.Process(machine.innermost(child.pid)))


@contextlib.contextmanager
def sidecar(binary, folder, database, reset, cpus):
    place = folder / reset
    port, door, admin, observe = machine.free_ports(4)
    home = place / "services" / "bench" / "items"
    home.mkdir(parents=True)
    (home / "service.config.yaml").write_text(SERVICE.format(
        port=port, database=database, password=PASSWORD, pool=POOL, reset=reset))
    (place / "config").mkdir()
    doors = f"admin: {{listen: \"127.0.0.1:{admin}\"}}\nobserve: {{listen: \"127.0.0.1:{observe}\"}}\n"
    (place / "config" / "outrigger.yaml").write_text(SETTINGS.format(door=door) + doors)
    log = folder / f"{reset}.log"
    with machine.process([str(binary), "run"], cpus, log, cwd=place) as child:
        url = f"http://127.0.0.1:{door}/sql"
        machine.wait_until(lambda: ask(url), "the sidecar", 30, child, log)
        yield Variant(f"Outrigger, reset: {reset}", url, machine.Process(child.pid))


def ask(url):
    request = urllib.request.Request(url, json.dumps(QUERY).encode(),
                                     {"content-type": "application/json"})
    with urllib.request.urlopen(request, timeout=10) as response:
        return json.load(response)["rowCount"] == 1


class Variant:
    """A way to the database, and what it was measured to cost."""

    def __init__(self, name, url, process):
        self.name, self.url, self.process = name, url, process
        self.rate, self.cpu, self.p99 = [], [], []

    def measure(self, script, seconds):
        before = self.process.cpu_seconds()
        command = ["wrk", "-t1", f"-c{CLIENTS}", f"-d{seconds}s", "-s", str(script), self.url]
        output = subprocess.run(command, capture_output=True, text=True, check=True).stdout
        line = next(line for line in output.splitlines() if line.startswith("requests="))
        seen = {key: int(value) for key, value in (part.split("=") for part in line.split())}
        if seen["errors"]:
            raise machine.MachineError(f"{self.name} was not answered as it should:\n{output}")
        self.rate.append(seen["requests"] / (seen["us"] / 1e6))
        self.cpu.append((self.process.cpu_seconds() - before) / seen["requests"] * 1e6)
        self.p99.append(seen["p99"] / 1000)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--binary", default="target/release/outrigger")
    parser.add_argument("--rounds", type=int, default=8)
    parser.add_argument("--seconds", type=int, default=3)
    arguments = parser.parse_args()
    binary = pathlib.Path(arguments.binary).resolve()
    machine.install(["wrk", "node", "npm"])
    between, others = machine.split_cpus()
    machine.pin_self(others)
    with tempfile.TemporaryDirectory() as name, contextlib.ExitStack() as stack:
        folder = pathlib.Path(name)
        script = folder / "wrk.lua"
        script.write_text(WRK_SCRIPT % json.dumps(QUERY))
        database = stack.enter_context(postgres(folder, others))
        variants = [stack.enter_context(sidecar(binary, folder, database, reset, between))
                    for reset in ("always", "dirty")]
        reference = stack.enter_context(node(folder, database, between))
        everyone = [*variants, reference]
        for variant in everyone:
            variant.measure(script, 1)
            variant.rate, variant.cpu, variant.p99 = [], [], []
        for _ in range(arguments.rounds):
            for variant in random.sample(everyone, len(everyone)):
                variant.measure(script, arguments.seconds)
                time.sleep(0.1)
    print(f"{CLIENTS} clients, a pool of {POOL}, {arguments.rounds} rounds of "
          f"{arguments.seconds} s each, medians; CPU of the process in between only.\n")
    print("| | queries/s | × Node | CPU per query, µs | × Node | p99, ms |")
    print("|---|---|---|---|---|---|")
    for variant in everyone:
        rates = statistics.median(a / b for a, b in zip(variant.rate, reference.rate))
        costs = statistics.median(a / b for a, b in zip(variant.cpu, reference.cpu))
        print(f"| {variant.name} | {statistics.median(variant.rate):.0f} | {rates:.2f} | "
              f"{statistics.median(variant.cpu):.1f} | {costs:.2f} | "
              f"{statistics.median(variant.p99):.2f} |")


if __name__ == "__main__":
    try:
        main()
    except machine.MachineError as error:
        sys.exit(str(error))
