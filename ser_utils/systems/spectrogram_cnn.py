"""CNNs on mel spectrograms: clips of their own length with global pooling, and clips resized to one shape."""

import functools
import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pandas as pd
import soxr
from keras import layers, ops
from scipy.special import softmax
from scipy.stats import binomtest

from ser_utils.features.store import FeatureStore
from ser_utils.systems import study
from ser_utils.systems.sigwavnet.waveforms import time_mask
from ser_utils.training.fit import compile_for_lengths
from ser_utils.training.folds import FoldTask, UnweightedAverageRecall, run_folds, tasks_of
from ser_utils.workspace import Workspace

# What the source reports: net, learning rate -> epochs trained, best test accuracy, its epoch
PUBLISHED = {
    ("clip_3_layers", 1e-2): (50, 0.2066, 2),
    ("clip_3_layers", 1e-3): (300, 0.7438, 236),
    ("clip_3_layers", 1e-4): (1000, 0.6612, 706),
    ("clip_4_layers", 1e-3): (100, 0.7190, 88),
    ("clip_4_layers", 1e-4): (250, 0.6777, 224),
    ("image_3_layers", 1e-3): (50, 0.5537, 4),
    ("image_3_layers", 1e-2): (50, 0.5372, 30),
    ("image_4_layers", 1e-3): (50, 0.6198, 18),
    ("image_4_layers", 1e-4): (50, 0.6281, 32),
    ("clip_published", 1e-3): (100, 0.6694, 18),
    ("clip_published", 1e-4): (100, 0.7025, 72),
    ("image_published", 1e-3): (50, 0.6281, 17),
    ("image_published", 1e-4): (50, 0.5950, 28),
}
N_TEST = 121  # clips of the published split
LIKE = {  # nets that are not the source's, and the one whose rate and epochs they take
    "clip_artificial": "clip_4_layers",
    "image_artificial": "image_4_layers",
    "clip_bucketed": "clip_4_layers",
}
ALONE = "only "  # before the one change that made a net's copies


