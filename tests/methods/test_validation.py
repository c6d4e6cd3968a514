import keras
import numpy as np
import pytest
import tensorflow as tf

from mpl_tf.data.batches import check_evaluation_batch, check_training_batch
from mpl_tf.distribute import replicas
from mpl_tf.methods import validation
from mpl_tf.methods.mpl import MetaPseudoLabels
from mpl_tf.methods.supervised import Supervised
from tests.support import tiny


def ending_in(*layers):
    inputs = keras.Input(tiny.IMAGE_SHAPE)
    x = keras.layers.Flatten()(inputs)
    for layer in layers:
        x = layer(x)
    return keras.Model(inputs, x, name="net")


# --- networks ----------------------------------------------------------------------------------------------


def test_a_network_that_is_no_model():
    with pytest.raises(ValueError, match=r"student='resnet' is not a keras\.Model: pass a network from"):
        Supervised(student="resnet")


def test_a_network_that_is_not_built():
    student = keras.Sequential([keras.layers.Dense(3)], name="late")
    with pytest.raises(
        ValueError, match=r"The student 'late' is not built: call it once, or give it a keras"
    ):
        Supervised(student=student)


def test_a_network_without_shapes():
    class Subclassed(keras.Model):
        def __init__(self):
            super().__init__(name="subclassed")
            self.flatten, self.dense = keras.layers.Flatten(), keras.layers.Dense(3)

        def call(self, images):
            return self.dense(self.flatten(images))

    student = Subclassed()
    student(np.zeros((1, *tiny.IMAGE_SHAPE), np.float32))
    with pytest.raises(
        ValueError,
        match=r"The student 'subclassed' is a subclassed model, .*rebuild it as keras\.Model",
    ):
        Supervised(student=student)


def mean_of_two(first, second):
    return lambda x: keras.layers.Average()([first(x), second(x)])


@pytest.mark.parametrize(
    "layers",
    [
        [keras.layers.Dense(3, activation="softmax")],
        [keras.layers.Dense(3, activation=tf.nn.softmax)],
        [keras.layers.Dense(3), keras.layers.Softmax()],
        [keras.layers.Dense(3), keras.layers.Activation("softmax")],
        [keras.layers.Dense(3), lambda x: keras.ops.exp(keras.ops.log_softmax(x))],
        [keras.layers.Dense(3, "softmax"), keras.layers.Activation("linear", dtype="float32")],
        [keras.layers.Dense(3, "softmax"), keras.layers.Reshape((3,))],
        [mean_of_two(keras.layers.Dense(3, "softmax"), keras.layers.Dense(3, "softmax"))],
        [keras.layers.Dense(3, "softmax", dtype="mixed_bfloat16")],
        [keras.layers.Dense(3, "softmax", kernel_initializer="zeros")],
    ],
)
@pytest.mark.parametrize("ema_decay", [0.9, None])
def test_a_network_that_returns_probabilities(layers, ema_decay):
    with pytest.raises(ValueError, match=r"The student 'net' returns probabilities.*remove the softmax"):
        Supervised(student=ending_in(*layers), ema_decay=ema_decay)


@pytest.mark.parametrize(
    "layers",
    [
        [keras.layers.Dense(3, "sigmoid")],
        [keras.layers.Dense(3, tf.nn.sigmoid), keras.layers.Reshape((3,))],
        [keras.layers.Dense(3), keras.layers.Activation("hard_sigmoid")],
        [keras.layers.Dense(3), keras.ops.sigmoid],
    ],
)
def test_a_network_that_ends_in_a_sigmoid(layers):
    with pytest.raises(ValueError, match=r"The student 'net' returns a sigmoid.*remove the sigmoid"):
        Supervised(student=ending_in(*layers))


@pytest.mark.parametrize(
    "layers",
    [
        [keras.layers.Dense(3, kernel_initializer="zeros")],
        [keras.layers.Dense(3, "relu")],
        [keras.layers.Dense(3), keras.layers.Activation("log_softmax")],
        [keras.layers.Dense(8, "sigmoid"), keras.layers.Dense(3)],
        [
            keras.layers.Dense(
                2, kernel_initializer="zeros", bias_initializer=keras.initializers.Constant(0.4)
            )
        ],
    ],
)
def test_logits_that_may_look_like_probabilities(layers):
    student = ending_in(*layers)
    assert Supervised(student=student).student is student


