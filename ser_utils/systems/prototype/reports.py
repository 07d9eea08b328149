"""The published analysis of a corpus's prototypes: what is measured on them, and the pages that show it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from PIL import Image

from ser_utils.features.audio import save_audio
from ser_utils.features.spectral import LEVEL_STEP_DB, round_levels
from ser_utils.figures.style import in_order, sort_by_emotion
from ser_utils.systems.prototype import analysis, figures
from ser_utils.systems.prototype.classifier import prototype_scores
from ser_utils.systems.prototype.data import PrototypeData, Run
from ser_utils.systems.prototype.segments import thin
from ser_utils.systems.prototype.training import open_stages
from ser_utils.workspace import Workspace

OF_A_CLASS = 400  # training segments that stand for a class beside its prototypes


@dataclass(frozen=True)
class Voice:
    """All prototypes of one speaker's model.

    Parameters
    ----------
    table : one line each, as `select_prototypes` ranks them, with the nearest training segment
    log_mels : dB (n, n_mels, n_frames), in the order of `table`
    """

    speaker: str
    classes: list[str]
    fc_weights: np.ndarray
    table: pd.DataFrame
    log_mels: np.ndarray


def open_voices(workspace: Workspace, models: pd.DataFrame, neighbours: pd.DataFrame, scoring: str) -> list[Voice]:
    """Open the speakers' own models, score their prototypes and decode them.

    Parameters
    ----------
    models, neighbours : lines of the tables `prototype_classifiers` and `prototype_neighbours`
    scoring : one of `classifier.SCORING_METHODS`
    """
    voices, gender_of = [], workspace.load_table("utterances").drop_duplicates("speaker").set_index("speaker")
    for row in models.itertuples():
        classifier, coder = open_stages(workspace, row)
        speaker, classes = row.model.removeprefix("speaker_"), row.classes.split()
        scores = prototype_scores(classifier.fc_weights.round(2), scoring)
        table = sort_by_emotion(analysis.select_prototypes(scores, classes, threshold=0)).reset_index(drop=True)
        nearest = neighbours[neighbours["model"] == row.model].drop(columns="fold")
        table = table.merge(nearest, on="prototype", how="left")
        table.insert(0, "speaker", speaker)
        table["gender"] = gender_of.loc[speaker, "gender"]
        log_mels = coder.decode(classifier.prototypes[table["prototype"]])
        voices.append(Voice(speaker, classes, classifier.fc_weights, table, log_mels))
    return voices


def choose_shown(voices: Iterable[Voice], top: int) -> tuple[pd.DataFrame, np.ndarray]:
    """Choose each voice's prototypes by `select_distinct`. Returns one table of all, and their pictures."""
    tables = [analysis.select_distinct(voice.table, voice.log_mels, top=top) for voice in voices]
    log_mels = [voice.log_mels[table.index] for voice, table in zip(voices, tables, strict=True)]
    return pd.concat(tables, ignore_index=True), np.concatenate(log_mels)


