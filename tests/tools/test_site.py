"""The site: built from a small root with a hostile corpus, read by a real browser, from a folder."""

import base64
import csv
import json
import re
import shutil
from pathlib import Path
from urllib.parse import unquote, urlparse

import librosa
import nbformat
import numpy as np
import pandas as pd
import pytest
import soundfile
import yaml
from bs4 import BeautifulSoup
from matplotlib import colormaps
from PIL import Image, PngImagePlugin

from ser_utils.corpora.facts import CORPORA
from ser_utils.features.spectral import MEL
from ser_utils.figures.style import DIVERGING, SEQUENTIAL
from ser_utils.workspace import Workspace, WorkspaceError, write_json
from tests.conftest import REPOSITORY
from tests.tools.browsing import launched, opened, until
from tools import site
from tools.readme.datasets import read_scores
from tools.shipped import load_notebook, load_picture, load_provenance, load_sound
from tools.site.pages import Pages
from tools.site.prototypes import (
    _write_prototype,
    describe_utterance,
    find_recordings,
    load_prototypes,
    sustain,
    typical_sounds,
    write_prototypes,
)

RATE_HZ = 16_000
HOSTILE = "<img src=x onerror=alert(1)> & %41#?"  # a speaker as a hostile corpus may name it
SPEAKERS = ("09", "10", HOSTILE)
EMOTIONS = ("anger", "sadness")


def _png(path, caption=""):
    path.parent.mkdir(parents=True, exist_ok=True)
    facts = PngImagePlugin.PngInfo()
    facts.add_text("Description", caption)
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (60, 80), np.uint8)).save(path, pnginfo=facts)


def _tone(f0_hz, seconds=0.1):
    return np.sin(2 * np.pi * f0_hz * np.arange(round(seconds * RATE_HZ)) / RATE_HZ).astype(np.float32) / 2


def _write_prototypes(folder, speakers, n):
    folder.mkdir(parents=True)
    with open(folder / "index.csv", "w", newline="") as target:
        table = csv.writer(target)
        table.writerow(["speaker", "emotion", "rank", "score", "f0_hz", "nearest_utterance_id", "nearest_start_ms"])
        for speaker in speakers:
            for emotion in EMOTIONS:
                for rank in range(1, n + 1):
                    stem = folder / f"speaker_{speaker}" / f"{emotion}_{rank}"
                    _png(stem.with_suffix(".png"))
                    soundfile.write(stem.with_suffix(".wav"), _tone(100 + 10 * rank), RATE_HZ)
                    table.writerow([speaker, emotion, rank, 90 - rank, 100 + 10 * rank, "03a01Wa", 100 * rank])


def _record(root, dataset):
    """One recording of 0.39 s, as the notebooks leave it: too short for what the third prototypes are nearest to."""
    path = root / f"{dataset}.wav"
    soundfile.write(path, _tone(250, 0.39), RATE_HZ)
    table = pd.DataFrame({"utterance_id": ["03a01Wa"], "path": [str(path)]})
    Workspace(dataset, "quick", 0, root).save_table(table, "utterances")


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    root = tmp_path_factory.mktemp("root")
    _record(root, "emodb")
    _write_prototypes(root / "prototypes" / "emodb", SPEAKERS, 3)
    _write_prototypes(root / "prototypes" / "demo", ("51",), 2)
    _add_pictures(root / "prototypes" / "demo", 2)
    for picture in (root / "prototypes" / "demo").rglob("*.png"):  # as in a clone: they are there as numbers
        picture.unlink()
    _png(root / "figures" / "emodb" / "01_architecture.png", "Nine < ten <script>alert(2)</script>")
    results = root / "results" / "emodb"
    record = {
        "dataset": "emodb",
        "profile": "quick",
        "seed": 0,
        "notebooks": {"00": {"commit": "a" * 40, "n_utterances": 339, "finished": "2026-01-02T03:04:05+00:00"}},
    }
    write_json(results / "provenance.json", record)
    (results / "scores.csv").write_text(
        "dataset,system,model,protocol,folds,level,n_speakers,n_utterances,uar,uar_low,uar_high,uar_fold_mean,"
        "accuracy,macro_f1,profile,seed,leaks\n"
        "emodb,vae,<b>bold</b>,speaker,leave_one_speaker_out,utterance,10,339,0.512,0.4,0.6,0.5,0.53,0.52,quick,0,\n"
    )
    notebook = nbformat.v4.new_notebook()
    notebook.cells = [
        nbformat.v4.new_markdown_cell("# 00 · <script>alert(3)</script> with $x^2$"),
        nbformat.v4.new_code_cell(
            "print('<b>')",
            outputs=[
                nbformat.v4.new_output("stream", text="<b>\n"),
                nbformat.v4.new_output(
                    "display_data",
                    {
                        "text/html": "<table onclick=alert(4)><tr><td>7</td></tr></table><script>alert(5)</script>"
                        "<audio><source src='data:audio/wav;base64,UklGRg=='></audio>"
                    },
                ),
            ],
        ),
    ]
    for dataset, profile in (("emodb", "quick"), ("demo", "smoke"), ("demo", "quick")):
        path = root / "build" / dataset / profile / "seed_0" / "notebooks" / "00_preprocess.ipynb"
        path.parent.mkdir(parents=True)
        nbformat.write(notebook, path)
        shutil.copyfile(path, path.with_suffix(".failed.ipynb"))
    return root


