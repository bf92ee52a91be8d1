"""What a run is: its data, crops, encoder, loss, schedules and where it reports; defaults of DINO's ViT-B/16."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from exaone_train.errors import ConfigError

Share = Annotated[float, Field(ge=0, le=1)]
Scale = tuple[Annotated[float, Field(gt=0, le=1)], Annotated[float, Field(gt=0, le=1)]]
Positive = Annotated[int, Field(ge=1)]
Natural = Annotated[int, Field(ge=0)]
AboveZero = Annotated[float, Field(gt=0)]

_COMPUTED = {"decode_threads", "prefetch", "on_damage", "accelerator", "precision", "accumulate", "compile"}
_WRITTEN = {"held_out_split", "log_every", "watch_every", "watch_images", "checkpoint_every", "keep_checkpoints"}
MAY_CHANGE = frozenset(_COMPUTED | _WRITTEN)
"""What a run that goes on may have other values of: how and where it is computed, and what is written down.

All else decides which samples and crops are seen or what is learned from them. `max_steps` is among it: schedules end
there. `on_damage` is not, so that a run that met a damaged shard can go on without it.
"""


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class DataConfig(_Part):
    """The stream of samples.

    Attributes:
        split: To train on.
        held_out_split: Patients that are only looked at, to watch for collapse; none are if it has no shards.
        batch_size: Images per step, over all ranks and accumulated parts.
        streams: Places of the epoch that a batch is taken from, at most; the largest divisor of `batch_size` up to it.
        window: Samples of one stream that are shuffled with each other.
        decode_threads: Per rank.
        prefetch: Batches that are decoded ahead.
        on_damage: Whether a damaged sample ends the run or the next one takes its place.
    """

    split: str = "train"
    held_out_split: str = "val"
    batch_size: Positive = 1024
    streams: Positive = 256
    window: Positive = 64
    decode_threads: Positive = 4
    prefetch: Positive = 2
    on_damage: Literal["fail", "skip"] = "fail"


class CropConfig(_Part):
    """Multi-crop augmentation (Caron et al. 2021, section 3.1 and appendix).

    Attributes:
        preset: Strengths of the changes of colour; `normalized` for shards whose stain is normalised.
        global_size_px: Side of the two global crops.
        local_size_px: Side of the local crops.
        local_crops: How many.
        global_scale: Share of the image's area that a global crop shows.
        local_scale: The same of a local crop.
    """

    preset: Literal["dino", "jitter", "pathology", "normalized"] = "normalized"
    global_size_px: Positive = 224
    local_size_px: Positive = 96
    local_crops: Natural = 8
    global_scale: Scale = (0.25, 1.0)
    local_scale: Scale = (0.05, 0.25)


class ModelConfig(_Part):
    """The encoder and DINO's projection head.

    Attributes:
        name: Of timm's vision transformer.
        patch_size_px: Side of a token's patch.
        options: Further arguments of timm's `create_model`, such as `depth`.
        drop_path_rate: Stochastic depth of the student.
        head_hidden: Width of the head's layers.
        head_bottleneck: Width before its last layer.
        head_outputs: Prototypes.
        norm_last_layer: Whether the last layer's weights keep their length.
    """

    name: str = "vit_base_patch16_224"
    patch_size_px: Positive = 16
    options: dict[str, bool | int | float | str] = {}
    drop_path_rate: Share = 0.1
    head_hidden: Positive = 2048
    head_bottleneck: Positive = 256
    head_outputs: Positive = 65536
    norm_last_layer: bool = True


class DinoConfig(_Part):
    """Loss and teacher.

    Attributes:
        student_temperature: Of the student's softmax.
        teacher_temperature: At the end of its warm-up; and where it begins, and for how many steps.
        centre_momentum: Of the moving mean of the teacher's outputs.
        teacher_momentum: At the start; follows a cosine to 1.
        freeze_last_layer_steps: Steps in which the head's last layer stays as it is.
    """

    student_temperature: AboveZero = 0.1
    teacher_temperature: AboveZero = 0.07
    teacher_temperature_start: AboveZero = 0.04
    teacher_temperature_warmup_steps: Natural = 62_500
    centre_momentum: Share = 0.9
    teacher_momentum: Share = 0.996
    freeze_last_layer_steps: Natural = 3_750


class OptimizerConfig(_Part):
    """AdamW with a warm-up and cosines.

    Attributes:
        learning_rate: At a batch of 256; grows linearly with the batch (Goyal et al. 2017).
        learning_rate_end: At the last step, not scaled.
        warmup_steps: Of the learning rate, from 0.
        weight_decay: At the start, on matrices only; and at the end.
        clip_gradient: Largest norm of each parameter's gradient, as DINO clips it; null clips nothing.
    """

    learning_rate: AboveZero = 0.00075
    learning_rate_end: Annotated[float, Field(ge=0)] = 2e-6
    warmup_steps: Natural = 12_500
    weight_decay: Annotated[float, Field(ge=0)] = 0.04
    weight_decay_end: Annotated[float, Field(ge=0)] = 0.4
    clip_gradient: AboveZero | None = 0.3


class RunConfig(_Part):
    """How long, on what, and what is written down when.

    Attributes:
        max_steps: Of the whole run; the schedules end there.
        seed: Of the order of samples, of crops and of weights.
        accelerator: Of Lightning Fabric; how many devices there are is `torchrun`'s to say.
        precision: Of Lightning Fabric. Weights and the loss are float32 in either.
        accumulate: Parts that a rank's share of a batch is computed in.
        compile: Whether the encoders go through `torch.compile`.
        log_every: Steps between two lines of the log.
        watch_every: Steps between two looks at collapse.
        watch_images: Held-out images that are looked at.
        checkpoint_every: Steps.
        keep_checkpoints: The newest ones that stay.
    """

    max_steps: Positive = 500_000
    seed: Annotated[int, Field(ge=0, lt=2**63)] = 0
    accelerator: Literal["auto", "cpu", "cuda"] = "auto"
    precision: Literal["32-true", "bf16-mixed"] = "bf16-mixed"
    accumulate: Positive = 1
    compile: bool = False
    log_every: Positive = 10
    watch_every: Positive = 1_000
    watch_images: Annotated[int, Field(ge=2)] = 2_048
    checkpoint_every: Positive = 1_000
    keep_checkpoints: Positive = 3


class Config(_Part):
    """A run."""

    data: DataConfig = DataConfig()
    crops: CropConfig = CropConfig()
    model: ModelConfig = ModelConfig()
    dino: DinoConfig = DinoConfig()
    optimizer: OptimizerConfig = OptimizerConfig()
    run: RunConfig = RunConfig()

    @model_validator(mode="after")
    def _holds_together(self) -> Self:
        for size_px in (self.crops.global_size_px, self.crops.local_size_px):
            if size_px % self.model.patch_size_px:
                raise ValueError(f"crops of {size_px} px are not whole tokens of {self.model.patch_size_px} px")
        for low, high in (self.crops.global_scale, self.crops.local_scale):
            if low > high:
                raise ValueError(f"a crop's scale goes from the smaller to the larger share, not from {low} to {high}")
        return self

    def per_rank(self, ranks: int) -> int:
        """Images of a step that each of `ranks` processes sees.

        Raises:
            ConfigError: The batch cannot be divided into that many equal shares, or these into their parts.
        """
        batch, parts = self.data.batch_size, self.run.accumulate
        if batch % (ranks * parts):
            raise ConfigError(
                f"A batch of {batch} images cannot be divided equally among {ranks} processes, and each share into "
                f"{parts} parts: change data.batch_size, run.accumulate, or how many processes are started."
            )
        return batch // ranks


def differences(begun: Mapping[str, Any], now: Config) -> list[str]:
    """Fields in which a run that goes on must not differ from what it began with, but does.

    Args:
        begun: `model_dump(mode="json")` of the configuration that it began with.
        now: The present one.
    """
    return [
        f"{section}.{field} was {json.dumps(begun.get(section, {}).get(field))} and is {json.dumps(value)} now"
        for section, fields in now.model_dump(mode="json").items()
        for field, value in fields.items()
        if field not in MAY_CHANGE and begun.get(section, {}).get(field) != value
    ]
