"""Train networks where an accelerator is, and bring back what became of them.

python -m tools.elsewhere pack FOLDER            what travels: recordings as FLAC, folds, settings
python -m tools.elsewhere run FOLDER RESULTS     there: needs JAX, Keras, PyWavelets, soundfile and this package's networks
python -m tools.elsewhere unpack FOLDER ZIP …    here: its decisions and histories into results/<corpus>/accelerator

These are the networks on waveforms. With `--system prototype` before the command it is the prototype system; see
`tools.elsewhere_prototype`.
"""

import argparse
import gc
import io
import json
import os
import sys
import time
import zipfile
from importlib.metadata import version
from itertools import chain
from pathlib import Path

import numpy as np

PART_BYTES = 15 * 2**20  # of a file of weights
RATES = (1e-4, 3e-4, 1e-3, 3e-3, 1e-2)  # of the published range, tried before SigWavNet's trainings
DRAWS = {"ravdess": 6, "emodb": 5}  # of the published split; how many trainings there are says how many fit at once
AT_ONCE = {"sigwavnet": 11e6, "cnn_n_gru": 17e6}  # samples: some 50 and 10 GB


def pack(folder, data_dir):
    """Write recordings and the list of trainings, the most wanted first."""
    from ser_utils.corpora import load_corpus
    from ser_utils.profiles import settings
    from ser_utils.workspace import made_by

    folder.mkdir(parents=True, exist_ok=True)
    units = []
    for corpus in ("ravdess", "emodb"):
        table = load_corpus(corpus, data_dir).sort_values("utterance_id", ignore_index=True)
        for n in (18, 11, 5, 3):
            chosen = settings("cnn_n_gru", "paper") | {"n": n}
            plan = _plan(table, "cnn_n_gru", range(DRAWS[corpus]))
            kept = [i for i, each in enumerate(plan) if each["seed"] == 0 and (n == 18 or each["fold"] == 0)]
            units.append(_unit(corpus, "cnn_n_gru", f"n_{n}", chosen, plan, kept))
            if n == 18:
                heard = chosen | {"over_time": True}
                units.append(_unit(corpus, "cnn_n_gru", "over_time", heard, plan, kept[:1]))
        write_clips(folder, corpus, table, 16000)
        if corpus == "emodb":
            chosen = settings("sigwavnet", "paper")
            write_clips(folder, corpus, table, chosen["sample_rate_hz"], chosen["longest_s"])
            plan = _plan(table, "sigwavnet", [0])
            tried = [each | {"rate": rate} for rate in RATES for each in plan[:4]]
            chosen["shapes"] = [int(chosen["sample_rate_hz"] * s) for s in (2.6, 4.2)]
            units.append(_unit(corpus, "sigwavnet", "rates", chosen | {"epochs": 20}, tried, []))
            kept = [i for i, each in enumerate(plan) if each["fold"] == 0]
            units.append(_unit(corpus, "sigwavnet", "network", chosen, plan, kept[::-1]))
    commit = made_by()["commit"]
    (folder / "units.json").write_text(json.dumps([unit | {"commit": commit} for unit in units]))


def _plan(table, system, seeds):
    from ser_utils.evaluation.splits import make_folds

    place = {name: i for i, name in enumerate(table["utterance_id"])}
    plan = []
    for protocol, seed in [("speaker", 0), *(("paper", seed) for seed in seeds)]:
        folds = make_folds(table, protocol, system=system, seed=seed)
        for fold, rows in folds.groupby("fold"):
            roles = {role: [place[name] for name in part["utterance_id"]] for role, part in rows.groupby("role")}
            plan.append({"protocol": protocol, "seed": seed, "fold": int(fold), "rows": roles, "rate": 1.0})
    return plan


def _unit(corpus, system, model, settings, trainings, kept):
    return {
        "name": f"{corpus}-{system}-{model}",
        "corpus": corpus,
        "system": system,
        "model": model,
        "settings": settings,
        "trainings": trainings,
        "kept": kept,
    }


