"""Verifies requests of a file, a JSON object a line, with the library of Standard Webhooks."""

import json
import sys

from standardwebhooks import Webhook

webhook = Webhook(sys.argv[1])
count = 0
for line in sys.stdin:
    request = json.loads(line)
    webhook.verify(request["body"], request["headers"])
    count += 1
print(count)
