"""How the benchmark runs processes on CPUs of their own, reads what they cost,
and ends them. Linux only (/proc).
"""

import contextlib
import ctypes
import os
import pathlib
import platform
import resource
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.request

# Daemons of Debian are not on everyone's path.
PATH = os.environ.get("PATH", "/usr/bin:/bin") + ":/usr/sbin:/usr/local/sbin"
START_SECONDS = 20
# Under valgrind everything is some fifty times slower.
START_SECONDS_VALGRIND = 180
# From the first signal to the one that nothing survives.
STOP_SECONDS = 10
# Debian's packages of commands that have another name.
PACKAGES = {"h2load": "nghttp2-client", "nginx": "nginx-light", "strip": "binutils"}


class MachineError(Exception):
    """A sentence about what did not start or went wrong."""


GIVEN = set()


def free_ports(count):
    """Ports that were free a moment ago; none is given twice."""
    with contextlib.ExitStack() as stack:
        ports = []
        while len(ports) < count:
            server = stack.enter_context(socket.create_server(("127.0.0.1", 0)))
            port = server.getsockname()[1]
            if port not in GIVEN:
                ports.append(port)
        GIVEN.update(ports)
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


def raise_limits():
    """As many descriptors as are allowed; whatever is started inherits them."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    return most


def find(command):
    """The place of a command, or None."""
    return shutil.which(command, path=PATH)


def forget_cached(program):
    """Lets the page cache go of a program that nobody runs: of one that a linker
    has just written it holds larger pieces than of one that was read, and the
    kernel maps whole ones."""
    with contextlib.suppress(OSError), open(program, "rb") as file:
        os.fsync(file.fileno())
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def install(commands):
    """Installs what is missing with apt-get, as root only. Says so."""
    missing = [PACKAGES.get(name, name) for name in commands if find(name) is None]
    if not missing or os.geteuid() != 0 or shutil.which("apt-get") is None:
        return
    print(f"installing with apt-get: {' '.join(missing)}", file=sys.stderr)
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    for command in (["apt-get", "update", "-qq"],
                    ["apt-get", "install", "-y", "-qq", *missing]):
        with contextlib.suppress(subprocess.TimeoutExpired):
            subprocess.run(command, env=environment, stdin=subprocess.DEVNULL,
                           stdout=subprocess.DEVNULL, check=False, timeout=300)


LIBC = ctypes.CDLL(None)
PR_SET_PDEATHSIG = 1


def die_together():
    """In a child: it does not outlive the benchmark, however that ends."""
    LIBC.prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


def prepare(cpus):
    """In the child: its CPUs, too."""
    die_together()
    os.sched_setaffinity(0, cpus)


@contextlib.contextmanager
def process(command, cpus, log, slow=False, **options):
    """Runs a command on some CPUs until the block ends."""
    with open(log, "wb") as output:
        child = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=output, stderr=output,
            start_new_session=True, preexec_fn=lambda: prepare(cpus), **options)
        try:
            yield child
        finally:
            stop(child, START_SECONDS_VALGRIND if slow else STOP_SECONDS)


def stop(child, seconds):
    """Asks a process to end, asks again, and then makes it and what it started."""
    deadline = time.monotonic() + seconds
    try:
        # Whoever drains at the first signal ends at the second.
        while child.poll() is None and time.monotonic() < deadline:
            child.send_signal(signal.SIGTERM)
            with contextlib.suppress(subprocess.TimeoutExpired):
                child.wait(timeout=seconds / 30)
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(child.pid, signal.SIGKILL)
        child.wait()


def wait_until(condition, what, seconds, child, log):
    """Until `condition` holds; what a child that ended before had to say."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if child.poll() is not None:
            text = pathlib.Path(log).read_text(errors="replace")[-2000:]
            raise MachineError(f"{what} ended at once:\n{text}")
        with contextlib.suppress(OSError):
            if condition():
                return
        time.sleep(0.005)
    raise MachineError(f"{what} is not ready after {seconds} s; its output: {log}")


