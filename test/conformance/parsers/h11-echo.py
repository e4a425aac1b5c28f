"""Parses HTTP/1.1 requests with h11: one JSON line with a latin1 message in, one JSON line with what it means out."""

import json
import sys

import h11


def parse(data):
    """The requests in `data`, as far as h11 reads them, and the error that stopped it."""
    connection = h11.Connection(h11.SERVER, max_incomplete_event_size=200_000)
    connection.receive_data(data)
    requests = []
    error = None
    try:
        while True:
            event = connection.next_event()
            if isinstance(event, h11.Request):
                headers = [[name.decode("latin1"), value.decode("latin1")] for name, value in event.headers]
                requests.append({"method": event.method.decode(), "target": event.target.decode("latin1"), "headers": headers, "body": "", "trailers": [], "done": False})
            elif isinstance(event, h11.Data):
                requests[-1]["body"] += bytes(event.data).decode("latin1")
            elif isinstance(event, h11.EndOfMessage):
                requests[-1]["done"] = True
                requests[-1]["trailers"] = [[name.decode("latin1"), value.decode("latin1")] for name, value in event.headers]
            elif event is h11.PAUSED:
                connection.send(h11.Response(status_code=200, headers=[("content-length", "0")]))
                connection.send(h11.EndOfMessage())
                connection.start_next_cycle()
            else:
                break
    except h11.ProtocolError as problem:
        error = str(problem)
    return {"requests": requests, "error": error}


for line in sys.stdin:
    print(json.dumps(parse(json.loads(line).encode("latin1"))), flush=True)
