# What `train` is to do; s1-32B.sbatch and s1-32B.torchrun.sh read this file, and it sets $@.
#
# A run that stands unfinished in the output folder is resumed, as its run.toml says; else the run
# of the config begins, with the arguments given. So the same line starts a run and goes on with it.
# A finished run is never taken for this one, nor is one that --overwrite is to replace: unless
# Slurm has started this job before, `train run` decides, and refuses without --overwrite.
config="${CONFIG:-configs/train/s1-32B.toml}"
output=$(sed -n 's/^output *= *"\([^"]*\)".*/\1/p' "$config")
anew=
for word in "$@"; do
    case "$word" in
        output=* | --set=output=*) output="${word#*output=}" ;;
        --overwrite) anew=yes ;;
    esac
done
output="${output//\"/}"
if [ -f "$output/summary.txt" ]; then anew=yes; fi
if [ "${SLURM_RESTART_COUNT:-0}" -gt 0 ]; then anew=; fi

if [ -f "$output/run.toml" ] && [ -z "$anew" ]; then
    set -- resume "$output"
else
    set -- run "$config" "$@"
fi
echo "train $*"
