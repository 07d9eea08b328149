"""Embeddings of whole recordings: made once by a speech encoder, kept, and listened to by heads."""

import functools
import time
from dataclasses import dataclass

import keras
import numpy as np
import pandas as pd
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from ser_utils.corpora.loading import EMOTIONS
from ser_utils.evaluation.metrics import speaker_interval, unweighted_average_recall
from ser_utils.evaluation.splits import audit_leakage
from ser_utils.features.store import FeatureStore, build_store
from ser_utils.systems.speech_transformer import heads as embedding_heads
from ser_utils.systems.speech_transformer.heads import HEADS, LayerwiseAdam, rates_by_layer
from ser_utils.training.fit import class_weights, code_of, compile_for_lengths, fit_or_load
from ser_utils.training.folds import ClipBatches, UnweightedAverageRecall, ask, clip_scale, predict_clips
from ser_utils.workspace import content_key, read_json

LONGEST_S, CONTEXT_S = 20.0, 1.0


def hidden_states(encoder, signal, sample_rate, *, longest_s=LONGEST_S):
    """Yield a clip's hidden states piece by piece, so that memory does not grow with its length.

    encoder : SpeechTransformer; signal : float (n_samples,); sample_rate : Hz, the encoder's
    longest_s : s a piece may last. Attention costs the square of a piece's length, and the published encoders
        never heard more than about 20 s at once. A longer clip is cut; pieces overlap by 1 s on either side, whose
        frames are dropped, so that every frame comes once, and hears at least 1 s of what is around it.
    Yields float32 (n_layers + 1, n_frames, hidden_size), embeddings first; the last one as heads read it.
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
        states = encoder(waveform[:, begin * a.hop : stop])
        states[-1] = encoder.last_hidden_state(states[-1])
        yield np.stack(
            [keras.ops.convert_to_numpy(state)[0, first - begin : last - begin] for state in states]
        )


def embed(signal, sample_rate, *, encoder, top, longest_s=LONGEST_S):
    """What the heads want of one clip, in one pass.

    Returns float32 (n_layers + 1 + n_frames, 2, hidden_size): first one row a layer, mean and standard deviation
    over time; then one row a frame, hidden state num_hidden_layers - top and the last one.
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

    encoder : pretrained.Encoder; top : layers that may be trained on; store : rows as `embed` makes them
    """

    encoder: object
    top: int
    store: FeatureStore

    @property
    def n_states(self):
        return self.encoder.model.architecture.num_hidden_layers + 1

    def statistics(self):
        """Mean and standard deviation over time, float32 (n_utterances, n_states, 2, hidden_size), in the
        store's order."""
        first = self.store.table["first_row"].to_numpy()
        return np.stack([self.store.array[i : i + self.n_states] for i in first])

    def clips(self, head):
        """What `head` listens to: a list of float32 (rows, n_features), in the store's order."""
        places = zip(self.store.table["first_row"], self.store.table["n_rows"], strict=True)
        n, array = self.n_states, self.store.array
        if head in ("pooled", "layer_weighting"):
            first = n - 1 if head == "pooled" else 0
            return [array[i + first : i + n].reshape(1, -1) for i, _ in places]
        which = 0 if head == "fine_tuned" else 1
        return [array[i + n : i + rows, which] for i, rows in places]


def build_embeddings(folder, table, encoder, *, top, longest_s=LONGEST_S):
    """Embed every utterance of `table` once.

    folder : where feature stores live; encoder : pretrained.Encoder
    Returns Embeddings. One process: the backend's threads share the cores.
    """
    extract = functools.partial(embed, encoder=encoder.model, top=top, longest_s=longest_s)
    store = build_store(
        folder / f"embeddings_{encoder.name}", table, extract,
        key=content_key(encoder.key, top, longest_s, code_of(type(encoder.model)), embed),
        sample_rate_hz=encoder.model.preprocessing.sample_rate_hz, jobs=1, title=encoder.name,
    )  # fmt: skip
    return Embeddings(encoder, top, store)


def network(head, n_classes, n_features, encoder, options):
    """The network of one head; `options` as in the profile."""
    more = {
        "layer_weighting": {"n_layers": encoder.model.architecture.num_hidden_layers + 1},
        "fine_tuned": {"encoder": encoder.model, "top": options["top_layers"]},
    }.get(head, {})
    if head != "fine_tuned":
        more["units"] = options["units"]
    return HEADS[head](n_classes, n_features, dropout=options["dropout"], **more)


