"""The SLURM script, with stand-ins for SLURM's commands: how it starts torchrun, and what it does when time is up."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from pathlib import Path

from torch.distributed.run import get_args_parser

SCRIPT = Path(__file__).resolve().parents[1] / "examples" / "pretrain.slurm"

SRUN = """#!/bin/bash
printf '%s\\n' "$@" >"$STAGE/srun.new"
echo $$ >"$STAGE/pid"
mv "$STAGE/srun.new" "$STAGE/srun"
trap 'exit 1' TERM
while [ ! -e "$STAGE/end" ]; do sleep 0.02; done
exit "$(cat "$STAGE/end")"
"""
SCANCEL = """#!/bin/bash
echo "$@" >"$STAGE/scancel"
kill -TERM "$(cat "$STAGE/pid")"
"""
SCONTROL = """#!/bin/bash
[ "$1" = show ] && printf 'node-07\\nnode-08\\n' || echo "$@" >"$STAGE/scontrol"
"""


def started(stage: Path) -> subprocess.Popen[bytes]:
    for name, text in {"srun": SRUN, "scancel": SCANCEL, "scontrol": SCONTROL}.items():
        path = stage / "bin" / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)
        path.chmod(0o755)
    job = {"SLURM_JOB_ID": "4711", "SLURM_JOB_NODELIST": "node-[07-08]", "SLURM_JOB_NUM_NODES": "2"}
    env = {**os.environ, **job, "SLURM_GPUS_ON_NODE": "4", "STAGE": str(stage)}
    env["PATH"] = f"{stage / 'bin'}:{env['PATH']}"
    process = subprocess.Popen(["bash", str(SCRIPT), "run.yaml", "RUN", "s3://one", "/data/t w o"], env=env)
    end = time.monotonic() + 60
    while not (stage / "srun").exists():
        assert time.monotonic() < end
        time.sleep(0.02)
    return process


def test_each_node_starts_one_torchrun_that_meets_the_others_on_the_first(tmp_path: Path) -> None:
    process = started(tmp_path)
    (tmp_path / "end").write_text("3")
    assert process.wait(60) == 3
    words = (tmp_path / "srun").read_text().splitlines()
    torchrun = get_args_parser().parse_args(words[words.index("torchrun") + 1 :])
    assert (torchrun.nnodes, torchrun.nproc_per_node, torchrun.max_restarts) == ("2", "4", 0)
    assert (torchrun.rdzv_backend, torchrun.rdzv_endpoint, torchrun.rdzv_id) == ("c10d", "node-07:29500", "4711")
    assert (torchrun.module, torchrun.training_script) == (True, "exaone_train")
    assert torchrun.training_script_args == [
        *("fit", "run.yaml", "--shards", "s3://one", "--shards", "/data/t w o", "--out", "RUN")
    ]
    assert not (tmp_path / "scontrol").exists()


def test_when_time_is_up_it_lets_the_trainer_stop_and_goes_back_into_the_queue(tmp_path: Path) -> None:
    process = started(tmp_path)
    process.send_signal(signal.SIGTERM)
    assert process.wait(60) == 0
    assert (tmp_path / "scancel").read_text() == "--signal=TERM 4711.0\n"
    assert (tmp_path / "scontrol").read_text() == "requeue 4711\n"
