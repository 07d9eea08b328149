"""wav2vec 2.0, HuBERT, WavLM and data2vec-audio in Keras, reading the published checkpoints.

Waveform → convolutions (one frame each 20 ms) → projection → convolutional positions → transformer.
Layers carry the checkpoint's names, so that loading is one loop over the weights.
Sources: Baevski et al. 2020 (arXiv 2006.11477), Hsu et al. 2021 (arXiv 2106.07447), Babu et al. 2021
(XLS-R, arXiv 2111.09296), Chen et al. 2022 (WavLM, arXiv 2110.13900), Baevski et al. 2022 (data2vec, arXiv 2202.03555).
"""

import dataclasses
import functools
import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import keras
import numpy as np
from keras import layers, ops
from safetensors import SafetensorError, safe_open

from ser_utils.systems.sigwavnet.waveforms import time_mask

FAMILIES = ("wav2vec2", "hubert", "wavlm", "data2vec-audio")
ACTIVATIONS = {
    "gelu": functools.partial(keras.activations.gelu, approximate=False),
    "gelu_new": functools.partial(keras.activations.gelu, approximate=True),
    "relu": keras.activations.relu,
    "silu": keras.activations.silu,
}
# What stands beside the encoder in published files: heads, quantisers, and the vector that hides frames in
# pretraining. None of it reaches the hidden states.
HEADS = tuple(
    "lm_head classifier projector tdnn objective layer_weights quantizer project_q project_hid final_proj "
    "label_embs_concat feature_extractor.weight feature_extractor.bias".split()
)
NORMED = "encoder.pos_conv_embed.conv.weight"
WEIGHT_NORM = {  # in PyTorch's older and newer spelling
    "encoder.pos_conv_embed.conv.weight_g": "g",
    "encoder.pos_conv_embed.conv.weight_v": "v",
    "encoder.pos_conv_embed.conv.parametrizations.weight.original0": "g",
    "encoder.pos_conv_embed.conv.parametrizations.weight.original1": "v",
}
UNUSED = ("masked_spec_embed", "adapter.", "encoder.pos_conv_embed.batch_norm.num_batches_tracked")


class CheckpointError(ValueError):
    """A checkpoint that is not what it says, or not what can be read safely; the text says which tensor."""


