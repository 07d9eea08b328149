# %% [markdown]
# # 09 · Which explanations deserve belief?
#
# **Question.** Saliency pictures are easy to make and easy to believe. Which methods find the truth where it is known,
# follow the model when its weights change, and point at what the model really leans on?
#
# **Reads** the utterance table and the networks of earlier notebooks; makes a planted corpus of its own. **Writes** the
# table `explanations` (method × check) and figures. **Run time** on two cores, profile `quick`: two minutes.

# %%
import functools

import keras
import librosa
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from scipy.stats import binomtest

from ser_utils import explain, faithfulness
from ser_utils.clips import FoldTask, clip_frames, train_fold
from ser_utils.corpora import load_corpus
from ser_utils.demo_corpus import make_planted_corpus
from ser_utils.feature_store import build_store
from ser_utils.figures import explanations, style
from ser_utils.metrics import unweighted_average_recall
from ser_utils.models.feature_network import deep_cnn
from ser_utils.profiles import settings, settings_table
from ser_utils.splits import make_folds
from ser_utils.workspace import Workspace

# %% tags=["parameters"]
dataset = "demo"  # a corpus, several joined by "+", or a path to your own table
profile = "quick"  # smoke, quick or paper
seed = 0
root = ""  # where everything is written; empty: the repository

# %%
workspace = Workspace(dataset, profile, seed, root)
chosen = settings("explanation", profile)
utterances = workspace.load_table("utterances")
style.set_style()
settings_table("explanation")

# %% [markdown]
# ## Ground where the answer is known
#
# In the **planted corpus** synthetic voices speak with emotions that have nothing to do with the label. All that
# decides it is a patch of noise, 180 ms long, in a band that belongs to the class; two decoys as loud and as long lie
# in bands that belong to none. Whoever explains a network trained on it has to point at the cue, and not at the decoys.

# %%
planted = make_planted_corpus(workspace.folder("planted") / "demo", seed=seed)
table = load_corpus("demo", planted.parent)
cues = pd.read_csv(planted / "cues.csv")
N_MELS, HOP, N_FFT, RATE = 64, 256, 1024, 16000
frames = functools.partial(clip_frames, kind="log_mel", n_mels=N_MELS, n_fft=N_FFT, hop_length=HOP)
store = build_store(
    planted.parent / "frames", table, frames, key=f"log-mel {N_MELS} {N_FFT} {HOP}", title="planted"
)
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
print(
    f"UAR on held-out clips {unweighted_average_recall(predictions['emotion'], predictions['prediction']):.2f}"
)

# %% [markdown]
# An explanation of a network that has not learned its task says nothing; with a UAR near 1 there is a truth to find.
#
# ## What each method says of one clip

# %%
model = keras.saving.load_model(trained["path"], safe_mode=True)
classes = [column[2:] for column in predictions if column.startswith("p_")]
training = folds.loc[folds["role"] == "train", "utterance_id"]
pooled = np.concatenate([store.of(utterance) for utterance in training])
mean, spread = pooled.mean(axis=0), pooled.std(axis=0) + 1e-3
floor = (pooled.min() - mean) / spread  # silence, as the network sees it
bands_hz = librosa.mel_frequencies(N_MELS + 2, fmin=0, fmax=RATE / 2)[1:-1]


def clip_of(utterance):
    return ((store.of(utterance) - mean) / spread)[None].astype("float32")


def region_of(utterance, n_frames, *, decoys=False):
    milliseconds, mask = 1000 * np.arange(n_frames) * HOP / RATE, np.zeros((n_frames, N_MELS), bool)
    own = cues[(cues["utterance"] == utterance) & (cues["is_decoy"] == decoys)]
    for cue in own.itertuples():
        when = (milliseconds >= cue.start_ms) & (milliseconds <= cue.end_ms)
        mask |= when[:, None] & ((bands_hz >= cue.low_hz) & (bands_hz <= cue.high_hz))[None]
    return mask


