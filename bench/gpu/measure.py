"""Tokens per second of PyTorch at the sizes of a model: eager, compiled, and compiled with 8- and 4-bit weights.

    python3 bench/gpu/measure.py llama-2-7b --batch 1,8,64 --json pytorch.json

The report has the form of `engine bench … --json`; `engine bench ladder --baseline pytorch.json` puts ours beside it.
"""
import argparse
import gc
import json
import platform
import shlex
import sys

import torch

from decoder import Decoder, Linear, count_parameters, read_shapes
from quantised import Int8Linear, int4_linear, require_close
from timing import copy_gb_per_second, seconds, summary

MODES = ("eager", "torch.compile", "int8", "int4")
WARM_UP = 2  # runs, after the compiler's
MAX_TOKENS, MAX_BATCH, MAX_RUNS = 131072, 256, 1000


def whole(most):
    def parse(text):
        value = int(text)
        if not 1 <= value <= most:
            raise argparse.ArgumentTypeError(f"{value}; expected a whole number from 1 to {most}")
        return value

    return parse


def list_of(parse):
    return lambda text: [parse(part) for part in text.split(",")]


def mode(text):
    if text not in MODES:
        raise argparse.ArgumentTypeError(f"{text}; expected some of {','.join(MODES)}")
    return text


def parse_arguments(shapes):
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("shape", choices=sorted(shapes))
    parser.add_argument("--modes", type=list_of(mode), default=list(MODES), help=",".join(MODES))
    parser.add_argument("--batch", type=list_of(whole(MAX_BATCH)), default=[1], help="sequences at once; default 1")
    parser.add_argument("--prompt-tokens", type=whole(MAX_TOKENS), default=512, help="before a decode, and of a prefill")
    parser.add_argument("--generated-tokens", type=whole(MAX_TOKENS), default=128, help="of a decode")
    parser.add_argument("--runs", type=whole(MAX_RUNS), default=5, help="measurements of each row; default 5")
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda", help="cpu is for trying the script out")
    parser.add_argument("--no-compile", action="store_true", help="8 and 4 bits without torch.compile, which is slow")
    parser.add_argument("--json", metavar="FILE", help="default: stdout")
    arguments = parser.parse_args()
    context = shapes[arguments.shape].context
    if arguments.prompt_tokens + arguments.generated_tokens > context:
        parser.error(f"prompt and generated tokens are more than the {context} of {arguments.shape}; ask for fewer")
    if arguments.no_compile and "torch.compile" in arguments.modes:
        parser.error("--no-compile with mode torch.compile; leave one of them out")
    if arguments.device == "cuda" and not torch.cuda.is_available():
        parser.error("PyTorch finds no CUDA device; --device cpu tries the script out")
    return arguments


class Measured:
    """A decoder of one batch size, and how one step of it is called."""

    def __init__(self, model, compiled, batch, prompt_tokens, device):
        self.model, self.compiled, self.batch, self.prompt_tokens = model, compiled, batch, prompt_tokens
        vocab = model.embedding.shape[0]
        self.prompt = torch.randint(vocab, (batch, prompt_tokens), device=device)
        self.positions = torch.arange(prompt_tokens, device=device)
        # Two programs: a prompt's sizes and a token's.
        self.read, self.step = (self.compile() if compiled else self.next_token for _ in range(2))

    def next_token(self, tokens, positions):
        """Greedy: [B, T] -> [B, 1]."""
        return self.model(tokens, positions).argmax(-1, keepdim=True)

    def compile(self):
        def next_token(tokens, positions):
            return self.next_token(tokens, positions)

        return torch.compile(next_token, mode="reduce-overhead", fullgraph=True, dynamic=False)

    def call(self, function, tokens, positions):
        if not self.compiled:
            return function(tokens, positions)
        torch.compiler.cudagraph_mark_step_begin()
        return function(tokens, positions).clone()  # the graph's own output is overwritten by its next run

    def prefill(self):
        return self.call(self.read, self.prompt, self.positions)

    def decode(self, token, steps):
        """So many steps, each with the token of the one before; nothing is read back meanwhile."""
        position = self.positions[-1:] + 1
        for _ in range(steps):
            token = self.call(self.step, token, position)
            position = position + 1
        return token


