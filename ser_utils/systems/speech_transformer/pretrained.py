"""Published speech encoders: opening their weights, and going on without them.

Weights live in SER_WEIGHTS_DIR (data/weights/), one folder a checkpoint; `make weights` fetches them. A folder that the
reader already has is named by its path instead, or for all notebooks by the environment variable WEIGHTS.
"""

import dataclasses
import os
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from safetensors import safe_open

from ser_utils.names import STAND_INS, path_of
from ser_utils.systems.speech_transformer.encoder import (
    Architecture,
    CheckpointError,
    SpeechTransformer,
    _read_json,
    checkpoint_names,
    load_speech_transformer,
    random_speech_transformer,
    weight_files,
)
from ser_utils.workspace import REPOSITORY, content_key, file_digest, read_json

NO_MEANING = "Random encoder: carries no meaning."
FIXTURE = "Encoder of a test: carries no meaning."
SMALLEST = 128  # hidden size; no trained encoder was published that is narrower, those of tests are
TINY = {"hidden_size": 32, "num_hidden_layers": 4, "num_attention_heads": 4, "intermediate_size": 64}
TINY |= {"conv_dim": (24,) * 7, "num_conv_pos_embeddings": 16, "num_conv_pos_embedding_groups": 4}


def _is_count(value):
    return type(value) is int and 0 < value < 2**16


KINDS = {  # of values in a checkpoint's JSON files
    int: ("a whole number from 1 to 65535", _is_count),
    int | None: ("null or a whole number from 1 to 65535", lambda value: value is None or _is_count(value)),
    float: ("a number from 0 to 1", lambda value: type(value) in (int, float) and 0 <= value <= 1),
    bool: ("true or false", lambda value: type(value) is bool),
    str: ("text", lambda value: type(value) is str),
    tuple: ("a list of whole numbers above 0", lambda value: type(value) is list and all(map(_is_count, value))),
    dict: ('{"name": "text", …}', lambda value: type(value) is dict and {*map(type, value.values())} == {str}),
}
FILES = {  # what is read of each; a configuration may leave keys out
    "config.json": {field.name: field.type for field in dataclasses.fields(Architecture)},
    "preprocessor_config.json": {"sampling_rate": int, "do_normalize": bool, "return_attention_mask": bool},
    "model.safetensors.index.json": {"weight_map": dict},
    "source.json": {"model": str, "revision": str, "sha256": dict},
}


class PretrainedError(Exception):
    """Weights that cannot be had, or are not the pinned ones; the text says what to do."""


@dataclass(frozen=True)
class Encoder:
    """An encoder, and where its weights are from.

    Parameters
    ----------
    name : for results and figures, such as "hubert_base_ls960"; one that was never trained is called "random_…" or,
        where its weights came from a file, "fixture_…"
    key : content of the weights
    source : one sentence
    published : owner/name as on the hub, "" where nobody says
    """

    name: str
    model: SpeechTransformer
    key: str
    source: str
    published: str = ""

    @property
    def is_random(self) -> bool:
        return self.name.startswith("random_")

    @property
    def is_trained(self) -> bool:
        """Whether results with it mean anything: only then are they saved."""
        return not self.name.startswith(STAND_INS)

    def caption(self, text: str) -> str:
        """`text`, marked where the weights were never trained."""
        if self.is_trained:
            return text
        return f"{NO_MEANING if self.is_random else FIXTURE} {text}"


def encoder_names(options: dict[str, Any]) -> list[str]:
    """The encoders to listen through: the checkpoint folders at the environment variable WEIGHTS, else the profile's.

    Parameters
    ----------
    options : settings of `speech_transformer`

    Raises
    ------
    PretrainedError : where WEIGHTS names no folder with a checkpoint in it
    """
    place = os.environ.get("WEIGHTS", "")
    return [str(folder) for folder in checkpoint_folders(place)] if place else list(options["models"])


