# ---
# jupyter:
#   graph:
#     reads: ["01"]
#     settings: [prototype, prototype_classifier]
# ---

# %% [markdown]
# # 02 · Classification by similarity to learned prototypes
#
# **Question.** Can a network recognise the emotion of 100 ms of a voice by similarity to typical segments? How much of the
# score is left when training has not heard the test recordings, or the test sentences?
#
# **Reads** the utterance table and segments of 00 and the autoencoders of 01. **Writes** one classifier per speaker and
# protocol, one for all speakers, their predictions, folds, audits and costs, the tables `prototype_classifiers` and
# `prototype_neighbours`, and a PDF report per speaker.
#
# **Reproduces** the prototype paper's classifier, losses and training report. **Run time** on two cores, profile
# `quick`: two minutes on the demo corpus, ten on EmoDB, twenty on RAVDESS.

# %%
import inspect

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from IPython.display import display

from ser_utils.corpora.loading import common_rate
from ser_utils.evaluation import metrics
from ser_utils.figures import networks, spectrograms, style
from ser_utils.profiles import settings, settings_table
from ser_utils.systems.prototype import figures as prototypes
from ser_utils.systems.prototype import published
from ser_utils.systems.prototype.classifier import PrototypeLayer, prototype_similarity, similarity_loss
from ser_utils.systems.prototype.data import open_data
from ser_utils.systems.prototype.runs import PrototypeRuns, score_models
from ser_utils.training.fit import best_epoch
from ser_utils.workspace import REPOSITORY, Workspace, write_csv

# %% tags=["parameters"]
dataset = "demo"  # a corpus, several joined by "+", or a path to your own table
profile = "quick"  # smoke, quick or paper
seed = 0
root = ""  # where everything is written; empty: the repository
speakers = ""  # ids separated by spaces; empty: those the paper shows, else as many as the profile says
brief = False  # train only what 03 shows, for less time; see `brief` in the table of settings

# %%
workspace = Workspace(dataset, profile, seed, root)
tables = ("prototype", "prototype_classifier")
of_coder, of_classifier = (settings(table, profile, "brief" if brief else dataset) for table in tables)
style.set_style()
settings_table("prototype_classifier")

# %% [markdown]
# ## Speakers and splits
#
# Each model knows one speaker, as published. One further model is trained on all speakers, because only such a model can be
# tested on new speakers. The folds are those of 01. The model of all speakers adds the protocol `speaker`. Profile `paper`
# trains only the published models, under `paper` and `utterance`.

# %%
workspace.load_table("autoencoders", made_by="01")
data = open_data(workspace, of_coder, of_classifier, speakers=speakers)
rate = common_rate(data.utterances)
for protocol, why in data.impossible.items():
    print(f"{protocol} is left out: {why}")
for protocol, folds in data.folds.items():
    print(protocol, folds.attrs["folds"], *folds.attrs["notes"], sep=" · ")
print(f"{data.of_classifier['per_class']} prototypes for each of {len(data.emotions)} emotions")

# %% [markdown]
# ## The classifier
#
# The encoder turns a segment into an embedding $x$, which is compared with every prototype $p_k$:
# $s_k = \exp(-(\lVert x-p_k\rVert^2)^{1/4})$, which the paper calls l4.

# %%
print(inspect.getsource(prototype_similarity))

# %% [markdown]
# A softmax layer without bias turns the similarities into probabilities. So a prototype counts for or against an emotion
# only as far as the segment is similar to it. The loss is a focal loss on the emotion, plus 0.001 times a second term. The
# second term takes the similarities, rescaled to sum to one, and rewards that one prototype stands out.

# %%
print(inspect.getsource(similarity_loss))
print(inspect.getsource(PrototypeLayer.call))

# %% [markdown]
# The paper starts prototypes at small random numbers and trains for 8,000 to 25,000 epochs. Profile `paper` also starts at
# small random numbers, and trains for up to 20,000 epochs. The other profiles start prototypes at training segments. Each
# prototype then has only a small weight (`start_weight`) for the emotion of its segment, so training still has to learn its
# score. These profiles also add a term to the loss that is not published: `crowding_weight` times the similarity of each
# prototype to its nearest neighbour. It keeps prototypes apart. The training loop is about three times faster than the
# published one (`benchmarks/README.md`), because it runs several epochs in one compiled call.
#
# ## Training
#
# For every speaker and protocol, one model is trained. For some speakers (`compared`), two further models under `utterance`
# show what two of our additions change: one without the shared start of 01, one without the crowding term. Last comes the
# model of all speakers.