@dataclass(frozen=True)
class Architecture:
    """The facts of config.json that shape the encoder, by their names there; defaults are the base size.

    Parameters
    ----------
    feat_extract_norm : "group" (each channel over time, after the first convolution) or "layer" (all channels,
        after each convolution)
    do_stable_layer_norm : normalise before each sublayer instead of after it
    adapter_attn_dim : width of the per-language adapters of the MMS checkpoints, None without
    num_conv_pos_embeddings : frames that the position convolution sees; in data2vec-audio how many convolutions there are
    conv_pos_kernel_size : frames that each of data2vec-audio's position convolutions sees
    num_buckets, max_bucket_distance : of WavLM's relative positions: how many kinds of distance there are, in both
        directions together, and the distance in frames beyond which all are of one kind
    """

    model_type: str = "wav2vec2"
    hidden_size: int = 768
    num_hidden_layers: int = 12
    num_attention_heads: int = 12
    intermediate_size: int = 3072
    hidden_act: str = "gelu"
    hidden_dropout: float = 0.1
    attention_dropout: float = 0.1
    activation_dropout: float = 0.1
    feat_proj_dropout: float = 0.0
    layer_norm_eps: float = 1e-5
    feat_extract_norm: str = "group"
    feat_extract_activation: str = "gelu"
    feat_proj_layer_norm: bool = True
    conv_dim: tuple = (512,) * 7
    conv_stride: tuple = (5, 2, 2, 2, 2, 2, 2)
    conv_kernel: tuple = (10, 3, 3, 3, 3, 2, 2)
    conv_bias: bool = False
    conv_pos_batch_norm: bool = False
    num_conv_pos_embeddings: int = 128
    num_conv_pos_embedding_groups: int = 16
    do_stable_layer_norm: bool = False
    adapter_attn_dim: int | None = None
    conv_pos_kernel_size: int = 19
    num_buckets: int = 320
    max_bucket_distance: int = 800

    def __post_init__(self):
        for name in ("conv_dim", "conv_stride", "conv_kernel"):
            object.__setattr__(self, name, tuple(getattr(self, name)))
        if self.model_type not in FAMILIES:
            raise CheckpointError(f"Only {', '.join(FAMILIES)} are read. Received: model_type={self.model_type!r}")
        for name, accepted in {
            "hidden_act": ACTIVATIONS,
            "feat_extract_activation": ACTIVATIONS,
            "feat_extract_norm": ("group", "layer"),
        }.items():
            if getattr(self, name) not in accepted:
                raise CheckpointError(
                    f"{name} must be one of {', '.join(accepted)}. Received: {name}={getattr(self, name)!r}"
                )
        if not len(self.conv_dim) == len(self.conv_stride) == len(self.conv_kernel):
            raise CheckpointError(
                "conv_dim, conv_stride and conv_kernel must be of one length. "
                f"Received: {self.conv_dim}, {self.conv_stride}, {self.conv_kernel}"
            )
        for name in ("num_attention_heads", "num_conv_pos_embedding_groups"):
            if self.hidden_size % getattr(self, name):
                raise CheckpointError(
                    f"hidden_size must be a multiple of {name}. Received: {self.hidden_size}, {getattr(self, name)}"
                )

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> "Architecture":
        """From the content of a config.json; keys that do not shape the encoder are left out."""
        names = {field.name for field in dataclasses.fields(cls)}
        known = {"model_type": None} | {key: value for key, value in config.items() if key in names}
        if known["model_type"] == "data2vec-audio":  # it has no other, and its files do not say so
            known |= {"feat_extract_norm": "layer", "do_stable_layer_norm": False}
        return cls(**known)

    @property
    def has_relative_positions(self) -> bool:
        """Whether attention weighs how far apart two frames are, as WavLM's does."""
        return self.model_type == "wavlm"

    @property
    def hop(self) -> int:
        """Samples from one frame to the next (320 in every published checkpoint: 20 ms)."""
        return int(np.prod(self.conv_stride))

    @property
    def receptive_field(self) -> int:
        """Samples one frame sees before the transformer (400: 25 ms)."""
        field = 1
        for kernel, stride in zip(reversed(self.conv_kernel), reversed(self.conv_stride), strict=True):
            field = (field - 1) * stride + kernel
        return field

    def n_frames(self, n_samples: Any) -> Any:
        """Frames the convolutions make of `n_samples` (a number or a tensor)."""
        for kernel, stride in zip(self.conv_kernel, self.conv_stride, strict=True):
            n_samples = (n_samples - kernel) // stride + 1
        return n_samples


@dataclass(frozen=True)
class Preprocessing:
    """What a checkpoint wants of its input, from preprocessor_config.json.

    Parameters
    ----------
    sample_rate_hz : the rate it was trained at
    normalise : whether each clip is brought to zero mean and unit variance
    use_mask : whether padding is masked; "group" checkpoints were trained on zero-padded clips without masks
    """

    sample_rate_hz: int = 16_000
    normalise: bool = True
    use_mask: bool = False

    def pad(self, signals: list[np.ndarray]) -> tuple[np.ndarray, np.ndarray | None]:
        """One batch of clips of any lengths.

        Parameters
        ----------
        signals : float (n_samples,) each

        Returns
        -------
        waveform float32 (batch, longest), zeros after each clip's end; and the mask, bool of the same shape, or
        None where the checkpoint uses none
        """
        lengths = np.array([len(signal) for signal in signals])
        waveform = np.zeros((len(signals), lengths.max()), np.float32)
        for row, signal in zip(waveform, signals, strict=True):
            if self.normalise:
                signal = (signal - np.mean(signal)) / np.sqrt(np.var(signal) + 1e-7)
            row[: len(signal)] = signal
        return waveform, np.arange(lengths.max()) < lengths[:, None] if self.use_mask else None


