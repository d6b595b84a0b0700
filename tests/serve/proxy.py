"""A reverse proxy for the tests: publishes a server under /digits, on a free port of this machine.

    python proxy.py UPSTREAM upstream|client

Prints its port. "upstream" sends the server's own address as Host, as nginx does by default;
"client" passes the client's Host on. The prefix is cut off.
"""

from __future__ import annotations

import http.client
import http.server
import sys
from urllib.parse import urlsplit

PREFIX = "/digits"
UPSTREAM, HOST = sys.argv[1:]
NOT_PASSED_ON = ("host", "connection", "transfer-encoding", "content-length", "date", "server")


class Handler(http.server.BaseHTTPRequestHandler):
    """Passes requests on."""

    def handle_one(self) -> None:
        """Send a request upstream, and its response back."""
        if not self.path.startswith(f"{PREFIX}/"):
            self.send_error(404)
            return
        address = urlsplit(UPSTREAM).netloc
        headers = {key: text for key, text in self.headers.items() if key.lower() != "host"}
        headers["Host"] = address if HOST == "upstream" else self.headers["Host"]
        headers["X-Forwarded-Host"] = self.headers["Host"]
        headers["X-Forwarded-Prefix"] = PREFIX
        headers["X-Forwarded-Proto"] = "http"
        body = self.rfile.read(int(self.headers.get("content-length", 0)))
        connection = http.client.HTTPConnection(address)
        connection.request(self.command, self.path[len(PREFIX) :], body, headers)
        response = connection.getresponse()
        content = response.read()
        self.send_response(response.status)
        for key, text in response.getheaders():
            if key.lower() not in NOT_PASSED_ON:
                self.send_header(key, text)
        self.send_header("content-length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)
        connection.close()

    do_GET = do_POST = do_OPTIONS = handle_one  # noqa: N815

    def log_message(self, *arguments: object) -> None:
        """Write nothing."""


with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
    print(server.server_port, flush=True)
    server.serve_forever()
