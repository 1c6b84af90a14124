"""An HTTP server on loopback that keeps what is posted to it, and answers GET with a page."""

import contextlib
import http.server
import json
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any


@dataclass
class Listener:
    """Address of a server, and the bodies posted to it, oldest first."""

    port: int
    posts: list[bytes] = field(default_factory=list)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/"

    @property
    def messages(self) -> list[Any]:
        """The posts as JSON."""
        return [json.loads(body) for body in self.posts]


@contextlib.contextmanager
def listen(page: str = "") -> Iterator[Listener]:
    """Start a server whose answer to GET is `page`."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            listener.posts.append(self.rfile.read(int(self.headers["Content-Length"])))
            self.send_response(200)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("Content-Type", "text/html")
            self.end_headers()
            self.wfile.write(page.encode())

        def log_message(self, *_args: object) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        listener = Listener(server.server_port)
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        try:
            yield listener
        finally:
            server.shutdown()
            thread.join()
