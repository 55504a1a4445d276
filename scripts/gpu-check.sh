#!/usr/bin/env bash
# Everything about the CUDA kernels on a machine with a GPU, in one command and ten minutes: builds them for it, checks every
# kernel against the scalar CPU kernels, times each beside what the device can do, runs whole sessions where Node.js is, and
# repeats the checks under compute-sanitizer as long as there is time.
#
#     scripts/gpu-check.sh
#
# Writes gpu-check.log and gpu-check.json to ${OUT:-.}. Ends with 0 if all passed, 1 if something failed, 77 without a GPU.
# ENGINE_CUDA_ARCH chooses another architecture than the device's (80, 86, 89, 90a, 100), GPU_SECONDS another limit.
set -euo pipefail
cd "$(dirname "$0")/.."
name=gpu-check
. scripts/gpu-steps.sh
require_gpu

step configure 60 cmake -S test/native/cuda -B "$work/cmake" "${generator[@]}" -DENGINE_CUDA=ON \
  "-DCMAKE_CUDA_ARCHITECTURES=$arch" || finish
step build 300 cmake --build "$work/cmake" --parallel "$(nproc)" || finish

for seed in 1 "$(date +%s)"; do
  step "checks-$seed" 120 "$work/cmake/cuda_test" "$seed" || true
done

timings=
if step timings 120 "$work/cmake/cuda_timings" 50; then
  sed '$d' "$work/timings.out"
  timings="\"timings\": $(tail -1 "$work/timings.out")"
fi

if command -v node >/dev/null && [ -d node_modules ]; then
  if step addon 240 npm run --silent build:native; then
    step sessions 180 env ENGINE_REQUIRE_GPU=1 node node_modules/vitest/vitest.mjs run test/native/cuda-device.test.ts || true
  fi
else
  echo 'skipped: sessions need Node.js and npm install' | tee -a "$log"
fi

if command -v compute-sanitizer >/dev/null; then
  for tool in memcheck racecheck initcheck; do
    optional=1 step "$tool" 150 compute-sanitizer --tool "$tool" --error-exitcode 1 "$work/cmake/cuda_test" 1 || true
  done
else
  echo 'skipped: no compute-sanitizer' | tee -a "$log"
fi
finish "$timings"
