"""Train a net of the study of spectrogram CNNs at its published settings, and ship its answers.

python -m tools.published_nets NET RATE PROTOCOL [--draws 5]

NET and RATE are one of the thirteen trainings of the study, on AESDD. It is trained as notebook 04 trains it under profile
`paper`, but in several draws of the split, and under other protocols too: there a validation part chooses the epoch, and
everything else is as published. NET can also be one of CHANGES, at 0.001. Finished folds are kept, so a call that was
interrupted can be repeated. At the end its answers and histories, and the tables made of them, are written into results/aesdd.
"""

import argparse
import os
import zlib
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from ser_utils.corpora.loading import load_corpus
from ser_utils.evaluation.metrics import accuracy
from ser_utils.evaluation.splits import make_folds
from ser_utils.features.augmentation import PUBLISHED_CHANGES, published_clip
from ser_utils.features.frames import artificial_stores, clip_frames, frame_store
from ser_utils.profiles import settings
from ser_utils.systems.spectrogram_cnn import PUBLISHED, plan_study
from ser_utils.systems.spectrogram_published import published_tables, read_answers
from ser_utils.training.folds import FoldTask, run_folds, tasks_of
from ser_utils.workspace import Workspace, atomic_path, made_by, read_json, write_checksums, write_csv, write_json

CORPUS = "aesdd"
DRAWS = {"paper": 5, "utterance": 4, "speaker": 1}  # of the split, by protocol, that ship of each net
MASKS = ("frequency mask", "time mask")
CHANGES = {  # `image_published`, whose copies are altered in one way alone
    "image_unaltered": (),
    "image_pitch_shift": ("pitch shift",),
    "image_masks": MASKS,
    "image_masks_at_the_floor": MASKS,
}
TRAININGS = {**PUBLISHED, **dict.fromkeys([(net, 1e-3) for net in CHANGES], PUBLISHED["image_published", 1e-3])}
KEPT = ["loss", "accuracy", "val_loss", "val_accuracy"]  # of a history
ABOUT = ["protocol", "net", "rate"]


def training_tasks(
    spaces: Sequence[Workspace], table: pd.DataFrame, net: str, rate: float, protocol: str, *, epochs: int = 0
) -> dict[int, list[FoldTask]]:
    """List a net's folds: draw -> tasks.

    Parameters
    ----------
    spaces : a workspace for each draw of the split, whose seed draws it; the first one has the features of all
    table : utterance table
    net, rate : one of TRAININGS
    epochs : at most so many; 0: as many as published
    """
    first = spaces[0]
    chosen = settings("spectrogram_cnn", first.profile, first.dataset) | {"single_changes": []}
    frames = {key: chosen[key] for key in ("n_mels", "n_fft", "hop_length", "denoise")} | {"kind": "log_mel"}
    common, features = {"sample_rate_hz": chosen["sample_rate_hz"]}, first.folder("features", "spectrogram_cnn")
    store, copies = frame_store(features / "log_mel", table, frames, **common), {"published": (), "artificial": ()}
    making = common | {"copies": chosen["copies"], "seed": first.seed}
    if net in CHANGES or "published" in net:
        name, changes = (net, CHANGES[net]) if net in CHANGES else ("published", tuple(PUBLISHED_CHANGES))
        how = {"extract": masked_at_the_floor} if net == "image_masks_at_the_floor" else {"published": True}
        copies["published"] = artificial_stores(features / name, table, frames, changes=changes, **how, **making)
    tasks = {}
    for space in spaces:
        plan = plan_study(space, store, chosen, ["paper"], copies)
        if net in CHANGES:
            like = plan["image_published", "paper"]
            at_rate = like.settings | {"learning_rate": rate}
            task = replace(like, name=f"spectrogram_cnn-{net}", settings=at_rate)
        else:
            (task,) = (task for task in plan.values() if _net_of(task) == (net, rate))
        if epochs:
            task = replace(task, settings=task.settings | {"epochs": epochs})
        folds = make_folds(table, protocol, system="spectrogram_cnn", seed=space.seed)
        tasks[space.seed] = tasks_of(task, folds, protocol)
    return tasks


def masked_at_the_floor(
    signal: np.ndarray, sample_rate: int, *, frames: dict[str, Any], changes: Sequence[str], copy: int, seed: int
) -> np.ndarray:
    """Compute the frames of a copy whose masks lie where the source's lie, filled with the clip's lowest value (silence).

    The source fills its masks with 0 dB, the highest value. Here the lowest one is 0 while they are filled.

    Parameters
    ----------
    signal : float32 (n_samples,)
    sample_rate : Hz
    frames, changes, copy, seed : as in `artificial_frames`

    Returns
    -------
    float32 (n_frames, n_features)
    """
    log_mel = clip_frames(signal, sample_rate, **frames)
    floor, seeds = log_mel.min(), (seed, copy, zlib.crc32(np.ascontiguousarray(signal)))
    return published_clip(log_mel - floor, seed=seeds, changes=changes) + floor


