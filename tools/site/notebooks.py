"""Executed notebooks as the site shows them: nothing but text, tables, pictures, and sounds that may be passed on.

Those of real corpora take hours to run and 20 MB to store. What ships of them, notebooks/executed, has no sounds, and names
the pictures that are in figures/ anyway: 100 kB a notebook.
"""

import argparse
import base64
import io
import os
import re
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

import nbformat
from bs4 import BeautifulSoup
from PIL import Image

from ser_utils.profiles import PROFILES
from ser_utils.workspace import REPOSITORY, Workspace, atomic_path
from tools.notebooks import KERNEL, SCRIPTS, notebook_of
from tools.readme.datasets import listing_place, title_of
from tools.shipped import damaged, load_notebook
from tools.site.demo import keep_network
from tools.site.provenance import anchor_of, cells_that_draw, figures_of

NAME = re.compile(r"\d\d_\w+\.ipynb")
# of an output's HTML
KEPT = {"table", "thead", "tbody", "tr", "th", "td", "caption", "div", "p", "b", "em", "strong", "br", "span"}
NOT_HERE = "(a recording of this corpus, which is not republished here)"
OF_NO_INTEREST = re.compile(r"it/s\]|^WARNING: All log messages before absl|^[IW]\d{4} \d\d")  # on standard error
LOGGED = re.compile(r"^INFO:tensorflow:")  # on standard output, with paths of the machine


@dataclass(frozen=True)
class Executed:
    """An executed notebook.

    Parameters
    ----------
    dataset, profile : of the run
    path : of the file
    """

    dataset: str
    profile: str
    path: Path

    @property
    def document(self) -> str:
        """The page's name on the site."""
        return f"notebooks/{self.dataset}/{self.path.stem}"

    @property
    def with_sound(self) -> bool:
        """Whether its sounds may be republished: those of the synthetic corpus only."""
        return self.dataset == "demo"


def find_notebooks(root: Path) -> list[Executed]:
    """Executed notebooks: of each dataset the longest profile at seed 0; where none was run, those that ship."""
    kept = root / "notebooks" / "executed"
    datasets = {path.name for folder in (root / "build", kept) for path in folder.glob("*")}
    found = []
    for dataset in sorted(datasets, key=listing_place):
        folders = [root / "build" / dataset / profile / "seed_0" / "notebooks" for profile in reversed(PROFILES)]
        folders.append(kept / dataset)
        names = {path.name for folder in folders if folder.is_dir() for path in folder.iterdir()}
        for name in sorted(filter(NAME.fullmatch, names)):
            path = next(folder / name for folder in folders if (folder / name).exists())
            found.append(Executed(dataset, _profile_of(path), path))
    return found


def _ships(path):
    """Whether a notebook is one of those that ship, and not of a run made here."""
    return path.parents[1].name == "executed"


def _profile_of(path):
    if not _ships(path):
        return path.parents[2].name
    profile = load_notebook(path).get("metadata", {}).get("profile")
    if profile not in PROFILES:
        raise damaged(path, f"expected metadata with a profile, found {profile!r}")
    return profile


def keep(executed: Executed, root: Path) -> Path:
    """Store an executed notebook where it ships: without sounds, its pictures by name where figures/ has them.

    Paths under `root` and under the folder of recordings lose it: where a run was made is nobody's business.

    Returns the path, notebooks/executed/<dataset>/<name>.ipynb under `root`.
    """
    text = executed.path.read_text("utf-8")
    for place in (root, Workspace(executed.dataset).data_dir):
        text = text.replace(f"{place}/", "")
    notebook, drawn = nbformat.reads(text, as_version=4), figures_of(executed.path.stem)
    target = root / "notebooks" / "executed" / executed.dataset / executed.path.name
    folder = root / "figures" / executed.dataset
    saved = {base64.b64encode(path.read_bytes()).decode(): path.stem for path in folder.glob("*.png")}
    silent, place = Executed("", executed.profile, executed.path), -1
    notebook.cells = [cell for cell in notebook.cells if not _is_papermills(cell)]
    for place, cell in enumerate(notebook.cells):
        cell.metadata = {}
        if cell.cell_type != "code":
            continue
        shown = [_shown(output, silent, target.parent, "") for output in cell.outputs]
        cell.outputs, cell.execution_count = [output for output in shown if output], None
        pictures = [output for output in cell.outputs if "image/png" in output.get("data", {})]
        names = [saved.get(picture.data["image/png"].strip()) for picture in pictures]
        named = [name for name in drawn.get(place, []) if (folder / f"{name}.png").exists()]
        if not all(names) and len(named) == len(pictures):
            names = named
        for picture, name in zip(pictures, names, strict=True):
            if name:
                address = f"../../../figures/{executed.dataset}/{name}.png"
                picture.data = {"text/markdown": f"![{name}]({address})"}
            else:
                picture.data = {"image/png": _smaller(picture.data["image/png"])}
    notebook.metadata = {"kernelspec": KERNEL["kernelspec"], "profile": executed.profile}
    with atomic_path(target) as temporary:
        nbformat.write(nbformat.from_dict(notebook), temporary)
    return target


