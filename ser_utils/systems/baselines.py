"""What a network has to beat: chance, duration, loudness, and classical acoustic features with an SVC."""

import functools
import importlib.util
import itertools
import sys
import time
import zlib
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import librosa
import numpy as np
import pandas as pd
from joblib.externals.loky import ProcessPoolExecutor
from scipy.special import softmax
from sklearn.calibration import CalibratedClassifierCV
from sklearn.decomposition import PCA
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from sklearn.dummy import DummyClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.metrics.pairwise import linear_kernel, rbf_kernel
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer, StandardScaler
from sklearn.svm import SVC
from threadpoolctl import threadpool_limits

from ser_utils.corpora import emotions_in_order
from ser_utils.evaluation.metrics import unweighted_average_recall
from ser_utils.evaluation.splits import audit_leakage, make_folds
from ser_utils.features.audio import load_audio
from ser_utils.features.fisher import FisherVectors
from ser_utils.features.store import build_store
from ser_utils.features.utterance import RATE_HZ, utterance_statistics
from ser_utils.profiles import systems
from ser_utils.systems.adaptation import centre_by_speaker, rank_by_speaker, scale_by_speaker
from ser_utils.workspace import Workspace, content_key

# Scaler and classifier are fitted on both, and the code chooses nothing
LEARNED_FROM = {"scaler": ["train", "validation"], "encoder": [], "augmentation": [], "selection": []}
MFCC_RATE_HZ = 16_000  # one rate, so that corpora can be tested across
OPENSMILE_SETS = {"egemaps": "eGeMAPSv02", "compare": "ComParE_2016"}
DESCRIPTORS = "lld"  # frames instead of one vector a clip: each fold learns Fisher vectors of them
SOUNDING = 0.05  # of a clip's greatest loudness
OPENSMILE_LICENCE = (
    "openSMILE is free for private use, research and education; a product needs a licence from audEERING "
    "(https://audeering.github.io/opensmile/about.html)."
)


def duration(signal: np.ndarray, sample_rate: int) -> np.ndarray:
    """Length of the clip in s, (1, 1): a corpus in which this does well gives its labels away."""
    return np.array([[len(signal) / sample_rate]], np.float32)


def loudness(signal: np.ndarray, sample_rate: int) -> np.ndarray:
    """Level of the clip in dB of full scale: mean and peak of its 25 ms RMS, (1, 2)."""
    frame = max(1, round(0.025 * sample_rate))
    rms = librosa.feature.rms(y=signal, frame_length=frame, hop_length=frame, center=False)[0]
    level = 20 * np.log10(np.maximum([np.sqrt(np.mean(rms**2)), rms.max()], 1e-6))
    return level[None].astype(np.float32)


def mfcc_statistics(signal: np.ndarray, sample_rate: int) -> np.ndarray:
    """Mean and standard deviation over time of 20 MFCC and their slopes, (1, 80)."""
    mfcc = librosa.feature.mfcc(y=signal, sr=sample_rate, n_mfcc=20, n_fft=512, hop_length=160)
    slope = librosa.feature.delta(mfcc, width=9, mode="nearest")
    frames = np.vstack([mfcc, slope])
    return np.concatenate([frames.mean(axis=1), frames.std(axis=1)])[None].astype(np.float32)


def opensmile_functionals(signal: np.ndarray, sample_rate: int, name: str) -> np.ndarray:
    """openSMILE's functionals of one clip: (1, 88) for eGeMAPSv02, (1, 6373) for ComParE_2016.

    Raises
    ------
    ImportError : where openSMILE is not installed
    """
    return _process(signal, sample_rate, name, "Functionals")


def opensmile_descriptors(signal: np.ndarray, sample_rate: int) -> np.ndarray:
    """openSMILE's ComParE_2016 descriptors, each 10 ms, and their slopes: (n_frames, 130), frames that sound alone.

    Raises
    ------
    ImportError : where openSMILE is not installed
    """
    descriptors = _process(signal, sample_rate, OPENSMILE_SETS["compare"], "LowLevelDescriptors")
    slopes = librosa.feature.delta(descriptors, width=5, axis=0, mode="nearest")
    loudness = descriptors[:, 0]  # the sum of the auditory spectrum
    return np.hstack([descriptors, slopes])[loudness >= SOUNDING * loudness.max()]


