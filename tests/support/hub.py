"""A hub on this machine: the part of the Hugging Face hub's protocol that a push and a download need."""

import json
import re
from base64 import b64decode
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from hashlib import sha1
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import Any
from urllib.parse import unquote, urlparse

COMMIT = "c" * 40


@dataclass
class LocalHub:
    """Repositories of a hub: name -> path of a file -> its content."""

    repositories: dict[str, dict[str, bytes]] = field(default_factory=dict)
    private: set[str] = field(default_factory=set)
    url: str = ""


@contextmanager
def local_hub() -> Iterator[LocalHub]:
    """Serves a hub on a free port."""
    hub = LocalHub()

    class Handler(_Handler):
        held = hub

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    hub.url = f"http://127.0.0.1:{server.server_address[1]}"
    thread = Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


class _Handler(BaseHTTPRequestHandler):
    held: LocalHub
    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        path = urlparse(self.path).path
        if path == "/api/repos/create":
            self._create(json.loads(body))
        elif match := re.fullmatch(r"/api/models/(.+)/preupload/main", path):
            files = json.loads(body)["files"]
            modes = [{"path": file["path"], "uploadMode": "regular", "shouldIgnore": False} for file in files]
            self._send({"files": modes})
        elif match := re.fullmatch(r"/api/models/(.+)/commit/main", path):
            self._commit(match[1], [json.loads(line) for line in body.splitlines()])
        elif path == "/api/validate-yaml":
            self._send({"errors": [], "warnings": []})
        else:
            self._send({"error": f"unknown {path}"}, 404)

    def do_GET(self) -> None:
        path = unquote(urlparse(self.path).path)
        if match := re.fullmatch(r"/api/models/(.+?)/tree/([^/]+)(/.*)?", path):
            files = self._files(match[1])
            rows = [
                {"type": "file", "path": name, "size": len(files[name]), "oid": _digest(files[name])} for name in files
            ]
            self._send(rows)
        elif match := re.fullmatch(r"/api/models/([^/]+/[^/]+)(/revision/.+)?", path):
            files = self._files(match[1])
            siblings = [{"rfilename": name} for name in files]
            self._send({"id": match[1], "sha": COMMIT, "siblings": siblings, "tags": [], "private": False})
        elif match := re.fullmatch(r"/([^/]+/[^/]+)/resolve/[^/]+/(.+)", path):
            self._send(self._files(match[1]).get(match[2]), headers={"X-Repo-Commit": COMMIT})
        else:
            self._send({"error": f"unknown {path}"}, 404)

    do_HEAD = do_GET  # noqa: N815 (the name that http.server calls)

    def _create(self, asked: dict[str, Any]) -> None:
        name = f"{asked['organization']}/{asked['name']}" if asked.get("organization") else asked["name"]
        known = name in self.held.repositories
        self.held.repositories.setdefault(name, {".gitattributes": b"*.safetensors filter=lfs\n"})
        if asked.get("private") or asked.get("visibility") == "private":
            self.held.private.add(name)
        self._send({"url": f"{self.held.url}/{name}", "name": name}, 409 if known else 200)

    def _commit(self, name: str, lines: list[dict[str, Any]]) -> None:
        files = self._files(name)
        for line in lines:
            if line["key"] == "file":
                files[line["value"]["path"]] = b64decode(line["value"]["content"])
            elif line["key"] == "deletedFile":
                del files[line["value"]["path"]]
        self._send({"success": True, "commitOid": COMMIT, "commitUrl": f"{self.held.url}/{name}/commit/{COMMIT}"})

    def _files(self, name: str) -> dict[str, bytes]:
        return self.held.repositories.get(name, {})

    def _send(self, content: Any, status: int = 200, headers: dict[str, str] | None = None) -> None:
        if content is None:
            content, status = {"error": "Entry not found"}, 404
        body = content if isinstance(content, bytes) else json.dumps(content).encode()
        self.send_response(status)
        for name, value in {"Content-Length": str(len(body)), "ETag": f'"{_digest(body)}"', **(headers or {})}.items():
            self.send_header(name, value)
        if not isinstance(content, bytes):
            self.send_header("Content-Type", "application/json")
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Prints nothing."""


def _digest(content: bytes) -> str:
    return sha1(content, usedforsecurity=False).hexdigest()