def kv_bytes(shape, dtype):
    """Keys and values of one position."""
    return 2 * shape.layers * shape.kv_heads * shape.head_dim * dtype.itemsize


def measure_batch(arguments, shape, quantise, compiled, batch, device, dtype):
    """(kind, rates, bytes a token) of prefill and decode."""
    prompt, generated, runs = arguments.prompt_tokens, arguments.generated_tokens, arguments.runs
    model = Decoder(shape, quantise, batch, prompt + generated, dtype, device).eval()
    measured = Measured(model, compiled, batch, prompt, device)
    prefill = [seconds(device, measured.prefill) for _ in range(WARM_UP + 1 + runs)][-runs:]
    first = measured.prefill()
    decode = [seconds(device, lambda: measured.decode(first, generated)) for _ in range(WARM_UP + 1 + runs)][-runs:]
    decode_bytes = model.matrix_bytes() / batch + kv_bytes(shape, dtype) * (prompt + (generated + 1) / 2)
    yield "prefill", [batch * prompt / time for time in prefill], None
    yield "decode", [batch * generated / time for time in decode], decode_bytes


def measure_mode(name, arguments, shape, device, dtype, peak):
    compiled = name != "eager" and not arguments.no_compile
    quantise, weights, kernel = Linear, str(dtype).removeprefix("torch."), "torch.nn.functional.linear"
    if name == "int8":
        require_close(Int8Linear, device, dtype)
        quantise, weights, kernel = Int8Linear, "int8", Int8Linear.kernel
    elif name == "int4":
        quantise, reason = int4_linear(device, dtype)
        weights, kernel = "int4", quantise.kernel
        if reason is not None:
            print(f"measure.py: no operator of torch for 4 bits: {reason}", file=sys.stderr)
    weights = "bf16" if weights == "bfloat16" else weights
    rows = []
    for batch in arguments.batch:
        print(f"measure.py: {name}, batch {batch}", file=sys.stderr)
        try:
            results = list(measure_batch(arguments, shape, quantise, compiled, batch, device, dtype))
        except torch.OutOfMemoryError:
            print(f"measure.py: {name}, batch {batch}: out of memory, no row", file=sys.stderr)
            results = []
        for kind, rates, token_bytes in results:
            row = {
                "name": f"{name}: {kind}",
                "backend": f"pytorch-{torch.__version__}:{device.type}",
                "dtype": weights,
                "kernel": kernel,
                "compiled": compiled,
                "batch": batch,
                "prompt_tokens": arguments.prompt_tokens,
                "generated_tokens": arguments.generated_tokens if kind == "decode" else 0,
                "tokens_per_second": summary(rates),
            }
            if token_bytes is not None:
                rate = token_bytes * row["tokens_per_second"]["median"] / 1e9
                row |= {"bytes_per_token": round(token_bytes), "gb_per_second": rate}
                row |= {"peak_gb_per_second": peak, "percent_of_peak": 100 * rate / peak}
            rows.append(row)
        torch.compiler.reset()
        gc.collect()
        if device.type == "cuda":
            torch.cuda.empty_cache()
    return rows


def main():
    shapes = read_shapes()
    arguments = parse_arguments(shapes)
    device, dtype, shape = torch.device(arguments.device), torch.bfloat16, shapes[arguments.shape]
    peak = copy_gb_per_second(device)
    with torch.no_grad():
        modes = [measure_mode(name, arguments, shape, device, dtype, peak) for name in arguments.modes]
    parameters = count_parameters(shape)
    report = {
        "machine": {
            "gpu": torch.cuda.get_device_name(device) if device.type == "cuda" else None,
            "platform": f"{platform.system().lower()}-{platform.machine()}",
            "python": platform.python_version(),
            "torch": torch.__version__,
            "cuda": torch.version.cuda,
            "copy_gb_per_second": peak,
        },
        "commit": None,
        "command": shlex.join(["python3", *sys.argv]),
        "model": {
            "name": arguments.shape,
            "architecture": "llama",
            "parameters": parameters,
            "bytes": parameters * dtype.itemsize,
        },
        "rows": [row for rows in modes for row in rows],
    }
    text = json.dumps(report, indent=2) + "\n"
    if arguments.json is None:
        sys.stdout.write(text)
    else:
        with open(arguments.json, "w") as file:
            file.write(text)


if __name__ == "__main__":
    main()