def answers(url):
    """Whether a URL is answered with 200."""
    with urllib.request.urlopen(url, timeout=10) as response:
        return response.status == 200


def listens(port):
    """Whether a port takes connections."""
    with contextlib.closing(socket.create_connection(("127.0.0.1", port), timeout=1)):
        return True


class Process:
    """A running process with all that it has started, and what they have cost."""

    def __init__(self, pid):
        self.pid = pid

    def pids(self):
        """Itself, its children, theirs."""
        found, at = [self.pid], 0
        while at < len(found):
            for task in pathlib.Path(f"/proc/{found[at]}/task").glob("*"):
                with contextlib.suppress(OSError):
                    found += [int(pid) for pid in (task / "children").read_text().split()]
            at += 1
        return found

    def tasks(self):
        """Every thread: its process, its name and its seconds on a CPU, to the
        nanosecond (schedstat)."""
        found = []
        for pid in self.pids():
            for task in pathlib.Path(f"/proc/{pid}/task").glob("*"):
                with contextlib.suppress(OSError):
                    spent = int((task / "schedstat").read_text().split()[0]) / 1e9
                    found.append((pid, (task / "comm").read_text().strip(), spent))
        if not found:
            raise MachineError(f"process {self.pid} is gone")
        return found

    def cpu_seconds(self):
        """Time on a CPU of all of them."""
        return sum(spent for _, _, spent in self.tasks())

    def status_mib(self, key):
        """A figure of /proc/…/status, summed."""
        total = 0
        for pid in self.pids():
            with contextlib.suppress(OSError):
                for line in pathlib.Path(f"/proc/{pid}/status").read_text().splitlines():
                    if line.startswith(f"{key}:"):
                        total += int(line.split()[1])
        return total / 1024

    def rss_mib(self):
        """Resident memory now."""
        return self.status_mib("VmRSS")

    def peak_rss_mib(self):
        """The most resident memory there ever was."""
        return self.status_mib("VmHWM")


class Sidecar(Process):
    """A running sidecar, and what it says of itself."""

    def __init__(self, pid, observe):
        super().__init__(pid)
        self.observe = observe

    def metric(self, name):
        """Samples of a metric, as lines."""
        url = f"http://127.0.0.1:{self.observe}/metrics"
        with urllib.request.urlopen(url, timeout=10) as response:
            lines = response.read().decode().splitlines()
        return [line for line in lines if line.startswith((f"{name}{{", f"{name} "))]

    def total(self, name):
        """The sum of a metric's samples."""
        return sum(float(line.rsplit(" ", 1)[1]) for line in self.metric(name))

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
        command = [*callgrind(valgrind_file), *command]
        seconds = START_SECONDS_VALGRIND
    log = folder / f"{name}.log"
    # A clean environment: some variables would be configuration.
    environment = {"PATH": PATH}
    with process(command, cpus, log, bool(valgrind_file), env=environment, cwd=folder) as child:
        wait_until(lambda: answers(f"http://127.0.0.1:{observe}/readyz"), "the sidecar",
                   seconds, child, log)
        yield Sidecar(child.pid, observe)


def callgrind(output):
    """What goes before a command to count its instructions."""
    return ["valgrind", "--tool=callgrind", f"--callgrind-out-file={output}"]


def instructions(valgrind_file):
    """The total of a callgrind output."""
    with open(valgrind_file, encoding="utf-8", errors="replace") as lines:
        for line in lines:
            if line.startswith(("summary:", "totals:")):
                return int(line.split()[1])
    raise MachineError(f"no total in {valgrind_file}")


def name():
    """The CPU and the kernel."""
    model = platform.machine()
    for line in pathlib.Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            model = line.partition(":")[2].strip()
            break
    return f"{model}, {os.cpu_count()} CPUs, Linux {platform.release()}"


def version(binary):
    """What a binary says it is."""
    done = subprocess.run([binary, "--version"], capture_output=True, text=True, check=True,
                          timeout=10)
    return done.stdout.strip()
