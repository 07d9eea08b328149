"""The prototype system at its published settings, for `tools.elsewhere --system prototype`.

`pack` and `unpack` need what notebook 00 made under profile `paper`. The speakers are those whose prototypes the paper
shows. What `unpack` brings back is where notebooks 01 and 02 find it finished, so they train nothing of it again.
"""

import gc
import io
import json
import time
import zipfile
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from importlib.metadata import version

import numpy as np

from tools.elsewhere import append_weights, as_npz, read_clips, start_run, write_clips

CORPORA = ("emodb", "ravdess")
# What is wanted most comes first; the numbers share the time where it is short
SHARES = {"paper": 4, "utterance": 3, "sentence": 2, "edges": 1}
CODERS_SHARE = 0.7  # of a unit's time; the rest is its classifiers'
OF_CODER = ("filters", "hfenn_weight", "schedule", "learning_rate", "batch_size", "epochs", "patience")


def open_published(corpus, root):
    """What the published settings make of a corpus that notebook 00 prepared under profile `paper`."""
    from ser_utils.profiles import settings
    from ser_utils.systems.prototype.data import open_data
    from ser_utils.workspace import Workspace

    of_stages = (settings(name, "paper", corpus) for name in ("prototype", "prototype_classifier"))
    return open_data(Workspace(corpus, "paper", 0, root), *of_stages)


def units_of(data):
    """List the runs of notebooks 01 and 02: name of a unit -> its runs, which differ in speaker alone."""
    from ser_utils.systems.prototype.runs import autoencoder_runs

    runs = [run for run in autoencoder_runs(data) if run.is_own]
    units = {protocol: [run for run in runs if run.protocol == protocol] for protocol in data.of_coder["protocols"]}
    for weight in (0.0, 100 * data.of_coder["hfenn_weight"]):
        compared = units["utterance"][: data.of_coder["compared"]]
        units[f"edges_{weight:g}"] = [run.but(hfenn_weight=weight) for run in compared]
    return {name: runs for name, runs in units.items() if runs}


def pack(folder, root, corpora=CORPORA):
    """Write the recordings of the shown speakers, and the rows that every training learns from."""
    from ser_utils.corpora.loading import common_rate
    from ser_utils.workspace import made_by

    folder.mkdir(parents=True, exist_ok=True)
    units = []
    for corpus in corpora:
        data = open_published(corpus, root)
        speakers = {data.people[run.model][0] for runs in units_of(data).values() for run in runs}
        shown = data.segments["speaker"].isin(speakers)
        rate, table = common_rate(data.utterances), data.store.table
        write_clips(folder, corpus, table[table["speaker"].isin(speakers)], rate)
        for name, runs in units_of(data).items():
            facts = {"corpus": corpus, "rate": rate, "seed": 0, "share": SHARES[name.split("_")[0]]}
            facts |= {"name": f"{corpus}-{name}", "commit": made_by()["commit"]}
            facts |= {"coder": data.coder_settings(runs[0]), "classifier": data.of_classifier}
            facts["trainings"] = [_lesson(data, run, data.segments["row"][shown].to_numpy()) for run in runs]
            units.append(facts)
    (folder / "units.json").write_text(json.dumps(units))


def _lesson(data, run, packed):
    """What one run learns from, as places among the packed rows; without a classifier where only edges differ."""
    from ser_utils.systems.prototype.training import classifier_segments

    lesson = {"label": run.label, "key": rows_key(data, run)}
    coder = data.coder_rows(run)
    lesson["coder"] = [np.searchsorted(packed, rows).tolist() for rows in coder]
    if run.changes:
        return lesson
    tables = classifier_segments(data, run)[:2]
    lesson["classes"] = [emotion for emotion in data.emotions if emotion in set(tables[0]["emotion"])]
    lesson["classifier"] = [np.searchsorted(packed, table["row"]).tolist() for table in tables]
    lesson["labels"] = [table["emotion"].map(lesson["classes"].index).tolist() for table in tables]
    return lesson