def has_opensmile() -> bool:
    return importlib.util.find_spec("opensmile") is not None


def _process(signal, sample_rate, name, level):
    if not has_opensmile():
        raise ImportError("This baseline needs openSMILE: pip install 'ser-utils[opensmile]'")
    # opensmile 2.6 and TensorFlow 2.21 in one process end in a segmentation fault
    if "tensorflow" in sys.modules:
        return _own_process().submit(_ask_opensmile, signal, sample_rate, name, level).result()
    return _ask_opensmile(signal, sample_rate, name, level)


@functools.cache
def _own_process():
    return ProcessPoolExecutor(max_workers=1)


def _ask_opensmile(signal, sample_rate, name, level):
    return _smile(name, level).process_signal(signal, sample_rate).to_numpy(np.float32)


@functools.cache
def _smile(name, level):
    import opensmile

    return opensmile.Smile(opensmile.FeatureSet[name], opensmile.FeatureLevel[level])


# model → what is extracted, at which rate (None: the recording's own)
EXTRACTORS = {
    "duration": (duration, None),
    "loudness": (loudness, None),
    "mfcc": (mfcc_statistics, MFCC_RATE_HZ),
    "voice": (utterance_statistics, RATE_HZ),
    **{m: (functools.partial(opensmile_functionals, name=name), None) for m, name in OPENSMILE_SETS.items()},
    DESCRIPTORS: (opensmile_descriptors, MFCC_RATE_HZ),
}


# Ends of models' names, in this order: another classifier, and features that are ranks among the speaker's own clips
DISCRIMINANT, ADAPTED_MODEL = "_lda", "_adapted"
ADAPTED_COST = 3  # C of an SVC on ranks
FISHER_COST = 3  # C of an SVC on Fisher vectors
COMPONENTS = 150  # that a discriminant sees of ComParE


def features_of(model: str) -> str:
    """The features that a model sees: "compare" for "compare_lda_adapted"."""
    return model.removesuffix(ADAPTED_MODEL).removesuffix(DISCRIMINANT)


def system_of(model: str) -> str:
    """The system of a model: "opensmile", or "baseline"."""
    return "opensmile" if features_of(model) in (*OPENSMILE_SETS, DESCRIPTORS) else "baseline"


def can_run(model: str) -> bool:
    """Whether what a model needs is installed."""
    return system_of(model) != "opensmile" or has_opensmile()


def add_white_noise(signal: np.ndarray, snr_db: float) -> np.ndarray:
    """Add white noise at a signal-to-noise ratio in dB; the noise follows from the signal, so it is repeatable."""
    seed = zlib.crc32(np.ascontiguousarray(signal).tobytes())
    noise = np.random.default_rng(seed).standard_normal(len(signal))
    wanted = np.sqrt(np.mean(np.square(signal, dtype=np.float64)) / 10 ** (snr_db / 10))
    return (signal + wanted * noise / np.sqrt(np.mean(noise**2))).astype(np.float32)


def _extract(signal, sample_rate, model, snr_db):
    signal = signal if snr_db is None else add_white_noise(signal, snr_db)
    return EXTRACTORS[model][0](signal, sample_rate)


def load_features(
    folder: Path, table: pd.DataFrame, model: str, *, snr_db: int | None = None, jobs: int | None = None
) -> np.ndarray:
    """One feature vector per utterance, extracted once and kept.

    Parameters
    ----------
    folder : where feature stores live
    table : utterance table
    model : "chance" (knows nothing), "duration", "loudness", "mfcc", "voice", "egemaps", "compare" or "lld"
    snr_db : dB, of white noise that is added to every clip before; None adds none

    Returns
    -------
    (n_utterances, n_features), in the table's order; of "lld" an array (n_utterances,) of frames (n_frames, n_features)
    """
    if model == "chance":
        return np.zeros((len(table), 1), np.float32)
    if model not in EXTRACTORS:
        raise ValueError(f"model must be one of chance, {', '.join(EXTRACTORS)}. Received: model={model!r}")
    name = f"baseline_{model}" if snr_db is None else f"baseline_{model}_{snr_db:+d}db"
    extract, rate = functools.partial(_extract, model=model, snr_db=snr_db), EXTRACTORS[model][1]
    making = {"key": name, "sample_rate_hz": rate, "jobs": jobs, "title": name}
    store = build_store(folder / name, table, extract, **making)
    place = store.table.set_index("utterance_id").loc[table["utterance_id"], ["first_row", "n_rows"]]
    if model == DESCRIPTORS:
        frames = np.empty(len(table), object)
        for i, (first, count) in enumerate(place.to_numpy()):
            frames[i] = np.nan_to_num(store.array[first : first + count])
        return frames
    return np.nan_to_num(store.array[place["first_row"]])


