"""A fault proxy for object stores on loopback: forwards to a real server, or serves a folder
itself, and on command cuts, flips, resets, refuses, delays or throttles. It counts requests by
node, method and key.

``python store_proxy.py PORT UPSTREAM`` where UPSTREAM is ``http://127.0.0.1:1234`` or a folder of
buckets. The standard library only. Used through :class:`StoreProxy`, which runs it as a process of
its own: sockets of a forked process would stay open in its children, so that a reset would be none.
"""

import contextlib
import hashlib
import http.client
import json
import os
import re
import socket
import struct
import subprocess
import sys
import threading
import time
from collections import Counter
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import unquote, urlsplit

CONTROL = "/_proxy/"
ERROR = "<?xml version='1.0'?><Error><Code>{code}</Code><Message>{message}</Message></Error>"
CODES = {
    400: "ExpiredToken",
    403: "AccessDenied",
    404: "NoSuchKey",
    500: "InternalError",
    503: "SlowDown",
}


class State:
    """What is to go wrong, and what was asked for."""

    def __init__(self) -> None:
        self.lock, self.rules, self.log = threading.Lock(), [], []

    def rule_for(self, method: str, key: str, signed: bool) -> dict | None:
        """The first rule that wants this request; it has one time less after that."""
        with self.lock:
            for rule in self.rules:
                wanted = method in rule.get("methods", ["GET"]) and re.search(
                    rule.get("match", ""), key
                )
                wanted = wanted and rule.get("signed", signed) == signed
                if wanted and rule.get("times", 1) != 0:
                    if "times" in rule:
                        rule["times"] -= 1
                    return rule
        return None


