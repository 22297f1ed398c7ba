"""A server whose plain answers are fine and whose streams break: python broken.py --port P --kind KIND.

json: half a JSON object; list: events that are no objects; html: a proxy's error page; chunk: an invalid chunk size;
quiet: the body ends in time, without a finish reason; cut: the connection closes in the middle of the body.
"""

from __future__ import annotations

import argparse
import json
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

TEXT = (
    "Paris is the capital of France, and after four come five, six, seven, eight, nine and ten. Thursday follows "
    "Wednesday, and 17 plus 25 is 42."
)
FIRST = {"choices": [{"index": 0, "text": "word"}], "usage": {"prompt_tokens": 16, "completion_tokens": 1}}
EVENTS = {
    "json": [b'data: {"choices": [{"ind\n\n', b"data: [DONE]\n\n", b""],
    "list": [b"data: [1, 2]\n\n", b"data: 7\n\n", b""],
    "html": [b"<html>502 Bad Gateway</html>\n\n", b""],
    "quiet": [b""],
    "chunk": [],
    "cut": [],
}


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    kind = "json"

    def log_message(self, *args: object) -> None:
        pass

    def do_GET(self) -> None:
        listed = json.dumps({"object": "list", "data": [{"id": "m"}]}).encode()
        self._whole(404 if self.path == "/metrics" else 200, listed)

    def do_POST(self) -> None:
        asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        if asked.get("stream"):
            self._stream()
            return
        choice = {"index": 0, "finish_reason": "stop", "text": TEXT, "message": {"role": "assistant", "content": TEXT}}
        usage = {"prompt_tokens": 5, "completion_tokens": 30, "total_tokens": 35}
        self._whole(200, json.dumps({"object": "x", "model": "m", "choices": [choice], "usage": usage}).encode())

    def _whole(self, status: int, body: bytes) -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def _stream(self) -> None:
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream")
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        for event in (b"data: " + json.dumps(FIRST).encode() + b"\n\n", *EVENTS[self.kind]):
            self.wfile.write(b"%x\r\n%s\r\n" % (len(event), event))
        if self.kind == "chunk":
            self.wfile.write(b"zz\r\nno chunk\r\n")
        self.close_connection = self.kind in ("chunk", "cut")


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--kind", choices=sorted(EVENTS), required=True)
    args = parser.parse_args()
    Handler.kind = args.kind
    ThreadingHTTPServer(("127.0.0.1", args.port), Handler).serve_forever()