def write_clips(folder, corpus, table, rate, longest_s=0.0):
    """All clips one after another as 16-bit FLAC, scaled so that none clips, and where each begins."""
    import soundfile

    from ser_utils.corpora.loading import EMOTIONS
    from ser_utils.features.audio import load_audio

    clips = [load_audio(path, rate)[0][: int(longest_s * rate) or None] for path in table["path"]]
    gain = max(1.0, *(float(np.abs(clip).max()) for clip in clips))
    samples = np.round(np.concatenate(clips) / gain * 32767).astype(np.int16)
    name = f"{corpus}_{rate}"
    soundfile.write(folder / f"{name}.flac", samples, rate, subtype="PCM_16", compression_level=1.0)
    classes = [emotion for emotion in EMOTIONS if emotion in set(table["emotion"])]
    labels = table["emotion"].map(classes.index).to_numpy()
    lengths = [len(clip) for clip in clips]
    np.savez_compressed(
        folder / f"{name}.npz",
        gain=gain,
        labels=labels,
        lengths=lengths,
        classes=classes,
        utterance_id=table["utterance_id"].to_numpy(str),
    )


def run(folder, results, *, names, minutes, epochs=0):
    """Train the units of these names one after another, and write each at once.

    minutes : after which no epoch begins; epochs : at most so many, 0 for as many as published
    """
    units, until, rate = start_run(folder, results), time.monotonic() + 60 * minutes, 1.0
    import jax

    for name in names:
        if time.monotonic() > until:
            print(f"{name}: no time left", flush=True)
            break
        unit = units[name]
        if epochs:
            unit["settings"]["epochs"] = min(epochs, unit["settings"]["epochs"])
        for training in unit["trainings"]:
            training["rate"] *= rate / unit["settings"]["learning_rate"] if unit["model"] == "rates" else rate
        device = jax.devices()[0].device_kind
        try:
            trained = _train(folder, unit, until, f"{name} on {device}")
        except jax.errors.JaxRuntimeError as error:  # the other units may fit
            print(f"{name}: {error}", flush=True)
            continue
        _save(results, unit, trained, device)
        if unit["model"] == "rates":
            rate = _best_rate(unit, trained) / unit["settings"]["learning_rate"]
            print(f"{name}: {rate * unit['settings']['learning_rate']:g} is the best rate", flush=True)


def start_run(folder, results):
    """Set JAX up, and read what `pack` listed -> name of a unit: unit."""
    os.environ.setdefault("KERAS_BACKEND", "jax")  # before Keras is imported
    import jax

    jax.config.update("jax_compilation_cache_dir", str(results / "compiled"))
    results.mkdir(parents=True, exist_ok=True)
    return {unit["name"]: unit for unit in json.loads((folder / "units.json").read_text())}


def read_clips(folder, name):
    """Read what `write_clips` wrote -> float32 clips, and the facts beside them."""
    import soundfile

    facts = np.load(folder / f"{name}.npz", allow_pickle=False)
    samples, _ = soundfile.read(folder / f"{name}.flac", dtype="int16")
    samples = samples.astype(np.float32) * np.float32(facts["gain"] / 32767)
    return np.split(samples, np.cumsum(facts["lengths"])[:-1]), facts


def _train(folder, unit, until, title):
    import jax

    from ser_utils.systems.sigwavnet.recipe import make_network
    from tools.side_by_side import SideBySide, Training

    gc.collect()  # what was trained before lies in the accelerator's memory until then
    start = time.monotonic()
    clips, facts = read_clips(folder, f"{unit['corpus']}_{unit['settings']['sample_rate_hz']}")
    trainings = [
        Training({role: np.array(rows) for role, rows in each["rows"].items()}, each["seed"], each["rate"])
        for each in unit["trainings"]
    ]
    at_once = AT_ONCE[unit["system"]]
    while True:
        together = SideBySide(
            lambda: make_network(unit["system"], len(facts["classes"]), unit["settings"]),
            clips,
            facts["labels"],
            trainings,
            unit["settings"],
            shapes=unit["settings"].get("shapes", ()),
            at_once=at_once,
        )

        def tell(line):
            print(f"{time.monotonic() - start:6.1f} s {title}, {line}", flush=True)

        tell(f"{len(trainings)} trainings, shapes {together.shapes}, {at_once:g} samples at once")
        try:
            together.compile()
            tell("compiled")
            return together.fit(until=until, tell=tell)
        except jax.errors.JaxRuntimeError as error:
            if "RESOURCE_EXHAUSTED" not in str(error) or at_once < 1e6:
                raise
            at_once /= 2


