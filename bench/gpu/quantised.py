"""Weight-only quantisation of linear layers: 8 bits a channel, 4 bits a group of 32."""
import torch
import torch.nn as nn
import torch.nn.functional as F

GROUP = 32


class Int8Linear(nn.Module):
    """One scale per row; the product with bytes converted on the way, which torch.compile makes one kernel."""

    kernel = "dequantising matmul"

    def __init__(self, weight):
        super().__init__()
        scale = weight.float().abs().amax(1, keepdim=True) / 127  # [rows, 1]
        self.register_buffer("codes", (weight.float() / scale).round().to(torch.int8))  # [rows, columns]
        self.register_buffer("scale", scale[:, 0].to(weight.dtype))  # [rows]

    def forward(self, x):
        return F.linear(x, self.codes.to(x.dtype)) * self.scale


def int4_codes(weight):
    """[rows, columns] -> codes 0..15 [rows, columns], scale and middle [rows, columns / 32]: w = scale (code - 8) + middle."""
    rows, columns = weight.shape
    groups = weight.float().view(rows, columns // GROUP, GROUP)
    low, high = groups.amin(-1), groups.amax(-1)
    scale = ((high - low) / 15).clamp(min=1e-6).to(weight.dtype)
    middle = (low + 8 * scale.float()).to(weight.dtype)
    codes = ((groups - middle.float()[..., None]) / scale.float()[..., None] + 8).round().clamp(0, 15)
    return codes.to(torch.int32).view(rows, columns), scale, middle


class Int4Linear(nn.Module):
    """torch's own operator for 4-bit weights and bfloat16 inputs."""

    def __init__(self, weight):
        super().__init__()
        codes, scale, middle = int4_codes(weight)
        inner = next(tiles for tiles in (8, 4, 2) if weight.shape[1] % (16 * tiles) == 0)
        if weight.is_cuda:
            self.multiply = torch.ops.aten._weight_int4pack_mm
            pairs = (codes[:, ::2] << 4 | codes[:, 1::2]).to(torch.uint8)
            packed = torch.ops.aten._convert_weight_to_int4pack(pairs, inner)
        else:
            self.multiply = torch.ops.aten._weight_int4pack_mm_for_cpu
            packed = torch.ops.aten._convert_weight_to_int4pack_for_cpu(codes, inner)
        self.rows = weight.shape[0]
        self.register_buffer("packed", packed)
        # [columns / 32, rows, 2]
        self.register_buffer("scale_and_middle", torch.stack((scale, middle), -1).transpose(0, 1).contiguous())

    kernel = "torch._weight_int4pack_mm"

    def forward(self, x):
        flat = x.reshape(-1, x.shape[-1])
        return self.multiply(flat, self.packed, GROUP, self.scale_and_middle).view(*x.shape[:-1], self.rows)


class Int4DequantisingLinear(nn.Module):
    """The same codes, two a byte, made floats on the way to a product."""

    kernel = "dequantising matmul"

    def __init__(self, weight):
        super().__init__()
        codes, scale, middle = int4_codes(weight)
        self.register_buffer("pairs", (codes[:, ::2] << 4 | codes[:, 1::2]).to(torch.uint8))  # [rows, columns / 2]
        self.register_buffer("scale", scale)
        self.register_buffer("middle", middle)

    def forward(self, x):
        codes = torch.stack((self.pairs >> 4, self.pairs & 15), -1).view(*self.scale.shape, GROUP)
        weight = (codes.to(x.dtype) - 8) * self.scale[..., None] + self.middle[..., None]
        return F.linear(x, weight.flatten(1))


def int4_linear(device, dtype):
    """The class for 4 bits that works here, and why not torch's operator; None if it is that one."""
    try:
        require_close(Int4Linear, device, dtype)
        return Int4Linear, None
    except (RuntimeError, AttributeError, NotImplementedError) as error:
        require_close(Int4DequantisingLinear, device, dtype)
        return Int4DequantisingLinear, str(error).splitlines()[0]


def require_close(linear, device, dtype):
    """Correctness first: a small product against float32, which codes of 8 and 4 bits may miss by 2 and 15 per cent."""
    generator = torch.Generator().manual_seed(0)
    weight = torch.randn(64, 256, generator=generator).to(device, dtype)
    x = torch.randn(3, 256, generator=generator).to(device, dtype)
    exact = x.float() @ weight.float().T
    error = ((linear(weight)(x).float() - exact).norm() / exact.norm()).item()
    bound = 0.02 if linear is Int8Linear else 0.15
    if not error < bound:
        raise RuntimeError(f"{linear.__name__} misses the exact product by {error:.3f} of its length")
