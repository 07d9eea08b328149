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


class Network(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.first = torch.nn.Conv2d(1, 4, 3, padding="same", bias=False)
        self.first.weight.data = torch.tensor(kernel).permute(3, 2, 0, 1)
        self.last = torch.nn.ReLU()

    def forward(self, inputs):
        hidden = self.last(self.first(inputs)).permute(0, 2, 3, 1).reshape(len(inputs), -1)
        return torch.softmax(hidden @ torch.tensor(dense), dim=1)


network = Network().eval()


def log_odds(inputs):
    p = network(inputs)
    return torch.log(p[:, CLASS]) - torch.log(p.sum(1) - p[:, CLASS])


given = torch.tensor(x[None], requires_grad=True)
maps = {
    "gradient": captum.attr.Saliency(log_odds).attribute(given, abs=False),
    "gradient_times_input": captum.attr.InputXGradient(log_odds).attribute(given),
    "integrated_gradients": captum.attr.IntegratedGradients(log_odds).attribute(
        given, baselines=0.0, n_steps=50, method="riemann_middle"
    ),
    "occlusion": captum.attr.Occlusion(log_odds).attribute(
        given, sliding_window_shapes=(1, 4, 4), strides=(1, 2, 2), baselines=0.0
    ),
    "grad_cam": captum.attr.LayerGradCam(log_odds, network.last).attribute(given, relu_attributions=True),
}
maps = {name: values.detach().numpy()[0, 0] for name, values in maps.items()}

whole = maps["integrated_gradients"][None, None]
about = {"model": network, "softmax": False, "device": "cpu"}  # it has a softmax of its own
about |= {"x_batch": x[None], "y_batch": np.array([CLASS]), "a_batch": whole}
plain = {"abs": False, "normalise": False, "disable_warnings": True}
measured = {
    "deletion": quantus.PixelFlipping(features_in_step=FEATURES_IN_STEP, perturb_baseline=0.0, **plain)(**about)[0],
    "sparseness": quantus.Sparseness(**plain | {"abs": True})(**about)[0],
    "localisation": quantus.AUC(**plain)(**about, s_batch=mask[None, None])[0],
    "spearman": quantus.correlation_spearman(np.abs(maps["occlusion"]).ravel(), np.abs(whole).ravel()),
}
np.savez_compressed(
    Path(__file__).with_name("explanations.npz"), kernel=kernel, dense=dense, x=x[0], mask=mask, **maps, **measured
)
