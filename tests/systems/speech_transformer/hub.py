"""A hub on this machine that answers as the hub of published models does: listings, redirects, ranges, refusals."""

import hashlib
import http.server
import json
import re
import shutil
import threading
import urllib.parse
from pathlib import Path

import numpy as np
from safetensors.numpy import load_file, save_file

MAIN, CONVERTED = (
    "c0ffee" + "0" * 34,
    "decade" + "0" * 34,
)  # commits of every model's main branch, and of its conversion
LARGE = (".safetensors", ".bin")  # kept in the large-file store


def digest(path):
    return hashlib.sha256(Path(path).read_bytes()).hexdigest()


class Hub:
    """Serves checkpoint folders under the names of models.

    Parameters
    ----------
    folder : an empty one, for what is served

    `seen` lists (path, Range header) of every request; `cut` breaks the next answers of the large-file store off after
    so many bytes, one number each.
    """

    def __init__(self, folder):
        self.folder, self.models, self.gated, self.conversions = Path(folder), {}, set(), {}
        self.seen, self.cut = [], []
        hub = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self):
                hub.seen.append((self.path, self.headers.get("Range")))
                hub.answer(self)

            def log_message(self, *_):
                pass

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def serve(self, model, checkpoint, commit=MAIN):
        """Serve a copy of a checkpoint folder as `model`; returns the copy."""
        copy = self.folder / model / commit
        shutil.copytree(checkpoint, copy, ignore=shutil.ignore_patterns("reference.npz"))
        self.models[model] = None
        return copy

    def close(self):
        self.server.shutdown()
        self.server.server_close()

    def answer(self, request):
        path, _, query = request.path.partition("?")
        if match := re.fullmatch(r"/api/models/([^/]+/[^/]+)/revision/(.+)", path):
            return self._list(request, match[1], urllib.parse.unquote(match[2]))
        if match := re.fullmatch(r"/api/models/([^/]+/[^/]+)/discussions", path):
            return self._discussions(request, match[1], urllib.parse.parse_qs(query))
        if match := re.fullmatch(r"/([^/]+/[^/]+)/resolve/([0-9a-f]{40})/([^/]+)", path):
            return self._resolve(request, match[1], match[2], match[3])
        if match := re.fullmatch(r"/large/(.+)", path):
            return self._large(request, self.folder / match[1])
        request.send_error(404)

    def _list(self, request, model, revision):
        commit = {"main": MAIN, MAIN: MAIN, "refs/pr/7": CONVERTED}.get(revision)
        if model not in self.models or not (self.folder / model / str(commit)).exists():
            return request.send_error(401 if model not in self.models else 404)  # whoever is nobody may not know
        files = sorted((self.folder / model / commit).iterdir())
        siblings = [
            {"rfilename": file.name, "lfs": {"sha256": digest(file)} if file.suffix in LARGE else None}
            for file in files
        ]
        _send_json(request, {"sha": commit, "gated": "auto" if model in self.gated else False, "siblings": siblings})

    def _discussions(self, request, model, asked):
        assert asked["type"] == ["pull_request"] and asked["status"] == ["open"]
        offers = [
            {"num": number, "isPullRequest": True, "status": "open", "author": {"name": author}}
            for number, author in self.conversions.get(model, [])
        ]
        _send_json(request, {"discussions": offers, "count": len(offers), "start": 0})

    def _resolve(self, request, model, commit, name):
        file = self.folder / model / commit / name
        if model in self.gated:
            return request.send_error(401)
        if not file.exists():
            return request.send_error(404)
        if file.suffix not in LARGE:
            return _send(request, 200, file.read_bytes(), {"ETag": f'"{digest(file)[:40]}"'})
        request.send_response(302)
        request.send_header("Location", f"{self.url}/large/{model}/{commit}/{name}")
        request.send_header("Content-Length", "0")
        request.end_headers()

    def _large(self, request, file):
        content, headers = file.read_bytes(), {"ETag": f'"{digest(file)}"', "Accept-Ranges": "bytes"}
        asked = re.fullmatch(r"bytes=(\d+)-", request.headers.get("Range") or "")
        if asked and request.headers.get("If-Range") in (None, headers["ETag"]):
            start = int(asked[1])
            headers["Content-Range"] = f"bytes {start}-{len(content) - 1}/{len(content)}"
            return _send(request, 206, content[start:], headers, self.cut)
        _send(request, 200, content, headers, self.cut)


def _send(request, status, body, headers, cut=()):
    request.send_response(status)
    for name, value in {**headers, "Content-Length": str(len(body))}.items():
        request.send_header(name, value)
    request.end_headers()
    request.wfile.write(body[: cut.pop(0)] if cut else body)


def _send_json(request, content):
    _send(request, 200, json.dumps(content).encode(), {"Content-Type": "application/json"})


def split_into_parts(folder, n=2):
    """Replace a checkpoint's one file by `n` numbered ones and their index, as large checkpoints are published."""
    whole = Path(folder) / "model.safetensors"
    tensors, index = load_file(whole), {}
    for number, names in enumerate(np.array_split(sorted(tensors), n), 1):
        part = f"model-{number:05d}-of-{n:05d}.safetensors"
        save_file({name: tensors[name] for name in names}, Path(folder) / part)
        index |= dict.fromkeys(names.tolist(), part)
    whole.unlink()
    text = json.dumps({"metadata": {}, "weight_map": index})
    (Path(folder) / "model.safetensors.index.json").write_text(text)


def say_preprocessing(folder):
    """Add the preprocessor_config.json that published checkpoints have."""
    said = {"do_normalize": True, "return_attention_mask": False, "sampling_rate": 16000, "feature_size": 1}
    (Path(folder) / "preprocessor_config.json").write_text(json.dumps(said))