def rows_key(data, run):
    """Name of the segments and settings of a run: what came back of others is not taken for it."""
    from ser_utils.systems.prototype.training import SHAPING, classifier_segments
    from ser_utils.workspace import content_key

    settings, classifier = data.coder_settings(run), data.of_classifier
    tables = [table[["row", "emotion"]] for table in classifier_segments(data, run)[:2]]
    shaping = [settings[name] for name in OF_CODER] + [classifier.get(name) for name in SHAPING]
    return content_key(*data.coder_rows(run), *tables, shaping, classifier["per_class"])


def run(folder, results, *, names, minutes, epochs=0):
    """Train the units of these names one after another, and write each at once.

    minutes : after which no epoch begins, shared among the units; epochs : at most so many, 0 for as many as published
    """
    units, until = start_run(folder, results), time.monotonic() + 60 * minutes
    pictures = {}
    for place, name in enumerate(names):
        unit, now = units[name], time.monotonic()
        share = unit["share"] / sum(units[other]["share"] for other in names[place:])
        if epochs:
            for stage in ("coder", "classifier"):
                unit[stage]["epochs"] = min(epochs, unit[stage]["epochs"])
        if unit["corpus"] not in pictures:
            pictures[unit["corpus"]] = _segments(folder, unit)
        end = now + share * (until - now)
        _train_unit(results, unit, pictures[unit["corpus"]], end)


def _segments(folder, unit):
    from ser_utils.evaluation.splits import HOP_MS, SEGMENT_MS
    from ser_utils.features.spectral import log_mel_segments, split_segments

    rate, start = unit["rate"], time.monotonic()

    def log_mel(clip):
        return log_mel_segments(split_segments(clip, rate, segment_ms=SEGMENT_MS, hop_ms=HOP_MS), rate)

    with ThreadPoolExecutor() as threads:
        pictures = np.concatenate(list(threads.map(log_mel, read_clips(folder, f"{unit['corpus']}_{rate}")[0])))
    print(f"{unit['corpus']}: {pictures.shape} in {time.monotonic() - start:.1f} s", flush=True)
    return pictures


def _train_unit(results, unit, pictures, end):
    import jax

    from ser_utils.systems.prototype.segments import Scale
    from tools.by_turns import Training

    gc.collect()  # what was trained before lies in the accelerator's memory until then
    start = time.monotonic()

    def tell(line):
        print(f"{time.monotonic() - start:6.1f} s {unit['name']}: {line}", flush=True)

    trainings = []
    for lesson in unit["trainings"]:
        scale = Scale.of(pictures[lesson["coder"][0]])
        x, watched = (scale.apply(pictures[rows]) for rows in lesson["coder"])
        trainings.append(Training(lesson["label"], (x, x), (watched, watched)))
    has_classifier = "classes" in unit["trainings"][0]
    coders = coders_by_turns(unit["coder"], pictures.shape[1:], unit["seed"])
    coders.fit(trainings, until=start + (CODERS_SHARE if has_classifier else 1) * (end - start), tell=tell)
    for lesson, training in zip(unit["trainings"], trainings, strict=True):
        _save(results, unit, lesson, "autoencoder", training)
    if not has_classifier:
        return
    with jax.default_matmul_precision("highest"):  # distances are differences of large numbers
        of_size = {}
        for lesson, training in zip(unit["trainings"], trainings, strict=True):
            embedded = _embed(coders.model, training, pictures, lesson)
            of_size.setdefault(len(lesson["classes"]), []).append((lesson, Training(lesson["label"], *embedded)))
        for place, (n_classes, pairs) in enumerate(of_size.items()):
            until = time.monotonic() + (end - time.monotonic()) / (len(of_size) - place)
            classifiers = classifiers_by_turns(unit["classifier"], n_classes, pairs[0][1].train[0].shape, unit["seed"])
            classifiers.fit([training for _, training in pairs], until=until, tell=tell)
            for lesson, training in pairs:
                _save(results, unit, lesson, "prototype_classifier", training)


