"""What the demo page asks in the browser: one trained network, prototypes to compare with, recordings to try."""

import base64
import io
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
import pandas as pd
import soundfile

from ser_utils.corpora import CORPORA
from ser_utils.corpora.demo import EXPRESSIONS, SAMPLE_RATE_HZ, SENTENCES, SPEAKERS, synthesise_utterance
from ser_utils.features.audio import resample
from ser_utils.features.spectral import MEL, log_mel_segments
from ser_utils.figures.style import DIVERGING, EMOTION_COLOUR, SEQUENTIAL
from ser_utils.names import dataset_parts
from ser_utils.predict import MEANING, SHORTEST_S, Ensemble, load_ensemble
from ser_utils.profiles import PROFILES, settings
from ser_utils.workspace import MissingResult, Workspace, read_json, write_json
from tools.readme.datasets import title_of

MODEL = "deep_cnn_log_mel"
QUIETEST_DB = -55  # of full scale, the loudest 10 ms: a room without a voice stays below
PROTOTYPES_AN_EMOTION = 12  # those of the highest scores, of all speakers
SAMPLE_SEED = 1  # of the made-up voices; the demo corpus has 0
LONGEST_S = 10.0  # that the page listens to
# Of YIN. Noise of any colour stays above 0.5, and with 0.4 the median differs from pYIN's by 0.9 % (of 60 recordings of three
# corpora, the median); the level is for hum between words, which repeats as well as a voice does
PITCH = {"lowHz": 60, "highHz": 600, "trough": 0.1, "voicedBelow": 0.4, "withinDb": 30}


def find_workspace(root: Path, dataset: str) -> Workspace | None:
    """The run of the longest profile at seed 0 that has the demo's network; None where there is none."""
    for profile in reversed(PROFILES):
        folder = root / "build" / dataset / profile / "seed_0"
        if any(folder.glob(f"models/feature_network-{MODEL}-speaker-*.keras")):
            return Workspace(dataset, profile, 0, root)
    return None


def export_network(ensemble: Ensemble) -> dict[str, Any]:
    """Write the first network of an ensemble as what `network.js` reads: arrays as base64, batch norms as scale and shift."""
    network = ensemble.networks[0]
    layers = {layer.name: layer for layer in network.model.layers}
    blocks = [layer for name, layer in layers.items() if name.startswith("block_")]
    attention = layers["attention"]
    hidden, bias = attention.hidden.get_weights()
    kernel, class_bias = layers["classes"].get_weights()
    return {
        "mean": _text(network.mean),
        "spread": _text(network.spread),
        "blocks": [
            {"kernel": _text(block.convolution.get_weights()[0]), "filters": block.filters, "pool": block.pool}
            | _norm(block.norm)
            for block in blocks
        ],
        "attention": {"hidden": _text(hidden), "bias": _text(bias), "score": _text(attention.score.get_weights()[0])},
        "classes": {"kernel": _text(kernel), "bias": _text(class_bias)},
    } | _norm(layers["statistics"])


def _norm(layer) -> dict[str, str]:
    """A batch norm of inference as a factor and a summand."""
    gamma, beta, mean, variance = (np.asarray(weights, np.float64) for weights in layer.get_weights())
    scale = gamma / np.sqrt(variance + layer.epsilon)
    return {"scale": _text(scale), "shift": _text(beta - mean * scale)}


def _text(array) -> str:
    return base64.b64encode(np.ascontiguousarray(array, "<f4").tobytes()).decode()


def _grid(chosen) -> dict[str, Any]:
    """Settings of `spectral.log_mel` as `features.js` names them."""
    rate, n_fft = chosen["sample_rate_hz"], chosen["n_fft"]
    whole = {"size": n_fft, "length": n_fft, "share": 0.5, "hop": chosen["hop_length"]}
    return whole | {"bands": chosen["n_mels"], "highestHz": min(8000, rate / 2)}