def build_classifier(model: str, constant: str | None = None, *, inner_folds: int = 3) -> Any:
    """The scikit-learn classifier of a baseline.

    Parameters
    ----------
    model : "chance" always says `constant`, so that UAR is one over the number of classes whatever the folds (the
        commonest training class is the rarer one in test); "probe" is logistic regression, strongly regularised;
        "…_lda" is a linear discriminant with shrinkage (Ledoit and Wolf 2004); "lld" is a linear SVC on Fisher vectors;
        everything else is scikit-learn's RBF SVC, as it is by default but for ADAPTED_COST on ranks. These three are
        calibrated. All standardise features in the fold, but Fisher vectors, which have length 1.
    inner_folds : of the calibration (Platt 1999), which fits a sigmoid for each class to decision values of clips left
        out of the fit, within what is trained on. Its highest probability is the answer: one rule for both.
    """
    if model == "chance":
        return DummyClassifier(strategy="constant", constant=constant)
    if model == "probe":  # its features outnumber clips
        return make_pipeline(StandardScaler(), LogisticRegression(C=0.01, max_iter=300))
    # a sigmoid for each class would make another rule of a discriminant: one temperature leaves its order
    method = "temperature" if DISCRIMINANT in model else "sigmoid"
    classifier = _discriminant(model) if DISCRIMINANT in model else _support_vectors(model)
    return CalibratedClassifierCV(classifier, method=method, cv=inner_folds, ensemble=False)


def _support_vectors(model):
    if features_of(model) == DESCRIPTORS:
        return make_pipeline(SVC(C=FISHER_COST, kernel=linear_kernel))
    if not model.endswith(ADAPTED_MODEL):
        return make_pipeline(StandardScaler(), SVC())
    # the same kernel as a product of matrices, many times as fast for long vectors
    return make_pipeline(StandardScaler(), SVC(C=ADAPTED_COST, kernel=rbf_kernel))


def _discriminant(model):
    steps = [StandardScaler(), FunctionTransformer(np.clip, kw_args={"a_min": -5, "a_max": 5})]
    if features_of(model) == "compare":  # its covariance would have 6,373 rows
        steps.append(PCA(COMPONENTS, svd_solver="randomized", random_state=0))
    return make_pipeline(*steps, LinearDiscriminantAnalysis(solver="lsqr", shrinkage="auto"))


def probabilities(classifier: Any, features: np.ndarray) -> np.ndarray:
    """Class probabilities (n, n_classes), whose highest is the classifier's answer.

    An SVC that is not calibrated (the one on a VAE's latent, which is exported as it is) has the softmax of its decision
    values, which ranks the classes and says no more. It decides equal votes by margins, so its answer is the highest, too.
    """
    if hasattr(classifier, "predict_proba"):
        return classifier.predict_proba(features)
    values = classifier.decision_function(features)
    return softmax(np.stack([-values, values], axis=1) if values.ndim == 1 else values, axis=1)


def n_parameters(classifier: Any) -> int:
    """Numbers the fitted classifier keeps: class priors, or the scaler's and those of SVC or regression."""
    if hasattr(classifier, "calibrated_classifiers_"):
        classifier = classifier.calibrated_classifiers_[0].estimator
    if not hasattr(classifier, "steps"):
        return classifier.class_prior_.size
    *before, fitted = (step for _, step in classifier.steps)
    is_svc = isinstance(fitted, SVC)
    kept = fitted.support_.size * fitted.shape_fit_[1] + fitted.dual_coef_.size if is_svc else fitted.coef_.size
    kept += sum(2 * step.mean_.size for step in before if isinstance(step, StandardScaler))
    kept += sum(step.components_.size for step in before if hasattr(step, "components_"))
    return fitted.intercept_.size + kept


