"""What prototypes say and sound like: which to show, their pitch, notes and bands, and what they kept of a class."""

from __future__ import annotations

from collections.abc import Sequence

import librosa
import numpy as np
import pandas as pd
from matplotlib.cbook import boxplot_stats
from scipy import stats

from ser_utils.features.spectral import band_frequencies, mel_to_audio, pitch_track
from ser_utils.systems.prototype.classifier import ALIKE, prototype_scores

EDGE = 2 ** (1 / 24)  # a quarter tone
F0_RANGE_HZ = (50.0, 300.0)  # the paper's
VOICE_RANGE_HZ = (60.0, 600.0)  # searched in whole recordings
NEAR_OCTAVE = 2**0.5  # half an octave outside what its recording has, a pitch is an octave fault
LOW_BAND_HZ = 2000.0
NOT_DISTINCT = 0.9  # correlation from which two pictures are not shown as different ones
STRONGEST = 10  # bands the paper lists of each prototype


def select_prototypes(
    scores: np.ndarray, emotions: Sequence[str], *, top: int | None = None, threshold: float | None = None
) -> pd.DataFrame:
    """Select the prototypes that speak most for each emotion, as published.

    A prototype belongs to the emotion it speaks for most, the first of equal ones; one whose scores are all 0
    belongs to none.

    Parameters
    ----------
    scores : percent (n_prototypes, n_emotions), as `prototype_scores` gives them
    emotions : names of its columns
    top : at most so many of each emotion
    threshold : percent; only those with at least as much

    Returns
    -------
    table : prototype, emotion, rank (from 1 within each emotion), score

    Raises
    ------
    ValueError : if neither top nor threshold is given
    """
    if top is None and threshold is None:
        raise ValueError("Say how to select: top=… or threshold=…. Received: top=None, threshold=None")
    winners = np.asarray(emotions, object)[scores.argmax(axis=1)]
    columns = {"prototype": np.arange(len(scores)), "emotion": winners, "score": scores.max(axis=1)}
    table = pd.DataFrame(columns)
    table = table[(table["score"] > 0) & (table["score"] >= (threshold or 0))]
    table = table.sort_values(["emotion", "score", "prototype"], ascending=[True, False, True])
    table["rank"] = table.groupby("emotion").cumcount() + 1
    table = table[table["rank"] <= (top or len(table))]
    return table[["prototype", "emotion", "rank", "score"]].reset_index(drop=True)


def picture_correlations(log_mels: np.ndarray) -> np.ndarray:
    """Correlate every picture (n, n_mels, n_frames) with every other: (n, n), −1 on the diagonal."""
    correlation = np.atleast_2d(np.corrcoef(np.reshape(log_mels, (len(log_mels), -1))))
    np.fill_diagonal(correlation, -1)
    return correlation


def twins(log_mels: np.ndarray, groups: Sequence) -> np.ndarray:
    """Find pictures that nearly repeat another of their group: correlation above .95.

    Parameters
    ----------
    log_mels : dB (n, n_mels, n_frames), of prototypes or of their sounds
    groups : (n,), for instance voice and emotion; only pictures of one group are compared

    Returns
    -------
    bool (n,)
    """
    groups, has_twin = np.asarray(groups), np.zeros(len(log_mels), bool)
    for group in np.unique(groups):
        members = groups == group
        has_twin[members] = picture_correlations(log_mels[members]).max(axis=1) > ALIKE
    return has_twin


