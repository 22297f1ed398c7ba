"""Weight formats as engines store them: encode a float matrix into named tensors, decode them back to float32.

| name | file format | per matrix |
|---|---|---|
| bf16 | plain | `weight` bfloat16 |
| fp8 | compressed-tensors float-quantized | `weight` e4m3, `weight_scale` per row; activations per token, at run time |
| fp8-block | the `fp8` method of DeepSeek-V3 and Qwen3 | `weight` e4m3, `weight_scale_inv` per 128 x 128 block |
| nvfp4 | ModelOpt NVFP4 (W4A4) | two e2m1 per byte, e4m3 scale per 16, float32 `weight_scale_2`, `input_scale` |
| nvfp4-w4a16 | compressed-tensors nvfp4-pack-quantized | as nvfp4, `weight_global_scale` inverted, no input scale |
| mxfp4 | compressed-tensors mxfp4-pack-quantized, or GPT-OSS's own | two e2m1 per byte, power-of-two scale per 32 |
| int4 | compressed-tensors pack-quantized | eight 4-bit integers per int32, bfloat16 scale per group |

e2m1 and its scales: OCP Microscaling Formats (MX) 1.0; the second-level scale of NVFP4 is 1 / (6 * 448) of the largest
weight, shared by matrices that engines fuse. Names and layouts were read from vLLM's loaders and from
compressed-tensors, whose own compressors the tests compare with.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    import torch
    from torch import Tensor

E4M3_MAX = 448.0
E2M1 = (0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0)
E2M1_MIDPOINTS = (0.25, 0.75, 1.25, 1.75, 2.5, 3.5, 5.0)
INPUT_AMAX = 64.0
"""Largest activation that the static NVFP4 input scale covers. The block scales' own range (2**-9 to 448) absorbs the
slack: activations of 0.03 to 64 per block of 16 keep a normal e4m3 scale."""


class Format(Protocol):
    """One weight format. `amax` is the largest absolute weight of the group of matrices that share a scale."""

    @property
    def name(self) -> str: ...

    @property
    def min_multiple(self) -> int:
        """Input size must be a multiple of this for the matrix to be quantised."""
        ...

    def encode(self, weight: Tensor, amax: float) -> dict[str, Tensor]:
        """[out, in] floats -> tensors by suffix (`weight`, `weight_scale`...)."""
        ...

    def decode(self, parts: Mapping[str, Tensor]) -> Tensor:
        """Tensors by suffix -> [out, in] float32, exactly what a perfect kernel would multiply with."""
        ...

    def config(self, ignore: list[str]) -> dict[str, Any] | None:
        """`quantization_config` of config.json; `ignore` are module names that stay bf16."""
        ...


@lru_cache(maxsize=1)
def _code_of_top_bits() -> Any:
    """e2m1 code (sign in bit 3) for the upper 16 bits of a float32, ties to even.

    The lowest of the 16 bits is set when any lower bit is, so that values just above a midpoint are told from it.
    """
    import numpy as np

    values = (np.arange(65536, dtype=np.uint32) << 16).view(np.float32)
    magnitude = np.abs(np.nan_to_num(values, nan=6.0, posinf=6.0, neginf=6.0))
    code = np.zeros(65536, dtype=np.uint8)
    for lower, midpoint in enumerate(E2M1_MIDPOINTS):
        code += (magnitude > midpoint) | ((magnitude == midpoint) & (lower % 2 == 1))
    return code | (np.signbit(values).astype(np.uint8) << 3)


@lru_cache(maxsize=1)
def _pair_of_byte() -> Any:
    """[256] float64, each the bits of two float32: the values of a packed byte, low nibble first.

    One 8-byte look-up per byte is several times faster than a row of two floats.
    """
    import numpy as np

    signed = np.array([*E2M1, *(-v for v in E2M1)], dtype=np.float32)
    byte = np.arange(256)
    return np.stack([signed[byte & 15], signed[byte >> 4]], axis=1).view(np.float64).ravel()


def pack_e2m1(scaled: Tensor) -> Tensor:
    """[..., n] floats, already divided by their scales -> [..., n / 2] uint8."""
    import numpy as np
    import torch

    bits = scaled.contiguous().numpy().view(np.uint32)
    top = (bits >> np.uint32(16)).astype(np.uint16)
    top |= (bits & np.uint32(0xFFFF)) != 0
    code = np.take(_code_of_top_bits(), top)
    return torch.from_numpy(code[..., 0::2] | (code[..., 1::2] << np.uint8(4)))


def unpack_e2m1(packed: Tensor) -> Tensor:
    """[..., n / 2] uint8 -> [..., n] float32."""
    import numpy as np
    import torch

    pairs = np.take(_pair_of_byte(), packed.contiguous().numpy())
    return torch.from_numpy(pairs.view(np.float32))


@dataclass(frozen=True, slots=True)
class Bf16:
    name: str = "bf16"
    min_multiple: int = 1

    def encode(self, weight: Tensor, amax: float) -> dict[str, Tensor]:
        import torch

        return {"weight": weight.to(torch.bfloat16)}

    def decode(self, parts: Mapping[str, Tensor]) -> Tensor:
        return parts["weight"].float()

    def config(self, ignore: list[str]) -> dict[str, Any] | None:
        return None


@dataclass(frozen=True, slots=True)
class Fp8Channel:
    name: str = "fp8"
    min_multiple: int = 16

    def encode(self, weight: Tensor, amax: float) -> dict[str, Tensor]:
        import torch

        scale = (weight.abs().amax(1, keepdim=True).float() / E4M3_MAX).clamp(min=1e-12)
        return {"weight": (weight / scale).to(torch.float8_e4m3fn), "weight_scale": scale}

    def decode(self, parts: Mapping[str, Tensor]) -> Tensor:
        return parts["weight"].float() * parts["weight_scale"].float()

    def config(self, ignore: list[str]) -> dict[str, Any] | None:
        weights = {"num_bits": 8, "type": "float", "strategy": "channel", "symmetric": True, "dynamic": False}
        inputs = {"num_bits": 8, "type": "float", "strategy": "token", "symmetric": True, "dynamic": True}
        return _compressed("float-quantized", weights, inputs, ignore)


@dataclass(frozen=True, slots=True)
class Fp8Block:
    name: str = "fp8-block"
    min_multiple: int = 128
    block: int = 128

    def encode(self, weight: Tensor, amax: float) -> dict[str, Tensor]:
        import torch

        tiles = _tiles(weight.float(), self.block)
        scale = (tiles.abs().amax((1, 3)) / E4M3_MAX).clamp(min=1e-12)
        codes = (weight / _spread(scale, self.block, weight.shape)).to(torch.float8_e4m3fn)
        return {"weight": codes, "weight_scale_inv": scale}

    def decode(self, parts: Mapping[str, Tensor]) -> Tensor:
        weight = parts["weight"].float()
        return weight * _spread(parts["weight_scale_inv"].float(), self.block, weight.shape)

    def config(self, ignore: list[str]) -> dict[str, Any] | None:
        return {
            "quant_method": "fp8",
            "fmt": "e4m3",
            "activation_scheme": "dynamic",
            "weight_block_size": [self.block, self.block],
            "modules_to_not_convert": ignore,
        }


@dataclass(frozen=True, slots=True)
class NvFp4:
    """`weight_only`: compressed-tensors layout without an activation scale; else ModelOpt's W4A4."""

    name: str = "nvfp4"
    weight_only: bool = False
    min_multiple: int = 64
    group: int = 16

    def encode(self, weight: Tensor, amax: float) -> dict[str, Tensor]:
        import torch

        second = torch.tensor(max(amax, 1e-12) / (E2M1[-1] * E4M3_MAX), dtype=torch.float32)
        blocks = weight.float().reshape(weight.shape[0], -1, self.group)
        scale = (blocks.abs().amax(2) / (E2M1[-1] * second)).clamp(max=E4M3_MAX).to(torch.float8_e4m3fn)
        divisor = (scale.float() * second).clamp(min=1e-30)
        packed = pack_e2m1((blocks / divisor[..., None]).reshape(weight.shape))
        if self.weight_only:
            return {"weight_packed": packed, "weight_scale": scale, "weight_global_scale": (1.0 / second).reshape(1)}
        inputs = torch.tensor(INPUT_AMAX / (E2M1[-1] * E4M3_MAX), dtype=torch.float32)
        return {"weight": packed, "weight_scale": scale, "weight_scale_2": second, "input_scale": inputs}

    def decode(self, parts: Mapping[str, Tensor]) -> Tensor:
        packed = parts["weight_packed" if self.weight_only else "weight"]
        second = 1.0 / parts["weight_global_scale"].reshape(()) if self.weight_only else parts["weight_scale_2"]
        values = unpack_e2m1(packed)
        blocks = values.view(values.shape[0], -1, self.group)
        blocks *= (parts["weight_scale"].float() * second)[..., None]
        return values

    def config(self, ignore: list[str]) -> dict[str, Any] | None:
        weights = {"num_bits": 4, "type": "float", "group_size": self.group, "dynamic": False}
        if not self.weight_only:
            return {
                "quant_method": "modelopt",
                "quant_algo": "NVFP4",
                "config_groups": {
                    "group_0": {"input_activations": weights, "weights": weights, "targets": ["Linear"]},
                },
                "ignore": ignore,
                "producer": {"name": "modelopt", "version": "0.29.0"},
            }
        weights = {**weights, "strategy": "tensor_group", "symmetric": True}
        return _compressed("nvfp4-pack-quantized", weights, None, ignore)


