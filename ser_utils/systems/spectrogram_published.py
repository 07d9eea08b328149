"""The findings of the study of spectrogram CNNs on AESDD, asked of trainings at its published settings.

They ran on an accelerator. Their answers ship as 04_<net>-<learning rate>-<protocol>.parquet, where `fold` is the draw of a
split, or the fold, and their epochs as 04_histories.csv.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from ser_utils.evaluation.metrics import accuracy, compare_paired
from ser_utils.systems.spectrogram_cnn import PUBLISHED, compare_with_published

Net = tuple[str, float]  # and its learning rate
FINDINGS: dict[str, tuple[Net, Net]] = {  # the study's claims, each net at the rate that it reports unless said
    "batch size 1 beats resizing, 3 layers": (("clip_3_layers", 1e-3), ("image_3_layers", 1e-3)),
    "batch size 1 beats resizing, 4 layers": (("clip_4_layers", 1e-3), ("image_4_layers", 1e-4)),
    "batch size 1 beats resizing, 4 layers, both at 1e-4": (("clip_4_layers", 1e-4), ("image_4_layers", 1e-4)),
    "artificial data helps clips": (("clip_published", 1e-4), ("clip_4_layers", 1e-3)),
    "artificial data helps clips, both at 1e-4": (("clip_published", 1e-4), ("clip_4_layers", 1e-4)),
    "artificial data helps resized clips": (("image_published", 1e-3), ("image_4_layers", 1e-4)),
    "artificial data helps resized clips, both at 1e-3": (("image_published", 1e-3), ("image_4_layers", 1e-3)),
}
FAULTS: dict[str, tuple[Net, Net]] = {  # what each part of the artificial data changes
    "ten unaltered copies instead of the clips": (("image_unaltered", 1e-3), ("image_4_layers", 1e-3)),
    "pitch shift of power rows instead of unaltered copies": (("image_pitch_shift", 1e-3), ("image_unaltered", 1e-3)),
    "masks at the floor instead of unaltered copies": (("image_masks_at_the_floor", 1e-3), ("image_unaltered", 1e-3)),
    "masks at 0 dB instead of unaltered copies": (("image_masks", 1e-3), ("image_unaltered", 1e-3)),
    "masks at 0 dB instead of masks at the floor": (("image_masks", 1e-3), ("image_masks_at_the_floor", 1e-3)),
    "all four changes instead of unaltered copies": (("image_published", 1e-3), ("image_unaltered", 1e-3)),
}


def read_answers(folder: Path) -> dict[tuple[str, float, str], pd.DataFrame]:
    """Read the predictions that ship from an accelerator: (net, learning rate, protocol) -> table, see the module."""
    keys = {path: path.stem.removeprefix("04_").rsplit("-", 2) for path in sorted(folder.glob("04_*.parquet"))}
    return {(net, float(rate), protocol): pd.read_parquet(path) for path, (net, rate, protocol) in keys.items()}


def published_tables(folder: Path) -> dict[str, pd.DataFrame]:
    """Make all tables of the trainings that ship, by the name they are saved under; none where none ship."""
    if not (answers := read_answers(folder)):
        return {}
    compared = compare_with_published(pd.read_csv(folder / "04_histories.csv"))
    validated = pd.read_csv(folder / "04_histories_validated.csv")
    return {
        "04_published": compared,
        "04_published_splits": compare_splits(answers, compared, validated),
        "04_published_findings": compare_nets(answers, FINDINGS),
        "04_published_faults": compare_nets(answers, FAULTS),
    }


def compare_nets(
    answers: Mapping[tuple[str, float, str], pd.DataFrame], pairs: Mapping[str, tuple[Net, Net]], *, seed: int = 0
) -> pd.DataFrame:
    """Pair the answers of two nets for the same test clips, draw by draw and all together.

    Parameters
    ----------
    answers : as `read_answers` gives them
    pairs : claim -> the better net, the other one
    seed : of the permutation test

    Returns
    -------
    claim, protocol, published (difference of accuracy), draws (difference of accuracy in each draw or fold), difference, low,
    high and p (of UAR over all draws, see `compare_paired`). A clip that is tested in several draws counts each time, and all
    clips of a speaker stay together. A protocol that one of the two lacks has no row.

    Raises
    ------
    ValueError : if the two nets were not tested on the same clips in each draw
    """
    rows = []
    for claim, nets in pairs.items():
        for protocol in ("paper", "utterance", "speaker"):
            if not {(*net, protocol) for net in nets} <= answers.keys():
                continue
            tables = [answers[*net, protocol] for net in nets]
            right = [_accuracies(table) for table in tables]
            known = protocol == "paper" and set(nets) <= PUBLISHED.keys()
            once = [
                table.assign(utterance_id=table["utterance_id"] + " " + table["fold"].astype(str)) for table in tables
            ]
            if set(once[0]["utterance_id"]) != set(once[1]["utterance_id"]):
                raise ValueError(f"{claim}: the nets were tested on other clips, or in other draws, under {protocol}")
            tested = compare_paired(*once, seed=seed)
            rows.append(
                {
                    "claim": claim,
                    "protocol": protocol,
                    "published": PUBLISHED[nets[0]][1] - PUBLISHED[nets[1]][1] if known else np.nan,
                    "draws": " ".join(f"{value:+.3f}" for value in right[0] - right[1]),
                    **{name: tested[name] for name in ("difference", "low", "high", "p")},
                }
            )
    return pd.DataFrame(rows)


def compare_splits(
    answers: Mapping[tuple[str, float, str], pd.DataFrame], compared: pd.DataFrame, validated: pd.DataFrame
) -> pd.DataFrame:
    """Tell how the accuracy of nets falls where test does not choose their epoch, and where speakers are new.

    Parameters
    ----------
    answers : as `read_answers` gives them
    compared : of the same trainings, as `compare_with_published` gives it
    validated : histories of those whose epoch was chosen on validation: net, rate, epoch

    Returns
    -------
    net, rate, published, then mean accuracy: best (epoch chosen on test), neighbours (of that epoch), validated (a draw with
    a validation part that chooses it), new_speakers (the same, with a speaker left out); epochs, and epochs_validated of the
    last two. A row for each net that has both.
    """
    rows, n_epochs = [], validated.groupby(["net", "rate"])["epoch"].max()
    for row in compared.itertuples():
        asked = {"validated": (row.net, row.rate, "utterance"), "new_speakers": (row.net, row.rate, "speaker")}
        if answers.keys() >= {*asked.values()}:
            elsewhere = {name: _accuracies(answers[key]).mean() for name, key in asked.items()}
            known: dict[str, Any] = {
                name: getattr(row, name) for name in ("net", "rate", "published", "best", "neighbours")
            }
            trained = {"epochs": row.epochs, "epochs_validated": n_epochs[row.net, row.rate]}
            rows.append(known | elsewhere | trained)
    return pd.DataFrame(rows)


def _accuracies(table) -> np.ndarray:
    return np.array([accuracy(part["emotion"], part["prediction"]) for _, part in table.groupby("fold")])
