"""Clients of the comparison: wrk as fast as it goes, h2load for HTTP/2 and for
a fixed rate, and three of our own: one request, one after another, handshakes.

Each returns what it saw as a dictionary: `requests`, `seconds`, `p50_us`,
`p99_us` as far as it knows them. What is not answered with 200 is an error.
"""

import http.client
import pathlib
import re
import signal
import socket
import ssl
import subprocess
import time

import load
import machine

# A client that takes longer has hung.
MAX_SECONDS = 60

WRK_HEAD = """\
local requests, sent = {}, 0
function init(args)
  for line in io.lines(args[1]) do
    local headers = {}
    for name, value in line:gmatch("([^:\\t]+): ([^\\t]*)") do headers[name] = value end
    requests[#requests + 1] = wrk.format(nil, nil, headers)
  end
end
function request()
  sent = sent % #requests + 1
  return requests[sent]
end
"""
WRK_DONE = """\
function done(summary, latency)
  local e = summary.errors
  io.write(string.format("\\nrequests=%d us=%d errors=%d p50=%d p99=%d\\n", summary.requests,
    summary.duration, e.connect + e.read + e.write + e.status + e.timeout,
    latency:percentile(50), latency:percentile(99)))
end
"""


def wrk(folder, url, fields, connections, seconds, body=None):
    """So many seconds of one thread of wrk, each request with the next of
    `fields` (lists of header fields). `body` makes it POST that JSON."""
    folder = pathlib.Path(folder)
    script, lines = folder / "wrk.lua", folder / "fields.txt"
    lines.write_text("".join(
        "\t".join(f"{name}: {value}" for name, value in one) + "\n" for one in fields))
    # Without `request` wrk sends one prepared request: the client is cheaper.
    head = WRK_HEAD if fields != [[]] else ""
    if body is not None:
        head = (f"wrk.method = \"POST\"\nwrk.body = [[{body}]]\n"
                "wrk.headers[\"Content-Type\"] = \"application/json\"\n")
    script.write_text(head + WRK_DONE)
    command = ["wrk", "-t1", f"-c{connections}", f"-d{MAX_SECONDS}s", "--timeout", "20s",
               "-s", str(script), url, "--", str(lines)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                          text=True, preexec_fn=machine.die_together) as child:
        try:
            # It counts whole seconds; an interrupt ends it early and in order.
            time.sleep(seconds)
            child.send_signal(signal.SIGINT)
            output, _ = child.communicate(timeout=MAX_SECONDS)
        except BaseException:
            child.kill()
            raise
    seen = re.search(r"requests=(\d+) us=(\d+) errors=(\d+) p50=(\d+) p99=(\d+)", output)
    if not seen or int(seen[3]) or int(seen[1]) < connections:
        raise load.LoadError(f"wrk was not served as it should:\n{output[-600:]}")
    requests, micros, _, p50, p99 = (int(number) for number in seen.groups())
    return {"requests": requests, "seconds": micros / 1e6, "p50_us": p50, "p99_us": p99}


def h2load(folder, url, count, connections, streams=1, rate=None):
    """`count` requests over HTTP/2, or (at a `rate` per second in all) over
    HTTP/1.1, evenly spread."""
    log = pathlib.Path(folder) / "h2load.log"
    log.unlink(missing_ok=True)
    command = ["h2load", "-t1", f"-n{count}", f"-c{connections}", f"-m{streams}",
               f"--log-file={log}"]
    if rate:
        # Connections are opened one by one, so requests do not come in bursts.
        each = max(1, round(1000 / rate))
        command += ["--h1", f"--rps={rate / connections:.3f}",
                    "-r1", f"--rate-period={each}ms"]
    done = subprocess.run([*command, url], capture_output=True, text=True, check=False,
                          timeout=MAX_SECONDS, preexec_fn=machine.die_together)
    seen = re.search(r"finished in ([\d.]+)(m?s|us)", done.stdout)
    if not seen or f"{count} succeeded" not in done.stdout:
        raise load.LoadError(f"h2load was not served as it should:\n{done.stdout[-600:]}"
                             f"{done.stderr[-300:]}")
    times = sorted(int(line.split("\t")[2]) for line in log.read_text().splitlines())
    seconds = float(seen[1]) * {"s": 1, "ms": 1e-3, "us": 1e-6}[seen[2]]
    return {"requests": count, "seconds": seconds, **percentiles(times)}


def percentiles(times):
    """Of sorted microseconds."""
    return {"p50_us": times[len(times) // 2], "p99_us": times[len(times) * 99 // 100]}


def singles(port, count):
    """One request after another on one kept connection."""
    data, found = load.request("-"), []
    with load.connect(port) as connection:
        for _ in range(count):
            begun = time.perf_counter()
            connection.sendall(data)
            answer = connection.recv(65536)
            while load.answer_size(answer) is None:
                more = connection.recv(65536)
                if not more:
                    raise load.LoadError("closed without an answer")
                answer += more
            found.append(round((time.perf_counter() - begun) * 1e6))
    # The first ones open what the proxy keeps.
    return {"requests": count, **percentiles(sorted(found[count // 10:]))}


def tls_context(certificate):
    """Trusts that certificate only; no session is taken up again."""
    context = ssl.create_default_context(cafile=certificate)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    return context


def handshakes(port, certificate, count):
    """Full TLS 1.3 handshakes, one after another. What was agreed on, too."""
    context, agreed = tls_context(certificate), None
    for _ in range(count):
        with socket.create_connection(("127.0.0.1", port), timeout=20) as plain:
            with context.wrap_socket(plain, server_hostname="localhost") as connection:
                agreed = connection.cipher()[0]
    return {"requests": count, "agreed": agreed}


def ask(port, fields, path="/echo", certificate=None):
    """One request: status, header fields, body."""
    if certificate:
        connection = http.client.HTTPSConnection("localhost", port, timeout=20,
                                                 context=tls_context(certificate))
    else:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=20)
    try:
        connection.request("GET", path, headers=dict(fields))
        answer = connection.getresponse()
        headers = {name.lower(): value for name, value in answer.getheaders()}
        return answer.status, headers, answer.read().decode(errors="replace")
    finally:
        connection.close()
