"""Embeddings of whole recordings: made once by a speech encoder, kept, and listened to by heads."""

import functools
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pandas as pd

from ser_utils.evaluation.metrics import speaker_interval, unweighted_average_recall
from ser_utils.features.store import FeatureStore, build_store
from ser_utils.figures.style import in_order
from ser_utils.systems.baselines import cross_validate
from ser_utils.systems.speech_transformer.encoder import SpeechTransformer, TopLayers
from ser_utils.systems.speech_transformer.heads import HEADS, LayerwiseAdam, rates_by_layer
from ser_utils.systems.speech_transformer.pretrained import Encoder, heard_corpora
from ser_utils.training.fit import code_of, compile_for_lengths
from ser_utils.training.folds import ClipBatches, FoldTask, UnweightedAverageRecall, clip_scale
from ser_utils.workspace import Workspace, content_key

LONGEST_S, CONTEXT_S = 20.0, 1.0


def hidden_states(
    encoder: SpeechTransformer, signal: np.ndarray, sample_rate: int, *, longest_s: float = LONGEST_S
) -> Iterator[np.ndarray]:
    """Yield a clip's hidden states piece by piece, so that memory does not grow with its length.

    Parameters
    ----------
    signal : float (n_samples,)
    sample_rate : Hz, the encoder's
    longest_s : s a piece may last. Attention costs the square of a piece's length, and the published encoders
        never heard more than about 20 s at once. A longer clip is cut into pieces that overlap by 1 s on either
        side. The frames of the overlap are dropped, so every frame comes once and hears 1 s around it.

    Yields
    ------
    float32 (n_layers + 1, n_frames, hidden_size), embeddings first; the last one as heads read it

    Raises
    ------
    ValueError : for another sample rate, and for a clip too short for one frame
    """
    if sample_rate != encoder.preprocessing.sample_rate_hz:
        wanted = encoder.preprocessing.sample_rate_hz
        raise ValueError(f"The encoder listens at {wanted} Hz. Received: sample_rate={sample_rate}")
    waveform, _ = encoder.preprocessing.pad([signal])
    a = encoder.architecture
    n_frames = a.n_frames(len(signal))
    longest, context = (int(seconds * sample_rate / a.hop) for seconds in (longest_s, CONTEXT_S))
    if n_frames < 1:
        raise ValueError(f"A clip must have at least {a.receptive_field} samples. Received: {len(signal)}")
    step = n_frames if n_frames <= longest else longest - 2 * context
    for first in range(0, n_frames, step):
        last = min(first + step, n_frames)
        begin, end = max(first - context, 0), min(last + context, n_frames)
        # what is left over after the last frame is heard too: a group norm is over all samples
        stop = None if end == n_frames else (end - 1) * a.hop + a.receptive_field
        states = listen(encoder, waveform[:, begin * a.hop : stop])
        states[-1] = encoder.last_hidden_state(states[-1])
        yield np.stack([keras.ops.convert_to_numpy(state)[0, first - begin : last - begin] for state in states])


def listen(encoder: SpeechTransformer, waveform: np.ndarray) -> list:
    """One pass of an encoder over one clip, traced once for clips of all lengths where the backend can do that.

    Clips are heard one by one. A batch of clips of like lengths would save another 6 % of the time at base size. But a
    norm over time hears the padding: it moves the states of a "group" checkpoint by 13 % of their deviation, and then a
    clip's embedding would depend on its neighbours. Half precision (bfloat16) takes 0.67 s of CPU time for 5 s of sound,
    and single precision 1.00 s, on a processor that has it (AVX512_BF16); others emulate it. It moves every layer's
    states by about 1.2 % of their deviation, so embeddings would depend on the machine, and it is not used.

    Parameters
    ----------
    waveform : float (1, n_samples)

    Returns
    -------
    list of hidden states, as the encoder's call gives them
    """
    # JAX would compile for every new length
    return list(encoder.predict_on_batch(waveform)) if keras.backend.backend() == "tensorflow" else encoder(waveform)


def embed(
    signal: np.ndarray, sample_rate: int, *, encoder: SpeechTransformer, top: int, longest_s: float = LONGEST_S
) -> np.ndarray:
    """What the heads need of one clip, in one pass.

    Returns
    -------
    float32 (n_layers + 1 + n_frames, 2, hidden_size): first one row per layer, mean and standard deviation over
    time; then one row per frame, hidden state num_hidden_layers - top and the last one
    """
    total, square, frames = 0.0, 0.0, []
    for states in hidden_states(encoder, signal, sample_rate, longest_s=longest_s):
        total = total + states.sum(axis=1, dtype=np.float64)
        square = square + np.square(states, dtype=np.float64).sum(axis=1)
        frames.append(states[[-1 - top, -1]].swapaxes(0, 1))
    frames = np.concatenate(frames)
    mean = total / len(frames)
    deviation = np.sqrt(np.maximum(square / len(frames) - mean**2, 0))
    return np.concatenate([np.stack([mean, deviation], axis=1), frames]).astype(np.float32)


