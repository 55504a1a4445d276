"""A Llama-architecture Transformer, small enough to read in one sitting.

Shapes: B sequences, T positions, D model width, H query heads, K key/value heads,
h = D / H head width, F feed-forward width, V vocabulary.
Names follow GGUF's tensors, so that export.py only has to spell them out.
"""
from dataclasses import dataclass

import torch
import torch.nn as nn
import torch.nn.functional as F


@dataclass
class Config:
    vocab: int = 4096
    dim: int = 256
    layers: int = 8
    heads: int = 8
    kv_heads: int = 4
    ffn: int = 768
    context: int = 1024
    rope_theta: float = 10000.0
    norm_eps: float = 1e-5

    @property
    def head_dim(self):
        return self.dim // self.heads


PRESETS = {
    "fable": Config(),
    "fable-draft": Config(dim=128, layers=3, heads=4, kv_heads=2, ffn=384),
}


def rope_table(config):
    """cos and sin of position x frequency, each [context, h / 2]."""
    frequency = config.rope_theta ** (-torch.arange(0, config.head_dim, 2).float() / config.head_dim)
    angle = torch.outer(torch.arange(config.context).float(), frequency)
    return angle.cos(), angle.sin()


def rotate(x, cos, sin):
    """RoPE on the two halves of every head: x [B, heads, T, h], cos and sin [T, h / 2]."""
    a, b = x.float().chunk(2, dim=-1)
    return torch.cat((a * cos - b * sin, b * cos + a * sin), dim=-1).to(x.dtype)


def attend(q, k, v, block=128):
    """Causal attention: q, k and v [B, H, T, h] -> [B, H, T, h]. Queries go in blocks that see only
    the keys before them; on a CPU this takes half the time of F.scaled_dot_product_attention."""
    q, out = q * q.shape[-1] ** -0.5, []
    for i in range(0, q.shape[2], block):
        queries = q[:, :, i : i + block]
        n = queries.shape[2]
        scores = queries @ k[:, :, : i + n].transpose(-1, -2)  # [B, H, n, i + n]
        future = torch.ones(n, n, dtype=torch.bool).triu(1)
        last = scores[..., i:].masked_fill(future, -1e9)
        out.append(torch.cat((scores[..., :i], last), -1).softmax(-1) @ v[:, :, : i + n])
    return torch.cat(out, dim=2)


class Layer(nn.Module):
    def __init__(self, config):
        super().__init__()
        c, kv = config, config.kv_heads * config.head_dim
        self.head_dim = c.head_dim
        self.attn_norm = nn.RMSNorm(c.dim, c.norm_eps)
        self.attn_q = nn.Linear(c.dim, c.dim, bias=False)
        self.attn_k = nn.Linear(c.dim, kv, bias=False)
        self.attn_v = nn.Linear(c.dim, kv, bias=False)
        self.attn_output = nn.Linear(c.dim, c.dim, bias=False)
        self.ffn_norm = nn.RMSNorm(c.dim, c.norm_eps)
        self.ffn_gate = nn.Linear(c.dim, c.ffn, bias=False)
        self.ffn_up = nn.Linear(c.dim, c.ffn, bias=False)
        self.ffn_down = nn.Linear(c.ffn, c.dim, bias=False)

    def forward(self, x, cos, sin):  # x [B, T, D]
        split = lambda y: y.unflatten(-1, (-1, self.head_dim)).transpose(1, 2)  # [B, T, n*h] -> [B, n, T, h]
        y = self.attn_norm(x)
        q = rotate(split(self.attn_q(y)), cos, sin)  # [B, H, T, h]
        k = rotate(split(self.attn_k(y)), cos, sin)  # [B, K, T, h]
        v = split(self.attn_v(y))  # [B, K, T, h]
        groups = q.shape[1] // k.shape[1]  # query head i reads key/value head i // groups
        k, v = k.repeat_interleave(groups, 1), v.repeat_interleave(groups, 1)
        x = x + self.attn_output(attend(q, k, v).transpose(1, 2).flatten(2))
        y = self.ffn_norm(x)
        return x + self.ffn_down(F.silu(self.ffn_gate(y)) * self.ffn_up(y))


class Model(nn.Module):
    def __init__(self, config):
        super().__init__()
        self.config = config
        self.token_embd = nn.Embedding(config.vocab, config.dim)  # tied: also the output matrix
        self.blk = nn.ModuleList(Layer(config) for _ in range(config.layers))
        self.output_norm = nn.RMSNorm(config.dim, config.norm_eps)
        cos, sin = rope_table(config)
        self.register_buffer("cos", cos, persistent=False)
        self.register_buffer("sin", sin, persistent=False)
        for name, weight in self.named_parameters():
            if weight.dim() == 2:
                nn.init.normal_(weight, std=0.02)
            if name.endswith(("attn_output.weight", "ffn_down.weight")):
                nn.init.zeros_(weight)  # every layer starts as the identity

    def forward(self, tokens):  # tokens [B, T] -> logits [B, T, V]
        cos, sin = self.cos[: tokens.shape[1]], self.sin[: tokens.shape[1]]
        x = self.token_embd(tokens)
        for layer in self.blk:
            x = layer(x, cos, sin)
        return F.linear(self.output_norm(x), self.token_embd.weight)
