"""A training step in bfloat16 and in float32, in turns: what `--precision=auto` chooses between.

python benchmarks/precision.py --model=wrn-28-2 --method="MetaPseudoLabels per_example"

Options: --method, of benchmarks/step.py, --model, --size, --labeled, --ratio, --turns.
"""

import argparse
import statistics

import keras
import step
import workload

from mpl_tf.distribute.precision import native_precision

POLICIES = ("float32", "mixed_bfloat16")


def main() -> None:
    """Prints the median seconds of a step under each policy, and of each turn's ratio."""
    parser = workload.parser(__doc__)
    parser.add_argument("--method", default="MetaPseudoLabels per_example", choices=list(step.METHODS))
    parser.add_argument("--turns", type=int, default=7)
    options = parser.parse_args()
    chosen, reason = native_precision()
    print(f"{options.method}, {workload.described(options)}; auto: {chosen} ({reason})")
    turns = measured(options)
    for policy in POLICIES:
        print(f"{policy:>16}: {statistics.median(turn[policy] for turn in turns):.4f} s a step")
    times = statistics.median(turn["float32"] / turn["mixed_bfloat16"] for turn in turns)
    print(f"{'times as fast':>16}: {times:.2f}")


def measured(options: argparse.Namespace) -> list[dict[str, float]]:
    """For each turn the seconds of a step, by policy.

    Args:
        options: the command line's.
    """
    make, *_ = step.METHODS[options.method]
    before, steps = keras.config.dtype_policy(), {}
    for policy in POLICIES:
        keras.config.set_dtype_policy(policy)
        method = make(lambda seed: workload.network(options, seed))
        steps[policy] = step.compiled_step(method, argparse.Namespace(jit=False))
    keras.config.set_dtype_policy(before)
    data = workload.batch(options, options.labeled, options.labeled * options.ratio)
    turns = [
        {policy: workload.seconds_of(run, data) for policy, run in steps.items()}
        for _ in range(options.turns + 1)
    ]
    return turns[1:]


if __name__ == "__main__":
    main()
