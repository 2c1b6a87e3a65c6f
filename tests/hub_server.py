"""A hub in one file: the endpoints that huggingface_hub asks when it downloads a snapshot, on a local port."""

import hashlib
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

COMMIT = "89abcdef0123456789abcdef0123456789abcdef"


@dataclass
class Hub:
    """What the hub holds, and what it was asked."""

    files: dict[str, dict[str, Path]] = field(default_factory=dict)  # `models/org/name` -> file name -> its bytes
    gated: set[str] = field(default_factory=set)
    sizes: dict[str, int] = field(default_factory=dict)  # what it says of a file, instead of its length
    asked: list[str] = field(default_factory=list)
    tokens: set[str] = field(default_factory=set)
    url: str = ""


@contextmanager
def running(hub: Hub) -> Iterator[Hub]:
    """Serve a hub while this lasts."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.answer(True)

        def do_HEAD(self) -> None:
            self.answer(False)

        def answer(self, body: bool) -> None:
            path = urlsplit(self.path).path
            hub.asked.append(f"{self.command} {path}")
            hub.tokens.add(self.headers.get("Authorization", ""))
            if path.startswith("/api/"):
                self.api(path.removeprefix("/api/").split("/"))
                return
            parts = path.strip("/").split("/")
            kind = "datasets" if parts[0] == "datasets" else "models"
            parts = parts[1:] if parts[0] == "datasets" else parts
            name, revision, file = f"{kind}/{parts[0]}/{parts[1]}", parts[3], "/".join(parts[4:])
            if name in hub.gated:
                self.refuse(403, "GatedRepo")
            elif file not in hub.files.get(name, {}):
                self.refuse(404, "EntryNotFound" if name in hub.files else "RepoNotFound")
            elif revision not in ("main", COMMIT):
                self.refuse(404, "RevisionNotFound")
            else:
                self.send(hub.files[name][file].read_bytes(), body)

        def api(self, parts: list[str]) -> None:
            name = "/".join(parts[:3])
            if name not in hub.files:
                self.refuse(401 if not self.headers.get("Authorization") else 404, "RepoNotFound")
            elif parts[4] not in ("main", COMMIT):
                self.refuse(404, "RevisionNotFound")
            elif parts[3] == "tree":
                self.json([entry(file, path) for file, path in hub.files[name].items()])
            else:
                siblings = [{"rfilename": file} for file in hub.files[name]]
                self.json({"id": "/".join(parts[1:3]), "sha": COMMIT, "siblings": siblings, "private": False})

        def json(self, content: Any) -> None:
            self.send(json.dumps(content).encode(), True, "application/json")

        def send(self, content: bytes, body: bool, kind: str = "application/octet-stream") -> None:
            self.send_response(200)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(content)))
            self.send_header("ETag", f'"{hashlib.sha1(content).hexdigest()}"')
            self.send_header("X-Repo-Commit", COMMIT)
            self.end_headers()
            if body:
                self.wfile.write(content)

        def refuse(self, code: int, error: str) -> None:
            self.send_response(code)
            self.send_header("X-Error-Code", error)
            self.send_header("X-Error-Message", error)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *_: Any) -> None:
            pass

    def entry(file: str, path: Path) -> dict[str, Any]:
        size = hub.sizes.get(file, path.stat().st_size)
        return {"type": "file", "path": file, "size": size, "oid": hashlib.sha1(path.read_bytes()).hexdigest()}

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    hub.url = f"http://127.0.0.1:{server.server_port}"
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
