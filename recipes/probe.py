"""A linear probe: logistic regression on the features of a network. The cheapest baseline, in seconds.

    python -m recipes.probe --dataset=folders --labeled_dir=train --test_dir=test --image_size=96 \
        --model=mobilenetv2 --weights=imagenet

Features are computed once per image and stored in --feature_cache, for other numbers of labels, other seeds and the
other recipes, whose new heads start from such a probe. What is saved and exported is the whole network, from pixels
to logits. See docs/pretrained.md.
"""

import pathlib

from absl import flags

from mpl_tf import probing, training
from recipes import builders, common, shared_flags, start

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


def main(_):
    """Fits, evaluates, saves, exports."""
    folder = training.RunFolder(common.run_dir())
    common.claim(str(folder.path))
    common.prepare()
    with folder.locked():
        data = common.load_data(str(folder.path))
        network = builders.bare_network(FLAGS.model, data, seed=FLAGS.seed, weights=FLAGS.weights)
        probed = probing.probe(
            network,
            data,
            cache_dir=FLAGS.feature_cache or pathlib.Path(folder.path) / "features",
            regularization=FLAGS.regularization,
            seed=FLAGS.seed,
            verbose=common.verbose(),
        )
        metrics = training.finish(
            folder,
            data,
            common.untrained_settings(str(folder.path)),
            {"student": network},
            evaluated={split: {"student": result} for split, result in probed.metrics.items()},
            method="LinearProbe",
            seconds=probed.seconds,
            regularization=probed.probe.regularization,
            cross_validated_nll={f"{c:g}": nll for c, nll in probed.probe.cross_validated_nll.items()},
        )
    common.show(metrics, str(folder.path))


if __name__ == "__main__":
    start.run(main)
