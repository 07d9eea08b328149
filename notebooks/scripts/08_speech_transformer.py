# ---
# jupyter:
#   graph:
#     reads: ["00"]
#     settings: [speech_transformer]
#     files: [weights]
# ---

# %% [markdown]
# # 08 · Listening through HuBERT and wav2vec 2.0
#
# **Question.** What do encoders that were trained on much speech, without a word about emotions, know of them: in which
# layer, in which dimensions, and how much more when their last layers are trained on?
#
# **Reads** the utterance table of 00, and the encoders' published weights if they are there. **Writes** the embeddings
# (`features/embeddings_…`), and predictions, folds, audits and costs of every head for 10.
#
# **Reproduces** the two self-supervised feature sets of the multi-corpus study, wav2vec 2.0 being its best (79.41 %,
# split not stated). **Run time** on two cores, profile `quick`: three minutes on the demo corpus with the tiny encoders;
# published ones, at base size, hear five seconds of sound in one second of one core (`benchmarks/`).

# %%
import time

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd

from ser_utils.evaluation.metrics import unweighted_average_recall
from ser_utils.evaluation.results import protocols_for
from ser_utils.evaluation.splits import make_folds
from ser_utils.figures import networks, style
from ser_utils.profiles import settings, settings_table
from ser_utils.systems.speech_transformer import embeddings
from ser_utils.systems.speech_transformer import figures as transformer
from ser_utils.systems.speech_transformer.heads import changes_by_part, rates_by_layer
from ser_utils.systems.speech_transformer.pretrained import NO_MEANING, load_encoder
from ser_utils.training.fit import best_epoch
from ser_utils.workspace import Workspace

# %% tags=["parameters"]
dataset = "demo"  # a corpus, several joined by "+", or a path to your own table
profile = "quick"  # smoke, quick or paper
seed = 0
root = ""  # where everything is written; empty: the repository
models = ""  # encoders parted by spaces, owner/name or folders; empty: the profile's

# %%
workspace = Workspace(dataset, profile, seed, root)
chosen = settings("speech_transformer", profile)
utterances = workspace.load_table("utterances")
style.set_style()
settings_table("speech_transformer")

# %% [markdown]
# ## The encoders
#
# Seven convolutions turn 16 kHz sound into one frame each 20 ms; a transformer lets every frame hear all others. The
# weights are the published ones, read without PyTorch. Where they are missing, a tiny encoder with random weights runs
# in their place, so that everything can be seen at work; whatever comes of it carries no meaning, and says so.
#
# `hubert-base-ls960` was trained on sound alone. `wav2vec2-base-960h` was then fine-tuned on the transcripts of 960 hours,
# so it knows text. EmoBox's figure for wav2vec 2.0, which 10 sets beside ours, is for the pre-trained one, without text.

# %%
encoders = {one.name: one for one in (load_encoder(m, seed=seed) for m in models.split() or chosen["models"])}
note = NO_MEANING if any(one.is_random for one in encoders.values()) else ""
print(*[one.source for one in encoders.values()], sep="\n")


# %%
def marked(table, precision=3):
    return table.style.format(precision=precision).set_caption(note)


def show(figure, name, caption):
    style.save_figure(workspace, transformer.stamp(figure, note), f"08_{name}", f"{note} {caption}".strip())
    plt.show()


# %%
about = [
    {"encoder": name, "layers": a.num_hidden_layers, "wide": a.hidden_size, "parameters": one.model.count_params(),
     "normalises": "before a sublayer" if a.do_stable_layer_norm else "after a sublayer"}
    for name, one in encoders.items() for a in [one.model.architecture]
]  # fmt: skip
marked(pd.DataFrame(about).set_index("encoder"))

# %% [markdown]
# ## Embedding, once
#
# One pass per recording keeps what every head below wants: mean and standard deviation over time of each hidden state
# (768 → 1536 numbers at base size), and the frames of two of them, the last one and the one that fine-tuning starts
# from. Clips above 20 s are heard in overlapping pieces: attention costs the square of the length, and no published
# encoder was trained on more.

