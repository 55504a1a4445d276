"""A Llama decoder with random weights and a static KV cache, written for torch.compile.

Shapes: B sequences, T tokens of each in this step, C positions that the cache has room for.
"""
import json
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn as nn
import torch.nn.functional as F

NORM_EPS = 1e-5


@dataclass(frozen=True)
class Shape:
    """Sizes as in config.json; see src/synthetic/shapes.ts, which shapes.json is made from."""

    hidden: int
    intermediate: int
    layers: int
    heads: int
    kv_heads: int
    head_dim: int
    vocab: int
    context: int
    rope_theta: float
    tied: bool


def read_shapes():
    """Name -> Shape."""
    sizes = json.loads(Path(__file__).with_name("shapes.json").read_text())
    return {
        name: Shape(
            hidden=s["hiddenSize"], intermediate=s["intermediateSize"], layers=s["numLayers"], heads=s["numHeads"],
            kv_heads=s["numKvHeads"], head_dim=s["headDim"], vocab=s["vocabSize"], context=s["contextLength"],
            rope_theta=s["ropeTheta"], tied=s["tied"],
        )
        for name, s in sizes.items()
    }


class Linear(nn.Module):
    """y = x Wᵀ with W [rows, columns] in the model's own type."""

    def __init__(self, weight):
        super().__init__()
        self.register_buffer("weight", weight)

    def forward(self, x):
        return F.linear(x, self.weight)


class Norm(nn.Module):
    """RMSNorm, in float32."""

    def __init__(self, size, dtype, device):
        super().__init__()
        self.register_buffer("weight", torch.ones(size, dtype=dtype, device=device))

    def forward(self, x):
        wide = x.float()
        scaled = wide * torch.rsqrt(wide.pow(2).mean(-1, keepdim=True) + NORM_EPS)
        return scaled.to(x.dtype) * self.weight


def rotate(x, cos, sin):
    """Rotary embedding (arXiv 2104.09864) of halves: x [B, heads, T, head_dim], cos and sin [T, head_dim / 2]."""
    first, second = x.float().chunk(2, dim=-1)
    return torch.cat((first * cos - second * sin, second * cos + first * sin), dim=-1).to(x.dtype)


class Layer(nn.Module):
    def __init__(self, shape, make, batch, room, dtype, device):
        super().__init__()
        self.shape = shape
        queries, keys = shape.heads * shape.head_dim, shape.kv_heads * shape.head_dim
        self.attention_norm = Norm(shape.hidden, dtype, device)
        self.qkv = make(queries + 2 * keys, shape.hidden)
        self.output = make(shape.hidden, queries)
        self.mlp_norm = Norm(shape.hidden, dtype, device)
        self.gate_up = make(2 * shape.intermediate, shape.hidden)
        self.down = make(shape.hidden, shape.intermediate)
        cache = (batch, shape.kv_heads, room, shape.head_dim)
        self.register_buffer("keys", torch.zeros(cache, dtype=dtype, device=device))
        self.register_buffer("values", torch.zeros(cache, dtype=dtype, device=device))

    def forward(self, x, positions, mask, cos, sin):
        x = x + self.attend(self.attention_norm(x), positions, mask, cos, sin)
        gate, up = self.gate_up(self.mlp_norm(x)).chunk(2, dim=-1)
        return x + self.down(F.silu(gate) * up)

    def attend(self, x, positions, mask, cos, sin):
        s = self.shape
        batch, tokens, _ = x.shape
        sizes = [s.heads * s.head_dim, s.kv_heads * s.head_dim, s.kv_heads * s.head_dim]
        q, k, v = (
            part.view(batch, tokens, -1, s.head_dim).transpose(1, 2) for part in self.qkv(x).split(sizes, dim=-1)
        )
        self.keys.index_copy_(2, positions, rotate(k, cos, sin))
        self.values.index_copy_(2, positions, v)
        grouped = s.heads != s.kv_heads
        y = F.scaled_dot_product_attention(
            rotate(q, cos, sin), self.keys, self.values, attn_mask=mask, enable_gqa=grouped
        )
        return self.output(y.transpose(1, 2).reshape(batch, tokens, -1))


class Decoder(nn.Module):
    def __init__(self, shape, quantise, batch, room, dtype, device):
        """quantise: makes a module of a weight [rows, columns]."""
        super().__init__()

        def random(rows, columns):
            return torch.empty(rows, columns, dtype=dtype, device=device).normal_(0, 0.02)

        def make(rows, columns):
            return quantise(random(rows, columns))

        self.register_buffer("embedding", random(shape.vocab, shape.hidden))
        self.layers = nn.ModuleList(Layer(shape, make, batch, room, dtype, device) for _ in range(shape.layers))
        self.norm = Norm(shape.hidden, dtype, device)
        self.head = quantise(self.embedding) if shape.tied else make(shape.vocab, shape.hidden)
        frequencies = shape.rope_theta ** (-torch.arange(0, shape.head_dim, 2, device=device).float() / shape.head_dim)
        angles = torch.arange(room, device=device).float()[:, None] * frequencies
        self.register_buffer("cos", angles.cos())
        self.register_buffer("sin", angles.sin())
        self.register_buffer("causal", torch.ones(room, room, dtype=torch.bool, device=device).tril())

    def forward(self, tokens, positions):
        """tokens [B, T], positions [T] -> logits of the last position [B, vocab]."""
        x = F.embedding(tokens, self.embedding)
        mask = self.causal[positions][None, None]  # [1, 1, T, C]
        cos, sin = self.cos[positions], self.sin[positions]
        for layer in self.layers:
            x = layer(x, positions, mask, cos, sin)
        return self.head(self.norm(x[:, -1]))

    def matrix_bytes(self):
        """Of all matrices that a step reads: all but the embedding, of which it reads a row a token."""
        matrices = [m for layer in self.layers for m in (layer.qkv, layer.output, layer.gate_up, layer.down)]
        buffers = [b for m in [*matrices, self.head] for b in m.buffers()]
        return sum(b.numel() * b.element_size() for b in buffers)


def count_parameters(s):
    """Of the model as published: every weight once, norms included."""
    attention = s.hidden * s.head_dim * (2 * s.heads + 2 * s.kv_heads)
    layer = attention + 3 * s.hidden * s.intermediate + 2 * s.hidden
    return (1 if s.tied else 2) * s.vocab * s.hidden + s.layers * layer + s.hidden
