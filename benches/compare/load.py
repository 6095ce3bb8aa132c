"""Clients of the benchmark: wrk, and one of our own where exact counts matter.

A request is a list of header fields; a load is a list of requests, sent in
order over kept connections, one at a time on each.
"""

import pathlib
import re
import selectors
import shutil
import signal
import socket
import subprocess

# A run that takes longer has hung.
MAX_SECONDS = 60

WRK_SCRIPT = """\
-- Sends each line of a file once as a header field, then starts over. After so
-- many answers it says so and stops.
function init(args)
  total, sent, answered, refused = tonumber(args[2]), 0, 0, 0
  lines = {}
  for line in io.lines(args[1]) do lines[#lines + 1] = line end
end
function request()
  local line = lines[sent % #lines + 1]
  sent = sent + 1
  local name, value = line:match("^([^:]+): (.*)$")
  return wrk.format("GET", "/orders/17", name and {[name] = value} or {})
end
function response(status)
  answered = answered + 1
  if status ~= 200 then refused = refused + 1 end
  if answered == total then
    io.write(string.format("answered=%d refused=%d\\n", answered, refused))
    io.flush()
    wrk.thread:stop()
  end
end
"""


class LoadError(Exception):
    """What a client saw that it should not have."""


class Wrk:
    """One thread of wrk. New connections for each run; those requests that are
    in flight at its end (less than one a connection) are not counted."""

    name = "wrk"

    def __init__(self, folder, connections, scheme="http"):
        self.folder = pathlib.Path(folder)
        self.connections = connections
        self.scheme = scheme
        self.script = self.folder / "wrk.lua"
        self.script.write_text(WRK_SCRIPT)

    def run(self, port, fields, count):
        """Sends `count` requests, each with the next of `fields`. `fields` must
        outnumber `count` by the connections where none may be sent twice."""
        lines = self.folder / "fields.txt"
        lines.write_text("".join(field + "\n" for field in fields))
        command = ["wrk", "-t1", f"-c{self.connections}", f"-d{MAX_SECONDS}s", "--timeout", "20s",
                   "-s", str(self.script), f"{self.scheme}://127.0.0.1:{port}", "--",
                   str(lines), str(count)]
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                              text=True) as child:
            # wrk itself ends by time only, or when interrupted.
            output = ""
            try:
                for line in child.stdout:
                    output += line
                    if line.startswith("answered="):
                        child.send_signal(signal.SIGINT)
            except BaseException:
                child.kill()
                raise
        seen = re.search(r"answered=(\d+) refused=(\d+)", output)
        if not seen or int(seen[1]) != count or int(seen[2]) > 0 or "Socket errors" in output:
            raise LoadError(f"wrk was not served as it should:\n{output}")


class Own:
    """A client on one epoll. Exact: each request is sent once and answered."""

    name = "own"

    def __init__(self, connections):
        self.connections = connections

    def run(self, port, fields, count):
        requests = [request(fields[number % len(fields)]) for number in range(count)]
        selector = selectors.DefaultSelector()
        sockets = []
        try:
            for _ in range(min(self.connections, count)):
                connection = connect(port)
                sockets.append(connection)
                selector.register(connection, selectors.EVENT_READ, bytearray())
                connection.sendall(requests.pop())
            answered = 0
            while answered < count:
                ready = selector.select(timeout=60)
                if not ready:
                    raise LoadError("no answer for a minute")
                for key, _ in ready:
                    if not self.read(key):
                        continue
                    answered += 1
                    if requests:
                        key.fileobj.sendall(requests.pop())
        finally:
            for connection in sockets:
                connection.close()
            selector.close()

    @staticmethod
    def read(key):
        """Whether a connection's answer is complete."""
        data = key.fileobj.recv(65536)
        key.data.extend(data)
        size = answer_size(key.data)
        if size is None:
            if not data:
                raise LoadError("the sidecar closed a connection")
            return False
        if not key.data.startswith(b"HTTP/1.1 200 ") or len(key.data) != size:
            raise LoadError(f"unexpected answer: {bytes(key.data[:300])}")
        key.data.clear()
        return True


def pick(name, folder, connections):
    """The client of that name; `auto` is wrk where installed."""
    if name == "auto":
        name = "wrk" if shutil.which("wrk") else "own"
    return Wrk(folder, connections) if name == "wrk" else Own(connections)


def connect(port):
    connection = socket.create_connection(("127.0.0.1", port), timeout=60)
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return connection


def request(field):
    line = f"{field}\r\n" if field != "-" else ""
    return f"GET /orders/17 HTTP/1.1\r\nHost: localhost\r\n{line}\r\n".encode()


def answer_size(data):
    """Bytes of the answer at the start of `data`, once they are all there."""
    end = data.find(b"\r\n\r\n")
    if end < 0:
        return None
    length = re.search(rb"(?i)\r\ncontent-length: *(\d+)", data[:end])
    size = end + 4 + (int(length[1]) if length else 0)
    return size if len(data) >= size else None


def status(port, field):
    """Status of a single request."""
    with connect(port) as connection:
        connection.sendall(request(field))
        data = bytearray()
        while answer_size(data) is None:
            read = connection.recv(65536)
            if not read:
                raise LoadError("closed without an answer")
            data.extend(read)
    return int(data.split(b" ", 2)[1])
