"""Draws the page of a run again from its folder: report.html, one file that needs nothing but itself.

python -m recipes.report --run_dir=runs/digits
python -m recipes.report --run_dir=runs/pets --labeled_dir=labeled --unlabeled_dir=unlabeled

After recipes.evaluate, the page has what that measured too. A run that has not ended, or whose images are not at
hand (--noimages), is drawn from the files in its folder alone.
"""

from absl import app, flags

from recipes.common import shared_flags, start
from recipes.common.start import define_path

FLAGS = flags.FLAGS

shared_flags.define_data_flags()

define_path("run_dir", None, "The folder of a run; its flags.txt says which images.")
flags.DEFINE_bool("images", True, "Also load the run's images and networks, for what they show.")

if __name__ == "__main__":
    start.parse_flags()

from mpl_tf import report
from mpl_tf.runs.folder import RunFolder
from recipes.common import completed_run, program


def main(_):
    """Draws the page and says where it is."""
    if FLAGS.run_dir is None:
        raise app.UsageError("Give the folder of a run: --run_dir=runs/<name>.")
    program.prepare()
    folder = RunFolder(FLAGS.run_dir)
    data, networks = None, {}
    if FLAGS.images and folder.read_metrics() is not None:
        completed_run.adopt_flags(folder)
        data = program.load_data(FLAGS.run_dir)
        networks = completed_run.networks(folder)
    print(report.page(FLAGS.run_dir, data, networks))


if __name__ == "__main__":
    start.run(main)
