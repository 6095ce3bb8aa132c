"""Other proxies of the comparison, each with equal settings: one worker, kept
connections to both sides, no access log. Their configs are printed by whoever
measures, so that anyone can judge them.
"""

import contextlib
import json
import shutil
import socket

import machine

NGINX = """\
daemon off; master_process off; worker_processes 1; pid {folder}/{name}.pid;
error_log {folder}/{name}.log crit;
events {{ worker_connections 20000; }}
http {{
  access_log off; keepalive_requests 1000000000; keepalive_timeout 1h;
  client_body_temp_path {folder}/{name}1; proxy_temp_path {folder}/{name}2;
  fastcgi_temp_path {folder}/{name}3; uwsgi_temp_path {folder}/{name}4;
  scgi_temp_path {folder}/{name}5;
  upstream app {{ server 127.0.0.1:{target}; keepalive 512; keepalive_requests 1000000000; }}
  server {{
    listen 127.0.0.1:{port} backlog=1024;
    location / {{
      proxy_pass http://app; proxy_http_version 1.1; proxy_buffering on;
      proxy_set_header Connection "";
      proxy_set_header Host $host;
      proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for;
      proxy_set_header X-Forwarded-Proto $scheme;
    }}
  }}
}}
"""

HAPROXY = """\
global
  nbthread 1
  maxconn 20000
defaults
  mode http
  timeout connect 5s
  timeout client 1h
  timeout server 30s
  option forwardfor
  http-reuse always
frontend in
  bind 127.0.0.1:{port} backlog 1024
  http-request set-header X-Forwarded-Proto http
  default_backend app
backend app
  server app 127.0.0.1:{target} pool-max-conn 512
"""


def envoy_config(port, target):
    """One listener, one cluster, no admin door."""
    def address(number):
        return {"socket_address": {"address": "127.0.0.1", "port_value": number}}

    router = {"name": "envoy.filters.http.router", "typed_config": {
        "@type": "type.googleapis.com/envoy.extensions.filters.http.router.v3.Router"}}
    manager = {
        "@type": "type.googleapis.com/envoy.extensions.filters.network."
                 "http_connection_manager.v3.HttpConnectionManager",
        "stat_prefix": "in",
        "use_remote_address": True,
        "http_filters": [router],
        "route_config": {"virtual_hosts": [{
            "name": "all", "domains": ["*"],
            "routes": [{"match": {"prefix": "/"}, "route": {"cluster": "app"}}]}]},
    }
    endpoint = {"lb_endpoints": [{"endpoint": {"address": address(target)}}]}
    return {"static_resources": {
        "listeners": [{
            "address": address(port),
            "filter_chains": [{"filters": [{
                "name": "envoy.filters.network.http_connection_manager",
                "typed_config": manager}]}]}],
        "clusters": [{
            "name": "app", "connect_timeout": "5s",
            "load_assignment": {"cluster_name": "app", "endpoints": [endpoint]}}]}}


def find(name):
    """The command of a proxy; Debian keeps daemons off the users' path."""
    return machine.find_nginx() if name == "nginx" else shutil.which(
        name, path=f"{machine.PATH}:/usr/sbin")


def config(name, folder, instance, port, target):
    """Writes the config of a proxy; its text and the command that runs it."""
    folder = folder.resolve()
    if name == "nginx":
        text = NGINX.format(folder=folder, name=instance, port=port, target=target)
        path = folder / f"{instance}.conf"
        command = [find(name), "-c", str(path), "-e", str(folder / f"{instance}.err")]
    elif name == "haproxy":
        text = HAPROXY.format(port=port, target=target)
        path = folder / f"{instance}.cfg"
        command = [find(name), "-db", "-f", str(path)]
    else:
        text = json.dumps(envoy_config(port, target), indent=1)
        path = folder / f"{instance}.json"
        command = [find(name), "-c", str(path), "--concurrency", "1", "--log-level", "warn",
                   "--disable-hot-restart"]
    path.write_text(text)
    return text, command


@contextlib.contextmanager
def proxy(command, folder, instance, port, cpus):
    """Runs a proxy until the block ends; a `machine.Process`."""
    log = folder / f"{instance}.out"
    with machine.process(command, cpus, log) as child:
        machine.wait_until(lambda: listens(port), instance, machine.START_SECONDS, child, log)
        # A launcher's work is that of its one child.
        yield machine.Process(machine.innermost(child.pid))


def listens(port):
    with contextlib.closing(socket.create_connection(("127.0.0.1", port), timeout=1)):
        return True
