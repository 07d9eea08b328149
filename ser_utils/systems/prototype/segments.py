"""The prototype system's segments: whose they are, which of them a model may see, and its scale."""

from dataclasses import dataclass

import numpy as np

from ser_utils.corpora.facts import CORPORA
from ser_utils.evaluation.splits import HOP_MS


@dataclass(frozen=True)
class Scale:
    """The min–max scale of a model's training segments, applied to whatever the model sees.

    low, high : dB, mapped to 0 and 1; what lies beyond them is clipped
    """

    low: float
    high: float

    @classmethod
    def of(cls, log_mel):
        """The scale of training segments (n, n_mels, n_frames) in dB."""
        return cls(float(log_mel.min()), float(log_mel.max()))

    def apply(self, log_mel):
        """dB → float32 in [0, 1]."""
        return np.clip((log_mel - self.low) / (self.high - self.low), 0, 1).astype(np.float32)

    def invert(self, scaled):
        """[0, 1] → dB."""
        return np.asarray(scaled) * (self.high - self.low) + self.low


def segment_table(store):
    """One line per segment of a feature store, in the order of its array.

    Returns `row` (its place in store.array), utterance_id, start_ms, speaker, gender, sentence, emotion.
    """
    rows = store.rows()
    about = store.table.set_index("utterance_id")[["speaker", "gender", "sentence", "emotion"]]
    repeated = about.loc[rows["utterance_id"]].reset_index()
    return repeated.assign(start_ms=rows["row"] * HOP_MS, row=np.arange(len(rows)))


def select_segments(segments, folds, role, *, speakers, fold=0, most=None, per_clip=None):
    """The segments that play `role` for a model of some speakers.

    segments : as `segment_table` gives it; folds : a fold table, of segments or of whole utterances
    speakers : ids the model is for; most : int, keep so many at even distances (profiles thin)
    per_clip : int, keep so many of each utterance at even distances, so that each is decided by as many
    Returns the lines of `segments`, in order.
    """
    wanted = folds[(folds["fold"] == fold) & (folds["role"] == role)]
    own = segments[segments["speaker"].isin(set(speakers))]
    if wanted["start_ms"].notna().any():
        chosen = own.merge(wanted[["utterance_id", "start_ms"]], on=["utterance_id", "start_ms"])
    else:
        chosen = own[own["utterance_id"].isin(set(wanted["utterance_id"]))]
    chosen = chosen.sort_values("row", ignore_index=True)
    if per_clip:
        clips = chosen.groupby("utterance_id")["row"]
        place, length = clips.cumcount(), clips.transform("size")
        kept = (length <= per_clip) | ((place + 1) * per_clip // length > place * per_clip // length)
        chosen = chosen[kept].reset_index(drop=True)
    if most and len(chosen) > most:
        chosen = chosen.iloc[np.linspace(0, len(chosen) - 1, most).astype(int)].reset_index(drop=True)
    return chosen


def overlap_share(tested, learned, *, within_ms):
    """Share of tested segments that begin nearer than `within_ms` to a learned one of the same recording.

    tested, learned : tables with utterance_id and start_ms
    """
    both = tested.merge(learned[["utterance_id", "start_ms"]], on="utterance_id", suffixes=("", "_learned"))
    overlap = both[(both["start_ms"] - both["start_ms_learned"]).abs() < within_ms]
    return len(overlap[["utterance_id", "start_ms"]].drop_duplicates()) / max(len(tested), 1)


def clearest_segments(store, segments):
    """One segment per emotion to look at: the one with most contrast in the first utterance of each.

    segments : lines of `segment_table`. Recordings begin and end in silence, which is no example of a voice.
    Returns lines of `segments`, one per emotion.
    """
    first = segments.groupby("emotion")["utterance_id"].first()
    own = segments[segments["utterance_id"].isin(set(first))]
    contrast = own["row"].map(lambda row: float(store.array[row].std()))
    return own.loc[contrast.groupby(own["emotion"]).idxmax()].reset_index(drop=True)


def choose_speakers(table, chosen="", *, most=None):
    """The speakers who get a model of their own.

    table : utterance table; chosen : ids parted by spaces, or "" for the paper's where it names them
    most : int, how many at most where the paper names none, women and men in turn
    Returns a list of ids. Raises ValueError naming the speakers there are.
    """
    there = sorted(table["speaker"].unique())
    asked = chosen.replace(",", " ").split()
    if unknown := [speaker for speaker in asked if speaker not in there]:
        raise ValueError(f"No speaker {', '.join(unknown)} here. There are: {', '.join(there)}.")
    corpora = set(table["corpus"])
    corpus = CORPORA.get(next(iter(corpora))) if len(corpora) == 1 else None
    published = corpus.shown_speakers if corpus else ()
    if asked or set(published) & set(there):
        return asked or [speaker for speaker in published if speaker in there]
    if not most or len(there) <= most:
        return there
    turn = table.drop_duplicates("speaker").sort_values("speaker")
    turn = turn.assign(turn=turn.groupby("gender").cumcount()).sort_values(["turn", "gender"])
    return sorted(turn["speaker"].head(most))


def groups_of(table):
    """Whose voices a shared model learns: everybody, the women, the men. Returns {name: speaker ids}."""
    of_gender = {
        gender: sorted(table.loc[table["gender"] == gender, "speaker"].unique())
        for gender in ("female", "male")
    }
    groups = {"all": sorted(table["speaker"].unique())} | of_gender
    return {name: speakers for name, speakers in groups.items() if speakers}