def checkpoint_folders(place: str | Path) -> list[Path]:
    """Find the folders with a config.json: `place` itself, those in it, or the snapshots of a hub client's cache."""
    place = path_of(place)
    configs = [path for way in ("", "*/", "snapshots/*/", "*/snapshots/*/") for path in place.glob(f"{way}config.json")]
    if (place / "config.json") in configs:
        return [place]
    if not configs:
        raise PretrainedError(
            f"WEIGHTS is a folder with config.json and model.safetensors, or one with such folders in it. "
            f"Received: WEIGHTS={place}"
        )
    return sorted({path.parent for path in configs})


def published_name(folder: Path) -> str:
    """What a checkpoint is called on the hub, owner/name: from its source.json or its path; "" where neither says."""
    if (folder / "source.json").exists():
        return read_json(folder / "source.json")["model"]
    named = [re.fullmatch(r"(?:models--)?([\w.-]+?)--([\w.-]+)", part) for part in folder.parts]
    return next(("/".join(match.groups()) for match in reversed(named) if match), "")


def weights_folder(model: str) -> Path:
    """Where a checkpoint's files are looked for: a path as it is, a hub name under SER_WEIGHTS_DIR."""
    if Path(model).is_dir():
        return Path(model)
    if not re.fullmatch(r"[\w.-]+/[\w.-]+", model):
        raise PretrainedError(f"A model is called owner/name, or by a folder that exists. Received: {model!r}")
    place = path_of(os.environ.get("SER_WEIGHTS_DIR") or REPOSITORY / "data" / "weights")
    return place / model.replace("/", "--")


def load_encoder(model: str, *, seed: int = 0) -> Encoder:
    """The encoder whose weights are at hand, or else a tiny one with random weights, which says so.

    Parameters
    ----------
    model : owner/name as on the hub, or a folder with config.json and model.safetensors
    seed : of the random weights

    Raises
    ------
    PretrainedError : if the files are not those that were pinned
    CheckpointError : if they hold no encoder of the families that are read
    """
    folder = weights_folder(model)
    if folder.exists():
        return _open(model, folder)
    family = "hubert" if "hubert" in model.lower() else "wav2vec2"
    # as their published sizes differ, so do these: HuBERT's with norms after, wav2vec 2.0's with norms before
    stable = {} if family == "hubert" else {"do_stable_layer_norm": True, "feat_extract_norm": "layer"}
    architecture = Architecture(family, **TINY, **stable)
    return Encoder(
        f"random_{family}",
        random_speech_transformer(architecture, seed),
        content_key(repr(architecture), seed),
        f"{model} is not in {folder}: a tiny {family} encoder with random weights stands in. {NO_MEANING} "
        f"The published weights: make weights MODEL={model}",
    )


def pinned(model: str) -> tuple[str, dict[str, str]]:
    """Look up which revision of a published checkpoint is taken, and the sha256 of its files at it.

    The hub keeps some checkpoints as pickles only; there the sum is the pickle's.

    Returns
    -------
    commit, {file: sha256}; "" and none of a checkpoint that is not pinned
    """
    table = pd.read_csv(Path(__file__).with_name("pinned.csv"))
    rows = table[table["model"] == model]
    return "".join(rows["revision"].unique()), dict(zip(rows["file"], rows["sha256"], strict=True))


def load_heard() -> pd.DataFrame:
    """What published encoders were trained on.

    Returns
    -------
    table indexed by `model` (owner/name): `pretrained_on` and `tuned_on`, corpora parted by "; " (those that this package
    reads by their names here), `hours` of pre-training, `languages` (a code, or how many), and the `source` that says so
    """
    return pd.read_csv(Path(__file__).with_name("heard.csv"), index_col="model", keep_default_na=False)


def heard_corpora(encoder: Encoder) -> list[str] | None:
    """The corpora that an encoder heard, in pre-training or in later training; None where nobody says.

    An encoder of random weights heard nothing.
    """
    if encoder.is_random:
        return []
    table = load_heard()
    if encoder.published not in table.index:
        return None
    columns = table.loc[encoder.published, ["pretrained_on", "tuned_on"]]
    return sorted({corpus for column in columns for corpus in column.split("; ") if corpus})


