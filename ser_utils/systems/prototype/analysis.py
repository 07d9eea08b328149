"""What prototypes say and sound like: which to show, their pitch, notes and strongest bands."""

import librosa
import numpy as np
import pandas as pd

from ser_utils.features.spectral import MEL, mel_to_audio
from ser_utils.systems.prototype.classifier import prototype_scores

EDGE = 2 ** (1 / 24)  # a quarter tone
F0_RANGE_HZ = (50.0, 300.0)  # the paper's
SHORTEST_FRAME_S = 0.06  # three periods of the lowest voice
LOW_BAND_HZ = 2000.0


def select_prototypes(scores, emotions, *, top=None, threshold=None):
    """The prototypes that speak most for each emotion.

    scores : percent (n_prototypes, n_emotions), as `prototype_scores` gives them; emotions : names of its columns
    top : int, so many of each emotion at most; threshold : percent, only those with at least as much
    A prototype belongs to the emotion it speaks for most, the first of equal ones; one whose scores are all 0 to none.
    Returns a table `prototype, emotion, rank, score`, rank from 1 within each emotion.
    """
    if top is None and threshold is None:
        raise ValueError("Say how to select: top=… or threshold=…. Received: top=None, threshold=None")
    table = pd.DataFrame(
        {
            "prototype": np.arange(len(scores)),
            "emotion": np.asarray(emotions, object)[scores.argmax(axis=1)],
            "score": scores.max(axis=1),
        }
    )
    table = table[(table["score"] > 0) & (table["score"] >= (threshold or 0))]
    table = table.sort_values(["emotion", "score", "prototype"], ascending=[True, False, True])
    table["rank"] = table.groupby("emotion").cumcount() + 1
    table = table[table["rank"] <= (top or len(table))]
    return table[["prototype", "emotion", "rank", "score"]].reset_index(drop=True)


def compare_scorings(fc_weights, emotions, methods, *, top, threshold):
    """How the scoring methods differ on one classifier: a table, one row per method.

    Returns `method, mean score, above the threshold, same top as the last` (share of the last method's top-N
    that the method selects as well), `by chance` (the share that as many prototypes drawn blindly would hold).
    """
    rounded = np.round(fc_weights, 2)
    scores = {method: prototype_scores(rounded, method) for method in methods}
    chosen = {m: set(select_prototypes(s, emotions, top=top)["prototype"]) for m, s in scores.items()}
    last = chosen[methods[-1]]
    return pd.DataFrame(
        {
            "method": method,
            "mean score": scores[method].max(axis=1).mean(),
            f"at least {threshold:g} %": len(
                select_prototypes(scores[method], emotions, threshold=threshold)
            ),
            f"in the top {top} of {methods[-1]}": len(chosen[method] & last) / max(len(last), 1),
            "by chance": len(chosen[method]) / len(rounded),
        }
        for method in methods
    )


def prototype_sounds(log_mel, sample_rate, *, length, seed=0):
    """Sounds of decoded prototypes, dB (n, n_mels, n_frames) → float32 (n, length)."""
    return mel_to_audio(log_mel, sample_rate, length=length, seed=seed)


def estimate_pitch(signal, sample_rate):
    """Fundamental frequency of one short sound by pYIN, 50–300 Hz.

    signal : float (n_samples,). Returns (f0 in Hz, the median over voiced frames, NaN where there is none;
    share of frames that are voiced). An undetected pitch is left out of means, not counted as −1 as published.
    """
    frame = 2 ** int(np.ceil(np.log2(SHORTEST_FRAME_S * sample_rate)))
    low, high = F0_RANGE_HZ
    f0, voiced, _ = librosa.pyin(
        signal.astype(np.float64),
        fmin=low,
        fmax=high,
        sr=sample_rate,
        frame_length=frame,
        hop_length=frame // 8,
    )
    # an answer at an end of the range says that the pitch, if any, lies beyond it
    voiced &= (f0 > low * EDGE) & (f0 < high / EDGE)
    return (float(np.median(f0[voiced])) if voiced.any() else float("nan")), float(voiced.mean())


def nearest_note(f0_hz):
    """The note of the tempered scale closest to a frequency, such as "A3"; "" where there is none."""
    return str(librosa.hz_to_note(f0_hz, unicode=False)) if np.isfinite(f0_hz) and f0_hz > 0 else ""


def make_tone(f0_hz, sample_rate, *, seconds=0.5, peak=0.3):
    """A faded sine at a pitch. Returns float32 (n_samples,)."""
    t = np.arange(round(seconds * sample_rate)) / sample_rate
    fade = np.minimum(1, np.minimum(t, t[::-1]) / 0.02)
    return (peak * fade * np.sin(2 * np.pi * f0_hz * t)).astype(np.float32)


def band_frequencies(sample_rate):
    """Centre frequencies of the 128 mel bands, Hz."""
    return librosa.mel_frequencies(MEL.n_mels + 2, fmin=0, fmax=sample_rate / 2)[1:-1]


def strongest_bands(log_mel, sample_rate, *, n=5):
    """The n mel bands of each prototype with most power over time, strongest first.

    log_mel : dB (n_prototypes, 128, n_frames). Returns Hz (n_prototypes, n).
    """
    power = (10 ** (np.asarray(log_mel, np.float64) / 10)).mean(axis=2)
    order = np.argsort(-power, axis=1, kind="stable")[:, :n]
    return band_frequencies(sample_rate)[order]


def pitch_by_emotion(index):
    """Detection rate, mean, spread (Hz) and nearest note of f0 for each speaker and emotion.

    index : table with speaker, emotion, f0_hz (NaN: undetected). Returns one row per speaker and emotion.
    """
    groups = index.groupby(["speaker", "emotion"])["f0_hz"]
    table = groups.agg(
        n="size", detected=lambda f0: f0.notna().mean(), f0_mean_hz="mean", f0_sd_hz="std"
    ).reset_index()
    return table.assign(note=table["f0_mean_hz"].map(nearest_note))


def long_bands(index, bands_hz):
    """Strongest bands as a long table for box plots: the columns of `index` that say whose, and `band_hz`.

    index : table of n prototypes; bands_hz : Hz (n, k), as `strongest_bands` gives them
    """
    about = index[["speaker", "gender", "emotion", "rank"]]
    repeated = about.loc[about.index.repeat(bands_hz.shape[1])].reset_index(drop=True)
    return repeated.assign(band_hz=bands_hz.ravel())
