"""A small stand-in for the Hugging Face Hub, over HTTP on this machine, for models only."""

import base64
import hashlib
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import pytest

SHA = "a" * 40


class StubHub(ThreadingHTTPServer):
    """Repositories as `{"owner/name": {path: content}}`, and every request that came."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.repos: dict[str, dict[str, bytes]] = {}
        self.private: dict[str, bool] = {}
        self.requests: list[tuple[str, str]] = []
        self.tokens: set[str] = set()
        self.refuses: int | None = None  # a status that answers everything

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"


class _Handler(BaseHTTPRequestHandler):
    server: StubHub

    def log_message(self, format: str, *args: Any) -> None:
        """Say nothing."""

    def do_GET(self) -> None:
        self._route(b"")

    do_HEAD = do_GET

    def do_POST(self) -> None:
        self._route(self.rfile.read(int(self.headers.get("Content-Length") or 0)))

    def _route(self, body: bytes) -> None:
        path = unquote(urlsplit(self.path).path)
        self.server.requests.append((self.command, path))
        self.server.tokens.add(self.headers.get("Authorization", ""))
        if self.server.refuses:
            return self._json({"error": "no"}, self.server.refuses)
        if path == "/api/validate-yaml":
            return self._json({"errors": [], "warnings": []})
        if path == "/api/repos/create":
            return self._create(json.loads(body))
        parts = path.strip("/").split("/")
        parts = parts[2:] if parts[0] == "api" else parts
        repo, what, rest = "/".join(parts[:2]), parts[2] if len(parts) > 2 else "", parts[4:]
        files = self.server.repos.get(repo)
        if files is None:
            return self._json({"error": "not found"}, 404, {"X-Error-Code": "RepoNotFound"})
        return self._answer(repo, files, what, rest, body)

    def _answer(
        self, repo: str, files: dict[str, bytes], what: str, rest: list[str], body: bytes
    ) -> None:
        if what in ("", "revision"):
            siblings = [{"rfilename": name} for name in files]
            return self._json({"id": repo, "sha": SHA, "siblings": siblings, "tags": []})
        if what == "tree":
            return self._json([_entry(name, content) for name, content in files.items()])
        if what == "preupload":
            asked = json.loads(body)["files"]
            plain = {"uploadMode": "regular", "shouldIgnore": False, "oid": None}
            return self._json({"files": [{"path": each["path"], **plain} for each in asked]})
        if what == "commit":
            return self._commit(repo, files, body)
        return self._file(files, "/".join(rest))

    def _create(self, asked: dict[str, Any]) -> None:
        repo = f"{asked.get('organization') or 'me'}/{asked['name']}"
        self.server.repos[repo] = {".gitattributes": b""}
        private = asked.get("private") is True or asked.get("visibility") == "private"
        self.server.private[repo] = private
        self._json({"url": f"{self.server.url}/{repo}", "name": repo, "id": repo})

    def _commit(self, repo: str, files: dict[str, bytes], body: bytes) -> None:
        for line in map(json.loads, body.splitlines()):
            if line["key"] == "file":
                files[line["value"]["path"]] = base64.b64decode(line["value"]["content"])
        url = f"{self.server.url}/{repo}/commit/{SHA}"
        self._json({"success": True, "commitUrl": url, "commitOid": SHA, "hookOutput": ""})

    def _file(self, files: dict[str, bytes], name: str) -> None:
        if name not in files:
            return self._json({"error": "no file"}, 404, {"X-Error-Code": "EntryNotFound"})
        headers = {"ETag": f'"{_oid(files[name])}"', "X-Repo-Commit": SHA}
        return self._send(files[name], 200, headers)

    def _json(self, value: Any, status: int = 200, headers: dict[str, str] | None = None) -> None:
        self._send(json.dumps(value).encode(), status, headers or {})

    def _send(self, content: bytes, status: int, headers: dict[str, str]) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)


def _oid(content: bytes) -> str:
    return hashlib.sha1(content).hexdigest()


def _entry(name: str, content: bytes) -> dict[str, Any]:
    return {"type": "file", "path": name, "size": len(content), "oid": _oid(content)}


@contextmanager
def connected(monkeypatch: pytest.MonkeyPatch, cache: Path) -> Iterator[StubHub]:
    """Serve, and let the hub's client talk to it, with a cache and a token of its own."""
    from huggingface_hub import constants

    with running() as stub:
        files = stub.url + "/{repo_id}/resolve/{revision}/{filename}"
        monkeypatch.setattr(constants, "ENDPOINT", stub.url)
        monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", files)
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
        monkeypatch.setattr(constants, "HF_HUB_CACHE", str(cache))
        monkeypatch.setenv("HF_TOKEN", "hf_stub")
        yield stub


@contextmanager
def running() -> Iterator[StubHub]:
    """Serve in a thread."""
    hub = StubHub()
    thread = threading.Thread(target=hub.serve_forever, daemon=True)
    thread.start()
    try:
        yield hub
    finally:
        hub.shutdown()
        hub.server_close()
        thread.join()
