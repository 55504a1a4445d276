#!/usr/bin/env bash
# Times whole models on this machine's GPU, in one command: saved plans with weights drawn on the device (bench/gpu/plans),
# PyTorch at the same sizes where python3 has torch, and the engine itself where Node.js is.
#
#     scripts/gpu-bench.sh [SHAPE…]      llama-2-7b llama-3.1-8b llama-3.2-1b unless given
#
# Writes gpu-bench.log and gpu-bench.json to ${OUT:-.}. Ends with 0 if all ran, 1 if something failed, 77 without a GPU.
# BENCH_STEPS is the number of decode steps timed for a plan (100), BENCH_WITHOUT what to leave out (`pytorch engine`);
# ENGINE_CUDA_ARCH and GPU_SECONDS as for gpu-check.sh.
set -euo pipefail
cd "$(dirname "$0")/.."
name=gpu-bench
. scripts/gpu-steps.sh
require_gpu
shapes=("$@")
if [ $# -eq 0 ]; then shapes=(llama-2-7b llama-3.1-8b llama-3.2-1b); fi
leaves_out() { [[ " ${BENCH_WITHOUT:-} " == *" $1 "* ]]; }
# Fields of a JSON object, one a call: field VARIABLE NAME VALUE.
field() { printf -v "$1" '%s%s"%s": %s' "${!1}" "${!1:+, }" "$2" "$3"; }

step configure 60 cmake -S . -B "$work/cmake" "${generator[@]}" "-DENGINE_CUDA_ARCHITECTURES=$arch" \
  "-DENGINE_OUTPUT_DIRECTORY=$PWD/$work/release" || finish
step build 300 cmake --build "$work/cmake" --parallel "$(nproc)" --target engine_cuda cuda_runner || finish

plans=
for shape in "${shapes[@]}"; do
  for packed in "bench/gpu/plans/$shape"-*.plan.gz; do
    plan=$(basename "$packed" .plan.gz)
    gzip -dc "$packed" >"$work/$plan.plan" || continue
    if step "$plan" 60 "$work/release/cuda_runner" "$work/release/engine_cuda.so" "$work/$plan.plan" "${BENCH_STEPS:-100}"
    then
      cat "$work/$plan.out"
      field plans "$plan" "[$(paste -sd, "$work/$plan.out")]"
    fi
  done
done

pytorch=
if ! leaves_out pytorch && python3 -c 'import torch; assert torch.cuda.is_available()' 2>/dev/null; then
  for shape in "${shapes[@]}"; do
    report=$work/pytorch-$shape.json
    if step "pytorch-$shape" 300 python3 bench/gpu/measure.py "$shape" --batch 1 --prompt-tokens 512 \
      --generated-tokens 128 --json "$report"; then
      field pytorch "$shape" "$(cat "$report")"
    fi
  done
else
  echo 'skipped: no python3 with torch that finds the GPU' | tee -a "$log"
fi

engine=
if ! leaves_out engine && command -v node >/dev/null && [ -d node_modules ]; then
  if step engine 300 npm run --silent build; then
    for shape in "${shapes[@]}"; do
      report=$work/ladder-$shape.json baseline=()
      if [ -s "$work/pytorch-$shape.json" ]; then baseline=(--baseline "$work/pytorch-$shape.json"); fi
      if step "ladder-$shape" 300 node dist/cli/main.js bench ladder --synthetic "$shape" --type bf16 \
        --backend native-cuda --prompt-tokens 512 --context-tokens 512 --generated-tokens 128 "${baseline[@]}" \
        --json "$report"; then
        cat "$work/ladder-$shape.out"
        field engine "$shape" "$(cat "$report")"
      fi
    done
  fi
else
  echo 'skipped: the engine needs Node.js and npm install' | tee -a "$log"
fi
finish "\"plans\": {$plans}, \"pytorch\": {$pytorch}, \"engine\": {$engine}"