def _net_of(task):
    """Net and rate; a model is called "<net> <rate>" where its net has several rates."""
    rate = task.settings["learning_rate"]
    return task.name.removeprefix("spectrogram_cnn-").removesuffix(f"_{rate:g}"), rate


def refuse_other_draws(results: Path, protocol: str, n_draws: int) -> None:
    """Nets can only be compared on the same draws, so those that ship say how many a further one needs.

    Raises
    ------
    SystemExit : in one sentence, before anything is trained
    """
    if protocol == "speaker":  # one draw, whose folds are numbered
        return
    answers = read_answers(results / "accelerator")
    there = {table["fold"].nunique() for (_, _, of), table in answers.items() if of == protocol}
    if there - {n_draws}:
        raise SystemExit(
            f"--draws must be {max(there)}, as many as the other nets have under {protocol}. Received: {n_draws}"
        )


def ship(results: Path, net: str, rate: float, protocol: str, draws: list[dict[str, Any]]) -> None:
    """Put the answers and histories of a training, and the tables made of them, into results/<dataset>.

    Parameters
    ----------
    draws : what `run_folds` says of each draw; a split of several folds has one, and its folds are numbered instead
    """
    folder = results / "accelerator"
    answers, curves = [], []
    for draw, result in enumerate(draws):
        said = result["predictions"]
        said = said if len(result["histories"]) > 1 else said.assign(fold=draw)
        answers.append(said)
        folds = zip(said.groupby("fold"), result["histories"], result["kept"], strict=True)
        for (number, tested), history, best in folds:
            epoch, right = range(1, len(history) + 1), accuracy(tested["emotion"], tested["prediction"])
            curve = history[KEPT].assign(draw=number, epoch=epoch)
            curves.append(curve.assign(test_accuracy=curve["epoch"].map({best: right})))
    probabilities = [name for name in answers[0] if name.startswith("p_")]
    order = ["utterance_id", "start_ms", "speaker", "emotion", "prediction", *probabilities, "fold"]
    with atomic_path(folder / f"04_{net}-{rate:g}-{protocol}.parquet") as temporary:
        pd.concat(answers, ignore_index=True)[order].to_parquet(temporary, index=False)
    about = dict(zip(ABOUT, (protocol, net, rate), strict=True))
    kind = "_validated" if protocol != "paper" else "_changes" if net in CHANGES else ""
    _replace_rows(folder / f"04_histories{kind}.csv", pd.concat(curves).assign(**about))
    told = about | {
        "best_epochs": [int(best) for result in draws for best in result["kept"]],
        "draws": len(curves),
        "epochs": len(curves[0]),
        "epochs_planned": TRAININGS[net, rate][0],
        "made_by": made_by(),
    }
    made = read_json(folder / "04_provenance.json")
    others = [each for each in made["trainings"] if any(each[key] != value for key, value in about.items())]
    write_json(folder / "04_provenance.json", made | {"trainings": [*others, told]})
    for table_name, table in published_tables(folder).items():
        write_csv(results / f"{table_name}.csv", table)
    write_checksums(results, "accelerator/04_*", "04_published*.csv")


def _replace_rows(path, added):
    """Put the epochs of a training into a table that ships, where earlier ones of the same training were, else at its end."""
    earlier = pd.read_csv(path)
    keys = [name for name in ABOUT if name in earlier]
    was, now = (pd.MultiIndex.from_frame(rows[keys]) for rows in (earlier, added))
    joined = pd.concat([earlier[~was.isin(now)], added.reindex(columns=list(earlier))], ignore_index=True)
    place = was.append(now).unique().get_indexer(pd.MultiIndex.from_frame(joined[keys]))
    with atomic_path(path) as temporary:
        joined.iloc[place.argsort(kind="stable")].to_csv(temporary, index=False, float_format="%.5g")


def main(arguments=None):
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("net", choices=sorted({net for net, _ in TRAININGS}))
    parser.add_argument("rate", type=float)
    parser.add_argument("protocol", choices=DRAWS)
    parser.add_argument("--draws", type=int, default=0, help="of a split that has one fold; 0: as many as ship")
    parser.add_argument("--epochs", type=int, default=0, help="at most so many; 0: as many as published")
    given = parser.parse_args(arguments)
    training = given.net, given.rate
    if training not in TRAININGS:
        rates = ", ".join(f"{rate:g}" for net, rate in TRAININGS if net == given.net)
        parser.error(f"RATE of {given.net} must be one of {rates}. Received: {given.rate:g}")
    table = load_corpus(CORPUS, os.environ.get("SER_DATA_DIR", "data")).sort_values("utterance_id", ignore_index=True)
    spaces = [Workspace(CORPUS, "paper", draw, "") for draw in range(given.draws or DRAWS[given.protocol])]
    refuse_other_draws(spaces[0].results, given.protocol, len(spaces))
    tasks = training_tasks(spaces, table, *training, given.protocol, epochs=given.epochs)
    trained = run_folds(tasks, title=f"{given.net}, {given.protocol}")
    ship(spaces[0].results, *training, given.protocol, list(trained.values()))


if __name__ == "__main__":
    main()