# %%
embedded, rows = {}, []
for name, encoder in encoders.items():
    start = time.perf_counter()
    embedded[name] = embeddings.build_embeddings(
        workspace.folder("features"),
        utterances,
        encoder,
        top=chosen["top_layers"],
        longest_s=chosen["longest_s"],
    )
    array = embedded[name].store.array
    rows.append(
        {"encoder": name, "rows": len(array), "MB": array.nbytes / 1e6, "s": time.perf_counter() - start}
    )
assert all(np.isfinite(one.statistics()).all() for one in embedded.values())
marked(pd.DataFrame(rows).set_index("encoder"), precision=1)

# %% [markdown]
# Opened again, this cell takes no time: the embeddings are recognised by recordings, weights and code.
#
# ## Which layers tell emotions apart?
#
# Every clip is held against the other clips of the same speaker, which takes the voice itself out. The share of
# variance that "this emotion or another" explains, averaged over dimensions, for each hidden state:

# %%
emotions = utterances["emotion"].to_numpy()
z = {name: embeddings.against_own_voice(one) for name, one in embedded.items()}
figure = transformer.layer_heat_map({name: embeddings.standing_out(one, emotions) for name, one in z.items()})
show(
    figure,
    "layers",
    "Variance of each hidden state that one emotion against all others explains, voices taken out.",
)

# %% [markdown]
# ## Which dimensions?
#
# The dimensions of the last hidden state in which emotions differ most, and how single clips spread in the first of
# them. A dimension that only one emotion moves is easier to name than one that all move a little.

# %%
for name, one in z.items():
    figure = transformer.dimension_heat_map(one[:, -1], emotions, title=f"{name}, last hidden state")
    show(
        figure,
        f"dimensions_{name}",
        f"Mean of each emotion in the dimensions of {name} that tell them apart most.",
    )

# %%
for name, one in z.items():
    best = np.argsort(-embeddings.explained_by_emotion(one[:, -1], emotions))[:4]
    figure = transformer.dimension_boxes(one[:, -1], emotions, best, title=f"{name}, last hidden state")
    show(figure, f"boxes_{name}", f"The four dimensions of {name} that emotion explains best, clip by clip.")

# %% [markdown]
# Dimensions were picked on these very clips, so the boxes show the best case, not a finding.
#
# ## Whose clips, on which side?
#
# All protocols that the texts and speakers of the table allow. Outside `paper` nothing is fitted or chosen on test.

# %%
folds = {}
for protocol, how in sorted(protocols_for(utterances), key=str):
    folds[protocol] = make_folds(utterances, protocol, system="speech_transformer", folds=how, seed=seed)
    workspace.save_folds(
        folds[protocol], system="speech_transformer", protocol=protocol, folds=folds[protocol].attrs["folds"]
    )
    learned = (folds[protocol]["role"] == "train").sum() / folds[protocol]["fold"].nunique() / len(utterances)
    notes = f"learns from {learned:.0%} of the clips", *folds[protocol].attrs["notes"]
    print(protocol, folds[protocol].attrs["folds"], *notes, sep=" · ")
main = chosen["main_protocol"] if chosen["main_protocol"] in folds else "utterance"

# %% [markdown]
# ## What a straight line reads from each layer
#
# Logistic regression on mean and standard deviation, layer by layer. Where the curve peaks is where emotion lies
# most openly; in published encoders that is mostly the middle. The curve describes: to pick a layer by it
# would be to pick on test.

# %%
probed = {name: embeddings.probe_layers(one, folds[main]) for name, one in embedded.items()}
figure = transformer.probing_curve(probed, chance=1 / len(set(emotions)))
show(
    figure,
    "probing",
    f"UAR of a linear classifier on each hidden state, protocol {main}; bands: 95 %, by speaker.",
)

