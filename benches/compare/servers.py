"""What stands behind and beside the proxies of the benchmark: the app, the
hook that is asked who may pass, and the collector of spans.

Everything listens on the loopback interface, on ports of the OS's choosing
(the app on a Unix socket, too), and ends with the benchmark.
"""

import contextlib
import dataclasses
import http.server
import pathlib
import selectors
import socket
import sys
import threading

import machine

BODY = b"x" * 200
LARGE = 65536

# The app

# Three places: 200 bytes anywhere, 64 KiB at /64k, and at /echo what arrived.
NGINX_CONFIG = """\
daemon off; master_process off; worker_processes 1; pid {folder}/nginx.pid;
error_log {folder}/nginx.log crit;
events {{ worker_connections 8192; }}
http {{
  access_log off; keepalive_requests 1000000000; keepalive_timeout 1h;
  sendfile on; tcp_nopush on; open_file_cache max=10; open_file_cache_valid 1h;
  client_body_temp_path {folder}/t1; proxy_temp_path {folder}/t2; fastcgi_temp_path {folder}/t3;
  uwsgi_temp_path {folder}/t4; scgi_temp_path {folder}/t5;
  default_type text/plain;
  server {{
    listen 127.0.0.1:{port} backlog=1024; listen unix:{folder}/app.sock;
    root {folder}/files;
    location / {{ return 200 "{body}"; }}
    location = /64k {{ }}
    location = /echo {{
      return 200 "server=$server_addr\\ntraceparent=$http_traceparent\\nsubject=$http_x_auth_subject\\nuser=$http_x_auth_request_user\\nproto=$server_protocol\\nid=$http_x_request_id\\n";
    }}
  }}
}}
"""


@dataclasses.dataclass
class App:
    """Where the app listens."""

    port: int
    socket: pathlib.Path
    pid: int


@contextlib.contextmanager
def app(folder, cpus):
    """A keep-alive app: nginx, else this file, which knows one answer only and
    no Unix socket. Its port, and its socket's path if it has one."""
    (port,) = machine.free_ports(1)
    folder = folder.resolve()
    nginx = machine.find("nginx")
    if nginx:
        # Its worker gives root away: it has to get here.
        folder.chmod(0o755)
        (folder / "files").mkdir()
        (folder / "files" / "64k").write_bytes(b"y" * LARGE)
        config = folder / "nginx.conf"
        config.write_text(NGINX_CONFIG.format(folder=folder, port=port, body=BODY.decode()))
        command = [nginx, "-c", str(config), "-e", str(folder / "nginx.log")]
    else:
        command = [sys.executable, __file__, str(port)]
    log = folder / "app.log"
    with machine.process(command, cpus, log) as child:
        machine.wait_until(lambda: machine.answers(f"http://127.0.0.1:{port}/"), "the app",
                           machine.START_SECONDS, child, log)
        yield App(port, folder / "app.sock" if nginx else None, child.pid)


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


class Quiet(http.server.BaseHTTPRequestHandler):
    """Keeps connections, and writes nothing of them."""
    protocol_version = "HTTP/1.1"

    def log_message(self, *arguments):
        pass


class Background:
    """A server beside the measured ones, for as long as it is entered."""

    def __init__(self, handler):
        class Server(http.server.ThreadingHTTPServer):
            daemon_threads = True
            # As many as there are clients may ask at once.
            request_queue_size = 1024

        self.server = Server(("127.0.0.1", 0), handler)
        self.port = self.server.server_address[1]

    def __enter__(self):
        threading.Thread(target=self.server.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *_):
        self.server.shutdown()
        self.server.server_close()


# The hook

class Hook(Background):
    """Grants whoever carries `Bearer session-…`. Counts what it is asked."""

    def __init__(self):
        hook = self
        self.asked = 0

        class Handler(Quiet):
            def do_GET(self):
                hook.asked += 1
                credential = self.headers.get("Authorization", "")
                granted = credential.startswith("Bearer session-")
                self.send_response(200 if granted else 401)
                if granted:
                    self.send_header("X-Auth-Request-User", credential[7:])
                self.send_header("Content-Length", "0")
                self.end_headers()

        super().__init__(Handler)


# The collector

class Collector(Background):
    """Takes whatever spans are exported. Counts the exports and their bytes."""

    def __init__(self):
        collector = self
        self.exports = 0
        self.bytes = 0

        class Handler(Quiet):
            def do_POST(self):
                length = int(self.headers.get("Content-Length", 0))
                collector.bytes += len(self.rfile.read(length))
                collector.exports += 1
                self.send_response(200)
                self.send_header("Content-Length", "0")
                self.end_headers()

        super().__init__(Handler)


if __name__ == "__main__":
    serve_app(int(sys.argv[1]))