# %%
variants = {"without a shared start": {"shared": 0}, "without the crowding term": {"crowding_weight": 0.0}}
is_used = {"shared": bool(data.taught_by) and of_coder["shared"], "crowding_weight": of_classifier["crowding_weight"]}
variants = {name: change for name, change in variants.items() if all(is_used[key] for key in change)}
runs = PrototypeRuns.train(data, variants.values())
protocol = runs.shown_protocol  # the figures below are of this protocol
example = next(iter(runs.own(protocol).values()))

# %%
stages = example.coder.model.encoder, example.fitted.model
figure = networks.architecture(*stages, names=["encoder", "classifier"])
caption = "The whole classifier: encoder, prototypes, classes. Drawn from the models."
style.save_figure(workspace, figure, "02_architecture", caption)
plt.show()

# %%
histories = {name: trained.fitted.history for name, trained in runs.own(protocol).items()}
watched = {name: history for name, history in histories.items() if "val_macro_f1" in history}
kept = {name: best_epoch(history, "val_macro_f1", "max") for name, history in watched.items()}
figure = networks.learning_curves(histories, values=("loss", "macro_f1", "prototype_score"), kept=kept)
caption = f"Training of the classifiers, protocol {protocol}; dots mark the epoch whose weights are kept."
style.save_figure(workspace, figure, "02_learning_curves", caption)
plt.show()

# %% [markdown]
# ## Predictions
#
# The results of the single-speaker models are pooled (`per_speaker`). Those of the model of all speakers are separate
# (`all_speakers`). Each prediction is for one segment of a test recording. For a whole utterance, we average the
# probabilities of its segments, at most `test_per_clip` of them at even distances, so that every protocol has the same number
# of votes.

# %%
runs.save()

# %% [markdown]
# Under `paper`, everything leaks: test segments overlap with training segments, and the test part chooses the epoch. If the
# profile limits the number of training segments (`most_train`), fewer neighbours are trained on, and the `paper` scores are
# less inflated than at the published setting. The table shows how many segments vote for an utterance, and which share of
# the tested segments overlaps a training segment.

# %%
runs.votes().round(1)

# %% [markdown]
# ## How much is left when nothing leaks

# %%
scores = runs.scores()
scores.pivot_table(index=["level", "model"], columns="protocol", values="uar", sort=False).round(3)

# %%
for level in ("segment", "utterance"):
    figure = spectrograms.scores(scores[scores["level"] == level], chance=1 / len(data.emotions))
    caption = f"UAR of prototype classifiers, decided by {level}, from the published split (leaks) to unseen speakers"
    style.save_figure(workspace, figure, f"02_fall_{level}", caption)
    plt.show()

# %% [markdown]
# `paper` is speaker-dependent and tests segments whose neighbours were trained on. `utterance` and `sentence` are also
# speaker-dependent, but test recordings or texts that training has not heard. Only `speaker` is speaker-independent. For
# comparison: the published mean over 13 speakers of EmoMatchSpanishDB is accuracy 0.663 and macro-F1 0.595, on the leaking
# split.

# %%
per_speaker = scores[scores["model"] == "per_speaker"].set_index(["level", "protocol"])
per_speaker[["n_utterances", "accuracy", "macro_f1", "uar"]].round(3)

# %% [markdown]
# The published scores are for segments. The scores of utterances are closer to what a listener does.
#
# ## Prototype scores before and after training
#
# The score of a prototype is the largest share of any emotion in the softmax of its weights. The published training log ends
# at a mean of 74 %. Twins are here prototypes whose vectors correlate by more than .95 with another one, after their common
# mean is removed. Notebook 03 compares sounds and notebook 10 similarities, so their shares of twins differ.

# %%
earned = per_speaker.loc["segment", ["start_score", "prototype_score", "start_twins", "prototype_twins", "uar"]]
earned.round(3)

# %%
gain, heard = (earned["prototype_score"] - earned["start_score"]).mean(), earned["uar"]
print(
    f"training moved the mean score by {gain:+.0f} points to {earned['prototype_score'].mean():.0f} %; "
    f"between protocols it differs by {np.ptp(earned['prototype_score']):.1f} points, "
    f"the UAR by {100 * np.ptp(heard):.1f}"
)

