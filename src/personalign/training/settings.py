"""What a user may set about training. Each option is documented once, here: help texts and docs are made from it."""

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field


class LoraSettings(BaseModel):
    """The low-rank adapter that is trained (Hu et al. 2021), through PEFT."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    rank: int = Field(16, ge=1, description="rank r of the adapter")
    alpha: float = Field(32, gt=0, description="scale: the update is multiplied by alpha / rank")
    dropout: float = Field(0.0, ge=0, lt=1, description="dropout on the adapter's input while training")
    targets: tuple[str, ...] | None = Field(
        None, description="names of the linear layers to adapt; every attention and MLP projection if not given"
    )


class TrainSettings(BaseModel):
    """What every method has in common."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    lora: LoraSettings = Field(LoraSettings(), description="the adapter")
    epochs: float = Field(1.0, gt=0, description="passes over the training data")
    max_steps: int | None = Field(None, ge=1, description="stop after this many optimiser steps, whatever the epochs")
    shuffle: bool = Field(
        True, description="draw the order of the examples anew for each pass; otherwise the order of the data"
    )
    batch: int = Field(8, ge=1, description="examples (pairs, conversations) to an optimiser step")
    row_tokens: int = Field(
        1024,
        ge=16,
        description="tokens of packed trees in one forward pass; memory grows with it, results do not change",
    )
    max_length: int = Field(2048, ge=8, description="longest prompt + answer in tokens")
    too_long: Literal["drop", "truncate", "refuse"] = Field(
        "drop",
        description="what happens to an example over max_length: dropped, its answer cut, or the run refused; counted",
    )
    learning_rate: float = Field(2e-4, gt=0, description="peak learning rate of AdamW")
    schedule: Literal["cosine", "linear", "constant"] = Field("cosine", description="learning rate after the warm-up")
    warmup: float = Field(
        0.05, ge=0, lt=1, description="share of the steps over which the learning rate rises from zero"
    )
    weight_decay: float = Field(0.0, ge=0, description="AdamW's weight decay")
    betas: tuple[float, float] = Field((0.9, 0.999), description="AdamW's decay rates of the two moments")
    clip: float = Field(1.0, gt=0, description="largest norm of the gradient; longer ones are scaled down to it")
    seed: int = Field(0, description="seed of the adapter's start, the data order and dropout")
    precision: Literal["auto", "fp32", "bf16", "fp16"] = Field(
        "auto",
        description="precision of the base: bf16 where the device has it, fp16 with a gradient scaler on older GPUs",
    )
    checkpoint_every: int = Field(
        20, ge=1, description="steps between checkpoints; a stopped run goes on from the last one"
    )
    evaluate_every: int | None = Field(
        None, ge=1, description="steps between passes over the held-out split; once an epoch if not given"
    )
    gradient_checkpointing: bool = Field(
        False, description="recompute activations in the backward pass: less memory, a third slower"
    )
    trackers: tuple[Literal["wandb", "mlflow", "tensorboard"], ...] = Field(
        (), description="experiment trackers that also get the metrics, through accelerate"
    )
    ignore_memory: bool = Field(False, description="start even if the memory estimate exceeds the machine")


class SftSettings(TrainSettings):
    """Supervised fine-tuning: the log-likelihood of the answers' tokens, end token included."""


class DpoSettings(TrainSettings):
    """Direct preference optimisation (Rafailov et al. 2023)."""

    learning_rate: float = Field(2e-4, gt=0, description="peak learning rate of AdamW")
    beta: float = Field(
        0.1, gt=0, description="strength of the pull towards the base: the reward is beta times the log-ratio"
    )
    loss: Literal["sigmoid", "ipo", "hinge"] = Field(
        "sigmoid",
        description="sigmoid: DPO; ipo: squared distance of the per-token margin from 1/(2 beta) (Azar et al. 2023); hinge: SLiC",
    )
    label_smoothing: float = Field(
        0.0,
        ge=0,
        lt=0.5,
        description="assumed share of wrongly labelled pairs (conservative DPO, Mitchell 2023); sigmoid only",
    )