def measure(
    index: pd.DataFrame, log_mels: np.ndarray, sounds: np.ndarray, spoken: dict[str, np.ndarray], rate: int
) -> tuple[pd.DataFrame, list[np.ndarray], pd.DataFrame]:
    """Measure pitch, strongest bands and level of prototypes.

    Parameters
    ----------
    log_mels, sounds : dB (n, n_mels, n_frames) and float (n, n_samples) of the n lines of `index`
    spoken : signal (n_samples,) of each recording that is nearest to a prototype

    Returns
    -------
    `index` with what was measured, pitch tracks (Hz, NaN where there is none), and each speaker's range of pitch in Hz
    """
    of_recording = {name: analysis.recording_pitch(signal, rate) for name, signal in spoken.items()}
    nearest = index["nearest_utterance_id"]
    ranges_hz = {
        speaker: analysis.voice_range(np.array([of_recording[name] for name in set(names)]))
        for speaker, names in nearest.groupby(index["speaker"])
    }
    tracks, faults = [], []
    for sound, speaker, name in zip(sounds, index["speaker"], nearest, strict=True):
        track = analysis.prototype_pitch(sound, rate, ranges_hz[speaker])
        faults.append(analysis.is_octave_fault(analysis.summarise_track(track)[0], of_recording[name]))
        tracks.append(np.full_like(track, np.nan) if faults[-1] else track)
    bands_hz = analysis.strongest_bands(log_mels, rate)
    f0_hz, voiced_share = zip(*map(analysis.summarise_track, tracks), strict=True)
    index = index.assign(
        f0_hz=f0_hz,
        voiced_share=voiced_share,
        octave_fault=faults,
        note=[analysis.nearest_note(f0) for f0 in f0_hz],
        strongest_bands_hz=[" ".join(f"{hz:.0f}" for hz in row) for row in bands_hz],
        duration_ms=1000 * sounds.shape[1] / rate,
        level_db=10 * np.log10((sounds**2).mean(axis=1) + 1e-12),
    )
    return index, tracks, pd.DataFrame(ranges_hz, index=["lowest (Hz)", "highest (Hz)"]).T


@dataclass(frozen=True)
class Profile:
    """What the prototypes of each class have in common with its training segments, of one speaker or group.

    Parameters
    ----------
    prototypes, segments : `analysis.band_statistics` of each emotion
    agreement : `analysis.profile_agreement` of each emotion
    """

    prototypes: dict[str, pd.DataFrame]
    segments: dict[str, pd.DataFrame]
    agreement: dict[str, dict[str, float]]


def profile_classes(data: PrototypeData, index: pd.DataFrame, log_mels: np.ndarray, rate: int) -> dict[str, Profile]:
    """Profile the classes of each speaker, and of women and men together.

    Parameters
    ----------
    index : lines of the prototypes that stand for their class, log_mels : their pictures in dB
    """
    train = [data.pick(Run("utterance", f"speaker_{speaker}"), "train") for speaker in index["speaker"].unique()]
    train = pd.concat(train, ignore_index=True)
    profiles = {}
    for column in ("speaker", "gender"):
        for name in sorted(set(index[column]) - {""}):
            ours, theirs = index[column] == name, train[train[column] == name]
            prototypes, segments = {}, {}
            for emotion in in_order(index.loc[ours, "emotion"]):
                rows = thin(theirs[theirs["emotion"] == emotion], OF_A_CLASS)["row"]
                shown = log_mels[(ours & (index["emotion"] == emotion)).to_numpy()]
                prototypes[emotion] = analysis.band_statistics(shown, rate)
                segments[emotion] = analysis.band_statistics(data.store.array[rows], rate)
            agreement = {e: analysis.profile_agreement(prototypes[e], segments[e]) for e in prototypes}
            profiles[f"speaker_{name}" if column == "speaker" else name] = Profile(prototypes, segments, agreement)
    return profiles


def class_recordings(data: PrototypeData, index: pd.DataFrame) -> np.ndarray:
    """Count, for each line of `index`, the recordings of its speaker and emotion that the model learned from."""
    counts = {}
    for speaker in index["speaker"].unique():
        train = data.pick(Run("utterance", f"speaker_{speaker}"), "train")
        recordings = train.groupby("emotion")["utterance_id"].nunique()
        counts |= {(speaker, emotion): count for emotion, count in recordings.items()}
    return np.array([counts[pair] for pair in zip(index["speaker"], index["emotion"], strict=True)])


def agreement_table(profiles: dict[str, Profile]) -> pd.DataFrame:
    """Table how far prototypes agree with the training segments of their class, one row per voice and emotion."""
    rows = {(name, emotion): kept for name, p in profiles.items() for emotion, kept in p.agreement.items()}
    return pd.DataFrame(rows).T