def classifier_predictions(
    classifier: Any, features: np.ndarray, rows: pd.DataFrame, emotions: Iterable[str], fold: pd.DataFrame
) -> pd.DataFrame:
    """Predictions of a fitted scikit-learn classifier on the test clips of one fold.

    Parameters
    ----------
    features : (n_clips, n_features); rows : of the utterance table, in that order
    emotions : of the whole corpus; those that the classifier does not know get probability 0
    fold : one fold of a fold table
    """
    classes = emotions_in_order(emotions)
    p = pd.DataFrame(probabilities(classifier, features), columns=classifier.classes_)
    p = p.reindex(columns=classes, fill_value=0.0).add_prefix("p_")
    told = rows[["utterance_id", "speaker", "emotion"]].reset_index(drop=True)
    prediction, number = classifier.predict(features), fold["fold"].iloc[0]
    return pd.concat([told.assign(start_ms=np.nan, prediction=prediction, fold=number), p], axis=1)


def cross_validate(
    features: np.ndarray,
    table: pd.DataFrame,
    folds: pd.DataFrame,
    *,
    model: str = "mfcc",
    test_features: np.ndarray | None = None,
) -> tuple[pd.DataFrame, dict[str, float]]:
    """Fit on train and validation of each fold (nothing is chosen), predict its test part.

    Parameters
    ----------
    features : (n_utterances, n_features) in the order of table, or frames as `load_features` returns them
    folds : fold table of whole utterances
    test_features : what is predicted from instead, such as the same clips in noise; frames do not take it

    Returns
    -------
    table of predictions, and costs: parameters, seconds_to_train (with the encoding of frames), ms_per_utterance.
    LEARNED_FROM is what the audit is told of it.
    """
    place = pd.Series(np.arange(len(table)), index=table["utterance_id"])
    tested = features if test_features is None else test_features
    parts, sizes, seconds = [], [], np.zeros(2)
    for _, fold in folds.groupby("fold"):
        is_test = fold["role"] == "test"
        known, test = (place.loc[fold.loc[side, "utterance_id"]].to_numpy() for side in (~is_test, is_test))
        times, n_of_encoder = [time.perf_counter()], 0
        learned, heard = features, tested
        if features_of(model) == DESCRIPTORS:
            learned, n_of_encoder = _fisher_vectors(features, known, table, model)
            heard = learned
        classifier = _fit(learned[known], table["emotion"].to_numpy()[known], model)
        times.append(time.perf_counter())
        parts.append(classifier_predictions(classifier, heard[test], table.iloc[test], table["emotion"], fold))
        seconds += np.diff([*times, time.perf_counter()])
        sizes.append(n_of_encoder + n_parameters(classifier))
    predictions = pd.concat(parts, ignore_index=True)
    milliseconds = 1000 * seconds[1] / len(predictions)
    costs = {"parameters": np.mean(sizes), "seconds_to_train": seconds[0], "ms_per_utterance": milliseconds}
    return predictions, costs


def _fisher_vectors(frames, known, table, model):
    """Vectors of all clips by what the known ones tell, and how many numbers that takes."""
    with threadpool_limits(1):  # these products are small: more threads only wait for each other
        encoder = FisherVectors().fit(frames[known])
        vectors = encoder.transform(frames)
    if model.endswith(ADAPTED_MODEL):
        vectors = centre_by_speaker(vectors, table["corpus"] + "/" + table["speaker"])
    return vectors, encoder.n_parameters


def _fit(features, label, model):
    # a fold may leave one class only, which an SVC refuses
    model = model if len(set(label)) > 1 else "chance"
    lonely = pd.Series(label).map(pd.Series(label).value_counts()).to_numpy() == 1
    if lonely.any():  # the calibration leaves out one clip of each class and needs another to learn from
        features, label = np.concatenate([features, features[lonely]]), np.concatenate([label, label[lonely]])
    inner_folds = min(3, pd.Series(label).value_counts().min())
    return build_classifier(model, min(label), inner_folds=inner_folds).fit(features, label)


