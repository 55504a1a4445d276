# Sourced by gpu-check.sh and gpu-bench.sh: steps with a limit of time each, one log, a summary with every failure first,
# and one JSON. `name` is the script's; log and JSON go to ${OUT:-.}; all steps together take ${GPU_SECONDS:-570} seconds
# at most.
out=${OUT:-.}
log=$out/$name.log
json=$out/$name.json
deadline=$((SECONDS + ${GPU_SECONDS:-570}))
work=build/$name
mkdir -p "$out" "$work"
: >"$log"
statuses=() names=() seconds=()

# For whoever cannot run here: what is missing.
skip() {
  echo "skipped: $1" | tee -a "$log"
  printf '{"status": "skipped", "reason": "%s"}\n' "$1" >"$json"
  exit 77
}

require_gpu() {
  command -v nvidia-smi >/dev/null && nvidia-smi -L >/dev/null 2>&1 || skip 'no CUDA device'
  command -v nvcc >/dev/null || skip 'no nvcc'
  command -v cmake >/dev/null || skip 'no CMake'
  gpu=$(nvidia-smi --query-gpu=name,compute_cap,driver_version,memory.total --format=csv,noheader | head -1 | tr -d '"\\')
  echo "$gpu" | tee -a "$log"
  # Instructions of Hopper's own need the name with an a.
  arch=${ENGINE_CUDA_ARCH:-$(nvidia-smi --query-gpu=compute_cap --format=csv,noheader | head -1 | tr -d . | sed 's/^90$/90a/')}
  generator=()
  if command -v ninja >/dev/null; then generator=(-G Ninja); fi
}

# step NAME SECONDS COMMAND…: its output goes to the log and to $work/NAME.out. Returns 0 if it passed. With optional=1 it
# is no failure that the time was not enough.
step() {
  local step=$1 limit=$2 began=$SECONDS code=0 status
  shift 2
  if [ $((deadline - SECONDS)) -lt "$limit" ]; then limit=$((deadline - SECONDS)); fi
  printf '\n== %s\n' "$step" | tee -a "$log"
  if [ "$limit" -lt 5 ]; then
    code=124
    : >"$work/$step.out"
  else
    timeout --kill-after=5 "$limit" "$@" >"$work/$step.out" 2>&1 || code=$?
  fi
  cat "$work/$step.out" >>"$log"
  case $code in
    0) status=passed ;;
    124 | 137) status=$([ "${optional:-0}" = 1 ] && echo unfinished || echo failed) ;;
    *) status=failed ;;
  esac
  statuses+=("$status") names+=("$step") seconds+=($((SECONDS - began)))
  if [ $code = 124 ] || [ $code = 137 ]; then echo 'out of time' | tee -a "$work/$step.out" >>"$log"; fi
  echo "$status in $((SECONDS - began)) s" | tee -a "$log"
  return $code
}

# finish [JSON FIELDS]: prints the summary, failures with the ends of their output, writes the JSON, and exits.
finish() {
  local i wanted overall=passed steps=
  for i in "${!names[@]}"; do
    if [ "${statuses[$i]}" = failed ]; then overall=failed; fi
    steps+="${steps:+, }{\"name\": \"${names[$i]}\", \"status\": \"${statuses[$i]}\", \"seconds\": ${seconds[$i]}}"
  done
  {
    printf '\n== summary\n'
    for i in "${!names[@]}"; do
      [ "${statuses[$i]}" = failed ] || continue
      echo "FAILED ${names[$i]}"
      { grep -E 'WRONG|ERROR SUMMARY|[Ee]rror' "$work/${names[$i]}.out" || true; } | head -10 | sed 's/^/    /'
      tail -5 "$work/${names[$i]}.out" | sed 's/^/    /'
    done
    for wanted in unfinished passed; do
      for i in "${!names[@]}"; do
        if [ "${statuses[$i]}" = "$wanted" ]; then echo "$wanted ${names[$i]} (${seconds[$i]} s)"; fi
      done
    done
    echo "$name: $overall"
  } | tee -a "$log"
  printf '{"status": "%s", "gpu": "%s", "steps": [%s]%s}\n' "$overall" "$gpu" "$steps" "${1:+, $1}" >"$json"
  [ $overall = passed ] || exit 1
  exit 0
}