def test_a_network_that_ends_in_a_linear_layer_need_not_be_tried_out(monkeypatch):
    monkeypatch.setattr(
        "mpl_tf.models.validation._rows_sum_to_one",
        lambda network: pytest.fail(f"{network.name} tried out"),
    )
    student = keras.Sequential([keras.Input(tiny.IMAGE_SHAPE), ending_in(keras.layers.Dense(3))])
    assert Supervised(student=student).student is student


def test_a_class_of_its_own_is_tried_out_whatever_layer_it_ends_in():
    class Calibrated(keras.Model):
        def call(self, images, training=False):
            return keras.ops.softmax(super().call(images, training=training))

    inputs = keras.Input(tiny.IMAGE_SHAPE)
    outputs = keras.layers.Dense(3)(keras.layers.Flatten()(inputs))
    with pytest.raises(ValueError, match="The student 'net' returns probabilities"):
        Supervised(student=Calibrated(inputs, outputs, name="net"))


def test_a_network_of_any_image_size_is_looked_at_too():
    inputs = keras.Input((None, None, 1))
    features = keras.layers.GlobalAveragePooling2D()(keras.layers.Conv2D(4, 3)(inputs))
    network = keras.Model(inputs, keras.layers.Dense(3, "softmax")(features), name="net")
    with pytest.raises(ValueError, match="The student 'net' returns probabilities"):
        Supervised(student=network)


@pytest.mark.parametrize("kind", ["function", "nested"])
def test_a_softmax_that_is_no_layer_of_the_network(kind):
    inputs = keras.Input(tiny.IMAGE_SHAPE)
    if kind == "function":
        outputs = keras.ops.softmax(keras.layers.Dense(3)(keras.layers.Flatten()(inputs)))
    else:
        outputs = ending_in(keras.layers.Dense(3, activation="softmax"))(inputs)
    with pytest.raises(ValueError, match=r"The student 'whole' returns probabilities.*remove the softmax"):
        Supervised(student=keras.Model(inputs, outputs, name="whole"))


@pytest.mark.parametrize(
    ("layers", "shape"),
    [([keras.layers.Dense(1)], r"\(None, 1\)"), ([keras.layers.Reshape((4, 4))], r"\(None, 4, 4\)")],
)
def test_a_network_that_is_no_classifier(layers, shape):
    with pytest.raises(ValueError, match=rf"The student 'net' returns the shape {shape}.*end it in a dense"):
        Supervised(student=ending_in(*layers))


def test_a_softmax_inside_the_network_is_fine():
    student = ending_in(keras.layers.Dense(5, activation="softmax"), keras.layers.Dense(3))
    assert Supervised(student=student).student is student


def test_networks_with_different_class_counts():
    message = "The teacher has 3 classes and the student 4: both must be built for the same class names"
    with pytest.raises(ValueError, match=message):
        MetaPseudoLabels(teacher=tiny.network("teacher"), student=tiny.network("student", num_classes=4))


def test_networks_with_different_image_shapes():
    inputs = keras.Input((8, 8, 1))
    student = keras.Model(inputs, keras.layers.Dense(3)(keras.layers.Flatten()(inputs)))
    message = r"The teacher takes images of shape \(4, 4, 1\) and the student of \(8, 8, 1\): both see"
    with pytest.raises(ValueError, match=message):
        MetaPseudoLabels(teacher=tiny.network("teacher"), student=student)


@pytest.mark.parametrize("whole", [True, False])
def test_networks_that_share_weights(whole):
    teacher = tiny.network("teacher")
    student = teacher if whole else keras.Model(teacher.inputs, teacher.outputs, name="student")
    with pytest.raises(
        ValueError, match="The teacher and the student share weights: build two separate netw"
    ):
        MetaPseudoLabels(teacher=teacher, student=student)