@dataclass(frozen=True)
class Embeddings:
    """The embeddings of a corpus, of one encoder.

    Parameters
    ----------
    top : layers of the encoder that may be trained on
    store : rows as `embed` makes them
    """

    encoder: Encoder
    top: int
    store: FeatureStore

    @property
    def n_states(self) -> int:
        return self.encoder.model.architecture.num_hidden_layers + 1

    def statistics(self) -> np.ndarray:
        """Mean and deviation over time, float32 (n_utterances, n_states, 2, hidden_size), in the store's order."""
        first = self.store.table["first_row"].to_numpy()
        return np.stack([self.store.array[i : i + self.n_states] for i in first])

    def clips(self, head: str, table: pd.DataFrame | None = None) -> list[np.ndarray]:
        """What `head` listens to, float32 (rows, n_features) each, of all utterances or of rows of the store's table."""
        table = self.store.table if table is None else table
        places = zip(table["first_row"], table["n_rows"], strict=True)
        n, array = self.n_states, self.store.array
        if head in ("pooled", "layer_weighting"):
            first = n - 1 if head == "pooled" else 0
            return [array[i + first : i + n].reshape(1, -1) for i, _ in places]
        which = 0 if head == "fine_tuned" else 1
        return [array[i + n : i + rows, which] for i, rows in places]


def build_embeddings(
    folder: Path, table: pd.DataFrame, encoder: Encoder, *, top: int, longest_s: float = LONGEST_S
) -> Embeddings:
    """Embed every utterance of `table` once, in one process: the backend's threads share the cores.

    Parameters
    ----------
    folder : where feature stores live
    """
    extract = functools.partial(embed, encoder=encoder.model, top=top, longest_s=longest_s)
    key = content_key(encoder.key, top, longest_s, code_of(type(encoder.model)), embed)
    rate, name = encoder.model.preprocessing.sample_rate_hz, encoder.name
    making = {"key": key, "sample_rate_hz": rate, "jobs": 1, "title": name}
    return Embeddings(encoder, top, build_store(folder / f"embeddings_{name}", table, extract, **making))


def network(head: str, n_classes: int, n_features: int, encoder: Encoder, options: dict[str, Any]) -> keras.Model:
    """The network of one head; options : as in the profile."""
    more = {
        "layer_weighting": {"n_layers": encoder.model.architecture.num_hidden_layers + 1},
        "fine_tuned": {"encoder": encoder.model, "top": options["top_layers"]},
    }.get(head, {})
    if head != "fine_tuned":
        more["units"] = options["units"]
    return HEADS[head](n_classes, n_features, dropout=options["dropout"], **more)


@dataclass(frozen=True)
class HeadTask(FoldTask):
    """One head to train and test on one fold, see `FoldTask`.

    Parameters
    ----------
    network : the name of the head, one of HEADS
    settings : as in the profile; `epochs` and `patience` are the head's, see `head_models`
    embeddings : what it listens to

    Frozen embeddings are standardised by the training part; the costs count the encoder.
    """

    embeddings: Embeddings | None = None

    @property
    def is_tuned(self) -> bool:
        return self.network == "fine_tuned"

    def clips(self, store, rows):
        return self.embeddings.clips(self.network, rows)

    def scale(self, clips, table):
        # trained layers go on from the hidden states they know
        return None if self.is_tuned else clip_scale(clips, table, "training", table["role"] == "train")

    def batches(self, data, role):
        return data.batches(role, seed=self.seed, batch_size=self.settings["batch_size"])

    def build(self, data, n_batches):
        options, encoder = self.settings, self.embeddings.encoder
        model = network(self.network, len(data.classes), data.clips[0].shape[1], encoder, options)
        rates = tuning_rates(encoder, options) if self.is_tuned else {}
        optimizer = LayerwiseAdam(options["learning_rate"], rates, clipnorm=1.0)
        metrics = [UnweightedAverageRecall(len(data.classes))]
        return compile_for_lengths(model, optimizer, "categorical_crossentropy", metrics=metrics)

    def built_from(self, data, n_batches):
        code = code_of(HEADS[self.network], ClipBatches)
        key = self.embeddings.encoder.key if self.is_tuned else ""
        return self.network, code, key, self.settings, len(data.classes), data.clips[0].shape[1:]

    def learned_from(self, data):
        trained = {"scaler": not self.is_tuned, "encoder": self.is_tuned, "augmentation": False}
        given = {kind: ["train"] if by else [] for kind, by in trained.items()} | {"selection": [data.watched]}
        return given | {"pretraining": heard_corpora(self.embeddings.encoder)}

    def costs(self, model, milliseconds):
        parameters = self.embeddings.encoder.model.count_params() + model.count_params()
        if self.is_tuned:  # the encoder's last layers are the head's, and counted once
            parameters -= model.get_layer("top").count_params()
        return {"parameters": parameters, "ms_per_utterance": milliseconds + ms_to_embed(self.embeddings)}


