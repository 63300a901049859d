"""Reads what a group has for it over a WebSocket with `websockets`, comes back by itself; a line for each
record. It acknowledges each fifth. The argument is the URL."""

import json
import sys
import time

from websockets.exceptions import ConnectionClosed, InvalidHandshake
from websockets.sync.client import connect

url = sys.argv[1]
while True:
    try:
        with connect(url, subprotocols=["kafka-upstream.json.v1"]) as socket:
            records = 0
            for text in socket:
                frame = json.loads(text)
                if frame["type"] != "message":
                    continue
                print("record", json.dumps(frame["content"].strip()), flush=True)
                records += 1
                if records % 5 == 0:
                    socket.send(json.dumps({"type": "ack", "id": frame["id"]}))
    except (OSError, ConnectionClosed, InvalidHandshake) as error:
        print("closed", repr(error), flush=True)
    time.sleep(0.2)