def renew_text(path: Path) -> bool:
    """Give a notebook that ships the text cells of its script as it is, if it has the same code. Returns whether it has."""
    notebook, today = load_notebook(path), notebook_of(SCRIPTS / f"{path.stem}.py")
    then, now = (
        [(cell.cell_type, cell.cell_type == "code" and cell.source) for cell in cells]
        for cells in (notebook.cells, today.cells)
    )
    if then != now:
        return False
    for cell, new in zip(notebook.cells, today.cells, strict=True):
        cell.source = new.source
    with atomic_path(path) as temporary:
        nbformat.write(notebook, temporary)
    return True


def _smaller(picture):
    """A PNG in base64 with 256 colours, a quarter of the size."""
    small = io.BytesIO()
    with Image.open(io.BytesIO(base64.b64decode(picture))) as image:
        image.convert("RGB").quantize(256, Image.Quantize.MAXCOVERAGE, dither=Image.Dither.NONE).save(
            small, "png", optimize=True
        )
    return base64.b64encode(small.getvalue()).decode()


def _is_papermills(cell):
    """Whether papermill put the cell in; the notebook it was made from has none there."""
    return "injected-parameters" in cell.metadata.get("tags", []) or cell.source.startswith("<span")


def write_notebook(executed: Executed, root: Path, sources: Path, files: Path) -> None:
    """Write a notebook for Sphinx, nothing in it but what may be shown, and its sounds beside where the page will be.

    root : where figures/ is; sources : of Sphinx; files : what is copied to the site as it is
    """
    notebook = load_notebook(executed.path)
    drawing, cells, heading, place = cells_that_draw(executed.path.stem), [], executed.path.stem, -1
    folder = files / executed.document
    for cell in notebook.cells:
        place += not _is_papermills(cell)
        if cell.cell_type == "markdown":
            titles = re.findall(r"^#+ (.*)", cell.source, re.MULTILINE)
            heading = titles[-1] if titles else heading
        elif cell.cell_type == "code":
            cell.source = as_run(cell.source, executed)
            shown = [
                _shown(_with_picture(o, executed, root), executed, folder, f"{place:03d}-{n}")
                for n, o in enumerate(cell.outputs)
            ]
            cell.outputs = [output for output in shown if output]
            cell.metadata = {"mystnb": {"image": {"alt": f"Figure under “{heading}”"}}}
            if place in drawing:
                cells.append(
                    nbformat.v4.new_markdown_cell(f"({anchor_of(executed.dataset, executed.path.stem, place)})=")
                )
        cells.append(cell)
    notebook.cells = [cells[0], nbformat.v4.new_markdown_cell(about(executed)), *cells[1:]]
    target = sources / f"{executed.document}.ipynb"
    target.parent.mkdir(parents=True, exist_ok=True)
    nbformat.write(
        nbformat.from_dict(
            {**notebook, "metadata": {"kernelspec": notebook.metadata.get("kernelspec", KERNEL["kernelspec"])}}
        ),
        target,
    )


def as_run(source: str, executed: Executed) -> str:
    """The parameters cell with the dataset and profile of the run; other code as it is.

    The cell holds a notebook's defaults, and what papermill put behind it does not ship.
    """
    for name in ("dataset", "profile"):
        source = re.sub(
            rf'^{name} = "\w+"', lambda _, name=name: f'{name} = "{getattr(executed, name)}"', source, flags=re.M
        )
    return source


