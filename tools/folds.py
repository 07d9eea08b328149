"""The fold files in data/folds: whom each fold of a whole corpus tests and validates on."""

from pathlib import Path

import pandas as pd

from ser_utils.corpora.facts import CORPORA, Corpus
from ser_utils.evaluation.splits import make_folds
from ser_utils.workspace import REPOSITORY


def speaker_groups(corpus: Corpus, folds: str) -> pd.DataFrame:
    """List the test and validation speakers of each fold of a whole corpus.

    Parameters
    ----------
    folds : "leave_one_speaker_out" or "emobox"

    Returns
    -------
    table `fold, test, validation` of speakers joined by spaces; all others train. An empty `validation` means that it
    is grouped by utterance.
    """
    emotions = corpus.emotions
    rows = [(speaker, gender, emotion) for speaker, gender in corpus.speakers.items() for emotion in emotions]
    table = pd.DataFrame(rows, columns=["speaker", "gender", "emotion"]).assign(corpus=corpus.name)
    table["utterance_id"] = table["speaker"] + " " + table["emotion"]
    split = make_folds(table, "speaker", folds=folds).merge(table, on="utterance_id")
    # a speaker with several roles is split by utterance and belongs to no group
    roles = split.groupby(["fold", "speaker"])["role"].agg(["first", "nunique"]).query("nunique == 1")["first"]
    groups = roles.rename("role").reset_index().groupby(["fold", "role"])["speaker"].agg(" ".join)
    groups = groups.unstack(fill_value="").reindex(columns=["test", "validation"], fill_value="")
    return groups.reset_index().rename_axis(columns=None)


def save_speaker_groups(folder: Path) -> None:
    """Write the fold files of every corpus into a folder, as <corpus>-<folds>.csv."""
    for name, corpus in CORPORA.items():
        for folds in ("leave_one_speaker_out", *(["emobox"] if name == "ravdess" else [])):
            table = speaker_groups(corpus, folds)
            table.to_csv(folder / f"{name}-{folds}.csv", index=False, lineterminator="\n")


if __name__ == "__main__":
    save_speaker_groups(REPOSITORY / "data" / "folds")
