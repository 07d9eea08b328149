"""The static site: everything the notebooks wrote, to look at and to listen to, from a folder and offline."""

import argparse
import ast
import base64
import functools
import html
import io
import json
import re
import shutil
from pathlib import Path
from urllib.parse import quote

import jinja2
import matplotlib
import matplotlib.mathtext
import mistune
import nbformat
import numpy as np
import pandas as pd
import soundfile
from bs4 import BeautifulSoup
from markupsafe import Markup
from nbconvert.filters import ansi2html
from PIL import Image, UnidentifiedImageError
from pygments import highlight
from pygments.formatters import HtmlFormatter
from pygments.lexers import PythonLexer

from ser_utils.corpora.loading import CORPORA
from ser_utils.evaluation.splits import SEGMENT_MS
from ser_utils.features.audio import AudioError, load_audio
from ser_utils.features.spectral import log_mel_segments
from ser_utils.figures.style import EMOTION_COLOUR, SEQUENTIAL, caption_of
from ser_utils.profiles import PROFILES, systems
from ser_utils.workspace import REPOSITORY, MissingResult, Workspace, WorkspaceError, atomic_path, read_json
from tools.readme import Dataset, dataset_table, extent, listing_place, score_files, title_of

SOURCES = Path(__file__).parent
PAGES = {
    "index": "Start",
    "results": "Results",
    "explorer": "Prototypes",
    "figures": "Figures",
    "notebooks": "Notebooks",
    "methods": "Methods",
    "data": "Data",
    "reproduce": "Reproduce",
    "limits": "Use and limits",
    "api": "Package",
    "cite": "Cite",
}
LINES = re.compile(r"^\{\{ (\w+)((?: \w+)*) \}\}$", re.MULTILINE)  # {{ block argument … }} on a line of its own
NOTEBOOK = re.compile(r"\d\d_\w+\.ipynb")
# of an executed notebook's HTML outputs: tables, and sound made here
KEPT = {"table", "thead", "tbody", "tr", "th", "td", "caption", "div", "p", "b", "em", "strong", "br", "span"}
SUSTAINED_S = 1.2
OF_NO_INTEREST = re.compile(r"it/s\]|^WARNING: All log messages before absl|^[IW]\d{4} \d\d")  # on standard error


# text -----------------------------------------------------------------------------------------------------


class _Renderer(mistune.HTMLRenderer):
    """Markdown as HTML, formulas drawn by matplotlib; headings get ids, links may be moved."""

    def __init__(self, move=lambda url: url):
        super().__init__(escape=True)
        self.move = move

    def heading(self, text, level, **attributes):
        return f'<h{level} id="{_slug(text)}">{text}</h{level}>\n'

    def link(self, text, url, title=None):
        return super().link(text, self.move(url), title)

    def table(self, text):
        return f'<div class="wide" tabindex="0"><table>{text}</table></div>\n'

    def inline_math(self, text):
        return formula(text)

    def block_math(self, text):
        return f"<p>{formula(text)}</p>"


def _slug(text):
    return re.sub(r"[^a-z0-9]+", "-", html.unescape(re.sub("<[^>]*>", "", text)).lower()).strip("-") or "part"


@functools.cache
def formula(tex):
    """TeX as an inline picture whose alternative text is the TeX; as code where matplotlib cannot draw it."""
    drawing = io.BytesIO()
    try:
        with matplotlib.rc_context({"savefig.transparent": True}):
            depth = matplotlib.mathtext.math_to_image(f"${tex.strip()}$", drawing, format="svg", dpi=72)
    except ValueError:
        return f"<code>{html.escape(tex)}</code>"
    picture = base64.b64encode(drawing.getvalue()).decode()
    return (
        f'<img class="formula" alt="{html.escape(tex)}" style="vertical-align: {-float(depth):.1f}pt" '
        f'src="data:image/svg+xml;base64,{picture}">'
    )


def markdown(text, move=lambda url: url):
    """Markdown as Markup; markup inside the text is shown, not obeyed. move : function of a link's target."""
    plugins = ["table", "math", "url", "strikethrough"]
    return Markup(mistune.create_markdown(renderer=_Renderer(move), plugins=plugins)(text))


