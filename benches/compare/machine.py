"""What the benchmark runs beside itself: the app, the hook, the sidecar; and
how the sidecar's cost is read. Linux only (/proc).

Everything listens on the loopback interface, on ports of the OS's choosing,
and ends with the benchmark.
"""

import contextlib
import http.server
import os
import pathlib
import platform
import re
import selectors
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.request

PATH = os.environ.get("PATH", "/usr/bin:/bin")
BODY = b"x" * 200
START_SECONDS = 20
# Under valgrind everything is some fifty times slower.
START_SECONDS_VALGRIND = 180


class MachineError(Exception):
    """A sentence about what did not start or went wrong."""


def free_ports(count):
    """Ports that were free a moment ago."""
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [open_socket.getsockname()[1] for open_socket in sockets]
    for open_socket in sockets:
        open_socket.close()
    return ports


def split_cpus():
    """The sidecar's CPU and those of everything else."""
    cpus = sorted(os.sched_getaffinity(0))
    if len(cpus) == 1:
        return {cpus[0]}, {cpus[0]}
    return {cpus[0]}, set(cpus[1:])


def pin_self(cpus):
    """Keeps this process, and the clients it starts, away from the sidecar."""
    os.sched_setaffinity(0, cpus)


def install(commands):
    """Installs what is missing with apt-get, as root only. Says so."""
    missing = [name for name in commands if shutil.which(name) is None]
    if not missing or os.geteuid() != 0 or shutil.which("apt-get") is None:
        return
    print(f"installing with apt-get: {' '.join(missing)}", file=sys.stderr)
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    for command in (["apt-get", "update", "-qq"],
                    ["apt-get", "install", "-y", "-qq", *missing]):
        subprocess.run(command, env=environment, stdin=subprocess.DEVNULL,
                       stdout=subprocess.DEVNULL, check=False, timeout=300)


@contextlib.contextmanager
def process(command, cpus, log, **options):
    """Runs a command on some CPUs until the block ends."""
    with open(log, "wb") as output:
        child = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=output, stderr=output,
            preexec_fn=lambda: os.sched_setaffinity(0, cpus), **options)
        try:
            yield child
        finally:
            child.send_signal(signal.SIGTERM)
            try:
                child.wait(timeout=60)
            except subprocess.TimeoutExpired:
                child.kill()
                child.wait()


def innermost(pid):
    """The process that a chain of launchers (a script, a shim) ends in."""
    while True:
        children = pathlib.Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
        if len(children) != 1:
            return pid
        pid = int(children[0])


def wait_until(condition, what, seconds, child, log):
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if child.poll() is not None:
            text = pathlib.Path(log).read_text(errors="replace")[-2000:]
            raise MachineError(f"{what} ended at once:\n{text}")
        with contextlib.suppress(OSError):
            if condition():
                return
        time.sleep(0.02)
    raise MachineError(f"{what} is not ready after {seconds} s; its output: {log}")


def answers(url):
    with urllib.request.urlopen(url, timeout=10) as response:
        return response.status == 200


# The app

NGINX_CONFIG = """\
daemon off; master_process off; worker_processes 1; pid {folder}/nginx.pid;
error_log {folder}/nginx.log crit;
events {{ worker_connections 4096; }}
http {{
  access_log off; keepalive_requests 1000000000; keepalive_timeout 1h;
  client_body_temp_path {folder}/t1; proxy_temp_path {folder}/t2; fastcgi_temp_path {folder}/t3;
  uwsgi_temp_path {folder}/t4; scgi_temp_path {folder}/t5;
  server {{ listen 127.0.0.1:{port}; location / {{ return 200 "{body}"; }} }}
}}
"""


def find_nginx():
    """Its place: sbin is not on everyone's path."""
    return shutil.which("nginx", path=f"{PATH}:/usr/sbin:/usr/local/sbin")


@contextlib.contextmanager
def app(folder, cpus):
    """A keep-alive app that answers 200 bytes: nginx, else this file."""
    (port,) = free_ports(1)
    nginx = find_nginx()
    if nginx:
        config = folder / "nginx.conf"
        config.write_text(NGINX_CONFIG.format(folder=folder, port=port, body=BODY.decode()))
        command = [nginx, "-c", str(config), "-e", str(folder / "nginx.log")]
    else:
        command = [sys.executable, __file__, str(port)]
    log = folder / "app.log"
    with process(command, cpus, log) as child:
        wait_until(lambda: answers(f"http://127.0.0.1:{port}/"), "the app",
                   START_SECONDS, child, log)
        yield port


def serve_app(port):
    """The app without nginx: one thread, no pipelining, no bodies."""
    answer = (b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: "
              + str(len(BODY)).encode() + b"\r\n\r\n" + BODY)
    selector = selectors.DefaultSelector()
    listener = socket.create_server(("127.0.0.1", port), backlog=1024)
    selector.register(listener, selectors.EVENT_READ, None)
    while True:
        for key, _ in selector.select():
            if key.data is None:
                connection, _ = listener.accept()
                connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                selector.register(connection, selectors.EVENT_READ, bytearray())
                continue
            try:
                data = key.fileobj.recv(65536)
            except ConnectionError:
                data = b""
            if not data:
                selector.unregister(key.fileobj)
                key.fileobj.close()
                continue
            key.data.extend(data)
            if key.data.endswith(b"\r\n\r\n"):
                key.data.clear()
                key.fileobj.sendall(answer)