# %% [markdown]
# A high score does not mean a correct answer. It measures how clearly a prototype stands for one emotion, not whether the
# emotion is right.
#
# ## At the published settings
#
# We also trained classifiers at the published settings: prototypes that start at small random numbers, up to 20,000 passes over
# the training segments, and early stopping after 1,000 passes without improvement. The classifiers of RAVDESS were trained on an
# accelerator, and for five of the eight the available time ended before early stopping did. Those of EmoDB were trained on two
# cores. In the table and the figure below, an *epoch* stands for several passes over the segments: five on EmoDB, two on
# RAVDESS. The encoders are those that 01 shows. Compare `prototype_score` with the published 74 %.

# %%
shipped = REPOSITORY / "results" / workspace.name / published.FOLDER
at_size = published.summarise_published(shipped) if shipped.exists() else pd.DataFrame()
at_size = at_size.dropna(subset="classifier_epochs") if len(at_size) else at_size
if len(at_size):
    histories = pd.read_csv(shipped / "histories.csv")
    print(*published.tell_classifiers(at_size, histories), sep="\n")
    levels = [f"{level}_{name}" for level in ("segment", "utterance") for name in ("accuracy", "macro_f1", "uar")]
    display(at_size.set_index(["protocol", "model"])[["classifier_epochs", "prototype_score", *levels]].round(3))
else:
    print(f"No classifier of {workspace.name} was trained on an accelerator, only those of RAVDESS.")

# %%
if len(at_size):
    curves = published.read_curves(histories, "classifier")
    curves = {run: curve for run, curve in curves.items() if run.startswith("paper")}
    figure = networks.learning_curves(curves, values=("loss", "macro_f1", "prototype_score"))
    caption = "Prototype classifiers at the published settings, on the published split."
    style.save_figure(workspace, figure, "02_published", caption)
    plt.show()

# %% [markdown]
# ## What the shared start and the crowding term change
#
# Single-speaker models of the same speakers under `utterance`: with both, and without one of the two.

# %%
changed = {name: runs.own("utterance", **change) for name, change in variants.items()}
unchanged = {m: trained for m, trained in runs.own("utterance").items() if any(m in own for own in changed.values())}
compared = {name: own for name, own in ({"as it is": unchanged} | changed).items() if own}
rows = [row for name, own in compared.items() for row in score_models(own.values(), model=name)]
columns = ["accuracy", "macro_f1", "uar", "prototype_score", "prototype_twins"]
if rows:
    display(pd.DataFrame(rows).set_index(["level", "model"]).sort_index()[columns].round(3))
else:
    print("Nothing to compare: these models were trained without both, or no others were trained.")

# %% [markdown]
# ## Which emotions are confused

# %%
segments = pd.concat([trained.predictions for trained in runs.own(protocol).values()])
for level, answers in (("segment", segments), ("utterance", metrics.vote_utterances(segments))):
    title = f"{level}s, protocol {protocol}, single-speaker models"
    figure = networks.confusion_matrix(answers["emotion"], answers["prediction"], title=title)
    style.save_figure(workspace, figure, f"02_confusion_{level}", f"Confusions: {title}.")
    plt.show()

# %%
figure = prototypes.class_recall(runs.recall())
style.save_figure(workspace, figure, "02_recall", "Recall per emotion, segments, single-speaker models.")
plt.show()

# %% [markdown]
# Compare the protocols for each emotion. If an emotion is recognised under `paper` but not under `utterance`, the model may
# have recognised the recording rather than the emotion.
#
# ## The prototypes, decoded
#
# The decoder turns each prototype back into a spectrogram. The number above it is its score.

# %%
table, log_mels = example.strongest(data.of_classifier["top"])
figure = prototypes.spectrogram_rows(prototypes.by_emotion(log_mels, table), rate)
caption = f"Strongest prototypes of {example.run.model}, protocol {protocol}, decoded."
style.save_figure(workspace, figure, "02_prototypes", caption)
plt.show()

# %% [markdown]
# ## A report per speaker
#
# One PDF per speaker contains settings, scores, learning curves, confusions, classification reports and prototypes.

# %%
for name in runs.by_speaker():
    pages = prototypes.training_report(runs, name, scores, rate)
    path = workspace.figures / f"02_report_{name}.pdf"
    print(prototypes.save_report(path, pages, f"{name} of {dataset}").name)

# %% [markdown]
# ## Saved

# %%
classifiers, neighbours = runs.tables()
workspace.save_table(classifiers, "prototype_classifiers")
workspace.save_table(neighbours, "prototype_neighbours")
write_csv(workspace.results / "02_prototype_scores.csv", scores)
workspace.record("02", data.utterances, of_coder | data.of_classifier)
seconds = sum(trained.fitted.seconds for trained in runs)
print(f"{len(classifiers)} classifiers, trained in {seconds:.0f} s; 03 reads them next")