@keras.saving.register_keras_serializable(package="ser_utils")
class ConvolutionBlock(layers.Layer):
    """3 × 3 convolution, max-pool, batch norm, ReLU, dropout of whole channels; silent beyond each clip's end.

    Since everything beyond the end is zero before each convolution, as its own padding is, and no maximum before
    each pooling, how far a clip was padded never reaches its features. Pooled first, because norm and ReLU then
    cost a quarter; ReLU and maximum may change places.

    Parameters
    ----------
    filters : of the convolution
    pool : (frames, bands) made one
    batch_norm : False convolves with a bias instead
    dropout : share of the channels
    drops_rest : frames that fill no whole pool at the clip's end are left out, as PyTorch does; else they are
        pooled on their own
    start : initial values, see `uniform_start`; a loaded layer needs none

    Call: x (batch, frames, bands, channels), n_frames (batch,) -> both after the block.
    """

    def __init__(self, filters, pool=(2, 2), batch_norm=True, dropout=0.0, drops_rest=False, start=None, **kwargs):
        super().__init__(**kwargs)
        self.filters, self.pool, self.batch_norm, self.dropout = filters, tuple(pool), batch_norm, dropout
        self.drops_rest = drops_rest
        self.convolution = layers.Conv2D(filters, 3, padding="same", use_bias=not batch_norm, **(start or {}))
        self.norm = layers.BatchNormalization(momentum=0.9) if batch_norm else None
        self.pooling = layers.MaxPooling2D(self.pool, padding="same")
        self.drop = layers.SpatialDropout2D(dropout)

    def build(self, x_shape, *_):
        self.convolution.build(x_shape)
        if self.norm:
            self.norm.build((*x_shape[:-1], self.filters))
        self.built = True

    def call(self, x, n_frames, training=None):
        x = self.convolution(x)
        x = self.pooling(ops.where(clip_mask(x, n_frames), x, -1e9))
        if self.drops_rest:
            n_frames = ops.maximum(n_frames // self.pool[0], 1)
        else:
            n_frames = -(-n_frames // self.pool[0])
        inside = clip_mask(x, n_frames)
        if self.norm:
            x = self.norm(ops.where(inside, x, 0.0), training=training)
        return self.drop(ops.where(inside, ops.relu(x), 0.0), training=training), n_frames

    def get_config(self):
        names = ("filters", "pool", "batch_norm", "dropout", "drops_rest")
        return super().get_config() | {name: getattr(self, name) for name in names}


def clip_mask(x: keras.KerasTensor, n_frames: keras.KerasTensor) -> keras.KerasTensor:
    """Tell which frames belong to the clip: bool (batch, frames, 1, 1) for x (batch, frames, bands, channels)."""
    return time_mask(x, n_frames)[..., None]


@keras.saving.register_keras_serializable(package="ser_utils")
class GlobalPooling(layers.Layer):
    """Mean over all bands and the clip's own frames: (batch, frames, bands, channels) -> (batch, channels)."""

    def call(self, x, n_frames):
        total = ops.sum(ops.where(clip_mask(x, n_frames), x, 0.0), axis=(1, 2))
        return total / ops.cast(n_frames[:, None] * ops.shape(x)[2], x.dtype)


@keras.saving.register_keras_serializable(package="ser_utils")
class ClipInput(layers.Layer):
    """Clear what stands beyond each clip's end and add a channel axis: (batch, frames, bands[, 1])."""

    def call(self, x, n_frames):
        return ops.where(time_mask(x, n_frames), x, 0.0)[..., None]


def clip_cnn(
    n_classes: int,
    n_bands: int = 128,
    *,
    filters: Sequence[int] = (16, 32, 64),
    n_pools: int = 2,
    dropout: float = 0.25,
) -> keras.Model:
    """CNN for clips of any length: convolutions, max-pools, mean over bands and frames, one dense layer.

    Parameters
    ----------
    n_classes : emotions
    n_bands : mel bands of the input
    filters : of each 3 × 3 convolution; the source has 16 32 64 or 16 32 64 128
    n_pools : how many convolutions, from the first on, are followed by a 2 × 2 max-pool: 2 of 3, and 4 of 4
    dropout : share of the pooled values

    Returns
    -------
    keras.Model of (features (batch, frames, n_bands), n_frames (batch,)) -> probabilities (batch, n_classes).

    As published it is trained on one clip at a time. In a batch padding changes nothing, see ConvolutionBlock.
    Source: SigurdST/emotion_recognition, notebook, "CNNs with batch size of 1".
    """
    features, n_frames = clip_inputs(n_bands)
    x, n = ClipInput(name="clip")(features, n_frames), n_frames
    for number, (n_in, n_out) in enumerate(itertools.pairwise((1, *filters)), 1):
        pool = (2, 2) if number <= n_pools else (1, 1)
        block = ConvolutionBlock(
            n_out, pool, batch_norm=False, drops_rest=True, start=uniform_start(9 * n_in), name=f"block_{number}"
        )
        x, n = block(x, n)
    x = layers.Dropout(dropout)(GlobalPooling(name="pooling")(x, n))
    probabilities = _classes(x, n_classes)
    return keras.Model([features, n_frames], probabilities, name=f"clip_cnn_{len(filters)}_layers")


def image_cnn(
    n_classes: int,
    n_bands: int = 128,
    *,
    n_frames: int = 256,
    filters: Sequence[int] = (16, 32, 64),
    dropout: float = 0.5,
) -> keras.Model:
    """CNN for spectrograms of one shape: batch norm and max-pool after each convolution, flatten, one dense layer.

    Parameters
    ----------
    n_classes, n_bands, filters : as in `clip_cnn`
    n_frames : of every spectrogram
    dropout : share of the flattened values

    Returns
    -------
    keras.Model of (batch, n_frames, n_bands) -> probabilities (batch, n_classes).

    Source: SigurdST/emotion_recognition, notebook, "CNNs with resized spectrograms".
    """
    image = keras.Input((n_frames, n_bands), name="image")
    x = layers.Reshape((n_frames, n_bands, 1))(image)
    for number, (n_in, n_out) in enumerate(itertools.pairwise((1, *filters)), 1):
        start = uniform_start(9 * n_in)
        x = layers.Conv2D(n_out, 3, padding="same", name=f"convolution_{number}", **start)(x)
        x = layers.BatchNormalization(momentum=0.9, epsilon=1e-5, name=f"norm_{number}")(x)
        x = layers.MaxPooling2D(2)(layers.ReLU()(x))
    x = layers.Dropout(dropout)(layers.Flatten()(x))
    return keras.Model(image, _classes(x, n_classes), name=f"image_cnn_{len(filters)}_layers")


def uniform_start(fan_in: int) -> dict[str, keras.Initializer]:
    """Initial weights and biases as PyTorch, the source's library, draws them: uniform within ±1/√fan_in.

    Parameters
    ----------
    fan_in : inputs that each output adds up

    Returns
    -------
    Arguments of a Dense or convolution layer.
    """
    return {
        f"{name}_initializer": keras.initializers.RandomUniform(-(fan_in**-0.5), fan_in**-0.5)
        for name in ("kernel", "bias")
    }


def _classes(x, n_classes):
    logits = layers.Dense(n_classes, name="classes", **uniform_start(x.shape[-1]))(x)
    return layers.Softmax(name="probabilities")(logits)


def without_softmax(model: keras.Model) -> keras.Model:
    """The same network and weights, giving logits (batch, n_classes): what the loss has to be computed from.

    Where float32 probabilities are 0 and 1, a loss computed from them has no slope left. One step of Adam at 1e-3
    moves all weights of the flat layer of `image_cnn` at once, and so a logit by ten or more: after a few such
    steps it would never learn again.

    Parameters
    ----------
    model : of `clip_cnn` or `image_cnn`
    """
    return keras.Model(model.input, model.get_layer("classes").output, name=model.name)


@dataclass(frozen=True)
class SpectrogramTask(FoldTask):
    """One spectrogram CNN to train and test on one fold, see `FoldTask`. Its file holds the net without softmax.

    Parameters
    ----------
    as_published : trained without class weights, and the epoch chosen by accuracy; else by UAR
    replaced : training hears the copies alone; else they are added to the clips
    """

    as_published: bool = False
    replaced: bool = False

    def stores(self, roles):
        roles_of_clips = roles[roles != "train"] if self.replaced else roles
        return [(self.store, roles_of_clips), *super().stores(roles)[1:]]

    def clips(self, store, rows):
        """Clips for `image_cnn` are all of one length, so that batches of like lengths are random batches."""
        clips, n_frames = super().clips(store, rows), self.settings["resized_frames"]
        return [resample_clip(_standardised(clip), n_frames) for clip in clips] if n_frames else clips

    def scale(self, clips, table):
        return None if self.settings["resized_frames"] else super().scale(clips, table)

    def build(self, data, n_batches):
        model = without_softmax(self.network(len(data.classes), data.clips[0].shape[1]))
        return compile_for_lengths(
            model,
            keras.optimizers.Adam(self.settings["learning_rate"]),
            keras.losses.CategoricalCrossentropy(from_logits=True),
            metrics=["accuracy", UnweightedAverageRecall(len(data.classes))],
        )

    def fit_options(self, data):
        return {"monitor": "val_accuracy"} if self.as_published else super().fit_options(data)

    def predict(self, model, batches):
        return softmax(super().predict(model, batches), axis=1)


def _standardised(clip):
    clip = np.asarray(clip, np.float32)
    return (clip - clip.mean()) / (clip.std() + 1e-3)


def resample_clip(clip: np.ndarray, n_frames: int) -> np.ndarray:
    """Bring a clip float32 (any number of frames, n_features) to `n_frames`, as the source does.

    A shorter clip gets zeros behind. A longer one is resampled band by band (soxr, high quality), so that it
    seems spoken faster.
    """
    if len(clip) <= n_frames:
        return np.pad(clip, ((0, n_frames - len(clip)), (0, 0)))
    return soxr.resample(np.ascontiguousarray(clip), len(clip), n_frames, "HQ")[:n_frames]


def clip_inputs(n_bands: int) -> tuple[keras.KerasTensor, keras.KerasTensor]:
    """Make the two inputs of a network for clips: features (batch, frames, n_bands) and frames per clip (batch,)."""
    return keras.Input((None, n_bands), name="features"), keras.Input((), dtype="int32", name="n_frames")


def network_of(model: str, settings: Mapping[str, Any]) -> functools.partial:
    """The network behind a model's name, a function (n_classes, n_bands) -> keras.Model.

    Parameters
    ----------
    model : such as "clip_3_layers"; names without a number have four
    settings : filters, resized_frames
    """
    n_layers = 3 if "_3_" in model else 4
    filters = settings["filters"][:n_layers]
    if model.startswith("image"):
        return functools.partial(image_cnn, n_frames=settings["resized_frames"], filters=filters)
    return functools.partial(clip_cnn, filters=filters, n_pools=2 if n_layers == 3 else 4)


def plan_study(
    workspace: Workspace,
    store: FeatureStore,
    settings: Mapping[str, Any],
    protocols: Sequence[str],
    copies: Mapping[str, Sequence[Path]],
) -> dict[tuple[str, str], SpectrogramTask]:
    """Every training of the study, by model and protocol.

    Under `paper` all of settings["trainings"] are made as published: under the net's name with the first of its
    learning rates, under "<net> <rate>" with another. The other protocols train with class weights and choose the
    epoch by UAR on validation.

    Parameters
    ----------
    store : log-mel of all clips
    copies : stores of artificial copies: "published", "artificial", and those of one change under its name

    Returns
    -------
    dict (model, protocol) -> task without its fold
    """
    task = functools.partial(_task_of, workspace, store, settings)
    plan, first = {}, {}
    for model, rate, epochs in settings["trainings"]:
        name = f"{model} {rate:g}" if model in first else model
        first.setdefault(model, (rate, epochs))
        options = {"copies": copies["published"], "replaced": True} if "published" in model else {}
        plan[name, "paper"] = task(name, rate, epochs, as_published=True, **options)
    for model, like in LIKE.items():
        first[model] = first[like]
        added = copies["artificial"] if "artificial" in model else ()
        plan[model, "paper"] = task(model, *first[like], copies=added, as_published=True)
    for protocol in (name for name in protocols if name != "paper"):
        new = settings["new_speakers"] if protocol == "speaker" else []
        for model in [*settings["everywhere"], *new]:
            known = plan[model, "paper"]
            plan[model, protocol] = task(model, *first[model], copies=known.copies, replaced=known.replaced)
    for change in settings["single_changes"]:
        name = f"{ALONE}{change}"
        plan[name, "utterance"] = task(name, *first["clip_4_layers"], copies=copies[change])
    return plan


def _task_of(workspace, store, settings, name, rate, epochs, *, copies=(), **choices):
    is_image = name.startswith("image")
    batch_size = settings["batch_size_copies" if copies else "batch_size"] if is_image else 1
    options = {
        "scale": "clip",
        "resized_frames": settings["resized_frames"] if is_image else 0,
        "batch_size": 16 if name == "clip_bucketed" else batch_size,
        "learning_rate": rate,
        "epochs": epochs,
        "patience": settings["patience"],
    }
    options |= dict.fromkeys(("one_cycle", "weight_decay", "label_smoothing", "mask_bands", "mask_frames"), 0)
    return SpectrogramTask(
        f"spectrogram_cnn-{name.replace(' ', '_')}",
        network_of(name, settings),
        store.folder,
        None,
        options,
        workspace.folder("models"),
        workspace.seed,
        tuple(copies),
        **choices,
    )


def count_clips(plan: Mapping[tuple[str, str], SpectrogramTask], folds: Mapping[str, pd.DataFrame]) -> int:
    """How many clips a plan trains on, each counted in every epoch: what its time grows with."""
    total = 0
    for (_, protocol), task in plan.items():
        n_clips = (folds[protocol]["role"] == "train").sum()
        total += task.settings["epochs"] * n_clips * (len(task.copies) + (not task.replaced))
    return int(total)


def train_study(
    workspace: Workspace,
    table: pd.DataFrame,
    folds: Mapping[str, pd.DataFrame],
    plan: Mapping[tuple[str, str], SpectrogramTask],
) -> study.Results:
    """Train, test and audit a plan; what is compared with other systems, all but "<net> <rate>", is saved."""
    tasks = {(model, protocol): tasks_of(task, folds[protocol], protocol) for (model, protocol), task in plan.items()}
    return {
        (model, protocol): study.save_audited(
            workspace, table, folds[protocol], result, model=model, save=" " not in model
        )
        for (model, protocol), result in run_folds(tasks, title="spectrogram_cnn").items()
    }


def published_histories(results: study.Results, plan: Mapping[tuple[str, str], SpectrogramTask]) -> pd.DataFrame:
    """The histories of the study's own nets under `paper`, one row an epoch: net, rate, draw, epoch and what Keras says."""
    tables = [
        result["histories"][0].assign(
            net=model.split(" ")[0], rate=plan[model, protocol].settings["learning_rate"], draw=0
        )
        for (model, protocol), result in results.items()
        if protocol == "paper" and model not in LIKE
    ]
    histories = pd.concat(tables).rename_axis("epoch").reset_index()
    return histories.assign(epoch=histories["epoch"] + 1)


def compare_with_published(histories: pd.DataFrame) -> pd.DataFrame:
    """What the source reports beside what was measured, one row a training.

    Parameters
    ----------
    histories : net, rate, draw (of the split), epoch, val_accuracy (of the test part, which the source watches)

    Returns
    -------
    net, rate, published (test accuracy), published_epoch, low and high (95 % interval of a proportion of 121
    clips), epochs (trained) and epochs_published, best (the mean over draws of each one's best epoch), spread
    (standard deviation over draws), draws (each one's best), last (mean accuracy of the last epoch), neighbours
    (mean over the ten epochs around the best, without it): what is left where test does not choose the epoch.
    """
    rows = []
    for (net, rate), training in histories.groupby(["net", "rate"], sort=False):
        curves = [draw.sort_values("epoch")["val_accuracy"].to_numpy() for _, draw in training.groupby("draw")]
        epochs, published, epoch = PUBLISHED[net, rate]
        interval = binomtest(round(published * N_TEST), N_TEST).proportion_ci(method="wilson")
        best = [curve.max() for curve in curves]
        rows.append(
            {
                "net": net,
                "rate": rate,
                "published": published,
                "published_epoch": epoch,
                "low": interval.low,
                "high": interval.high,
                "epochs": len(curves[0]),
                "epochs_published": epochs,
                "draws": " ".join(f"{value:.3f}" for value in best),
                "best": np.mean(best),
                "spread": np.std(best, ddof=1) if len(best) > 1 else np.nan,
                "last": np.mean([curve[-1] for curve in curves]),
                "neighbours": np.mean([_around_best(curve) for curve in curves]),
            }
        )
    return pd.DataFrame(rows)


def _around_best(curve):
    best = int(np.argmax(curve))
    near = np.r_[curve[max(0, best - 5) : best], curve[best + 1 : best + 6]]
    return near.mean() if len(near) else np.nan
