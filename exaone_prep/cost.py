"""What a build costs, by prices that a person gives: this software knows no provider's."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from exaone_prep.errors import ManifestError
from exaone_prep.store_requests import StoreRequests

GB: Final = 10**9


class Prices(BaseModel):
    """A price file (`docs/prices.example.yaml`)."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    currency: str = Field(description="For people; all prices are in it.")
    put_per_1000: float = Field(ge=0, description="1,000 requests that store or list.")
    get_per_1000: float = Field(ge=0, description="1,000 requests that read.")
    storage_per_gb_month: float = Field(ge=0, description="Keeping 10⁹ bytes for a month.")
    core_hour: float = Field(ge=0, description="One core for an hour.")
    egress_per_gb: float = Field(ge=0, description="10⁹ bytes read from the store; 0 where machines stand beside it.")


@dataclass(frozen=True, kw_only=True)
class Cost:
    """In the currency of the prices.

    Attributes:
        currency: Its name.
        compute: Of all cores.
        requests: Of all requests.
        egress: Of the slides that are staged, and of the shards that are read back.
        once: These together.
        per_month: For keeping the shards.
    """

    currency: str
    compute: float
    requests: float
    egress: float
    once: float
    per_month: float

    def as_dict(self) -> dict[str, Any]:
        """Plain values."""
        return asdict(self)


def load_prices(path: Path) -> Prices:
    """Read a price file.

    Raises:
        ManifestError: It is missing, no YAML, or lacks a price.
    """
    try:
        return Prices.model_validate(yaml.safe_load(path.read_text()))
    except (OSError, yaml.YAMLError, UnicodeDecodeError) as error:
        raise ManifestError(f"The price file {path} cannot be read: {' '.join(str(error).split())}.") from error
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"])) or "the file"
        raise ManifestError(f"The price file {path}: {where}: {first['msg'].lower()}.") from error


def cost_of(prices: Prices, *, requests: StoreRequests, staged_bytes: int, shard_bytes: int, cpu_hours: float) -> Cost:
    """What a build costs, and a month of keeping its shards.

    Args:
        prices: What is asked for.
        requests: In all.
        staged_bytes: Of slides that lie in a store.
        shard_bytes: Of all shards.
        cpu_hours: Of all cores.
    """
    compute = cpu_hours * prices.core_hour
    asked = (requests.put + requests.list) / 1000 * prices.put_per_1000 + requests.get / 1000 * prices.get_per_1000
    egress = (staged_bytes + shard_bytes) / GB * prices.egress_per_gb
    return Cost(
        currency=prices.currency,
        compute=round(compute, 2),
        requests=round(asked, 2),
        egress=round(egress, 2),
        once=round(compute + asked + egress, 2),
        per_month=round(shard_bytes / GB * prices.storage_per_gb_month, 2),
    )