def _compiled(model, head, encoder, options):
    rates = {}
    if head == "fine_tuned":
        names = ("learning_rate", "top_learning_rate", "decay")
        architecture = encoder.model.architecture
        rates = rates_by_layer(architecture, options["top_layers"], **{name: options[name] for name in names})
    return compile_for_lengths(
        model,
        LayerwiseAdam(options["learning_rate"], rates, clipnorm=1.0),
        "categorical_crossentropy",
        metrics=[UnweightedAverageRecall(model.output_shape[-1])],
    )


def train_head(embeddings, head, fold, *, options, path, seed=0):
    """Train one head on one fold, or open it if it was finished before, and test it.

    fold : one fold of a fold table, whole utterances; options : as in the profile; path : of the .keras file
    Frozen embeddings are standardised by the training part; the best epoch is chosen on validation.
    Returns Fitted, the predictions table, and milliseconds an utterance of the head alone.
    """
    encoder, table = embeddings.encoder, embeddings.store.table
    role = table["utterance_id"].map(fold.set_index("utterance_id")["role"]).to_numpy()
    classes = [emotion for emotion in EMOTIONS if emotion in set(table["emotion"])]
    truth = table["emotion"].map(classes.index).to_numpy()
    clips = embeddings.clips(head)
    # trained layers go on from the hidden states they know
    scale = None if head == "fine_tuned" else clip_scale(clips, table, "training", role == "train")

    def batches(which, **changes):
        chosen = np.flatnonzero(role == which)
        return ClipBatches(
            [clips[i] for i in chosen], np.eye(len(classes), dtype="float32")[truth[chosen]],
            scale=scale and (scale[0][chosen], scale[1][chosen]), batch_size=options["batch_size"], **changes,
        )  # fmt: skip

    epochs, patience = (
        (options["tuning_epochs"], options["tuning_patience"])
        if head == "fine_tuned"
        else (options["epochs"], options["patience"])
    )
    made_from = read_json(embeddings.store.folder / "made_from.json")
    fitted = fit_or_load(
        path,
        lambda: _compiled(network(head, len(classes), clips[0].shape[1], encoder, options), head, encoder, options),
        batches("train", shuffle=True, seed=seed),
        key=content_key(made_from, fold, options, head, code_of(embedding_heads.HEADS[head], ClipBatches)),
        validation=batches("validation"), seed=seed, epochs=epochs, patience=patience, monitor="val_uar", mode="max",
        class_weight=class_weights(truth[role == "train"], len(classes)), title=path.stem,
    )  # fmt: skip
    test = batches("test")
    predictions, milliseconds = ask(
        lambda: predict_clips(fitted.model, test), table[role == "test"], classes, fold
    )
    return fitted, predictions, milliseconds


def cross_validate(embeddings, head, folds, *, options, models, seed=0):
    """Train and test one head on every fold.

    models : folder of the trained heads. Returns (predictions, costs, list of Fitted); costs count the encoder.
    """
    results = []
    label = f"{embeddings.encoder.name}_{head}-{folds.attrs['protocol']}"
    for number, fold in folds.groupby("fold"):
        path = models / f"speech_transformer-{label}-{number}.keras"
        results.append(train_head(embeddings, head, fold, options=options, path=path, seed=seed))
    fitted, predictions, milliseconds = zip(*results, strict=True)
    below = embeddings.encoder.model.count_params()
    if head == "fine_tuned":  # its last layers are counted as the head's
        below -= fitted[0].model.get_layer("top").count_params()
    costs = {
        "parameters": below + fitted[0].model.count_params(),
        "seconds_to_train": sum(one.seconds for one in fitted),
        "ms_per_utterance": np.mean(milliseconds) + ms_to_embed(embeddings),
    }
    return pd.concat(predictions, ignore_index=True), costs, list(fitted)


