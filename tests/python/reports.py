"""Lines about the frames that every client of a feed's WebSocket reports alike."""

import json


def report(frame, text, cursor):
    kind = frame["type"]
    if kind == "produced":
        print("produced", json.dumps([frame["outcome"], frame["ref"]]), flush=True)
    elif kind == "goaway":
        print("event", json.dumps(["goaway", frame["reason"], cursor]), flush=True)
    elif kind in ("gap", "error"):
        print("event", json.dumps([kind, text, cursor]), flush=True)