@pytest.fixture(scope="module")
def built(root):
    target = root / "build" / "site"
    made = site.build_site(root, reference=False)
    written = {path.stem for path in (site.SOURCES / "pages").glob("*.md")}
    assert made["pages"] == len(written | {"search", "genindex"}) + 2 and made["prototypes"] == 22
    assert not made["warnings"]
    return target


@pytest.fixture(scope="module")
def bare(tmp_path_factory):
    """A root without anything, and its site in a folder that was empty."""
    root = tmp_path_factory.mktemp("bare")
    (root / "site").mkdir()
    site.build_site(root, root / "site", reference=False)
    return root


def test_only_a_site_built_before_is_replaced(root, built, bare, tmp_path):
    (tmp_path / "thesis.tex").write_text("years of work")
    with pytest.raises(SystemExit, match="not empty and not a site built before: name another folder"):
        site.main(["--root", str(root), "--target", str(tmp_path)])
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.tex"]
    with pytest.raises(WorkspaceError, match="not a site built before"):
        site.build_site(root, site.SOURCES)
    before = shutil.copytree(bare / "site", tmp_path / "before")
    (before / "index.html").write_text("old")
    (before / "left_over.html").touch()
    site.build_site(bare, before, reference=False)
    assert "old" != (before / "index.html").read_text("utf-8") and not (before / "left_over.html").exists()


@pytest.mark.parametrize("content", ["", "speaker,emotion\n", 'speaker,emotion,rank\n"a\n'])
def test_the_command_says_in_a_line_what_is_wrong_with_an_index(tmp_path, content):
    index = tmp_path / "prototypes" / "emodb" / "index.csv"
    index.parent.mkdir(parents=True)
    index.write_text(content)
    with pytest.raises(SystemExit, match=r"index\.csv (has no column|cannot be read as a table)"):
        site.main(["--root", str(tmp_path)])


