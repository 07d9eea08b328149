"""Write explanations.npz: what Quantus and Captum say of one small network, to hold our explanations against.

Run once, anywhere: pip install torch quantus captum, then python make_explanations.py. Made with Quantus 0.6.0, Captum
0.9.0 and PyTorch 2.13.0. The tests need none of these.
"""

from pathlib import Path

import captum.attr
import numpy as np
import quantus
import torch

CLASS, FEATURES_IN_STEP = 1, 5
rng = np.random.default_rng(0)
kernel = rng.normal(0, 0.5, (3, 3, 1, 4)).astype("float32")  # as Keras has it: rows, columns, from, to
dense = rng.normal(0, 0.2, (400, 3)).astype("float32")
x = rng.normal(0, 1, (1, 10, 10)).astype("float32")
mask = np.zeros((10, 10), bool)
mask[2:5, 3:8] = True


class Weights(torch.nn.Module):
    """Weights in Keras's order of axes. Quantus randomises a layer by `reset_parameters`: this one shuffles."""

    together = None  # the generator of several layers

    def __init__(self, values):
        super().__init__()
        self.values = torch.nn.Parameter(torch.tensor(values), requires_grad=False)

    def reset_parameters(self):
        generator = self.together or np.random.default_rng(0)
        values = generator.permutation(self.values.numpy().ravel()).reshape(self.values.shape)
        self.values.data = torch.tensor(values)


class Network(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.kernel, self.dense, self.last = Weights(kernel), Weights(dense), torch.nn.ReLU()

    def forward(self, inputs):
        y = torch.nn.functional.conv2d(inputs, self.kernel.values.permute(3, 2, 0, 1), padding="same")
        return torch.softmax(self.last(y).permute(0, 2, 3, 1).reshape(len(inputs), -1) @ self.dense.values, dim=1)


network = Network().eval()


def log_odds_of(model):
    def log_odds(inputs):
        p = model(inputs)
        return torch.log(p[:, CLASS]) - torch.log(p.sum(1) - p[:, CLASS])

    return log_odds


def gradient(model, given):
    return captum.attr.Saliency(log_odds_of(model)).attribute(given, abs=False)


def integrated_gradients(model, given):
    of_model = captum.attr.IntegratedGradients(log_odds_of(model))
    return of_model.attribute(given, baselines=0.0, n_steps=50, method="riemann_middle")


def occlusion(model, given):
    patches = {"sliding_window_shapes": (1, 4, 4), "strides": (1, 2, 2)}
    return captum.attr.Occlusion(log_odds_of(model)).attribute(given, baselines=0.0, **patches)


given = torch.tensor(x[None], requires_grad=True)
log_odds = log_odds_of(network)
maps = {
    "gradient": gradient(network, given),
    "gradient_times_input": captum.attr.InputXGradient(log_odds).attribute(given),
    "integrated_gradients": integrated_gradients(network, given),
    "occlusion": occlusion(network, given),
    "grad_cam": captum.attr.LayerGradCam(log_odds, network.last).attribute(given, relu_attributions=True),
}
maps = {name: values.detach().numpy()[0, 0] for name, values in maps.items()}

whole = maps["integrated_gradients"][None, None]
about = {"model": network, "softmax": False, "device": "cpu"}  # it has a softmax of its own
about |= {"x_batch": x[None], "y_batch": np.array([CLASS]), "a_batch": whole}
plain = {"abs": False, "normalise": False, "disable_warnings": True}
flipping = {"features_in_step": FEATURES_IN_STEP, "perturb_baseline": 0.0} | plain
measured = {
    "deletion": quantus.PixelFlipping(**flipping)(**about)[0],
    # the least important first: read from its end, the most important are put in
    "flipping_of_the_least": quantus.PixelFlipping(**flipping)(**about | {"a_batch": -whole})[0],
    "sparseness": quantus.Sparseness(**plain | {"abs": True})(**about)[0],
    "localisation": quantus.AUC(**plain)(**about, s_batch=mask[None, None])[0],
    "spearman": quantus.correlation_spearman(np.abs(maps["occlusion"]).ravel(), np.abs(whole).ravel()),
}
noise = 0.1 * np.random.default_rng(0).standard_normal(x.shape).astype("float32") * x.std()
assert network(given).argmax() == network(given + torch.tensor(noise)).argmax()


def likeness(a, b, **_):
    return quantus.correlation_spearman(a, b, batched=True)


for explain in (gradient, integrated_gradients, occlusion):

    def explained(model, inputs, targets, explain=explain, **_):
        return (
            explain(model, torch.tensor(np.asarray(inputs), dtype=torch.float32, requires_grad=True)).detach().numpy()
        )

    asked = about | {"a_batch": maps[explain.__name__][None, None], "explain_func": explained}
    compared = {"similarity_func": likeness, "disable_warnings": True, "abs": True, "normalise": False}
    # the mean of one noise, and Spearman's correlation in place of a distance
    unscaled = {"norm_numerator": lambda a: a, "norm_denominator": lambda a: 1.0, "nr_samples": 1}
    noisy = quantus.AvgSensitivity(perturb_func=lambda arr, indices, **_: arr + noise.ravel(), **unscaled, **compared)
    measured[f"stability_{explain.__name__}"] = noisy(**asked)[0]
    for order in ("independent", "bottom_up"):  # each layer alone, and the first and then the others with it
        Weights.together = np.random.default_rng(0) if order == "bottom_up" else None
        scores = quantus.MPRT(layer_order=order, **compared)(**asked)
        measured |= {f"{order}_{layer}_{explain.__name__}": scores[layer][0] for layer in ("kernel", "dense")}

np.savez_compressed(
    Path(__file__).with_name("explanations.npz"), kernel=kernel, dense=dense, x=x[0], mask=mask, **maps, **measured
)
