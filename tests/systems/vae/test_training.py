"""The classifier on a VAE's latent: one rule of decision, wherever it is fitted."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from sklearn.svm import SVC

from ser_utils.systems.vae.network import INPUTS
from ser_utils.systems.vae.training import FoldVae, classify
from ser_utils.training.fit import Fitted

CLASSES = ["anger", "calm", "disgust", "fear", "neutral", "sadness"]


@pytest.fixture(scope="module")
def vae():
    """A fold of 900 clips whose six classes overlap so much that pairwise votes are often equal."""
    random = np.random.default_rng(0)
    label = random.integers(len(CLASSES), size=900)
    x = (random.normal(size=(900, 8)) + 1.5 * np.eye(8)[label]).astype("float32")
    rows = pd.DataFrame({"utterance_id": [f"u{i}" for i in range(900)], "speaker": [f"s{i % 9}" for i in range(900)]})
    rows["emotion"] = np.array(CLASSES)[label]
    roles = np.repeat(["train", "validation", "test"], 300)
    fold = pd.DataFrame({"utterance_id": rows["utterance_id"], "start_ms": np.nan, "fold": 0, "role": roles})
    fitted = Fitted(None, pd.DataFrame(), 0.0, None, {"scaler": ["train"]})
    return FoldVae(fold, fitted, None, x, {"mean": x[:, ::-1].copy()}, rows)


@pytest.mark.parametrize("inputs", INPUTS)
def test_the_answer_on_a_latent_is_the_highest_probability_also_where_votes_are_equal(vae, inputs):
    told = classify([vae], inputs)["predictions"]
    assert (told.filter(regex="^p_").idxmax(axis=1).str[2:] == told["prediction"]).all()
    learned, tested = vae.places("train", "validation"), vae.places("test")
    seen = vae.inputs(inputs)
    by_order = SVC().fit(seen[learned], vae.rows["emotion"].iloc[learned]).predict(seen[tested])
    assert 0 < (by_order != told["prediction"].to_numpy()).mean() < 0.1  # the rule matters here: equal votes occur


def test_inside_a_fold_the_same_classifier_learns_from_training_alone(vae):
    """Notebook 06 compares values of beta so: validation clips are asked, test clips are left out."""
    inside = vae.fold[vae.fold["role"] != "test"].replace({"role": {"validation": "test"}})
    told = classify([replace(vae, fold=inside)], "latent")["predictions"]
    train, watched = vae.places("train"), vae.places("validation")
    svc = SVC(break_ties=True).fit(vae.inputs("latent")[train], vae.rows["emotion"].iloc[train])
    assert list(told["utterance_id"]) == list(vae.rows["utterance_id"].iloc[watched])
    assert list(told["prediction"]) == list(svc.predict(vae.inputs("latent")[watched]))
