"""As sockets.py, with `websocket-client`: several records a message, of which it refuses none."""

import json
import sys
import time

import websocket

from reports import report

url, name = sys.argv[1:]
cursor, written = "from=earliest", 0


def say(socket, **frame):
    """What came before the end is read after it, too: the `goaway` above all."""
    try:
        socket.send(json.dumps(frame))
    except (OSError, websocket.WebSocketException):
        pass


while True:
    try:
        socket = websocket.create_connection(url + "batch=7&" + cursor, timeout=30)
        print("opened", flush=True)
        while text := socket.recv():
            frame = json.loads(text)
            if frame["type"] == "messages":
                cursor = "cursor=" + frame["id"]
                for item in frame["items"]:
                    print("event", json.dumps(["message", item["content"], item["id"]]), flush=True)
                    if item["content"].split()[1].endswith("0"):
                        say(socket, type="produce", ref=written, content=f"{name} {written}")
                        written += 1
                say(socket, type="ack", id=frame["id"])
            else:
                report(frame, text, cursor)
    except (OSError, websocket.WebSocketException) as error:
        print("closed", repr(error), flush=True)
    time.sleep(0.2)