def coders_by_turns(settings, shape, seed):
    """The published autoencoder, watched by its loss."""
    from ser_utils.systems.prototype.autoencoder import AutoencoderLoss, build_autoencoder
    from tools.by_turns import ByTurns
    from tools.patches import autoencode

    loss = AutoencoderLoss(settings["hfenn_weight"])
    shaping = {name: settings[name] for name in ("filters", "hfenn_weight", "learning_rate")}

    def sums(y, outputs, extra, there):
        errors = abs(y - outputs).mean(axis=(1, 2))
        return {"loss": (loss.call(y, outputs) * there).sum(), "mae": (errors * there).sum()}

    return ByTurns(
        lambda: build_autoencoder(*shape, **shaping),
        sums,
        lambda sums, n: {name: value / n for name, value in sums.items()},
        monitor="val_loss",
        sign=-1,
        forward=autoencode,
        batch_size=settings["batch_size"],
        epochs=settings["epochs"],
        patience=settings["patience"],
        seed=seed,
    )


def classifiers_by_turns(settings, n_classes, shape, seed):
    """The published prototype classifier, watched by its macro-F1; an epoch is several passes, as in `fit_classifier`."""
    import jax.numpy as jnp
    import keras

    from ser_utils.systems.prototype.classifier import FOCAL, build_prototype_classifier
    from ser_utils.systems.prototype.training import OF_LAYER, passes_in_epoch
    from tools.by_turns import ByTurns

    focal, passes = keras.losses.CategoricalFocalCrossentropy(**FOCAL), passes_in_epoch(shape[0], settings)
    options = {name: settings[name] for name in ("learning_rate", *OF_LAYER)}
    options["n_prototypes"] = settings["per_class"] * n_classes

    def sums(y, outputs, extra, there):
        said = jnp.eye(n_classes)[outputs.argmax(axis=1)]
        loss = ((focal.call(y, outputs) + extra) * there).sum()
        return {"loss": loss, "confusion": (y * there[:, None]).T @ said}

    def figures(sums, n):
        confusion = sums["confusion"]
        right, counts = jnp.diag(confusion), confusion.sum(axis=0) + confusion.sum(axis=1)
        f1 = 2 * right / jnp.maximum(counts, 1)
        return {"loss": sums["loss"] / n, "accuracy": right.sum() / n, "macro_f1": f1.mean()}

    return ByTurns(
        lambda: build_prototype_classifier(shape[1], n_classes, **options),
        sums,
        figures,
        monitor="val_macro_f1",
        sign=1,
        batch_size=settings["batch_size"],
        epochs=settings["epochs"] // passes,
        patience=-(-settings["patience"] // passes),
        passes=passes,
        describe=_describe,
        per_turn=20,
        seed=seed,
    )


def _describe(weights):
    """What `PrototypeLog` notes of prototypes and their weights, for JAX."""
    import jax
    import jax.numpy as jnp

    from ser_utils.systems.prototype.classifier import ALIKE

    prototypes, kernel = weights
    shares = jax.nn.softmax(jnp.round(kernel, 2), axis=1).max(axis=1)
    alike = jnp.corrcoef(prototypes - prototypes.mean(axis=0)) - 2 * jnp.eye(len(prototypes))
    return {"prototype_score": 100 * shares.mean(), "prototype_twins": (alike.max(axis=1) > ALIKE).mean()}


def _embed(model, training, pictures, lesson):
    """Embeddings and one-hot labels of the segments that teach and watch a classifier."""
    from ser_utils.systems.prototype.segments import Scale
    from ser_utils.systems.prototype.training import in_batches

    model.set_weights(training.weights)
    scale, classes = Scale.of(pictures[lesson["coder"][0]]), np.eye(len(lesson["classes"]), dtype=np.float32)
    for rows, labels in zip(lesson["classifier"], lesson["labels"], strict=True):
        code = in_batches(model.encoder, scale.apply(pictures[rows]))
        yield code.reshape(len(code), -1), classes[labels]


def _save(results, unit, lesson, stage, training):
    """History and facts of a training into results.zip, its weights into files of 15 MiB."""
    import jax

    name = f"{unit['corpus']}/{stage}-{lesson['label']}"
    about = {"device": jax.devices()[0].device_kind, "commit": unit["commit"], "backend": "jax"}
    about |= {"packages": {package: version(package) for package in ("jax", "keras")}}
    about |= {"stopped_at_time_limit": not training.has_stopped, "n_weights": len(training.weights)}
    facts = {"made_by": about, "key": lesson["key"], "seconds": training.seconds}
    arrays = {column: np.array(values, np.float32) for column, values in training.history.items()}
    with zipfile.ZipFile(results / "results.zip", "a", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(f"{name}.npz", as_npz(arrays | {"facts": json.dumps(facts)}))
    for place, values in enumerate(training.weights):
        append_weights(results, f"{name}/{place}.npy", values)


def unpack(folder, archives, root, **facts):
    """Put what came back where notebooks 01 and 02 find it finished, and what it came to into results/<corpus>.

    folder : of `pack`; archives : every zip that `run` wrote; root : of the workspace of profile `paper`
    facts : of the machine, where the archives do not tell
    """
    from tools.published import ship_published

    returned = read_archives(archives)
    for corpus in sorted({name.split("/")[0] for name in returned}):
        data = open_published(corpus, root)
        stages = {name.split("/")[1]: trained for name, trained in returned.items() if name.startswith(f"{corpus}/")}
        ship_published(data, *adopt_all(data, stages, facts), data.workspace.results)


def read_archives(archives):
    """Read what `run` wrote: "<corpus>/<stage>-<label>" -> `TrainedElsewhere` and the key of its segments."""
    from ser_utils.training.fit import TrainedElsewhere

    arrays = {}
    for path in archives:
        with zipfile.ZipFile(path) as archive:
            for name in archive.namelist():
                loaded = np.load(io.BytesIO(archive.read(name)), allow_pickle=False)
                is_table = name.endswith(".npz")
                arrays[name.removesuffix(".npz").removesuffix(".npy")] = dict(loaded) if is_table else loaded
    returned = {}
    for name in (name for name, values in arrays.items() if isinstance(values, dict)):
        history = {column: values.tolist() for column, values in arrays[name].items() if column != "facts"}
        facts = json.loads(str(arrays[name]["facts"]))
        weights = [arrays[f"{name}/{place}"] for place in range(facts["made_by"].pop("n_weights"))]
        trained = TrainedElsewhere(weights, history, facts["seconds"], facts["made_by"])
        returned[name] = trained, facts["key"]
    return returned


def adopt_all(data, stages, facts):
    """Keep every training that came back as its notebook would have kept it -> coders and trained runs, by run.

    What time ended before its patience could have is left to the notebooks.
    """
    from ser_utils.systems.prototype.training import fit_coder, passes_in_epoch, train_and_predict

    coders, trained = {}, {}
    for run in (run for runs in units_of(data).values() for run in runs):
        coder, classifier = f"autoencoder-{run.label}", f"prototype_classifier-{run.label}"
        if coder not in stages:
            continue
        fit = partial(_adopt, stages, rows_key(data, run), facts)
        coders[run] = fit_coder(data, run, fit)
        told = f"{run.label}: {len(coders[run].history)} epochs"
        if classifier in stages:
            epochs = len(stages[classifier][0].history.get("loss", ()))
            passes = epochs * passes_in_epoch(len(data.pick(run, "train")), data.of_classifier)
            if passes >= data.of_classifier["patience"]:
                trained[run] = train_and_predict(data, run, fit)
            told += f", its classifier {passes} passes" + ("" if run in trained else ", too few: left to notebook 02")
        print(told, flush=True)
    return coders, trained


def _adopt(stages, wanted, facts, path, build, train, **task):
    from dataclasses import replace

    from ser_utils.training.fit import adopt

    trained, key = stages[path.stem]
    if key != wanted:
        raise ValueError(
            f"{path.stem} was trained on other segments or settings: key={key}, wanted is {wanted}. Pack and run again."
        )
    return adopt(replace(trained, made_by=trained.made_by | facts), path, build, **task)
