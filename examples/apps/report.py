#!/usr/bin/env python3
"""A batch job: asks another service through the sidecar, prints what it found.

USERS_URL   the service users, through the sidecar
"""

import json
import os
import urllib.request

with urllib.request.urlopen(os.environ["USERS_URL"] + "/users", timeout=30) as answer:
    document = json.load(answer)
print(f"report: {document['app']} knows me as {document['seen'].get('x-service-name')}")
