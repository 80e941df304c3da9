"""Learned codecs: CompressAI's networks, built, loaded, saved, and run on real bitstreams.

    codec = LearnedCodec(load(entry, "q2"))
    stream = codec.encode(image)  # uint8 (H, W, 3)
    stream.bpp, codec.decode(stream)  # exactly what the encoder's side reconstructs

What decodes where: the probability tables of the factorised latent are computed in float64 and rounded, so
that they come out alike on any machine, and so does the latent of a `bmshj2018-factorized` stream. All other
models choose (and shift) tables by what a network says of the first latent, in float32, whose last bit
depends on the processor, its libraries and its threads: their streams are only sure to decode where the same
software runs on the same kind of processor. Coding runs on one thread always.
"""

from __future__ import annotations

import hashlib
import re
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from mlclipsim.artifacts import ArtifactError, sha256_of
from mlclipsim.atomic import atomic
from mlclipsim.compression.bitstream import Bitstream
from mlclipsim.compression.classical import ClassicalCodec
from mlclipsim.images import check_array, to_tensor, to_uint8
from mlclipsim.places import locate
from mlclipsim.usage import UsageError

with warnings.catch_warnings():  # it imports pytorch_msssim, which compiles a function with torch.jit
    warnings.filterwarnings("ignore", "`torch.jit.script` is deprecated")
    from compressai.entropy_models import EntropyBottleneck, EntropyModel
    from compressai.losses import RateDistortionLoss
    from compressai.models import CompressionModel
    from compressai.zoo.image import cfgs, model_architectures, model_urls
    from compressai.zoo.pretrained import load_pretrained

__all__ = [
    "Bitstream",
    "ClassicalCodec",
    "CompressionModel",
    "EntropyModel",
    "LearnedCodec",
    "RateDistortionLoss",
    "address",
    "build",
    "estimate_bits",
    "forward",
    "load",
    "save",
    "save_moved",
    "stride",
    "update_tables",
    "weights_file",
]

_MOVED_FROM, _STEP = "moved_from", "/step"  # in files of save_moved


def build(model: str, channels: Sequence[int]) -> CompressionModel:
    """A fresh network of CompressAI's; its initial weights come from torch's global generator.

    Args:
        model: ``bmshj2018-factorized``, ``bmshj2018-hyperprior``, ``mbt2018-mean``, ``mbt2018``,
            ``cheng2020-anchor``, ...: CompressAI's name.
        channels: (N, M), of the network's layers and of its latent; (N,) where the model takes no M.

    Raises:
        ValueError: an unknown model, or channels that it does not take.
    """
    if model not in model_architectures:
        raise ValueError(f"model {model!r} is unknown; expected one of {', '.join(model_architectures)}")
    if len(channels) != len(cfgs[model][1]):
        shape = "[N, M]" if len(cfgs[model][1]) == 2 else "[N]"
        raise ValueError(f"{model}: expected channels {shape}, got {list(channels)}; give that many")
    return model_architectures[model](*channels)


def load(entry: Mapping[str, Any], point: str, weights: Path | None = None) -> CompressionModel:
    """The network of a catalog entry (config/catalog/codecs.yaml) at one of its points, ready to code.

    Without ``weights`` they are the entry's own, from a local file; ``mlclipsim fetch`` gets CompressAI's.
    float16 weights are evaluated in float32. The tables of a checkpoint that has them are used as they are.

    Args:
        point: ``q1``, ...
        weights: another file for the same network: of :func:`save_moved`, of :func:`save`, or a state dict.

    Raises:
        ValueError: a point that the entry lacks, or that neither it nor CompressAI has weights for.
        ArtifactError: the file is missing, has another checksum, or does not fit the network.
    """
    _point(entry, point)
    path, expected = (weights, None) if weights else weights_file(entry, point)
    if not path.is_file():
        raise ArtifactError(
            f"{path}: expected the weights of {entry['model']} {point}, found none; fetch or train them"
        )
    if expected and not (seen := sha256_of(path)).startswith(expected):
        raise ArtifactError(f"{path}: expected sha256 {expected}, got {seen}; fetch or make the file again")
    with torch.random.fork_rng(devices=[]):  # its initial weights are overwritten: nobody's draws move on
        model = build(entry["model"], _channels(entry, point))
    try:
        # A file of `save` holds parameters only: its buffers are those that every such network has.
        state = _state(path)
        if weights and (base := _moved_from(path)):
            state = _moved(entry, point, base, state)
        model.load_state_dict(dict(model.named_buffers()) | state)
    except ArtifactError:
        raise
    except Exception as error:  # pickles, truncated files and foreign state dicts fail in as many ways
        reason = " ".join(str(error).split())[:300]
        raise ArtifactError(f"{path}: no weights of {entry['model']} {point} ({reason})") from error
    if not _has_tables(model):
        update_tables(model)
    return model.eval()


