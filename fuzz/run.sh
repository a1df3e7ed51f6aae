#!/usr/bin/env bash
# Builds all fuzz targets and runs each for some seconds: run.sh SECONDS [TARGET...]
#
# Needs cargo-fuzz (cargo install cargo-fuzz) and a C++ compiler. What the fuzzers find new stays in
# the target folder; an input that breaks a promise lies in fuzz/artifacts, and the exit code is 1.
set -euo pipefail
cd "$(dirname "$0")/.."

seconds=${1:?usage: fuzz/run.sh SECONDS [TARGET...]}
shift
targets=("$@")
[ ${#targets[@]} -gt 0 ] || mapfile -t targets < <(ls fuzz/corpus)

# The sanitizer is an unstable flag of the compiler; the stable one takes it with this.
export RUSTC_BOOTSTRAP=1
cargo fuzz build
out=${CARGO_TARGET_DIR:-fuzz/target}
triple=$(rustc -vV | sed -n 's/^host: //p')

failed=()
for target in "${targets[@]}"; do
  found="$out/found/$target"
  mkdir -p "$found" "fuzz/artifacts/$target"
  echo "== $target for $seconds s"
  log="$out/found/$target.log"
  if "$out/$triple/release/$target" -max_total_time="$seconds" -timeout=10 -rss_limit_mb=2048 -print_final_stats=1 \
    -artifact_prefix="fuzz/artifacts/$target/" "$found" "fuzz/corpus/$target" >"$log" 2>&1; then
    sed -n 's/^stat::number_of_executed_units: */executions: /p' "$log"
  else
    failed+=("$target")
    tail -n 40 "$log"
  fi
done
[ ${#failed[@]} -eq 0 ] || { echo "broken: ${failed[*]}"; exit 1; }
