"""SigWavNet in PyTorch, for the time of its training step alone; the project itself does not need PyTorch.

python benchmarks/pytorch_sigwavnet.py GOLDEN.npz SETTINGS, with an interpreter that has torch, numpy and nothing else.
First it has to agree with the reference's own values; then it trains, and prints its seconds a step as JSON.
"""

import json
import sys
import time

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F


class Branch(nn.Module):
    """One band to one vector, layers named as in the reference."""

    def __init__(self, channels, units, layers):
        super().__init__()
        wide = 2 * channels
        self.conv1 = nn.Conv1d(1, channels, 7, stride=4, dilation=3)
        self.conv1_1 = nn.Conv1d(channels, wide, 5, stride=4, dilation=2)
        self.dense1 = nn.Conv1d(wide, wide, 7, padding=3)
        self.spatialAttn = nn.ModuleDict({"op": nn.Conv1d(wide, 1, 1, bias=False)})
        self.gru1 = nn.GRU(wide, units, layers, batch_first=True, bidirectional=True)
        fully = {"fc1": nn.Linear(2 * units, 2 * units, bias=False)}
        self.tempAttn = nn.ModuleDict(fully | {"fc2": nn.Linear(4 * units, 2 * units, bias=False)})

    def forward(self, band):
        x = normed(self.conv1_1(normed(self.conv1(band))))
        attention = self.spatialAttn["op"](x + normed(self.dense1(x))).softmax(dim=2)
        x = F.leaky_relu(x + (attention * x).sum(dim=2, keepdim=True))
        h, _ = self.gru1(x.transpose(1, 2))
        scores = self.tempAttn["fc1"](h) @ h[:, -1, :, None]
        context = (scores.softmax(dim=1) * h).sum(dim=1)
        return torch.tanh(self.tempAttn["fc2"](torch.cat([context, h[:, -1]], dim=1)))


def normed(x):
    return F.leaky_relu(F.instance_norm(x))


class SigWavNet(nn.Module):
    """Constraint PerLayer: one kernel a level. Waveform (batch, samples), standardised -> log-probabilities."""

    def __init__(self, classes, levels, gru_units, gru_layers, channels, width=20):
        super().__init__()
        self.kernels = nn.ParameterList([nn.Parameter(torch.randn(width) / width) for _ in range(levels)])
        self.thresholds = nn.ParameterList([nn.Parameter(torch.tensor([0.5, 0.5, 10.0])) for _ in range(levels)])
        self.conv1ds = nn.ModuleList([Branch(channels, gru_units, gru_layers) for _ in range(levels + 1)])
        self.weights = nn.Parameter(torch.ones(levels + 1))
        self.conv1_3 = nn.Conv1d(levels + 1, classes, 5)

    def forward(self, waveform):
        signal, details = waveform[:, None], []
        for kernel, (positive, negative, alpha) in zip(self.kernels, self.thresholds, strict=True):
            signs = torch.tensor([1.0, -1.0]).repeat(len(kernel) // 2)
            x = F.conv1d(signal, (kernel.flip(0) * signs)[None, None], stride=2)
            details.append(x * (torch.sigmoid(alpha * (x - positive)) + torch.sigmoid(-alpha * (x + negative))))
            signal = F.conv1d(signal, kernel[None, None], stride=2)
        vectors = [branch(band) for branch, band in zip(self.conv1ds, [*details, signal], strict=True)]
        stacked = torch.stack([vectors[-1], *vectors[:-1]], dim=1) * self.weights[:, None]
        return normed(self.conv1_3(stacked)).mean(dim=2).log_softmax(dim=1)


def difference_from_reference(path):
    """Largest difference of log-probabilities from those of the reference, with its weights."""
    golden = np.load(path, allow_pickle=False)
    arrays = {name[2:]: torch.tensor(golden[name]) for name in golden.files if name.startswith("w:")}
    levels = sum(name.startswith("kernelsG_") for name in arrays)
    classes, _, _ = arrays["conv1_3.weight"].shape
    layers = sum(name.startswith("conv1ds.0.gru1.weight_ih") for name in arrays) // 2
    units = arrays["conv1ds.0.gru1.weight_hh_l0"].shape[1]
    model = SigWavNet(classes, levels, units, layers, len(arrays["conv1ds.0.conv1.bias"]))
    state = {f"kernels.{level}": arrays[f"kernelsG_.{level}.kernel"].reshape(-1) for level in range(levels)} | {
        f"thresholds.{level}": torch.cat(
            [arrays[f"HardThresholdAssymH.{level}.{name}"].reshape(1) for name in ("thrP", "thrN", "alpha")]
        )
        for level in range(levels)
    }
    state["weights"] = arrays["channel_weighting.weights"].reshape(-1)
    state |= {name: value for name, value in arrays.items() if name.split(".")[0] in ("conv1ds", "conv1_3")}
    model.load_state_dict(state)
    with torch.no_grad():
        found = model(torch.tensor(golden["waveform"])[:, 0]).numpy()
    return float(np.abs(found - golden["log_probabilities"]).max())


def seconds_a_step(*, samples, batch_size, classes, repeats, clock, **sizes):
    """Least seconds of a training step, forward, backward and Adam, on noise; clock : a function of `time`."""
    torch.manual_seed(0)
    model = SigWavNet(classes, **sizes)
    optimizer = torch.optim.Adam(model.parameters(), 1e-5)
    x, y = torch.randn(batch_size, samples), torch.arange(batch_size) % classes
    spent = []
    for _ in range(repeats + 1):
        start = getattr(time, clock)()
        optimizer.zero_grad()
        F.nll_loss(model(x), y).backward()
        optimizer.step()
        spent.append(getattr(time, clock)() - start)
    return min(spent[1:])


if __name__ == "__main__":
    found = {"difference": difference_from_reference(sys.argv[1]), "version": torch.__version__}
    print(json.dumps(found | {"seconds": seconds_a_step(**json.loads(sys.argv[2]))}))
