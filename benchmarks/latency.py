"""One recording, from the file to an emotion, warm, for every model: milliseconds, and seconds of sound per second.

Networks have the sizes of a profile and new weights: what they answer depends on those, how long it takes does not.
"""

import functools
import os
import tempfile
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import numpy as np
from sklearn.preprocessing import StandardScaler
from sklearn.svm import SVC

from benchmarks.measuring import BUSY, in_turn, row, seconds_unit, speech_like, tell
from ser_utils.evaluation.splits import HOP_MS, SEGMENT_MS
from ser_utils.features import spectral as features
from ser_utils.features.audio import load_audio, save_audio
from ser_utils.features.frames import clip_frames
from ser_utils.profiles import settings
from ser_utils.systems import baselines, feature_network, spectrogram_cnn
from ser_utils.systems.prototype.autoencoder import build_autoencoder
from ser_utils.systems.prototype.classifier import build_prototype_classifier
from ser_utils.systems.sigwavnet.recipe import NETWORKS
from ser_utils.systems.sigwavnet.training import build_network
from ser_utils.systems.speech_transformer import heads as embedding_heads
from ser_utils.systems.speech_transformer.embeddings import embed
from ser_utils.systems.speech_transformer.encoder import Architecture, SpeechTransformer
from ser_utils.systems.speech_transformer.pretrained import TINY
from ser_utils.systems.vae.network import VariationalAutoencoder, voice_classifier

RATE_HZ, SECONDS, N_CLASSES = 16_000, 3, 7


def answer(model, *inputs):
    """The place of the most probable class, of one clip."""
    batch = [np.asarray(x)[None] for x in inputs]
    return int(np.argmax(model.predict_on_batch(batch if len(batch) > 1 else batch[0])[0]))


def prototype(profile):
    chosen, deciding = settings("prototype", profile), settings("prototype_classifier", profile)
    shape = features.log_mel_segments(np.ones((1, int(RATE_HZ * SEGMENT_MS / 1000)), np.float32), RATE_HZ).shape[1:]
    encoder = build_autoencoder(*shape, filters=chosen["filters"]).encoder
    n = N_CLASSES * deciding["prototypes_per_class"]
    classifier = build_prototype_classifier(int(np.prod(encoder.output_shape[1:])), N_CLASSES, n, steps_per_epoch=1)

    def emotion(path):
        signal, rate = load_audio(path)
        segments = features.split_segments(signal, rate, segment_ms=SEGMENT_MS, hop_ms=HOP_MS)
        embedding = encoder.predict_on_batch(1 + features.log_mel_segments(segments, rate) / 80)
        return np.bincount(classifier.predict_on_batch(embedding.reshape(len(embedding), -1)).argmax(axis=1)).argmax()

    yield "prototype", emotion


def spectrogram(profile):
    chosen = settings("spectrogram_cnn", profile)
    grid = {key: chosen[key] for key in ("n_mels", "n_fft", "hop_length", "denoise")} | {"kind": "log_mel"}
    clip, image = (
        spectrogram_cnn.network_of(name, chosen)(N_CLASSES, chosen["n_mels"])
        for name in ("clip_4_layers", "image_4_layers")
    )

    def frames(path):
        rows = clip_frames(*load_audio(path, chosen["sample_rate_hz"] or None), **grid)
        return (rows - rows.mean()) / (rows.std() + 1e-3)

    def of_clip(path):
        rows = frames(path)
        return answer(clip, rows, np.int32(len(rows)))

    yield "spectrogram_cnn clip_4_layers", of_clip
    yield (
        "spectrogram_cnn image_4_layers",
        lambda path: answer(image, spectrogram_cnn.resample_clip(frames(path), chosen["resized_frames"])),
    )


def feature_networks(profile):
    chosen = settings("feature_network", profile)
    grid = {key: chosen[key] for key in ("n_mels", "n_fft", "hop_length", "n_mfcc", "deltas", "trim_db")}
    sizes = {"filters": chosen["filters"], "dropout": chosen["dropout"]}
    for kind in ("log_mel", "mfcc"):
        width = clip_frames(speech_like(RATE_HZ, 1), RATE_HZ, kind=kind, **grid).shape[1]
        for name, network in (
            ("deep_cnn", feature_network.deep_cnn(N_CLASSES, width, **sizes)),
            ("cnn_bilstm", feature_network.cnn_bilstm(N_CLASSES, width, units=chosen["units"], **sizes)),
        ):

            def emotion(path, network=network, kind=kind):
                rows = clip_frames(*load_audio(path, chosen["sample_rate_hz"]), kind=kind, **grid)
                return answer(network, rows, np.int32(len(rows)))

            yield f"feature_network {name}_{kind}", emotion