def _segment_grid(rate) -> dict[str, Any]:
    """Settings of `spectral.log_mel_segments`, likewise."""
    hamming = {"size": MEL.n_fft, "length": MEL.window_length, "share": 0.54, "hop": MEL.hop_length}
    return hamming | {"bands": MEL.n_mels, "highestHz": rate / 2}


def _pitch_grid(rate, hop) -> dict[str, Any]:
    """Settings of `librosa.yin` and of what is voiced, likewise: frames of at least four periods, as many as the spectrogram's."""
    return PITCH | {"size": 1 << int(np.ceil(np.log2(4 * rate / PITCH["lowHz"]))), "hop": hop}


def export_prototypes(folder: Path, rows: Iterable[dict], rate: int) -> list[dict[str, Any]]:
    """The best prototypes of each emotion as the page compares with them: their sounds' log-mel in whole dB.

    folder : prototypes/<dataset>; rows : as `site.load_prototypes` gives them; rate : Hz the page hears at
    """
    table = pd.DataFrame([row for row in rows if row["_sound"]])
    if table.empty:
        return []
    best = table.sort_values("score", ascending=False, kind="stable") if "score" in table else table
    exported = []
    for row in best.groupby("emotion", sort=False).head(PROTOTYPES_AN_EMOTION).to_dict("records"):
        signal, own_rate = soundfile.read(folder / f"{row['_stem']}.wav", dtype="float32", always_2d=True)
        signal = resample(signal.mean(axis=1), own_rate, rate)
        level = log_mel_segments(signal[None], rate)[0].T
        exported.append(
            {name: str(row[name]) for name in ("speaker", "emotion", "rank")}
            | {"stem": row["_stem"], "level": base64.b64encode(np.round(level).astype(np.int8).tobytes()).decode()}
        )
    return exported


def export_samples(emotions: Iterable[str], voice: str, target: Path) -> list[str]:
    """Write what a voice of the demo corpus says with each emotion, as scripts: a page that is opened from a folder can
    read nothing else. It is another draw than the corpus's. Returns the emotions that the corpus has.
    """
    emotions = [emotion for emotion in emotions if emotion in EXPRESSIONS]
    for emotion in emotions:
        sound = io.BytesIO()
        signal = synthesise_utterance(voice, emotion, next(iter(SENTENCES)), seed=SAMPLE_SEED)
        soundfile.write(sound, signal, SAMPLE_RATE_HZ, format="WAV", subtype="PCM_16")
        text = base64.b64encode(sound.getvalue()).decode()
        path = target / f"voice_{voice}-{emotion}.js"
        path.write_text(f"receiveSample({json.dumps(emotion)}, {json.dumps(text)});\n", "utf-8")
    return emotions


def _new_voice(workspace):
    """A voice of the demo corpus that the exported network was tested on; of recorded speech it has heard none of them."""
    if workspace.dataset != "demo":
        return next(iter(SPEAKERS))
    [predictions] = workspace.build.glob(f"predictions/feature_network-{MODEL}-speaker-*.parquet")
    table = pd.read_parquet(predictions)
    return str(table.loc[table["fold"] == table["fold"].iloc[0], "speaker"].iloc[0])


def describe_network(root: Path, dataset: str) -> dict[str, Any] | None:
    """Tell all that the page needs of the network that notebook 05 trained, as JSON holds it; None where there is none."""
    workspace = find_workspace(root, dataset)
    if workspace is None:
        return None
    try:
        ensemble = load_ensemble(workspace, MODEL)
    except MissingResult:
        return None
    chosen = settings("feature_network", workspace.profile, dataset)
    rate, hop = chosen["sample_rate_hz"], chosen["hop_length"]
    return {
        "about": _about(workspace, ensemble),
        "longest_s": ensemble.longest_frames * hop / rate,
        "voice": _new_voice(workspace),
        "network": export_network(ensemble),
        "emotions": ensemble.classes,
        "rate": rate,
        "grid": _grid(chosen),
        "segmentGrid": _segment_grid(rate),
        "pitch": _pitch_grid(rate, hop),
        "trimDb": chosen["trim_db"],
    }