def write_speaker(folder: Path, index: pd.DataFrame, log_mels: np.ndarray, sounds: np.ndarray, rate: int) -> None:
    """Write a picture and a sound of each prototype of one speaker, named <emotion>_<rank>.

    All pictures stand as numbers in pictures.npz, too: `levels` uint8 (n, n_mels, n_frames) in the order of `index`,
    in steps of `step_db` below 0 dB, at `sample_rate_hz`. The site draws them from there, and only they are in git.

    Parameters
    ----------
    folder : of the speaker, new
    index : lines of one speaker
    log_mels, sounds : dB (n, n_mels, n_frames) and float (n, n_samples) of the lines of `index`
    rate : Hz
    """
    folder.mkdir()
    scale = {"step_db": LEVEL_STEP_DB, "sample_rate_hz": rate}
    np.savez_compressed(folder / "pictures.npz", levels=round_levels(log_mels), **scale)
    for log_mel, sound, row in zip(log_mels, sounds, index.itertuples(), strict=True):
        figure = figures.picture(log_mel, rate, f"{row.emotion} {row.rank}: {row.score:.0f} %")
        path = folder / f"{row.emotion}_{row.rank}.png"
        figure.savefig(path, dpi=80, metadata={"Software": None})
        plt.close(figure)
        shrink_picture(path)
        save_audio(folder / f"{row.emotion}_{row.rank}.wav", sound, rate)


def shrink_picture(path: Path) -> None:
    """Write a PNG again with 128 colours, a third of its size: thousands of prototypes ship."""
    with Image.open(path) as picture:
        small = picture.convert("RGB").quantize(128)
    small.save(path, optimize=True)


def speaker_pages(
    index: pd.DataFrame, log_mels: np.ndarray, tracks: list[np.ndarray], profile: Profile, rate: int, top: int
) -> dict[str, Iterable[Figure]]:
    """Draw the four reports of one speaker, as published: classes, pitch, bands and notes.

    The selection by threshold has a page of its own, see `threshold_page`.

    Parameters
    ----------
    log_mels, tracks : pictures in dB and pitch in Hz of the lines of `index`
    top : how many prototypes of an emotion the published choice shows
    """
    index = index.reset_index(drop=True)
    published = index[index["published_rank"] <= top].sort_values("published_rank", kind="stable")
    published = sort_by_emotion(published)
    mels, heading = log_mels[published.index], f"Speaker {index['speaker'].iloc[0]}"
    facts = published[["emotion", "published_rank", "score", "f0_hz", "voiced_share", "note"]]
    by_emotion = analysis.pitch_by_emotion(published).drop(columns="speaker")
    drawn = [tracks[place] for place in published.index]
    found = pd.concat([pd.DataFrame({"emotion": e, "f0": t}) for e, t in zip(published["emotion"], drawn, strict=True)])
    found = found.dropna().assign(note=lambda table: table["f0"].map(analysis.nearest_note))
    order = found.sort_values("f0")["note"].drop_duplicates()
    return {
        "classes": _class_pages(index, log_mels, tracks, rate, top, heading),
        "pitch": [
            figures.text_page(f"{heading}: pitch", by_emotion, facts),
            figures.pitch(published),
            figures.note_tracks(published, drawn),
        ],
        "bands": _band_pages(published, mels, profile, rate, heading),
        "notes": [
            figures.counts(found["emotion"], found["note"], order, "frames with this note"),
            figures.text_page(f"{heading}: nearest notes", facts),
        ],
    }


