//! The scripts for Slurm and torchrun, with stand-ins for these: leaving, going on, failing.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use crate::miniature::{Ended, Miniature, alone};

/// As srun's manual says: a task's code other than 0 ends all if asked to; the highest code is its
/// own. It has no use for `--wait`. `FAULTS` are the ranks' own, with a `/` between.
const SRUN: &str = r#"
kill=0
while [[ $1 == --* ]]; do
    case $1 in --kill-on-bad-exit=*) kill=${1#*=} ;; esac
    shift
done
export SLURM_STEP_NUM_TASKS=2
IFS=/ read -ra faults <<<"$FAULTS"
for rank in 0 1; do
    export S1_FAULT=${faults[rank]}
    SLURM_PROCID=$rank SLURM_LOCALID=$rank "$@" &
done
worst=0
for task in 1 2; do
    code=0
    wait -n || code=$?
    if ((code > worst)); then worst=$code; fi
    if ((code != 0 && kill)); then kill -9 $(jobs -p) 2>/dev/null; fi
done
exit $worst
"#;

const SCONTROL: &str = r#"
case $1 in
    show) echo 127.0.0.1 ;;
    requeue) echo "$2" >>requeued ;;
esac
"#;

/// One node's agent: it asks the others to end when one fails, and its own code is 1 then.
const TORCHRUN: &str = r#"
while [[ $1 == --* ]]; do
    case $1 in
        --no-python) shift ; continue ;;
        --nnodes) nodes=$2 ;;
        --nproc-per-node) processes=$2 ;;
        --node-rank) node=$2 ;;
        --master-addr) export MASTER_ADDR=$2 ;;
        --master-port) export MASTER_PORT=$2 ;;
    esac
    shift 2
done
export WORLD_SIZE=$((nodes * processes)) LOCAL_WORLD_SIZE=$processes
for ((i = 0; i < processes; i++)); do
    LOCAL_RANK=$i RANK=$((node * processes + i)) "$@" &
done
for ((i = 0; i < processes; i++)); do
    wait -n || { kill $(jobs -p) 2>/dev/null; wait; exit 1; }
done
"#;

/// A run's folder that looks like the repository's root, with the stand-ins in `bin`.
fn root() -> Miniature {
    let mini = Miniature::new("");
    let repository = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    symlink(repository.join("configs"), mini.path("configs")).unwrap();
    fs::create_dir_all(mini.path("target/release")).unwrap();
    symlink(env!("CARGO_BIN_EXE_train"), mini.path("target/release/train")).unwrap();
    fs::create_dir(mini.path("bin")).unwrap();
    for (name, text) in [("srun", SRUN), ("scontrol", SCONTROL), ("torchrun", TORCHRUN)] {
        let path = mini.path("bin").join(name);
        fs::write(&path, format!("#!/bin/bash\n{text}")).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
    }
    mini
}

fn start(mini: &Miniature, script: &str, arguments: &[&str], variables: &[(&str, &str)]) -> Child {
    let mut command = Command::new("bash");
    command.arg(mini.path("configs/train").join(script)).args(arguments);
    command.current_dir(mini.path(""));
    for name in ["RANK", "S1_FAULT", "S1_DISK_FAULT", "S1_HOST", "SLURM_RESTART_COUNT"] {
        command.env_remove(name);
    }
    let path = format!("{}:{}", mini.path("bin").display(), std::env::var("PATH").unwrap());
    command.env("PATH", path).env("CONFIG", "train.toml");
    command.envs(variables.iter().copied());
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
}

#[test]
fn under_slurm_a_run_that_is_asked_to_leave_is_queued_again() {
    let _alone = alone();
    let mini = root();
    mini.train("run train.toml --ranks 2 --set output=whole", &[]).check(0);
    let reference = mini.result("whole");
    let job = |arguments: &[&str], restarts: &str, fault: &str| {
        let port = c10d::Rank::free_port().unwrap().to_string();
        let variables = [
            ("SLURM_SUBMIT_DIR", "."),
            ("SLURM_JOB_NODELIST", "node[0-1]"),
            ("SLURM_CPUS_PER_TASK", "1"),
            ("SLURM_JOB_ID", "77"),
            ("MASTER_PORT", &port),
            ("SLURM_RESTART_COUNT", restarts),
            ("FAULTS", fault),
        ];
        let child = start(&mini, "s1-32B.sbatch", arguments, &variables);
        Ended::wait(child, Duration::from_secs(120))
    };
    let queued = || fs::read_to_string(mini.path("requeued")).unwrap_or_default().lines().count();
    let never = "9 9 idle term/9 9 idle term";

    // The run's folder is the one that the arguments name. The last rank is slow to leave.
    let mine = ["--set", "output=mine"];
    job(&mine, "0", "0 6 left 1000/1 5 forward term").check(75);
    assert_eq!((mini.newest("mine"), queued()), (6, 1));
    let second = job(&mine, "1", "0 9 update term/9 9 idle term");
    assert!(second.check(75).text.contains("resumes   step 6"), "{}", second.text);
    assert_eq!((mini.newest("mine"), queued()), (10, 2));
    job(&mine, "2", never).check(0);
    mini.check_same("mine", &reference, "after two requeues");
    // Lost with its node after the end, it has nothing to do; submitted anew, it is another run.
    job(&mine, "3", never).check(0);
    let anew = job(&mine, "0", never);
    assert!(anew.check(1).text.contains("mine exists; pass --overwrite"), "{}", anew.text);
    job(&["--set=output=mine", "--overwrite"], "0", "0 4 sum term/9 9 idle term").check(75);
    assert_eq!((mini.newest("mine"), queued()), (5, 3));
    // What fails is not queued again, and nobody is left waiting.
    let failed = job(&mine, "1", "9 9 idle term/1 7 forward kill");
    assert!(failed.check(137).text.contains("it is gone"), "{}", failed.text);
    assert_eq!(queued(), 3);
}

#[test]
fn by_torchrun_the_same_lines_go_on_with_a_run() {
    let _alone = alone();
    let mini = root();
    mini.train("run train.toml --ranks 2 --set output=whole", &[]).check(0);
    let reference = mini.result("whole");
    let both = |fault: &str| {
        let port = c10d::Rank::free_port().unwrap().to_string();
        let node = |number| {
            let variables = [
                ("MASTER_ADDR", "127.0.0.1"),
                ("MASTER_PORT", &port),
                ("NODE_RANK", number),
                ("NODES", "2"),
                ("GPUS", "1"),
                ("S1_FAULT", fault),
            ];
            start(&mini, "s1-32B.torchrun.sh", &["--set", "output=mine"], &variables)
        };
        [node("0"), node("1")].map(|child| Ended::wait(child, Duration::from_secs(120)))
    };
    let never = "9 9 idle term";
    for node in &both("1 5 forward term") {
        node.check(1);
    }
    assert_eq!(mini.newest("mine"), 6);
    for node in &both(never) {
        node.check(0);
    }
    mini.check_same("mine", &reference, "after leaving");
    let [first, _] = both(never);
    assert!(first.check(1).text.contains("mine exists; pass --overwrite"), "{}", first.text);
}