def evaluate(workspace: Workspace, table: pd.DataFrame, model: str, protocol: str, folds: str | None = None) -> str:
    """Predict, audit and measure one baseline under one protocol, unless exactly that was done before.

    A model whose name ends in ADAPTED_MODEL sees ranks among all clips of the same speaker, tested ones included, without
    their labels; of frames it sees how they differ from the speaker's mean. The audit is told.

    Writes predictions, folds, audit and costs through the workspace. Returns the name of the folds.
    """
    system = system_of(model)
    split = make_folds(table, protocol, system=system, folds=folds, seed=workspace.seed)
    name = {"system": system, "model": model, "protocol": protocol, "folds": split.attrs["folds"]}
    features, learned_from = load_features(workspace.folder("features"), table, features_of(model)), LEARNED_FROM
    has_frames = features_of(model) == DESCRIPTORS
    if has_frames:
        learned_from = learned_from | {"encoder": learned_from["scaler"]}
    if model.endswith(ADAPTED_MODEL):
        scale = scale_by_speaker if has_frames else rank_by_speaker
        features = scale(features, table["corpus"] + "/" + table["speaker"])
        learned_from = learned_from | {"adaptation": "test"}
    told = table[["utterance_id", "corpus", "emotion"]]
    looked_at = sorted(systems()[system].looked_at(model))
    key = content_key(features, told, split, looked_at, sys.modules[__name__], FisherVectors)
    if finished(workspace, key, name):
        workspace.saved.add("-".join(name.values()))
        return name["folds"]
    predictions, costs = cross_validate(features, table, split, model=model)
    costs["ms_per_utterance"] += ms_to_extract(table, features_of(model))
    workspace.save_folds(split, system=system, protocol=protocol, folds=name["folds"])
    workspace.save_audit(audit_leakage(split, table, fit=learned_from, system=system, model=model), **name)
    workspace.save_costs(costs, **name)
    predictions.attrs["made_from"] = key
    workspace.save_predictions(predictions, **name)
    return name["folds"]


def finished(workspace: Workspace, key: str, name: dict[str, str]) -> bool:
    """Whether predictions of that name were made from exactly what `key` stands for."""
    predictions = f"predictions/{'-'.join(name.values())}"
    return workspace.has_table(predictions) and workspace.load_table(predictions).attrs.get("made_from") == key


def ms_to_extract(table: pd.DataFrame, model: str, *, clips: int = 5) -> float:
    """Milliseconds to load one clip and extract its features on one core: the median over the first clips."""
    if model == "chance":
        return 0.0
    extract, rate = EXTRACTORS[model]
    times = []
    for path in table["path"].head(clips + 1):  # the first one warms up
        start = time.perf_counter()
        extract(*load_audio(path, rate))
        times.append(time.perf_counter() - start)
    return 1000 * float(np.median(times[1:] or times))


def across_domains(
    features: np.ndarray, table: pd.DataFrame, domain: Sequence[str], within: Callable[[pd.DataFrame], pd.DataFrame]
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Train on each domain, test on each: how far a model carries.

    Parameters
    ----------
    features : (n_utterances, n_features) in the order of table
    domain : (n_utterances,) names, such as the corpus or the gender
    within : function (table of one domain) -> speaker-independent fold table, for the diagonal

    Returns
    -------
    UAR and the number of common emotions, tables train × test; only emotions that both domains have are trained
    and tested
    """
    domain, label = np.asarray(domain), table["emotion"].to_numpy()
    names = sorted(set(domain))
    uar = pd.DataFrame(np.nan, names, names).rename_axis(index="trained on", columns="tested on")
    common = uar.copy()
    for source, target in itertools.product(names, names):
        shared = sorted(set(label[domain == source]) & set(label[domain == target]))
        common.loc[source, target] = len(shared)
        train, test = (np.flatnonzero((domain == name) & np.isin(label, shared)) for name in (source, target))
        rows = table.iloc[train].reset_index(drop=True)
        if source != target and shared:
            prediction = _fit(features[train], label[train], "mfcc").predict(features[test])
            uar.loc[source, target] = unweighted_average_recall(label[test], prediction)
        elif source == target and rows["speaker"].nunique() > 1:
            predictions, _ = cross_validate(features[train], rows, within(rows))
            uar.loc[source, target] = unweighted_average_recall(predictions["emotion"], predictions["prediction"])
    return uar, common.astype(int)