def keep_network(root: Path, dataset: str) -> Path | None:
    """Store the network for the page where it ships, if every corpus lets anybody pass on what was learned from it.

    Returns the path, notebooks/executed/<dataset>/network.json under `root`; None where nothing was stored.
    """
    parts = dataset_parts(dataset)
    may_ship = all(name in CORPORA and CORPORA[name].models_may_be_shared for name in parts)
    described = describe_network(root, dataset) if may_ship else None
    if described is None:
        return None
    write_json(kept_network(root, dataset), described)
    return kept_network(root, dataset)


def kept_network(root: Path, dataset: str) -> Path:
    """Where a network for the page ships."""
    return root / "notebooks" / "executed" / dataset / "network.json"


def find_networks(root: Path) -> list[str]:
    """Datasets of which there may be a network: trained here, or one that ships."""
    trained = {path.parents[2].name for path in root.glob("build/*/*/seed_0/models")}
    return sorted(trained | {path.parent.name for path in root.glob("notebooks/executed/*/network.json")})


def export_demo(root: Path, dataset: str, rows: list[dict], target: Path) -> dict[str, Any] | None:
    """Write target/<dataset>.js, and say what the page has to know before it is loaded; None where there is no network.

    A network that was trained here goes before the one that ships.
    """
    described = describe_network(root, dataset)
    if described is None and (kept := kept_network(root, dataset)).exists():
        described = read_json(kept)
    if described is None:
        return None
    facts = {name: described.pop(name) for name in ("about", "longest_s", "voice")}
    described["prototypes"] = export_prototypes(root / "prototypes" / dataset, rows, described["rate"])
    target.mkdir(parents=True, exist_ok=True)
    text = f"receiveDemo({json.dumps(dataset)}, {json.dumps(described, separators=(',', ':'))});\n"
    (target / f"{dataset}.js").write_text(text, "utf-8")
    samples = export_samples(described["emotions"], facts["voice"], target)
    return {"title": title_of(dataset), "samples": samples} | facts


def _about(workspace, ensemble):
    """What the network is, whose licence it is under, and how well it does, in sentences."""
    tested, n_networks = ensemble.tested, len(ensemble.networks)
    return (
        f"{MODEL} of notebook 05, trained on {title_of(workspace.dataset)}, profile {workspace.profile}, the first of "
        f"{n_networks} folds. On {tested['n_speakers']} speakers they had not heard, the networks of all folds recognised "
        f"{tested['uar']:.0%} (UAR; guessing gives {tested['chance']:.0%}). {_origin(workspace.dataset)}"
    )


def _origin(dataset):
    """What the corpora mean for the answer, and what they ask of whoever uses it."""
    if dataset == "demo":
        return "The corpus is synthetic: on a real voice this network says nothing at all."
    spoken = [CORPORA[name] for name in dataset_parts(dataset) if name in CORPORA]
    told = [f"{corpus.title}: language {corpus.language}; licence: {corpus.licence}." for corpus in spoken]
    return " ".join([*told, "Made-up voices are synthetic, and this network has never heard one."])


def page_facts(demos: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """All that the page knows before a network is loaded."""
    return {
        "demos": demos,
        "meaning": MEANING,
        "longestS": LONGEST_S,
        "refusal": {"quietestDb": QUIETEST_DB, "shortestS": SHORTEST_S},
        "colours": EMOTION_COLOUR,
        "sequential": _colours(SEQUENTIAL),
        "diverging": _colours(DIVERGING),
    }


def _colours(name) -> list[list[int]]:
    """A colour map as 64 triples of red, green and blue, 0 to 255."""
    return matplotlib.colormaps[name](np.linspace(0, 1, 64), bytes=True)[:, :3].tolist()
