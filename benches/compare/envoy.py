"""Envoy's side of the comparison: its config for what a scenario wants."""

HTTP = "envoy.extensions.filters.http"


def address(port):
    """A port of the loopback interface."""
    return {"socket_address": {"address": "127.0.0.1", "port_value": port}}


def typed(name, kind, **settings):
    """An extension by its name and its type."""
    return {"name": name,
            "typed_config": {"@type": f"type.googleapis.com/{kind}", **settings}}


def filters(want, kit):
    """The chain of HTTP filters."""
    made = []
    if want.key:
        made.append(typed(
            "envoy.filters.http.api_key_auth", f"{HTTP}.api_key_auth.v3.ApiKeyAuth",
            credentials=[{"key": kit.key, "client": "orders"}],
            key_sources=[{"header": "x-api-key"}]))
    if want.jwt:
        provider = {"issuer": kit.issuer, "audiences": [kit.audience], "forward": True,
                    "local_jwks": {"inline_string": kit.jwks(want.jwt)},
                    "claim_to_headers": [{"header_name": "x-auth-subject", "claim_name": "sub"}],
                    "jwt_cache_config": {"jwt_cache_size": 1000}}
        made.append(typed(
            "envoy.filters.http.jwt_authn", f"{HTTP}.jwt_authn.v3.JwtAuthentication",
            providers={"bench": provider},
            rules=[{"match": {"prefix": "/"}, "requires": {"provider_name": "bench"}}]))
    return [*made, typed("envoy.filters.http.router", f"{HTTP}.router.v3.Router")]


def config(want, kit, port, target):
    """One listener, one cluster, no admin door."""
    manager = {
        "stat_prefix": "in",
        "use_remote_address": True,
        "preserve_external_request_id": True,
        "always_set_request_id_in_response": True,
        "http_filters": filters(want, kit),
        "route_config": {"virtual_hosts": [{
            "name": "all", "domains": ["*"],
            "routes": [{"match": {"prefix": "/"}, "route": {"cluster": "app"}}]}]},
    }
    if want.trace:
        # Ids are made and passed on. An exporter there has to be; it has nothing
        # to do unless a caller has decided so.
        manager["tracing"] = {
            "random_sampling": {"value": 0},
            "provider": typed(
                "envoy.tracers.opentelemetry", "envoy.config.trace.v3.OpenTelemetryConfig",
                service_name="orders", http_service={"http_uri": {
                    "uri": f"http://127.0.0.1:{kit.collector.port}/v1/traces",
                    "cluster": "collector", "timeout": "5s"}})}
    chain = {"filters": [typed(
        "envoy.filters.network.http_connection_manager",
        "envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager",
        **manager)]}
    if want.tls:
        certificate = {"certificate_chain": {"filename": str(kit.certificate)},
                       "private_key": {"filename": str(kit.certificate_key)}}
        chain["transport_socket"] = typed(
            "envoy.transport_sockets.tls",
            "envoy.extensions.transport_sockets.tls.v3.DownstreamTlsContext",
            common_tls_context={"tls_certificates": [certificate]})
    upstream = {"pipe": {"path": str(kit.app.socket)}} if want.unix else address(target)
    clusters = [cluster("app", upstream)]
    if want.trace:
        clusters.append(cluster("collector", address(kit.collector.port)))
    return {"static_resources": {
        "listeners": [{"address": address(port), "filter_chains": [chain]}],
        "clusters": clusters}}


def cluster(name, where):
    """A cluster of one endpoint."""
    endpoints = [{"endpoint": {"address": where}}]
    return {"name": name, "connect_timeout": "5s",
            "load_assignment": {"cluster_name": name,
                                "endpoints": [{"lb_endpoints": endpoints}]}}
