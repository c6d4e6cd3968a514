r"""A linear probe: logistic regression on the features of a network. The cheapest baseline, in seconds.

    python -m recipes.probe --dataset=folders --labeled_dir=train --test_dir=test --image_size=96 \
        --model=mobilenetv2 --weights=imagenet

Features are computed once per image and stored in --feature_cache, for other numbers of labels, other seeds and the
other recipes, whose new heads start from such a probe. What is saved and exported is the whole network, from pixels
to logits. See docs/pretrained.md.
"""

from absl import flags

from recipes.common import shared_flags, start

FLAGS = flags.FLAGS

shared_flags.define_data_flags()
shared_flags.define_network_flags()
shared_flags.define_run_flags()

flags.DEFINE_float(
    "regularization",
    None,
    "C of the regression; chosen by cross-validation on the labels if not given.",
    1e-9,
)

if __name__ == "__main__":
    start.parse_flags()

from mpl_tf.training import probing
from mpl_tf.training.run import Run
from recipes.common import builders, program


def main(_):
    """Fits, evaluates, saves, exports."""
    with program.open_run(probe, draft=False) as run:
        if not run.completed:
            probe(run)
        program.finish(run)


def probe(run: Run) -> None:
    """Fits the probe of the network that the flags name, which becomes the run's student."""
    network = builders.bare_network(FLAGS.model, run.data, seed=FLAGS.seed, weights=FLAGS.weights)
    probed = probing.probe(
        network,
        run.data,
        cache_dir=FLAGS.feature_cache or run.folder.path / "features",
        regularization=FLAGS.regularization,
        seed=FLAGS.seed,
        verbose=program.verbose(),
    )
    run.networks["student"] = network
    run.results = {split: {"student": numbers} for split, numbers in probed.metrics.items()}
    run.seconds |= probed.seconds
    run.cpu_seconds |= probed.cpu_seconds
    run.facts |= {
        "method": "LinearProbe",
        "regularization": probed.probe.regularization,
        "temperature": probed.probe.temperature,
        "cross_validated_nll": {f"{c:g}": nll for c, nll in probed.probe.cross_validated_nll.items()},
    }


if __name__ == "__main__":
    start.run(main)
