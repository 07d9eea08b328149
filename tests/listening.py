"""What notebook 05 leaves, with networks that were not trained: for tests of whatever asks them."""

from pathlib import Path

import numpy as np
import pandas as pd

from ser_utils.profiles import settings
from ser_utils.workspace import Workspace, seal


def workspace_of_05(
    root: Path, dataset: str, table: pd.DataFrame, *, filters: tuple[int, ...] = (2, 2, 2, 2)
) -> Workspace:
    """Frames, folds, predictions and one untrained network per speaker, profile smoke.

    table : columns utterance_id, path, speaker, corpus, emotion, pcm_sha256
    """
    import keras

    from ser_utils.features.frames import frame_store
    from ser_utils.systems.feature_network import deep_cnn

    workspace = Workspace(dataset, "smoke", 0, root)
    chosen = settings("feature_network", "smoke")
    grid = {k: chosen[k] for k in ("n_mels", "n_fft", "hop_length", "n_mfcc", "deltas", "trim_db")}
    folder = workspace.folder("features", "feature_network") / "log_mel"
    frame_store(folder, table, grid | {"kind": "log_mel"}, sample_rate_hz=chosen["sample_rate_hz"])
    speakers, emotions = sorted(table["speaker"].unique()), sorted(table["emotion"].unique())
    roles = [np.where(table["speaker"] == speaker, "test", "train") for speaker in speakers]
    folds = pd.concat(table[["utterance_id"]].assign(fold=fold, role=role) for fold, role in enumerate(roles))
    name = {"system": "feature_network", "protocol": "speaker", "folds": "leave_one_speaker_out"}
    workspace.save_folds(folds, **name)
    keras.utils.set_random_seed(0)
    for fold in range(len(speakers)):
        network = deep_cnn(len(emotions), chosen["n_mels"], filters=filters)
        path = workspace.folder("models") / f"feature_network-deep_cnn_log_mel-speaker-{fold}.keras"
        _stir(network)
        network.save(path)
        seal(path)
    rest = {f"p_{emotion}": 0.4 / (len(emotions) - 1) for emotion in emotions[1:]}
    said = table[["utterance_id", "speaker", "emotion"]].assign(
        start_ms=np.nan,
        prediction=emotions[0],
        fold=table["speaker"].map(speakers.index),
        **{f"p_{emotions[0]}": 0.6},
        **rest,
    )
    workspace.save_predictions(said, model="deep_cnn_log_mel", **name)
    return workspace


def _stir(network):
    """Give batch norms and biases the values of a trained network's kind: fresh ones do nothing."""
    rng = np.random.default_rng(0)
    for weights in network.weights:
        if weights.name in ("gamma", "beta", "moving_mean", "moving_variance", "bias"):
            weights.assign(weights + 0.4 * rng.random(weights.shape))