def about(executed: Executed) -> str:
    """What stands above a notebook, as Markdown: what it was run on, and how to run it."""
    number, name = executed.path.stem[:2], f"{executed.path.stem}.ipynb"
    synthetic = " Synthetic: nothing here is a finding about people." if executed.dataset == "demo" else ""
    links = [f"[the notebook itself, without outputs](path:../source/{name})"]
    if repository := os.environ.get("GITHUB_REPOSITORY"):
        commit = os.environ.get("GITHUB_SHA", "main")
        links.append(f"[in the repository](https://github.com/{repository}/blob/{commit}/notebooks/{name})")
        links.append(f"[run it on Binder](https://mybinder.org/v2/gh/{repository}/{commit}?labpath=notebooks/{name})")
    return (
        f"*{title_of(executed.dataset)}, profile {executed.profile}, executed.*{synthetic} "
        f"Here is {', '.join(links)}; run it with `make {number} DATASET={executed.dataset}`."
    )


def _shown(output, executed, folder, name):
    """What of an output is shown; None for nothing."""
    data = output.get("data", {})
    if "image/png" in data:
        return _data_output("image/png", data["image/png"])
    if "text/html" in data:
        return _data_output("text/html", clean(data["text/html"], folder, name, executed.with_sound))
    if "application/vnd.jupyter.widget-view+json" in data:
        return None  # a progress bar
    if output.output_type == "stream":
        lines = [line.rsplit("\r")[-1] for line in output.text.splitlines()]
        noise = LOGGED if output.name == "stdout" else OF_NO_INTEREST
        text = "\n".join(line for line in lines if not noise.search(line))
    else:
        text = "\n".join(output.get("traceback", [])) or data.get("text/plain", "")
    if not text.strip() or re.fullmatch(r"<[\w.]+[^\n]*>", text.strip()):  # <Axes: …> says nothing
        return None
    return nbformat.v4.new_output("stream", text=f"{text}\n")


def _with_picture(output, executed, root):
    """An output that names a picture of figures/, with the picture."""
    named = re.fullmatch(r"!\[(\w+)\]\(.*\)", output.get("data", {}).get("text/markdown", ""))
    path = root / "figures" / executed.dataset / f"{named[1]}.png" if named else None
    if path is None or not path.exists():
        return output
    return _data_output("image/png", base64.b64encode(path.read_bytes()).decode())


def _data_output(kind, content):
    return nbformat.v4.new_output("display_data", {kind: content})


def clean(text: str, folder: Path, name: str, with_sound: bool) -> str:
    """Leave nothing in an output's HTML but tables, words and sounds; sounds become files of `folder`."""
    soup = BeautifulSoup(text, "html.parser")
    for place, sound in enumerate(soup.find_all("audio")):
        source = (sound.find("source") or sound).get("src", "")
        sound.name, sound.attrs, sound.string = "span", {}, NOT_HERE
        wav = re.fullmatch(r"data:audio/(?:x-)?wav;base64,([\w+/=\s]+)", source)
        if with_sound and wav:
            folder.mkdir(parents=True, exist_ok=True)
            file = folder / f"{name}-{place}.wav"
            file.write_bytes(base64.b64decode(wav[1]))
            sound.string, sound.name = "", "audio"
            sound.attrs = {"controls": "", "preload": "none", "src": f"{quote(folder.name)}/{file.name}"}
    for tag in soup(["style", "script"]):
        tag.decompose()
    for tag in soup.find_all(True):
        if tag.name == "audio":
            continue
        if tag.name not in KEPT:
            tag.unwrap()
        tag.attrs = {k: v for k, v in tag.attrs.items() if k in ("colspan", "rowspan")}
    box = BeautifulSoup().new_tag("div", attrs={"class": "wide", "tabindex": "0"})
    box.extend(list(soup.contents))
    return str(box)


def main(arguments: list[str] | None = None) -> None:
    """Store a dataset's executed notebooks, with their text as it is today, and its network for the page Try it."""
    parser = argparse.ArgumentParser(prog="python -m tools.site.notebooks", description=main.__doc__)
    parser.add_argument("--dataset", default="demo")
    parser.add_argument("--root", default="")
    given = parser.parse_args(arguments)
    root = Path(given.root or REPOSITORY).resolve()
    found = [executed for executed in find_notebooks(root) if executed.dataset == given.dataset]
    kept = [executed.path if _ships(executed.path) else keep(executed, root) for executed in found]
    other = [path.stem[:2] for path in kept if not renew_text(path)]
    size = sum(path.stat().st_size for path in kept)
    print(f"{len(kept)} notebooks of {given.dataset}, {size / 1e6:.1f} MB: notebooks/executed/{given.dataset}")
    if other:
        print(f"Executed before their code was last changed: {', '.join(other)}")
    if network := keep_network(root, given.dataset):
        print(f"the network of the page Try it, {network.stat().st_size / 1e3:.0f} kB: {network.relative_to(root)}")


if __name__ == "__main__":
    main()
