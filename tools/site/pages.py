"""The site's pages: Markdown in pages/, whose {{ block }} lines are filled in from what the notebooks wrote."""

import ast
import os
import re
import shutil
from pathlib import Path
from typing import Any
from urllib.parse import quote

import jinja2
import nbformat
import pandas as pd
import yaml
from PIL import Image

from ser_utils.corpora.loading import CORPORA
from ser_utils.figures.style import EMOTION_COLOUR, caption_of
from ser_utils.profiles import systems
from ser_utils.workspace import REPOSITORY
from tools.readme.datasets import Dataset, listing_place, read_scores, score_files, title_of
from tools.readme.tables import dataset_table, markdown_of
from tools.shipped import load_picture
from tools.site.notebooks import Executed
from tools.site.prototypes import draw_levels, typical_sounds
from tools.site.provenance import anchor_of, describe_run, find_drawing, state_of

SOURCES = Path(__file__).parent
LINES = re.compile(r"^\{\{ (\w+)((?: [\w/]+)*) \}\}$", re.MULTILINE)  # {{ block argument … }} on a line of its own
SMALL = (900, 1400)  # pixels of the pictures in pages, which lead to the whole ones
SCORE_COLUMNS = ["dataset", "system", "model", "protocol", "folds", "level", "n_speakers", "n_utterances"]
EMPTY = 200  # bytes: a package that says a sentence and holds nothing


def plain(text: str) -> str:
    """Text that Markdown shows as it is."""
    return re.sub(r"([\\`*_{}\[\]<>()#+\-.!|$~])", r"\\\1", " ".join(text.split()))


