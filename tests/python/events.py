"""Follows an event stream with LaunchDarkly's client, which comes back by itself; a line an event."""

import json
import sys

from ld_eventsource import SSEClient
from ld_eventsource.actions import Event, Start
from ld_eventsource.config import ErrorStrategy

client = SSEClient(sys.argv[1], error_strategy=ErrorStrategy.always_continue())
for action in client.all:
    if isinstance(action, Start):
        print("opened", flush=True)
    elif isinstance(action, Event):
        event = [action.event, action.data, action.last_event_id]
        print("event", json.dumps(event), flush=True)