def test_sustained_tone_is_the_same_tone_for_longer():
    voice = sustain(_tone(200), RATE_HZ, seconds=1)
    middle = voice[RATE_HZ // 4 : 3 * RATE_HZ // 4]
    assert len(voice) == RATE_HZ
    assert np.abs(np.fft.rfft(middle)).argmax() * 2 == pytest.approx(200, abs=2)
    np.testing.assert_allclose(np.abs(middle).max(), 0.5, atol=0.02)
    loud = np.abs(middle).reshape(-1, 80 * 2).max(axis=1)  # no gap and no beat, in any two periods
    assert loud.min() > 0.45


def test_sustained_noise_stays_within_bounds():
    voice = sustain(np.random.default_rng(0).uniform(-1, 1, 1600), RATE_HZ)
    assert np.isfinite(voice).all() and np.abs(voice).max() <= 1 and len(voice) == 1.2 * RATE_HZ
    assert not sustain(np.zeros(3), RATE_HZ).any()


def test_nothing_hostile_becomes_markup(built):
    for page in built.rglob("*.html"):
        text = page.read_text("utf-8")
        assert "alert(5)" not in text and "onclick" not in text
        for number in (2, 3):
            assert f"<script>alert({number})" not in text
    assert "&lt;script&gt;alert(2)" in (built / "figures.html").read_text("utf-8")
    assert "<b>bold" not in (built / "results.html").read_text("utf-8")
    assert "&lt;b&gt;bold" in (built / "results.html").read_text("utf-8")


def test_recordings_of_people_are_not_republished(built):
    real, synthetic = (
        (built / "notebooks" / name / "00_preprocess.html").read_text("utf-8") for name in ("emodb", "demo")
    )
    assert "<audio" not in real and "not republished" in real
    assert "<audio" in synthetic and "profile quick" in synthetic
    assert not list(built.glob("notebooks/emodb/**/*.wav"))


def test_the_nearest_real_segment_is_cut_where_the_licence_allows(built, tmp_path):
    folder = built / "prototypes" / "emodb" / "speaker_09"
    sound, rate = soundfile.read(folder / "anger_2.nearest.wav")
    assert len(sound) == 0.1 * rate and np.abs(np.fft.rfft(sound)).argmax() * 10 == pytest.approx(250, abs=10)
    assert np.abs(sound).max() == pytest.approx(0.5, abs=0.01)
    assert len(soundfile.read(folder / "anger_2.nearest.sustained.wav")[0]) == 1.2 * rate
    assert not (folder / "anger_3.nearest.wav").exists()  # the recording ends before
    assert not list((built / "prototypes" / "demo").rglob("*.nearest.*"))  # no recordings at hand
    assert "Burkhardt" in (built / "prototypes" / "corpora.js").read_text()
    for dataset in ("ravdess", "emodb+ravdess", "aesdd+mine", "tess", "iemocap"):
        _record(tmp_path, dataset)
        assert find_recordings(tmp_path, dataset) == {}, dataset
    for dataset in ("aesdd", "emodb+aesdd", "emodb+aesdd+all", "demo"):
        _record(tmp_path, dataset)
        assert list(find_recordings(tmp_path, dataset)) == ["03a01Wa"], dataset


def test_results_say_how_they_were_made(built):
    text = (built / "results.html").read_text("utf-8")
    assert "Profile quick, seed 0, 339 of 535 recordings, 10 speakers, commit aaaaaaaaaa" in text
    assert "51.2%" in text and "40.0–60.0" in text


def test_pages_want_nothing_from_a_network(built):
    for path in [*built.rglob("*.html"), *built.rglob("*.css"), *built.rglob("*.js")]:
        text = path.read_text("utf-8")
        assert "url(http" not in text and "url(//" not in text, path.name
        assert '<script src="http' not in text and "@import" not in text and 'src="http' not in text


def test_every_local_link_leads_somewhere(built):
    pages = {page: BeautifulSoup(page.read_text("utf-8"), "html.parser") for page in built.rglob("*.html")}
    ids = {page: {tag["id"] for tag in soup.find_all(id=True)} for page, soup in pages.items()}
    for page, soup in pages.items():
        assert all(image.get("alt") for image in soup.find_all("img"))
        links = [tag.get("href") or tag.get("src") for tag in soup.find_all(["a", "img", "script", "link"])]
        for link in filter(None, links):
            target, _, place = unquote(link).partition("#")
            if target.startswith(("http", "data:", "mailto:")):
                continue
            file = (page.parent / target.split("?")[0]).resolve() if target else page
            assert file.exists(), f"{page.name}: {link}"
            assert not place or place in ids.get(file, {place}), f"{page.name}: {link}"


def test_a_root_without_anything_says_what_to_run(bare):
    for page in ("results", "figures", "notebooks"):
        text = BeautifulSoup((bare / "site" / f"{page}.html").read_text("utf-8"), "html.parser").get_text()
        assert "make reproduce" in text


def test_a_root_without_a_network_says_what_to_run(bare):
    assert '"demos": {}' in (bare / "site" / "demo" / "facts.js").read_text()


def test_prototypes_outside_their_folder_are_left_out(tmp_path):
    folder = tmp_path / "prototypes" / "demo"
    _write_prototypes(folder, ("51",), 1)
    _png(tmp_path / "prototypes" / "anger_9.png")
    with open(folder / "index.csv", "a") as target:
        target.write("/../..,anger,9,1,1,x,1\n51/../../..,anger,9,1,1,x,1\n51,anger,77,1,1,x,1\n")
    assert len(load_prototypes(folder)) == 2
    (folder / "index.csv").write_text("speaker,emotion\n51,anger\n")
    with pytest.raises(WorkspaceError, match="no column rank"):
        load_prototypes(folder)


def test_the_workflow_publishes_what_make_builds():
    workflow = yaml.safe_load((REPOSITORY / ".github" / "workflows" / "site.yml").read_text())
    steps = [step for job in workflow["jobs"].values() for step in job["steps"]]
    targets = re.findall(r"^([a-z-]+):", (REPOSITORY / "Makefile").read_text(), re.M)
    called = [name for step in steps for name in re.findall(r"^make ([a-z-]+)", step.get("run", ""))]
    assert called == ["setup-dev", "reproduce", "site"] and set(called) <= set(targets)
    published = next(step["with"]["path"] for step in steps if "upload-pages" in step.get("uses", ""))
    assert published == "build/site"
    assert workflow[True]["push"] == {"tags": ["v*"]}  # YAML reads "on" as true
    assert workflow["permissions"] == {"contents": "read"}


def _levels(rank):
    """Silence, but for one band that is loud all the time: 10, 20, … from below."""
    levels = np.full((MEL.n_mels, 7), 120, np.uint8)  # 60 dB in steps of half a dB
    levels[10 * rank] = 0
    return levels


def _add_pictures(folder, ranks):
    """What notebook 03 writes since: pictures as numbers, and which of them are twins: the last of each emotion."""
    table = pd.read_csv(folder / "index.csv", dtype=str)
    is_twin = table["rank"] == str(ranks)
    table.assign(distinct=~is_twin, twin_of=is_twin.astype(int)).to_csv(folder / "index.csv", index=False)
    for speaker, lines in table.groupby("speaker"):
        levels = np.stack([_levels(int(rank)) for rank in lines["rank"]])
        np.savez(folder / f"speaker_{speaker}" / "pictures.npz", levels=levels, step_db=0.5, sample_rate_hz=RATE_HZ)


@pytest.fixture(scope="module")
def drawn(built, tmp_path_factory):
    """The same pages over prototypes that have their pictures as numbers."""
    root, target = tmp_path_factory.mktemp("drawn"), tmp_path_factory.mktemp("site") / "site"
    _record(root, "emodb")
    _write_prototypes(root / "prototypes" / "emodb", ("09", HOSTILE), 4)
    _add_pictures(root / "prototypes" / "emodb", 4)
    shutil.copytree(built, target)
    write_prototypes(root, target)
    return target


def test_pictures_that_do_not_fit_the_index_are_not_taken_and_named(tmp_path, capsys):
    folder = tmp_path / "demo"
    _write_prototypes(folder, ("51", "52"), 2)
    _add_pictures(folder, 2)
    assert all(row["_rate_hz"] == RATE_HZ and row["_levels"] for row in load_prototypes(folder))
    damaged, lacking = (folder / f"speaker_{speaker}" / "pictures.npz" for speaker in ("51", "52"))
    damaged.write_bytes(b"not a zip")
    np.savez(lacking, levels=np.stack([_levels(1)] * 3), step_db=0.5, sample_rate_hz=RATE_HZ)
    assert len(load_prototypes(folder)) == 8 and not any("_levels" in row for row in load_prototypes(folder))
    np.savez(lacking, levels=np.array([{}] * 4), step_db=0.5, sample_rate_hz=RATE_HZ)  # no pickle is opened
    capsys.readouterr()
    assert not any("_levels" in row for row in load_prototypes(folder))
    said = capsys.readouterr().err.splitlines()
    assert [
        f"{path} does not hold the 4 pictures of index.csv" in line
        for path, line in zip((damaged, lacking), said, strict=True)
    ] == [True] * 2


def test_prototypes_and_sounds_that_are_not_there_are_named(tmp_path, capsys):
    _write_prototypes(tmp_path / "prototypes" / "emodb", ("09",), 2)
    _write_prototypes(tmp_path / "prototypes" / "demo", ("51",), 1)
    (tmp_path / "prototypes" / "emodb" / "speaker_09" / "anger_2.wav").unlink()
    (tmp_path / "prototypes" / "demo" / "index.csv").unlink()
    shown = write_prototypes(tmp_path, tmp_path / "site")
    assert [len(rows) for rows in shown.values()] == [4]
    told = capsys.readouterr().err
    assert "emodb lacks 1 of the sounds that index.csv lists (speaker_09/anger_2, …). make 03" in told
    assert "demo has no index.csv, so its prototypes are left out" in told and told.count("\n") == 2


DAMAGED = {
    "results/emodb/provenance.json": ("[]", "{}", '{"profile": "quick", "seed": 0, "notebooks": []}'),
    "results/emodb/scores.csv": ("", "x", "\0", "uar,leaks\n0.5,\n"),
    "figures/emodb/00_counts.png": ("", "x", "\x89PNG"),
    "prototypes/emodb/speaker_09/anger_1.wav": ("", "x"),
    "notebooks/executed/emodb/00_preprocess.ipynb": ('{"cells": [', "[]", "{}"),
}
READERS = {"scores.csv": read_scores, "provenance.json": load_provenance}
READERS |= {"00_counts.png": load_picture, "anger_1.wav": load_sound, "00_preprocess.ipynb": load_notebook}


@pytest.mark.parametrize(("name", "content"), [(name, text) for name, texts in DAMAGED.items() for text in texts])
def test_a_damaged_file_is_named_by_its_reader(tmp_path, name, content):
    path = tmp_path / name
    path.parent.mkdir(parents=True)
    path.write_text(content)
    with pytest.raises(WorkspaceError, match=f"^{re.escape(str(path))} is damaged "):
        READERS[path.name](path)


def test_words_where_scores_belong_are_named_by_their_column(tmp_path):
    scores = pd.read_csv(REPOSITORY / "results" / "demo" / "scores.csv").head(2)
    scores.assign(uar="abc").to_csv(tmp_path / "scores.csv", index=False)
    with pytest.raises(WorkspaceError, match="expected numbers in column uar"):
        read_scores(tmp_path / "scores.csv")


def test_the_site_ends_in_one_line_on_a_damaged_picture(tmp_path):
    picture = tmp_path / "figures" / "emodb" / "00_counts.png"
    _png(picture)
    picture.write_bytes(picture.read_bytes()[:3000])
    (tmp_path / "sources").mkdir()
    with pytest.raises(WorkspaceError, match=f"^{picture} is damaged .*truncated.*git checkout"):
        Pages(tmp_path, tmp_path / "sources", tmp_path / "site", [], {}, False).block_figures()


def test_a_name_tells_what_was_said_where_the_corpus_documents_it():
    said = {"speaker": "06", "emotion": "anger", "sentence": "Dogs are sitting by the door.", "language": "en"}
    assert describe_utterance("ravdess", "03-01-05-02-02-01-06") == said
    assert describe_utterance("emodb+ravdess", "ravdess_03-01-05-02-02-01-06") == said
    only_a_code = {"speaker": "1", "emotion": "anger", "sentence": "01", "language": ""}
    assert describe_utterance("aesdd", "a01 (1)") == only_a_code
    for name in ("", HOSTILE, "../03a01Wa/", "mine_03a01Wa"):
        assert not any(describe_utterance(dataset, name) for dataset in ("emodb", "emodb+ravdess", "mine", *CORPORA))


# in a browser ---------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def browser():
    with launched() as browser:
        yield browser


def _explorer(page, built, **state):
    from urllib.parse import urlencode

    page.goto("about:blank")  # a change of the hash alone would not load anew
    page.goto((built / "explorer.html").as_uri() + "#" + urlencode(state))
    page.wait_for_selector(".card")


def _titles(page, pane=0):
    return page.locator("#panes section").nth(pane).locator(".card h3").all_text_contents()


@pytest.mark.browser
@pytest.mark.parametrize("width", [1280, 375])
def test_pages_load_without_errors_and_nothing_scrolls_sideways(browser, built, width):
    with opened(browser, viewport={"width": width, "height": 800}, color_scheme="dark") as page:
        for path in sorted(built.rglob("*.html")):
            page.goto(path.as_uri())
            until(page, "document.readyState === 'complete'")
            assert page.evaluate("document.documentElement.scrollWidth <= innerWidth"), path.name
        _explorer(page, built, corpus="emodb", with_speaker="10")
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")


@pytest.mark.browser
def test_explorer_filters_sorts_and_compares(browser, built):
    with opened(browser) as page:
        _explorer(page, built, corpus="emodb")
        assert len(_titles(page)) == 6
        page.select_option("#emotion", "sadness")
        assert _titles(page) == ["sadness 1", "sadness 2", "sadness 3"]
        page.select_option("#sort", "f0_hz")
        assert _titles(page) == ["sadness 3", "sadness 2", "sadness 1"]
        page.fill("#least", "88")
        assert _titles(page) == ["sadness 2", "sadness 1"]
        page.fill("#least", "")
        page.select_option("#with_emotion", "anger")
        page.select_option("#with_speaker", "10")
        assert _titles(page, 1) == ["anger 3", "anger 2", "anger 1"]
        page.fill("#find", "no such word")
        assert _titles(page) == []


@pytest.mark.browser
def test_explorer_finds_a_sentence_and_no_numbers_of_a_picture(browser, drawn):
    with opened(browser) as page:
        _explorer(page, drawn, corpus="emodb", speaker="09", find="Eisschrank anger")
        assert len(_titles(page)) == 4
        page.fill("#find", base64.b64encode(_levels(1)).decode()[:8])
        assert _titles(page) == []


@pytest.mark.browser
def test_a_deep_link_lands_and_hostile_names_are_text(browser, built):
    with opened(browser) as page:
        _explorer(page, built, corpus="emodb", speaker=HOSTILE, at="sadness/2")
        card = page.locator(".card.here")
        assert card.locator("h3").text_content() == "sadness 2"
        assert HOSTILE in page.locator("#panes h2").text_content()
        assert page.locator("#panes img[src=x]").count() == 0
        card.locator("img").scroll_into_view_if_needed()
        until(page, "document.querySelector('.card.here img').naturalWidth === 80")
        address = page.url
        page.keyboard.press("ArrowRight")
        assert page.locator(".card.here h3").text_content() == "sadness 3"
        page.goto("about:blank")
        page.goto(address)
        page.wait_for_selector(".card.here")
        assert page.locator(".card.here h3").text_content() == "sadness 2"


@pytest.mark.browser
@pytest.mark.parametrize("speaker", ["09", HOSTILE])
def test_a_sound_really_plays(browser, built, speaker):
    with opened(browser) as page:
        _explorer(page, built, corpus="emodb", speaker=speaker, at="anger/1")
        page.locator(".card.here").get_by_text("sustained").click()
        until(page, "player.currentTime > 0.2 && player.duration > 1.1")
        page.evaluate("stop()")
        page.keyboard.press("p")
        until(page, "player.ended && Math.abs(player.duration - 0.1) < 0.01")
        page.keyboard.press("a")
        until(page, "document.querySelector('.card.playing h3')?.textContent === 'anger 2'")


def test_the_first_page_has_the_most_typical_voiced_sound_of_each_emotion():
    levels = base64.b64encode(np.arange(256, dtype=np.uint8)[:128]).decode()
    shared = {"speaker": "09", "_sound": True, "_levels": levels, "f0_hz": 200}
    rows = [shared | {"emotion": emotion, "rank": rank} for emotion in ("sadness", "anger") for rank in (3, 2)]
    others = [{"rank": 1, "f0_hz": None}, {"rank": 1, "_sound": False}, {"rank": 1, "speaker": "10"}]
    rows = [shared | {"emotion": "anger", "rank": 1, "f0_hz": None}, *rows]
    rows += [shared | {"emotion": "anger"} | other for other in others]
    assert [(row["emotion"], row["rank"], row["speaker"]) for row in typical_sounds(rows)] == [
        ("anger", 2, "09"),
        ("sadness", 2, "09"),
    ]
    assert typical_sounds([]) == []


@pytest.mark.parametrize(
    ("there", "shown"), [("demo emodb ravdess", "ravdess"), ("demo emodb", "emodb"), ("demo", "demo"), ("", None)]
)
def test_a_page_shows_the_figure_of_the_dataset_that_it_names_or_of_another(tmp_path, there, shown):
    for dataset in there.split():
        _png(tmp_path / "figures" / dataset / "11_fall.png")
    (tmp_path / "sources").mkdir()
    pages = Pages(tmp_path, tmp_path / "sources", tmp_path / "site", [], {}, False)
    filled = pages.filled("before\n{{ figure ravdess/11_fall }}\nafter")
    if shown:
        assert f"figures/{shown}/11_fall.png" in (tmp_path / "sources" / "fragments" / "001.html").read_text("utf-8")
    else:
        assert filled == "before\n\nafter"


@pytest.mark.parametrize("has_axes", [True, False])
def test_the_first_page_shows_a_picture_without_axes_and_draws_none_twice(tmp_path, has_axes):
    row = {"speaker": "09", "emotion": "anger", "rank": 1, "f0_hz": 200, "_stem": "speaker_09/anger_1"}
    row |= {"_sound": True, "_levels": base64.b64encode(_levels(1)).decode()}
    folder, copy = tmp_path / "prototypes" / "emodb" / "speaker_09", tmp_path / "site" / "prototypes" / "emodb"
    copy.mkdir(parents=True)
    soundfile.write(copy.parent / "tone.wav", _tone(200), RATE_HZ)
    folder.mkdir(parents=True)
    shutil.copyfile(copy.parent / "tone.wav", folder / "anger_1.wav")
    if has_axes:
        _png(folder / "anger_1.png")
    _write_prototype(row, folder / "anger_1", copy / row["_stem"])
    (tmp_path / "sources").mkdir()
    pages = Pages(tmp_path, tmp_path / "sources", tmp_path / "site", [], {"emodb": [row]}, False)
    pages.block_hear()
    [fragment] = (tmp_path / "sources" / "fragments").iterdir()
    shown = re.search(r'<img src="([^"]+)"', fragment.read_text())[1]
    assert shown.endswith(".plain.png") == has_axes
    assert len(list(copy.rglob("*.png"))) == 1 + has_axes
    with Image.open(tmp_path / "site" / shown) as picture:
        assert picture.size == (140, 2 * MEL.n_mels)


@pytest.mark.browser
def test_the_first_page_is_heard_where_it_is_seen(browser, built):
    with opened(browser) as page:
        page.goto((built / "index.html").as_uri())
        sound = page.locator("a.sound").first
        until(page, "document.querySelector('a.sound img').naturalWidth > 0")
        sound.click()
        until(page, "player.currentTime > 0.2")
        assert page.url.endswith("index.html") and "playing" in sound.get_attribute("class")
        sound.click()
        assert page.evaluate("player.paused")
        until(page, "!document.querySelector('.sound.playing')")
        assert page.locator(".actions a").all_inner_texts()[0] == "Try it with your voice"


@pytest.mark.browser
def test_the_nearest_real_segment_is_seen_and_heard_when_opened(browser, built):
    with opened(browser) as page:
        _explorer(page, built, corpus="emodb", speaker=HOSTILE, at="anger/1")
        card = page.locator(".card.here")
        assert card.locator("canvas").count() == 0
        card.locator(".nearest summary").click()
        until(page, "document.querySelector('.card.here .picture canvas')?.width === 7")
        assert _brightest_band(page) == _band_of(250)
        until(page, "player.src.endsWith('anger_1.nearest.sustained.wav') && player.currentTime > 0.2")
        assert "03a01Wa, from 0.1 s" in card.locator(".nearest").text_content()
        assert card.locator(".nearest q[lang=de]").text_content() == "Der Lappen liegt auf dem Eisschrank."
        assert "Speaker 03, anger" in card.locator(".nearest").text_content()
        card.locator(".nearest").get_by_text("100 ms").click()
        until(page, "player.ended && player.src.endsWith('anger_1.nearest.wav')")
        page.keyboard.press("n")
        until(page, "player.currentTime > 0.2 && player.duration > 1.1")


def _band_of(hertz):
    """The mel band, counted from below, whose centre is nearest."""
    return int(np.abs(librosa.mel_frequencies(MEL.n_mels + 2, fmin=0, fmax=RATE_HZ / 2)[1:-1] - hertz).argmin())


def _pixels(page):
    """What the picture of the card in focus holds: uint8 (n_mels, n_frames, 4), the lowest band first."""
    script = """() => { const canvas = document.querySelector(".card.here .picture canvas");
        return [...canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height).data]; }"""
    return np.array(page.evaluate(script), np.uint8).reshape(MEL.n_mels, -1, 4)[::-1]


def _brightest_band(page):
    return int(_pixels(page)[..., :3].astype(int).sum(axis=(1, 2)).argmax())


@pytest.mark.browser
@pytest.mark.parametrize("scale", [1, 2])
def test_a_picture_is_drawn_from_its_numbers_and_sharp_as_shown(browser, drawn, tmp_path, scale):
    darkest, brightest = (colormaps[SEQUENTIAL](place, bytes=True) for place in (0, 255))
    with opened(browser, device_scale_factor=scale, viewport={"width": 390, "height": 900}) as page:
        _explorer(page, drawn, corpus="emodb", speaker="09", at="anger/2")
        pixels = _pixels(page)
        assert pixels.shape == (128, 7, 4) and (pixels[20] == brightest).all()
        assert (np.delete(pixels, 20, axis=0) == darkest).all()
        page.locator(".card.here .picture canvas").screenshot(path=tmp_path / "shown.png")
        shown = np.asarray(Image.open(tmp_path / "shown.png").convert("L")).astype(int)
        middle = shown[2:-2, shown.shape[1] // 2]  # the picture may begin between two pixels of the page
        bright = np.flatnonzero(middle == middle.max())
        assert len(set(middle)) == 2  # nothing between bright and dark
        assert bright.tolist() == list(range(bright[0], bright[0] + 2 * scale))  # two pixels of the page
        assert bright[0] == pytest.approx((127 - 20) * 2 * scale, abs=3)


@pytest.mark.browser
def test_each_row_of_cards_has_one_axis_of_each_kind(browser, drawn):
    with opened(browser) as page:
        _explorer(page, drawn, corpus="emodb", speaker=HOSTILE, emotion="anger")
        for width, n_rows in ((1280, 1), (390, 2)):  # laid anew when the window changes
            page.set_viewport_size({"width": width, "height": 900})
            until(page, f"document.querySelectorAll('section > .cards .axis').length === {n_rows}")
            assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
            boxes = [card.bounding_box() for card in page.locator("section > .cards .card").all()]
            axes = page.locator("section > .cards .axis").all()
            assert [axis.bounding_box()["y"] for axis in axes] == sorted({box["y"] for box in boxes})
            for axis in axes:
                assert axis.locator("span").all_text_contents() == ["250", "500", "1k", "2k", "4k", "8k"]
                assert "Hz" in axis.inner_text()
            times = page.locator("section > .cards .time").all_inner_texts()
            assert [bool(text) for text in times] == [box["x"] == boxes[0]["x"] for box in boxes]
            assert times[0].split() == ["0", "50", "100", "ms"]
            tick, picture = (
                page.locator(name).first.bounding_box() for name in (".axis span:nth-child(3)", ".card canvas")
            )
            height = (picture["y"] + picture["height"] - tick["y"] - tick["height"] / 2) / picture["height"]
            assert height == pytest.approx((_band_of(1000) + 0.5) / 128, abs=0.01)


@pytest.mark.browser
def test_what_sounds_alike_is_folded_and_opened_by_a_key(browser, drawn):
    with opened(browser) as page:
        _explorer(page, drawn, corpus="emodb", speaker="09", emotion="anger", at="anger/3")
        summary = page.locator(".twins > summary")
        assert summary.text_content() == "1 more that sound alike"
        folded = page.locator(".twins .card")
        assert not folded.is_visible() and "1 of them folded" in page.locator("#state").text_content()
        page.keyboard.press("ArrowRight")  # nothing follows: what is folded is not stepped on
        assert page.locator(".card.here h3").text_content() == "anger 3"
        summary.focus()
        page.keyboard.press("Enter")
        until(page, "!document.querySelector('#state').textContent.includes('folded')")
        assert folded.is_visible() and "sounds like anger 1" in folded.text_content()
        page.keyboard.press("ArrowRight")
        assert page.locator(".card.here h3").text_content() == "anger 4"
        _explorer(page, drawn, corpus="emodb", speaker="09", at="anger/4")
        assert page.locator(".card.here").is_visible()
        assert page.locator(".twins[open]").count() == 1  # sadness stays folded


@pytest.mark.browser
def test_prototype_and_nearest_segment_are_laid_over_one_another(browser, drawn):
    bluest, reddest = (colormaps[DIVERGING](place, bytes=True) for place in (0, 255))
    with opened(browser, viewport={"width": 390, "height": 900}) as page:
        _explorer(page, drawn, corpus="emodb", speaker=HOSTILE, at="anger/2")
        card = page.locator(".card.here")
        assert card.locator(".views").count() == 0
        card.locator(".nearest summary").click()
        until(page, "document.querySelector('.card.here .views')")
        assert _brightest_band(page) == _band_of(250)
        assert "Der Lappen liegt auf dem Eisschrank." in card.text_content()
        legend = card.locator(".views .legend")
        assert not legend.is_visible()
        card.get_by_role("button", name="difference").click()
        pixels = _pixels(page)
        assert (pixels[20] == reddest).all() and (pixels[_band_of(250), 3] == bluest).all()
        assert "blue: recording" in legend.inner_text() and "red: prototype" in legend.inner_text()
        assert card.get_by_role("button", name="difference", pressed=True).count() == 1
        assert "minus" in card.locator(".picture canvas").get_attribute("aria-label")
        card.get_by_role("button", name="prototype", exact=True).click()
        assert _brightest_band(page) == 20 and not legend.is_visible()
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
        card.locator(".nearest summary").click()
        until(page, "!document.querySelector('.card.here .views')")
        assert page.locator("#panes img[src=x]").count() == 0 and HOSTILE in page.locator("#panes h2").text_content()


@pytest.mark.browser
def test_nothing_of_a_corpus_is_loaded_before_it_isopened(browser, built):
    with opened(browser) as page:
        loaded = []
        page.on("request", lambda request: loaded.append(request.url))
        _explorer(page, built, corpus="demo")
        assert not any("prototypes/emodb" in url or url.endswith(".wav") for url in loaded)
        assert any("prototypes/demo/index.js" in url for url in loaded)


@pytest.mark.browser
def test_light_and_dark(browser, built):
    with opened(browser, color_scheme="light") as page:
        page.goto((built / "index.html").as_uri())
        light = page.evaluate("getComputedStyle(document.body).backgroundColor")
        button = page.locator(".theme-toggle:visible").first
        button.click()
        dark = page.evaluate("getComputedStyle(document.body).backgroundColor")
        assert dark != light
        page.goto((built / "explorer.html").as_uri())
        assert page.evaluate("getComputedStyle(document.body).backgroundColor") == dark  # it is kept


@pytest.mark.browser
def test_the_first_page_is_small(browser, built):
    with opened(browser) as page:
        loaded = []
        page.on("request", lambda request: loaded.append(request.url))
        page.goto((built / "index.html").as_uri())
        until(page, "document.readyState === 'complete'")
        size = sum(Path(unquote(urlparse(url).path)).stat().st_size for url in loaded if url.startswith("file:"))
        print(f"{size / 1000:.0f} kB in {len(loaded)} files for the first page")
        assert size < 1_000_000


@pytest.mark.browser
def test_the_search_finds_a_page_without_a_network(browser, built):
    with opened(browser) as page:
        page.goto((built / "search.html").as_uri() + "?q=hiring")
        until(page, "document.querySelector('#search-results .search li a')")
        assert "limits.html" in page.locator("#search-results .search li a").first.get_attribute("href")


@pytest.mark.browser
@pytest.mark.slow
@pytest.mark.parametrize("numbers", [{}, {"_levels": base64.b64encode(_levels(1)).decode()}], ids=["image", "numbers"])
def test_a_thousand_prototypes_are_shown_at_once(browser, built, drawn, tmp_path, numbers):
    shutil.copytree(drawn if numbers else built, tmp_path / "site")
    row = numbers | {
        "emotion": "anger",
        "speaker": "09",
        "score": 1.5,
        "f0_hz": 120.0,
        "_stem": "speaker_09/anger_1",
        "_sound": True,
    }
    rows = [row | {"rank": str(rank), "score": rank / 7} for rank in range(1000)]
    text = f'receivePrototypes("emodb", {json.dumps(rows)});'
    (tmp_path / "site" / "prototypes" / "emodb" / "index.js").write_text(text)
    with opened(browser) as page:
        _explorer(page, tmp_path / "site", corpus="emodb")
        assert len(_titles(page)) == 1000
        times = page.evaluate(SMOOTHNESS)
        print({name: round(value, 1) for name, value in times.items()}, "ms, 1,000 prototypes")
        assert times["filter"] < 1000 and times["frame"] < 300


# Least of several, since others use this machine too: filtering 1,000 down to 111 and back, and a frame of scrolling
SMOOTHNESS = """async () => {
  const frame = () => new Promise(requestAnimationFrame);
  const least = async (times, task) => {
    let best = Infinity;
    for (let i = 0; i < times; i++) {
      const start = performance.now();
      await task(i);
      best = Math.min(best, performance.now() - start);
    }
    return best;
  };
  const filter = await least(6, async (i) => {
    byId("find").value = i % 2 ? "" : "99";
    byId("find").dispatchEvent(new Event("input"));
    await frame();
    document.body.offsetHeight;
  });
  const shown = await least(3, async () => { await show(); document.body.offsetHeight; });
  const gaps = [];
  for (let i = 0; i < 60; i++) {
    const start = performance.now();
    scrollBy(0, 400);
    await frame();
    gaps.push(performance.now() - start);
  }
  gaps.sort((a, b) => a - b);
  return { filter, show: shown, frame: gaps[30] };
}"""