class Pages:
    """One build's pages. Methods named `block_…` answer {{ … }} lines with Markdown.

    Parameters
    ----------
    root : where figures/, prototypes/, results/ and build/ are
    sources : where Sphinx reads from
    files : what is copied to the site as it is
    notebooks : executed ones that are shown
    prototypes : {dataset: rows} of the explorer, as `write_prototypes` gives them
    reference : whether the package's modules have pages
    """

    def __init__(
        self,
        root: Path,
        sources: Path,
        files: Path,
        notebooks: list[Executed],
        prototypes: dict[str, list[dict[str, Any]]],
        reference: bool,
    ):
        self.root, self.sources, self.files = root, sources, files
        self.notebooks, self.prototypes, self.reference = notebooks, prototypes, reference
        loader = jinja2.FileSystemLoader(SOURCES / "templates")
        self.templates = jinja2.Environment(loader=loader, autoescape=True, trim_blocks=True, lstrip_blocks=True)
        self.executed = {(found.dataset, found.path.stem) for found in notebooks}
        self.n_fragments = 0

    def write(self) -> None:
        """Write every page of pages/."""
        for path in sorted((SOURCES / "pages").glob("*.md")):
            (self.sources / path.name).write_text(self.filled(path.read_text("utf-8")), "utf-8")

    def filled(self, text: str) -> str:
        """Markdown with its {{ block }} lines filled in."""
        return LINES.sub(lambda line: getattr(self, f"block_{line[1]}")(*line[2].split()), text)

    def html(self, template: str, **facts: Any) -> str:
        """A template filled in, every value escaped, as a directive that puts it into the page."""
        self.n_fragments += 1
        fragment = self.sources / "fragments" / f"{self.n_fragments:03d}.html"
        fragment.parent.mkdir(exist_ok=True)
        fragment.write_text(self.templates.get_template(template).render(**facts), "utf-8")
        return f"```{{raw}} html\n:file: fragments/{fragment.name}\n```"

    # figures

    def figure(self, path: Path) -> dict[str, Any]:
        """Copy one figure of figures/, with a small picture. Returns what its template shows."""
        dataset, folder = path.parent.name, self.files / "figures" / path.parent.name
        small = folder / f"{path.stem}.webp"
        if not small.exists():
            folder.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, folder / path.name)
            image = load_picture(path).convert("RGB")
            image.thumbnail(SMALL, Image.Resampling.LANCZOS, reducing_gap=2.0)
            image.save(small, quality=82)
        with Image.open(small) as image:
            size = image.size
        facts = {
            "name": path.stem,
            "caption": caption_of(path) or path.stem,
            "size": size,
            "state": state_of(path, self.root),
        }
        return facts | {"source": f"figures/{quote(dataset)}/{quote(path.stem)}"} | self._drawing(dataset, path.stem)

    def _drawing(self, dataset, name):
        """Where a figure is drawn: a link to the cell and to each function."""
        drawing = find_drawing(name)
        if drawing is None:
            return {}
        functions = [(f, f"api/{f.rpartition('.')[0]}.html#{f}" if self.reference else "") for f in drawing.functions]
        if (dataset, drawing.notebook) in self.executed:
            anchor = anchor_of(dataset, drawing.notebook, drawing.cell)
            return {"functions": functions, "cell": f"notebooks/{quote(dataset)}/{drawing.notebook}.html#{anchor}"}
        return {"functions": functions, "notebook": drawing.notebook}

    def block_figures(self):
        folders = sorted((p for p in self.root.glob("figures/*") if p.is_dir()), key=lambda p: listing_place(p.name))
        parts = []
        for folder in folders:
            note = describe_run(self.root / "results" / folder.name)
            figures = [self.figure(path) for path in sorted(folder.glob("*.png"))]
            parts += [f"## {plain(title_of(folder.name))}", self.html("gallery.html", note=note, figures=figures)]
        return "\n\n".join(parts) or "No figures yet: `make reproduce` makes them."

    def block_figure(self, *names):
        """Figures of these names, from the first dataset that has them, recorded speech before synthetic.

        A name may begin with the dataset that is asked first: "ravdess/11_fall".
        """
        figures = []
        for wanted, _, name in (name.rpartition("/") for name in names):
            paths = self.root.glob(f"figures/*/{name}.png")
            rank = {path: (path.parent.name != wanted, listing_place(path.parent.name)) for path in paths}
            figures += [self.figure(path) for path in sorted(rank, key=rank.get)[:1]]
        return self.html("figures.html", figures=figures) if figures else ""

    # scores

    def block_results(self):
        parts = []
        for path in score_files(self.root):
            name, scores = path.parent.name, read_scores(path)
            heading = f"## {plain(title_of(name))}\n\n{plain(describe_run(path.parent))}"
            table = _unbroken(dataset_table(Dataset(path.parent)))
            parts += [heading, table, self.html("scores.html", **_shown(scores))]
        return "\n\n".join(parts) or "No scores yet: `make reproduce` makes them."

    def block_card(self, system):
        """A system's scores of whole utterances, per dataset."""
        tables = [read_scores(path) for path in score_files(self.root)]
        rows = pd.concat(tables) if tables else pd.DataFrame(columns=["system", "level"])
        rows = rows[(rows["system"] == system) & (rows["level"] == "utterance")]
        if rows.empty:
            return f"Measured: nothing yet (notebook {systems()[system].notebook})."
        return self.html("scores.html", **_shown(rows))

    # notebooks and the package

    def block_notebooks(self):
        parts = []
        for dataset in dict.fromkeys(found.dataset for found in self.notebooks):
            documents = [_named(found) for found in self.notebooks if found.dataset == dataset]
            profiles = sorted({found.profile for found in self.notebooks if found.dataset == dataset})
            note = f"Profile {', '.join(profiles)}."
            parts += [f"## {plain(title_of(dataset))}", note, _toctree(documents)]
        return "\n\n".join(parts) or "None was executed yet: `make reproduce` does it, then `make site` shows them."

    def block_api(self):
        """A page per module, by rooms."""
        if not self.reference:
            return "This copy of the site was made without it."
        (self.sources / "api").mkdir(exist_ok=True)
        template, rooms = self.templates.get_template("module.rst"), {}
        for path in sorted((REPOSITORY / "ser_utils").rglob("*.py")):
            summary = (ast.get_docstring(ast.parse(path.read_text("utf-8"))) or "").split("\n")[0]
            name = ".".join(path.relative_to(REPOSITORY).with_suffix("").parts).removesuffix(".__init__")
            if path.name == "__init__.py" and path.stat().st_size < EMPTY:
                continue
            (self.sources / "api" / f"{name}.rst").write_text(template.render(name=name, rule="=" * len(name)), "utf-8")
            room = ".".join(name.split(".")[:2])
            rooms.setdefault(room, []).append(f"- [{name}](api/{name}.rst): {plain(summary)}")
        return "\n\n".join(f"## `{room}`\n\n" + "\n".join(modules) for room, modules in rooms.items())

    # what stands in files

    def block_explorer(self):
        return self.html("explorer.html")

    def block_demo(self):
        return self.html("demo.html")

    def block_hear(self):
        """Where to begin, and a sound of each emotion of the first voice."""
        for dataset, rows in self.prototypes.items():
            if voice := typical_sounds(rows):
                folder = f"prototypes/{quote(dataset)}"
                sounds = [self._sound(dataset, folder, row) for row in voice]
                title = title_of(dataset)
                return self.html("hear.html", sounds=sounds, speaker=voice[0]["speaker"], title=title)
        return self.html("hear.html")

    def _sound(self, dataset, folder, row):
        ending, has_axes = "png", (self.root / "prototypes" / dataset / f"{row['_stem']}.png").is_file()
        if has_axes:  # else the explorer's picture was drawn without
            ending = "plain.png"
            draw_levels(row["_levels"], self.files / "prototypes" / dataset / f"{row['_stem']}.{ending}")
        stem = f"{folder}/{quote(row['_stem'])}"
        about = {"emotion": row["emotion"], "colour": EMOTION_COLOUR.get(row["emotion"], "gray")}
        return about | {"source": f"{stem}.sustained.wav", "picture": f"{stem}.{ending}"}

    def block_shown(self):
        """What there is to look at, in numbers."""
        figures, scores = len(list(self.root.glob("figures/*/*.png"))), len(score_files(self.root))
        tiles = [
            ("prototypes", sum(map(len, self.prototypes.values())), "explorer"),
            ("figures", figures, "figures"),
            ("executed notebooks", len(self.notebooks), "notebooks"),
            ("table of scores" if scores == 1 else "tables of scores", scores, "results"),
        ]
        return self.html("tiles.html", tiles=tiles)

    def block_corpora(self):
        rows = [
            {
                "corpus": c.title,
                "language": c.language,
                "utterances": f"{c.n_files:,}" if c.n_files else "not fixed",
                "speakers": len(c.speakers),
                "emotions": ", ".join(c.emotions),
                "licence": plain(c.licence),
                "please cite": plain(c.citation),
            }
            for c in CORPORA.values()
        ]
        return markdown_of(rows, len(rows[0]))

    def block_data_readme(self):
        text = (REPOSITORY / "data" / "README.md").read_text("utf-8")
        return re.sub(r"^(#+) ", r"\1# ", text, flags=re.MULTILINE)

    def block_make(self):
        makefile = (REPOSITORY / "Makefile").read_text("utf-8")
        targets = re.findall(r"^([a-z0-9 -]+):.*## (.*)", makefile, re.MULTILINE)
        return markdown_of([{"make …": f"`{name}`", "does": plain(text)} for name, text in targets], 2)

    def block_bibtex(self):
        return self.html("bibtex.html", **yaml.safe_load((REPOSITORY / "CITATION.cff").read_text("utf-8")))

    def block_references(self):
        works = yaml.safe_load((REPOSITORY / "CITATION.cff").read_text("utf-8"))["references"]
        return "\n".join(_reference(work) for work in works)

    def block_open(self):
        """Where the project can be opened, once it stands in a public repository."""
        repository = os.environ.get("GITHUB_REPOSITORY")
        if not repository:
            return "This copy was built outside a public repository, so it has no links to hosted editors."
        return (
            f"[Binder](https://mybinder.org/v2/gh/{repository}/HEAD?labpath=notebooks) · "
            f"[Codespaces](https://codespaces.new/{repository}) · [the repository](https://github.com/{repository})"
        )


