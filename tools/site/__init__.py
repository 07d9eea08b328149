"""The static site: everything the notebooks wrote, to look at and to listen to, from a folder and offline.

Sphinx makes the pages, the executed notebooks, the package's reference and the search; the explorer and the demo are
made by hand and stand in assets/ and templates/.
"""

import argparse
import base64
import hashlib
import json
import re
import shutil
import subprocess
import sys
import tempfile
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from ser_utils.workspace import REPOSITORY, WorkspaceError, atomic_path
from tools.notebooks import NOTEBOOKS
from tools.readme.datasets import listing_place
from tools.site.demo import export_demo, find_networks, page_facts
from tools.site.notebooks import OF_NO_INTEREST, find_notebooks, write_notebook
from tools.site.pages import SOURCES, Pages
from tools.site.prototypes import write_prototypes

ASSETS = ("explorer.js", "features.js", "network.js", "demo.js", "hear.js", "icon.svg")
# What a page may do: nothing but read its own folder. The demo's recorder stands in an address: a page that is opened from a
# folder may load no worklet from a file.
POLICY = (
    "default-src 'self' file: data: blob:; script-src 'self' file: {scripts}; connect-src 'none'; "
    "style-src 'self' file: 'unsafe-inline'; object-src 'none'; base-uri 'none'; form-action 'self' file:"
)
INLINE = re.compile(r"<script>(.+?)</script>", re.DOTALL)


def write_demos(root: Path, prototypes: dict[str, list[dict[str, Any]]], target: Path) -> None:
    """Write what the demo page reads: a network of each dataset that has one."""
    datasets = sorted(find_networks(root), key=listing_place)
    exported = {name: export_demo(root, name, prototypes.get(name, []), target) for name in datasets}
    facts = page_facts({name: facts for name, facts in exported.items() if facts})
    target.mkdir(parents=True, exist_ok=True)
    (target / "facts.js").write_text(f"const FACTS = {json.dumps(facts)};\n", "utf-8")


def write_sources(root: Path, sources: Path, files: Path, reference: bool) -> int:
    """Write all that Sphinx reads, and what is copied to the site as it is. Returns the number of prototypes."""
    files.mkdir(parents=True)
    shutil.copytree(SOURCES / "templates", sources / "templates")
    shutil.copytree(SOURCES / "assets", sources / "assets")
    for name in ASSETS:
        shutil.copyfile(SOURCES / "assets" / name, files / name)
    shutil.copyfile(SOURCES / "conf.py", sources / "conf.py")
    shutil.copyfile(REPOSITORY / "CITATION.cff", sources / "CITATION.cff")
    prototypes = write_prototypes(root, files)
    write_demos(root, prototypes, files / "demo")
    notebooks = find_notebooks(root)
    for executed in notebooks:
        write_notebook(executed, root, sources, files)
    shutil.copytree(
        NOTEBOOKS, sources / "notebooks" / "source", ignore=shutil.ignore_patterns("scripts", "executed", "*.md", ".*")
    )
    Pages(root, sources, files, notebooks, prototypes, reference).write()
    return sum(map(len, prototypes.values()))


def run_sphinx(sources: Path, target: Path) -> list[str]:
    """Have Sphinx make the site, in a process of its own: a second site in one would warn of the first. Returns its warnings.

    Raises
    ------
    WorkspaceError : where Sphinx is not installed, or gives up
    """
    if not find_spec("sphinx"):
        raise WorkspaceError("The site is made by Sphinx, which is not installed: make site installs it.")
    with tempfile.TemporaryDirectory() as doctrees:
        options = ["--quiet", "--no-color", "-j", "auto", "-d", doctrees]
        command = [sys.executable, "-m", "sphinx", *options, sources, target]
        told = subprocess.run(command, stderr=subprocess.PIPE, text=True, encoding="utf-8", errors="replace")
    if told.returncode:
        raise WorkspaceError(f"Sphinx gave up: {told.stderr.strip()}")
    return [line for line in told.stderr.splitlines() if line.strip() and not OF_NO_INTEREST.search(line)]


def forbid(target: Path) -> None:
    """Write into every page what it may do: run its own scripts, read its own folder, send nothing.

    The theme's scripts inside a page are allowed by their checksums, as they stand in a page without anything of a corpus.
    """
    known = INLINE.findall((target / "search.html").read_text("utf-8"))
    digests = [base64.b64encode(hashlib.sha256(script.encode()).digest()).decode() for script in known]
    scripts = " ".join(f"'sha256-{digest}'" for digest in dict.fromkeys(digests))
    for page in target.rglob("*.html"):
        policy = POLICY.format(scripts=f"{scripts} data:" if page == target / "demo.html" else scripts)
        meta = f'<meta http-equiv="Content-Security-Policy" content="{policy}">'
        page.write_text(page.read_text("utf-8").replace("<head>", f"<head>{meta}", 1), "utf-8")


def build_site(
    root: str | Path = REPOSITORY, target: str | Path | None = None, *, reference: bool = True
) -> dict[str, Any]:
    """Build the site from what is under `root` into `target` (build/site), whole or not at all.

    Parameters
    ----------
    root : where figures/, prototypes/, results/ and build/ are
    target : folder of the site
    reference : whether the package's modules have pages, which takes the longest

    Returns
    -------
    dict with the numbers of `pages` and `prototypes`, and Sphinx's `warnings`

    Raises
    ------
    WorkspaceError : where `target` holds something else than a site built before, which is replaced
    """
    root, target = Path(root), Path(target or Path(root) / "build" / "site")
    ours = all((target / name).is_file() for name in ("index.html", "explorer.js"))
    if target.exists() and not ours and not (target.is_dir() and not any(target.iterdir())):
        raise WorkspaceError(f"{target} is not empty and not a site built before: name another folder.")
    with atomic_path(target) as temporary, tempfile.TemporaryDirectory() as folder:
        sources, files = Path(folder) / "sources", Path(folder) / "files"
        n_prototypes = write_sources(root, sources, files, reference)
        warnings = run_sphinx(sources, temporary)
        forbid(temporary)
        n_pages = len(list(temporary.rglob("*.html")))
    return {"pages": n_pages, "prototypes": n_prototypes, "warnings": warnings}


def main(arguments: list[str] | None = None) -> None:
    """Build the site; what goes wrong is one line."""
    parser = argparse.ArgumentParser(prog="python -m tools.site", description=__doc__)
    parser.add_argument("--root", default="", help="where figures/, prototypes/, results/ and build/ are")
    parser.add_argument("--target", default="", help="folder of the site; build/site under the root")
    given = parser.parse_args(arguments)
    root = Path(given.root or REPOSITORY).resolve()
    try:
        made = build_site(root, given.target or None)
    except (WorkspaceError, OSError) as error:
        raise SystemExit(str(error)) from None
    place = given.target or root / "build" / "site"
    print(*made["warnings"], sep="\n", end="\n" if made["warnings"] else "")
    print(f"{place}/index.html: {made['pages']} pages, {made['prototypes']} prototypes")
