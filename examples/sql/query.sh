#!/bin/sh
# The SQL door from a shell. SQL_URL is the door's address, SQL_TOKEN the
# service's doorToken where it has one.
set -eu
url=${SQL_URL:-http://127.0.0.1:9902/sql}
sql() {
    curl --silent --show-error --fail-with-body "$url" \
        --header "authorization: Bearer ${SQL_TOKEN:-none}" \
        --header "content-type: application/json" --data "$1"
}
sql '{"query": "create table if not exists visits (name text, at timestamptz default now())"}'
sql '{"query": "insert into visits (name) values ($1)", "params": ["curl"]}'
sql '{"query": "select name, count(*) from visits group by name order by name"}'