def _class_pages(index, log_mels, tracks, rate, top, heading):
    """A page per emotion: the published choice, the same with pitch, and ours; then a page with the best of each."""

    def pictures(lines, with_pitch=False):
        for line in lines.itertuples():
            track = tracks[line.Index] if with_pitch else None
            mean = f"\n{line.f0_hz:.0f} Hz" if with_pitch and np.isfinite(line.f0_hz) else ""
            yield log_mels[line.Index], f"{line.score:.1f} %{mean}", track

    best = index[index["published_rank"] == 1]
    rows = {"best by score": list(pictures(best)), "with pitch": list(pictures(best, True))}
    rows = {
        name: [(m, f"{e}\n{t}", f) for (m, t, f), e in zip(row, best["emotion"], strict=True)]
        for name, row in rows.items()
    }
    yield figures.spectrogram_rows(rows, rate, f"{heading}: the best of each emotion")
    for emotion in in_order(index["emotion"]):
        lines = index[index["emotion"] == emotion]
        published = lines[lines["published_rank"] <= top].sort_values("published_rank")
        rows = {"by score (published)": published, "those that differ (ours)": lines[lines["distinct"]]}
        rows = {name: list(pictures(chosen)) for name, chosen in rows.items()}
        rows["by score, with pitch"] = list(pictures(published, True))
        yield figures.spectrogram_rows(rows, rate, f"{heading}: {emotion}")


def threshold_page(voice: Voice, threshold: float, most: int, rate: int) -> Figure:
    """Draw what a selection by threshold lets in beyond the best: the prototypes of each emotion that just reach it.

    Parameters
    ----------
    threshold : percent
    most : pictures of an emotion; a row says how many there are in all
    """
    reached = voice.table[voice.table["score"] >= threshold]
    rows = {}
    for emotion, lines in reached.groupby("emotion", sort=False):
        name = f"{emotion}\n{len(lines)} reach it"
        rows[name] = [
            (voice.log_mels[line.Index], f"{line.score:.0f} %", None) for line in lines.tail(most).itertuples()
        ]
    heading = f"Speaker {voice.speaker}: the last that reach {threshold:g} %"
    return figures.spectrogram_rows(rows, rate, heading) if rows else figures.text_page(f"{heading}: none")


def _band_pages(published, mels, profile, rate, heading):
    """Strongest bands and their counts, all 128 bands of each emotion, boxes and profiles."""
    bands_hz = analysis.strongest_bands(mels, rate)
    listed, frequent = (analysis.list_strongest(published, bands_hz), analysis.frequent_bands(published, bands_hz))
    for column in listed.columns[2:]:
        yield figures.text_page(f"{heading}: {column} bands (Hz=note)", listed[["emotion", "rank", column]])
    yield figures.text_page(f"{heading}: most frequent of the ten strongest bands", frequent.T)
    for emotion in in_order(published["emotion"]):
        chosen = (published["emotion"] == emotion).to_numpy()
        levels = analysis.list_bands(mels[chosen], published.loc[chosen, "published_rank"], rate)
        yield figures.text_page(f"{heading}: all bands, {emotion} (dB)", levels)
    yield from _profile_pages(profile, heading)
    long = analysis.long_bands(published.reset_index(drop=True), bands_hz)
    yield figures.strongest_boxes(long, {f"{heading} (ours)": long["emotion"].notna()})


def _profile_pages(profile, heading):
    yield figures.class_profiles(profile.prototypes, profile.segments, profile.agreement)
    yield figures.text_page(f"{heading}: what prototypes kept of their class", pd.DataFrame(profile.agreement).T)
    for fmax in (np.inf, analysis.LOW_BAND_HZ):
        yield figures.band_boxes(profile.prototypes, fmax=fmax, heading=heading)


def group_pages(index: pd.DataFrame, log_mels: np.ndarray, profile: Profile, rate: int) -> Iterable[Figure]:
    """Draw the report of the women or the men together: pitch, frequent bands, profiles and boxes."""
    heading = f"{index['gender'].iloc[0]} voices".capitalize()
    yield figures.text_page(f"{heading}: pitch", analysis.pitch_by_emotion(index))
    yield figures.pitch(index)
    frequent = analysis.frequent_bands(index, analysis.strongest_bands(log_mels, rate))
    yield figures.text_page(f"{heading}: most frequent of the ten strongest bands", frequent.T)
    yield from _profile_pages(profile, heading)
