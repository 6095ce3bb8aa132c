"""The SQL door from Python, with nothing but the standard library.

SQL_URL is the door's address, SQL_TOKEN the service's doorToken where it has one.
"""

import json
import os
import urllib.error
import urllib.request

URL = os.environ.get("SQL_URL", "http://127.0.0.1:9902/sql")
TOKEN = os.environ.get("SQL_TOKEN", "none")


def post(url, body):
    request = urllib.request.Request(
        url,
        data=json.dumps(body).encode(),
        headers={"content-type": "application/json", "authorization": f"Bearer {TOKEN}"},
    )
    try:
        with urllib.request.urlopen(request, timeout=35) as response:
            return json.load(response)
    except urllib.error.HTTPError as error:
        # 400 is an error of the statement, 503 of the database.
        problem = json.load(error)
        raise RuntimeError(problem.get("message") or problem.get("reason")) from None


def sql(query, *params):
    return post(URL, {"query": query, "params": params})["rows"]


def batch(*queries):
    """One transaction: all of them or none."""
    return post(URL, {"queries": [{"query": one, "params": []} for one in queries]})


sql("create table if not exists visits (name text, at timestamptz default now())")
sql("insert into visits (name) values ($1)", "python")
batch("insert into visits (name) values ('batch')", "delete from visits where name = 'batch'")
try:
    sql("select * from no_such_table")
except RuntimeError as error:
    print(error)
for row in sql("select name, count(*) from visits group by name order by name"):
    print(row["name"], row["count"])
