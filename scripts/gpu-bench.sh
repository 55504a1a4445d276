#!/usr/bin/env bash
# Times whole models on this machine's GPU: real ones through Node, saved plans with weights drawn on the device without it.
#
#     scripts/gpu-bench.sh FILE…       models (.gguf, .safetensors, folders), or plans (.plan)
#
#     engine inspect model.gguf --context-size 4096 --save-plan model.plan     makes a plan, on any machine
#
# Results go to build/gpu-bench, one JSON object per measurement. ENGINE_CUDA_ARCHITECTURES chooses other architectures than
# the device's; BENCH_STEPS the number of decode steps timed for a plan (100).
set -euo pipefail
cd "$(dirname "$0")/.."

if [ $# -eq 0 ]; then
  sed -n '2,/^set/s/^# \?//p' "$0" && exit 2
fi
if ! command -v nvidia-smi >/dev/null || ! nvidia-smi -L >/dev/null 2>&1; then
  echo 'skipped: no CUDA device' && exit 0
fi
nvidia-smi --query-gpu=name,compute_cap,driver_version,memory.total --format=csv,noheader

out=build/gpu-bench
mkdir -p "$out"
runner_is_built=

# The runner and the library with the kernels, which need no Node.
build_runner() {
  [ -z "$runner_is_built" ] || return 0
  cmake -S . -B "$out/cmake" "-DENGINE_OUTPUT_DIRECTORY=$PWD/$out/release" \
    ${ENGINE_CUDA_ARCHITECTURES:+"-DENGINE_CUDA_ARCHITECTURES=$ENGINE_CUDA_ARCHITECTURES"} >"$out/configure.log"
  cmake --build "$out/cmake" --parallel "$(nproc)" --target engine_cuda cuda_runner >"$out/build.log" 2>&1 ||
    { tail -40 "$out/build.log"; exit 1; }
  runner_is_built=1
}

for file in "$@"; do
  name=$(basename "$file")
  echo "== $name"
  case $file in
    *.plan)
      build_runner
      "$out/release/cuda_runner" "$out/release/engine_cuda.so" "$file" "${BENCH_STEPS:-100}" | tee "$out/$name.json"
      ;;
    *)
      if ! command -v node >/dev/null || [ ! -d node_modules ]; then
        echo 'skipped: models need Node and npm install; give a plan' && continue
      fi
      [ -e dist/cli/main.js ] || npm run --silent build
      node dist/cli/main.js bench decode -m "$file" --backend native-cuda --json | tee "$out/$name-decode.json"
      node dist/cli/main.js bench prefill -m "$file" --backend native-cuda --json | tee "$out/$name-prefill.json"
      ;;
  esac
done