@dataclass(frozen=True, slots=True)
class MxFp4:
    name: str = "mxfp4"
    min_multiple: int = 64
    group: int = 32

    def encode(self, weight: Tensor, amax: float) -> dict[str, Tensor]:
        import torch

        blocks = weight.float().reshape(weight.shape[0], -1, self.group)
        # MX 1.0, section 6.3: shared exponent = floor(log2(largest)) - 2, the exponent of e2m1's largest value.
        exponent = torch.floor(torch.log2(blocks.abs().amax(2).clamp(min=2.0**-120))) - 2
        scaled = (blocks * torch.exp2(-exponent)[..., None]).clamp(-E2M1[-1], E2M1[-1])
        packed = pack_e2m1(scaled.reshape(weight.shape))
        return {"weight_packed": packed, "weight_scale": (exponent + 127).to(torch.uint8)}

    def decode(self, parts: Mapping[str, Tensor]) -> Tensor:
        import torch

        values = unpack_e2m1(parts["weight_packed"])
        blocks = values.view(values.shape[0], -1, self.group)
        blocks *= torch.exp2(parts["weight_scale"].float() - 127)[..., None]
        return values

    def config(self, ignore: list[str]) -> dict[str, Any] | None:
        weights = {
            "num_bits": 4, "type": "float", "strategy": "group", "group_size": self.group, "symmetric": True,
            "dynamic": False, "scale_dtype": "torch.uint8",
        }  # fmt: skip
        return _compressed("mxfp4-pack-quantized", weights, None, ignore)


