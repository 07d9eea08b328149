"""Fetch the weights of published speech encoders, safely: safetensors only, each file held to its checksum.

python -m tools.weights facebook/wav2vec2-base-960h
"""

import argparse
import http.client
import json
import os
import re
import urllib.error
import urllib.parse
import urllib.request
from pathlib import Path

from ser_utils.names import path_of
from ser_utils.profiles import settings
from ser_utils.systems.speech_transformer.encoder import CheckpointError, conversion_command
from ser_utils.systems.speech_transformer.pretrained import (
    PretrainedError,
    checkpoint_folders,
    load_encoder,
    pinned,
    verify_weights,
    weights_folder,
)
from ser_utils.workspace import WorkspaceError, file_digest, write_json
from tools.download import DownloadError, download_file

BOT = "SFconvertbot"  # the hub's own account, which offers safetensors to those who have published pickles
OFFLINE = (
    "Offline, copy config.json, preprocessor_config.json and model.safetensors into {place}, or say WEIGHTS=folder "
    "where they are. Without weights notebook 08 goes on with a tiny random encoder, and says so."
)


def fetch(model: str, *, revision: str | None = None) -> Path:
    """Download a checkpoint's safetensors weights and configuration, each checked by its sha256.

    Parameters
    ----------
    model : owner/name, or a folder that has them already
    revision : commit, branch or tag; None is the pinned commit, else the latest one. Where that has pickled weights
        only, the hub's own conversion to safetensors is taken, if there is one.

    Returns
    -------
    the folder. A finished one is verified and left as it is. What was fetched is pinned in its source.json.

    Raises
    ------
    PretrainedError : where there are only pickled weights, for wrong checksums, gated models and without network
    """
    folder = weights_folder(model)
    if folder.exists():
        verify_weights(model, folder)
        return folder
    (commit, digests), note, unasked = pinned(model), "", ""
    if revision not in (None, commit) or not commit:
        commit, digests = _ask_hub(model, revision or "main")
    if not _has_safetensors(digests) and not revision:
        try:
            commit, digests, note = _converted(model) or (commit, digests, "")
        except PretrainedError as error:  # whoever cannot ask is told of the pickles, too
            unasked = f"Whether the hub has converted {model} could not be asked: {error}\n"
    if not _has_safetensors(digests):
        raise PretrainedError(unasked + _only_pickles(model, commit, digests, folder))
    # not `atomic_path`: what came before a cut is taken up again
    partial = folder.with_name(f".{folder.name}.part")
    try:
        for name, digest in digests.items():
            url = f"{_hub()}/{model}/resolve/{commit}/{name}"
            download_file(url, partial / name, checksum=f"sha256:{digest}" if digest else "")
    except DownloadError as error:
        raise PretrainedError(f"{error} {OFFLINE.format(place=folder)}") from error
    fetched = {name: file_digest(partial / name) for name in digests}
    write_json(partial / "source.json", {"model": model, "revision": commit, "sha256": fetched, "note": note})
    os.replace(partial, folder)
    return folder


def _has_safetensors(digests):
    return any(name.endswith(".safetensors") for name in digests)


def _only_pickles(model, commit, digests, folder):
    pickles = "".join(f" ({name}, sha256 {digest})" for name, digest in digests.items() if name.endswith(".bin"))
    return (
        f"{model} at {commit} has only pickled weights{pickles}, and unpickling runs whatever code the file "
        f"holds; only safetensors are read. Convert them once, in an environment of your own: "
        f"{conversion_command(model, folder, commit)}"
    )


