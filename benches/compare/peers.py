"""Other proxies of the comparison, each with equal settings: as many workers,
kept connections to both sides, every request with an id that app and client are
told, no access log. Their configs are printed and kept with the figures, so that
anyone can judge them.
"""

import contextlib
import json
import re
import subprocess

import envoy
import machine

NGINX = """\
daemon off; master_process {master}; worker_processes {workers}; pid {folder}/nginx.pid;
error_log {folder}/nginx.log crit;
events {{ worker_connections 19500; }}
http {{
  access_log off; keepalive_requests 1000000000; keepalive_timeout 1h;
  client_body_temp_path {folder}/t1; proxy_temp_path {folder}/t2;
  fastcgi_temp_path {folder}/t3; uwsgi_temp_path {folder}/t4; scgi_temp_path {folder}/t5;
  proxy_buffers 8 16k; proxy_max_temp_file_size 0;
  map $http_x_request_id $id {{ default $http_x_request_id; "" $request_id; }}
  upstream app {{ server {target}; keepalive 512; keepalive_requests 1000000000; }}
{http}  server {{
    listen 127.0.0.1:{port} backlog=1024{listen};
{server}    location / {{
{location}      proxy_pass http://app; proxy_http_version 1.1; proxy_buffering on;
      proxy_set_header Connection "";
      proxy_set_header Host $host;
      proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for;
      proxy_set_header X-Forwarded-Proto $scheme;
      proxy_set_header X-Request-ID $id; add_header X-Request-ID $id always;
    }}
  }}
}}
"""
NGINX_KEY = 'map $http_x_api_key $known {{ default 0; "{key}" 1; }}\n'
NGINX_TLS = """\
    ssl_certificate {certificate}; ssl_certificate_key {key};
    ssl_protocols TLSv1.2 TLSv1.3; ssl_session_tickets on;
"""
NGINX_HOOK = """\
    location = /_hook {{
      internal; proxy_pass http://127.0.0.1:{hook}/check; proxy_pass_request_body off;
      proxy_set_header Content-Length "";
      proxy_cache hook; proxy_cache_key $http_authorization; proxy_cache_valid 200 60s;
    }}
"""
NGINX_HOOK_USE = """\
      auth_request /_hook; auth_request_set $user $upstream_http_x_auth_request_user;
      proxy_set_header X-Auth-Request-User $user;
"""

HAPROXY = """\
global
  nbthread {workers}
  maxconn 9500
defaults
  mode http
  timeout connect 5s
  timeout client 1h
  timeout server 30s
  option forwardfor
  http-reuse always
frontend in
  bind 127.0.0.1:{port} backlog 1024{bind}
  http-request set-header X-Forwarded-Proto {scheme}
  unique-id-format %[uuid()]
  http-request set-header X-Request-ID %[unique-id] unless {{ req.hdr(x-request-id) -m found }}
  http-request set-var(txn.id) req.hdr(x-request-id)
  http-response set-header X-Request-ID %[var(txn.id)]
{rules}  default_backend app
backend app
  server app {target} pool-max-conn 512
"""
REFUSE = "  http-request deny deny_status 401 unless "
HAPROXY_KEY = REFUSE + "{{ req.hdr(x-api-key) -m str {key} }}\n"
HAPROXY_JWT = (
    "  http-request set-var(txn.bearer) http_auth_bearer\n"
    + REFUSE + "{{ var(txn.bearer),jwt_header_query('$.alg') -m str {algorithm} }}\n"
    + REFUSE + "{{ var(txn.bearer),jwt_verify(\"{algorithm}\",\"{verifies}\") -m int 1 }}\n"
    + REFUSE + "{{ var(txn.bearer),jwt_payload_query('$.iss') -m str {issuer} }}\n"
    + REFUSE + "{{ var(txn.bearer),jwt_payload_query('$.aud') -m str {audience} }}\n"
    + "  http-request set-var(txn.now) date()\n"
    + REFUSE + "{{ var(txn.bearer),jwt_payload_query('$.exp','int'),sub(txn.now) -m int gt 0 }}\n"
    + "  http-request set-header X-Auth-Subject %[var(txn.bearer),jwt_payload_query('$.sub')]\n")