def select_distinct(table: pd.DataFrame, log_mels: np.ndarray, *, top: int) -> pd.DataFrame:
    """Select prototypes that differ, the strongest first, beside the published top.

    In the order of their scores, prototypes are skipped whose picture correlates by NOT_DISTINCT or more with one
    that was already chosen, or whose nearest segment is of a recording that is already there. If fewer than `top` remain,
    recordings may come again; near-duplicates may not.

    Parameters
    ----------
    table : all prototypes of one model as `select_prototypes` ranks them, with nearest_utterance_id
    log_mels : their pictures, dB (n, n_mels, n_frames)

    Returns
    -------
    lines of `table`, of each emotion first those that differ, then the rest of the published top :
    `rank` is the place in this order, `published_rank` the place by score, `distinct` tells the two apart,
    `twin_of` the rank of the distinct one that another is most like
    """
    shown = []
    for _, group in table.groupby("emotion", sort=False):
        correlation = picture_correlations(log_mels[group.index])
        recordings, distinct = group["nearest_utterance_id"].to_numpy(), []
        for again in (False, True):
            for place in range(len(group)):
                is_new = not distinct or correlation[place, distinct].max() < NOT_DISTINCT
                is_free = again or recordings[place] not in recordings[distinct]
                if len(distinct) < top and place not in distinct and is_new and is_free:
                    distinct.append(place)
        distinct.sort()
        others = [place for place in range(min(top, len(group))) if place not in distinct]
        lines = group.iloc[distinct + others].rename(columns={"rank": "published_rank"})
        like = correlation[np.ix_(distinct + others, distinct)].argmax(axis=1) + 1
        is_distinct = np.arange(len(lines)) < len(distinct)
        facts = {"rank": np.arange(1, len(lines) + 1), "distinct": is_distinct}
        shown.append(lines.assign(**facts, twin_of=np.where(is_distinct, 0, like)))
    return pd.concat(shown)


def compare_selections(index: pd.DataFrame, log_mels: np.ndarray, top: int) -> pd.DataFrame:
    """Set the published choice beside the one that skips near-duplicates.

    Parameters
    ----------
    index : as `select_distinct` gives it, with speaker
    log_mels : dB (n, n_mels, n_frames) of its lines, or of their sounds

    Returns
    -------
    one row per choice : prototypes, the fewest distinct recordings that an emotion has, share of twins, mean score
    """
    voices, rows = index["speaker"] + " " + index["emotion"], {}
    published, distinct = index["published_rank"] <= top, index["distinct"]
    for name, shown in ((f"top {top} by score, as published", published), ("those that differ", distinct)):
        recordings = index[shown].groupby(voices[shown])["nearest_utterance_id"].nunique()
        rows[name] = {
            "prototypes": shown.sum(),
            "distinct recordings, mean": recordings.mean(),
            "distinct recordings, fewest": recordings.min(),
            "have a twin (%)": 100 * twins(log_mels[shown.to_numpy()], voices[shown]).mean(),
            "mean score (%)": index.loc[shown, "score"].mean(),
        }
    return pd.DataFrame(rows).T


def compare_scorings(
    fc_weights: np.ndarray, emotions: Sequence[str], methods: Sequence[str], *, top: int, threshold: float
) -> pd.DataFrame:
    """Compare the scoring methods on one classifier: a table, one row per method.

    Returns
    -------
    method, mean score, number above the threshold, share of the last method's top that the method selects as well,
    and `by chance`, the share that as many prototypes drawn blindly would hold
    """
    rounded = np.round(fc_weights, 2)
    scores = {method: prototype_scores(rounded, method) for method in methods}
    tops = {m: set(select_prototypes(s, emotions, top=top)["prototype"]) for m, s in scores.items()}
    last = tops[methods[-1]]
    return pd.DataFrame(
        {
            "method": method,
            "mean score": share.max(axis=1).mean(),
            f"at least {threshold:g} %": len(select_prototypes(share, emotions, threshold=threshold)),
            f"in the top {top} of {methods[-1]}": len(tops[method] & last) / max(len(last), 1),
            "by chance": len(tops[method]) / len(rounded),
        }
        for method, share in scores.items()
    )


def prototype_sounds(log_mel: np.ndarray, sample_rate: int, *, length: int, seed: int = 0) -> np.ndarray:
    """Turn decoded prototypes, dB (n, n_mels, n_frames), into sounds, float32 (n, length)."""
    return mel_to_audio(log_mel, sample_rate, length=length, seed=seed)


def prototype_pitch(signal: np.ndarray, sample_rate: int, range_hz: tuple[float, float] = F0_RANGE_HZ) -> np.ndarray:
    """Track the fundamental frequency of one short sound by pYIN.

    An undetected pitch is left out of means, not counted as −1 as published.

    Parameters
    ----------
    signal : float (n_samples,)
    range_hz : lowest and highest pitch of the voice; an answer at an end of it says that the pitch, if any, lies beyond

    Returns
    -------
    Hz (n_frames,), NaN where there is none; frames hold three periods of the lowest pitch, eight to a frame's length
    """
    low, high = range_hz
    frame = 2 ** int(np.ceil(np.log2(3 / low * sample_rate)))
    f0, voiced, _ = librosa.pyin(
        signal.astype(np.float64), fmin=low, fmax=high, sr=sample_rate, frame_length=frame, hop_length=frame // 8
    )
    return np.where(voiced & (f0 > low * EDGE) & (f0 < high / EDGE), f0, np.nan)


