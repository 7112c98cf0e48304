"""A stand-in for the Hugging Face Hub on the loopback: repositories in memory, real HTTP.

It speaks as much of the Hub's protocol as `huggingface_hub` and `datasets` need to create, fill
and read a data set: repositories, branches, commits of regular and LFS files, trees, downloads.
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
import threading
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

import yaml

from helpers.hub_repository import Commit, Repository, entry, etag, is_lfs, walk

FRONT = re.compile(r"\s*---\r?\n([\S\s]*?)\r?\n---[ \t]*(?:\r?\n|$)")
ID = r"(?P<id>[\w.-]+/[\w.-]+)"

TOKEN = "hf_" + "Ab1" * 8
READER = "hf_" + "Zz9" * 8


@dataclass(frozen=True)
class Request:
    method: str
    path: str
    headers: Mapping[str, str]
    body: bytes


@dataclass(frozen=True)
class Answer:
    status: int
    content: bytes = b""
    headers: Mapping[str, str] = field(default_factory=dict)


class Refusal(Exception):
    """An error as the Hub answers it."""

    def __init__(self, status: int, message: str, code: str | None = None) -> None:
        super().__init__(message)
        headers = {"X-Error-Message": message} | ({"X-Error-Code": code} if code else {})
        self.answer = Answer(status, json.dumps({"error": message}).encode(), headers)


def answer(value: object, status: int = 200) -> Answer:
    return Answer(status, json.dumps(value).encode(), {"Content-Type": "application/json"})


class HubServer:
    """The server; a context manager.

    Args:
        tokens: Tokens that may read and write, as their owner.
        readers: Tokens that may only read.
        owner: Name of the tokens' owner.
    """

    def __init__(
        self, tokens: Iterable[str] = (), readers: Iterable[str] = (), owner: str = "tester"
    ) -> None:
        self.tokens = set(tokens)
        self.readers = set(readers)
        self.owner = owner
        self.repositories: dict[str, Repository] = {}
        self.objects: dict[str, bytes] = {}
        self.requests: list[Request] = []
        self.lock = threading.RLock()
        self._faults: list[list[Any]] = []
        self._hooks: list[tuple[str, Callable[[], object]]] = []
        self._http = ThreadingHTTPServer(("127.0.0.1", 0), _handler(self))
        self._http.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._http.server_address[1]}"

    def __enter__(self) -> HubServer:
        threading.Thread(target=self._http.serve_forever, args=(0.02,), daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._http.shutdown()
        self._http.server_close()

    def fail(self, method: str, path: str, status: int, times: int = 1) -> None:
        """Answer the next requests whose path contains `path` with a status; 0 hangs up."""
        self._faults.append([method, path, status, times])

    def before(self, path: str, action: Callable[[], object]) -> None:
        """Do something once, before the next request whose path contains `path` is served."""
        self._hooks.append((path, action))

    def create(
        self, repo_id: str, files: Mapping[str, bytes], *, private: bool = True
    ) -> Repository:
        repository = self.repositories[repo_id] = Repository(repo_id, private)
        repository.add(files, "upload")
        return repository

    def serve(self, request: Request) -> Answer | None:
        """Return the answer to a request; None hangs up."""
        with self.lock:
            self.requests.append(request)
            for hook in [hook for hook in self._hooks if hook[0] in request.path]:
                self._hooks.remove(hook)
                hook[1]()
            for fault in self._faults:
                if fault[0] == request.method and fault[1] in request.path and fault[3] > 0:
                    fault[3] -= 1
                    return answer({"error": "injected"}, fault[2]) if fault[2] else None
            try:
                return self._route(request)
            except Refusal as refusal:
                return refusal.answer

    def _route(self, request: Request) -> Answer:
        split = urlsplit(request.path)
        query = {key: values[0] for key, values in parse_qs(split.query).items()}
        for methods, pattern, name in ROUTES:
            match = re.fullmatch(pattern, split.path)
            if match and request.method in methods:
                found = {key: unquote(value or "") for key, value in match.groupdict().items()}
                return getattr(self, name)(request, query, **found)  # type: ignore[no-any-return]
        raise Refusal(404, f"Nothing at {request.method} {split.path}")

    def _token(self, request: Request, *, write: bool = False) -> str | None:
        token = request.headers.get("authorization", "").removeprefix("Bearer ") or None
        if token and token not in self.tokens | self.readers:
            raise Refusal(401, "Invalid credentials in Authorization header")
        if write and not token:
            raise Refusal(401, "Invalid username or password.")
        if write and token in self.readers:
            raise Refusal(403, "Forbidden: pass a token with write access")
        return token

    def _repository(self, request: Request, repo_id: str, *, write: bool = False) -> Repository:
        token = self._token(request)
        repository = self.repositories.get(repo_id)
        if repository is None or (repository.private and not token):
            raise Refusal(404 if token else 401, "Repository not found", "RepoNotFound")
        if write:
            self._token(request, write=True)
        return repository

    def _commit(self, repository: Repository, revision: str) -> Commit:
        commit = repository.find(revision)
        if commit is None:
            raise Refusal(404, f"Invalid rev id: {revision}", "RevisionNotFound")
        return commit

    def create_repository(self, request: Request, _: object) -> Answer:
        self._token(request, write=True)
        wanted = json.loads(request.body)
        repo_id = f"{wanted.get('organization') or self.owner}/{wanted['name']}"
        made = {"url": f"{self.url}/datasets/{repo_id}", "name": repo_id}
        if repo_id in self.repositories:
            return answer({"error": "You already created this dataset repo", **made}, 409)
        self.repositories[repo_id] = Repository(repo_id, wanted.get("visibility") == "private")
        return answer(made)

    def whoami(self, request: Request, _: object) -> Answer:
        if not self._token(request):
            raise Refusal(401, "Invalid username or password.")
        return answer({"type": "user", "name": self.owner, "orgs": []})

    def validate(self, request: Request, _: object) -> Answer:
        front = FRONT.match(json.loads(request.body)["content"])
        try:
            valid = isinstance(yaml.safe_load(front[1]) if front else {}, dict)
        except yaml.YAMLError:
            valid = False
        if not valid:
            return answer({"errors": [{"message": "invalid YAML"}], "warnings": []}, 400)
        return answer({"errors": [], "warnings": []})

    def info(self, request: Request, _: object, id: str, revision: str = "") -> Answer:
        repository = self._repository(request, id)
        commit = self._commit(repository, revision or "main")
        siblings = [{"rfilename": path} for path in commit.files]
        known = {"sha": commit.oid, "private": repository.private, "siblings": siblings}
        return answer({"id": id, "gated": False, "disabled": False, "tags": [], **known})

    def branch(self, request: Request, _: object, id: str, revision: str) -> Answer:
        repository = self._repository(request, id, write=True)
        if revision in repository.branches:
            return answer({"error": "Reference already exists"}, 409)
        repository.branches[revision] = list(repository.branches["main"])
        return answer({})

    def preupload(self, request: Request, _: object, id: str, revision: str) -> Answer:
        files = self._commit(self._repository(request, id, write=True), revision).files
        return answer(
            {
                "files": [
                    {
                        "path": file["path"],
                        "uploadMode": "lfs" if is_lfs(file["path"]) else "regular",
                        "shouldIgnore": False,
                        "oid": etag(file["path"], files) if file["path"] in files else None,
                    }
                    for file in json.loads(request.body)["files"]
                ]
            }
        )

    def lfs_batch(self, request: Request, _: object, id: str) -> Answer:
        self._repository(request, id, write=True)
        objects = []
        for wanted in json.loads(request.body)["objects"]:
            oid, size = wanted["oid"], wanted["size"]
            upload = {"upload": {"href": f"{self.url}/lfs/{oid}"}}
            new = {} if oid in self.objects else {"actions": upload}
            objects.append({"oid": oid, "size": size, **new})
        return answer({"transfer": "basic", "objects": objects})

    def lfs_put(self, request: Request, _: object, oid: str) -> Answer:
        if hashlib.sha256(request.body).hexdigest() != oid:
            raise Refusal(400, "The content has another hash")
        self.objects[oid] = request.body
        return answer({})

    def commit(self, request: Request, _: object, id: str, revision: str) -> Answer:
        repository = self._repository(request, id, write=True)
        head = self._commit(repository, revision)
        lines = [json.loads(line) for line in request.body.splitlines() if line.strip()]
        header = lines[0]["value"]
        if header.get("parentCommit") not in (None, head.oid):
            raise Refusal(412, "A commit has happened since. Please refresh and try again.")
        files: dict[str, bytes] = {}
        gone: set[str] = set()
        for line in lines[1:]:
            kind, value = line["key"], line["value"]
            if kind == "file":
                files[value["path"]] = base64.b64decode(value["content"])
            elif kind == "lfsFile":
                files[value["path"]] = self.objects[value["oid"]]
            elif kind == "deletedFile":
                gone.add(value["path"])
            else:
                raise Refusal(400, f"Unknown operation {kind}")
        made = repository.add(files, header["summary"], revision, gone)
        url = f"{self.url}/datasets/{id}/commit/{made.oid}"
        return answer({"success": True, "commitOid": made.oid, "commitUrl": url})

    def tree(
        self, request: Request, query: dict[str, str], id: str, revision: str, path: str
    ) -> Answer:
        commit = self._commit(self._repository(request, id), revision)
        inside = f"{path}/" if path else ""
        entries = list(
            walk(commit.files, inside, recursive=query.get("recursive") in ("True", "true"))
        )
        if path and not entries:
            raise Refusal(404, f"{path} does not exist on {revision}", "EntryNotFound")
        return answer(entries)

    def paths(self, request: Request, _: object, id: str, revision: str) -> Answer:
        commit = self._commit(self._repository(request, id), revision)
        wanted = parse_qs(request.body.decode()).get("paths", [])
        if request.headers.get("content-type", "").startswith("application/json"):
            wanted = json.loads(request.body)["paths"]
        folders = {path for path in wanted if any(f.startswith(f"{path}/") for f in commit.files)}
        found = [entry(path, commit.files) for path in wanted if path in commit.files]
        return answer(
            [*found, *({"type": "directory", "path": f, "oid": commit.oid} for f in folders)]
        )

    def resolve(self, request: Request, _: object, id: str, revision: str, path: str) -> Answer:
        commit = self._commit(self._repository(request, id), revision)
        headers = {"X-Repo-Commit": commit.oid, "Accept-Ranges": "bytes"}
        if path not in commit.files:
            refused = Refusal(404, "Entry not found", "EntryNotFound").answer
            return Answer(404, refused.content, {**refused.headers, **headers})
        content = commit.files[path]
        headers["ETag"] = f'"{etag(path, commit.files)}"'
        span = re.fullmatch(r"bytes=(\d+)-(\d*)", request.headers.get("range", ""))
        if span and request.method == "GET":
            first, last = int(span[1]), min(int(span[2] or len(content)), len(content) - 1)
            headers["Content-Range"] = f"bytes {first}-{last}/{len(content)}"
            return Answer(206, content[first : last + 1], headers)
        return Answer(200, content, headers)


_REVISION = r"(?P<revision>[^/]+|refs/[^/]+/[^/]+)"
ROUTES = [
    (("POST",), r"/api/repos/create", "create_repository"),
    (("GET",), r"/api/whoami-v2", "whoami"),
    (("POST",), r"/api/validate-yaml", "validate"),
    (("GET",), rf"/api/datasets/{ID}", "info"),
    (("GET",), rf"/api/datasets/{ID}/revision/{_REVISION}", "info"),
    (("POST",), rf"/api/datasets/{ID}/branch/{_REVISION}", "branch"),
    (("POST",), rf"/api/datasets/{ID}/preupload/{_REVISION}", "preupload"),
    (("POST",), rf"/api/datasets/{ID}/commit/{_REVISION}", "commit"),
    (("GET",), rf"/api/datasets/{ID}/tree/{_REVISION}(?:/(?P<path>.*))?", "tree"),
    (("POST",), rf"/api/datasets/{ID}/paths-info/{_REVISION}", "paths"),
    (("POST",), rf"/datasets/{ID}\.git/info/lfs/objects/batch", "lfs_batch"),
    (("PUT",), r"/lfs/(?P<oid>\w+)", "lfs_put"),
    (("GET", "HEAD"), rf"/datasets/{ID}/resolve/{_REVISION}/(?P<path>.+)", "resolve"),
]


def _handler(server: HubServer) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        wbufsize = -1  # one packet for headers and content: no waiting for its acknowledgement
        disable_nagle_algorithm = True

        def serve(self) -> None:
            body = self._body()
            headers = {name.lower(): value for name, value in self.headers.items()}
            served = server.serve(Request(self.command, self.path, headers, body))
            if served is None:
                self.close_connection = True
                return
            self.send_response(served.status)
            for name, value in served.headers.items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(served.content)))
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(served.content)

        def _body(self) -> bytes:
            if self.headers.get("Transfer-Encoding", "").lower() != "chunked":
                return self.rfile.read(int(self.headers.get("Content-Length", 0)))
            body = b""
            while size := int(self.rfile.readline().split(b";")[0], 16):
                body += self.rfile.read(size)
                self.rfile.readline()
            self.rfile.readline()
            return body

        do_GET = do_HEAD = do_POST = do_PUT = serve

        def log_message(self, *_: object) -> None:
            """Say nothing."""

    return Handler
