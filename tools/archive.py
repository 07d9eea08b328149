"""What goes to a repository that gives DOIs: everything that ships, described as RO-Crate and Croissant, in one zip file."""

import argparse
import json
import subprocess
import tomllib
import zipfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import yaml

from ser_utils.corpora import CORPORA
from ser_utils.figures.style import caption_of
from ser_utils.workspace import REPOSITORY, SUMS, WorkspaceError, atomic_path, file_digest
from tools.readme.datasets import title_of
from tools.shipped import load_picture, load_provenance
from tools.verify import altered_files

FOLDS = REPOSITORY / "data" / "folds"
CROISSANT = FOLDS / "croissant.json"
CONTEXT = Path(__file__).parent / "croissant_context.json"
CRATE = "https://w3id.org/ro/crate/1.1"
MIT = "https://spdx.org/licenses/MIT"
FORMATS = {
    ".csv": "text/csv",
    ".json": "application/json",
    ".png": "image/png",
    ".parquet": "application/vnd.apache.parquet",
    ".pdf": "application/pdf",
    ".md": "text/markdown",
}
LONG_AGO = (1980, 1, 1, 0, 0, 0)  # no clock in the zip: the same content is the same file
FOLD_COLUMNS = {
    "fold": "number of the fold",
    "test": "speakers that are tested",
    "validation": "speakers that choose the epoch",
}


def version() -> str:
    """The version in pyproject.toml."""
    return tomllib.loads((REPOSITORY / "pyproject.toml").read_text("utf-8"))["project"]["version"]


def citation() -> dict[str, Any]:
    """CITATION.cff as a dict."""
    return yaml.safe_load((REPOSITORY / "CITATION.cff").read_text("utf-8"))


def _works_cited() -> list[str]:
    return [f"{work['title']} ({work.get('year', 'no year')})" for work in citation()["references"]]


# Croissant: the fold files, and the corpora they fold


def croissant() -> dict[str, Any]:
    """Describe data/folds in Croissant 1.0: one record set a file, and one of the corpora."""
    about = citation()
    files = sorted(FOLDS.glob("*.csv"))
    return {
        "@context": json.loads(CONTEXT.read_text("utf-8")),
        "@type": "sc:Dataset",
        "conformsTo": "http://mlcommons.org/croissant/1.0",
        "name": "ser-folds",
        "description": "Folds by speaker for corpora of emotional speech: no speaker is trained on and tested.",
        "license": MIT,
        "version": version(),
        "datePublished": about["date-released"],
        "creator": {"@type": "Organization", "name": about["authors"][0]["name"]},
        "citeAs": f"{about['authors'][0]['name']}: {about['title']}, version {version()}",
        "distribution": [_fold_file(path) for path in files],
        "recordSet": [*(_fold_records(path) for path in files), _corpora_records()],
    }


def _fold_file(path):
    digest = file_digest(path)
    facts = {"name": path.name, "contentUrl": path.name, "encodingFormat": "text/csv", "sha256": digest}
    return {"@type": "cr:FileObject", "@id": path.name} | facts


def _fold_records(path):
    corpus, folds = path.stem.split("-", 1)
    fields = [
        {
            "@type": "cr:Field",
            "@id": f"{path.stem}/{column}",
            "name": column,
            "description": text,
            "dataType": "sc:Integer" if column == "fold" else "sc:Text",
            "source": {"fileObject": {"@id": path.name}, "extract": {"column": column}},
        }
        for column, text in FOLD_COLUMNS.items()
    ]
    about = {"name": path.stem, "description": f"{CORPORA[corpus].title}, {folds.replace('_', ' ')}."}
    return {"@type": "cr:RecordSet", "@id": path.stem} | about | {"field": fields}


