"""Training the prototype system: ours against literal loops, on the same data, from the same start, in turn.

The literal loops go as the published notebooks go: a dataset sliced row by row, a compiled step, losses and scores in
Python after each, prototype scores in Python after each epoch, and at each improvement of what is watched a saved
model and decoded pictures. The epoch that compiles is not counted.
"""

import os
import tempfile
import time
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import numpy as np
import tensorflow as tf
from sklearn.metrics import accuracy_score, f1_score
from tensorflow.python.framework import config as determinism

from benchmarks.measuring import clock, demo_voice, row, seconds_unit, tell
from ser_utils.profiles import settings
from ser_utils.systems.prototype.autoencoder import build_autoencoder
from ser_utils.systems.prototype.classifier import SMALLEST_SQUARE, PrototypeClassifier, prototype_scores
from ser_utils.systems.prototype.training import fit_classifier
from ser_utils.training.fit import fit_or_load

N_CLASSES = 7
LOOP = "literal loop, as published"


class Clock(keras.callbacks.Callback):
    """From the end of the first epoch, which compiles, to the end of training, best weights restored."""

    def on_epoch_end(self, epoch, logs=None):
        if epoch == 0:
            self.start = clock()

    def on_train_end(self, logs=None):
        self.seconds = clock() - self.start


def loop_of_autoencoder(x, watched, chosen, epochs, weights, folder):
    """The published loop. Returns seconds per epoch and the best watched loss."""
    model = build_autoencoder(*x.shape[1:], filters=chosen["filters"])
    model.set_weights(weights)
    optimizer = keras.optimizers.Adam(1e-3)

    def loss_of(true, returned):
        edges = [tf.image.sobel_edges(images[..., None]) for images in (true, returned)]
        edge_error = tf.reduce_mean(tf.abs(edges[0] - edges[1]))
        return tf.reduce_mean((true - returned) ** 2) + chosen["hfenn_weight"] * edge_error

    @tf.function
    def train_step(batch):
        with tf.GradientTape() as tape:
            returned = model(batch, training=True)
            loss = loss_of(batch, returned)
        trained = model.trainable_weights
        optimizer.apply_gradients(zip(tape.gradient(loss, trained), trained, strict=True))
        return loss, returned

    @tf.function
    def test_step(batch):
        returned = model(batch, training=False)
        return loss_of(batch, returned), returned

    train = tf.data.Dataset.from_tensor_slices(x).shuffle(1024).batch(chosen["batch_size"])
    test = tf.data.Dataset.from_tensor_slices(watched).batch(chosen["batch_size"])
    best, history = np.inf, []
    for epoch in range(epochs + 1):
        if epoch == 1:
            start = clock()
        for batch in train:
            loss, returned = train_step(batch)
            history.append((float(loss), float(np.abs(batch.numpy() - returned.numpy()).mean())))
        answers = [test_step(batch) for batch in test]
        now = float(np.mean([float(loss) for loss, _ in answers]))
        if now < best:
            best = now
            model.save(folder / "loop.keras")
            np.savez(folder / "pictures.npz", pictures=answers[0][1].numpy())
    return (clock() - start) / epochs, best


def our_autoencoder(x, watched, chosen, epochs, weights, folder):
    """As notebook 01 trains it. Returns seconds per epoch and the best watched loss."""
    clock, path = Clock(), folder / "ours.keras"

    def build():
        model = build_autoencoder(*x.shape[1:], filters=chosen["filters"], hfenn_weight=chosen["hfenn_weight"])
        model.set_weights(weights)
        return model

    options = {"seed": 0, "epochs": epochs + 1, "patience": chosen["patience"] or None}
    options |= {"batch_size": chosen["batch_size"], "validation": (watched, watched), "callbacks": [clock]}
    fitted = fit_or_load(path, build, (x, x), key=str(time.time()), **options)
    return clock.seconds / epochs, fitted.history["val_loss"].min()


class LiteralPrototypes(keras.layers.Layer):
    """Similarities and a mask of the most similar prototype, by powers, as published (which starts nowhere near a
    segment; here 0 is kept out)."""

    def __init__(self, n_prototypes, **kwargs):
        super().__init__(**kwargs)
        self.n_prototypes = n_prototypes

    def build(self, input_shape):
        self.prototypes = self.add_weight(shape=(self.n_prototypes, input_shape[-1]), initializer="uniform")

    def call(self, x):
        p = tf.transpose(self.prototypes)
        squared = tf.reduce_sum(x**2, axis=1, keepdims=True) + tf.reduce_sum(p**2, axis=0, keepdims=True)
        similarity = tf.exp(-tf.pow(tf.maximum(squared - 2 * x @ p, SMALLEST_SQUARE), 1 / 4))
        most = tf.reduce_max(similarity, axis=1, keepdims=True)
        return similarity, tf.cast(tf.equal(similarity, most), tf.float32)


def scores_of(truth, probabilities):
    """Accuracy and macro-F1 of one-hot truth and probabilities."""
    truth, prediction = truth.argmax(axis=1), probabilities.argmax(axis=1)
    return accuracy_score(truth, prediction), f1_score(truth, prediction, average="macro")


