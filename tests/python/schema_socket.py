"""Prints the contents of the first records that a feed has, as they stand in its frames: URL COUNT."""

import json
import sys

from websockets.sync.client import connect

url, count = sys.argv[1], int(sys.argv[2])
with connect(url, subprotocols=["kafka-upstream.json.v1"]) as socket:
    while count:
        text = socket.recv()
        if json.loads(text)["type"] == "message":
            # A parser would round numbers.
            print(text.partition('"content":')[2].partition(',"metadata"')[0], flush=True)
            count -= 1