def evaluate(workspace, embeddings, head, folds, *, options):
    """Train and test one head under one protocol, and write predictions, audit and costs.

    folds : fold table of `make_folds`; options : as in the profile
    Returns (predictions, list of Fitted).
    """
    predictions, costs, fitted = cross_validate(
        embeddings, head, folds, options=options, models=workspace.folder("models"), seed=workspace.seed
    )
    # the encoder's own training saw none of this corpus; fine-tuning and scaling saw the training part
    given = {"scaler": "train", "encoder": "train" if head == "fine_tuned" else (), "augmentation": ()}
    audit = audit_leakage(folds, embeddings.store.table, fit={**given, "selection": "validation"})
    name = {"system": "speech_transformer", "model": f"{embeddings.encoder.name}_{head}"}
    name |= {"protocol": folds.attrs["protocol"], "folds": folds.attrs["folds"]}
    workspace.save_predictions(predictions, **name)
    workspace.save_audit(audit, **name)
    workspace.save_costs(costs, **name)
    return predictions, fitted


@functools.cache
def _ms_per_second(model):
    """Milliseconds an encoder takes for one second of sound, on noise."""
    rate = model.preprocessing.sample_rate_hz
    noise = np.random.default_rng(0).standard_normal((1, 2 * rate)).astype(np.float32)
    model(noise)
    start = time.perf_counter()
    keras.ops.convert_to_numpy(model(noise)[-1])
    return 1000 * (time.perf_counter() - start) / 2


def ms_to_embed(embeddings):
    """Milliseconds the encoder takes for an utterance of the corpus's mean length."""
    return _ms_per_second(embeddings.encoder.model) * embeddings.store.table["duration_s"].mean()


def probe_layers(embeddings, folds):
    """What a linear classifier reads from each hidden state: a table `layer, uar, low, high`, one row each.

    Logistic regression on mean and standard deviation over time, standardised in the fold; trained on train and
    validation, since nothing is chosen. A description of the encoder: to choose a layer by it would be to choose
    on test.
    """
    table = embeddings.store.table
    place = pd.Series(np.arange(len(table)), index=table["utterance_id"])
    statistics = embeddings.statistics().reshape(len(table), embeddings.n_states, -1)
    rows = []
    for layer in range(embeddings.n_states):
        parts = []
        for _, fold in folds.groupby("fold"):
            is_test = (fold["role"] == "test").to_numpy()
            known, asked = (
                place.loc[fold.loc[side, "utterance_id"]].to_numpy() for side in (~is_test, is_test)
            )
            # strong regularisation: statistics outnumber clips
            classifier = make_pipeline(StandardScaler(), LogisticRegression(C=0.01, max_iter=300))
            classifier.fit(statistics[known, layer], table["emotion"].iloc[known])
            predicted = classifier.predict(statistics[asked, layer])
            parts.append(table.iloc[asked][["speaker", "emotion"]].assign(prediction=predicted))
        both = pd.concat(parts)
        low, high = speaker_interval(both)
        uar = unweighted_average_recall(both["emotion"], both["prediction"])
        rows.append({"layer": layer, "uar": uar, "low": low, "high": high})
    return pd.DataFrame(rows)


def against_own_voice(embeddings):
    """Means over time of every clip, against the same speaker's others: z-scores (n_utterances, n_states, n).

    What tells voices apart is thereby taken out; it uses no label, and every clip: for looking, not for scoring.
    """
    means = embeddings.statistics()[:, :, 0]
    table = embeddings.store.table
    z = np.empty_like(means)
    for places in table.groupby(["corpus", "speaker"]).indices.values():
        z[places] = (means[places] - means[places].mean(axis=0)) / (means[places].std(axis=0) + 1e-6)
    return z


def explained_by_emotion(z, emotions):
    """Share of each dimension's variance that lies between emotions, η² in [0, 1].

    z : (n_utterances, ...); emotions : (n_utterances,). Returns (...).
    """
    emotions = np.asarray(emotions)
    centred = z - z.mean(axis=0)
    groups = [(emotions == one) for one in np.unique(emotions)]
    between = sum(group.sum() * np.square(centred[group].mean(axis=0)) for group in groups)
    return between / np.maximum(np.square(centred).sum(axis=0), 1e-12)


def standing_out(z, emotions):
    """How far each emotion stands out from the others in each hidden state.

    z : float (n_utterances, n_states, n). Returns float (n_states, n_emotions), the mean over dimensions of the
    share of variance that "this emotion or another" explains; and the emotions, in the one order.
    """
    emotions = np.asarray(emotions)
    present = [emotion for emotion in EMOTIONS if emotion in set(emotions)]
    shares = [explained_by_emotion(z, emotions == one).mean(axis=-1) for one in present]
    return np.stack(shares, axis=1), present
