"""Talks to a feed over a WebSocket with `websockets`, comes back by itself; a line for all it is told. The
arguments are the URL, up to its query's last `&`, and the client's name. It acknowledges each record, but
refuses each of partition 1 whose number ends in 5, and writes a record for each tenth."""

import json
import sys
import time

from websockets.exceptions import ConnectionClosed, InvalidHandshake
from websockets.sync.client import connect

from reports import report


def say(socket, message):
    """What came before the end is read after it, too: the `goaway` above all."""
    try:
        socket.send(json.dumps(message))
    except ConnectionClosed:
        pass


url, name = sys.argv[1:]
cursor, written = "from=earliest", 0
while True:
    try:
        with connect(url + cursor, subprotocols=["kafka-upstream.json.v1"]) as socket:
            print("opened", socket.subprotocol, flush=True)
            for text in socket:
                frame = json.loads(text)
                if frame["type"] == "message":
                    value, place = frame["content"], frame["metadata"]
                    cursor = "cursor=" + frame["id"]
                    print("event", json.dumps(["message", value, frame["id"]]), flush=True)
                    if place["partition"] == 1 and value.split()[1].endswith("5"):
                        refusal = {name: place[name] for name in ("topic", "partition", "offset")}
                        say(socket, refusal | {"type": "nack", "reason": "a five"})
                    else:
                        say(socket, {"type": "ack", "id": frame["id"]})
                    if value.split()[1].endswith("0"):
                        content = f"{name} {written}"
                        say(socket, {"type": "produce", "ref": written, "content": content})
                        written += 1
                else:
                    report(frame, text, cursor)
    except (OSError, ConnectionClosed, InvalidHandshake) as error:
        print("closed", repr(error), flush=True)
    time.sleep(0.2)
