#!/usr/bin/env python3
"""Write a checkpoint as GGUF (Q8_0 matrices, f32 norms), read it back, and compare.

    python3 export.py --checkpoint run/last.pt --out fable-q8_0.gguf --check valid.txt

`general.architecture` is "llama", so the rows of attn_q and attn_k are reordered: llama.cpp
rotates neighbouring pairs (2i, 2i + 1) where the model here, as Hugging Face's, rotates
(i, i + h / 2). `load` undoes it.
"""
import argparse
import json
import math
from pathlib import Path

import gguf
import numpy as np
import torch
import torch.nn.functional as F
from gguf import GGMLQuantizationType as Type, TokenType

from model import Config, Model
from tokenizer import END, documents


def interleave(weight, heads):
    """Rows of [heads * h, D] from the order (half, i) to (i, half) within every head."""
    rows, columns = weight.shape
    return weight.reshape(heads, 2, rows // heads // 2, columns).swapaxes(1, 2).reshape(rows, columns)


def deinterleave(weight, heads):
    rows, columns = weight.shape
    return weight.reshape(heads, rows // heads // 2, 2, columns).swapaxes(1, 2).reshape(rows, columns)


def rotated_heads(name, config):
    """How many heads a tensor's rows hold, if RoPE turns them; else 0."""
    return config.heads if ".attn_q." in name else config.kv_heads if ".attn_k." in name else 0


def export(path, model, tokenizer_json, name, description):
    config = model.config
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_type("model")
    writer.add_name(name)
    writer.add_description(description)
    writer.add_license("mit")
    writer.add_languages(["en"])
    writer.add_file_type(gguf.LlamaFileType.MOSTLY_Q8_0)
    writer.add_quantization_version(gguf.GGML_QUANT_VERSION)
    writer.add_vocab_size(config.vocab)
    writer.add_context_length(config.context)
    writer.add_embedding_length(config.dim)
    writer.add_block_count(config.layers)
    writer.add_feed_forward_length(config.ffn)
    writer.add_head_count(config.heads)
    writer.add_head_count_kv(config.kv_heads)
    writer.add_layer_norm_rms_eps(config.norm_eps)
    writer.add_rope_dimension_count(config.head_dim)
    writer.add_rope_freq_base(config.rope_theta)

    vocab = tokenizer_json["model"]["vocab"]
    tokens = sorted(vocab, key=vocab.get)
    merges = [m if isinstance(m, str) else " ".join(m) for m in tokenizer_json["model"]["merges"]]
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("gpt-2")
    writer.add_token_list(tokens)
    writer.add_token_types([TokenType.CONTROL if t == END else TokenType.NORMAL for t in tokens])
    writer.add_token_merges(merges)
    writer.add_bos_token_id(vocab[END])
    writer.add_eos_token_id(vocab[END])
    writer.add_add_bos_token(True)  # in training every document opened with END
    writer.add_add_eos_token(False)

    for name, weight in model.state_dict().items():
        weight = weight.numpy()
        if weight.ndim == 1:
            writer.add_tensor(name, weight)
            continue
        if heads := rotated_heads(name, config):
            weight = interleave(weight, heads)
        writer.add_tensor(name, gguf.quants.quantize(np.ascontiguousarray(weight), Type.Q8_0), raw_dtype=Type.Q8_0)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def load(path):
    """Read a GGUF written by export. Returns (model on dequantised weights, reader)."""
    reader = gguf.GGUFReader(path)
    get = lambda key: reader.fields[key].contents()
    config = Config(
        vocab=get("llama.vocab_size"), dim=get("llama.embedding_length"), layers=get("llama.block_count"),
        heads=get("llama.attention.head_count"), kv_heads=get("llama.attention.head_count_kv"),
        ffn=get("llama.feed_forward_length"), context=get("llama.context_length"),
        rope_theta=get("llama.rope.freq_base"), norm_eps=get("llama.attention.layer_norm_rms_epsilon"))
    state = {}
    for tensor in reader.tensors:
        weight = gguf.quants.dequantize(tensor.data, tensor.tensor_type)
        if heads := rotated_heads(tensor.name, config):
            weight = deinterleave(weight, heads)
        state[tensor.name] = torch.from_numpy(np.array(weight, dtype=np.float32))
    model = Model(config)
    model.load_state_dict(state)
    return model.eval(), reader


def load_tokenizer(reader):
    """The tokenizer rebuilt from nothing but the GGUF's own metadata."""
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers
    tokens = reader.fields["tokenizer.ggml.tokens"].contents()
    merges = [tuple(m.split(" ")) for m in reader.fields["tokenizer.ggml.merges"].contents()]
    tokenizer = Tokenizer(models.BPE({t: i for i, t in enumerate(tokens)}, merges))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens([AddedToken(END)])
    return tokenizer


@torch.no_grad()
def compare(exported, original, tokenizer, path):
    """Bits per byte of both models over a whole text file, and how far their logits part."""
    end, ids, size = tokenizer.token_to_id(END), [], 0
    for text in documents([path]):
        ids += [end, *tokenizer.encode(text).ids]
        size += len(text.encode())
    ids, span = torch.tensor(ids), original.config.context
    nats, nats_original, largest, agree = 0.0, 0.0, 0.0, 0
    for start in range(0, len(ids) - 1, span):
        window = ids[start : start + span + 1]
        a, b = exported(window[None, :-1])[0], original(window[None, :-1])[0]  # [T, V] each
        nats += F.cross_entropy(a, window[1:], reduction="sum").item()
        nats_original += F.cross_entropy(b, window[1:], reduction="sum").item()
        largest = max(largest, (a - b).abs().max().item())
        agree += (a.argmax(-1) == b.argmax(-1)).sum().item()
    to_bits = 1 / math.log(2) / size
    print(f"{path}: {size} bytes, {len(ids)} tokens, windows of {span}")
    print(f"bits per byte: {nats * to_bits:.4f} exported, {nats_original * to_bits:.4f} before quantisation")
    print(f"perplexity per token: {math.exp(nats / (len(ids) - 1)):.2f} exported")
    print(f"largest logit difference {largest:.3f}, same best token at {100 * agree / (len(ids) - 1):.2f} % of positions")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--checkpoint", required=True, help="written by train.py")
    parser.add_argument("--tokenizer", default="run/tokenizer.json", help="written by tokenizer.py")
    parser.add_argument("--out", default="fable-q8_0.gguf", help="GGUF file to write")
    parser.add_argument("--name", default="fable", help="general.name")
    parser.add_argument("--description", default="A small story model, trained from scratch on public-domain "
                        "English children's stories.", help="general.description")
    parser.add_argument("--check", help="held-out text to compare both models on")
    parser.add_argument("--threads", type=int, default=2, help="CPU threads")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)

    checkpoint = torch.load(args.checkpoint, weights_only=True)
    original = Model(Config(**checkpoint["config"])).eval()
    original.load_state_dict(checkpoint["model"])
    export(args.out, original, json.loads(Path(args.tokenizer).read_text()), args.name, args.description)

    exported, reader = load(args.out)
    for name, weight in original.state_dict().items():  # Q8_0 rounds to steps of (largest of 32) / 127
        back, worst = exported.state_dict()[name], 0.0
        if weight.dim() == 2:
            blocks, back = weight.view(-1, 32), back.view(-1, 32)
            step = blocks.abs().amax(1, keepdim=True) / 127
            worst = ((blocks - back).abs() / step.clamp(min=1e-12)).max().item()
            assert worst < 0.6, f"{name}: off by {worst:.2f} steps"  # 0.5, and the scale's own rounding to f16
        else:
            assert torch.equal(weight, back), name
    print(f"{args.out}: {Path(args.out).stat().st_size} bytes, step {checkpoint['step']}, "
          f"{checkpoint['tokens']} tokens seen, read back within Q8_0 rounding")
    if args.check:
        compare(exported, original, load_tokenizer(reader), args.check)


if __name__ == "__main__":
    main()