def _converted(model):
    """Commit, {file: sha256} and a note of the hub's own conversion of pickled weights; None where it offers none.

    Raises PretrainedError where the hub cannot be asked.
    """
    wanted = {"type": "pull_request", "status": "open", "author": BOT}
    url = f"{_hub()}/api/models/{model}/discussions?{urllib.parse.urlencode(wanted)}"
    offers = [
        offer
        for offer in _read_answer(model, url).get("discussions") or []
        if offer.get("isPullRequest") and (offer.get("author") or {}).get("name") == BOT
    ]
    for offer in offers:
        reference = f"refs/pr/{offer['num']}"
        commit, digests = _ask_hub(model, reference)
        if _has_safetensors(digests):
            return commit, digests, f" ({reference}, the hub's own conversion of its pickled weights)"
    return None


def _hub():
    return os.environ.get("HF_ENDPOINT", "https://huggingface.co").rstrip("/")


def _read_answer(model, url):
    """The JSON object at an address of the hub; raises PretrainedError where there is none."""
    try:
        with urllib.request.urlopen(url, timeout=30) as answer:
            content = json.load(answer)
    except urllib.error.HTTPError as error:
        raise PretrainedError(f"{url} answers {error.code}: is {model!r} spelled right, and public?") from error
    except OSError as error:
        raise PretrainedError(
            f"{_hub()} cannot be reached ({error}). {OFFLINE.format(place=weights_folder(model))}"
        ) from error
    except (ValueError, http.client.HTTPException) as error:  # also of an address that is none
        raise _no_answer(url, error) from error
    if not isinstance(content, dict):
        raise _no_answer(url, f"{content!r:.60}")
    return content


def _no_answer(url, received):
    return PretrainedError(
        f"{url} does not answer as the hub does ({received}). Is HF_ENDPOINT right, and does the network want a login?"
    )


def _ask_hub(model, revision):
    """The commit a revision stands for, and {file: sha256, or None for small files outside the large-file store}."""
    url = f"{_hub()}/api/models/{model}/revision/{urllib.parse.quote(revision, safe='')}?blobs=true"
    listing = _read_answer(model, url)
    if listing.get("gated"):
        raise PretrainedError(
            f"{model} is gated: its owner wants to know who takes it, and this program has no account. Accept the terms "
            f"at {_hub()}/{model}, download its files there, and say WEIGHTS=folder where they are."
        )
    if not isinstance(listing.get("siblings"), list) or not isinstance(listing.get("sha"), str):
        raise _no_answer(url, f"{listing!r:.60}")
    wanted = re.compile(r"config\.json|preprocessor_config\.json|model(-\d+-of-\d+)?\.safetensors(\.index\.json)?")
    files = {
        entry["rfilename"]: (entry.get("lfs") or {}).get("sha256")
        for entry in listing["siblings"]
        if wanted.fullmatch(entry["rfilename"])
    }
    return listing["sha"], files


def main(arguments: list[str] | None = None) -> None:
    """Fetch the encoders that are named, and print what each is; those that cannot be had are told at the end."""
    parser = argparse.ArgumentParser(prog="python -m tools.weights", description=__doc__)
    about = "owner/name on the hub, or a folder with checkpoints in it; none: those of profile quick"
    parser.add_argument("models", nargs="*", help=about)
    parser.add_argument("--revision", help="commit, branch or tag; default: the pinned one")
    given = parser.parse_args(arguments)
    failures = []
    for model in given.models or settings("speech_transformer", "quick")["models"]:
        try:
            is_folder = path_of(model).is_dir()
            for name in map(str, checkpoint_folders(model)) if is_folder else [model]:
                folder = fetch(name, revision=given.revision)
                print(f"{_describe(load_encoder(name))} → {folder}")
        except (PretrainedError, CheckpointError, WorkspaceError, OSError) as error:
            failures.append(str(error))  # another encoder may be had all the same
    if failures:
        raise SystemExit("\n".join(failures))


def _describe(encoder):
    a, size = encoder.model.architecture, encoder.model.count_params() / 1e6
    return (
        f"{encoder.source}: {a.model_type}, {a.num_hidden_layers} layers, {a.hidden_size} wide, {size:.0f} M parameters"
    )


if __name__ == "__main__":
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    main()
