"""Executed notebooks on the site: what ships of them, where each figure was drawn."""

import base64
import io

import nbformat
import numpy as np
import pytest
from bs4 import BeautifulSoup
from PIL import Image

from ser_utils.workspace import WorkspaceError
from tools import site
from tools.notebooks import SCRIPTS, notebook_of
from tools.site.notebooks import find_notebooks, keep, main, renew_text, write_notebook
from tools.site.provenance import cells_that_draw, figures_of, find_drawing

NAME = "05_feature_network"
SOUND = "<audio><source src='data:audio/wav;base64,UklGRg=='></audio>"


def _picture(seed):
    buffer = io.BytesIO()
    Image.fromarray(np.random.default_rng(seed).integers(0, 255, (60, 80, 3), np.uint8)).save(buffer, "png")
    return buffer.getvalue()


@pytest.fixture
def root(tmp_path):
    """What a run leaves: notebook 05 with a picture in each cell that draws, a sound in the first, and its figures."""
    notebook = notebook_of(SCRIPTS / f"{NAME}.py")
    for place in sorted(cells_that_draw(NAME)):
        data = {"image/png": base64.b64encode(_picture(place)).decode()}
        notebook.cells[place].outputs = [nbformat.v4.new_output("display_data", data)]
        for name in figures_of(NAME).get(place, []):
            path = tmp_path / "figures" / "emodb" / f"{name}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(_picture(place))
    notebook.cells[1].outputs = [nbformat.v4.new_output("display_data", {"text/html": SOUND})]
    path = tmp_path / "build" / "emodb" / "quick" / "seed_0" / "notebooks" / f"{NAME}.ipynb"
    path.parent.mkdir(parents=True)
    nbformat.write(notebook, path)
    return tmp_path


def test_what_ships_of_a_notebook_has_no_sound_and_names_its_pictures(root):
    [executed] = find_notebooks(root)
    kept = keep(executed, root)
    text = kept.read_text("utf-8")
    assert "UklGR" not in text and "not republished" in text
    assert kept.stat().st_size < executed.path.stat().st_size / 2
    named = [f"![{name}](../../../figures/emodb/{name}.png)" for names in figures_of(NAME).values() for name in names]
    assert named and all(name in text for name in named)
    assert (kept.parent / "../../../figures/emodb/05_scores.png").resolve().exists()


def test_a_picture_that_a_loop_named_is_found_by_what_it_shows(root):
    [executed] = find_notebooks(root)
    notebook = nbformat.read(executed.path, as_version=4)
    (root / "figures" / "emodb" / "05_of_a_loop.png").write_bytes(_picture(77))
    data = [{"image/png": base64.b64encode(_picture(seed)).decode() + "\n"} for seed in (77, 78)]
    outputs = [nbformat.v4.new_output("display_data", each) for each in data]
    notebook.cells.append(nbformat.v4.new_code_cell("for name in names: draw(name)", outputs=outputs))
    nbformat.write(notebook, executed.path)
    known, unknown = nbformat.read(keep(executed, root), as_version=4).cells[-1].outputs
    assert known.data == {"text/markdown": "![05_of_a_loop](../../../figures/emodb/05_of_a_loop.png)"}
    assert list(unknown.data) == ["image/png"]


def test_what_ships_of_a_notebook_does_not_say_where_it_was_run(root, monkeypatch):
    monkeypatch.setenv("SER_DATA_DIR", "/home/me/corpora")
    [executed] = find_notebooks(root)
    notebook = nbformat.read(executed.path, as_version=4)
    text = f"saved in {root}/results/emodb\nread /home/me/corpora/emodb/a.wav\n"
    said = nbformat.v4.new_output("stream", text=text)
    logged = nbformat.v4.new_output("stream", text="INFO:tensorflow:Assets written to: elsewhere/assets\n")
    notebook.cells.append(nbformat.v4.new_code_cell("print(workspace.results)", outputs=[said, logged]))
    nbformat.write(notebook, executed.path)
    text = keep(executed, root).read_text("utf-8")
    assert str(root) not in text and "saved in results/emodb" in text
    assert "/home/me" not in text and "read emodb/a.wav" in text
    assert "elsewhere/assets" not in text


