"""Schedules of the step: learning rates as Keras schedules, everything else as pure functions."""

import math

import keras
import tensorflow as tf


@keras.saving.register_keras_serializable("mpl_tf")
class WaitWarmupCosine(keras.optimizers.schedules.LearningRateSchedule):
    """Zero for `wait` steps, then a linear warm-up, then half a cosine down to zero.

    The student's schedule of Meta Pseudo Labels (released code); with `wait=0` the teacher's. The rate at
    step t, counted from the end of the wait, is peak · (t + 1) / warmup during the warm-up and
    peak · ½ (1 + cos(π (t - warmup) / (steps - wait - warmup))) after it.

    Args:
        peak: the highest learning rate.
        steps: the step at which the rate reaches zero, counted from the beginning of training.
        warmup: steps of the linear warm-up; 0 starts at the peak.
        wait: steps at rate zero before it.

    Raises:
        ValueError: when the wait and the warm-up leave no step to train in.
    """

    def __init__(self, peak: float, *, steps: int, warmup: int = 0, wait: int = 0):
        super().__init__()
        if not (steps > 0 and warmup >= 0 and wait >= 0 and wait + warmup < steps):
            raise ValueError(
                f"A schedule of {steps} steps cannot wait {wait} and warm up {warmup} of them: wait + warmup "
                "must be below the number of steps. Train longer or lower them."
            )
        self.peak, self.steps, self.warmup, self.wait = peak, steps, warmup, wait

    def __call__(self, step: tf.Tensor):
        """The learning rate at `step`, float32 scalar."""
        elapsed = tf.cast(step, tf.float32) - self.wait
        rising = (elapsed + 1.0) / max(self.warmup, 1)
        progress = (elapsed - self.warmup) / (self.steps - self.wait - self.warmup)
        falling = self._falling(tf.clip_by_value(progress, 0.0, 1.0))
        rate = self.peak * tf.where(elapsed < self.warmup, rising, falling)
        return tf.where(elapsed < 0.0, 0.0, rate)

    def _falling(self, progress):
        return 0.5 * (1.0 + tf.cos(math.pi * progress))

    def get_config(self) -> dict:
        """The arguments of the constructor."""
        return {"peak": self.peak, "steps": self.steps, "warmup": self.warmup, "wait": self.wait}


@keras.saving.register_keras_serializable("mpl_tf")
class WaitWarmupPartialCosine(WaitWarmupCosine):
    """The same, but the rate falls as cos(7π/16 · progress), to a fifth of the peak and not to zero.

    FixMatch's schedule (Sohn et al. 2020, arXiv 2001.07685, section 2.4), which UDA's released code and FreeMatch
    share: η cos(7πk / 16K) at step k of K, with `wait=0` and `warmup=0`.
    """

    def _falling(self, progress):
        return tf.cos(7.0 / 16.0 * math.pi * progress)


def linear_ramp(step: tf.Tensor, ramp_steps: int) -> tf.Tensor:
    """min(1, step / ramp_steps): the weight of UDA's consistency in the released code.

    Args:
        step: integer scalar, counted from 0.
        ramp_steps: the step at which the ramp reaches 1; 0 is no ramp.

    Returns:
        float32 scalar in 0…1.
    """
    if ramp_steps <= 0:
        return tf.constant(1.0)
    return tf.minimum(tf.cast(step, tf.float32) / ramp_steps, 1.0)


def delayed_ramp(step: tf.Tensor, *, start: int, end: int) -> tf.Tensor:
    """0 until `start`, then linearly to 1 at `end`: α(t) / α_f of Pseudo Labels (Lee 2013, equation 16).

    Args:
        step: integer scalar, counted from 0.
        start: T1.
        end: T2, at least T1; where both are the same, the ramp is a jump.

    Returns:
        float32 scalar in 0…1.
    """
    if end == start:
        return tf.cast(step >= start, tf.float32)
    return tf.clip_by_value((tf.cast(step, tf.float32) - start) / (end - start), 0.0, 1.0)


def average_decay(step: tf.Tensor, decay: float) -> tf.Tensor:
    """min(decay, (1 + step) / (10 + step)): the warmed-up decay of an exponential moving average.

    Args:
        step: integer scalar, the number of updates the average has seen.
        decay: the decay that it tends to, in 0…1.

    Returns:
        float32 scalar (`tf.train.ExponentialMovingAverage` and the released code use the same rule).
    """
    step = tf.cast(step, tf.float32)
    return tf.minimum(decay, (1.0 + step) / (10.0 + step))


# Fraction of the training → how far the threshold of training signal annealing has risen, both in 0…1.
TSA_SCHEDULES = {
    "linear": lambda fraction: fraction,
    "exponential": lambda fraction: tf.exp(5.0 * (fraction - 1.0)),
    "logarithmic": lambda fraction: 1.0 - tf.exp(-5.0 * fraction),
}


def tsa_threshold(step: tf.Tensor, steps: int, *, num_classes: int, kind: str) -> tf.Tensor:
    """η_t of training signal annealing: c(t) (1 - 1/K) + 1/K.

    Args:
        step: integer scalar, counted from 0.
        steps: the step at which the threshold has risen to 1 and every labeled image counts.
        num_classes: K.
        kind: `"linear"`, `"exponential"` (late; for few labels) or `"logarithmic"` (early).

    Returns:
        float32 scalar in 1/K…1 (UDA, Xie et al. 2019, arXiv 1904.12848, section 3.2).
    """
    fraction = tf.minimum(tf.cast(step, tf.float32) / steps, 1.0)
    risen = tf.where(fraction < 1.0, TSA_SCHEDULES[kind](fraction), 1.0)
    return risen * (1.0 - 1.0 / num_classes) + 1.0 / num_classes