def _point(entry: Mapping[str, Any], point: str) -> dict[str, Any]:
    if point not in entry["points"]:
        known = ", ".join(entry["points"])
        raise UsageError(f"{entry['model']}: point {point!r} is unknown; expected one of {known}")
    return entry["points"][point]


def _quality(point: str) -> int:
    return int(point.removeprefix("q"))


def _channels(entry: Mapping[str, Any], point: str) -> Sequence[int]:
    """The entry's, or those of CompressAI's network of that quality."""
    own = entry.get("channels") or cfgs.get(entry["model"], {}).get(_quality(point))
    if not own:
        raise ValueError(
            f"{entry['model']} {point}: expected channels, since CompressAI has no such network; name them"
        )
    return own


def weights_file(entry: Mapping[str, Any], point: str) -> tuple[Path, str | None]:
    """Where the weights of a point lie, and how their sha256 begins, if that is known.

    A point without ``weights`` means CompressAI's pretrained ones, in torch's cache, whose names end in the
    first digits of their sha256.

    Raises:
        ValueError: a point that the entry lacks, or that neither it nor CompressAI has weights for.
    """
    settings = _point(entry, point)
    if settings.get("weights"):
        return locate(settings["weights"]), settings.get("sha256")
    url = address(entry, point)
    if url is None:
        metric = entry.get("pretrained", "unnamed metric")
        raise ValueError(
            f"{entry['model']} {point}: expected weights, since CompressAI has none for {metric}; name a file"
        )
    name = url.rpartition("/")[2]
    prefix = re.search(r"-([0-9a-f]{8,})\.pth", name)
    return Path(torch.hub.get_dir()) / "checkpoints" / name, prefix and prefix[1]


def address(entry: Mapping[str, Any], point: str) -> str | None:
    """From where CompressAI publishes its weights of a point, if it does."""
    of_metrics: dict[str, dict[int, str]] = model_urls.get(entry["model"], {})
    return of_metrics.get(entry.get("pretrained", ""), {}).get(_quality(point))


def _state(path: Path) -> dict[str, Tensor]:
    """Parameters, and what buffers there are, in float32 and under CompressAI's present names."""
    if path.suffix == ".safetensors":
        state = load_file(path)
    else:
        state = torch.load(path, map_location="cpu", weights_only=True)
        for key in ("network", "state_dict", "model_state_dict"):  # where CompressAI's trainers put it
            state = state.get(key, state)
        state = load_pretrained(state)
    return {key: value.float() if value.is_floating_point() else value for key, value in state.items()}


def save(model: CompressionModel, path: Path) -> None:
    """Write the parameters as float16 safetensors; the tables are computed again when they are loaded.

    Evaluate what :func:`load` reads back, not ``model``: that is what ships.

    Raises:
        ValueError: a parameter that float16 cannot hold.
    """
    halves = {name: value.detach().cpu().half().contiguous() for name, value in model.named_parameters()}
    beyond = [name for name, value in halves.items() if not value.isfinite().all()]
    if beyond:
        raise ValueError(
            f"expected weights within +-65504 for float16, got more or NaN in {', '.join(beyond)}"
        )
    with atomic(path) as temporary:
        save_file(halves, temporary)


