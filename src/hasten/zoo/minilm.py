"""Build the sentence encoder (BERT, 6 layers of 384) from its weights: a PyTorch module, exported as users export it.

Exported and not written node by node, because the patterns that techniques look for should be those that PyTorch's
exporter leaves. Mean pooling and normalization are in the graph, so its output is the embedding. Sources: Devlin et al.
2019, "BERT"; Wang et al. 2020, "MiniLM"; Reimers and Gurevych 2019, "Sentence-BERT", for the pooling.
"""

from __future__ import annotations

import logging
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from hasten.errors import HastenError
from hasten.model.onnx_file import save_proto
from hasten.spec.progress import Listener

__all__ = ["build", "encoder"]

LAYERS, WIDTH, HEADS, INNER = 6, 384, 12, 1536
LONGEST = 512
_EPSILON = 1e-12
_PARTS = {
    "query": "attention.self.query", "key": "attention.self.key", "value": "attention.self.value",
    "out": "attention.output.dense", "norm": "attention.output.LayerNorm", "up": "intermediate.dense",
    "down": "output.dense", "last": "output.LayerNorm",
}  # fmt: skip


def build(files: Mapping[str, Path], out: Path, listener: Listener) -> None:
    """Write the encoder: input_ids, attention_mask int64 [batch, sequence] to sentence_embedding f32 [batch, 384]."""
    import torch

    module = encoder(files["minilm-weights"])
    dims = {0: torch.export.Dim("batch"), 1: torch.export.Dim("sequence", max=LONGEST)}
    # Two tensors: the exporter takes one that is given twice for one input, and the mask becomes the text.
    ids, mask = torch.arange(18).reshape(2, 9) + 1000, torch.ones(2, 9, dtype=torch.int64)
    # It warns that it skips operators of a package that this module does not use.
    logging.getLogger("torch.onnx._internal.exporter._registration").setLevel(logging.ERROR)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        exported: Any = torch.onnx.export(
            module, (ids, mask), dynamic_shapes={"input_ids": dims, "attention_mask": dims}, dynamo=True,
            opset_version=18, verbose=False, output_names=["sentence_embedding"],
        )  # fmt: skip
    save_proto(_without_traces(exported.model_proto), out)
    _check(module, out, torch)


def encoder(weights: Path) -> Any:
    """Return the encoder as a PyTorch module, ready to answer."""
    import torch
    from safetensors.numpy import load_file

    held = load_file(weights)
    module: Any = _encoder(torch)
    module.load_state_dict({name: torch.from_numpy(held[theirs]) for name, theirs in _names().items()})
    # Dropout and batch statistics: in training mode it answers otherwise.
    module.eval()
    return module


def _check(module: Any, path: Path, torch: Any) -> None:
    """Compare the exported file with the module on texts of other lengths than the example, one of them padded."""
    import onnxruntime as ort

    rng = np.random.default_rng(0)
    ids, mask = rng.integers(1000, 30000, (2, 21)), np.ones((2, 21), np.int64)
    mask[1, 13:] = 0
    with torch.no_grad():
        wanted = module(torch.from_numpy(ids), torch.from_numpy(mask)).numpy()
    session: Any = ort.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    got = session.run(None, {"input_ids": ids, "attention_mask": mask})[0]
    if not np.allclose(got, wanted, atol=1e-4):
        raise HastenError(
            f"PyTorch's exporter wrote a minilm that differs from its module by {abs(got - wanted).max():.2g}.",
            remedy="Use the version of torch that constraints.txt names, or report it.",
            code="export_differs",
        )


def _without_traces(proto: Any) -> Any:
    """Drop the exporter's notes on source files, which differ from machine to machine."""
    for part in (proto, proto.graph, *proto.graph.node, *proto.graph.value_info, *proto.graph.output):
        part.ClearField("metadata_props")
        part.doc_string = ""
    return proto


def _names() -> dict[str, str]:
    """Names of the module's parameters, and of the same weights in the file."""
    embeddings = {
        "words.weight": "word_embeddings.weight", "places.weight": "position_embeddings.weight",
        "kinds.weight": "token_type_embeddings.weight", "first.weight": "LayerNorm.weight",
        "first.bias": "LayerNorm.bias",
    }  # fmt: skip
    names = {mine: f"embeddings.{theirs}" for mine, theirs in embeddings.items()}
    for layer in range(LAYERS):
        for mine, theirs in _PARTS.items():
            for kind in ("weight", "bias"):
                names[f"layers.{layer}.{mine}.{kind}"] = f"encoder.layer.{layer}.{theirs}.{kind}"
    return names


def _encoder(torch: Any) -> Any:
    nn = torch.nn

    class Layer(nn.Module):
        """Self-attention and a feed-forward network, each normalized after it is added to its input."""

        def __init__(self) -> None:
            super().__init__()
            self.query, self.key, self.value, self.out = (nn.Linear(WIDTH, WIDTH) for _ in range(4))
            self.norm, self.last = nn.LayerNorm(WIDTH, _EPSILON), nn.LayerNorm(WIDTH, _EPSILON)
            self.up, self.down = nn.Linear(WIDTH, INNER), nn.Linear(INNER, WIDTH)

        def forward(self, x: Any, mask: Any) -> Any:
            """x [batch, sequence, 384], mask added to the scores."""
            rows, length, _ = x.shape

            def heads(values: Any) -> Any:
                return values.reshape(rows, length, HEADS, WIDTH // HEADS).transpose(1, 2)

            query, key, value = heads(self.query(x)), heads(self.key(x)), heads(self.value(x))
            scores = query @ key.transpose(-1, -2) / (WIDTH // HEADS) ** 0.5 + mask
            mixed = (torch.softmax(scores, -1) @ value).transpose(1, 2).reshape(rows, length, WIDTH)
            x = self.norm(x + self.out(mixed))
            return self.last(x + self.down(nn.functional.gelu(self.up(x))))

    class Encoder(nn.Module):
        """Embeddings, layers, mean over real tokens, unit length."""

        def __init__(self) -> None:
            super().__init__()
            self.words, self.places = nn.Embedding(30522, WIDTH), nn.Embedding(LONGEST, WIDTH)
            self.kinds, self.first = nn.Embedding(2, WIDTH), nn.LayerNorm(WIDTH, _EPSILON)
            self.layers = nn.ModuleList(Layer() for _ in range(LAYERS))

        def forward(self, input_ids: Any, attention_mask: Any) -> Any:
            """Token numbers and 1 for each real token, both [batch, sequence]."""
            places = self.places(torch.arange(input_ids.shape[1]))
            x = self.first(self.words(input_ids) + places + self.kinds.weight[0])
            real = attention_mask.to(x.dtype)
            mask = (1.0 - real[:, None, None, :]) * -10000.0
            for layer in self.layers:
                x = layer(x, mask)
            mean = (x * real[:, :, None]).sum(1) / real.sum(1, keepdim=True).clamp(min=1e-9)
            return mean / mean.norm(dim=1, keepdim=True).clamp(min=1e-12)

    return Encoder()
