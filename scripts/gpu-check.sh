#!/usr/bin/env bash
# Everything about the CUDA kernels on a machine with a GPU, in one command: builds them for it, checks every kernel against
# the scalar CPU kernels, repeats that under compute-sanitizer, and times each beside what the device can do.
#
#     scripts/gpu-check.sh [FOLDER]    logs and timings.json go there; build/gpu unless given
#
# ENGINE_CUDA_ARCH chooses another architecture than the device's (80, 86, 89, 90a, 100).
set -euo pipefail
cd "$(dirname "$0")/.."

if ! command -v nvcc >/dev/null; then
  echo 'skipped: no nvcc' && exit 0
fi
if ! command -v nvidia-smi >/dev/null || ! nvidia-smi -L >/dev/null 2>&1; then
  echo 'skipped: no CUDA device' && exit 0
fi
nvidia-smi --query-gpu=name,compute_cap,driver_version,memory.total --format=csv,noheader

out=${1:-build/gpu}
build=build/gpu
mkdir -p "$out" "$build"
# Instructions of Hopper's own need the name with an a.
arch=${ENGINE_CUDA_ARCH:-$(nvidia-smi --query-gpu=compute_cap --format=csv,noheader | head -1 | tr -d . | sed 's/^90$/90a/')}

cmake -S test/native/cuda -B "$build" -DENGINE_CUDA=ON "-DCMAKE_CUDA_ARCHITECTURES=$arch" >"$out/configure.log"
cmake --build "$build" --parallel "$(nproc)" >"$out/build.log" 2>&1 || { tail -40 "$out/build.log"; exit 1; }

status=0
for seed in 1 "$(date +%s)"; do
  echo "== checks, seed $seed"
  "$build/cuda_test" "$seed" >"$out/checks-$seed.log" || status=1
  grep -v ': ok$' "$out/checks-$seed.log" || true
done

if command -v compute-sanitizer >/dev/null; then
  for tool in memcheck racecheck synccheck; do
    echo "== compute-sanitizer $tool"
    compute-sanitizer --tool "$tool" --error-exitcode 1 "$build/cuda_test" >"$out/$tool.log" 2>&1 || status=1
    tail -3 "$out/$tool.log"
  done
else
  echo 'skipped: no compute-sanitizer'
fi

echo '== timings'
"$build/cuda_timings" >"$out/timings.txt" || status=1
sed '$d' "$out/timings.txt"
tail -1 "$out/timings.txt" >"$out/timings.json"
exit $status