def tuning_rates(encoder: Encoder, options: dict[str, Any]) -> dict[str, float]:
    """The learning rate of each part of an encoder in fine-tuning, see `rates_by_layer`."""
    rates = {name: options[name] for name in ("learning_rate", "top_learning_rate", "decay")}
    return rates_by_layer(encoder.model.architecture, options["top_layers"], **rates)


def head_models(workspace: Workspace, embeddings: Embeddings, options: dict[str, Any]) -> dict[str, HeadTask]:
    """The tasks of options["heads"] on the embeddings of one encoder, named `<encoder>_<head>`."""
    tuning = {"epochs": options["tuning_epochs"], "patience": options["tuning_patience"]}
    models = {}
    for head in options["heads"]:
        model = f"{embeddings.encoder.name}_{head}"
        settings = options | (tuning if head == "fine_tuned" else {})
        folder, models_folder = embeddings.store.folder, workspace.folder("models")
        models[model] = HeadTask(
            f"speech_transformer-{model}", head, folder, None, settings, models_folder, workspace.seed, (), embeddings
        )
    return models


def layer_weights(paths: list[Path]) -> np.ndarray:
    """The mixtures that trained `layer_weighting` heads learned, float (n_models, n_states)."""
    models = [keras.saving.load_model(path, safe_mode=True) for path in paths]
    return np.stack([model.get_layer("mixture").weights_of_layers for model in models])


def tuned_layers(path: Path) -> TopLayers:
    """The encoder's last layers in a trained `fine_tuned` head."""
    return keras.saving.load_model(path, safe_mode=True).get_layer("top")


@functools.cache
def _ms_per_second(model: SpeechTransformer) -> float:
    """Milliseconds an encoder takes for one second of sound, on noise."""
    rate = model.preprocessing.sample_rate_hz
    noise = np.random.default_rng(0).standard_normal((1, 2 * rate)).astype(np.float32)
    for _ in range(2):  # the first time may compile
        start = time.perf_counter()
        keras.ops.convert_to_numpy(listen(model, noise)[-1])
    return 1000 * (time.perf_counter() - start) / 2


def ms_to_embed(embeddings: Embeddings) -> float:
    """Milliseconds the encoder takes for an utterance of the corpus's mean length."""
    return _ms_per_second(embeddings.encoder.model) * embeddings.store.table["duration_s"].mean()


def probe_layers(embeddings: Embeddings, folds: pd.DataFrame) -> pd.DataFrame:
    """What a linear classifier reads from each hidden state.

    Logistic regression on mean and standard deviation over time, standardised in the fold; trained on train and
    validation, since nothing is chosen. It describes the encoder: to choose a layer by it would be to choose on
    test.

    Returns
    -------
    table layer, uar, low, high: one row per hidden state, with a 95 % interval
    """
    table, rows = embeddings.store.table, []
    statistics = embeddings.statistics().reshape(len(table), embeddings.n_states, -1)
    for layer in range(embeddings.n_states):
        predictions, _ = cross_validate(statistics[:, layer], table, folds, model="probe")
        low, high = speaker_interval(predictions)
        uar = unweighted_average_recall(predictions["emotion"], predictions["prediction"])
        rows.append({"layer": layer, "uar": uar, "low": low, "high": high})
    return pd.DataFrame(rows)


def against_own_voice(embeddings: Embeddings) -> np.ndarray:
    """Mean over time of every clip against the same speaker's others: z-scores (n_utterances, n_states, n).

    This takes out what tells voices apart. It uses no label, but every clip: for looking, not for scoring.
    """
    means, table = embeddings.statistics()[:, :, 0], embeddings.store.table
    z = np.empty_like(means)
    for places in table.groupby(["corpus", "speaker"]).indices.values():
        z[places] = (means[places] - means[places].mean(axis=0)) / (means[places].std(axis=0) + 1e-6)
    return z


def explained_by_emotion(z: np.ndarray, emotions: Sequence) -> np.ndarray:
    """Share of each dimension's variance that lies between emotions, η² in [0, 1].

    Parameters
    ----------
    z : (n_utterances, ...)
    emotions : (n_utterances,)

    Returns
    -------
    (...)
    """
    emotions = np.asarray(emotions)
    centred = z - z.mean(axis=0)
    groups = [emotions == emotion for emotion in np.unique(emotions)]
    between = sum(group.sum() * np.square(centred[group].mean(axis=0)) for group in groups)
    return between / np.maximum(np.square(centred).sum(axis=0), 1e-12)


def standing_out(z: np.ndarray, emotions: Sequence[str]) -> tuple[np.ndarray, list[str]]:
    """How far each emotion stands out from the others in each hidden state.

    Parameters
    ----------
    z : float (n_utterances, n_states, n)

    Returns
    -------
    float (n_states, n_emotions), the mean over dimensions of the share of variance that "this emotion or another"
    explains; and the emotions, in the one order
    """
    present, emotions = in_order(emotions), np.asarray(emotions)
    shares = [explained_by_emotion(z, emotions == emotion).mean(axis=-1) for emotion in present]
    return np.stack(shares, axis=1), present