# %% [markdown]
# ## Heads
#
# Frozen: `pooled` (mean and deviation of the last hidden state), `layer_weighting` (the same of all hidden states,
# mixed by learned weights), `cnn` and `rnn` on its frames. `fine_tuned` trains the encoder's last layers on. What is
# below them is frozen, gives the same every epoch, and is therefore read from the embeddings.

# %%
first = next(iter(embedded.values()))
drawn = [
    embeddings.network(head, len(set(emotions)), first.clips(head)[0].shape[1], first.encoder, chosen)
    for head in chosen["heads"]
]
show(networks.architecture(*drawn), "heads", "The heads, drawn from the models.")

# %%
predictions, fitted = {}, {}
for name, one in embedded.items():
    for protocol, split in folds.items():
        for head in chosen["heads" if protocol == main else "heads_elsewhere"]:
            key = name, head, protocol
            predictions[key], fitted[key] = embeddings.evaluate(workspace, one, head, split, options=chosen)

# %%
scores = pd.DataFrame(
    [
        {"encoder": name, "head": head, "protocol": protocol,
         "uar": unweighted_average_recall(table["emotion"], table["prediction"])}
        for (name, head, protocol), table in predictions.items()
    ]
)  # fmt: skip
marked(scores.pivot(index=["encoder", "head"], columns="protocol", values="uar"))

# %% [markdown]
# UAR over all test clips. A difference between protocols mixes what is known of the voices, the amount of data (the
# share learned from is listed with the folds) and chance. Intervals and paired tests are in 10.

# %%
for name in embedded:
    runs = {head: fitted[name, head, main][0].history for head in chosen["heads"]}
    kept = {head: best_epoch(history, "val_uar", "max") for head, history in runs.items()}
    figure = networks.learning_curves(runs, values=("loss", "uar"), kept=kept)
    show(
        figure,
        f"learning_curves_{name}",
        f"Training on {name}, first fold of protocol {main}; dots: the epoch kept.",
    )

# %% [markdown]
# ## Which layers were asked?
#
# The learned mixture, one dot a fold; the dotted line is where all began. The weights follow the size of what they
# weigh, and here all of it was standardised.

# %%
mixtures = {
    name: [one.model.get_layer("mixture").weights_of_layers for one in fitted[name, "layer_weighting", main]]
    for name in embedded
}
show(transformer.layer_mixtures(mixtures), "mixtures", f"Weight of each hidden state, protocol {main}.")

# %% [markdown]
# ## What was frozen, what moved
#
# The head learns fastest, each layer below slower by a constant factor, the rest not at all. The largest change of any
# weight tells whether that was kept.

# %%
changes = {}
for name, one in embedded.items():
    architecture = one.encoder.model.architecture
    speeds = {key: chosen[key] for key in ("learning_rate", "top_learning_rate", "decay")}
    rates = rates_by_layer(architecture, chosen["top_layers"], **speeds)
    top = fitted[name, "fine_tuned", main][0].model.get_layer("top")
    changes[name] = pd.DataFrame(changes_by_part(one.encoder.model, top, rates))
moved = pd.concat(changes, names=["encoder", ""]).droplevel(1)
assert ((moved["learning_rate"] > 0) == (moved["largest_change"] > 0)).all()
marked(moved, precision=6)

# %%
figure = transformer.frozen_and_tuned(changes)
show(figure, "fine_tuning", f"Learning rate and largest change of each part, first fold of protocol {main}.")

# %% [markdown]
# ## Saved

# %%
probes = pd.concat(probed, names=["encoder", ""]).droplevel(1).reset_index()
for name, table in {"08_scores": scores, "08_probing": probes}.items():
    published = table[~table["encoder"].str.startswith("random_")]  # random weights have no results
    if len(published):
        published.to_csv(workspace.results / f"{name}.csv", index=False, float_format="%.6f")
workspace.record("08", utterances, {**chosen, "encoders": {name: one.key for name, one in encoders.items()}})
seconds = sum(one.seconds for runs in fitted.values() for one in runs)
print(f"{len(predictions)} results, {seconds:.0f} s of training; 09 and 11 read them next. {note}")