def describe_heard(encoders: list[Encoder], corpora: Iterable[str]) -> pd.DataFrame:
    """What each encoder was trained on, and which of `corpora` are among it; "unknown" where nobody says.

    Returns
    -------
    table indexed by the encoder's name: the columns of `load_heard`, and `also here`
    """
    known, rows = load_heard(), {}
    for encoder in encoders:
        heard = heard_corpora(encoder)
        facts = known.loc[encoder.published].to_dict() if encoder.published in known.index else {}
        here = "unknown" if heard is None else ", ".join(sorted(set(heard) & set(corpora))) or "none"
        rows[encoder.name] = (
            dict.fromkeys(known.columns, "unknown" if heard is None else "–") | facts | {"also here": here}
        )
    return pd.DataFrame.from_dict(rows, orient="index")


def _open(model, folder):
    digests, published = verify_weights(model, folder), published_name(folder)
    source = read_json(folder / "source.json") if (folder / "source.json").exists() else {}
    encoder = load_speech_transformer(folder)
    _refuse_meaningless(encoder, folder)
    name = re.sub(r"[^a-z0-9]+", "_", (published or folder.name).split("/")[-1].lower()).strip("_")
    at = f" at {source['revision'][:8]}{source.get('note', '')}" if source else ""
    if encoder.architecture.hidden_size < SMALLEST:
        name, at = f"fixture_{name}", f"{at}. {FIXTURE}"
    return Encoder(name, encoder, content_key(digests), f"{published or model}{at}", published)


def _refuse_meaningless(encoder, folder):
    """Raise CheckpointError where weights are no numbers of a trained encoder: whole, infinite, or none at all."""
    whole = []
    for file in weight_files(folder):
        with safe_open(file, framework="numpy") as tensors:
            used = sorted(set(tensors.keys()) - set(encoder.ignored))
            whole += [name for name in used if "F" not in tensors.get_slice(name).get_dtype()]
    named = checkpoint_names(encoder)
    if wrong := whole or [name for name, weight in named.items() if not np.isfinite(weight).all()]:
        raise CheckpointError(
            f"{folder}: weights must be finite floating-point numbers. {len(wrong)} tensors are not, such as {wrong[0]}. "
            "Fetch them again"
        )


def _check_files(folder):
    """Raise CheckpointError where a JSON file of a checkpoint has values that nothing can be built from."""
    for path in filter(Path.exists, (folder / name for name in FILES)):
        content = _read_json(path)
        if not isinstance(content, dict):
            raise CheckpointError(f'{path} must hold {{"name": value, …}}. Received: {content!r:.60}')
        for key, kind in FILES[path.name].items():
            words, fits = KINDS[kind]
            may_lack = path.name.endswith("config.json")
            if not fits(content.get(key)) and not (may_lack and key not in content):
                raise CheckpointError(f"{path}: {key} must be {words}. Received: {key}={content.get(key)!r:.60}")


def verify_weights(model: str, folder: Path) -> dict[str, str]:
    """Compute the digests of a checkpoint's weights.

    Raises
    ------
    PretrainedError : where they are not those that are pinned
    CheckpointError : where a file of the checkpoint is damaged
    """
    _check_files(folder)
    digests = {file.name: file_digest(file) for file in weight_files(folder)}
    wanted = read_json(folder / "source.json")["sha256"] if (folder / "source.json").exists() else {}
    if not Path(model).is_dir():
        wanted = wanted or pinned(model)[1]
    converted = not any(name.endswith(".safetensors") for name in wanted)  # by the reader, from pinned pickles
    for name, digest in digests.items():
        if wanted.get(name, digest if converted else "no such file") != digest:
            raise PretrainedError(
                f"{folder / name} is not the pinned file: sha256 {digest}, wanted {wanted.get(name, 'no such file')}. "
                f"Delete the folder and say: make weights MODEL={model}"
            )
    return digests
