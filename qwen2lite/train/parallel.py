r"""Training on many processes: each joins the others that torchrun started, and learns its role.

    torchrun --nproc-per-node 8 …

torchrun starts the same program several times and tells each by environment variables which one it
is. When one of them ends with an error, torchrun ends the others. Nothing is lost but the steps since
the last checkpoint.
"""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import torch
import torch.distributed as dist

from qwen2lite.model.device import pick_device
from qwen2lite.train.processes import Alone, Copies
from qwen2lite.train.settings import TrainSettings


@contextmanager
def join(settings: TrainSettings) -> Iterator[Alone]:
    """Gives this process's role in a run, and leaves the others at the end.

        with join(settings) as processes:
            loader = Loader(…, rank=processes.rank, world_size=processes.world_size)
            train(model, loader, settings, folder, processes=processes)
        end()

    Args:
        settings: `parallel` says which role, `device` where.

    Raises:
        ValueError: what torchrun started doesn't suit the settings.
        ConnectionError: another process of the run is gone.
    """
    started = int(os.environ.get("WORLD_SIZE", "1"))
    if settings.parallel == "none":
        if started > 1:
            raise ValueError(
                f"torchrun started {started} processes, and with parallel = 'none' each would train "
                "by itself in the same folder; set parallel to 'ddp' or 'fsdp'"
            )
        yield Alone(pick_device(settings.device))
        return
    if "LOCAL_RANK" not in os.environ:
        raise ValueError(
            f"parallel = {settings.parallel!r} needs several processes; start them with "
            "`torchrun --nproc-per-node 8` and the rest of the command, or set it to 'none'"
        )
    device = _own_device(settings.device, int(os.environ["LOCAL_RANK"]))
    dist.init_process_group()
    try:
        yield _role(settings.parallel, device)
    except RuntimeError as error:
        if not _is_about_others(error):
            raise
        what = "is silent" if "timed out" in str(error).lower() else "has ended"
        raise ConnectionError(
            f"process {dist.get_rank()} waits in vain for another process of this run, which {what}; "
            "its own message, or torchrun's last lines, say why. Start the same command again, and "
            "training goes on from the last checkpoint"
        ) from error
    dist.destroy_process_group()


def end() -> None:
    """Ends a process that torchrun started, as the last thing it does; any other goes on.

    Python's own way out is not safe for it. A thread of Gloo's lets go of a tensor a moment after the
    sum in it has been used, and asks Python for that. If Python is about to end, before 3.14 it ends
    the thread in the midst of C++, and with it the process (SIGABRT), although all work is done.
    """
    if "LOCAL_RANK" in os.environ:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(0)


def _role(parallel: str, device: torch.device) -> Alone:
    if parallel == "ddp":
        return Copies(device)
    from qwen2lite.train.shards import Shards  # loads FSDP and distributed checkpoints: 1 s

    return Shards(device)


def _own_device(name: str, local_rank: int) -> torch.device:
    """A GPU for each process of this machine; where there are none, the CPU for all."""
    gpus = torch.cuda.device_count() if name == "auto" or name.startswith("cuda") else 0
    if not gpus:
        device = pick_device(name)
        # Tensors on mps can't be sent to other processes.
        return torch.device("cpu") if device.type == "mps" else device
    if local_rank >= gpus:
        raise ValueError(
            f"process {local_rank} of this machine has no GPU, there are {gpus}; set "
            "--nproc-per-node to that number"
        )
    # Before anything is put on "cuda": until now that is the first GPU, for all processes.
    torch.cuda.set_device(local_rank)
    return torch.device("cuda", local_rank)


def _is_about_others(error: RuntimeError) -> bool:
    """Whether it was raised because a connection broke; Gloo says so in words only."""
    return isinstance(error, dist.DistError) or "gloo" in str(error).lower()
