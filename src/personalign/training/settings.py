"""What a user may set about training. Each option is documented once, here: help texts and docs are made from it."""

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

# settings that leave the weights alone, so that changing one continues the run
NOT_IN_RESULTS = {"checkpoint_every", "trackers", "ignore_memory", "max_memory", "seeds", "ignore_gate"}


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
    start: str | None = Field(
        None, description="adapter to go on from (a PEFT folder, or a run folder), instead of a fresh one"
    )
    seeds: int = Field(
        1,
        ge=1,
        description="train this many adapters that differ in their seed alone, in one pass: their spread is measured",
    )
    epochs: float = Field(1.0, gt=0, description="passes over the training data")
    max_steps: int | None = Field(None, ge=1, description="stop after this many optimiser steps, whatever the epochs")
    shuffle: bool = Field(
        True, description="draw the order of the examples anew for each pass; otherwise the order of the data"
    )
    batch: int = Field(8, ge=1, description="examples (pairs, conversations) to an optimiser step")
    row_tokens: int = Field(
        1280,
        ge=16,
        description="tokens of packed trees in one forward pass; memory grows with it, results do not change",
    )
    max_length: int = Field(2048, ge=8, description="longest prompt + answer in tokens")
    too_long: Literal["drop", "truncate", "refuse"] = Field(
        "drop",
        description="what happens to an example over max_length: dropped, its answer cut, or the run refused; counted",
    )
    optimizer: Literal["adamw", "sgd", "paged_adamw_8bit"] = Field(
        "adamw",
        description="adamw, sgd (plain), or paged_adamw_8bit (bitsandbytes, CUDA only): moments in a quarter of the memory",
    )
    learning_rate: float = Field(2e-4, gt=0, description="peak learning rate")
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
    patience: int | None = Field(
        None,
        ge=1,
        description="stop after this many held-out passes without a lower loss, and keep the best adapter; never if not given",
    )
    gradient_checkpointing: bool = Field(
        False, description="recompute activations in the backward pass: less memory, a third slower"
    )
    trackers: tuple[Literal["wandb", "mlflow", "tensorboard"], ...] = Field(
        (), description="experiment trackers that also get the metrics, through accelerate"
    )
    max_memory: str | None = Field(
        None, description="12GiB, or 80%: choose row_tokens and gradient_checkpointing so that training fits into it"
    )
    ignore_memory: bool = Field(False, description="start even if the memory estimate exceeds the machine")


class SftSettings(TrainSettings):
    """Supervised fine-tuning: the log-likelihood of the answers' tokens, end token included."""


class DpoSettings(TrainSettings):
    """Direct preference optimisation (Rafailov et al. 2023)."""

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


class RewardSettings(TrainSettings):
    """A reward model: an adapter and a scalar head that rank answers (Bradley-Terry; Ouyang et al. 2022)."""

    centering: float = Field(
        0.0,
        ge=0,
        description="weight of the squared sum of two answers' rewards: keeps them near zero (Eisenstein et al. 2023)",
    )


class PpoSettings(TrainSettings):
    """Proximal policy optimisation against a reward model (Schulman et al. 2017; Ziegler et al. 2019).

    Dropout is off, and `steps` counts instead of epochs over prompts: each begins where the one before ended in a pass
    over the prompts.
    """

    steps: int = Field(
        100, ge=1, description="iterations: draw prompts, sample answers, score them, improve policy and value on them"
    )
    batch: int = Field(8, ge=1, description="prompts to an iteration")
    answers: int = Field(4, ge=1, description="answers sampled to each prompt")
    max_new_tokens: int = Field(64, ge=1, description="longest answer in tokens")
    cache_tokens: int = Field(
        4096, ge=1, description="tokens whose keys and values are kept at once while answers are sampled"
    )
    ppo_epochs: int = Field(2, ge=1, description="passes over an iteration's answers")
    minibatch: int = Field(4, ge=1, description="prompts, with all their answers, to an optimiser step")
    learning_rate: float = Field(5e-5, gt=0, description="peak learning rate of the policy")
    value_learning_rate: float = Field(2e-4, gt=0, description="peak learning rate of the value model")
    schedule: Literal["cosine", "linear", "constant"] = Field("constant", description="learning rate after the warm-up")
    kl: float = Field(
        0.05,
        ge=0,
        description="coefficient of the KL penalty to the reference, a token; with kl_target: where it starts",
    )
    kl_target: float | None = Field(
        None,
        gt=0,
        description="adapt the coefficient so that the KL of a whole answer stays near this; fixed if not given",
    )
    kl_bound: float | None = Field(
        20.0,
        gt=0,
        description="stop where the KL of whole answers to the reference exceeds this: the reward model knows no such answers",
    )
    kl_horizon: float = Field(
        10.0, gt=0, description="iterations in which an adaptive coefficient changes by at most about a fifth"
    )
    kl_stop: float | None = Field(
        0.1, gt=0, description="end an iteration's passes where the policy has moved this far (KL a token) within it"
    )
    clip_policy: float = Field(
        0.2, gt=0, description="how far a token's probability ratio may move before it stops counting"
    )
    clip_value: float = Field(
        0.2, gt=0, description="how far a value may move within an iteration before it stops counting"
    )
    gamma: float = Field(1.0, gt=0, le=1, description="discount of later rewards")
    lam: float = Field(
        0.95, ge=0, le=1, description="lambda of the advantages: 0 trusts the values, 1 the rewards alone"
    )
    normalise_reward: Literal["off", "scale", "standardise"] = Field(
        "standardise",
        description="divide scores by their running deviation (scale), after taking off their running mean (standardise)",
    )
    whiten: bool = Field(True, description="bring an iteration's advantages to mean 0 and variance 1")
    missing_end_penalty: float = Field(
        1.0, ge=0, description="taken off the (normalised) score of an answer that was cut off at max_new_tokens"
    )
    ignore_gate: bool = Field(False, description="go on with a reward model that does no better than its checks allow")