def vae(profile):
    chosen = settings("vae", profile)
    grid = {key: chosen[key] for key in ("n_mfcc", "fmin", "fmax", "split_hz", "n_fft", "hop_length")}
    n = 3 * len(features.voice_feature_names(chosen["n_mfcc"]))
    x, labels = np.random.default_rng(0).normal(size=(400, n)), np.arange(400) % N_CLASSES
    scaler, svc = StandardScaler().fit(x), SVC()
    network = VariationalAutoencoder(n, chosen["n_latent"], chosen["hidden"])
    svc.fit(np.concatenate([x, network.encoder.predict(x, verbose=0)[0]], axis=1), labels)
    model = voice_classifier(scaler, network, svc, "both")

    def emotion(path):
        rows = features.voice_features(*load_audio(path, chosen["sample_rate_hz"]), **grid)
        return answer(model, features.voice_statistics(rows, within_db=chosen["within_db"]))

    yield "vae both", emotion


def waveforms(profile):
    for system in NETWORKS:
        chosen = settings(system, profile)
        network = build_network(system, N_CLASSES, chosen)
        longest = int(chosen["longest_s"] * chosen["sample_rate_hz"]) or None

        def emotion(path, network=network, rate=chosen["sample_rate_hz"], longest=longest):
            signal = load_audio(path, rate)[0][:longest]
            return answer(network, signal, np.int32(len(signal)))

        yield system, emotion


def speech_transformer(profile):
    family = {} if profile == "paper" else TINY
    encoder = SpeechTransformer(Architecture(**family))
    encoder.build()
    width = 2 * encoder.architecture.hidden_size
    head = embedding_heads.pooled(N_CLASSES, width, units=settings("speech_transformer", profile)["units"])

    def emotion(path):
        rows = embed(*load_audio(path, RATE_HZ), encoder=encoder, top=1)
        pooled = rows[encoder.architecture.num_hidden_layers].reshape(1, -1)
        return answer(head, pooled, np.int32(1))

    yield f"speech_transformer, {encoder.count_params() / 1e6:.0f} M parameters, pooled", emotion


def classical(profile):
    # openSMILE runs in a process of its own, whose seconds of the processor are not seen here
    opensmile = ["egemaps", "compare"] if baselines.has_opensmile() and not BUSY else []
    names = ["duration", "loudness", "mfcc", *opensmile]
    for name in names:
        extract, rate = baselines.EXTRACTORS[name]
        width = extract(speech_like(RATE_HZ, 1), RATE_HZ).shape[1]
        x = np.random.default_rng(0).normal(size=(400, width))
        classifier = baselines.build_classifier(name).fit(x, np.arange(400) % N_CLASSES)

        def emotion(path, extract=extract, rate=rate, classifier=classifier):
            return classifier.predict(np.nan_to_num(extract(*load_audio(path, rate))))[0]

        yield f"{baselines.system_of(name)} {name}", emotion


def measure(quick):
    profile = "smoke" if quick else "paper"
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "one.wav"
        save_audio(path, speech_like(RATE_HZ, SECONDS), RATE_HZ)
        found = {}
        for family in (prototype, spectrogram, feature_networks, vae, waveforms, speech_transformer, classical):
            for name, emotion in family(profile):
                emotion(path)  # compiles, fills caches
                found[name] = functools.partial(emotion, path)
        seconds = in_turn(list(found.values()), repeats=1 if quick else 5)
    at = f"one file of {SECONDS} s at {RATE_HZ // 1000} kHz, {keras.backend.backend()}, profile {profile}"
    for name, spent in zip(found, seconds, strict=True):
        line = row(f"file to emotion: {name}", at, 1000 * spent, seconds_unit("m"))
        yield line | {"than": "seconds of sound in a second", "ratio": SECONDS / spent}


if __name__ == "__main__":
    tell(measure, __doc__)