def _corpora_records():
    names = ("name", "title", "language", "n_speakers", "emotions", "licence", "citation", "home")
    fields = [
        {
            "@type": "cr:Field",
            "@id": f"corpora/{name}",
            "name": name,
            "dataType": "sc:Integer" if name == "n_speakers" else "sc:Text",
        }
        for name in names
    ]
    rows = []
    for corpus in CORPORA.values():
        counted = {"n_speakers": len(corpus.speakers), "emotions": " ".join(corpus.emotions)}
        values = {name: counted[name] if name in counted else getattr(corpus, name) for name in names}
        rows.append({f"corpora/{name}": value for name, value in values.items()})
    about = {"name": "corpora", "description": "The corpora, which are not in this archive: see data/README.md."}
    return {"@type": "cr:RecordSet", "@id": "corpora"} | about | {"field": fields, "data": rows}


def write_croissant() -> None:
    """Write data/folds/croissant.json."""
    with atomic_path(CROISSANT) as temporary:
        temporary.write_text(json.dumps(croissant(), indent=2, ensure_ascii=False) + "\n", "utf-8")


# RO-Crate: figures, scores, decisions, and how each was made


def crate(files: Iterable[str], root: Path = REPOSITORY) -> dict[str, Any]:
    """Describe what ships in RO-Crate 1.1.

    files : paths under `root`, with "/"; of results, figures and fold files each is described, of prototypes the folder
    """
    about = citation()
    described = [name for name in files if name.startswith(("results/", "figures/", "data/folds/"))]
    datasets = sorted(
        {name.split("/")[1] for name in described if name.endswith("/provenance.json") and name.count("/") == 2}
    )
    prototypes = sorted({name.split("/")[1] for name in files if name.startswith("prototypes/")})
    entities = [_file(root, name) for name in described]
    entities += [_prototypes(name) for name in prototypes]
    parts = [{"@id": entity["@id"]} for entity in entities]
    runs = [_run(root, name, described) for name in datasets]
    corpora = [_corpus(name) for name in sorted({*datasets, *prototypes})]
    head = {
        "@id": "./",
        "@type": "Dataset",
        "name": about["title"],
        "description": about["abstract"],
        "version": version(),
        "license": {"@id": MIT},
        "author": {"@id": "#authors"},
        "publisher": {"@id": "#authors"},
        "datePublished": max((run["endTime"] for run in runs), default=about["date-released"]),
        "keywords": about["keywords"],
        "citation": _works_cited(),
        "hasPart": parts,
        "mentions": [{"@id": run["@id"]} for run in runs],
    }
    descriptor = {
        "@id": "ro-crate-metadata.json",
        "@type": "CreativeWork",
        "conformsTo": {"@id": CRATE},
        "about": {"@id": "./"},
    }
    return {"@context": f"{CRATE}/context", "@graph": [descriptor, head, *_constant(about), *entities, *corpora, *runs]}


def _constant(about):
    licence = {
        "@id": MIT,
        "@type": "CreativeWork",
        "name": "MIT",
        "description": "Code, and what is made from the demo corpus",
    }
    authors = {"@id": "#authors", "@type": "Organization", "name": about["authors"][0]["name"]}
    software = {"@id": "#software", "@type": "SoftwareApplication", "name": about["title"], "version": version()}
    return [licence, authors, software | {"license": {"@id": MIT}, "author": {"@id": "#authors"}}]


def _file(root, name):
    path = root / name
    entity = {"@id": name, "@type": "File", "name": path.name, "contentSize": str(path.stat().st_size)}
    entity["encodingFormat"] = FORMATS.get(path.suffix, "text/plain")
    if name.startswith("figures/") and path.suffix == ".png":
        load_picture(path)  # a damaged one is named
        entity["description"] = caption_of(path)
    if name.startswith(("figures/", "results/")) and name.count("/") > 1:
        entity["isBasedOn"] = {"@id": f"#corpus-{name.split('/')[1]}"}
    return entity


def _prototypes(name):
    words = f"What a network takes for typical of each emotion in {title_of(name)}: pictures and sounds, listed in index.csv"
    return {
        "@id": f"prototypes/{name}/",
        "@type": "Dataset",
        "name": f"Prototypes of {title_of(name)}",
        "description": words,
    }