class FeatureConvolution(layers.Layer):
    """One of the convolutions that turn samples into frames: y = activation(norm(conv(x))).

    x : float (batch, n, channels_in) → float (batch, (n - kernel) // stride + 1, channels_out)
    """

    def __init__(self, index, architecture, **kwargs):
        super().__init__(**kwargs)
        a, channels = architecture, architecture.conv_dim[index]
        kernel, stride = a.conv_kernel[index], a.conv_stride[index]
        self.conv = layers.Conv1D(channels, kernel, stride, use_bias=a.conv_bias, name="conv")
        self.activation = ACTIVATIONS[a.feat_extract_activation]
        self.layer_norm = None
        if a.feat_extract_norm == "layer":
            self.layer_norm = layers.LayerNormalization(epsilon=1e-5, name="layer_norm")
        elif index == 0:  # a group a channel: over time, padding included, as the checkpoints were trained
            self.layer_norm = layers.GroupNormalization(channels, epsilon=1e-5, name="layer_norm")

    def call(self, x):
        x = self.conv(x)
        return self.activation(x if self.layer_norm is None else self.layer_norm(x))


class FeatureProjection(layers.Layer):
    """Frames of the convolutions → float (batch, n_frames, hidden_size)."""

    def __init__(self, architecture, **kwargs):
        super().__init__(**kwargs)
        a = architecture
        self.layer_norm = None
        if a.feat_proj_layer_norm:
            self.layer_norm = layers.LayerNormalization(epsilon=a.layer_norm_eps, name="layer_norm")
        self.projection = layers.Dense(a.hidden_size, name="projection")
        self.dropout = layers.Dropout(a.feat_proj_dropout)

    def call(self, x, training=False):
        x = x if self.layer_norm is None else self.layer_norm(x)
        return self.dropout(self.projection(x), training=training)