def save_moved(model: CompressionModel, base: Path, path: Path) -> None:
    """Write how far the weights have moved from those of ``base``, a file of the same network.

    Half the size of :func:`save`: convolutions' in 8-bit steps, 127 to each tensor's longest move, those of
    the few other parameters as float16. What has not moved is left out, so that it stays equal to the last
    bit. The file names its base by its sha256.
    """
    start = _state(base)
    tensors: dict[str, Tensor] = {}
    for name, value in model.named_parameters():
        value = value.detach().cpu()
        move = value - start[name]
        if not move.any():
            continue
        if value.ndim < 4:
            tensors[name] = move.half().contiguous()
            continue
        step = move.abs().max() / 127
        tensors[name] = (move / step).round().to(torch.int8).contiguous()
        tensors[f"{name}{_STEP}"] = step
    with atomic(path) as temporary:
        save_file(tensors, temporary, metadata={_MOVED_FROM: sha256_of(base)})


def _moved_from(path: Path) -> str | None:
    """The sha256 of the weights that a file of :func:`save_moved` starts from; None: it is whole."""
    if path.suffix != ".safetensors":
        return None
    with safe_open(path, framework="pt") as stored:
        return (stored.metadata() or {}).get(_MOVED_FROM)


def _moved(entry: Mapping[str, Any], point: str, base: str, moves: dict[str, Tensor]) -> dict[str, Tensor]:
    path = weights_file(entry, point)[0]
    if (seen := sha256_of(path)) != base:
        raise ArtifactError(
            f"{path}: expected sha256 {base}, from which the trained weights start, got {seen}; take the "
            "base that they were trained with"
        )
    state = _state(path)
    for name, move in moves.items():
        if not name.endswith(_STEP):
            state[name] = state[name] + move * moves.get(f"{name}{_STEP}", 1)
    return state


def update_tables(model: CompressionModel) -> None:
    """Compute the entropy coder's probability tables from the weights, as is due after every training.

    In float64: the tables hold probabilities rounded to 2^-16, and the last bits of a float32 sigmoid, which
    differ between processors, would now and then decide that rounding. Streams must not depend on it.
    """
    bottlenecks = [module for module in model.modules() if isinstance(module, EntropyBottleneck)]
    for module in bottlenecks:
        module.double()
    model.update(force=True)
    for module in bottlenecks:
        module.float()


def _has_tables(model: CompressionModel) -> bool:
    return all(buffer.numel() for name, buffer in model.named_buffers() if name.endswith("_quantized_cdf"))


def stride(model: CompressionModel) -> int:
    """Image sides must be multiples of it; :class:`LearnedCodec` pads those that are not."""
    return int(model.downsampling_factor)


def estimate_bits(model: CompressionModel, image: np.ndarray) -> float:
    """The entropy of the latents of a uint8 ``(H, W, 3)`` image, by the likelihoods that ``forward`` gives.

    In bits. Real strings cost up to 2 percent more, and 16 bytes each, which the coder needs to end.
    """
    with _coding(model), _without_synthesis(model):
        likelihoods = model(_padded(_tensor(image, model), model))["likelihoods"]
    return sum(-float(values.double().log2().sum()) for values in likelihoods.values())


@contextmanager
def _coding(model: CompressionModel) -> Iterator[None]:
    """On one thread, without gradients, and in evaluation mode: else encoder and decoder may disagree."""
    threads, training = torch.get_num_threads(), model.training
    torch.set_num_threads(1)
    model.eval()
    try:
        with torch.no_grad():  # not inference_mode, in which a masked convolution spoils its own weights
            yield
    finally:
        torch.set_num_threads(threads)
        model.train(training)


@contextmanager
def _without_synthesis(model: CompressionModel) -> Iterator[None]:
    """``forward`` decodes nothing, which is most of its work; all of the library's models call it ``g_s``."""
    synthesis, model.g_s = model.g_s, nn.Identity()
    try:
        yield
    finally:
        model.g_s = synthesis


def forward(model: CompressionModel, images: Tensor) -> dict[str, Any]:
    """What the network gives of images ``(B, 3, H, W)`` of any size: ``likelihoods``, of images padded as for
    coding, and ``x_hat``, cut back to H and W.
    """
    height, width = images.shape[-2:]
    output = model(_padded(images, model))
    return output | {"x_hat": output["x_hat"][..., :height, :width]}