def test_the_site_shows_a_shipped_notebook_with_its_pictures_where_none_was_run(root):
    keep(*find_notebooks(root), root)
    (root / "build").rename(root / "elsewhere")
    [executed] = find_notebooks(root)
    assert executed.profile == "quick" and "executed" in executed.path.parts
    write_notebook(executed, root, root / "sources", root / "files")
    shown = nbformat.read(root / "sources" / f"{executed.document}.ipynb", as_version=4)
    pictures = [
        o.data["image/png"] for c in shown.cells for o in c.get("outputs", []) if "image/png" in o.get("data", {})
    ]
    assert len(pictures) == len(cells_that_draw(NAME))
    parameters = next(cell.source for cell in shown.cells if cell.source.startswith("dataset ="))
    assert parameters.startswith('dataset = "emodb"  # a corpus') and '\nprofile = "quick"  # smoke' in parameters
    assert base64.b64encode(_picture(min(cells_that_draw(NAME)))).decode() in pictures


@pytest.mark.parametrize("profile", [None, "long", 3])
def test_a_shipped_notebook_that_does_not_tell_its_profile_is_named(root, profile):
    path = keep(find_notebooks(root)[0], root)
    (root / "build").rename(root / "elsewhere")
    notebook = nbformat.read(path, as_version=4)
    notebook.metadata = {"profile": profile} if profile else {}
    nbformat.write(notebook, path)
    with pytest.raises(WorkspaceError, match=f"^{path} is damaged .*profile, found {profile!r}.*git checkout"):
        find_notebooks(root)


def test_what_ships_keeps_its_outputs_and_gets_the_text_of_today(root, capsys):
    path = keep(find_notebooks(root)[0], root)
    (root / "build").rename(root / "elsewhere")
    before = nbformat.read(path, as_version=4)
    told = next(cell for cell in before.cells if cell.cell_type == "markdown")
    today, told.source = told.source, "as it was told before"
    nbformat.write(before, path)
    main(["--dataset", "emodb", "--root", str(root)])
    after = nbformat.read(path, as_version=4)
    assert today in [cell.source for cell in after.cells] and "told before" not in path.read_text("utf-8")
    outputs = [[cell.get("outputs") for cell in notebook.cells] for notebook in (before, after)]
    assert outputs[0] == outputs[1] and "before their code" not in capsys.readouterr().out
    next(cell for cell in after.cells if cell.cell_type == "code").source += "\npass"
    nbformat.write(after, path)
    assert not renew_text(path)


def test_a_figure_leads_to_its_cell_and_to_what_drew_it():
    drawing = find_drawing("05_scores")
    cell = notebook_of(SCRIPTS / f"{NAME}.py").cells[drawing.cell]
    assert drawing.notebook == NAME and '"05_scores"' in cell.source
    assert drawing.functions == ("ser_utils.figures.spectrograms.scores",)
    assert find_drawing("10_randomised_anything").notebook == "10_trust"  # named by a loop
    assert find_drawing("05_no_such_figure") is None


def test_every_figure_of_every_notebook_has_a_function_that_draws_it():
    missing = []
    for script in sorted(SCRIPTS.glob("[0-9][0-9]_*.py")):
        for names in figures_of(script.stem).values():
            missing += [name for name in names if not find_drawing(name).functions]
    print(f"{len(missing)} figures drawn in the notebook itself: {', '.join(missing)}")
    assert len(missing) < 20


@pytest.mark.slow
def test_the_package_has_pages_with_types_and_places_to_link_to(tmp_path):
    site.build_site(tmp_path, tmp_path / "site")
    page = BeautifulSoup(
        (tmp_path / "site" / "api" / "ser_utils.features.spectral.html").read_text("utf-8"), "html.parser"
    )
    told = page.find(id="ser_utils.features.spectral.log_mel_segments").get_text()
    assert "segments: ndarray" in told and "sample_rate: int" in told
    for script in SCRIPTS.glob("[0-9][0-9]_*.py"):
        for name in figures_of(script.stem).values():
            for function in find_drawing(name[0]).functions:
                page = tmp_path / "site" / "api" / f"{function.rpartition('.')[0]}.html"
                assert f'id="{function}"' in page.read_text("utf-8"), function
