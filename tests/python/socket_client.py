"""As sockets.py, with `websocket-client`: several records a message, of which it refuses none."""

import json
import sys
import time

import websocket

url, name = sys.argv[1:]
cursor, written = "from=earliest", 0


def say(socket, **frame):
    socket.send(json.dumps(frame))


while True:
    try:
        socket = websocket.create_connection(url + "batch=7&" + cursor, timeout=30)
        print("opened", flush=True)
        while text := socket.recv():
            frame = json.loads(text)
            kind = frame["type"]
            if kind == "messages":
                for item in frame["items"]:
                    print("event", json.dumps(["message", item["content"], item["id"]]), flush=True)
                    if item["content"].split()[1].endswith("0"):
                        say(socket, type="produce", ref=written, content=f"{name} {written}")
                        written += 1
                cursor = "cursor=" + frame["id"]
                say(socket, type="ack", id=frame["id"])
            elif kind == "produced":
                print("produced", json.dumps([frame["outcome"], frame["ref"]]), flush=True)
            elif kind == "goaway":
                print("event", json.dumps(["goaway", frame["reason"], cursor]), flush=True)
            elif kind in ("gap", "error"):
                print("event", json.dumps([kind, text, cursor]), flush=True)
    except (OSError, websocket.WebSocketException) as error:
        print("closed", repr(error), flush=True)
    time.sleep(0.2)