# %% [markdown]
# Eight maps: four from gradients, one from hiding patches, one from the last convolution, and two that know nothing of
# the model, loudness and chance, which every method has to beat.


# %%
def maps_of(model, x, label, rng):
    n = np.array([x.shape[1]], "int32")
    score, silence = explain.class_score(model, label, n), np.broadcast_to(floor, x.shape).astype("float32")
    cam = explain.grad_cam(model, "block_4", label, x, n)
    return {
        "gradient": np.abs(explain.gradient(score, x)),
        "gradient_times_input": explain.gradient_times_input(score, x),
        "smooth_grad": np.abs(explain.smooth_grad(score, x, seed=seed)),
        "integrated_gradients": explain.integrated_gradients(score, x, silence),
        "occlusion": explain.occlusion(score, x, patch=(8, 6), stride=(4, 3), fill=0.0),
        "grad_cam": explain.stretch(cam, x.shape[1:]),
        "energy": x * spread + mean - pooled.min(),
        "random": rng.random(x.shape),
    }


rng = np.random.default_rng(seed)
explained = predictions[predictions["prediction"] == predictions["emotion"]]["utterance_id"]
explained = (
    (explained if len(explained) else predictions["utterance_id"]).head(chosen["explained_clips"]).tolist()
)
truth = predictions.set_index("utterance_id")["emotion"]
all_maps = {one: maps_of(model, clip_of(one), classes.index(truth[one]), rng) for one in explained}

# %%
first = explained[0]
x = clip_of(first)
shown = {name: values[0] for name, values in all_maps[first].items() if name != "random"}
figure = explanations.maps_over(x[0], shown, region=region_of(first, x.shape[1]), hop_s=HOP / RATE)
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
for utterance, maps in all_maps.items():
    n_frames = clip_of(utterance).shape[1]
    cue, decoy = region_of(utterance, n_frames), region_of(utterance, n_frames, decoys=True)
    for method, values in maps.items():
        rows.append({"utterance": utterance, "method": method, "localisation": faithfulness.localisation(values, cue),
                     "cue_over_decoys": float(values[0][cue].mean() > values[0][decoy].mean())})  # fmt: skip
found = pd.DataFrame(rows)

# %%
draws = rng.integers(len(explained), size=(chosen["resamples"], len(explained)))
wide = found.pivot(index="utterance", columns="method", values="localisation").loc[explained]
resampled = wide.to_numpy()[draws].mean(axis=1)
checks = wide.mean().to_frame("localisation")
checks["low"], checks["high"] = np.quantile(resampled, [0.025, 0.975], axis=0)
checks["cue_over_decoys"] = found.groupby("method")["cue_over_decoys"].mean()
figure = explanations.score_bars(
    checks, "localisation", "low", "high", chance=0.5, label="localisation (ROC AUC)"
)
style.save_figure(workspace, figure, "09_localisation",
                  f"How well each method finds the planted cue, {len(explained)} held-out clips; bars: 95 % over clips.")  # fmt: skip
plt.show()

# %%
checks.sort_values("localisation", ascending=False).round(2)

# %% [markdown]
# Loudness points at the cue *and* at the decoys: the second column tells it from methods that read the model.
#
# ## Completeness
#
# Integrated gradients should sum to the change of the score from silence to the clip.

# %%
gaps = []
for utterance in explained:
    x, n = clip_of(utterance), np.array([clip_of(utterance).shape[1]], "int32")
    score = explain.class_score(model, classes.index(truth[utterance]), n)
    silence = np.broadcast_to(floor, x.shape).astype("float32")
    gaps.append(explain.completeness_gap(score, x, silence, all_maps[utterance]["integrated_gradients"]))
print(f"median gap {100 * np.median(gaps):.2f} %, largest {100 * max(gaps):.2f} % of the change")

# %% [markdown]
# ## Does the map see the model?
#
# Layer by layer from the output down, weights are shuffled among themselves. A map that stays as it was explains the
# input, not the model (Adebayo et al. 2018).