class GroupedConvolution(layers.Layer):
    """Same-length convolution in groups; an even kernel's surplus last frame is dropped.

    x : float (batch, n_frames, channels) → the same shape
    One convolution a group: TensorFlow on a CPU knows grouped ones only through a compilation per clip length.
    """

    def __init__(self, kernel_size, groups, **kwargs):
        super().__init__(**kwargs)
        self.kernel_size, self.groups = kernel_size, groups

    def build(self, input_shape):
        channels = input_shape[-1]
        shape = (self.kernel_size, channels // self.groups, channels)
        # the published initialisation: He's, over what one output sees
        spread = keras.initializers.RandomNormal(stddev=(2 / (shape[0] * shape[1])) ** 0.5)
        self.kernel = self.add_weight(shape=shape, initializer=spread, name="kernel")
        self.bias = self.add_weight(shape=(channels,), initializer="zeros", name="bias")

    def call(self, x):
        half = self.kernel_size // 2
        x = ops.pad(x, [[0, 0], [half, half - 1 + self.kernel_size % 2], [0, 0]])
        parts = zip(ops.split(x, self.groups, axis=-1), ops.split(self.kernel, self.groups, axis=-1), strict=True)
        return ops.concatenate([ops.conv(part, kernel) for part, kernel in parts], axis=-1) + self.bias


class PositionConvolution(layers.Layer):
    """Where a frame stands, told by a wide convolution: activation(conv(x)), to be added to x.

    The checkpoint's weight norm, w = g · v / |v|, is multiplied out when it is loaded.
    """

    def __init__(self, architecture, **kwargs):
        super().__init__(**kwargs)
        a = architecture
        width, groups = a.num_conv_pos_embeddings, a.num_conv_pos_embedding_groups
        self.conv, self.batch_norm = GroupedConvolution(width, groups, name="conv"), None
        if a.conv_pos_batch_norm:
            self.batch_norm = layers.BatchNormalization(epsilon=1e-5, name="batch_norm")
        self.activation = ACTIVATIONS[a.feat_extract_activation]

    def call(self, x):
        x = x if self.batch_norm is None else self.batch_norm(x, training=False)
        return self.activation(self.conv(x))


class StackedPositionConvolutions(layers.Layer):
    """data2vec-audio's positions: several narrow convolutions, each followed by a norm without weights and an activation."""

    def __init__(self, architecture, **kwargs):
        super().__init__(**kwargs)
        a = architecture
        self.convolutions = [
            GroupedConvolution(a.conv_pos_kernel_size, a.num_conv_pos_embedding_groups, name=f"layers.{i}.conv")
            for i in range(a.num_conv_pos_embeddings)
        ]
        self.norm = layers.LayerNormalization(epsilon=1e-5, center=False, scale=False)
        self.activation = ACTIVATIONS[a.feat_extract_activation]

    def call(self, x):
        for convolution in self.convolutions:
            x = self.activation(self.norm(convolution(x)))
        return x


class RelativePositions(layers.Layer):
    """A number for each head and each pair of frames, by how far apart they are: (1, heads, n_frames, n_frames).

    Distances have kinds of their own up to a quarter of `num_buckets`, and share kinds beyond, ever more of them.
    The checkpoint keeps these numbers in its first layer, and all layers use them.
    Source: Chen et al. 2022, equation 3 (after Raffel et al. 2020, T5).
    """

    def __init__(self, architecture, **kwargs):
        super().__init__(**kwargs)
        self.heads, self.n_kinds = architecture.num_attention_heads, architecture.num_buckets
        self.furthest = architecture.max_bucket_distance

    def build(self, *_):
        self.kernel = self.add_weight(shape=(self.heads, self.n_kinds), name="kernel")

    def call(self, x):
        frames = ops.arange(ops.shape(x)[1])
        return ops.take(self.kernel, self.kind(frames[None, :] - frames[:, None]), axis=1)[None]

    def kind(self, distance):
        """Number of the kind of each distance, int of the same shape; positive is later."""
        half = self.n_kinds // 2
        near, far = half // 2, ops.abs(distance)
        ratio = ops.log(ops.maximum(ops.cast(far, "float32"), 1.0) / near) / math.log(self.furthest / near)
        shared = ops.minimum(near + ops.cast(ratio * (half - near), "int32"), half - 1)
        kind = ops.where(far < near, far, shared)
        return kind + half * ops.cast(distance > 0, "int32")


class SelfAttention(layers.Layer):
    """softmax(q kᵀ / √d + bias) v in `num_attention_heads` heads.

    x : float (batch, n_frames, hidden_size); visible : bool (batch, n_frames), the frames to attend to, or None;
    positions : as RelativePositions gives them, or None. The bias is them, times a gate that each frame and head opens.
    """

    def __init__(self, architecture, **kwargs):
        super().__init__(**kwargs)
        self.size, self.heads = architecture.hidden_size, architecture.num_attention_heads
        for name in ("q_proj", "k_proj", "v_proj", "out_proj"):
            setattr(self, name, layers.Dense(self.size, name=name))
        self.dropout = layers.Dropout(architecture.attention_dropout)
        self.gate = None
        if architecture.has_relative_positions:
            self.gate = layers.Dense(8, name="gru_rel_pos_linear")

    def build(self, x_shape, visible_shape=None, positions_shape=None):
        if self.gate is not None:
            shape = (1, 1, self.heads, 1)
            self.constant = self.add_weight(shape=shape, initializer="ones", name="gru_rel_pos_const")

    def call(self, x, visible=None, positions=None, training=False):
        batch, n = ops.shape(x)[0], ops.shape(x)[1]

        def split(x):
            x = ops.reshape(x, (batch, n, self.heads, self.size // self.heads))
            return ops.transpose(x, (0, 2, 1, 3))  # (batch, heads, n, d)

        query = split(self.q_proj(x) * (self.size // self.heads) ** -0.5)
        scores = ops.matmul(query, ops.transpose(split(self.k_proj(x)), (0, 1, 3, 2)))
        if positions is not None:
            scores = scores + self.opened(split(x)) * positions
        if visible is not None:
            scores = ops.where(visible[:, None, None, :], scores, -1e9)
        weights = self.dropout(ops.softmax(scores), training=training)
        attended = ops.transpose(ops.matmul(weights, split(self.v_proj(x))), (0, 2, 1, 3))
        return self.out_proj(ops.reshape(attended, (batch, n, self.size)))

    def opened(self, x):
        """How far the gate is open, (batch, heads, n, 1): g₁ (g₂ c − 1) + 2, with g₁ and g₂ from the frame itself."""
        pair = ops.sum(ops.reshape(self.gate(x), (*ops.shape(x)[:-1], 2, 4)), axis=-1)
        first, second = ops.split(ops.sigmoid(pair), 2, axis=-1)
        return first * (second * ops.transpose(self.constant, (0, 2, 1, 3)) - 1.0) + 2.0


class FeedForward(layers.Layer):
    """Dense(activation(Dense(x))), wider in between."""

    def __init__(self, architecture, **kwargs):
        super().__init__(**kwargs)
        a = architecture
        self.intermediate_dense = layers.Dense(a.intermediate_size, name="intermediate_dense")
        self.output_dense = layers.Dense(a.hidden_size, name="output_dense")
        self.activation = ACTIVATIONS[a.hidden_act]
        self.inner_dropout = layers.Dropout(a.activation_dropout)
        self.outer_dropout = layers.Dropout(a.hidden_dropout)

    def call(self, x, training=False):
        x = self.inner_dropout(self.activation(self.intermediate_dense(x)), training=training)
        return self.outer_dropout(self.output_dense(x), training=training)


class LanguageAdapter(layers.Layer):
    """The small bottleneck MMS adds after each layer: x + W₂ relu(W₁ norm(x))."""

    def __init__(self, architecture, **kwargs):
        super().__init__(**kwargs)
        a = architecture
        self.norm = layers.LayerNormalization(epsilon=1e-5, name="norm")
        self.linear_1 = layers.Dense(a.adapter_attn_dim, activation="relu", name="linear_1")
        self.linear_2 = layers.Dense(a.hidden_size, name="linear_2")

    def call(self, x):
        return x + self.linear_2(self.linear_1(self.norm(x)))


class EncoderLayer(layers.Layer):
    """One transformer layer, norms after the sublayers, or before them where do_stable_layer_norm.

    x : float (batch, n_frames, hidden_size); visible : bool (batch, n_frames) or None; positions : see SelfAttention
    """

    def __init__(self, architecture, **kwargs):
        super().__init__(**kwargs)
        self.architecture = a = architecture
        self.attention = SelfAttention(a, name="attention")
        self.dropout = layers.Dropout(a.hidden_dropout)
        self.layer_norm = layers.LayerNormalization(epsilon=a.layer_norm_eps, name="layer_norm")
        self.feed_forward = FeedForward(a, name="feed_forward")
        self.final_layer_norm = layers.LayerNormalization(epsilon=a.layer_norm_eps, name="final_layer_norm")
        self.adapter_layer = None
        if a.do_stable_layer_norm and a.adapter_attn_dim is not None:
            self.adapter_layer = LanguageAdapter(a, name="adapter_layer")

    def call(self, x, visible=None, positions=None, training=False):
        def attend(x):
            x = self.attention(x, visible=visible, positions=positions, training=training)
            return self.dropout(x, training=training)

        if self.architecture.do_stable_layer_norm:
            x = x + attend(self.layer_norm(x))
            x = x + self.feed_forward(self.final_layer_norm(x), training=training)
        else:
            x = self.layer_norm(x + attend(x))
            x = self.final_layer_norm(x + self.feed_forward(x, training=training))
        return x if self.adapter_layer is None else self.adapter_layer(x)


def _relative_positions(architecture):
    if not architecture.has_relative_positions:
        return None
    return RelativePositions(architecture, name="encoder.layers.0.attention.rel_attn_embed")


@keras.saving.register_keras_serializable(package="ser_utils")
class TopLayers(layers.Layer):
    """The last `top` layers of an encoder, to be trained on from the hidden states below them.

    Call: hidden state num_hidden_layers - top (batch, n_frames, hidden_size), frames per clip (batch,) -> the
    last hidden state. What is below is frozen, hence computed once and not in here.
    """

    def __init__(self, architecture, top, **kwargs):
        super().__init__(**kwargs)
        self.architecture = a = Architecture(**architecture) if isinstance(architecture, dict) else architecture
        if not 0 < top <= a.num_hidden_layers:
            raise ValueError(f"top must be within 1 … {a.num_hidden_layers}. Received: top={top!r}")
        self.top = top
        first = a.num_hidden_layers - top
        self.blocks = [EncoderLayer(a, name=f"encoder.layers.{i}") for i in range(first, a.num_hidden_layers)]
        self.relative_positions = _relative_positions(a)
        if self.relative_positions is not None:
            self.relative_positions.trainable = False  # the layers below use them too
        self.norm = None
        if a.do_stable_layer_norm:
            self.norm = layers.LayerNormalization(epsilon=a.layer_norm_eps, name="encoder.layer_norm")

    def build(self, *_):
        self.call(ops.zeros((1, 1, self.architecture.hidden_size)), ops.ones((1,), "int32"))

    def call(self, x, n_frames, training=False):
        visible = time_mask(x, n_frames)[..., 0]
        positions = None if self.relative_positions is None else self.relative_positions(x)
        for block in self.blocks:
            x = block(x, visible=visible, positions=positions, training=training)
        return x if self.norm is None else self.norm(x)

    def get_config(self):
        return super().get_config() | {"architecture": dataclasses.asdict(self.architecture), "top": self.top}


@keras.saving.register_keras_serializable(package="ser_utils")
class SpeechTransformer(keras.Model):
    """The encoder of all FAMILIES.

    model(waveform, mask=None) -> list of num_hidden_layers + 1 hidden states, embeddings first, each
    float (batch, n_frames, hidden_size)

    waveform : float (batch, n_samples), prepared as `preprocessing` says (see Preprocessing.pad)
    mask : bool (batch, n_samples), False in the padding after a clip's end; None if nothing is to be masked
    """

    def __init__(self, architecture=None, preprocessing=None, **kwargs):
        super().__init__(**kwargs)
        self.supports_masking = True
        self.jit_compile = False  # XLA would compile anew for every length of a clip
        architecture = architecture if architecture is not None else Architecture()
        preprocessing = preprocessing if preprocessing is not None else Preprocessing()
        if isinstance(architecture, dict):
            architecture, preprocessing = Architecture(**architecture), Preprocessing(**preprocessing)
        self.architecture, self.preprocessing = a, _ = architecture, preprocessing
        self.convolutions = [
            FeatureConvolution(i, a, name=f"feature_extractor.conv_layers.{i}") for i in range(len(a.conv_dim))
        ]
        self.projection = FeatureProjection(a, name="feature_projection")
        kind = StackedPositionConvolutions if a.model_type == "data2vec-audio" else PositionConvolution
        self.positions = kind(a, name="encoder.pos_conv_embed")
        self.relative_positions = _relative_positions(a)
        self.norm = layers.LayerNormalization(epsilon=a.layer_norm_eps, name="encoder.layer_norm")
        self.dropout = layers.Dropout(a.hidden_dropout)
        self.blocks = [EncoderLayer(a, name=f"encoder.layers.{i}") for i in range(a.num_hidden_layers)]

    def build(self, input_shape=None):
        # one frame of silence makes every weight, so that a checkpoint can be read into them
        states = self.call(ops.zeros((1, self.architecture.receptive_field)))
        self.norm(states[-1])

    def call(self, waveform, mask=None, training=False):
        shortest = self.architecture.receptive_field
        if waveform.shape[1] is not None and waveform.shape[1] < shortest:
            raise ValueError(f"A clip must have at least {shortest} samples. Received: {waveform.shape[1]}")
        x = ops.expand_dims(waveform, -1)
        for convolution in self.convolutions:
            x = convolution(x)
        x = self.projection(x, training=training)
        visible = None
        if mask is not None:
            lengths = self.architecture.n_frames(ops.sum(ops.cast(mask, "int32"), axis=1))
            visible = ops.arange(ops.shape(x)[1]) < lengths[:, None]
            x = ops.where(visible[..., None], x, 0.0)
        x = x + self.positions(x)
        x = self.dropout(x if self.architecture.do_stable_layer_norm else self.norm(x), training=training)
        states = [x]
        positions = None if self.relative_positions is None else self.relative_positions(x)
        for block in self.blocks:
            states.append(block(states[-1], visible=visible, positions=positions, training=training))
        return states

    def last_hidden_state(self, state):
        """The last hidden state as heads read it: pre-norm encoders normalise it once more."""
        return self.norm(state) if self.architecture.do_stable_layer_norm else state

    def compute_mask(self, inputs, previous_mask):
        return None  # the samples' mask is not the frames'

    def get_config(self):
        return {
            "name": self.name,
            "architecture": dataclasses.asdict(self.architecture),
            "preprocessing": dataclasses.asdict(self.preprocessing),
        }


def copy_weights(source: keras.Layer, target: keras.Layer) -> None:
    """Copy every weight that an encoder and its TopLayers share, in either direction."""
    given, taken = checkpoint_names(source), checkpoint_names(target)
    for name in given.keys() & taken.keys():
        taken[name].assign(given[name])


def checkpoint_names(model: keras.Layer) -> dict[str, keras.Variable]:
    """Every weight of an encoder, or of its TopLayers, under its name in the published files.

    A published tensor is the transpose of the variable.
    """
    spelling = {"kernel": "weight", "gamma": "weight", "beta": "bias", "bias": "bias"}
    spelling |= {"moving_mean": "running_mean", "moving_variance": "running_var"}
    spelling["gru_rel_pos_const"] = "gru_rel_pos_const"
    names = {}
    for variable in model.weights:
        *place, kind = variable.path.split("/")
        if kind in spelling:  # the dropout layers' seeds are no weights
            names[".".join(place[1:] if place[0] == model.name else place) + "." + spelling[kind]] = variable
    return names


def load_speech_transformer(folder: str | Path) -> SpeechTransformer:
    """Read a published encoder of one of FAMILIES.

    Parameters
    ----------
    folder : holds config.json, model.safetensors (or its numbered parts with model.safetensors.index.json) and,
        if the checkpoint has one, preprocessor_config.json; without it the input is taken as normalised, 16 kHz,
        masked where feat_extract_norm is "layer"

    Returns
    -------
    the encoder; its `ignored` names the tensors left aside: heads, quantisers, mask vector

    Raises
    ------
    CheckpointError : for pickled weights, another family, and missing, unexpected or mis-shaped tensors
    """
    folder = Path(folder)
    architecture = Architecture.from_config(_read_json(folder / "config.json"))
    model = SpeechTransformer(architecture, _preprocessing(folder, architecture), name="speech_transformer")
    model.build()
    _assign(model, _tensors(folder), folder)
    return model


def _read_json(path):
    try:
        return json.loads(path.read_text("utf-8"))
    except OSError as error:
        raise CheckpointError(
            f"{path} is missing; a checkpoint folder has config.json and model.safetensors"
        ) from error
    except ValueError as error:
        raise CheckpointError(f"{path} is not JSON ({error}); fetch it again") from error


def _preprocessing(folder, architecture):
    path = folder / "preprocessor_config.json"
    found = _read_json(path) if path.exists() else {}
    return Preprocessing(
        sample_rate_hz=found.get("sampling_rate", 16_000),
        normalise=found.get("do_normalize", True),
        use_mask=found.get("return_attention_mask", architecture.feat_extract_norm == "layer"),
    )


def weight_files(folder: str | Path) -> list[Path]:
    """The safetensors files of a checkpoint folder; raises CheckpointError where there are none, or pickles."""
    folder = Path(folder)
    index = folder / "model.safetensors.index.json"
    if index.exists():
        names = sorted(set(_read_json(index)["weight_map"].values()))
        if outside := [name for name in names if Path(name).name != name]:
            raise CheckpointError(f"{index} names a file outside its folder: {outside[0]!r}")
        files = [folder / name for name in names]
    else:
        files = [folder / "model.safetensors"]
    missing = [file.name for file in files if not file.exists()]
    if not missing:
        return files
    pickled = sorted(file.name for pattern in ("*.bin", "*.pt", "*.pth", "*.ckpt") for file in folder.glob(pattern))
    if pickled:
        raise CheckpointError(
            f"{folder} has only pickled weights ({', '.join(pickled)}), and unpickling runs whatever code the file "
            f"holds; only safetensors are read. Convert them in an environment of your own: "
            f"{conversion_command(folder, folder)}"
        )
    raise CheckpointError(f"{folder} lacks {', '.join(missing)}")


def conversion_command(source: str | Path, target: str | Path, revision: str | None = None) -> str:
    """The shell command that turns pickled weights into safetensors, with PyTorch, outside this project."""
    pin = f", revision='{revision}'" if revision else ""
    code = (
        "from transformers import AutoFeatureExtractor as F, AutoModel as M; "
        f"s, t = '{source}', '{target}'; M.from_pretrained(s{pin}).save_pretrained(t); "
        f"F.from_pretrained(s{pin}).save_pretrained(t)"
    )
    return f'uv run --no-project --with torch --with transformers python -c "{code}"'


def _tensors(folder):
    """Yield (name, array) one by one: memory holds one tensor more than the model."""
    for file in weight_files(folder):
        try:
            with safe_open(file, framework="numpy") as tensors:
                for name in tensors.keys():
                    yield name, tensors.get_tensor(name)
        except SafetensorError as error:
            raise CheckpointError(f"{file} is no readable safetensors file ({error}); fetch it again") from error


def _assign(model, tensors, source):
    wanted = checkpoint_names(model)
    prefix = model.architecture.model_type.replace("-", "_") + "."
    halves, loaded, ignored, unexpected, misshapen = {}, set(), [], [], []

    def put(name, array):
        variable = wanted[name]
        loaded.add(name)
        if array.T.shape == tuple(variable.shape):
            variable.assign(array.T.astype("float32"))
        else:
            misshapen.append(f"{name} {array.shape}, wanted {tuple(variable.shape)[::-1]}")

    for full_name, array in tensors:
        name = full_name.removeprefix(prefix)
        if name in wanted:
            put(name, array)
        elif name in WEIGHT_NORM and NORMED in wanted:
            halves[WEIGHT_NORM[name]] = array.astype("float64")
        elif name.startswith(UNUSED) or (name.startswith(HEADS) and name == full_name):
            ignored.append(full_name)
        else:
            unexpected.append(full_name)
    if len(halves) == 2:
        length = np.sqrt((halves["v"] ** 2).sum(axis=(0, 1), keepdims=True))
        if halves["g"].shape == length.shape:
            put(NORMED, halves["g"] * halves["v"] / length)
        else:
            misshapen.append(f"{NORMED}_g {halves['g'].shape}, wanted {length.shape}")
    missing = sorted(set(wanted) - loaded)
    problems = [
        f"{len(names)} {problem}: {', '.join(names[:8])}{' …' if len(names) > 8 else ''}"
        for problem, names in (("missing", missing), ("unexpected", unexpected), ("mis-shaped", misshapen))
        if names
    ]
    if problems:
        a = model.architecture
        raise CheckpointError(
            f"{source} does not hold a {a.model_type} encoder of {a.num_hidden_layers} layers, {a.hidden_size} wide, "
            f"as its config.json says. Tensors {'; '.join(problems)}"
        )
    model.ignored = ignored


def random_speech_transformer(architecture: Architecture, seed: int = 0) -> SpeechTransformer:
    """An encoder with random weights, the same under every backend: what it hears carries no meaning."""
    model = SpeechTransformer(architecture, name="speech_transformer")
    model.build()
    rng = np.random.default_rng(seed)
    named = checkpoint_names(model)
    for variable in map(named.get, sorted(named)):
        if len(variable.shape) > 1:  # He's, over what one output sees
            spread = (2 / np.prod(variable.shape[:-1])) ** 0.5
            variable.assign(rng.normal(scale=spread, size=variable.shape).astype("float32"))
    return model