def summarise_track(track: np.ndarray) -> tuple[float, float]:
    """Give the median of a pitch track in Hz, NaN where there is none, and the share of its frames that have one."""
    voiced = track[np.isfinite(track)]
    return (float(np.median(voiced)) if len(voiced) else float("nan")), len(voiced) / len(track)


def recording_pitch(signal: np.ndarray, sample_rate: int) -> np.ndarray:
    """Measure the 5th and the 95th percentile of a whole recording's pitch in Hz; NaN where it has none."""
    low, high = VOICE_RANGE_HZ
    voiced = pitch_track(signal, sample_rate, fmin=low, fmax=high)
    voiced = voiced[np.isfinite(voiced)]
    return np.percentile(voiced, [5, 95]) if len(voiced) else np.full(2, np.nan)


def voice_range(recordings: np.ndarray) -> tuple[float, float]:
    """Give the range in which the pitch of a speaker's prototypes is looked for: what most recordings span, and a bit.

    A tenth of the recordings at either end has no say: one octave fault in one of them would open the range for all.

    Parameters
    ----------
    recordings : Hz (n, 2), as `recording_pitch` gives them; the published range where none has a pitch
    """
    if not np.isfinite(recordings).any():
        return F0_RANGE_HZ
    low, high = np.nanpercentile(recordings[:, 0], 10), np.nanpercentile(recordings[:, 1], 90)
    return float(low / NEAR_OCTAVE), float(high * NEAR_OCTAVE)


def is_octave_fault(f0_hz: float, recording: np.ndarray) -> bool:
    """Say whether a pitch lies half an octave or more outside what the nearest real recording has.

    Parameters
    ----------
    recording : Hz (2,), as `recording_pitch` gives it
    """
    return bool(f0_hz < recording[0] / NEAR_OCTAVE or f0_hz > recording[1] * NEAR_OCTAVE)


def nearest_note(f0_hz: float) -> str:
    """Name the note of the tempered scale closest to a frequency, such as "A3"; "" where there is none."""
    return str(librosa.hz_to_note(f0_hz, unicode=False)) if np.isfinite(f0_hz) and f0_hz > 0 else ""


def make_tone(f0_hz: float, sample_rate: int) -> np.ndarray:
    """Make a faded sine of half a second at a pitch, float32 (n_samples,)."""
    t = np.arange(round(0.5 * sample_rate)) / sample_rate
    fade = np.minimum(1, np.minimum(t, t[::-1]) / 0.02)
    return (0.3 * fade * np.sin(2 * np.pi * f0_hz * t)).astype(np.float32)


def pitch_by_emotion(index: pd.DataFrame) -> pd.DataFrame:
    """Summarise pitch: detection rate, mean and spread (Hz), nearest note, one row per speaker and emotion.

    Parameters
    ----------
    index : table with speaker, emotion, f0_hz (NaN: undetected)
    """
    groups = index.groupby(["speaker", "emotion"])["f0_hz"]
    table = groups.agg(n="size", detected=lambda f0: f0.notna().mean(), f0_mean_hz="mean", f0_sd_hz="std").reset_index()
    return table.assign(note=table["f0_mean_hz"].map(nearest_note))


def strongest_bands(log_mel: np.ndarray, sample_rate: int, *, n: int = STRONGEST) -> np.ndarray:
    """Find the n mel bands of each prototype with most power over time, strongest first.

    Parameters
    ----------
    log_mel : dB (n_prototypes, 128, n_frames)

    Returns
    -------
    Hz (n_prototypes, n)
    """
    power = (10 ** (np.asarray(log_mel, np.float64) / 10)).mean(axis=2)
    order = np.argsort(-power, axis=1, kind="stable")[:, :n]
    return band_frequencies(sample_rate)[order]


