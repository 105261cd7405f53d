"""The head between backbone and bank: identity, or Deep kNN's adaptor and predictor; stored as safetensors."""

from __future__ import annotations

import json
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import safetensors
from safetensors.numpy import load as load_tensors
from safetensors.numpy import save as save_tensors

from dicom_node.domain.errors import BankError

Vectors = npt.NDArray[np.float32]

LAYERS = ("adaptor", "predictor")
"""Linear layers in order of application, named as in Deep kNN (z = g(f), p = q(z))."""


@dataclass(frozen=True, slots=True)
class Head:
    """A stack of linear layers without activations, then unit L2.

    Attributes
    ----------
    layers
        (name, weight (out, in), bias (out,)) in order of application; empty is the identity.
    recipe
        JSON of how the layers were trained, "" where that is not recorded.
    """

    layers: tuple[tuple[str, Vectors, Vectors], ...] = ()
    recipe: str = ""

    @property
    def kind(self) -> str:
        """Return "identity" or "linear"."""
        return "linear" if self.layers else "identity"

    @property
    def description(self) -> str:
        """Return the kind and the widths, for people, e.g. "linear 1280-640-640"."""
        if not self.layers:
            return "identity"
        widths = [self.layers[0][1].shape[1], *(weight.shape[0] for _, weight, _ in self.layers)]
        return "linear " + "-".join(map(str, widths))

    def output_dim(self, input_dim: int) -> int:
        """Return D' for features of `input_dim`.

        Raises
        ------
        BankError
            If the first layer wants another width.
        """
        if not self.layers:
            return input_dim
        wanted = self.layers[0][1].shape[1]
        if wanted != input_dim:
            raise BankError(f"the head takes {wanted} features, the backbone gives {input_dim}")
        return int(self.layers[-1][1].shape[0])

    def apply(self, features: Vectors) -> Vectors:
        """Return the embeddings of features.

        Parameters
        ----------
        features
            (N, D) float32, the backbone's output.

        Returns
        -------
        numpy.ndarray
            (N, D') float32, unit L2.

        Raises
        ------
        BankError
            If a vector is zero or not finite: it has no direction.
        """
        out = np.asarray(features, dtype=np.float32)
        self.output_dim(out.shape[1])
        for _, weight, bias in self.layers:
            out = out @ weight.T + bias
        norms = np.sqrt(np.square(out, dtype=np.float64).sum(axis=1, keepdims=True))
        if not np.isfinite(norms).all() or (norms == 0.0).any():
            raise BankError("an embedding is zero or not finite; the backbone or the head is damaged")
        return np.asarray(out / norms, dtype=np.float32)


def save_head(head: Head) -> bytes:
    """Return the head as the bytes of a safetensors file, its kind and recipe in the metadata."""
    tensors = {f"{name}.weight": weight for name, weight, _ in head.layers}
    tensors |= {f"{name}.bias": bias for name, _, bias in head.layers}
    if not head.recipe:
        return bytes(save_tensors(tensors, metadata={"kind": head.kind}))
    return _ordered(bytes(save_tensors(tensors, metadata={"kind": head.kind, "recipe": head.recipe})))


def _ordered(content: bytes) -> bytes:
    """Return a safetensors file with its header's keys in order; the library writes metadata in any order."""
    length = int.from_bytes(content[:8], "little")
    header = json.dumps(json.loads(content[8 : 8 + length]), sort_keys=True, separators=(",", ":")).encode()
    header += b" " * (-len(header) % 8)
    return len(header).to_bytes(8, "little") + header + content[8 + length :]


def load_head(content: bytes) -> Head:
    """Read a head back.

    Raises
    ------
    BankError
        If the bytes are no safetensors file, the kind is unknown, or the layers do not fit each other.
    """
    try:
        tensors = load_tensors(content)
        length = int.from_bytes(content[:8], "little")
        metadata = json.loads(content[8 : 8 + length]).get("__metadata__", {})
        kind = metadata.get("kind")
    except (safetensors.SafetensorError, ValueError) as error:
        raise BankError(f"head.safetensors cannot be read: {error}") from error
    if kind not in ("identity", "linear") or (kind == "identity") != (not tensors):
        raise BankError(
            f"head.safetensors is of kind {kind!r} with {sorted(tensors)}; identity or linear is known"
        )
    layers: list[tuple[str, Vectors, Vectors]] = []
    for name in LAYERS:
        if f"{name}.weight" in tensors:
            weight = tensors.pop(f"{name}.weight").astype(np.float32)
            bias = tensors.pop(f"{name}.bias", np.zeros(weight.shape[0])).astype(np.float32)
            if weight.ndim != 2 or bias.shape != weight.shape[:1]:
                raise BankError(f"{name} has weight {weight.shape} and bias {bias.shape}; (out, in) and (out,)")
            if layers and layers[-1][1].shape[0] != weight.shape[1]:
                raise BankError(
                    f"{name} takes {weight.shape[1]}, the layer before gives {layers[-1][1].shape[0]}"
                )
            layers.append((name, weight, bias))
    if tensors:
        raise BankError(f"head.safetensors holds unknown tensors {sorted(tensors)}; known layers: {LAYERS}")
    return Head(tuple(layers), metadata.get("recipe", ""))
