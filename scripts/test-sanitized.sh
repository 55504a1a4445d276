#!/usr/bin/env bash
# Builds the addon with AddressSanitizer and UndefinedBehaviorSanitizer and runs the native tests against it; any report
# fails. Arguments are vitest's, for instance other test files. Needs GCC, since its sanitizers are shared libraries.
#
#     npm run test:sanitized
#     ENGINE_FUZZ_ROUNDS=20000 npm run test:sanitized -- test/native/fuzz.test.ts
set -euo pipefail
cd "$(dirname "$0")/.."

folder=$PWD/build/sanitized
flags='-O1 -g -fno-omit-frame-pointer -fsanitize=address,undefined -fno-sanitize-recover=all'
compiler=${CXX:-g++}

# Debug, because the kernels' own -O3 makes compiling with sanitizers slow. cmake-js sets CMAKE_CXX_FLAGS itself, so ours
# travel with the compiler's name.
mkdir -p "$folder"
CXX="$compiler $flags" npx --no-install cmake-js build --debug --out "$folder/cmake" --parallel 2 \
  "--CDENGINE_OUTPUT_DIRECTORY=$folder" >"$folder/build.log" 2>&1 || { cat "$folder/build.log"; exit 1; }
kernels=$folder/cmake/kernels/cpu/libengine_kernels_cpu.a
# shellcheck disable=SC2086
$compiler $flags -std=c++20 -I kernels/cpu test/native/kernel_digest.cc "$kernels" -o "$folder/kernel_digest"

rm -f "$folder"/report.*
reports="log_path=$folder/report:print_stacktrace=1"
# Node itself leaves memory behind at its end. Impossible sizes are errors of ours to handle, not of the sanitizer.
export ASAN_OPTIONS="detect_leaks=0:allocator_may_return_null=1:quarantine_size_mb=64:$reports" UBSAN_OPTIONS="$reports"

status=0
for isa in scalar avx2 avx512; do
  "$folder/kernel_digest" "$isa" >"$folder/digest-$isa.txt" || status=1
done

# libstdc++ as well, so that exceptions are intercepted.
preloaded="$($compiler -print-file-name=libasan.so) $($compiler -print-file-name=libstdc++.so.6)"
# Tests of an addon that cannot be loaded would skip themselves.
LD_PRELOAD=$preloaded node -e 'require(process.argv[1])' "$folder/engine.node"

# Not the tests that measure memory or time, which sanitizers cost, or that build programs of their own.
tests=("$@")
if [ $# -eq 0 ]; then
  tests=(test/backend/{native,saved-blocks,absent-blocks,hidden,shared-rows} test/native --exclude '**/{memory,load,measure,busy-neighbour,event-loop,kernel-digest,team,cuda,cuda-ops,cuda-session,cuda-fusion,cuda-steps,cuda-device,cuda-runner,cuda-bandwidth}.test.ts')
fi
LD_PRELOAD=$preloaded ENGINE_ADDON_PATH=$folder/engine.node \
  node node_modules/vitest/vitest.mjs run --testTimeout=300000 --hookTimeout=300000 "${tests[@]}" || status=1

if compgen -G "$folder/report.*" >/dev/null; then
  cat "$folder"/report.*
  status=1
fi
exit $status
