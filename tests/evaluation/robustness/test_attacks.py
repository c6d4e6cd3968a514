import keras
import numpy as np
import pytest
import tensorflow as tf

from mpl_tf import evaluation
from mpl_tf.evaluation.robustness import attacks
from tests.support import oracles, tiny

SCALE = 1 / 127.5


def linear_network(weights):
    """Logits of flattened images in −1…1."""
    inputs = keras.Input(tiny.IMAGE_SHAPE)
    x = keras.layers.Rescaling(SCALE, offset=-1.0)(inputs)
    dense = keras.layers.Dense(weights.shape[1], use_bias=False)
    network = keras.Model(inputs, dense(keras.layers.Flatten()(x)))
    dense.set_weights([weights])
    return network


def test_the_step_is_along_the_sign_of_the_gradient_worked_out_by_hand():
    generator = np.random.default_rng(0)
    weights = generator.normal(size=(16, 3)) / 4
    weights[5] = 0.0  # A pixel that no logit depends on.
    images, labels = tiny.examples(7)
    flat = images.astype("float64").reshape(7, 16) * SCALE - 1.0
    # ∂ cross-entropy / ∂ pixel = W (softmax(logits) − one-hot) · scale.
    on_logits = oracles.softmax(flat @ weights) - oracles.one_hot(labels, 3)
    expected = np.sign(on_logits @ weights.T * SCALE).reshape(images.shape)

    signs = attacks.gradient_signs(linear_network(weights))(images, labels)
    np.testing.assert_array_equal(signs, expected)
    moved = attacks.step(tf.constant(images), signs, 40.0).numpy()
    np.testing.assert_allclose(moved, np.clip(images + 40.0 * expected, 0, 255), atol=1e-4)
    assert moved.min() == 0.0
    assert moved.max() == 255.0


def test_signs_are_those_of_autodiff_one_image_at_a_time_in_inference_mode():
    network = tiny.network("attacked")
    images, labels = tiny.examples(5)
    signs = attacks.gradient_signs(network)(images, labels)
    for number in range(5):
        image = tf.Variable(images[number : number + 1])
        with tf.GradientTape() as tape:
            loss = keras.losses.sparse_categorical_crossentropy(
                labels[number : number + 1], network(image, training=False), from_logits=True
            )
        np.testing.assert_array_equal(signs[number], np.sign(tape.gradient(loss, image))[0])


def test_accuracy_falls_with_epsilon_from_the_clean_one():
    network = tiny.plain_network("attacked")
    images, _ = tiny.examples(64)
    labels = np.argmax(network.predict_on_batch(images), axis=-1)
    labels[:8] = (labels[:8] + 1) % 3
    data = tf.data.Dataset.from_tensor_slices({"image": images, "label": labels.astype("int32")})
    epsilons = [0.0, 4.0, 16.0, 64.0]
    found = evaluation.fgsm(network, data.batch(24), epsilons)
    assert found["epsilon"] == epsilons
    assert found["accuracy"][0] == 56 / 64 == evaluation.evaluate(network, data.batch(24))["accuracy"]
    assert found["standard_error"][0] == pytest.approx(np.sqrt(56 * 8 / 64**3))
    assert (np.diff(found["accuracy"]) < 0).all()
    assert found["without_gradient"] == 0.0
    assert found["count"] == 64
    # The weights are as they were, and so are the images that the attack starts from.
    signs = attacks.gradient_signs(network)(images, labels.astype("int32"))
    moved = np.clip(images + 4.0 * signs.numpy(), 0, 255)
    correct = np.argmax(network.predict_on_batch(moved), axis=-1) == labels
    assert found["accuracy"][1] == correct.mean()


def test_images_without_a_gradient_are_counted():
    weights = np.zeros((16, 3))
    weights[:, 0] = 1e4
    images = np.stack([np.full(tiny.IMAGE_SHAPE, level, "float32") for level in (250, 127.5)])
    data = tf.data.Dataset.from_tensors({"image": images, "label": np.zeros(2, "int32")})
    # The first image's class is certain in float32; in the second all three are equally likely.
    assert evaluation.fgsm(linear_network(weights), data, [1.0])["without_gradient"] == 0.5


def test_a_negative_epsilon_and_an_empty_dataset_are_refused():
    data = tf.data.Dataset.from_tensors({"image": np.zeros((1, 4, 4, 1)), "label": np.zeros(1, "int32")})
    with pytest.raises(ValueError, match=r"epsilon=-1\.0 is out of range"):
        evaluation.fgsm(tiny.plain_network("attacked"), data, [1.0, -1.0])
    with pytest.raises(ValueError, match="The dataset to attack is empty"):
        evaluation.fgsm(tiny.plain_network("attacked"), data.take(0), [1.0])
