"""A bucket of Google Cloud Storage in this process: as much of its JSON API as checkpoints need."""

from __future__ import annotations

import contextlib
import email
import json
import re
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, unquote, urlsplit

import pytest

BUCKET = "bucket"
_OBJECT = re.compile(
    r"(?:/download)?/storage/v1/b/[^/]+/o/([^/]+)(?:/(rewriteTo/b/[^/]+|moveTo)/o/(.+))?"
)


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Requests)
        self.objects: dict[str, tuple[int, bytes]] = {}  # name -> generation, contents
        self.begun: dict[str, str] = {}  # upload -> name
        self.lock, self.generation = threading.Lock(), 0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"

    def put(self, name: str, data: bytes) -> dict:
        with self.lock:
            self.generation += 1
            self.objects[name] = self.generation, data
        return self.facts(name)

    def facts(self, name: str) -> dict:
        generation, data = self.objects[name]
        facts = dict(kind="storage#object", name=name, bucket=BUCKET, size=str(len(data)))
        times = dict.fromkeys(("updated", "timeCreated"), "2026-01-01T00:00:00.000Z")
        link = f"{self.url}/download/storage/v1/b/{BUCKET}/o/{name.replace('/', '%2F')}?alt=media"
        return facts | times | dict(generation=str(generation), metageneration="1", mediaLink=link)


class _Requests(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: _Server

    def log_message(self, *args: object) -> None:
        pass

    def do_GET(self) -> None:
        path, query = self._asked()
        found = _OBJECT.fullmatch(path)
        if path == f"/storage/v1/b/{BUCKET}/o":
            self._list(query)
        elif path == f"/storage/v1/b/{BUCKET}":
            self._json(
                dict(kind="storage#bucket", name=BUCKET, location="EU", locationType="region")
            )
        elif not found or unquote(found[1]) not in self.server.objects:
            self._json(dict(error=dict(code=404, message="no such object")), 404)
        elif query.get("alt") == "media" or path.startswith("/download"):
            self._contents(unquote(found[1]))
        else:
            self._json(self.server.facts(unquote(found[1])))

    def _contents(self, name: str) -> None:
        generation, data = self.server.objects[name]
        code, headers = 200, {"x-goog-generation": str(generation)}
        if wanted := re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", "")):
            first, last = int(wanted[1]), int(wanted[2] or len(data) - 1)
            if first >= len(data):
                return self._send(b"", 416, {})
            whole, data = len(data), data[first : last + 1]
            headers["Content-Range"] = f"bytes {first}-{first + len(data) - 1}/{whole}"
            code = 206
        self._send(data, code, headers)

    def _list(self, query: dict[str, str]) -> None:
        prefix, delimiter = query.get("prefix", ""), query.get("delimiter", "")
        items, prefixes = [], set()
        for name in sorted(self.server.objects):
            rest = name[len(prefix) :]
            if not name.startswith(prefix):
                continue
            if delimiter and delimiter in rest:
                prefixes.add(prefix + rest.split(delimiter)[0] + delimiter)
            elif query.get("startOffset", "") <= name:
                items.append(self.server.facts(name))
        self._json(dict(kind="storage#objects", items=items, prefixes=sorted(prefixes)))

    def do_POST(self) -> None:
        path, query = self._asked()
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        if path.startswith("/batch"):
            return self._batch(body)
        if found := _OBJECT.fullmatch(path):
            if unquote(found[1]) not in self.server.objects:
                return self._json(dict(error=dict(code=404, message="no such object")), 404)
            copied = self.server.put(unquote(found[3]), self.server.objects[unquote(found[1])][1])
            if found[2] == "moveTo":
                self.server.objects.pop(unquote(found[1]))
                return self._json(copied)
            return self._json(dict(kind="storage#rewriteResponse", done=True, resource=copied))
        if "upload" in query:  # all of what was begun
            return self._json(self.server.put(self.server.begun[query["upload"]], body))
        kind, name = query["uploadType"], query.get("name")
        if kind == "multipart":
            head = f"Content-Type: {self.headers['Content-Type']}\r\n\r\n".encode()
            about, data = email.message_from_bytes(head + body).get_payload()
            name = json.loads(about.get_payload(decode=True))["name"]
            body = data.get_payload(decode=True)
        elif kind == "resumable":
            name = name or json.loads(body)["name"]
            key = str(len(self.server.begun))
            self.server.begun[key] = name
            return self._send(b"{}", 200, {"Location": f"{self.server.url}{path}?upload={key}"})
        if query.get("ifGenerationMatch") == "0" and name in self.server.objects:
            return self._json(dict(error=dict(code=412, message="exists")), 412)
        self._json(self.server.put(name, body))

    def do_DELETE(self) -> None:
        self.server.objects.pop(unquote(_OBJECT.fullmatch(self._asked()[0])[1]), None)
        self._send(b"", 204, {})

    def _batch(self, body: bytes) -> None:
        """Deletions, each a part."""
        parts = []
        for number, path in enumerate(re.findall(rb"DELETE (?:https?://[^/]+)?(\S+)", body), 1):
            name = unquote(_OBJECT.fullmatch(urlsplit(path.decode()).path)[1])
            code = "204 No Content" if self.server.objects.pop(name, None) else "404 Not Found"
            about = f"Content-Type: application/http\r\nContent-ID: <response-{number}>"
            parts.append(f"--batch\r\n{about}\r\n\r\nHTTP/1.1 {code}\r\n\r\n\r\n")
        text = "".join(parts) + "--batch--\r\n"
        self._send(text.encode(), 200, {"Content-Type": "multipart/mixed; boundary=batch"})

    def _asked(self) -> tuple[str, dict[str, str]]:
        parts = urlsplit(self.path)
        return parts.path, {name: values[-1] for name, values in parse_qs(parts.query).items()}

    def _json(self, values: dict, code: int = 200) -> None:
        self._send(json.dumps(values).encode(), code, {"Content-Type": "application/json"})

    def _send(self, data: bytes, code: int, headers: dict[str, str]) -> None:
        self.send_response(code)
        for name, value in ({"Content-Length": str(len(data))} | headers).items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(data)


@contextlib.contextmanager
def fake_bucket(patch: pytest.MonkeyPatch) -> Iterator[dict[str, tuple[int, bytes]]]:
    """Its objects by name; gs://bucket means it meanwhile, to all that this process calls."""
    server = _Server()
    threading.Thread(target=server.serve_forever, daemon=True).start()
    patch.setenv("STORAGE_EMULATOR_HOST", server.url)  # of Google's clients and gcsfs
    patch.setenv("TENSORSTORE_GCS_HTTP_URL", server.url)
    patch.setenv("TENSORSTORE_GCS_HTTP_VERSION", "1")
    patch.setenv("GOOGLE_CLOUD_PROJECT", "none")
    try:
        yield server.objects
    finally:
        server.shutdown()
        server.server_close()
