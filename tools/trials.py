"""What would another way of training bring? Tried on validation speakers, so that no test clip is looked at.

python -m tools.trials [--corpora emodb ravdess aesdd] [--into FOLDER]

Each change is made to the deep CNN on log-mel of notebook 05, profile quick, in the same folds with the same seed. What is
compared is the last epoch, since the rate has then come down to zero and no epoch has to be chosen.
"""

import argparse
from pathlib import Path

import librosa
import numpy as np
import pandas as pd
from scipy import stats
from sklearn.model_selection import GroupKFold, cross_val_predict

from ser_utils.corpora.loading import load_corpus
from ser_utils.evaluation.splits import make_folds
from ser_utils.profiles import settings
from ser_utils.systems.baselines import build_classifier
from ser_utils.systems.feature_network import frame_stores, models_of
from ser_utils.training.folds import ClipBatches, FoldData, FoldTask, run_folds, tasks_of
from ser_utils.workspace import REPOSITORY, Workspace, write_csv
from tools.readme import replace_between
from tools.readme.datasets import title_of
from tools.readme.tables import markdown

SPREAD = 0.1  # of speed and vocal tract: a tenth faster or slower, longer or shorter
MIXED = 0.2  # both parameters of the beta distribution of mixup
FOLDS = "3_speakers"
TABLE = "trials.csv"
CHANGES = {
    "mixup": "mixup of the clips of a batch",
    "speed": "speed, a tenth slower to faster",
    "vocal_tract": "vocal tract, a tenth longer to shorter",
    "confusions": "label smoothing by confusions",
}
MARKS = ("<!-- trials -->", "<!-- /trials -->")


class ChangedBatches(ClipBatches):
    """Training batches whose clips are another voice's, or mixed with each other.

    Parameters
    ----------
    change : one of CHANGES
    frequencies : Hz, centres of the mel bands
    """

    def __init__(self, *args, change: str, frequencies: np.ndarray, **kwargs):
        super().__init__(*args, **kwargs)
        self.change, self.frequencies = change, frequencies

    def _clip(self, i, rng):
        if self.change in ("mixup", "confusions"):
            return super()._clip(i, rng)
        factor = rng.uniform(1 - SPREAD, 1 + SPREAD)
        clip = warp_bands(np.asarray(self.clips[i], np.float32), factor, self.frequencies)
        if self.change == "speed":
            clip = change_length(clip, round(len(clip) / factor))
        clip = (clip - self.scale[0][i]) / self.scale[1][i]
        return self.augment(clip, rng)

    def __getitem__(self, place):
        (clips, n_frames), targets = super().__getitem__(place)
        if self.change == "mixup":
            rng = np.random.default_rng([self.seed, self.epoch, place])
            order, share = rng.permutation(len(clips)), rng.beta(MIXED, MIXED, len(clips)).astype(np.float32)
            clips = _mix(clips, clips[order], share)
            targets, n_frames = _mix(targets, targets[order], share), np.maximum(n_frames, n_frames[order])
        return (clips, n_frames), targets


def _mix(first, second, share):
    share = share.reshape(-1, *[1] * (first.ndim - 1))
    return share * first + (1 - share) * second


def warp_bands(clip: np.ndarray, factor: float, frequencies: np.ndarray) -> np.ndarray:
    """Log-mel (n_frames, n_mels) of a voice whose frequencies are `factor` times as high.

    Source: vocal tract length perturbation, Jaitly & Hinton 2013, here on the bands of the spectrogram.
    """
    return _rows_at(clip.T, np.interp(frequencies / factor, frequencies, np.arange(len(frequencies)))).T


def change_length(clip: np.ndarray, n_frames: int) -> np.ndarray:
    """Bring a clip (any number of frames, n_features) to `n_frames` by linear interpolation, shorter or longer."""
    return _rows_at(clip, np.linspace(0, len(clip) - 1, n_frames))


def _rows_at(rows, places):
    """Between two rows, linearly."""
    below = places.astype(int)
    above, share = np.minimum(below + 1, len(rows) - 1), (places - below)[:, None].astype(rows.dtype)
    return rows[below] * (1 - share) + rows[above] * share


