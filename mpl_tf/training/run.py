"""A run: stages that train one after the other in a folder, and what is left of them at the end."""

import contextlib
import math
import os
from collections.abc import Callable
from types import TracebackType
from typing import Any, Self

import keras
import tensorflow as tf

from mpl_tf import evaluation, models
from mpl_tf.data.augmentation.stateless_random import fold_in
from mpl_tf.data.run_data import RunData
from mpl_tf.distribute import replicas, workers
from mpl_tf.methods.base import Method
from mpl_tf.methods.supervised import Supervised
from mpl_tf.runs.folder import RunFolder, size_on_disk
from mpl_tf.runs.roles import role_name
from mpl_tf.runs.settings import Monitoring, StageSettings
from mpl_tf.training import finalize
from mpl_tf.training.loop import fit
from mpl_tf.utils import files

# The stage whose student the run is about; its files lie in the run folder itself.
METHOD = "method"


class Run:
    """Trains in stages, evaluates once, exports, and leaves everything in a folder.

        with Run("runs/digits", data) as run:
            run.train("supervised", build_baseline, labels_alone)
            run.train("method", build_method, settings)
            run.finetune(steps=200, batch_size=20, learning_rate=0.02)
            metrics = run.finish(export_dir="saved_models/digits")

    Killed anywhere and started again, it goes on there: a stage is read back from its newest checkpoint, and one that
    was trained to its end trains no more. A run that is complete builds no network at all.

    Args:
        folder: path of the run folder.
        data: images, split and views.
        strategy: that all networks are made under, from `replicas.make_strategy`; None for one device.
        monitoring: what is shown and measured; None for the defaults.

    Raises:
        ValueError: from `with`, when another process trains in the folder.
        workers.WorkerLostError: from inside the block, when another process that trains along has ended.
    """

    def __init__(
        self,
        folder: str | os.PathLike,
        data: RunData,
        *,
        strategy: tf.distribute.Strategy | None = None,
        monitoring: Monitoring | None = None,
    ):
        self.strategy = tf.distribute.get_strategy() if strategy is None else strategy
        self.folder = RunFolder(folder, writes=workers.is_chief(self.strategy))
        self.data = data
        self.monitoring = Monitoring() if monitoring is None else monitoring
        self.networks: dict[str, keras.Model] = {}
        # What networks of the run start from where their weights fit, `models.copy_weights`; None for nothing.
        self.initial: keras.Model | None = None
        # Stage → how long it has trained: by the clock, and on all cores together without its validations.
        self.seconds: dict[str, float] = {}
        self.cpu_seconds: dict[str, float] = {}
        # Stage → epoch, step and accuracy, where the best epoch was selected.
        self.selected: dict[str, dict] = {}
        # More entries for metrics.json.
        self.facts: dict[str, object] = {}
        # Split → role → numbers, where all networks have been evaluated on the way.
        self.results: dict[str, dict[str, dict]] = {}
        self.completed = False
        # The role that was trained on the labeled images alone; None finds it by its name.
        self.baseline: str | None = None
        # The roles of networks that the run was given, and has not trained.
        self.given: set[str] = set()
        # What `finish` has done of a run that was complete, in words.
        self.done: list[str] = []

    def __enter__(self) -> Self:
        with contextlib.ExitStack() as stack:
            stack.enter_context(self.folder.locked())
            stack.enter_context(workers.lost_workers_named(self.strategy))
            self.completed = self.folder.read_metrics() is not None
            self._exit = stack.pop_all()
        return self

    def __exit__(
        self,
        error_type: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> bool | None:
        return self._exit.__exit__(error_type, error, traceback)

    def train(
        self,
        stage: str,
        build: Callable[[], Method],
        settings: StageSettings,
        *,
        role: str | None = None,
        data: RunData | None = None,
    ) -> None:
        """Trains one stage, or continues it, to its last step.

        Args:
            stage: its name. `"method"` is the one that the run is about: it lies in the run folder itself, every
                other in a folder of its name there.
            build: makes the compiled method; called inside the strategy's scope, and not at all when the run is
                complete.
            settings: how long, and on which batches.
            role: what the stage's inference model is called where it is evaluated and saved; None for
                `"student"` in the method's stage, and the stage's name in every other. Networks of other roles
                that the method has, a teacher, keep theirs.
            data: images, split and views; None for the run's.

        Raises:
            ValueError: for a batch that does not divide over the replicas, and for more or fewer steps or images than
                a run that is complete has had.
        """
        if self.completed:
            if stage == METHOD:
                self._check_as_trained(settings)
            return
        check_batch_size(settings.batch_size, self.strategy)
        folder = self.folder if stage == METHOD else self.folder.stage(stage)
        with self.strategy.scope():
            method = build()
        data = self.data if data is None else data
        if folder.writes:
            # Two checkpoints and the one that is being written, and the networks at the end.
            files.check_room(folder.path, 4 * size_on_disk(method))
        title = type(method).__name__ if stage == METHOD else role_name(role_of(stage, role))
        self.seconds[stage] = fit(method, data, settings, folder, self.monitoring, title=title)
        self.cpu_seconds[stage] = folder.recorded_sum("cpu_seconds")
        if (selected := folder.read_selected(until_step=settings.steps)) is not None:
            self.selected[stage] = selected.as_dict()
        if stage == METHOD:
            self.facts |= {
                "method": type(method).__name__,
                "steps": int(method.step.numpy()),
                "images": settings.images,
            }
        self._take_networks(stage, method, role)
        for auxiliary in set(method.roles) - set(method.classifiers):
            folder.save_network(auxiliary, getattr(method, auxiliary))

    def _check_as_trained(self, settings: StageSettings) -> None:
        """Raises where a run that is complete, and trains no more, is asked for another training."""
        metrics = self.folder.read_metrics() or {}
        steps, images = (metrics.get(name, getattr(settings, name)) for name in ("steps", "images"))
        if (steps, images) != (settings.steps, settings.images):
            raise ValueError(
                f"The run {str(self.folder.path)!r} is complete, with {steps:,} steps on {images:,} images, and is "
                f"asked for {settings.steps:,} on {settings.images:,}: choose another folder."
            )

    def _take_networks(self, stage: str, method: Method, role: str | None) -> None:
        """Notes the classifiers of a stage's method by their roles."""
        others = {name: method.averaged(name) for name in method.classifiers if name != "student"}
        self.given |= set(others) - set(method.learners)
        self.networks |= others | {role_of(stage, role): method.inference_model}

    def add_network(self, role: str, load: Callable[[], keras.Model]) -> None:
        """Takes a network that needs no training into the run, to be evaluated and saved with the others.

        Args:
            role: what it is called.
            load: returns it; called inside the strategy's scope, and not at all when the run is complete.
        """
        if self.completed:
            return
        with self.strategy.scope():
            self.networks[role] = load()
        self.given.add(role)

    def finetune(
        self,
        *,
        steps: int,
        batch_size: int = 64,
        learning_rate: float = 1e-3,
        seed: int = 0,
        jit_compile: bool | str = "auto",
        select: str = "last",
    ) -> None:
        """The stage in which the finished student learns from the labeled images, as the role `"finetuned"`.

        Args:
            steps: updates; 0 leaves the stage out.
            batch_size: labeled images per update.
            learning_rate: of the plain SGD that makes them.
            seed: of the run.
            jit_compile: True, False or `"auto"`.
            select: which epoch's weights it ends with, `"last"` or `"best"`, as in `StageSettings`.
        """
        if not steps:
            return
        settings = StageSettings(
            steps=steps,
            epoch_steps=math.ceil(steps / 2),
            batch_size=batch_size,
            # Another seed: the fine-tuning's stream of augmented images is not the method's over again.
            seed=fold_in(seed, "finetune"),
            select=select,
        )

        def build() -> Supervised:
            return finetuning(self.networks["student"], learning_rate, jit_compile)

        self.train("finetune", build, settings, role="finetuned")

    def finish(
        self,
        *,
        export_dir: str | os.PathLike | None = None,
        report: bool = True,
        command: str = "",
        serve: str = evaluation.AUTO,
    ) -> dict:
        """Evaluates every network, saves and exports, and writes metrics.json; of a complete run, what is missing.

        Args:
            export_dir: where the chosen network goes as `<export_dir>/<version>/`; None exports nothing.
            report: whether to draw `<run_dir>/report.html`.
            command: the command line that started the run, for metrics.json.
            serve: the role of the network that is served; `"auto"` chooses by the validation images, see
                `evaluation.choose`, among those that the run has trained. A teacher that takes other inputs than the
                student, or has more weights, is not among them.

        Returns:
            What metrics.json holds; under `"served"` which network was chosen, and why.

        Raises:
            ValueError: for a role that the run does not have.
        """
        if self.completed:
            if self.folder.writes:
                self.done = finalize.complete(
                    self.folder,
                    self.data,
                    export_dir=export_dir,
                    draw_report=report,
                    serve=serve,
                    verbose=self.monitoring.verbose,
                )
            workers.wait_for_all(self.strategy)
            return self.folder.read_metrics() or {}
        # Every process takes part in copying, and one writes.
        networks = {
            role: replicas.local_copy(network, self.strategy) for role, network in self.networks.items()
        }
        if self.folder.writes:
            finalize.finish(
                self.folder,
                self.data,
                networks,
                export_dir=export_dir,
                draw_report=report,
                command=command,
                serve=serve,
                candidates=self._candidates(),
                baseline=self.baseline,
                verbose=self.monitoring.verbose,
                results=self.results,
                **self.facts,
                **({"selected": self.selected} if self.selected else {}),
                seconds=self.seconds,
                cpu_seconds=self.cpu_seconds,
            )
        workers.wait_for_all(self.strategy)
        return self.folder.read_metrics() or {}

    def _candidates(self) -> list[str]:
        """The roles to choose from, in the order of the training."""
        student = self.networks.get("student")
        return [
            role
            for role, network in self.networks.items()
            if role not in self.given
            and (student is None or role != "teacher" or _fits_in_the_place_of(student, network))
        ]


def _fits_in_the_place_of(student: keras.Model, teacher: keras.Model) -> bool:
    """Whether a teacher takes and answers what the student does, and costs no more."""
    return (
        teacher.input_shape == student.input_shape
        and teacher.output_shape == student.output_shape
        and teacher.count_params() <= student.count_params()
    )


def role_of(stage: str, role: str | None) -> str:
    """What the inference model of a stage is called where it is evaluated and saved.

    Args:
        stage: its name.
        role: as for `Run.train`; None for `"student"` in the method's stage, and the stage's name in every other.
    """
    return role or ("student" if stage == METHOD else stage)


def check_batch_size(batch_size: int, strategy: tf.distribute.Strategy, *, name: str = "batch_size") -> None:
    """Checks that a batch divides over the replicas.

    Args:
        batch_size: of all replicas together.
        strategy: that it is divided by.
        name: of the argument, for the message.

    Raises:
        ValueError: when it does not.
    """
    replicas = strategy.num_replicas_in_sync
    if batch_size % replicas:
        raise ValueError(
            f"{name}={batch_size} does not divide over {replicas} replicas: choose a multiple of {replicas}."
        )


def finetuning(
    student: keras.Model, learning_rate: float, jit_compile: bool | str = "auto", **options: Any
) -> Supervised:
    """A copy of a finished student, compiled to learn from the labeled images.

    Meta Pseudo Labels' student never saw a label; the paper gives it some SGD steps with a small learning rate
    at the end (section 3.2). The copy leaves the original as it was.

    Args:
        student: the network to start from.
        learning_rate: of plain SGD.
        jit_compile: True, False or `"auto"`.
        **options: of `models.to_finetune`: another resolution, frozen layers.

    Returns:
        A compiled `Supervised`.
    """
    method = Supervised(student=models.to_finetune(student, **options))
    method.compile(keras.optimizers.SGD(learning_rate), jit_compile=jit_compile)
    return method