@dataclass(frozen=True, slots=True)
class Int4:
    name: str = "int4"
    group: int = 128
    min_multiple: int = 128

    def encode(self, weight: Tensor, amax: float) -> dict[str, Tensor]:
        import torch

        groups = weight.float().reshape(weight.shape[0], -1, self.group)
        scale = (groups.abs().amax(2) / 7.5).clamp(min=1e-12).to(torch.bfloat16)
        codes = torch.round(groups / scale.float()[..., None]).clamp(-8, 7).reshape(weight.shape)
        nibbles = (codes + 8).to(torch.int64).reshape(weight.shape[0], -1, 8)
        packed = (nibbles << torch.arange(0, 32, 4)).sum(2)
        packed = torch.where(packed >= 2**31, packed - 2**32, packed).to(torch.int32)
        return {"weight_packed": packed, "weight_scale": scale, "weight_shape": torch.tensor(list(weight.shape))}

    def decode(self, parts: Mapping[str, Tensor]) -> Tensor:
        import torch

        packed = parts["weight_packed"].to(torch.int64)
        codes = ((packed[..., None] >> torch.arange(0, 32, 4)) & 15).float() - 8
        groups = codes.reshape(packed.shape[0], -1, self.group) * parts["weight_scale"].float()[..., None]
        return groups.reshape(packed.shape[0], -1)

    def config(self, ignore: list[str]) -> dict[str, Any] | None:
        weights = {
            "num_bits": 4, "type": "int", "strategy": "group", "group_size": self.group, "symmetric": True,
            "dynamic": False,
        }  # fmt: skip
        return _compressed("pack-quantized", weights, None, ignore)


FORMATS: dict[str, Format] = {
    "bf16": Bf16(),
    "fp8": Fp8Channel(),
    "fp8-block": Fp8Block(),
    "nvfp4": NvFp4(),
    "nvfp4-w4a16": NvFp4(name="nvfp4-w4a16", weight_only=True),
    "mxfp4": MxFp4(),
    "int4": Int4(),
}


def _compressed(
    layout: str, weights: dict[str, Any], inputs: dict[str, Any] | None, ignore: list[str]
) -> dict[str, Any]:
    group = {"targets": ["Linear"], "weights": weights, "input_activations": inputs, "output_activations": None}
    return {
        "quant_method": "compressed-tensors",
        "format": layout,
        "quantization_status": "compressed",
        "config_groups": {"group_0": {**group, "format": layout}},
        "ignore": ignore,
        "kv_cache_scheme": None,
    }


def _tiles(weight: Tensor, block: int) -> Tensor:
    """[out, in] -> [out blocks, block, in blocks, block], zero-padded."""
    import torch

    rows, columns = weight.shape
    padded = torch.nn.functional.pad(weight, (0, -columns % block, 0, -rows % block))
    return padded.view(padded.shape[0] // block, block, padded.shape[1] // block, block)


def _spread(scale: Tensor, block: int, shape: torch.Size) -> Tensor:
    return scale.repeat_interleave(block, 0)[: shape[0]].repeat_interleave(block, 1)[:, : shape[1]]