# The hook

class Hook:
    """Grants whoever carries `Bearer session-…`. Counts what it is asked."""

    def __init__(self):
        hook = self
        self.asked = 0

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self):
                hook.asked += 1
                credential = self.headers.get("Authorization", "")
                granted = credential.startswith("Bearer session-")
                self.send_response(200 if granted else 401)
                if granted:
                    self.send_header("X-Auth-Request-User", credential[7:])
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, *arguments):
                pass

        class Server(http.server.ThreadingHTTPServer):
            daemon_threads = True
            # As many as there are clients may ask at once.
            request_queue_size = 1024

        self.server = Server(("127.0.0.1", 0), Handler)
        self.port = self.server.server_address[1]

    def __enter__(self):
        threading.Thread(target=self.server.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *_):
        self.server.shutdown()
        self.server.server_close()


# The collector

class Collector:
    """Takes whatever spans are exported. Counts the exports and their bytes."""

    def __init__(self):
        collector = self
        self.exports = 0
        self.bytes = 0

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self):
                length = int(self.headers.get("Content-Length", 0))
                collector.bytes += len(self.rfile.read(length))
                collector.exports += 1
                self.send_response(200)
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, *arguments):
                pass

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        self.port = self.server.server_address[1]

    def __enter__(self):
        threading.Thread(target=self.server.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *_):
        self.server.shutdown()
        self.server.server_close()


# The sidecar

class Process:
    """A running process and what it has cost."""

    def __init__(self, pid):
        self.pid = pid

    def cpu_seconds(self):
        """Time on a CPU of all its threads, to the nanosecond where the kernel
        keeps it (schedstat), else to the tick."""
        total = 0
        for task in pathlib.Path(f"/proc/{self.pid}/task").iterdir():
            try:
                total += int((task / "schedstat").read_text().split()[0])
            except FileNotFoundError:
                fields = pathlib.Path(f"/proc/{self.pid}/stat").read_text()
                user, system = fields.rpartition(")")[2].split()[11:13]
                return (int(user) + int(system)) / os.sysconf("SC_CLK_TCK")
        return total / 1e9

    def peak_rss_mib(self):
        text = pathlib.Path(f"/proc/{self.pid}/status").read_text()
        return int(re.search(r"VmHWM:\s+(\d+)", text)[1]) / 1024


class Sidecar(Process):
    """A running sidecar, and what it says of itself."""

    def __init__(self, pid, observe):
        super().__init__(pid)
        self.observe = observe

    def metric(self, name):
        """Samples of a metric, as lines."""
        with urllib.request.urlopen(f"http://127.0.0.1:{self.observe}/metrics") as response:
            lines = response.read().decode().splitlines()
        return [line for line in lines if line.startswith((f"{name}{{", f"{name} "))]

    def decisions(self):
        """Authentication decisions."""
        return self.metric("outrigger_auth_decisions_total")


@contextlib.contextmanager
def sidecar(binary, folder, settings, cpus, valgrind_file=None, local=None):
    """Runs the sidecar on the tree below `folder`, of which it fronts all
    services or `local`. `settings` misses the ports of its doors only."""
    observe, admin = free_ports(2)
    name = local or "outrigger"
    config = folder / f"{name}.yaml"
    config.write_text(
        f"{settings}observe: {{listen: 127.0.0.1:{observe}}}\n"
        f"admin: {{listen: 127.0.0.1:{admin}}}\n")
    command = [binary, "run", "--config", str(config), "--services", str(folder / "services")]
    if local:
        command += ["--service", local]
    seconds = START_SECONDS
    if valgrind_file:
        command = ["valgrind", "--tool=callgrind", f"--callgrind-out-file={valgrind_file}",
                   *command]
        seconds = START_SECONDS_VALGRIND
    log = folder / f"{name}.log"
    # A clean environment: some variables would be configuration.
    environment = {"PATH": PATH}
    with process(command, cpus, log, env=environment, cwd=folder) as child:
        wait_until(lambda: answers(f"http://127.0.0.1:{observe}/readyz"), "the sidecar",
                   seconds, child, log)
        yield Sidecar(child.pid, observe)


def name():
    """The CPU and the kernel."""
    model = platform.machine()
    for line in pathlib.Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            model = line.partition(":")[2].strip()
            break
    return f"{model}, Linux {platform.release()}"


def version(binary):
    """What a binary says it is."""
    done = subprocess.run([binary, "--version"], capture_output=True, text=True, check=True,
                          timeout=10)
    return done.stdout.strip()


def instructions(valgrind_file):
    """The total of a callgrind output."""
    with open(valgrind_file, encoding="utf-8", errors="replace") as lines:
        for line in lines:
            if line.startswith(("summary:", "totals:")):
                return int(line.split()[1])
    raise MachineError(f"no total in {valgrind_file}")


if __name__ == "__main__":
    serve_app(int(sys.argv[1]))
