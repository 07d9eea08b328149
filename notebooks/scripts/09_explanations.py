# ---
# jupyter:
#   graph:
#     reads: ["02", "05", "07", "08"]
#     settings: [explanation, prototype_classifier, feature_network, sigwavnet, speech_transformer]
#     files: [weights]
# ---

# %% [markdown]
# # 09 · Which explanations deserve belief?
#
# **Question.** Saliency pictures are easy to make and easy to believe. Which methods find the truth where it is known,
# follow the model when its weights or its labels change, and point at what the model really leans on? And are
# prototypes, which explain by likeness, held to the same, any better?
#
# **Reads** the utterance table and the networks of 02 (prototypes), 05 (MFCC, log-mel), 07 (waveform) and 08 (HuBERT,
# wav2vec 2.0); makes a planted corpus of its own. **Writes** the tables `explanations` and `prototype_checks`, which
# are `09_verdicts.csv` (method × model × check) and `09_prototypes.csv` in the results, and figures.
#
# **Run time** on two cores, profile `quick`: a few minutes on the demo corpus, beside those of the notebooks it reads.

# %%
import dataclasses
import functools
import time

import keras
import librosa
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from IPython.display import Audio, display

from ser_utils.corpora.demo import make_planted_corpus
from ser_utils.corpora.loading import common_rate, load_corpus
from ser_utils.evaluation.metrics import unweighted_average_recall
from ser_utils.evaluation.results import protocols_for
from ser_utils.evaluation.splits import HOP_MS, SEGMENT_MS, make_folds

# %%
from ser_utils.explanation import attribution as explain
from ser_utils.explanation import faithfulness
from ser_utils.explanation import figures as explanations
from ser_utils.features import spectral as features
from ser_utils.features.audio import load_audio
from ser_utils.features.frames import clip_frames
from ser_utils.features.store import build_store, load_store
from ser_utils.figures import style
from ser_utils.profiles import settings, settings_table
from ser_utils.systems.feature_network import deep_cnn
from ser_utils.systems.prototype import checks as prototypes
from ser_utils.systems.prototype.analysis import prototype_sounds, select_prototypes
from ser_utils.systems.prototype.classifier import prototype_scores
from ser_utils.systems.prototype.segments import groups_of
from ser_utils.systems.prototype.training import fit_classifier
from ser_utils.systems.sigwavnet import wavelet  # noqa: F401  registers the layers of 07
from ser_utils.systems.speech_transformer.embeddings import build_embeddings
from ser_utils.systems.speech_transformer.pretrained import NO_MEANING, load_encoder
from ser_utils.training.folds import FoldTask, train_fold
from ser_utils.workspace import Workspace

# %% tags=["parameters"]
dataset = "demo"  # a corpus, several joined by "+", or a path to your own table
profile = "quick"  # smoke, quick or paper
seed = 0
root = ""  # where everything is written; empty: the repository

# %%
workspace = Workspace(dataset, profile, seed, root)
chosen = settings("explanation", profile, dataset)
utterances = workspace.load_table("utterances")
paths = utterances.set_index("utterance_id")["path"]
emotion_of = utterances.set_index("utterance_id")["emotion"]
style.set_style()
settings_table("explanation")

# %% [markdown]
# # Prototypes, held to the same
#
# ## Do they stand for something real?
#
# The classifiers of 02, protocol `utterance`: one per speaker and one over all. A prototype is a point that training
# was free to move; what it stands for is said by the real segments around it.

# %%
models = workspace.load_table("prototype_classifiers", made_by="02").query("protocol == 'utterance'")
neighbours = workspace.load_table("prototype_neighbours", made_by="02").query("protocol == 'utterance'")
of_classifier = settings("prototype_classifier", profile)
most = {"most_train": of_classifier["most_train"], "most_test": of_classifier["most_watched"]}
segments = load_store(workspace.folder("features") / "segments")
prototype_folds = make_folds(utterances, "utterance", system="prototype", seed=seed)
speakers_of = {name: [name.removeprefix("speaker_")] for name in models["model"]} | groups_of(utterances)

# %%
own = models[models["model"] != "all"].head(chosen["prototype_models"])
opened = {
    row.model: prototypes.open_classifier(
        workspace, row, segments, prototype_folds, speakers=speakers_of[row.model], **most
    )
    for row in pd.concat([own, models[models["model"] == "all"]]).itertuples()
}
pd.Series({name: len(one.classifier.prototypes) for name, one in opened.items()}, name="prototypes")