def _tensor(image: np.ndarray, model: CompressionModel) -> Tensor:
    """uint8 ``(H, W, 3)`` -> ``(1, 3, H, W)`` in [0, 1], where the network is."""
    return to_tensor(check_array(image))[None].to(next(model.parameters()).device)


def _padded(images: Tensor, model: CompressionModel) -> Tensor:
    """The last row and column repeated up to multiples of the stride."""
    rows, columns = (-side % stride(model) for side in images.shape[-2:])
    return F.pad(images, (0, columns, 0, rows), mode="replicate") if rows or columns else images


def _fingerprint(model: CompressionModel) -> bytes:
    tables = {name: value for name, value in model.named_buffers() if value.dtype == torch.int32}
    digest = hashlib.sha256()
    for name, value in sorted((dict(model.named_parameters()) | tables).items()):
        digest.update(name.encode() + value.detach().cpu().numpy().tobytes())
    return digest.digest()


class LearnedCodec:
    """A trained network that codes 8-bit images.

    Args:
        model: with tables: of :func:`load`, or after :func:`update_tables`.

    Attributes:
        stride: sides are padded to multiples of it, see :meth:`padding`.
        n_strings: strings of a bitstream, one for each latent.
        portable: whether its streams decode on any machine.
        fingerprint: sha256 of what both sides must have alike, the parameters and the tables.

    Raises:
        ValueError: it has no tables.
    """

    def __init__(self, model: CompressionModel) -> None:
        if not _has_tables(model):
            raise ValueError("expected a model with probability tables, got none; call update_tables(model)")
        self.model = model
        self.stride = stride(model)
        self.n_strings = sum(isinstance(module, EntropyModel) for module in model.modules())
        self.portable = self.n_strings == 1
        self.fingerprint = _fingerprint(model)

    def padding(self, size: tuple[int, int]) -> tuple[int, int]:
        """Rows and columns that are added to an image of (H, W), below and on the right."""
        return -size[0] % self.stride, -size[1] % self.stride

    def shape(self, size: tuple[int, int]) -> tuple[int, int]:
        """(h, w) of the coarsest latent of an image of (H, W)."""
        return -(-size[0] // self.stride), -(-size[1] // self.stride)

    def encode(self, image: np.ndarray) -> Bitstream:
        """Code a uint8 ``(H, W, 3)`` image."""
        images = _padded(_tensor(image, self.model), self.model)
        with _coding(self.model):
            coded = self.model.compress(images)
        height, width = image.shape[:2]
        rows, columns = coded["shape"]
        strings = tuple(string for (string,) in coded["strings"])
        return Bitstream(strings=strings, shape=(int(rows), int(columns)), size=(height, width))

    def reconstruct(self, stream: Bitstream) -> Tensor:
        """The decoded image ``(3, H, W)`` in [0, 1], before it is rounded to 8 bits.

        Raises:
            ValueError: the stream has other latents than this codec's.
        """
        seen, expected = (len(stream.strings), *stream.shape), (self.n_strings, *self.shape(stream.size))
        if seen != expected:
            raise ValueError(
                "expected {} strings for a latent of {}x{}, got {} for {}x{}; "
                "decode with the codec that encoded".format(*expected, *seen)
            )
        # The range decoder does not know where its string ends, and on a damaged one reads on beyond it: let
        # it find zeros there, two bytes for each symbol of up to 512 channels.
        beyond = bytes(4 * stream.shape[0] * stream.shape[1] * self.stride**2)
        strings = [[string + beyond] for string in stream.strings]
        with _coding(self.model):
            decoded = self.model.decompress(strings, stream.shape)["x_hat"]
        height, width = stream.size
        return decoded[0, :, :height, :width]

    def decode(self, stream: Bitstream) -> np.ndarray:
        """The uint8 ``(H, W, 3)`` image; errors as :meth:`reconstruct`."""
        return to_uint8(self.reconstruct(stream))
