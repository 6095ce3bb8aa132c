"""What a query through the SQL door costs beside the same in a Node service.

One PostgreSQL, one client (wrk), the same request and the same answer:
- Outrigger's SQL door, `reset: always` (default) and `reset: dirty`,
- a Node service: `node:http` and a pool of `pg`, which resets nothing.

PostgreSQL's own CPU time and the client's are not counted. Needs PostgreSQL's
binaries, node and npm (`pg` is installed from its registry).
"""

import contextlib
import glob
import json
import os
import pathlib
import pwd
import shutil
import subprocess
import time
import urllib.request

import clients
import machine
import ours

PASSWORD = "benchmark-password"
CLIENTS = 16
POOL = 10
QUERY = {"query": "select id, name, price from items where id = $1", "params": [7]}
SETTINGS = """\
workers: 1
log: {{level: warn}}
reload: {{poll: 1h}}
sql: {{listen: "127.0.0.1:{door}"}}
"""
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


def binaries():
    """The folder of PostgreSQL's programs."""
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
        # It runs as somebody else, who has to get there.
        for path in (place, *list(place.parents)[:-2]):
            os.chmod(path, os.stat(path).st_mode | 0o055)
        os.chown(place, user.pw_uid, user.pw_gid)
        prefix = ["setpriv", f"--reuid={user.pw_uid}", f"--regid={user.pw_gid}", "--clear-groups"]
    data = place / "data"
    subprocess.run([*prefix, binaries() / "initdb", "-U", "postgres", "-A", "trust", "-N", "-D",
                    data], check=True, stdout=subprocess.DEVNULL, cwd=place, timeout=60)
    hba = data / "pg_hba.conf"
    hba.write_text("host all bench all scram-sha-256\nhost all all all trust\nlocal all all trust\n")
    command = [*prefix, binaries() / "postgres", "-D", data, "-p", str(port), "-k", place,
               "-c", "listen_addresses=127.0.0.1", "-c", "fsync=off"]
    log = folder / "postgres.log"
    psql = [*prefix, binaries() / "psql", "-h", "127.0.0.1", "-p", str(port), "-U", "postgres",
            "-qXc"]
    with machine.process([str(part) for part in command], cpus, log, cwd=place) as child:
        ready = [str(part) for part in [binaries() / "pg_isready", "-h", "127.0.0.1", "-p", port]]
        machine.wait_until(lambda: subprocess.run(ready, stdout=subprocess.DEVNULL, timeout=10).returncode == 0,
                           "PostgreSQL", 30, child, log)
        for database, sql in (
                ("postgres", f"create role bench login password '{PASSWORD}'"),
                ("postgres", "create database bench owner bench"),
                ("bench", "create table items as select n as id, 'item ' || n as name, "
                          "n * 1.5 as price from generate_series(1, 1000) n"),
                ("bench", "alter table items owner to bench; alter table items add primary key (id);"
                          " analyze items")):
            subprocess.run([*psql, sql, database], check=True, cwd=place, timeout=30)
        yield port


@contextlib.contextmanager
def database(kit, place):
    """What the scenario has around it."""
    if machine.find("initdb") is None and not glob.glob("/usr/lib/postgresql/*/bin/initdb"):
        raise machine.MachineError("PostgreSQL's binaries are not installed")
    place.mkdir(parents=True)
    with postgres(place, kit.other_cpus) as kit.database:
        yield


@contextlib.contextmanager
def start(way, kit, place):
    """Runs a way to the database."""
    place.mkdir(parents=True)
    if way.proxy == "node":
        running = node(place, kit.database, kit.proxy_cpus)
    else:
        reset = "dirty" if "dirty" in way.label else "always"
        running = sidecar(kit.binary, place, kit.database, reset, kit.proxy_cpus)
    with running as (way.port, way.process, way.config):
        way.between = [way.process]
        yield


def prove(way, kit):
    """It was asked as it started; this is what it answers still."""
    if not ask(f"http://127.0.0.1:{way.port}/sql"):
        raise machine.MachineError(f"{way.label}: not the row that was asked for")


def drive(way, kit, arguments):
    """As many queries as it gets through."""
    return clients.wrk(kit.folder, f"http://127.0.0.1:{way.port}/sql", [[]], CLIENTS,
                       arguments.seconds, json.dumps(QUERY))


@contextlib.contextmanager
def node(place, database, cpus):
    """The Node service: its port, its process, its source."""
    if machine.find("node") is None or machine.find("npm") is None:
        raise machine.MachineError("node and npm are not installed")
    (port,) = machine.free_ports(1)
    subprocess.run(["npm", "install", "--no-audit", "--no-fund", "--silent", "pg@8"], cwd=place,
                   check=True, timeout=120)
    values = {"database": database, "password": PASSWORD, "pool": POOL, "port": port}
    source = NODE % values
    (place / "service.js").write_text(source)
    log = place / "node.log"
    with machine.process([machine.find("node"), "service.js"], cpus, log, cwd=place) as child:
        url = f"http://127.0.0.1:{port}/sql"
        machine.wait_until(lambda: ask(url), "the Node service", 30, child, log)
        yield port, machine.Process(child.pid), source


@contextlib.contextmanager
def sidecar(binary, place, database, reset, cpus):
    """The sidecar: its SQL door's port, its process, its files."""
    port, door = machine.free_ports(2)
    text = SERVICE.format(port=port, database=database, password=PASSWORD, pool=POOL, reset=reset)
    ours.write(place, "items", text)
    settings = SETTINGS.format(door=door)
    with machine.sidecar(binary, place, settings, cpus) as process:
        url = f"http://127.0.0.1:{door}/sql"
        deadline = time.monotonic() + 30
        # Its first session may still be under way.
        while not ask_soon(url):
            if time.monotonic() > deadline:
                raise machine.MachineError("the SQL door does not answer")
            time.sleep(0.05)
        yield door, process, f"# process settings\n{settings}# the service\n{text}"


def ask_soon(url):
    """Whether the door answers yet."""
    with contextlib.suppress(OSError):
        return ask(url)
    return False


def ask(url):
    """Whether the one query is answered with its one row."""
    request = urllib.request.Request(url, json.dumps(QUERY).encode(),
                                     {"content-type": "application/json"})
    with urllib.request.urlopen(request, timeout=10) as response:
        return json.load(response)["rowCount"] == 1