def _table(frame, numeric=()):
    """A DataFrame as an HTML table, every cell escaped. numeric : columns set flush right."""
    mark = {column: ' class="number"' for column in numeric}
    head = "".join(f'<th scope="col"{mark.get(c, "")}>{html.escape(str(c))}</th>' for c in frame)
    rows = "".join(
        "<tr>" + "".join(f"<td{mark.get(c, '')}>{html.escape(str(row[c]))}</td>" for c in frame) + "</tr>"
        for row in frame.to_dict("records")
    )
    return Markup(
        f'<div class="wide" tabindex="0"><table><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table></div>'
    )


def _shown_first(path):
    return listing_place(path.name)


# sound ----------------------------------------------------------------------------------------------------


def sustain(signal, sample_rate, *, seconds=SUSTAINED_S):
    """Repeat a short sound so that it is heard as a voice: overlap-add at the lag where it is most like itself.

    signal : (n_samples,), within [-1, 1]; sample_rate : Hz
    seconds : length of the result, whose ends are faded
    Returns float32 (seconds · sample_rate,). The pitch of a periodic sound is kept; there is no new content.
    """
    signal, wanted = np.asarray(signal, np.float32), round(seconds * sample_rate)
    n = len(signal)
    if n < 8:
        return np.zeros(wanted, np.float32)

    def likeness(lag):
        a, b = signal[: n - lag], signal[lag:]
        return a @ b / (np.linalg.norm(a) * np.linalg.norm(b) + 1e-9)

    # beyond half a grain no more than two overlap; a tenth is left to fade over
    lag = max(range(n // 2 + n % 2, n - n // 10), key=likeness)
    fade = (np.arange(n - lag) + 0.5) / (n - lag)
    window = np.concatenate([fade, np.ones(2 * lag - n), fade[::-1]]).astype(np.float32)
    repeats = -(-wanted // lag)
    voice = np.zeros(repeats * lag + n, np.float32)
    for place in range(repeats):
        voice[place * lag : place * lag + n] += window * signal
    voice = voice[:wanted]
    ramp = np.minimum(1, np.arange(wanted) / (0.04 * sample_rate)).astype(np.float32)
    return np.clip(voice * ramp * ramp[::-1], -1, 1)


# prototypes -----------------------------------------------------------------------------------------------


def load_prototypes(folder):
    """The prototypes of one dataset: `index.csv` as a list of dicts, each with paths that exist.

    folder : prototypes/<dataset>
    Rows whose picture is absent, or outside the folder, are left out. Raises WorkspaceError where index.csv is no
    table with columns speaker, emotion and rank.
    """
    words = dict.fromkeys(["speaker", "emotion", "rank", "nearest_utterance_id"], str)
    try:
        table = pd.read_csv(folder / "index.csv", dtype=words)
    except ValueError as error:
        raise WorkspaceError(f"{folder / 'index.csv'} cannot be read as a table: {error}") from error
    if missing := {"speaker", "emotion", "rank"} - set(table):
        raise WorkspaceError(f"{folder / 'index.csv'} has no column {', '.join(sorted(missing))}")
    found = []
    for row in json.loads(table.to_json(orient="records")):
        stem = f"speaker_{row['speaker']}/{row['emotion']}_{row['rank']}"
        picture = (folder / f"{stem}.png").resolve()
        if picture.is_relative_to(folder.resolve()) and picture.is_file():
            facts = {k: v for k, v in row.items() if v is not None}
            found.append(facts | {"_stem": stem, "_sound": picture.with_suffix(".wav").is_file()})
    return found


def find_recordings(root, dataset):
    """Recordings of which segments may be shown: {utterance_id: path}, as the notebooks used them.

    Empty where the licence of the corpus does not let anybody pass them on, or where they are not at hand.
    """
    free = (name == "demo" or (name in CORPORA and CORPORA[name].may_be_shared) for name in dataset.split("+"))
    if all(free):
        for profile in reversed(PROFILES):
            try:
                table = Workspace(dataset, profile, 0, root).load_table("utterances")
            except MissingResult:
                continue
            return dict(zip(table["utterance_id"], table["path"], strict=True))
    return {}


def write_nearest(path, start_ms, stem):
    """Cut the segment of a recording that begins at `start_ms`: sound, sustained sound and picture beside `stem`.

    Returns whether there is one: a recording may be gone, or shorter by now.
    """
    try:
        signal, rate = load_audio(path)
    except AudioError:
        return False
    first, n = round(start_ms * rate / 1000), round(SEGMENT_MS * rate / 1000)
    segment = signal[first : first + n]
    if len(segment) < n or first < 0:
        return False
    segment = segment * min(0.5 / max(float(np.abs(segment).max()), 1e-9), 100)  # as loud as prototypes are
    soundfile.write(f"{stem}.nearest.wav", segment, rate, subtype="PCM_16")
    soundfile.write(f"{stem}.nearest.sustained.wav", sustain(segment, rate), rate, subtype="PCM_16")
    level = 1 + log_mel_segments(segment[None], rate)[0, ::-1] / 80
    pixels = matplotlib.colormaps[SEQUENTIAL](level, bytes=True)[..., :3]
    Image.fromarray(pixels).resize((200, 150), Image.Resampling.NEAREST).save(f"{stem}.nearest.png")
    return True


def write_prototypes(root, target):
    """Copy prototypes, add sustained sounds and the real segments they are nearest to, write what the explorer
    reads. Returns {dataset: number}."""
    corpora = {}
    for folder in sorted(root.glob("prototypes/*"), key=_shown_first):
        if not (folder / "index.csv").exists():
            continue
        name = folder.name
        rows, recordings = load_prototypes(folder), find_recordings(root, folder.name)
        for row in rows:
            copy = target / "prototypes" / name / f"{row['_stem']}.png"
            copy.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(folder / f"{row['_stem']}.png", copy)
            if row["_sound"]:
                shutil.copyfile(folder / f"{row['_stem']}.wav", copy.with_suffix(".wav"))
                signal, rate = soundfile.read(copy.with_suffix(".wav"), dtype="float32", always_2d=True)
                sound = sustain(signal.mean(axis=1), rate)
                soundfile.write(copy.with_suffix(".sustained.wav"), sound, rate, subtype="PCM_16")
            source = recordings.get(row.get("nearest_utterance_id"))
            start_ms = row.get("nearest_start_ms")
            row["_nearest"] = (
                bool(source) and start_ms is not None and write_nearest(source, start_ms, copy.with_suffix(""))
            )
        note = _made(root / "results" / name)
        if any(row["_nearest"] for row in rows):
            note += " " + " ".join(_credit(part) for part in name.split("+"))
        corpora[name] = {"title": title_of(name), "n": len(rows), "note": note}
        # a script and not JSON: browsers read no JSON beside a page that is opened from a folder
        text = f"receivePrototypes({json.dumps(name)}, {json.dumps(rows, separators=(',', ':'))});\n"
        (target / "prototypes" / name / "index.js").write_text(text, "utf-8")
    facts = {"corpora": corpora, "colours": EMOTION_COLOUR}
    (target / "prototypes").mkdir(exist_ok=True)
    (target / "prototypes" / "corpora.js").write_text(f"const SITE = {json.dumps(facts)};\n", "utf-8")
    return {name: corpus["n"] for name, corpus in corpora.items()}


def _credit(name):
    if name == "demo":
        return "Nearest segments are of this project's own synthetic corpus (MIT)."
    corpus = CORPORA[name]
    return f"Nearest segments are of recordings of {corpus.title} ({corpus.licence}). {corpus.citation}"


def _made(folder):
    """One sentence on how the results of a dataset were made."""
    if not (folder / "provenance.json").exists():
        return "No provenance."
    made = read_json(folder / "provenance.json")
    runs = made.get("notebooks", {})
    parts = [f"Profile {made['profile']}, seed {made['seed']}"]
    if runs:
        last = runs.get(systems()["baseline"].notebook) or max(runs.values(), key=lambda one: one["finished"])
        scores = _scores(folder / "scores.csv") if (folder / "scores.csv").exists() else None
        parts.append(
            f"{last['n_utterances']} recordings"
            if scores is None
            else extent(folder.name, last["n_utterances"], scores)
        )
        parts.append(f"commit {last['commit'][:10]}, finished {last['finished'][:10]}")
    return ", ".join(parts) + ". " + made.get("note", "")


# notebooks ------------------------------------------------------------------------------------------------


def find_notebooks(root):
    """Executed notebooks, of each dataset the longest profile at seed 0: a list of (dataset, profile, path)."""
    found = []
    for dataset in (path.name for path in sorted((root / "build").glob("*"), key=_shown_first)):
        for name in sorted({p.name for p in root.glob(f"build/{_literal(dataset)}/*/seed_0/notebooks/*.ipynb")}):
            paths = [root / "build" / dataset / p / "seed_0" / "notebooks" / name for p in reversed(PROFILES)]
            path = next((path for path in paths if path.exists()), None)
            if path and NOTEBOOK.fullmatch(name):
                found.append((dataset, path.parents[2].name, path))
    return found


def _literal(name):
    return re.sub(r"([*?[])", r"[\1]", name)


def render_notebook(path, folder, *, with_sound):
    """One executed notebook as Markup. Pictures and sounds become files in `folder`, loaded when scrolled to.

    with_sound : whether sounds may be republished: those of the synthetic corpus only
    """
    notebook = nbformat.read(path, as_version=4)
    folder.mkdir(parents=True, exist_ok=True)
    parts, heading, number = [], path.stem, 0
    for cell in notebook.cells:
        if cell.cell_type == "markdown":
            titles = re.findall(r"^#+ (.*)", cell.source, re.MULTILINE)
            heading = titles[-1] if titles else heading
            parts.append(markdown(cell.source, _notebook_link))
        elif cell.cell_type == "code" and cell.source.strip():
            parts.append(highlight(cell.source, PythonLexer(), HtmlFormatter(cssclass="code", wrapcode=True)))
            for output in cell.outputs:
                number += 1
                parts.append(_output(output, folder, f"{number:03d}", heading, with_sound))
    return Markup("\n".join(parts))


def _notebook_link(url):
    return re.sub(r"^(?!\w+:)(?:.*/)?(\d\d_\w+)\.ipynb", r"\1.html", url)


def _output(output, folder, name, heading, with_sound):
    data = output.get("data", {})
    if "image/png" in data:
        (folder / f"{name}.png").write_bytes(base64.b64decode(data["image/png"]))
        source, size = f"{quote(folder.name)}/{name}.png", _size(folder / f"{name}.png")
        return f'<p><img loading="lazy" src="{source}"{size} alt="Figure under “{html.escape(heading)}”"></p>'
    if "text/html" in data:
        return _clean(data["text/html"], folder, name, with_sound)
    if "application/vnd.jupyter.widget-view+json" in data:
        return ""  # a progress bar
    if output.output_type == "stream":
        kept = [line.rsplit("\r")[-1] for line in output.text.splitlines()]
        text = "\n".join(line for line in kept if output.name == "stdout" or not OF_NO_INTEREST.search(line))
    else:
        text = "\n".join(output.get("traceback", [])) or data.get("text/plain", "")
    if not text.strip() or re.fullmatch(r"<[\w.]+[^\n]*>", text.strip()):  # <Axes: …> says nothing
        return ""
    return f'<pre class="output" tabindex="0">{ansi2html(text)}</pre>'


def _clean(text, folder, name, with_sound):
    """HTML of an output with nothing left but tables, words and sounds; sounds become files."""
    soup = BeautifulSoup(text, "html.parser")
    for place, sound in enumerate(soup.find_all("audio")):
        source = (sound.find("source") or sound).get("src", "")
        sound.name, sound.attrs = "span", {}
        sound.string = "(a recording of this corpus, which is not republished here)"
        if with_sound and (found := re.fullmatch(r"data:audio/(?:x-)?wav;base64,([\w+/=\s]+)", source)):
            file = folder / f"{name}-{place}.wav"
            file.write_bytes(base64.b64decode(found[1]))
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
    return f'<div class="wide output" tabindex="0">{soup}</div>'


# figures --------------------------------------------------------------------------------------------------


def _size(path):
    try:
        with Image.open(path) as image:
            return f' width="{image.width}" height="{image.height}"'
    except UnidentifiedImageError:
        return ""


class Site:
    """One build: reads `root`, writes `target`. Methods named `block_…` answer {{ … }} lines in pages."""

    def __init__(self, root, target):
        self.root, self.target = Path(root), Path(target)
        loader = jinja2.FileSystemLoader(SOURCES)
        self.frame = jinja2.Environment(loader=loader, autoescape=True).get_template("page.html")

    def build(self):
        """Write every page. Returns {"pages": …, "prototypes": …} counts."""
        self.target.mkdir(parents=True, exist_ok=True)
        for name in ("style.css", "site.js", "explorer.js", "icon.svg"):
            shutil.copyfile(SOURCES / name, self.target / name)
        code = [HtmlFormatter(style=s).get_style_defs(".code") for s in ("default", "github-dark")]
        night = re.sub(r"^", ":root[data-theme=dark] ", code[1], flags=re.MULTILINE)
        (self.target / "code.css").write_text(code[0] + "\n" + night, "utf-8")
        self.prototypes = write_prototypes(self.root, self.target)
        self.notebooks = find_notebooks(self.root)
        for dataset, profile, path in self.notebooks:
            folder = self.target / "notebooks" / dataset / path.stem
            body = render_notebook(path, folder, with_sound=dataset == "demo")
            note = f"{title_of(dataset)}, profile {profile}, executed."
            note += " Synthetic: nothing here is a finding about people." if dataset == "demo" else ""
            self.write(f"notebooks/{dataset}/{path.stem}", f"{path.stem} · {dataset}", body, note)
        for name, title in PAGES.items():
            self.write(name, title, self.body((SOURCES / "pages" / f"{name}.md").read_text("utf-8")))
        return {"pages": len(list(self.target.rglob("*.html"))), "prototypes": sum(self.prototypes.values())}

    def write(self, name, title, body, note=""):
        path = self.target / f"{name}.html"
        path.parent.mkdir(parents=True, exist_ok=True)
        up = "../" * name.count("/")
        current = name.split("/")[0]
        text = self.frame.render(title=title, body=body, note=note, up=up, pages=PAGES, current=current)
        path.write_text(text, "utf-8")

    def body(self, text):
        """Markdown with {{ block }} lines as Markup."""
        parts, place = [], 0
        for line in LINES.finditer(text):
            parts += [markdown(text[place : line.start()]), getattr(self, f"block_{line[1]}")(*line[2].split())]
            place = line.end()
        return Markup("\n").join([*parts, markdown(text[place:])])

    def figure(self, path, alone=False):
        """One figure of figures/ with its caption, as a small picture that leads to the whole one."""
        dataset, caption = path.parent.name, caption_of(path) or path.stem
        folder = self.target / "figures" / dataset
        folder.mkdir(parents=True, exist_ok=True)
        if not (folder / path.name).exists():
            shutil.copyfile(path, folder / path.name)
            with Image.open(path) as image:
                image = image.convert("RGB")
                image.thumbnail((900, 1400), Image.Resampling.LANCZOS)
                image.save(folder / f"{path.stem}.webp", quality=82)
        source = f"figures/{quote(dataset)}/{quote(path.stem)}"
        size = _size(folder / f"{path.stem}.webp")
        return Markup(
            '<figure{}><a href="{}.png"><img loading="lazy" src="{}.webp"{} alt="{}"></a><figcaption>{} <code>{}</code></figcaption></figure>'
        ).format(Markup(' class="alone"') if alone else "", source, source, Markup(size), caption, caption, path.stem)

    # blocks -----------------------------------------------------------------------------------------------

    def block_figures(self):
        parts = []
        for folder in sorted((p for p in self.root.glob("figures/*") if p.is_dir()), key=_shown_first):
            parts.append(
                Markup('<h2 id="{}">{}</h2><p class="note">{}</p><div class="gallery">').format(
                    folder.name, title_of(folder.name), _made(self.root / "results" / folder.name)
                )
            )
            parts += [self.figure(path) for path in sorted(folder.glob("*.png"))] + [Markup("</div>")]
        return Markup("").join(parts) or markdown("No figures yet: `make reproduce` makes them.")

    def block_figure(self, *names):
        """Figures of these names, from the first dataset that has them, recorded speech before synthetic."""
        folders = sorted(self.root.glob("figures/*"), key=_shown_first)
        paths = [next((f / f"{n}.png" for f in folders if (f / f"{n}.png").exists()), None) for n in names]
        return Markup("").join(self.figure(path, alone=True) for path in paths if path)

    def block_results(self):
        parts = []
        for path in score_files(self.root):
            name, scores = path.parent.name, _scores(path)
            parts += [
                Markup('<h2 id="{}">{}</h2><p class="note">{}</p>').format(name, title_of(name), _made(path.parent)),
                markdown(dataset_table(Dataset(path.parent))),
                Markup("<details><summary>Every row: {} models, protocols and levels</summary>{}</details>").format(
                    len(scores), _all_scores(scores)
                ),
            ]
        return Markup("").join(parts) or markdown("No scores yet: `make reproduce` makes them.")

    def block_card(self, system):
        """A system's scores under the strictest protocol that was run, per dataset."""
        rows = [_scores(path) for path in score_files(self.root)]
        rows = pd.concat(rows) if rows else pd.DataFrame(columns=["system", "level"])
        rows = rows[(rows["system"] == system) & (rows["level"] == "utterance")]
        if rows.empty:
            return Markup('<p class="note">Measured: nothing yet (notebook {}).</p>').format(systems()[system].notebook)
        return _all_scores(rows)

    def block_notebooks(self):
        if not self.notebooks:
            return markdown("None was executed yet: `make reproduce` does it, then `make site` shows them.")
        parts = []
        for dataset in dict.fromkeys(name for name, _, _ in self.notebooks):
            items = Markup("").join(
                Markup('<li><a href="notebooks/{}/{}.html">{}</a> <span class="note">profile {}</span></li>').format(
                    quote(dataset), path.stem, _first_heading(path), profile
                )
                for name, profile, path in self.notebooks
                if name == dataset
            )
            parts.append(Markup("<h2>{}</h2><ul>{}</ul>").format(title_of(dataset), items))
        return Markup("").join(parts)

    def block_explorer(self):
        return Markup((SOURCES / "explorer.html").read_text("utf-8"))

    def block_shown(self):
        """What there is to look at, in numbers."""
        figures, scores = len(list(self.root.glob("figures/*/*.png"))), len(score_files(self.root))
        count = sum(self.prototypes.values())
        rows = [
            ("prototypes", count, "explorer"),
            ("figures", figures, "figures"),
            ("executed notebooks", len(self.notebooks), "notebooks"),
            ("table of scores" if scores == 1 else "tables of scores", scores, "results"),
        ]
        cards = [Markup('<a class="tile" href="{}.html"><b>{:,}</b> {}</a>').format(p, n, t) for t, n, p in rows]
        return Markup('<div class="tiles">{}</div>').format(Markup("").join(cards))

    def block_corpora(self):
        rows = [
            {
                "corpus": c.title,
                "language": c.language,
                "utterances": f"{c.n_files:,}" if c.n_files else "not fixed",
                "speakers": len(c.speakers),
                "emotions": ", ".join(c.emotions),
                "licence": c.licence,
                "please cite": c.citation,
            }
            for c in CORPORA.values()
        ]
        return _table(pd.DataFrame(rows), ["utterances", "speakers"])

    def block_data_readme(self):
        text = (REPOSITORY / "data" / "README.md").read_text("utf-8")
        return markdown(re.sub(r"^(#+) ", r"\1# ", text, flags=re.MULTILINE))

    def block_make(self):
        targets = re.findall(r"^([a-z0-9 -]+):.*## (.*)", (REPOSITORY / "Makefile").read_text("utf-8"), re.MULTILINE)
        return _table(pd.DataFrame([{"make …": name, "does": text} for name, text in targets]))

    def block_bibtex(self):
        citation = (REPOSITORY / "CITATION.cff").read_text("utf-8")
        fact = {k: v.strip('" ') for k, v in re.findall(r"^(\w+): *(\S.*)$", citation, re.MULTILINE)}
        names = " and ".join(re.findall(r"- name: *(.+)", citation))
        bibtex = f"@software{{ser_companion,\n  title   = {{{fact['title']}}},\n  author  = {{{{{names}}}}},\n  version = {{{fact['version']}}},\n  license = {{{fact['license']}}}\n}}"
        return Markup('<pre class="output" tabindex="0">{}</pre>').format(bibtex)

    def block_api(self):
        return Markup("").join(
            _module(path) for path in sorted((REPOSITORY / "ser_utils").rglob("*.py")) if path.name != "__init__.py"
        )


def _scores(path):
    names = dict.fromkeys(["system", "model", "protocol", "folds", "level", "dataset"], str)
    return pd.read_csv(path, dtype=names | {"leaks": str}).fillna({"leaks": "", **dict.fromkeys(names, "")})


def _all_scores(scores):
    interval = [
        "" if pd.isna(low) else f"{100 * low:.1f}–{100 * high:.1f}"
        for low, high in zip(scores["uar_low"], scores["uar_high"], strict=True)
    ]
    percent = {name: scores[name].map("{:.1%}".format) for name in ("uar", "accuracy", "macro_f1")}
    names = ["dataset", "system", "model", "protocol", "folds", "level", "n_speakers", "n_utterances"]
    shown = scores[names].assign(
        **percent, **{"95 % interval": interval, "leaks": scores["leaks"], "profile": scores["profile"]}
    )
    shown = shown[[*names, "uar", "95 % interval", "accuracy", "macro_f1", "leaks", "profile"]]
    return _table(shown, ["n_speakers", "n_utterances", "uar", "95 % interval", "accuracy", "macro_f1"])


def _first_heading(path):
    cells = nbformat.read(path, as_version=4).cells
    return next((c.source.splitlines()[0].lstrip("# ") for c in cells if c.source.startswith("# ")), path.stem)


def _module(path):
    """One module's public names, read from its source: nothing is imported."""
    tree = ast.parse(path.read_text("utf-8"))
    name = ".".join(path.relative_to(REPOSITORY).with_suffix("").parts)
    parts = []
    for node in tree.body:
        if not isinstance(node, ast.FunctionDef | ast.ClassDef) or node.name.startswith("_"):
            continue
        init = node
        if isinstance(node, ast.ClassDef):
            init = next((n for n in node.body if getattr(n, "name", "") == "__init__"), None)
        arguments = re.sub(r"^self(, )?", "", ast.unparse(init.args)) if init else ""
        text = ast.get_docstring(node) or ""
        kind = "class " if isinstance(node, ast.ClassDef) else ""
        parts.append(
            Markup('<dt id="{0}.{1}"><code>{2}<b>{1}</b>({3})</code></dt><dd><pre>{4}</pre></dd>').format(
                name, node.name, kind, arguments, text
            )
        )
    return Markup('<details id="{0}"><summary><code>{0}</code> {1}</summary><dl class="api">{2}</dl></details>').format(
        name, (ast.get_docstring(tree) or "").split("\n")[0], Markup("").join(parts)
    )


def build_site(root=REPOSITORY, target=None):
    """Build the site from what is under `root` into `target` (build/site), whole or not at all. Returns counts.

    Raises WorkspaceError where `target` holds something else than a site built before, which is replaced.
    """
    target = Path(target or Path(root) / "build" / "site")
    ours = all((target / name).is_file() for name in ("index.html", "explorer.js"))
    if target.exists() and not ours and not (target.is_dir() and not any(target.iterdir())):
        raise WorkspaceError(f"{target} is not empty and not a site built before: name another folder.")
    with atomic_path(target) as temporary:
        return Site(root, temporary).build()


def main(arguments=None):
    parser = argparse.ArgumentParser(prog="python -m tools.site", description=__doc__)
    parser.add_argument("--root", default="", help="where figures/, prototypes/, results/ and build/ are")
    parser.add_argument("--target", default="", help="folder of the site; build/site under the root")
    given = parser.parse_args(arguments)
    root = Path(given.root or REPOSITORY).resolve()
    try:
        counts = build_site(root, given.target or None)
    except WorkspaceError as error:
        raise SystemExit(str(error)) from None
    print(
        f"{given.target or root / 'build' / 'site'}/index.html: {counts['pages']} pages, {counts['prototypes']} prototypes"
    )