def loop_of_classifier(train, validation, start, epochs, decoder, folder, batch_size=512):
    """The published loop. Returns seconds per epoch and the best F1."""
    embedding = keras.Input((train[0].shape[1],))
    n_prototypes = len(start.prototypes)
    layer, decide = LiteralPrototypes(n_prototypes), keras.layers.Dense(N_CLASSES, "softmax", use_bias=False)
    similarity, mask = layer(embedding)
    model = keras.Model(embedding, [decide(similarity), similarity, mask])
    layer.prototypes.assign(start.prototypes)
    decide.kernel.assign(start.fc_weights)
    focal, optimizer = keras.losses.CategoricalFocalCrossentropy(), keras.optimizers.Adam(0.01)

    @tf.function
    def train_step(x, y):
        with tf.GradientTape() as tape:
            probabilities, similarity, mask = model(x, training=True)
            loss = focal(y, probabilities) + 0.001 * focal(mask, similarity)
        weights = model.trainable_weights
        optimizer.apply_gradients(zip(tape.gradient(loss, weights), weights, strict=True))
        return loss, probabilities

    @tf.function
    def test_step(x):
        return model(x, training=False)[0]

    train = tf.data.Dataset.from_tensor_slices(train).shuffle(1024).batch(batch_size)
    test = tf.data.Dataset.from_tensor_slices(validation).batch(batch_size)
    best, history = -1.0, []
    for epoch in range(epochs + 1):
        if epoch == 1:
            begin = clock()
        for x, y in train:
            loss, probabilities = train_step(x, y)
            history.append((float(loss), *scores_of(y.numpy(), probabilities.numpy())))
        answers = [(y.numpy(), test_step(x).numpy()) for x, y in test]
        f1 = scores_of(*map(np.concatenate, zip(*answers, strict=True)))[1]
        history.append(prototype_scores(decide.get_weights()[0].round(2)).max(axis=1).mean())
        if f1 > best:
            best = f1
            model.save(folder / "loop.keras")
            shape = (n_prototypes, *decoder.input_shape[1:])
            pictures = decoder.predict(layer.prototypes.numpy().reshape(shape), verbose=0)
            np.savez(folder / "prototypes.npz", prototypes=pictures)
            np.savez(folder / "weights.npz", weights=decide.get_weights()[0].round(2))
    return (clock() - begin) / epochs, best


def our_classifier(train, validation, n_prototypes, epochs, folder):
    """`fit_classifier` as notebook 02 calls it. Returns seconds per pass over the segments and the best F1."""
    chosen = settings("prototype_classifier", "paper") | {"n_prototypes": n_prototypes, "start": "segments"}
    passes, clock, path = chosen["most_passes"], Clock(), folder / "ours.keras"
    chosen |= {"epochs": epochs + passes, "patience": epochs}
    arrays = [(x, y.argmax(axis=1)) for x, y in (train, validation)]
    path.unlink(missing_ok=True)
    fitted = fit_classifier(path, *arrays, N_CLASSES, chosen, callbacks=[clock])
    return clock.seconds / (passes * (len(fitted.history) - 1)), fitted.history["val_macro_f1"].max()


def compare(loop, ours, rounds):
    """The least seconds of either over `rounds`, and the best score each reached in the last."""
    spent = []
    for _ in range(rounds):
        determinism.disable_op_determinism()  # which ours asks for and the published loop does not
        spent.append((loop(), ours()))
    seconds = np.min([[literal[0], timed[0]] for literal, timed in spent], axis=0)
    return seconds, [score for _, score in spent[-1]]


def measure(quick):
    n_segments, n_prototypes, epochs = (400, 35, 5) if quick else (3300, 315, 20)
    rounds = 1 if quick else 2
    keras.utils.set_random_seed(0)
    log_mel, labels = demo_voice(n_segments)
    n_watched = n_segments // 5
    x = (1 + log_mel / 80).astype(np.float32)
    with tempfile.TemporaryDirectory() as folder:
        folder = Path(folder)
        chosen = settings("prototype", "smoke" if quick else "paper")
        few = x[: n_segments // 4], x[-n_watched:]
        weights = build_autoencoder(*x.shape[1:], filters=chosen["filters"]).get_weights()
        common = (*few, chosen, 2 if quick else 3, weights, folder)
        (loop_s, ours_s), losses = compare(
            lambda: loop_of_autoencoder(*common), lambda: our_autoencoder(*common), rounds
        )
        at = f"{len(few[0]):,} segments of {x.shape[1]} × {x.shape[2]}, filters {chosen['filters']}"
        yield row("autoencoder, an epoch", at, ours_s, seconds_unit(), other=loop_s, than=LOOP, at_least=1)
        yield row("autoencoder, loss reached", at, losses[1], "", other=losses[0], than=LOOP)

        encoder = build_autoencoder(*x.shape[1:])
        embeddings = keras.ops.convert_to_numpy(encoder.encoder(x)).reshape(len(x), -1)
        y = np.eye(N_CLASSES, dtype=np.float32)[labels]
        train, validation = (embeddings[n_watched:], y[n_watched:]), (embeddings[:n_watched], y[:n_watched])
        start = PrototypeClassifier(embeddings.shape[1], N_CLASSES, n_prototypes)
        start.start_from(train[0], train[1].argmax(axis=1))
        (loop_s, ours_s), f1 = compare(
            lambda: loop_of_classifier(train, validation, start, epochs, encoder.decoder, folder),
            lambda: our_classifier(train, validation, n_prototypes, epochs, folder),
            rounds,
        )
        at = f"{len(train[0]):,} segments × {n_prototypes} prototypes × {embeddings.shape[1]:,} dimensions"
        yield row("classifier, an epoch", at, ours_s, seconds_unit(), other=loop_s, than=LOOP, at_least=3)
        yield row("classifier, macro-F1 reached", at, f1[1], "", other=f1[0], than=LOOP, better="more")


if __name__ == "__main__":
    tell(measure, __doc__)