# %%
methods = [method for method in all_maps[first] if method != "random"]
layers, likeness = faithfulness.weighted_layers(model), []
for depth in range(1, len(layers) + 1):
    shuffled = faithfulness.randomised(model, layers=layers[:depth], seed=seed)
    maps = maps_of(shuffled, clip_of(first), classes.index(truth[first]), rng)
    likeness.append({m: faithfulness.rank_correlation(all_maps[first][m], maps[m]) for m in methods})
likeness = pd.DataFrame(likeness, index=layers)

# %%
figure = explanations.cascade(likeness)
style.save_figure(
    workspace, figure, "09_cascade", "Likeness of each map to the trained model's as layers are randomised."
)
plt.show()
checks["likeness_randomised"] = likeness.iloc[-1]
likeness.round(2)

# %% [markdown]
# The same network trained on shuffled labels has learned by heart, not the task: its maps should differ too.

# %%
mixed = table.assign(emotion=np.random.default_rng(seed).permutation(table["emotion"].to_numpy()))
wrong_store = build_store(
    planted.parent / "frames_mixed", mixed, frames, key="shuffled labels", title="shuffled"
)
wrong = train_fold(
    FoldTask("planted_mixed", network, wrong_store.folder, folds, options, workspace.folder("models"), seed)
)
wrong_model = keras.saving.load_model(wrong["path"], safe_mode=True)
wrong_maps = maps_of(wrong_model, clip_of(first), classes.index(truth[first]), rng)
checks["likeness_shuffled_labels"] = pd.Series(
    {m: faithfulness.rank_correlation(all_maps[first][m], wrong_maps[m]) for m in methods}
)

# %% [markdown]
# ## Does the model lean on what the map says?
#
# Points are replaced by silence, the most important first. The faster the score falls, the more faithful the map;
# random order and plain loudness are the marks to beat.

# %%
curves, areas = {}, {}
for method in all_maps[first]:
    runs = []
    for utterance in explained:
        x, n = clip_of(utterance), np.array([clip_of(utterance).shape[1]], "int32")
        score = explain.class_score(model, classes.index(truth[utterance]), n)
        runs.append(faithfulness.removal_curve(score, x, all_maps[utterance][method], fill=0.0)[1])
    curves[method] = np.linspace(0, 1, 21), np.mean(runs, axis=0)
    areas[method] = [faithfulness.area(curves[method][0], run) for run in runs]
checks["deletion_area"] = pd.DataFrame(areas).mean()
checks["sparseness"] = pd.DataFrame(
    {u: {m: faithfulness.sparseness(v) for m, v in all_maps[u].items()} for u in explained}
).mean(axis=1)

# %%
figure = explanations.removal_curves(curves)
style.save_figure(workspace, figure, "09_deletion",
                  "Score of the true class as points are removed, most important first; mean over clips.")  # fmt: skip
plt.show()

# %% [markdown]
# ## A verdict per method
#
# A method passes if it finds the cue (localisation above 0.8), tells it from decoys (sign test, 5 %), changes with
# the model (likeness below 0.5 once all weights are shuffled) and deletes faster than random order.

# %%
shares, n = checks["cue_over_decoys"], len(explained)
passes = pd.DataFrame({
    "finds the cue": checks["localisation"] > 0.8,
    "tells it from decoys": [binomtest(round(share * n), n, alternative="greater").pvalue < 0.05 for share in shares],
    "sees the model": checks["likeness_randomised"] < 0.5,
    "faithful": checks["deletion_area"] < checks.loc["random", "deletion_area"],
})  # fmt: skip
checks["verdict"] = [", ".join(passes.columns[row]) or "none of the checks" for row in passes.to_numpy()]
checks.sort_values("localisation", ascending=False).round(2)

# %% [markdown]
# ## Saved

# %%
workspace.save_table(checks.reset_index(), "explanations")
checks.round(6).to_csv(workspace.results / "09_explanations.csv")
workspace.record("09", utterances, chosen)
print("the verdicts are in results/…/09_explanations.csv")