# --- batches -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("broken", "message"),
    [
        (
            "arrays",
            "The batch has no 'labeled' entry with 'image' and 'label': make batches with mpl_tf.data",
        ),
        ("no labels", "The batch has no 'labeled' entry with 'image' and 'label'"),
        ("no unlabeled", "The batch has no 'unlabeled' entry with 'weak' and 'strong'"),
        ("no strong", "The batch has no 'unlabeled' entry with 'weak' and 'strong'"),
        (
            "shape",
            r"The batch's unlabeled weak images have shape \(8, 8, 1\), but 'student' takes \(4, 4, 1",
        ),
        ("one-hot", r"The batch's labels are float32 of shape \(4, 3\): pass one whole number per image"),
        ("fractions", r"The batch's labels are float32 of shape \(4,\): pass one whole number per image"),
        ("too few labels", r"'labeled' have different lengths \(image 4, label 3\): each row of all"),
        ("too few weak", r"'unlabeled' have different lengths \(weak 5, strong 6\): each row of all"),
    ],
)
def test_training_batches(batch, broken, message):
    data = {stream: dict(entries) for stream, entries in batch.items()}
    if broken == "arrays":
        data = (batch["labeled"]["image"], batch["labeled"]["label"])
    elif broken == "no labels":
        del data["labeled"]["label"]
    elif broken == "no unlabeled":
        del data["unlabeled"]
    elif broken == "no strong":
        del data["unlabeled"]["strong"]
    elif broken == "one-hot":
        data["labeled"]["label"] = tf.one_hot(data["labeled"]["label"], 3)
    elif broken == "fractions":
        data["labeled"]["label"] = tf.cast(data["labeled"]["label"], tf.float32)
    elif broken == "too few labels":
        data["labeled"]["label"] = data["labeled"]["label"][:3]
    elif broken == "too few weak":
        data["unlabeled"]["weak"] = data["unlabeled"]["weak"][:5]
    else:
        data["unlabeled"]["weak"] = tf.zeros([6, 8, 8, 1])
    with pytest.raises(ValueError, match=message):
        check_training_batch(data, tiny.network("student"), unlabeled=True)


def test_fit_refuses_a_batch_before_its_first_step():
    method = Supervised(student=tiny.network("student"))
    method.compile("sgd", run_eagerly=True)
    old = tiny.values(method.student.weights)
    with pytest.raises(ValueError, match="The batch has no 'labeled' entry"):
        method.fit(np.zeros((4, *tiny.IMAGE_SHAPE), np.float32), verbose=0)
    assert all(map(np.array_equal, old, tiny.values(method.student.weights)))


def test_a_good_batch_passes(batch):
    assert check_training_batch(batch, tiny.network("student"), unlabeled=True) is None
    labeled = {"labeled": batch["labeled"]}
    assert check_training_batch(labeled, tiny.network("student"), unlabeled=False) is None


@pytest.mark.parametrize(
    "data", [np.zeros((2, 4, 4, 1)), (np.zeros((2, 4, 4, 1)),), (np.zeros((2, 4, 4, 1)), None), {"image": 1}]
)
def test_evaluation_without_labels(data):
    with pytest.raises(ValueError, match=r"Evaluation needs labeled images: pass a dataset of .* or x and y"):
        check_evaluation_batch(data)


def test_evaluation_refuses_images_alone():
    method = Supervised(student=tiny.network("student"))
    method.compile("sgd", run_eagerly=True)
    with pytest.raises(ValueError, match="Evaluation needs labeled images"):
        method.evaluate(np.zeros((4, *tiny.IMAGE_SHAPE), np.float32), verbose=0)


# --- replicas ----------------------------------------------------------------------------------------------


def test_the_unrolled_feedback_on_several_replicas():
    message = "The feedback 'unrolled' goes through .* one replica, not on 2: use 'per_example'"
    with pytest.raises(ValueError, match=message):
        validation.check_one_replica("unrolled", 2)
    assert validation.check_one_replica("unrolled", 1) is None


def test_a_strategy_of_another_name():
    message = "strategy='horovod' is unknown: Choose one of 'default', 'mirrored', 'multi_worker', 'tpu'"
    with pytest.raises(ValueError, match=message):
        replicas.make_strategy("horovod")