# %%
shown, one = next(iter(opened.items()))
rate = common_rate(utterances)
best = select_prototypes(prototype_scores(one.classifier.fc_weights.round(2)), one.classes, top=1)
best = style.sort_by_emotion(best).merge(neighbours[neighbours["model"] == shown], on="prototype")
best["place"] = (best["nearest_start_ms"] // HOP_MS).astype(int)
decoded = one.coder.decode(one.classifier.prototypes[best["prototype"]])
real = [segments.of(row.nearest_utterance_id)[row.place] for row in best.itertuples()]

# %%
titles = [
    f"{row.emotion}\n{row.score:.0f} %, {row.nearest_similarity:.2f} alike" for row in best.itertuples()
]
figure = explanations.pairs(decoded, real, titles, rate)
style.save_figure(workspace, figure, "09_prototype_neighbours",
                  f"The strongest prototype of each emotion, {shown}, decoded, and the real segment nearest to it.")  # fmt: skip
plt.show()

# %% [markdown]
# Each twice to the ear: the prototype four times in a row, a pause, then four times the real 100 ms.


# %%
def segment_sound(utterance, place):
    signal, _ = load_audio(paths[utterance], rate)
    return features.split_segments(signal, rate, segment_ms=SEGMENT_MS, hop_ms=HOP_MS)[place]


def side_by_side(sound, other):
    loud = [np.tile(part / max(np.abs(part).max(), 1e-9), 4) for part in (sound, other)]
    return Audio(np.concatenate([loud[0], np.zeros(rate // 4), loud[1]]), rate=rate)


# %%
length = round(rate * SEGMENT_MS / 1000)
sounds = prototype_sounds(decoded, rate, length=length, seed=seed)
for row, sound in zip(best.itertuples(), sounds, strict=True):
    print(
        f"{row.emotion}: prototype {row.prototype}, then {row.nearest_utterance_id}, {row.nearest_start_ms} ms"
    )
    display(side_by_side(sound, segment_sound(row.nearest_utterance_id, row.place)))

# %% [markdown]
# ## What does it cost to say only real things?
#
# Projection puts every prototype on its nearest training segment, so that "sounds like this prototype" becomes "sounds
# like this recording". **Purity** is the share of a prototype's ten nearest training segments that are of the emotion it
# speaks for; **twins** are prototypes whose likenesses rise and fall with another's.

# %%
of_prototypes = pd.DataFrame({name: prototypes.judge(one) for name, one in opened.items()}).T
of_prototypes.round(3)

# %% [markdown]
# `median_move` is in distances between prototypes: near 0, prototypes *are* training segments, and projection is free.
# `effective_number` is how many independent things they say together.
#
# ## How many are needed?
#
# Prototypes go one after another: the strongest of every emotion first, the weakest first, and in twenty random orders
# (band: 90 %).

# %%
curves = {name: prototypes.removals(one, seed=seed) for name, one in opened.items()}
figure = explanations.prototype_removal(curves, chance=1 / utterances["emotion"].nunique())
style.save_figure(workspace, figure, "09_prototype_removal",
                  "UAR on held-out segments as prototypes go, by score and at random; dotted: chance.")  # fmt: skip
plt.show()
areas = {
    name: {f"area_{order}": np.mean(uar) for order, (_, uar) in own.items()} for name, own in curves.items()
}
of_prototypes = of_prototypes.join(pd.DataFrame(areas).T)
of_prototypes[list(next(iter(areas.values())))].round(3)

# %% [markdown]
# If the score measured importance, "strongest first" would fall below the band and "weakest first" stay above it. Where
# it does not, a high score is a way of speaking, not a measure of what the classifier needs.
#
# ## Does another training find the same ones?
#
# The same segments, the same encoder, another seed of the classifier. Prototypes of both are paired by how alike their
# likenesses to the training segments are.

# %%
parts = [(one.embeddings[role], one.labels(role)) for role in ("train", "validation")]
again = fit_classifier(
    workspace.folder("models") / f"prototype_classifier-utterance-{shown}-again.keras", *parts, len(one.classes),
    of_classifier | {"n_prototypes": len(one.classifier.prototypes)}, seed=seed + 1, title="another seed",
)  # fmt: skip
other = prototypes.similarities(again.model, one.embeddings["train"])
dealt = prototypes.shuffled_similarities(again.model, one.embeddings["train"], seed=seed)
agreed = prototypes.agreement(
    (one.similarity("train"), one.classifier.fc_weights), (other, again.model.fc_weights), dealt
)
of_prototypes.loc[shown, [f"seeds_{name}" for name in agreed]] = list(agreed.values())
pd.Series(agreed).round(2)

# %% [markdown]
# `correlation` has to be read against `by_chance`: prototypes whose coordinates were dealt anew among them, paired in the
# same way (mean of five draws). `same_decision` says whether the two classifiers agree on segments; they may, with
# different prototypes, and then the reasons they give differ.
#
# ## "This 100 ms sounds like that prototype"
#
# One held-out utterance that the shared classifier gets right: each moment's support for the emotion, and the three
# moments that speak most for it beside the prototypes they are likest to.

# %%
shared = opened["all"]
heard = shared.tables["test"].groupby("utterance_id", sort=False)
candidates = [
    (name, shared.embeddings["test"][rows.index][None], shared.classes.index(rows["emotion"].iloc[0]))
    for name, rows in heard
]
nowhere = shared.embeddings["train"].mean(axis=0)  # a segment's level is its own: it cannot be silent
about = {"has_lengths": False, "more": prototypes.prototype_method}
by_likeness = explain.Subject(
    prototypes.utterance_vote(shared.classifier), nowhere, (5, -1), (2, -1), **about
)
told = explain.choose_clips(by_likeness, candidates, most=chosen["real_clips"])

# %%
name, x, label = told[0]
log_mels = segments.of(name)
likeness = prototypes.similarities(shared.classifier, shared.coder.embed(log_mels))
moments = prototypes.sounds_like(likeness, shared.classifier.fc_weights, label)
support = moments.sort_values("segment")["support"].to_numpy()
three = prototypes.spread_out(moments, most=3, apart=round(SEGMENT_MS / HOP_MS))
spoken_for = prototypes.classes_spoken_for(shared.classifier.fc_weights)[0]
three["emotion"] = [shared.classes[spoken_for[place]] for place in three["prototype"]]
those = shared.coder.decode(shared.classifier.prototypes[three["prototype"]])
signal, _ = load_audio(paths[name], rate)
whole = features.log_mel(signal, rate, n_mels=64, n_fft=1024, hop_length=256)

# %%
figure = explanations.sounds_like(
    whole, support, three, those, log_mels[three["segment"]], rate, hop_s=HOP_MS / 1000, segment_s=SEGMENT_MS / 1000,
    title=f"{name}: {shared.classes[label]}, because …",
)  # fmt: skip
style.save_figure(workspace, figure, "09_sounds_like",
                  f"One held-out utterance ({shared.classes[label]}) explained by the prototypes it sounds like.")  # fmt: skip
plt.show()

# %%
sounds = prototype_sounds(those, rate, length=length, seed=seed)
for row, sound in zip(three.itertuples(), sounds, strict=True):
    print(f"{row.segment * HOP_MS} ms sounds like prototype {row.prototype} ({row.emotion})")
    display(side_by_side(segment_sound(name, row.segment), sound))
workspace.save_table(of_prototypes.reset_index(names="model"), "prototype_checks")
of_prototypes.to_csv(
    workspace.results / "09_prototypes.csv", index_label="model", float_format="%.6f", lineterminator="\n"
)

# %% [markdown]
# # Maps
#
# ## Ground where the answer is known
#
# In the **planted corpus** synthetic voices speak with emotions that have nothing to do with the label. All that
# decides it is a patch of noise, 180 ms long, in a band that belongs to the class; two decoys as loud and as long lie
# in bands that belong to none. Whoever explains a network trained on it has to point at the cue, and not at the decoys.

# %%
planted = make_planted_corpus(workspace.folder("planted") / "demo", seed=seed)
table = load_corpus("demo", planted.parent)
cues = pd.read_csv(planted / "cues.csv")
grid = {"n_mels": 64, "n_fft": 1024, "hop_length": 256}
RATE, HOP_S = 16000, 256 / 16000
frames = functools.partial(clip_frames, kind="log_mel", **grid)
store = build_store(planted.parent / "frames", table, frames, key=f"log-mel {grid}", title="planted")
cues.head(3)

# %%
folds = make_folds(table, "utterance", seed=seed)
options = {"scale": "training", "batch_size": 8, "epochs": chosen["epochs"], "patience": 100, "learning_rate": 3e-3,
           "one_cycle": True, "weight_decay": 1e-3, "label_smoothing": 0.0, "mask_bands": 0, "mask_frames": 0,
           "resized_frames": 0}  # fmt: skip
network = functools.partial(deep_cnn, filters=(12, 24, 32, 48), dropout=0.2)
task = FoldTask("planted", network, store.folder, folds, options, workspace.folder("models"), seed)
trained = train_fold(task)
predictions = trained["predictions"]
uar = unweighted_average_recall(predictions["emotion"], predictions["prediction"])
print(f"UAR on held-out clips {uar:.2f}, chance {1 / 7:.2f}")

# %% [markdown]
# An explanation of a network that has not learned its task says nothing; with a UAR near 1 there is a truth to find.
#
# ## The networks of earlier notebooks
#
# Beside it stand real networks, each with clips of its first fold that it was not trained on and gets right: log-mel and
# MFCC (05, speakers it never heard), the heads over HuBERT and wav2vec 2.0 (08), the waveform network (07), and the
# prototypes over whole utterances (02).
#
# What stands for **absence** is silence: the lowest level of training frames, zero for a waveform. Where there is no
# silence, in embeddings, it is the training mean.


# %%
def of_store(store):
    return {name: store.of(name) for name in store.table["utterance_id"]}


def first_fold(folds):
    """Number of the first fold, and who plays which role in it."""
    number = folds["fold"].min()
    return number, folds[folds["fold"] == number].set_index("utterance_id")["role"].to_dict()


# %%
subjects, clips, material = {}, {}, {}  # by the network's name


def take(name, model, own, most=chosen["real_clips"], absent=None, **about):
    absent = own.silence() if absent is None else absent
    subjects[name] = explain.Subject(model, absent, spread=own.spread, **about)
    clips[name], material[name] = explain.choose_clips(subjects[name], own.tested, most=most), own


# %%
of_images = {"patch": (8, 8), "stride": (4, 4), "layer": "block_4", "attention": "attention"}
label_of = table.set_index("utterance_id")["emotion"]
own = explain.held_out(of_store(store), label_of, first_fold(folds)[1])
model = keras.saving.load_model(trained["path"], safe_mode=True)
take("planted, log-mel", model, own, chosen["explained_clips"], **of_images)

# %%
workspace.load_table("feature_network_scores", made_by="05")
first, roles = first_fold(make_folds(utterances, "speaker", system="feature_network", seed=seed))
frame_stores = {
    kind: load_store(workspace.folder("features", "feature_network") / kind) for kind in ("log_mel", "mfcc")
}
REAL = {
    "CNN, log-mel": ("deep_cnn", "log_mel", {}),
    "CNN, MFCC": ("deep_cnn", "mfcc", {"patch": (8, 4)}),
    # no picture is left at the end of this one: Grad-CAM becomes a curve over time
    "CNN–BiLSTM, log-mel": ("cnn_bilstm", "log_mel", {"layer": "bilstm"}),
}

# %%
for name, (network, kind, about) in REAL.items():
    path = workspace.folder("models") / f"feature_network-{network}_{kind}-speaker-{first}.keras"
    own = explain.held_out(of_store(frame_stores[kind]), emotion_of, roles)
    take(name, keras.saving.load_model(path), own, absent=own.silence(kind), **of_images | about)

# %%
of_speech = settings("speech_transformer", profile)
possible = dict(sorted(protocols_for(utterances), key=str))  # as 08 has it
main = of_speech["main_protocol"] if of_speech["main_protocol"] in possible else "utterance"
split = make_folds(utterances, main, system="speech_transformer", folds=possible[main], seed=seed)
first, roles = first_fold(split)
encoders = [load_encoder(name, seed=seed) for name in of_speech["models"]]
note = NO_MEANING if any(encoder.is_random for encoder in encoders) else ""
print(*[encoder.source for encoder in encoders], sep="\n")

# %%
options = {"top": of_speech["top_layers"], "longest_s": of_speech["longest_s"]}
of_embeddings = {"patch": (5, -1), "stride": (2, -1), "layer": "own_rows_2"}  # 100 ms at a time
for encoder in encoders:
    embedded = build_embeddings(workspace.folder("features"), utterances, encoder, **options)
    rows = dict(zip(embedded.store.table["utterance_id"], embedded.clips("cnn"), strict=True))
    path = workspace.folder("models") / f"speech_transformer-{encoder.name}_cnn-{main}-{first}.keras"
    head = keras.saving.load_model(path, compile=False)
    take(f"{encoder.name} head", head, explain.held_out(rows, emotion_of, roles), absent=0.0, **of_embeddings)

# %%
workspace.load_table("sigwavnet_scores", made_by="07")
first, roles = first_fold(make_folds(utterances, "speaker", system="sigwavnet", seed=seed))
waveforms = load_store(workspace.folder("features", "waveforms") / "sigwavnet")
waveform_rate = settings("sigwavnet", profile)["sample_rate_hz"]
known = style.in_order(waveforms.table["emotion"])
tested = [(name, np.array(waveforms.of(name))[None], known.index(emotion_of[name]))
          for name, role in roles.items() if role == "test"]  # fmt: skip

# %%
listener = keras.saving.load_model(workspace.folder("models") / f"sigwavnet-network-speaker-{first}.keras")
window = waveform_rate // 10  # 100 ms
subjects["SigWavNet"] = explain.Subject(listener, 0.0, (window,), (window // 2,), has_lengths=False,
                                        log_probabilities=True, most_steps=chosen["waveform_steps"])  # fmt: skip
clips["SigWavNet"] = explain.choose_clips(subjects["SigWavNet"], tested, most=chosen["waveform_clips"])
subjects["prototypes"], clips["prototypes"] = by_likeness, told

# %%
pd.DataFrame({name: {"clips explained": len(own), "weights": subjects[name].model.count_params()}
              for name, own in clips.items()}).T  # fmt: skip

# %% [markdown]
# ## What each method says
#
# Up to seven methods, and two maps that know nothing of the model: `energy`, how far each point is from silence, and
# `random`, which every method has to beat. Time is taken as it is spent, 50 steps of integrated gradients included.


# %%
def explained(name, x, label):
    """Every map of one clip, the baselines too, and how long each took."""
    subject, found = subjects[name], {}
    for method, function in explain.methods(subject, x, label, seed=seed).items():
        start, busy = time.perf_counter(), time.process_time()
        found[method] = function()
        took = {"s": time.perf_counter() - start, "cpu_s": time.process_time() - busy}
        seconds.append({"model": name, "method": method} | took)
    return found | faithfulness.baselines(subject, x, seed=seed)


# %%
seconds = []
maps = {name: [explained(name, x, label) for _, x, label in own] for name, own in clips.items()}
seconds = pd.DataFrame(seconds)
name, x, _ = clips["planted, log-mel"][0]


def region_of(utterance, n_frames, *, decoys=False):
    """Where the cue (or the decoys) of a planted clip are: bool (n_frames, n_mels)."""
    own = cues[(cues["utterance"] == utterance) & (cues["is_decoy"] == decoys)]
    return faithfulness.cue_region(own, n_frames, hop_s=HOP_S, n_mels=grid["n_mels"], fmax=RATE / 2)


# %%
pictures = {method: values[0] for method, values in maps["planted, log-mel"][0].items() if method != "random"}
figure = explanations.maps_over(x[0], pictures, region=region_of(name, x.shape[1]), hop_s=HOP_S)
style.save_figure(workspace, figure, "09_planted_maps",
                  "One planted clip and what each method says of it; the cue that decides is outlined.")  # fmt: skip
plt.show()

# %% [markdown]
# ## Do they find the cue?
#
# `localisation` is the chance that a point inside the cue gets more than a point outside (0.5 for a random map).
# `cue_over_decoys` asks the harder question: does the cue get more than the two decoys, which are as loud (1/2 by chance)?

# %%
rows = []
for (utterance, x, _), own in zip(clips["planted, log-mel"], maps["planted, log-mel"], strict=True):
    cue, decoy = (region_of(utterance, x.shape[1], decoys=decoys) for decoys in (False, True))
    for method, values in own.items():
        rows.append({"clip": utterance, "method": method, "localisation": faithfulness.localisation(values, cue),
                     "cue_over_decoys": float(values[0][cue].mean() > values[0][decoy].mean())})  # fmt: skip
rows = pd.DataFrame(rows)
by_method = rows.drop(columns="clip").groupby("method", sort=False)
found = by_method.mean().assign(decoys_p=by_method["cue_over_decoys"].agg(faithfulness.decoys_p))
bootstrap = {"n_resamples": chosen["resamples"], "seed": seed}
ends = by_method["localisation"].agg(lambda s: faithfulness.interval(s, **bootstrap))
found["low"], found["high"] = [end[1] for end in ends], [end[2] for end in ends]
found = found.join(faithfulness.less(rows, "localisation", "energy", **bootstrap))

# %%
figure = explanations.score_bars(
    found, "localisation", "low", "high", chance=0.5, label="localisation (ROC AUC)"
)
style.save_figure(workspace, figure, "09_localisation",
                  f"How well each method finds the planted cue, {by_method.size().iloc[0]} held-out clips; bars: 95 % over clips.")  # fmt: skip
plt.show()
found.sort_values("localisation", ascending=False).round(3)

# %% [markdown]
# Loudness points at the cue *and* at the decoys: `cue_over_decoys` tells it from methods that read the model, and to find
# the cue is to localise it better than loudness does on the same clips (`localisation_less_energy`, 95 %).
#
# ## Completeness
#
# Integrated gradients should sum to the change of the score from absence to the clip. Of each of 50 steps it is known by
# how much the score changed there; the worst are halved, up to 400 in all, until the sum is right within 1 %. On the
# waveform it wanders far before it settles, since every layer makes quiet sound loud again and most happens close to
# silence: there the 1 % says less, and where steps are few it is missed.

# %%
gaps = [
    (name, explain.completeness_gap(subjects[name].score(label, x), x, subjects[name].absence(x), own["integrated_gradients"]))
    for name in subjects
    for (_, x, label), own in zip(clips[name], maps[name], strict=True)
]  # fmt: skip
gaps = pd.DataFrame(gaps, columns=["model", "gap"]).groupby("model", sort=False)["gap"]
(100 * gaps.agg(["median", "max"])).round(2).add_suffix(" (%)")

# %% [markdown]
# ## Log-mel and MFCC, emotion by emotion
#
# Means over the clips of an emotion, time in shares of the clip: red speaks for the emotion, blue against it. An MFCC
# is a sum over mel bands, so the slopes of the MFCC network can be carried back to the bands (third row): what both
# networks look at can then be compared on the same axes.


# %%
def on_bands(slope, name):
    """Slopes by the MFCCs of one clip, on mel bands: through the cosine transform, times level."""
    level = frame_stores["log_mel"].of(name)
    n_mfcc = settings("feature_network", profile)["n_mfcc"]
    slope = slope / material["CNN, MFCC"].spread
    return explain.mel_of_cepstra(slope[0, :, :n_mfcc], level.shape[1]) * (level - level.min())


# %%
rows = []
for kind, model in (("log-mel", "CNN, log-mel"), ("MFCC", "CNN, MFCC")):
    subject, own = subjects[model], material[model]
    for name, x, label in explain.choose_clips(subject, own.tested, most=chosen["mean_clips"]):
        absence = subject.absence(x)
        slope = explain.path_gradient(subject.score(label, x), x, absence)
        own_maps = {kind: (slope * (x - absence))[0]}  # integrated gradients
        if kind == "MFCC":
            own_maps["MFCC, as bands"] = on_bands(slope, name)
        rows += [
            {"kind": kind, "name": name, "emotion": own.classes[label], "map": values}
            for kind, values in own_maps.items()
        ]
signed = pd.DataFrame(rows)


# %%
def by_class(summary):
    """Of each feature type and emotion, `summary` of its maps."""
    grouped = signed.groupby(["kind", "emotion"])["map"]
    return {kind: {emotion: summary(list(grouped.get_group((kind, emotion)))) for emotion in style.in_order(own["emotion"])}
            for kind, own in signed.groupby("kind", sort=False)}  # fmt: skip


axis_of = {"log-mel": "mel band", "MFCC": "coefficient, energy on top", "MFCC, as bands": "mel band"}
figure = explanations.class_means(by_class(explain.mean_map), row_labels=axis_of)
style.save_figure(workspace, figure, "09_class_means",
                  "Integrated gradients of log-mel and MFCC networks, mean over clips of an emotion, speakers never heard.")  # fmt: skip
plt.show()

# %%
figure = explanations.class_means(by_class(lambda maps: maps[0]), row_labels=axis_of)
style.save_figure(workspace, figure, "09_class_clips", "The same of a single clip per emotion.")
plt.show()

# %%
profiles = by_class(lambda maps: np.mean([np.abs(one.sum(axis=0)) for one in maps], axis=0))
figure = explanations.bands_by_class(profiles, labels=axis_of)
style.save_figure(workspace, figure, "09_bands", "Where along the features each emotion's attribution lies.")
plt.show()

# %%
wide = signed.pivot(index="name", columns="kind", values="map").dropna()
alike = [faithfulness.rank_correlation(*pair) for pair in wide[["log-mel", "MFCC, as bands"]].to_numpy()]
print(
    f"rank correlation of both networks' maps on bands, {len(alike)} clips: {np.mean(alike or [np.nan]):.2f}"
)

# %% [markdown]
# Single clips are busier than their means. Near 0 the two networks, which say the same of these clips, say it for
# different reasons; a map tells about a network, not about the voice.
#
# ## Heard: the part the model relied on, and the rest
#
# The fifth of all points with most integrated gradient is cut out of the recording, with its own phases, so that both
# parts add up to what was said. The network then hears each of them alone: a faithful fifth should keep its answer.

# %%
of_frames = settings("feature_network", profile)
framing = {key: of_frames[key] for key in ("n_mels", "n_fft", "hop_length")}
stft = {key: of_frames[key] for key in ("n_fft", "hop_length")}


def heard_by_network(name):
    """The recording as the network of 05 heard it: at its rate, without the silence around the voice."""
    signal, rate = load_audio(paths[name], of_frames["sample_rate_hz"])
    how = {"top_db": of_frames["trim_db"], "frame_length": stft["n_fft"], "hop_length": stft["hop_length"]}
    return (librosa.effects.trim(signal, **how)[0] if of_frames["trim_db"] else signal), rate


# %%
def probability(signal, rate, label):
    """What the log-mel network says of a sound."""
    own, subject = material["CNN, log-mel"], subjects["CNN, log-mel"]
    level = clip_frames(signal, rate, kind="log_mel", **framing)
    return subject.predict(((level - own.mean) / own.spread)[None].astype("float32"))[label]


def parts_of(name, attribution):
    signal, rate = heard_by_network(name)
    part, rest = explain.part_and_rest(signal, rate, attribution, share=faithfulness.SHARE, **stft)
    return {"whole": signal, "part": part, "rest": rest}, rate


# %%
rows = []
for (name, _, label), own in zip(clips["CNN, log-mel"], maps["CNN, log-mel"], strict=True):
    for method in ("integrated_gradients", "occlusion", "energy", "random"):
        sounds, rate = parts_of(name, own[method][0])
        said = {what: probability(sound, rate, label) for what, sound in sounds.items()}
        rows.append({"fifth chosen by": method} | said)
pd.DataFrame(rows).groupby("fifth chosen by", sort=False).mean().round(3)

# %% [markdown]
# Mean probability of the class. `part` is what is left of it in the chosen fifth, `rest` in the other four: the larger
# the first and the smaller the second, the more the network leaned on what was chosen.

# %%
sounds, rate = parts_of(clips["CNN, log-mel"][0][0], maps["CNN, log-mel"][0]["integrated_gradients"][0])
mel = functools.partial(librosa.feature.melspectrogram, sr=rate, n_fft=1024, hop_length=256)
powers = {what: mel(y=sound) for what, sound in sounds.items()}
levels = {what: librosa.power_to_db(power, ref=powers["whole"].max()) for what, power in powers.items()}
figure = explanations.part_and_rest(levels, rate, hop_length=256)
style.save_figure(workspace, figure, "09_part_and_rest",
                  "A recording, the fifth of it that integrated gradients point at, and the rest.")  # fmt: skip
plt.show()
for what, sound in sounds.items():
    print(what)
    display(Audio(sound, rate=rate))

# %% [markdown]
# ## Over time: HuBERT, wav2vec 2.0 and the waveform
#
# Embeddings have no frequencies to look at, only moments. Grad-CAM weighs the channels of the head's last convolution;
# the others are summed over dimensions. Below, the network that hears samples.

# %%
heads = [name for name in subjects if name.endswith("head")]
utterance = clips[heads[0]][0][0]
curves = {}
for name in heads:
    x, label = next((x, label) for clip, x, label in material[name].tested if clip == utterance)
    said = explain.maps(subjects[name], x, label, seed=seed)
    curves[name] = {
        method: said[method][0].sum(axis=1) for method in ("grad_cam", "integrated_gradients", "occlusion")
    }
signal, rate = load_audio(paths[utterance], of_frames["sample_rate_hz"])
level = features.log_mel(signal, rate, n_mels=64, n_fft=1024, hop_length=256)

# %%
title = f"{utterance}, {emotion_of[utterance]}"
figure = explanations.over_time(level, curves, seconds=len(signal) / rate, title=title, note=note)
style.save_figure(workspace, figure, "09_heads_over_time",
                  f"{note} What the heads listen to over time, one held-out utterance.".strip())  # fmt: skip
plt.show()

# %%
utterance, x, label = clips["SigWavNet"][0]
length_s = x.shape[1] / waveform_rate
shown = {method: explain.over_windows(maps["SigWavNet"][0][method][0], round(20 * length_s))
         for method in ("integrated_gradients", "occlusion", "smooth_grad")}  # fmt: skip
title = f"{utterance}, {known[label]}"
figure = explanations.over_time(x[0], {"SigWavNet": shown}, seconds=length_s, title=title)
caption = "What the waveform network listens to, in windows of 50 ms."
style.save_figure(workspace, figure, "09_waveform", caption)
plt.show()

# %% [markdown]
# ## How long it takes
#
# Seconds for one utterance, median over the clips; a busy machine shows in how far they exceed those of the processor.
# For spectrogram and MFCC networks 2 s are allowed on two cores; the waveform network runs a recurrence over thousands
# of steps, and takes what it takes.

# %%
timing = seconds.groupby(["method", "model"], sort=False)[["s", "cpu_s"]].median()
of_waveform = timing.index.get_level_values("model") == "SigWavNet"
for what, own in (("frames or embeddings", timing[~of_waveform]), ("the waveform", timing[of_waveform])):
    print(f"slowest on {what}: {own['s'].max():.2f} s, {own['cpu_s'].max():.2f} s of one core")
timing["s"].unstack().round(2)

# %% [markdown]
# # Checks
#
# ## Does the map see the model?
#
# Weights are shuffled among themselves, layer after layer from the output down (cascading), or in one layer alone
# (independent). A map that stays as it was explains the input, not the model (Adebayo et al. 2018); so does one turned
# upside down, and the verdict takes the correlation's size. The waveform network is shuffled as a whole.
#
# The verdict reads where all layers are shuffled: five clips, if a network has as many and its maps are quick. Single
# layers are seen on fewer.

# %%
few, fewest = chosen["sanity_clips"], faithfulness.FEWEST
affordable = {name: len(own) if name != "SigWavNet" else few for name, own in clips.items()}
decisive = {name: max(few, fewest) if most >= fewest else few for name, most in affordable.items()}
shuffle = functools.partial(faithfulness.randomisations, most=chosen["shuffled_layers"], seed=seed)
ways = {name: dict(zip(("cascading", "independent"), shuffle(subject), strict=True))
        for name, subject in subjects.items() if name != "SigWavNet"}  # fmt: skip
whole = dataclasses.replace(subjects["SigWavNet"], model=faithfulness.randomised(listener, seed=seed))
ways["SigWavNet"] = {"cascading": {"all": whole}}


# %%
def mapped_again(name, others, most):
    """Likeness of the first maps of a network to those of other networks in its place."""
    own = [clip[1:] for clip in clips[name][:most]]
    return faithfulness.sanity(others, own, maps[name][:most], seed=seed).assign(model=name)


rows = []
for name, both in ways.items():
    for way, others in both.items():
        for layer, other in others.items():
            decides = way == "cascading" and layer == list(others)[-1]
            found_again = mapped_again(name, {layer: other}, decisive[name] if decides else few)
            rows.append(found_again.assign(way=way, panel=f"{name}, {way}"))
likeness = pd.concat(rows, ignore_index=True)

# %%
several = {f"{name}, {way}": list(others) for name, both in ways.items() if name != "SigWavNet"
           for way, others in both.items()}  # fmt: skip
for value, title in (("spearman", "rank correlation"), ("ssim", "SSIM")):
    figure = explanations.cascade(likeness, several, value=value)
    style.save_figure(workspace, figure, f"09_randomised_{value}",
                      f"Likeness ({title}) of maps to the trained model's as layers are shuffled, clips: {few}, "
                      f"of all layers up to {max(decisive.values())}. {note}".strip())  # fmt: skip
    plt.show()

# %% [markdown]
# ## Labels at random
#
# The same networks trained anew on labels dealt at random. They can learn clips by heart, not the task, and their maps
# should differ. A network that has not even learned by heart is hardly trained, and to differ from it shows nothing: below
# 90 % the check counts as not made. The head stands for HuBERT or wav2vec 2.0.

# %%
mixed, learned = {}, {}
for number, name in enumerate(("planted, log-mel", "CNN, log-mel", "CNN, MFCC", heads[0])):
    own = material[name]
    fitted = faithfulness.fit_shuffled_labels(
        workspace.folder("models") / f"shuffled_labels-{number}.keras", subjects[name].model, own.training, own.labels, scale=(own.mean, own.spread),
        epochs=chosen["shuffled_epochs"], seed=seed,
    )  # fmt: skip
    mixed[name] = dataclasses.replace(subjects[name], model=fitted.model)
    learned[name] = fitted.history["accuracy"].iloc[-1]
    print(f"{name}: {learned[name]:.0%} of shuffled training labels learned by heart (chance {1 / len(own.classes):.0%})"
          + (": too few, check not made" if learned[name] < faithfulness.LEARNED else ""))  # fmt: skip

# %%
shuffled = pd.concat(
    [mapped_again(name, {"labels": other}, few) for name, other in mixed.items()], ignore_index=True
)
shuffled.pivot(index="method", columns="model", values="spearman").round(2)

# %% [markdown]
# ## Does it stay, where the prediction stays?
#
# Noise of a tenth of the input's spread, halved until the prediction is what it was: a map that changes nevertheless
# says more about the noise than about the model.

# %%
stable = [
    {"model": name, "method": method, "stability": value}
    for name in subjects if name != "SigWavNet"
    for (_, x, label), own in list(zip(clips[name], maps[name], strict=True))[:few]
    for method, value in faithfulness.stability(subjects[name], x, label, own, seed=seed).items()
]  # fmt: skip
stable = pd.DataFrame(stable).groupby(["model", "method"], sort=False)["stability"].agg(["mean", "size"])
stable["mean"].unstack("model").round(2)

# %% [markdown]
# ## Does the model lean on what the map says?
#
# Points are replaced by absence, the most important first (deletion), or put into absence (insertion). The faster the
# score falls, or rises, the more faithful the map. **Comprehensiveness** is the fall when a fifth is gone,
# **sufficiency** what is missing when only that fifth is there, **sparseness** the Gini index of the map.

# %%
judged = pd.concat(
    [
        faithfulness.judge(subjects[name], x, label, own).assign(model=name, clip=place)
        for name in subjects
        for place, ((_, x, label), own) in enumerate(zip(clips[name], maps[name], strict=True))
    ],
    ignore_index=True,
)
summary = pd.concat(
    {name: faithfulness.summarise(own.drop(columns="model"), **bootstrap)
     for name, own in judged.groupby("model", sort=False)}, names=["model"],
)  # fmt: skip

# %%
for kind in ("deletion", "insertion"):
    mean_curves = {
        name: {
            method: np.mean(list(rows[f"{kind}_curve"]), axis=0)
            for method, rows in own.groupby("method", sort=False)
        }
        for name, own in judged.groupby("model", sort=False)
    }
    figure = explanations.removal_curves(mean_curves, label="score (log-odds)", kind=kind)
    style.save_figure(workspace, figure, f"09_{kind}",
                      f"Score of the class under {kind}, most important points first; mean over clips. {note}".strip())  # fmt: skip
    plt.show()

# %%
shown = ["clips", "deletion", "deletion_less_random_low", "deletion_less_random_high", "deletion_less_energy_low",
         "deletion_less_energy_high", "insertion", "comprehensiveness", "sufficiency", "sparseness"]  # fmt: skip
summary[shown].round(2)

# %% [markdown]
# `…_less_random` is the area less that of random order on the same clip, with the 95 % interval over clips, where there
# are five: for deletion it should lie below 0, for insertion above. `…_less_energy` holds against plain loudness.
#
# # A verdict per method
#
# The rules, before the verdicts. A method is not to be trusted on a model if it ignores the weights, or if the score
# falls no faster than at random; with care, if it fails anything else that was measured.
#
# Fewer than five clips pass nothing that speaks of a mean, and have no interval; if that leaves one of these two open,
# the verdict is **unknown**. They can still fail what a single clip refutes (`fails_alone`): a map that stays where it
# was (0.95 or more) when weights or labels are others is blind to them, and one that noise changes is not stable.

# %%
faithfulness.RULES

# %%
checks = summary.copy()
last = likeness[likeness["way"] == "cascading"].groupby(["model", "method"], sort=False).last()
checks[["likeness_randomised", "likeness_randomised_n", "ssim_randomised"]] = last[["likeness", "n", "ssim"]]
alone = likeness[likeness["way"] == "independent"].groupby(["model", "method"], sort=False)["likeness"].mean()
checks["likeness_independent"] = alone
checks["labels_learned"] = checks.index.get_level_values("model").map(learned)
by_heart = shuffled[shuffled["model"].map(learned) >= faithfulness.LEARNED].set_index(["model", "method"])
checks[["likeness_shuffled", "likeness_shuffled_n", "ssim_shuffled"]] = by_heart[["likeness", "n", "ssim"]]
checks[["stability", "stability_n"]] = stable[["mean", "size"]]
checks["seconds"] = seconds.groupby(["model", "method"])["s"].median()

# %%
for column in found:
    checks.loc[[("planted, log-mel", method) for method in found.index], column] = found[column].to_numpy()
for name, gap in gaps.max().items():
    checks.loc[(name, "integrated_gradients"), "completeness_gap"] = gap

# %% [markdown]
# Behind each verdict, how many clips it rests on: explained / of these explained again with shuffled weights / with
# shuffled labels / under noise.

# %%
verdicts = faithfulness.verdicts(checks)
made = verdicts[faithfulness.RULES["check"]]
drawn = verdicts.assign(passed=(made == True).sum(axis=1), made=made.notna().sum(axis=1)).reset_index()  # noqa: E712
resting = checks[["clips", "likeness_randomised_n", "likeness_shuffled_n", "stability_n"]].groupby(
    "model", sort=False
)
resting = resting.max().fillna(0).astype(int).astype(str).agg(" / ".join, axis=1)
figure = explanations.verdict_table(drawn)
style.save_figure(workspace, figure, "09_verdicts",
                  "Verdict of each method on each model, and how many of the checks made it passes. Clips it rests on, "
                  f"explained / shuffled weights / shuffled labels / noise: {'; '.join(resting.index + ' ' + resting)}. "
                  f"{note}".strip())  # fmt: skip
plt.show()
said = drawn["verdict"] + ", " + drawn["model"].map(resting)
said.groupby([drawn["method"], drawn["model"]], sort=False).first().unstack().fillna("")

# %%
plain = drawn[["model", "method", "verdict", "failed"]]
per_method = pd.crosstab(plain["method"], plain["verdict"])
per_method = per_method.reindex(columns=list(explanations.VERDICT_COLOUR), fill_value=0)
per_method.sort_values(["trust", "with care"], ascending=False)

# %% [markdown]
# `energy` and `random` know nothing of the model. That they do not follow its weights is so by definition, and rules
# them out; whatever else they pass does not show by itself that a map speaks of the model:

# %%
for method in faithfulness.BASELINES:
    own = made.xs(method, level="method")
    passes = [f"{check} ({own[check].eq(True).sum()} of {own[check].notna().sum()} models)"
              for check in own if own[check].eq(True).any()]  # fmt: skip
    print(f"{method} passes: {', '.join(passes) or 'nothing'}")

# %% [markdown]
# What fails where, in words:

# %%
plain.pivot(index="method", columns="model", values="failed").fillna("")

# %% [markdown]
# ## Saved

# %%
table = checks.join(verdicts).reset_index()
workspace.save_table(table.astype({name: "boolean" for name in faithfulness.RULES["check"]}), "explanations")
timeless = table.drop(columns="seconds")  # seconds differ from run to run
timeless.to_csv(workspace.results / "09_verdicts.csv", index=False, float_format="%.6f", lineterminator="\n")
workspace.record("09", utterances, chosen)
trusted = per_method.drop(index=list(faithfulness.BASELINES))[["trust", "with care"]].sum(axis=1)
mostly = trusted.idxmax().replace("_", " ") if trusted.any() else "none"
print(
    f"{len(table)} verdicts in 09_verdicts.csv. Trusted, or trusted with care, on the most models: {mostly}."
)

# %% [markdown]
# **What we learned** stands in the table of verdicts: a method earns belief on one kind of model at a time. Nothing
# reads these tables next; `make predict` uses occlusion, whose record they show.
