"""The device of each process of a run, by Lightning Fabric."""

from __future__ import annotations

import os
import sys

from exaone_train.config import Config
from exaone_train.errors import ConfigError

# Only to see how new torchmetrics is, Fabric imports it, and with it transformers where that is installed: almost half
# of the time that `fit` takes to start. Nothing used here needs it, and what is None here cannot be imported.
_hidden = sys.modules.setdefault("torchmetrics", None) is None  # type: ignore[arg-type]
from lightning_fabric import Fabric as Fabric  # noqa: E402
from lightning_fabric.utilities.exceptions import MisconfigurationException  # noqa: E402

if _hidden:
    del sys.modules["torchmetrics"]


def one_device_each(config: Config) -> Fabric:
    """One device per process; how many processes there are is for `torchrun` to say.

    Raises:
        ConfigError: This machine has not so many devices of the kind that the configuration names.
    """
    local, world = (int(os.environ.get(name, "1")) for name in ("LOCAL_WORLD_SIZE", "WORLD_SIZE"))
    device, precision = config.run.accelerator, config.run.precision
    try:
        fabric = Fabric(accelerator=device, devices=local, num_nodes=world // local, precision=precision)
    except (MisconfigurationException, RuntimeError) as error:
        raise ConfigError(f"There is no {device} device for each of {local} processes on this machine.") from error
    fabric.launch()
    return fabric