class Handler(BaseHTTPRequestHandler):
    """One connection."""

    protocol_version = "HTTP/1.1"
    state: State
    upstream: str

    def log_message(self, *_):
        pass

    def handle_one_request(self):
        with contextlib.suppress(ConnectionError):
            super().handle_one_request()

    def do_GET(self):
        self._answer()

    do_HEAD = do_PUT = do_POST = do_DELETE = do_GET

    def _answer(self):
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        key = unquote(urlsplit(self.path).path).lstrip("/")
        if self.path.startswith(CONTROL):
            return self._control(self.path[len(CONTROL) :], body)
        agent = self.headers.get("User-Agent", "")
        node = re.search(r"app/(\S+)", agent)
        with self.state.lock:
            self.state.log.append(
                [node[1] if node else "", self.command, key, self.client_address[1]]
            )
        signed = "Authorization" in self.headers
        rule = self.state.rule_for(self.command, key, signed) or {"kind": "none"}
        kind = rule["kind"]
        if kind == "reset":
            return self._reset()
        if kind == "delay":
            time.sleep(rule["seconds"])
        if kind == "status":
            return self._refuse(rule["status"], rule.get("message", "as you wished"))
        status, headers, content = (
            self._forward(body) if self.upstream.startswith("http") else self._file(key)
        )
        if kind == "flip" and content:
            content = content[:-1] + bytes([content[-1] ^ 1])
        if kind == "short":  # less than there is, and the header says so too
            content = content[: len(content) // 2]
            headers = [
                (name, str(len(content)) if name.lower() == "content-length" else value)
                for name, value in headers
            ]
        self.send_response_only(status)
        for name, value in headers:
            self.send_header(name, value)
        self.end_headers()
        if self.command == "HEAD":
            return None
        if kind == "cut":
            self.wfile.write(content[: len(content) // 2])
            return self._reset() if rule.get("reset") else self._hang_up()
        if kind == "throttle":
            for begin in range(0, len(content), rule["bytes"]):
                self.wfile.write(content[begin : begin + rule["bytes"]])
                time.sleep(rule["seconds"])
            return None
        self.wfile.write(content)
        return None

    def _forward(self, body: bytes):
        parts = urlsplit(self.upstream)
        connection = http.client.HTTPConnection(parts.hostname, parts.port, timeout=60)
        # The signature covers the host that the client knows, so it is passed on as it is.
        headers = {
            name: value
            for name, value in self.headers.items()
            if name.lower() not in ("connection", "expect")
        }
        connection.request(self.command, self.path, body=body, headers=headers)
        answer = connection.getresponse()
        content = answer.read()
        drop = ("connection", "transfer-encoding", "content-length")
        kept = [(name, value) for name, value in answer.getheaders() if name.lower() not in drop]
        length = answer.getheader("Content-Length") if self.command == "HEAD" else str(len(content))
        connection.close()
        return answer.status, [*kept, ("Content-Length", length or "0")], content

    def _file(self, key: str):
        path = Path(self.upstream, key)
        if not path.is_file():
            content = ERROR.format(code="NoSuchKey", message="no such key").encode()
            return 404, [("Content-Length", str(len(content)))], content
        content = path.read_bytes()
        etag = f'"{hashlib.md5(content).hexdigest()}"'
        if self.headers.get("If-None-Match") == etag:
            return 304, [("Content-Length", "0"), ("ETag", etag)], b""
        date = self.date_time_string(path.stat().st_mtime)
        return (
            200,
            [("Content-Length", str(len(content))), ("ETag", etag), ("Last-Modified", date)],
            content,
        )

    def _refuse(self, status: int, message: str):
        content = ERROR.format(code=CODES.get(status, "Error"), message=message).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)

    def _reset(self):
        self.wfile.flush()
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self._hang_up()

    def _hang_up(self):
        self.close_connection = True
        self.wfile.flush()
        self.connection.close()
        self.rfile.close()

    def _control(self, what: str, body: bytes):
        with self.state.lock:
            if what == "rules":
                self.state.rules = json.loads(body)
            elif what == "forget":
                self.state.log = []
            content = json.dumps(self.state.log).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)


class StoreProxy:
    """The proxy as a process.

    Args:
        upstream: URL of an S3 server, or a folder whose sub-folders are buckets.
        port: Where to listen; a free one by default.
    """

    def __init__(self, upstream: str | Path, port: int | None = None) -> None:
        from ports import (
            # Of the tests only: the proxy itself is run with nothing but the standard library
            free_port,
        )

        self.port = port or free_port()
        command = [sys.executable, "-S", __file__, str(self.port), str(upstream)]
        self._process = subprocess.Popen(command, stdout=subprocess.PIPE)
        self._process.stdout.readline()  # it says so when it listens

    @property
    def url(self) -> str:
        """Its endpoint."""
        return f"http://127.0.0.1:{self.port}"

    def faults(self, *rules: dict) -> None:
        """What goes wrong from now on. A rule has a ``kind`` (reset, status, delay, cut, short,
        flip, throttle), and may have ``match`` (regular expression on bucket/key), ``methods``
        (["GET"]), ``signed`` (only requests with credentials, or only those without) and ``times``
        (always).
        """
        self._control("rules", list(rules))

    def forget(self) -> None:
        """Count from nothing again."""
        self._control("forget")

    def requests(self) -> list[list]:
        """[node, method, key, client port] of each request, in order; the node is the
        AWS_SDK_UA_APP_ID of its sender.
        """
        return self._control("log")

    def gets(self, suffix: str = ".mds") -> Counter:
        """GETs by (node, key) of the keys that end so."""
        return Counter(
            (node, key)
            for node, method, key, _ in self.requests()
            if method == "GET" and key.endswith(suffix)
        )

    def stop(self) -> None:
        """Let it be gone: connections are refused from now on."""
        self._process.kill()
        self._process.wait()
        self._process.stdout.close()

    def _control(self, what: str, value=None):
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)
        connection.request("POST", CONTROL + what, body=json.dumps(value))
        answer = json.loads(connection.getresponse().read())
        connection.close()
        return answer


class Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128

    def handle_error(self, request, client_address):
        pass


def main(port: str, upstream: str) -> None:
    Handler.state, Handler.upstream = State(), upstream
    server = Server(("127.0.0.1", int(port)), Handler)
    print("ready", flush=True)
    threading.Thread(target=exit_with_parent, daemon=True).start()
    server.serve_forever()


def exit_with_parent() -> None:
    """A test that is killed leaves no server behind."""
    parent = os.getppid()
    while os.getppid() == parent:
        time.sleep(1)
    os._exit(0)


if __name__ == "__main__":
    main(*sys.argv[1:])
