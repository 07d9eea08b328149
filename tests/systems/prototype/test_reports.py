"""The pages of the published analysis, drawn from made-up prototypes."""

import numpy as np
import pandas as pd
import pytest
from matplotlib import pyplot as plt

from ser_utils.systems.prototype import analysis, figures, reports

RATE = 16_000


@pytest.fixture(scope="module")
def shown():
    """Two voices of two emotions: index, pictures, sounds, recordings."""
    rng = np.random.default_rng(0)
    rows, t = [], np.arange(1600) / RATE
    for speaker, gender, f0 in (("03", "male", 120.0), ("09", "female", 240.0)):
        for emotion in ("anger", "sadness"):
            for rank in (1, 2, 3):
                facts = {"speaker": speaker, "gender": gender, "emotion": emotion, "rank": rank, "f0": f0}
                rows.append(facts | {"score": 100.0 - rank, "nearest_utterance_id": f"{speaker}{emotion}"})
    table = pd.DataFrame(rows)
    table = table.assign(published_rank=table["rank"], distinct=table["rank"] < 3)
    tones = [sum(np.sin(2 * np.pi * k * f0 * t) / k for k in range(1, 9)) / 4 for f0 in table["f0"]]
    spoken = {name: np.tile(tones[place], 5) for place, name in enumerate(table["nearest_utterance_id"])}
    log_mels = np.clip(rng.normal(-30, 15, (len(table), 128, 7)), -80, 0).astype(np.float32)
    return table.drop(columns="f0"), log_mels, np.array(tones, np.float32), spoken


@pytest.fixture(scope="module")
def measured(shown):
    return reports.measure(*shown, RATE)


def test_pitch_is_measured_in_each_voices_own_range(measured):
    index, tracks, ranges_hz = measured
    found = index.groupby("speaker")["f0_hz"].median()
    assert found["03"] == pytest.approx(120, rel=0.03) and found["09"] == pytest.approx(240, rel=0.03)
    assert ranges_hz.loc["09", "lowest (Hz)"] > 120 and ranges_hz.loc["03", "highest (Hz)"] < 240
    assert len(tracks) == len(index) and not index["octave_fault"].any()
    assert index["strongest_bands_hz"].str.split().str.len().eq(10).all()


def test_an_octave_fault_is_no_pitch(shown):
    index, log_mels, sounds, spoken = shown
    spoken = {name: np.tile(sounds[-1], 5) if name == "03anger" else sound for name, sound in spoken.items()}
    measured, tracks, _ = reports.measure(index, log_mels, sounds, spoken, RATE)
    faulty = measured["nearest_utterance_id"] == "03anger"
    assert measured.loc[faulty, "octave_fault"].all() and measured.loc[faulty, "f0_hz"].isna().all()
    assert not measured.loc[~faulty, "octave_fault"].any()


def profile_of(index, log_mels):
    tables = {
        emotion: analysis.band_statistics(log_mels[(index["emotion"] == emotion).to_numpy()], RATE)
        for emotion in ("anger", "sadness")
    }
    agreement = {emotion: analysis.profile_agreement(table, table) for emotion, table in tables.items()}
    return reports.Profile(tables, tables, agreement)


def test_every_page_of_the_published_analysis_is_drawn(shown, measured, tmp_path):
    index, tracks, _ = measured
    mine = (index["speaker"] == "09").to_numpy()
    told = [tracks[place] for place in np.flatnonzero(mine)]
    profile = profile_of(index[mine], shown[1][mine])
    pages = reports.speaker_pages(index[mine], shown[1][mine], told, profile, RATE, 3)
    counts = {name: len(list(drawn)) for name, drawn in pages.items()}
    plt.close("all")
    # the best of each and a page an emotion; the bands: a list, their counts, a listing an emotion, profiles …
    assert counts == {"classes": 3, "pitch": 3, "bands": 9, "notes": 2}
    women = (index["gender"] == "female").to_numpy()
    group = reports.group_pages(index[women], shown[1][women], profile, RATE)
    path = figures.save_report(tmp_path / "group.pdf", group, "women")
    assert (
        path.read_bytes()
        == figures.save_report(
            tmp_path / "again.pdf", reports.group_pages(index[women], shown[1][women], profile, RATE), "women"
        ).read_bytes()
    )


def test_a_row_of_spectrograms_has_its_pitch_and_score(shown):
    track = np.array([200.0, 240.0, np.nan])
    rows = {"by score": [(shown[1][0], "99.0 %", track)], "ours": [(shown[1][1], "98.0 %", None)] * 2}
    figure = figures.spectrogram_rows(rows, RATE, "anger")
    drawn = [axes for axes in figure.axes if axes.images]
    assert [[text.get_text() for text in axes.texts] for axes in drawn[:2]] == [["99.0 %"], ["98.0 %"] * 2]
    assert len(drawn[0].lines) == 2 and not drawn[1].lines
    band = drawn[0].lines[0].get_ydata()[0]
    assert analysis.band_frequencies(RATE)[int(band - 0.5)] == pytest.approx(200, rel=0.15)
    plt.close(figure)


def test_a_threshold_shows_the_last_that_reach_it_and_how_many_do(shown):
    index, log_mels = (values[shown[0]["speaker"] == "09"] for values in shown[:2])
    voice = reports.Voice("09", ["anger", "sadness"], np.eye(2), index.reset_index(drop=True), log_mels)
    figure = reports.threshold_page(voice, 98, 1, RATE)
    rows = [axes for axes in figure.axes if axes.images]
    assert [axes.get_ylabel() for axes in rows[:2]] == ["anger\n2 reach it", "sadness\n2 reach it"]
    assert [[text.get_text() for text in axes.texts] for axes in rows[:2]] == [["98 %"]] * 2
    assert "none" in reports.threshold_page(voice, 100, 1, RATE).texts[0].get_text()
    plt.close("all")


def test_reconstructions_stand_beside_what_was_recorded(shown):
    figure = figures.reconstructions(shown[1][:2], shown[1][:2] + 2, ["anger", "sadness"], RATE)
    titles = [axes.get_title() for axes in figure.axes if axes.images]
    assert titles[:4] == ["anger\nrecorded", "anger\nreturned", "sadness\nrecorded", "sadness\nreturned"]
    assert "error\n2.0 dB" in titles
    plt.close(figure)


def test_pictures_are_written_as_numbers_too_in_the_order_of_the_index(shown, tmp_path):
    index, log_mels, sounds, _ = shown
    mine = (index["speaker"] == "09").to_numpy()
    reports.write_speaker(tmp_path / "speaker_09", index[mine], log_mels[mine], sounds[mine], RATE)
    with np.load(tmp_path / "speaker_09" / "pictures.npz", allow_pickle=False) as stored:
        assert stored["levels"].dtype == np.uint8 and stored["sample_rate_hz"] == RATE and stored["step_db"] <= 0.5
        returned = -float(stored["step_db"]) * stored["levels"]
    assert abs(returned - log_mels[mine]).max() <= 0.25
    assert all((tmp_path / "speaker_09" / f"{e}_{r}.png").exists() for e in ("anger", "sadness") for r in (1, 2, 3))


def test_notes_are_counted_low_to_high():
    figure = figures.counts(["anger", "anger", "fear"], ["A3", "C4", "A3"], ["A3", "C4"], "prototypes")
    assert [label.get_text() for label in figure.axes[0].get_xticklabels()] == ["A3", "C4"]
    empty = figures.counts([], [], [], "frames with this note")
    assert "none" in empty.texts[0].get_text()
    plt.close("all")