def _corpus(name):
    entity = {"@id": f"#corpus-{name}", "@type": "CreativeWork", "name": title_of(name)}
    if name not in CORPORA:
        return entity | {"description": "Synthetic, made by this project (MIT)"}
    corpus = CORPORA[name]
    words = f"Licence: {corpus.licence}. What is made from it follows that licence. Not in this archive."
    return entity | {"description": words, "citation": corpus.citation, "url": corpus.home}


def _run(root, name, described):
    """How the results of a dataset were made, as its provenance tells."""
    made = load_provenance(root / "results" / name / "provenance.json")
    last = max(made["notebooks"].values(), key=lambda run: run["finished"])
    commits = sorted({run["commit"][:10] for run in made["notebooks"].values()})
    words = f"Profile {made['profile']}, seed {made['seed']}, {last['n_utterances']} recordings, commits {', '.join(commits)}"
    results = [{"@id": path} for path in described if path.startswith((f"results/{name}/", f"figures/{name}/"))]
    about = {
        "@id": f"#run-{name}",
        "@type": "CreateAction",
        "name": f"make reproduce DATASET={name}",
        "description": words,
    }
    used = {"instrument": {"@id": "#software"}, "object": {"@id": f"#corpus-{name}"}, "agent": {"@id": "#authors"}}
    return about | used | {"result": results, "endTime": last["finished"]}


# the zip file


def shipped_files() -> list[str]:
    """Every file that git keeps, as a path with "/".

    Raises
    ------
    WorkspaceError : where one is not there, or not as its folder's checksums say
    """
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=REPOSITORY, capture_output=True, text=True, check=False)
    if listed.returncode:
        raise WorkspaceError(f"The archive holds what git keeps, and this is no clone: {listed.stderr.strip()}")
    files = sorted(filter(None, listed.stdout.split("\0")))
    wrong = [f"{name} is missing" for name in files if not (REPOSITORY / name).is_file()]
    folders = [Path(name).parent for name in files if Path(name).name == SUMS]
    wrong = wrong or [f"{folder}: {fault}" for folder in folders for fault in altered_files(REPOSITORY / folder)]
    if wrong:
        more = f"; and {len(wrong) - 5} more" if len(wrong) > 5 else ""
        raise WorkspaceError(
            f"No archive of files that are missing or altered: {'; '.join(wrong[:5])}{more}. Restore them (git checkout)."
        )
    return files


def write_archive(folder: Path) -> Path:
    """Write folder/ser-companion-<version>.zip: all that ships, and ro-crate-metadata.json at its top. Returns its path."""
    files, target = shipped_files(), folder / f"ser-companion-{version()}.zip"
    described = json.dumps(crate(files), indent=1, ensure_ascii=False)
    with atomic_path(target) as temporary, zipfile.ZipFile(temporary, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(zipfile.ZipInfo("ro-crate-metadata.json", LONG_AGO), described)
        for name in files:
            content = zipfile.ZipInfo(name, LONG_AGO)
            content.compress_type = zipfile.ZIP_DEFLATED
            archive.writestr(content, (REPOSITORY / name).read_bytes())
    return target


def main(arguments: list[str] | None = None) -> None:
    """Write the archive, or the Croissant description of the fold files."""
    parser = argparse.ArgumentParser(prog="python -m tools.archive", description=__doc__)
    parser.add_argument("what", nargs="?", choices=("archive", "croissant"), default="archive")
    what = parser.parse_args(arguments).what
    try:
        if what == "croissant":
            write_croissant()
            print(CROISSANT.relative_to(REPOSITORY))
            return
        path = write_archive(REPOSITORY / "build" / "archive")
    except (WorkspaceError, OSError) as error:
        raise SystemExit(str(error)) from None
    print(f"{path.relative_to(REPOSITORY)}: {path.stat().st_size / 1e6:.1f} MB, with ro-crate-metadata.json")


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        raise SystemExit("interrupted: no archive was written") from None