def _best_rate(unit, trained):
    """The rate whose best epochs are best on validation, averaged over its folds; the median three epochs count."""
    values = {}
    for each, outcome in zip(unit["trainings"], trained, strict=True):
        scores = np.nan_to_num(sorted(outcome.history["val_uar"])[-3:])
        values.setdefault(each["rate"], []).append(np.mean(scores))
    means = {rate: float(np.mean(scores)) for rate, scores in values.items()}
    print({f"{rate * unit['settings']['learning_rate']:g}": round(mean, 3) for rate, mean in means.items()})
    return max(means, key=means.get) * unit["settings"]["learning_rate"]


def _save(results, unit, trained, device):
    """Histories, probabilities and facts of every training into results.zip; weights of some into files of 15 MiB."""
    arrays = {}
    for i, outcome in enumerate(trained):
        arrays |= {f"{i}/history/{name}": np.array(values) for name, values in outcome.history.items()}
        arrays |= {f"{i}/probabilities": outcome.probabilities, f"{i}/scale": [outcome.mean, outcome.std]}
    about = {**unit, "device": device, "parameters": int(sum(values.size for values in trained[0].weights))}
    about["packages"] = {name: version(name) for name in ("jax", "keras")}
    arrays["about"] = json.dumps(about)
    with zipfile.ZipFile(results / "results.zip", "a", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(f"{unit['name']}.npz", as_npz(arrays))
    for i in unit["kept"]:
        for place, values in enumerate(trained[i].weights):
            append_weights(results, f"{unit['name']}/{i}/{place}.npy", values)


def as_npz(arrays):
    buffer = io.BytesIO()
    np.savez(buffer, **arrays)
    return buffer.getvalue()


def append_weights(results, name, values):
    """One array of weights into the latest of the files of weights, or a new one where that is full."""
    parts = sorted(results.glob("weights_*.zip"))
    full = not parts or parts[-1].stat().st_size + values.nbytes > PART_BYTES
    path = results / f"weights_{len(parts) + 1:02d}.zip" if full else parts[-1]
    buffer = io.BytesIO()
    np.save(buffer, values)
    with zipfile.ZipFile(path, "a", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(name, buffer.getvalue())


def unpack(folder, archives, root, **facts):
    """Turn what `run` brought back into results/<corpus>/accelerator, see `sigwavnet.accelerator`, and its table.

    folder : of `pack`; archives : results.zip of every run, of a network trained twice the last one counts
    root : holds results/, with who speaks in its decisions
    facts : device, packages or commit, where the archives do not tell
    """
    by_corpus, packed = {}, json.loads((folder / "units.json").read_text())
    for unit, arrays in _units_of(archives):
        by_corpus.setdefault(unit["corpus"], {})[unit["name"]] = (facts | unit, arrays)
    for corpus, units in by_corpus.items():
        wanted = [unit["model"] for unit in packed if (unit["corpus"], unit["system"]) == (corpus, "cnn_n_gru")]
        _unpack_corpus(folder, units.values(), wanted, Path(root) / "results" / corpus)


def _units_of(archives):
    for path in archives:
        with zipfile.ZipFile(path) as archive:
            for name in archive.namelist():
                with np.load(io.BytesIO(archive.read(name)), allow_pickle=False) as arrays:
                    yield json.loads(str(arrays["about"])), dict(arrays)


def _unpack_corpus(folder, units, wanted, results):
    import pandas as pd

    from ser_utils.systems.sigwavnet.accelerator import TABLES, published_tables
    from ser_utils.workspace import atomic_path, write_checksums, write_csv, write_json

    speakers = pd.read_parquet(results / "decisions" / "utterances.parquet").set_index("utterance_id")["speaker"]
    models, histories = {}, []
    with atomic_path(results / "accelerator") as shipped:
        shipped.mkdir()
        for unit, arrays in sorted(units, key=lambda pair: -pair[0]["settings"].get("n", 0)):
            known = np.load(folder / f"{unit['corpus']}_{unit['settings']['sample_rate_hz']}.npz")
            for name, table in _predictions(unit, arrays, known, speakers).items():
                table.to_parquet(shipped / f"{name}.parquet", index=False)
            histories += _histories(unit, arrays)
            models[unit["model"]] = _about(unit, histories[-1])
        pd.concat(histories).to_csv(shipped / "histories.csv", index=False, float_format="%.5g")
        made = {key: _joined(unit.get(key) for unit, _ in units) for key in ("device", "commit")}
        packages = [unit.get("packages", {}) for unit, _ in units]
        made["packages"] = {name: _joined(used.get(name) for used in packages) for name in sorted({*chain(*packages)})}
        missing = sorted(set(wanted) - set(models))
        write_json(shipped / "provenance.json", made | {"models": models, "not_reached": missing})
    for name, table in published_tables(results / "accelerator", pd.read_csv(results / "scores.csv")).items():
        write_csv(results / f"{name}.csv", table)
    write_checksums(results, "accelerator/*", *(f"{name}.csv" for name in TABLES.values()))


def _joined(values):
    return ", ".join(sorted({value for value in values if value}))


def _about(unit, history):
    epochs, planned = len(history), unit["settings"]["epochs"]
    return {
        "epochs": epochs,
        "stopped_at_time_limit": epochs < planned,
        "parameters": unit["parameters"],
        "seconds": round(float(history["seconds"].sum()) * len(unit["trainings"]), 1),  # of all trainings together
        "trainings": len(unit["trainings"]),
        "settings": unit["settings"],
        "device": unit.get("device"),
        "commit": unit.get("commit"),
    }


def _histories(unit, arrays):
    import pandas as pd

    tables = []
    for i, training in enumerate(unit["trainings"]):
        prefix = f"{i}/history/"
        columns = {name.removeprefix(prefix): arrays[name] for name in arrays if name.startswith(prefix)}
        table = pd.DataFrame(columns)
        about = {"model": unit["model"], "protocol": training["protocol"], "fold": _fold(training)}
        for place, (name, value) in enumerate((about | {"epoch": np.arange(1, len(table) + 1)}).items()):
            table.insert(place, name, value)
        tables.append(table)
    return tables


def _fold(training):
    return training["seed"] or training["fold"]  # draws have one fold each, and folds are of the draw 0


def _predictions(unit, arrays, known, speakers):
    """{name of a result: its table}, in the columns that `Workspace.save_predictions` writes."""
    import pandas as pd

    from ser_utils.names import result_name

    tables = {}
    for i, training in enumerate(unit["trainings"]):
        rows, said = training["rows"]["test"], arrays[f"{i}/probabilities"].astype(np.float32)
        table = pd.DataFrame({"utterance_id": known["utterance_id"][rows], "start_ms": np.nan})
        table["speaker"] = table["utterance_id"].map(speakers)
        table["emotion"] = known["classes"][known["labels"][rows]]
        table["prediction"] = known["classes"][said.argmax(axis=1)]
        table[[f"p_{emotion}" for emotion in known["classes"]]] = said
        tables.setdefault(training["protocol"], []).append(table.assign(fold=_fold(training)))
    drawn = {training["protocol"] for training in unit["trainings"] if training["seed"]}
    return {
        result_name(
            unit["system"], unit["model"], protocol, f"{len(parts)}_{'draws' if protocol in drawn else 'folds'}"
        ): pd.concat(parts, ignore_index=True)
        for protocol, parts in tables.items()
    }


def main(arguments=None):
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--system", choices=("waveforms", "prototype"), default="waveforms")
    commands = parser.add_subparsers(dest="command", required=True)
    packing = commands.add_parser("pack")
    packing.add_argument("folder", type=Path)
    packing.add_argument("--data-dir", default=os.environ.get("SER_DATA_DIR", "data"), help="of waveforms")
    running = commands.add_parser("run")
    running.add_argument("folder", type=Path)
    running.add_argument("results", type=Path)
    running.add_argument("--names", nargs="+", required=True)
    running.add_argument("--minutes", type=float, default=1e9)
    running.add_argument("--epochs", type=int, default=0)
    unpacking = commands.add_parser("unpack")
    unpacking.add_argument("folder", type=Path)
    unpacking.add_argument("archives", type=Path, nargs="+")
    unpacking.add_argument("--facts", type=json.loads, default={}, help="what the archives do not tell, as JSON")
    for command in (packing, unpacking):
        command.add_argument("--root", type=Path, default=Path())
    given = parser.parse_args(arguments)
    if given.system == "prototype":
        from tools import elsewhere_prototype as stages
    else:
        stages = sys.modules[__name__]
    if given.command == "pack":
        stages.pack(given.folder, given.data_dir if given.system == "waveforms" else given.root)
    elif given.command == "unpack":
        stages.unpack(given.folder, given.archives, given.root, **given.facts)
    else:
        stages.run(given.folder, given.results, names=given.names, minutes=given.minutes, epochs=given.epochs)


if __name__ == "__main__":
    main()
