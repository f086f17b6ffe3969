#!/bin/bash
# One process for every GPU of two nodes: sbatch slurm.sh JOB.toml RUN
#SBATCH --nodes=2
#SBATCH --gpus-per-node=4
#SBATCH --ntasks-per-node=4        # or 1: one process for all GPUs of a node
#SBATCH --cpus-per-task=8
#SBATCH --time=04:00:00
#SBATCH --signal=TERM@300          # five minutes before the end: a checkpoint, the result so far, and out
#SBATCH --requeue
#SBATCH --open-mode=append
# JOB.toml, its data and RUN lie on a file system that all nodes see. Processes find one another by themselves, and
# a job that runs again goes on where it was; where one process is lost the others stop by themselves.

srun jaxptycho run "$1" --out "$2" --resume
case $? in 124 | 143) scontrol requeue "$SLURM_JOB_ID" ;; esac    # run.wall_time_minutes, or the signal above