class ChangedTask(FoldTask):
    """The task of notebook 05 with one of CHANGES, which its settings name; "" changes nothing."""

    def batches(self, data, role):
        batches, change = super().batches(data, role), self.settings["change"]
        if role != "train" or not change:
            return batches
        targets = batches.targets
        if change == "confusions":
            targets = targets + self.settings["smoothing"] * (confusions(data)[data.labels("train")] - targets)
        return ChangedBatches(
            batches.clips,
            targets.astype(np.float32),
            scale=batches.scale,
            batch_size=batches.batch_size,
            shuffle=True,
            augment=batches.augment,
            seed=self.seed,
            change=change,
            frequencies=np.array(self.settings["frequencies"]),
        )


def confusions(data: FoldData) -> np.ndarray:
    """What each emotion is taken for, (n_classes, n_classes): rows sum to one, nothing is taken for itself.

    By a support vector machine on means and deviations of frames, asked about training speakers it did not hear.
    """
    rows = data.table[data.table["role"] == "train"]
    features = np.array([np.r_[clip.mean(axis=0), clip.std(axis=0)] for clip in data.signals("train")])
    labels, n = data.labels("train"), len(data.classes)
    apart = GroupKFold(min(5, rows["speaker"].nunique()))
    said = cross_val_predict(build_classifier("mfcc"), features, labels, groups=rows["speaker"], cv=apart)
    counts = np.ones((n, n))  # one each: what was never seen may happen
    np.add.at(counts, (labels, said), 1)
    np.fill_diagonal(counts, 0)
    return counts / counts.sum(axis=1, keepdims=True)


def try_changes(corpus: str, into: Path, *, profile: str = "quick", seed: int = 0) -> pd.DataFrame:
    """Train the deep CNN with each of CHANGES, and without.

    Returns
    -------
    table `corpus, change, fold, val_uar, val_loss`, of the last epoch; change "" is none
    """
    workspace = Workspace(corpus, profile, seed, into)
    table, chosen = load_corpus(corpus, workspace.data_dir), settings("feature_network", profile, corpus)
    task = models_of(workspace, frame_stores(workspace, table, chosen), chosen)["deep_cnn_log_mel"]
    bands = librosa.mel_frequencies(chosen["n_mels"], fmax=chosen["sample_rate_hz"] / 2).tolist()
    folds = make_folds(table, "speaker", system="feature_network", folds=FOLDS, seed=seed)
    plan = {}
    for change in ("", *CHANGES):
        options = task.settings | {"change": change, "frequencies": bands, "smoothing": chosen["label_smoothing"]}
        options |= {"label_smoothing": 0.0} if change == "confusions" else {}  # its targets are smooth already
        model = ChangedTask(
            f"trial-{change or 'none'}", task.network, task.store, None, options, task.models, task.seed
        )
        plan[change] = tasks_of(model, folds, "speaker")
    rows = []
    for change, result in run_folds(plan, title=corpus).items():
        for fold, history in enumerate(result["histories"]):
            last = history.iloc[-1]
            rows.append({"change": change, "fold": fold, "val_uar": last["val_uar"], "val_loss": last["val_loss"]})
    return pd.DataFrame(rows).assign(corpus=corpus)[["corpus", "change", "fold", "val_uar", "val_loss"]]


def describe(trials: pd.DataFrame) -> str:
    """The table of choices.md: mean UAR with and without each change, and a paired t-test over all folds."""
    wide = trials.pivot(index=["corpus", "fold"], columns="change", values="val_uar")
    corpora = list(dict.fromkeys(trials["corpus"]))
    lines = []
    for change, words in CHANGES.items():
        gained = wide[change] - wide[""]
        cells = [f"{wide.loc[name, ''].mean():.3f} → {wide.loc[name, change].mean():.3f}" for name in corpora]
        p = stats.ttest_1samp(gained, 0).pvalue
        lines.append([words, *cells, f"{100 * gained.mean():+.1f}", f"{p:.2g}"])
    return markdown(["change", *map(title_of, corpora), "mean, points", "p"], lines, 1)


def main() -> None:
    """Try all changes on each corpus, keep the table and write it into choices.md."""
    parser = argparse.ArgumentParser(prog="python -m tools.trials", description=__doc__.splitlines()[0])
    parser.add_argument("--corpora", nargs="+", default=["emodb", "ravdess", "aesdd"])
    parser.add_argument("--into", type=Path, default=REPOSITORY, help="under whose build/ models are kept")
    options = parser.parse_args()
    trials = pd.concat([try_changes(corpus, options.into) for corpus in options.corpora], ignore_index=True)
    write_csv(REPOSITORY / "notebooks" / TABLE, trials.round(6))
    replace_between(MARKS, REPOSITORY / "notebooks" / "choices.md", describe(trials))


if __name__ == "__main__":
    main()
