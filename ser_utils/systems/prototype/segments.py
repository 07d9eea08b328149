"""The prototype system's segments: whose they are, which of them a model may see, and its scale."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import pandas as pd

from ser_utils.corpora.facts import CORPORA, Corpus
from ser_utils.evaluation.splits import HOP_MS
from ser_utils.features.store import FeatureStore


@dataclass(frozen=True)
class Scale:
    """The min–max scale of a model's training segments, applied to whatever the model sees.

    Parameters
    ----------
    low, high : dB, mapped to 0 and 1; levels beyond them are clipped
    """

    low: float
    high: float

    @classmethod
    def of(cls, log_mel: np.ndarray) -> Scale:
        """Measure the scale of training segments (n, n_mels, n_frames) in dB."""
        return cls(float(log_mel.min()), float(log_mel.max()))

    @property
    def range_db(self) -> float:
        """How many dB the scale spans: an error in [0, 1] times this is an error in dB."""
        return self.high - self.low

    def apply(self, log_mel: np.ndarray) -> np.ndarray:
        """Turn dB into float32 within [0, 1]."""
        return np.clip((log_mel - self.low) / (self.high - self.low), 0, 1).astype(np.float32)

    def invert(self, scaled: np.ndarray) -> np.ndarray:
        """Turn [0, 1] back into dB."""
        return np.asarray(scaled) * (self.high - self.low) + self.low


def segment_table(store: FeatureStore) -> pd.DataFrame:
    """List the segments of a feature store, one line each, in the order of its array.

    Returns
    -------
    table : `row` (its place in store.array), utterance_id, start_ms, speaker, gender, sentence, emotion
    """
    rows = store.rows()
    facts = store.table.set_index("utterance_id")[["speaker", "gender", "sentence", "emotion"]]
    repeated = facts.loc[rows["utterance_id"]].reset_index()
    return repeated.assign(start_ms=rows["row"] * HOP_MS, row=np.arange(len(rows)))


def select_segments(
    segments: pd.DataFrame,
    folds: pd.DataFrame,
    role: str,
    *,
    speakers: Iterable[str],
    fold: int = 0,
    most: int | None = None,
    per_clip: int | None = None,
) -> pd.DataFrame:
    """Select the segments that play `role` for a model of some speakers.

    Parameters
    ----------
    segments : as `segment_table` gives them
    folds : fold table, of segments or of whole utterances
    role : "train", "validation" or "test"
    speakers : ids of the speakers the model is for
    most : keep at most so many, at even distances (profiles thin)
    per_clip : keep at most so many of each utterance, at even distances, so that each is decided by as many

    Returns
    -------
    lines of `segments`, in order
    """
    wanted = folds[(folds["fold"] == fold) & (folds["role"] == role)]
    spoken = segments[segments["speaker"].isin(set(speakers))]
    if wanted["start_ms"].notna().any():
        selected = spoken.merge(wanted[["utterance_id", "start_ms"]], on=["utterance_id", "start_ms"])
    else:
        selected = spoken[spoken["utterance_id"].isin(set(wanted["utterance_id"]))]
    selected = selected.sort_values("row", ignore_index=True)
    if per_clip:
        clips = selected.groupby("utterance_id")["row"]
        place, length = clips.cumcount(), clips.transform("size")
        kept = (length <= per_clip) | ((place + 1) * per_clip // length > place * per_clip // length)
        selected = selected[kept].reset_index(drop=True)
    return thin(selected, most)


def thin(table: pd.DataFrame, most: int | None) -> pd.DataFrame:
    """Keep at most `most` lines at even distances; None or 0 keeps all."""
    if not most or len(table) <= most:
        return table
    return table.iloc[np.linspace(0, len(table) - 1, most).astype(int)].reset_index(drop=True)


def overlap_share(tested: pd.DataFrame, learned: pd.DataFrame, *, within_ms: float) -> float:
    """Measure the share of tested segments that begin nearer than `within_ms` to a learned one of their recording.

    Parameters
    ----------
    tested, learned : tables with utterance_id and start_ms
    """
    pairs = tested.merge(learned[["utterance_id", "start_ms"]], on="utterance_id", suffixes=("", "_learned"))
    overlap = pairs[(pairs["start_ms"] - pairs["start_ms_learned"]).abs() < within_ms]
    return len(overlap[["utterance_id", "start_ms"]].drop_duplicates()) / max(len(tested), 1)


def clearest_segments(store: FeatureStore, segments: pd.DataFrame, *, n: int = 0) -> pd.DataFrame:
    """Find segments to look at: the one with most contrast in the first utterance of each emotion.

    Recordings begin and end in silence, which is no example of a voice.

    Parameters
    ----------
    segments : lines of `segment_table`
    n : so many instead, going through the emotions in turn; 0 takes one per emotion

    Returns
    -------
    lines of `segments`, each of another utterance
    """
    first = segments.drop_duplicates("utterance_id")
    turn = first.groupby("emotion").cumcount().sort_values(kind="stable")
    first = first.loc[turn.index[:n]] if n else first[turn.sort_index() == 0]
    candidates = segments[segments["utterance_id"].isin(set(first["utterance_id"]))]
    contrast = candidates["row"].map(lambda row: float(store.array[row].std()))
    clearest = contrast.groupby([candidates["emotion"], candidates["utterance_id"]]).idxmax()
    return candidates.loc[clearest].reset_index(drop=True)


def choose_speakers(table: pd.DataFrame, wanted: str = "", *, most: int | None = None) -> list[str]:
    """Choose the speakers who get a model of their own.

    Parameters
    ----------
    table : utterance table
    wanted : ids parted by spaces or commas; "" takes those whose prototypes the paper shows, where it names them
    most : how many at most where the paper names none, women and men in turn

    Raises
    ------
    ValueError : for an unknown speaker; lists those there are
    """
    present = sorted(table["speaker"].unique())
    asked = wanted.replace(",", " ").split()
    if unknown := [speaker for speaker in asked if speaker not in present]:
        raise ValueError(f"No speaker {', '.join(unknown)} here. There are: {', '.join(present)}.")
    corpus = published_corpus(table)
    published = corpus.shown_speakers if corpus else ()
    if asked or set(published) & set(present):
        return asked or [speaker for speaker in published if speaker in present]
    if not most or len(present) <= most:
        return present
    turn = table.drop_duplicates("speaker").sort_values("speaker")
    turn = turn.assign(turn=turn.groupby("gender").cumcount()).sort_values(["turn", "gender"])
    return sorted(turn["speaker"].head(most))


def published_corpus(table: pd.DataFrame) -> Corpus | None:
    """Find the published corpus that all utterances of a table are of; None for several, or the reader's own."""
    names = table["corpus"].unique()
    return CORPORA.get(names[0]) if len(names) == 1 else None


def groups_of(table: pd.DataFrame) -> dict[str, list[str]]:
    """List whose voices a shared model learns: {"all": ids, "female": ids, "male": ids}, empty ones left out."""
    groups = {"all": sorted(table["speaker"].unique())}
    for gender in ("female", "male"):
        groups[gender] = sorted(table.loc[table["gender"] == gender, "speaker"].unique())
    return {name: speakers for name, speakers in groups.items() if speakers}