def list_strongest(index: pd.DataFrame, bands_hz: np.ndarray) -> pd.DataFrame:
    """List the strongest bands of each prototype with their nearest notes, strongest first.

    The paper's lists of the strongest 10, 5, 2 and 1 are the beginnings of these.

    Parameters
    ----------
    index : n lines with emotion and rank
    bands_hz : Hz (n, 10), strongest first
    """
    lists = [" ".join(f"{hz:.0f}={nearest_note(hz)}" for hz in row) for row in bands_hz]
    return index[["emotion", "rank"]].reset_index(drop=True).assign(strongest=lists)


def frequent_bands(index: pd.DataFrame, bands_hz: np.ndarray) -> pd.DataFrame:
    """Count in how many prototypes of a class each band is among the strongest: the ten most frequent, a row a class.

    Parameters
    ----------
    index : n lines with emotion
    bands_hz : Hz (n, 10), strongest first
    """
    rows = {}
    for emotion in index["emotion"].unique():
        hertz = pd.Series(bands_hz[(index["emotion"] == emotion).to_numpy()].ravel().round())
        common = hertz.value_counts().sort_index().sort_values(ascending=False, kind="stable").head(STRONGEST)
        rows[emotion] = [f"{hz:.0f} Hz {nearest_note(hz)}: {count}" for hz, count in common.items()]
    return pd.DataFrame.from_dict(rows, orient="index", columns=range(1, STRONGEST + 1))


def list_bands(log_mels: np.ndarray, ranks: Sequence[int], sample_rate: int) -> pd.DataFrame:
    """List all 128 bands of some prototypes: Hz, note, and the mean level over time (dB), a column a prototype."""
    hertz = band_frequencies(sample_rate)
    levels = pd.DataFrame(np.mean(log_mels, axis=2).T.round(), columns=list(ranks)).astype(int)
    return pd.concat([pd.DataFrame({"Hz": hertz.round(), "note": map(nearest_note, hertz)}), levels], axis=1)


def band_statistics(log_mels: np.ndarray, sample_rate: int) -> pd.DataFrame:
    """Summarise the levels of every mel band, over time and over all pictures.

    Parameters
    ----------
    log_mels : dB (n, 128, n_frames)

    Returns
    -------
    128 rows indexed by Hz : mean, sd, median, mode (of whole dB), q1, q3, low and high (whiskers: the last level within
    1.5 times the box), dB
    """
    levels = np.moveaxis(np.asarray(log_mels, np.float64), 1, 0).reshape(np.shape(log_mels)[1], -1)
    boxes = pd.DataFrame(boxplot_stats(levels.T), index=pd.Index(band_frequencies(sample_rate), name="Hz"))
    boxes = boxes.rename(columns={"med": "median", "whislo": "low", "whishi": "high"})
    columns = ["mean", "median", "q1", "q3", "low", "high"]
    return boxes[columns].assign(sd=levels.std(axis=1), mode=stats.mode(levels.round(), axis=1).mode)


def profile_agreement(prototypes: pd.DataFrame, segments: pd.DataFrame) -> dict[str, float]:
    """Say what the prototypes of a class kept of its training segments.

    Parameters
    ----------
    prototypes, segments : `band_statistics` of either

    Returns
    -------
    correlation of the mean levels over bands, mean difference in dB, and the prototypes' spread as a share of the
    segments'
    """
    return {
        "correlation": float(np.corrcoef(prototypes["mean"], segments["mean"])[0, 1]),
        "difference (dB)": float((prototypes["mean"] - segments["mean"]).abs().mean()),
        "spread kept": float(prototypes["sd"].mean() / segments["sd"].mean()),
    }


def long_bands(index: pd.DataFrame, bands_hz: np.ndarray) -> pd.DataFrame:
    """List strongest bands as a long table for box plots: whose they are, and `band_hz`.

    Parameters
    ----------
    index : table of n prototypes
    bands_hz : Hz (n, k), as `strongest_bands` gives them
    """
    owners = index[["speaker", "gender", "emotion", "rank"]]
    repeated = owners.loc[owners.index.repeat(bands_hz.shape[1])].reset_index(drop=True)
    return repeated.assign(band_hz=bands_hz.ravel())