HAPROXY_TRACE = """\
  http-request set-var(txn.trace) req.hdr(traceparent),word(2,-) if { req.hdr(traceparent) -m len 55 }
  http-request set-var(txn.trace) uuid,regsub(-,,g) unless { var(txn.trace) -m found }
  http-request set-header traceparent 00-%[var(txn.trace)]-%[rand,hex,lower]-01
  http-response set-header X-Trace-Id %[var(txn.trace)]
"""


def version(name):
    """What a proxy says it is, in short."""
    command = [machine.find(name), {"nginx": "-v", "haproxy": "-v"}.get(name, "--version")]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=30)
    # A launcher's path, which Envoy repeats, may have a version in it, too.
    found = re.search(r"[/ ](\d+\.\d+\.\d+)(?![.\d]*/bin)", done.stdout + done.stderr)
    return f"{name} {found[1]}" if found else name


def lacks(name, want):
    """What a proxy cannot do of what is wanted, or None."""
    if name == "nginx" and (want.jwt or want.trace):
        return "has neither JWT nor trace context"
    if name in ("haproxy", "envoy") and want.hook:
        return "remembers no answers of a hook"
    return "not compared" if want.log or want.export else None


def nginx(folder, want, kit, port, target):
    """The text of its config."""
    parts = {"http": "", "server": "", "location": "", "listen": ""}
    if want.key:
        parts["http"] = "  " + NGINX_KEY.format(key=kit.key)
        parts["location"] = "      if ($known = 0) { return 401; }\n"
    if want.hook:
        parts["http"] = f"  proxy_cache_path {folder}/cache keys_zone=hook:1m;\n"
        parts["server"] = NGINX_HOOK.format(hook=kit.hook.port)
        parts["location"] = NGINX_HOOK_USE
    if want.tls:
        parts["listen"] = " ssl"
        parts["server"] = NGINX_TLS.format(certificate=kit.certificate, key=kit.certificate_key)
    if want.h2:
        parts["listen"] += " http2"
    if want.workers > 1:
        parts["listen"] += " reuseport"
    return NGINX.format(
        folder=folder, port=port, workers=want.workers,
        target=f"unix:{kit.app.socket}" if want.unix else f"127.0.0.1:{target}",
        # A single worker needs nobody to watch it.
        master="on" if want.workers > 1 else "off", **parts)


def haproxy(want, kit, port, target):
    """The text of its config."""
    rules, bind = "", ""
    if want.key:
        rules += HAPROXY_KEY.format(key=kit.key)
    if want.jwt:
        verifies = kit.secret.text if want.jwt == "HS256" else kit.public
        rules += HAPROXY_JWT.format(algorithm=want.jwt, verifies=verifies, issuer=kit.issuer,
                                    audience=kit.audience)
    if want.trace:
        rules += HAPROXY_TRACE
    if want.tls:
        bind += f" ssl crt {kit.folder}/pair.pem"
    if want.h2:
        bind += " proto h2"
    target = f"unix@{kit.app.socket}" if want.unix else f"127.0.0.1:{target}"
    return HAPROXY.format(port=port, target=target, workers=want.workers, rules=rules, bind=bind,
                          scheme="https" if want.tls else "http")


def config(name, folder, want, kit, port, target):
    """Writes the config of a proxy; its text and the command that runs it."""
    command = [machine.find(name)]
    if name == "nginx":
        text, path = nginx(folder, want, kit, port, target), folder / "nginx.conf"
        command += ["-c", str(path), "-e", str(folder / "nginx.err")]
    elif name == "haproxy":
        text, path = haproxy(want, kit, port, target), folder / "haproxy.cfg"
        command += ["-db", "-f", str(path)]
    else:
        text = json.dumps(envoy.config(want, kit, port, target), indent=1)
        path = folder / "envoy.json"
        command += ["-c", str(path), "--concurrency", str(want.workers), "--log-level", "warn",
                    "--disable-hot-restart"]
    path.write_text(text)
    return text, command


@contextlib.contextmanager
def start(name, folder, want, kit, port, target, cpus, valgrind_file=None):
    """Runs a proxy until the block ends; the process and its config."""
    text, command = config(name, folder, want, kit, port, target)
    seconds = machine.START_SECONDS
    if valgrind_file:
        command = [*machine.callgrind(valgrind_file), *command]
        seconds = machine.START_SECONDS_VALGRIND
    log = folder / f"{name}.out"
    with machine.process(command, cpus, log, bool(valgrind_file)) as child:
        machine.wait_until(lambda: machine.listens(port), name, seconds, child, log)
        yield machine.Process(child.pid), text
