#!/usr/bin/env bash
# The whole paper: the tables' sweep, every study, and the cost of the sweep.
#
#   SIZE=smoke scripts/run_paper.sh
#
# smoke: a quarter of an hour on two cores, to see that everything runs
# table: the paper's tasks and rows, one seed, for a GPU; the studies then take a day on one CPU core
# full:  three seeds
#
# The grid and time of each study stand in configs/study/*.yaml. What is finished is skipped, so that
# a second call resumes; a cell that fails, as retrieval without its data does, ends the script. Where
# a study fails, the others go on, and the script fails in the end.
# Arguments are passed on to the sweep, as trainer.accelerator=gpu. The sweep's folder is the size's.
set -euo pipefail

size=${SIZE:-smoke}
case $size in
  smoke) sweep=paper_smoke options=(experiment=paper_smoke) ;;
  table) sweep=paper_table options=(experiment=paper_table seed=0) ;;
  full) sweep=paper_table options=(experiment=paper_table seed=0,1,2) ;;
  *) echo "SIZE is $size; allowed are smoke, table, full" >&2 && exit 2 ;;
esac

for argument in "$@"; do
  case ${argument//+/} in
    sweep=* | paths.output_dir=*)
      echo "$argument: the folder of the sweep follows from SIZE and MACFORMER_OUTPUTS" >&2 && exit 2
      ;;
  esac
done

cd "$(dirname "$0")/.."
outputs=${MACFORMER_OUTPUTS:-outputs}

python -m macformer.train -m "${options[@]}" "$@"
failed=0
macformer-study -m size="$size" study='glob(*,exclude=cost)' || failed=$?
((failed == 0 || failed == 2)) || exit "$failed"  # stopped
macformer-study size="$size" study=cost study.sweep="$outputs/$sweep" overwrite=true || failed=$?
exit "$failed"