def _named(executed):
    """An executed notebook in a list, with its corpus before its heading: the sidebar shows those of all corpora."""
    heading = nbformat.read(executed.path, as_version=4).cells[0].source.split("\n")[0].removeprefix("# ")
    title = re.sub("[<>]", "", f"{title_of(executed.dataset)} {heading}")
    return f"{title} </{executed.document}>"


def _toctree(documents):
    return "\n".join(["```{toctree}", ":maxdepth: 1", *documents, "```"])


def _reference(work):
    names = [author.get("family-names") or author.get("name") or author.get("alias") for author in work["authors"]]
    where = work.get("journal") or work.get("collection-title") or work.get("publisher", {}).get("name", "")
    link = f"https://doi.org/{work['doi']}" if "doi" in work else work.get("url") or work.get("repository-code", "")
    parts = [plain(", ".join(names)), f"**{plain(work['title'])}**", plain(where), str(work.get("year", ""))]
    return f"- {'. '.join(filter(None, parts))}. {f'<{link}>' if link else ''} ({plain(work['notes'])})"


def _unbroken(text):
    """The same text, whose intervals stay on one line: U+2060 forbids a break after the dash."""
    return re.sub(r"(?<=\d)–(?=\d)", "–\u2060", text)


def _shown(scores):
    """Score rows as heads and cells of text."""
    low, high = scores["uar_low"], scores["uar_high"]
    percent = {name: scores[name].map("{:.1%}".format) for name in ("uar", "accuracy", "macro_f1")}
    interval = ["" if pd.isna(a) else f"{100 * a:.1f}–{100 * b:.1f}" for a, b in zip(low, high, strict=True)]
    shown = scores.assign(**percent, **{"95 % interval": interval})
    shown = shown[[*SCORE_COLUMNS, "uar", "95 % interval", "accuracy", "macro_f1", "leaks", "profile"]]
    return {"heads": list(shown), "rows": shown.astype(str).values.tolist()}
