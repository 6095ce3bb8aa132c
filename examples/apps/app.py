#!/usr/bin/env python3
"""A small app for the deployment examples: any language would do.

It listens where only its sidecar reaches it, knows nothing of keys, tokens or
addresses, and passes the trace headers it received on to the services it
calls. Needs Python and nothing else.

NAME     what it calls itself
HOST     address to listen on (127.0.0.1)
PORT     port to listen on (8080)
SOCKET   a Unix socket to listen on instead
*_URL    other services, through the sidecar; GET / asks each of them
"""

import json
import os
import signal
import socket
import threading
import urllib.error
import urllib.request
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

NAME = os.environ.get("NAME", "app")
OTHERS = {
    name.removesuffix("_URL").lower().replace("_", "-"): url
    for name, url in os.environ.items()
    if name.endswith("_URL") and url.startswith("http://")
}
# With these the sidecar joins the call to the request that caused it.
TRACE = ("traceparent", "tracestate", "x-trace-id", "x-trace-depth", "x-request-id")
# What the sidecar says about the caller.
IDENTITY = ("x-auth-strategy", "x-auth-subject", "x-service-name")


def call(url, headers):
    """Calls another service; gives its status and what it said."""
    request = urllib.request.Request(url, headers=headers)
    try:
        with urllib.request.urlopen(request, timeout=10) as answer:
            return {"status": answer.status, "answer": json.load(answer)}
    except urllib.error.HTTPError as error:
        return {"status": error.code}
    except OSError:
        return {"status": 0}


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self):
        if self.path == "/health":
            return self.reply({"status": "up"})
        seen = {name: self.headers[name] for name in IDENTITY + TRACE if name in self.headers}
        document = {"app": NAME, "path": self.path, "seen": seen}
        if OTHERS and self.path == "/":
            trace = {name: seen[name] for name in TRACE if name in seen}
            document["called"] = {name: call(url, trace) for name, url in OTHERS.items()}
        return self.reply(document)

    def reply(self, document):
        body = json.dumps(document).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def address_string(self):
        return "sidecar"

    def log_message(self, *arguments):
        """The sidecar writes the access log."""


class UnixServer(ThreadingHTTPServer):
    address_family = socket.AF_UNIX

    def server_bind(self):
        self.socket.bind(self.server_address)
        # Who may enter the folder may call.
        os.chmod(self.server_address, 0o666)
        self.server_name, self.server_port = "localhost", 0


def main():
    path = os.environ.get("SOCKET")
    if path:
        if os.path.exists(path):
            os.unlink(path)
        server = UnixServer(path, Handler)
    else:
        address = (os.environ.get("HOST", "127.0.0.1"), int(os.environ.get("PORT", "8080")))
        server = ThreadingHTTPServer(address, Handler)
    # What is being answered is answered; then the process ends.
    server.daemon_threads = False

    def end(*_):
        threading.Thread(target=server.shutdown).start()

    signal.signal(signal.SIGTERM, end)
    signal.signal(signal.SIGINT, end)
    server.serve_forever(poll_interval=0.1)
    server.socket.close()


if __name__ == "__main__":
    main()
