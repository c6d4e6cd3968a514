import json
import warnings

import keras
import numpy as np
import pytest
import sklearn.metrics
import tensorflow as tf

from mpl_tf import evaluation


def table_network(logits, dtype="float32"):
    """A network whose logits on the image [[i]] are `logits[i]`."""
    index = keras.Input((1,), name="image")
    flat = keras.layers.Flatten(dtype=dtype)(
        keras.layers.Embedding(*logits.shape, embeddings_initializer=keras.initializers.Constant(logits))(
            index
        )
    )
    return keras.Model(index, flat, name="table")


def labeled_batches(labels, batch_size=4):
    images = np.arange(len(labels), dtype="float32")[:, None]
    data = {"image": images, "label": np.asarray(labels, "int32")}
    return tf.data.Dataset.from_tensor_slices(data).batch(batch_size)


def test_every_number_is_that_of_a_loop_over_the_images():
    generator = np.random.default_rng(0)
    logits = generator.normal(size=(23, 4)).astype("float32") * 3
    labels = generator.choice([0, 1, 3], size=23)  # class 2 has no image
    result = evaluation.evaluate(table_network(logits), labeled_batches(labels))

    confusion, losses = [[0] * 4 for _ in range(4)], []
    for row, label in zip(logits.astype("float64"), labels, strict=True):
        confusion[label][max(range(4), key=lambda k, row=row: row[k])] += 1
        losses.append(np.log(np.exp(row).sum()) - row[label])
    share = sum(confusion[k][k] for k in range(4)) / 23
    assert result["confusion"] == confusion
    assert result["count"] == 23
    assert result["accuracy"] == pytest.approx(share, abs=1e-12)
    assert result["nll"] == pytest.approx(np.mean(losses), rel=1e-9)
    assert "top5_accuracy" not in result
    for label in (0, 1, 3):
        hits = confusion[label][label] / (labels == label).sum()
        assert result["per_class_accuracy"][label] == pytest.approx(hits, abs=1e-12)
    assert result["per_class_accuracy"][2] is None
    # Binomial: the variance of a fraction, by enumeration over all 24 counts.
    chances = [np.exp(log_chance(hits, 23, share)) for hits in range(24)]
    variance = sum(chance * (hits / 23 - share) ** 2 for hits, chance in enumerate(chances))
    assert result["standard_error"] == pytest.approx(np.sqrt(variance), rel=1e-9)


@pytest.mark.parametrize("seed", range(4))
def test_balanced_accuracy_and_macro_f1_are_scikit_learns(seed):
    generator = np.random.default_rng(seed)
    logits = generator.normal(size=(30, 6)).astype("float32")
    # Unequal classes: the last two have no image, and the fourth is never predicted.
    labels = generator.choice(4, size=30, p=[0.6, 0.2, 0.1, 0.1])
    logits[:, 3] = -9.0
    result, predicted = (
        evaluation.evaluate(table_network(logits), labeled_batches(labels)),
        logits.argmax(axis=1),
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it warns of classes that are predicted without having images
        balanced = sklearn.metrics.balanced_accuracy_score(labels, predicted)
        f1 = sklearn.metrics.f1_score(labels, predicted, average="macro", zero_division=0.0)
    assert result["balanced_accuracy"] == pytest.approx(balanced, abs=1e-12)
    assert result["macro_f1"] == pytest.approx(f1, abs=1e-12)


def test_brier_top_5_and_calibration_are_those_of_loops():
    generator = np.random.default_rng(3)
    logits = generator.normal(size=(40, 9)).astype("float32") * 2
    labels = generator.integers(9, size=40)
    result = evaluation.evaluate(table_network(logits), labeled_batches(labels, 7))

    brier, in_top, bins = [], 0, {}
    for row, label in zip(logits.astype("float64"), labels, strict=True):
        probabilities = [np.exp(value) / sum(np.exp(row)) for value in row]
        brier.append(sum((probabilities[k] - (k == label)) ** 2 for k in range(9)))
        in_top += label in sorted(range(9), key=lambda k, row=row: -row[k])[:5]
        confidence = max(probabilities)
        members = bins.setdefault(int(np.ceil(confidence * 15)), [])
        members.append((confidence, probabilities[label] == confidence))
    gaps = [abs(sum(c for c, _ in members) - sum(hit for _, hit in members)) for members in bins.values()]
    assert result["brier"] == pytest.approx(np.mean(brier), rel=1e-9)
    assert result["top5_accuracy"] == in_top / 40
    assert 0 < in_top < 40
    assert result["ece"] == pytest.approx(sum(gaps) / 40, rel=1e-9)
    assert len(bins) > 5


def test_classes_of_a_subset_are_compared_among_themselves():
    logits = np.array([[9.0, 1.0, 2.0, 0.0], [9.0, 5.0, 2.0, 3.0]], "float32")
    among = evaluation.evaluate(table_network(logits), labeled_batches([1, 1]), classes=[3, 2])
    expected = evaluation.evaluate(table_network(logits[:, [3, 2]]), labeled_batches([1, 1]))
    assert among == expected
    assert among["accuracy"] == 0.5
    with pytest.raises(ValueError, match="The label 2 is out of range for a network with 2 outputs"):
        evaluation.evaluate(table_network(logits), labeled_batches([1, 2]), classes=[3, 2])


def test_predict_collects_what_evaluate_judges():
    logits = np.random.default_rng(2).normal(size=(11, 3)).astype("float32")
    labels = np.arange(11) % 3
    found, given = evaluation.predict(table_network(logits), labeled_batches(labels))
    np.testing.assert_array_equal(found, logits)
    np.testing.assert_array_equal(given, labels)
    outcomes = evaluation.outcomes(found, given)
    result = evaluation.evaluate(table_network(logits), labeled_batches(labels))
    assert evaluation.summarize(outcomes, 3) == result


def log_chance(hits, count, share):
    orders = sum(np.log(count - i) - np.log(i + 1) for i in range(hits))
    return orders + hits * np.log(share) + (count - hits) * np.log(1 - share)


def test_the_result_survives_json_and_does_not_depend_on_the_batches():
    logits = np.random.default_rng(1).normal(size=(12, 3)).astype("float32")
    labels = [0, 1, 2] * 4
    results = [
        evaluation.evaluate(table_network(logits), labeled_batches(labels, size)) for size in (1, 5, 12)
    ]
    for result in results:
        assert json.loads(json.dumps(result, allow_nan=False)) == result
        assert result["nll"] == pytest.approx(results[0]["nll"], rel=1e-6)
        assert {**result, "nll": 0} == {**results[0], "nll": 0}


def test_all_correct_and_all_wrong():
    labels = [0, 1, 2, 1]
    certain = np.eye(3, dtype="float32")[labels] * 50
    right = evaluation.evaluate(table_network(certain), labeled_batches(labels))
    wrong = evaluation.evaluate(table_network(certain), labeled_batches([1, 2, 0, 0]))
    assert (right["accuracy"], right["standard_error"], right["per_class_accuracy"]) == (1.0, 0.0, [1.0] * 3)
    assert (wrong["accuracy"], wrong["standard_error"], wrong["per_class_accuracy"]) == (0.0, 0.0, [0.0] * 3)
    assert right["nll"] == pytest.approx(0.0, abs=1e-6)
    assert wrong["nll"] == pytest.approx(50.0)


def test_the_network_is_evaluated_in_inference_mode():
    images = keras.Input((4,), name="image")
    dense = keras.layers.Dense(2)
    network = keras.Model(images, dense(keras.layers.Dropout(0.9)(images)))
    dense.set_weights([np.tile([[0.5, -0.5]], (4, 1)), np.zeros(2)])
    data = {"image": np.ones((64, 4), "float32"), "label": np.ones(64, "int32")}
    result = evaluation.evaluate(network, tf.data.Dataset.from_tensors(data))
    assert result["nll"] == pytest.approx(np.logaddexp(2.0, -2.0) + 2.0, rel=1e-6)


def test_losses_of_a_16_bit_network_are_computed_in_float32():
    logits = np.array([[0.0, 30.0], [0.0, 0.0078125]], "float32")
    result = evaluation.evaluate(table_network(logits, dtype="float16"), labeled_batches([0, 0]))
    expected = np.mean(np.logaddexp(0.0, logits[:, 1].astype("float64")))
    assert result["nll"] == pytest.approx(expected, rel=1e-6)


def test_an_empty_dataset_is_refused():
    with pytest.raises(ValueError, match="The dataset to evaluate on is empty: pass at least one batch"):
        evaluation.evaluate(table_network(np.zeros((2, 2), "float32")), labeled_batches([0, 1]).take(0))


@pytest.mark.parametrize("label", [-1, 2, 9])
def test_labels_without_an_output_are_refused(label):
    with pytest.raises(ValueError, match=f"The label {label} is out of range for a network with 2 outputs"):
        evaluation.evaluate(table_network(np.zeros((3, 2), "float32")), labeled_batches([0, 1, label]))


def test_outputs_that_are_not_finite_are_refused():
    logits = np.array([[0.0, 1.0], [np.nan, 0.0]], "float32")
    with pytest.raises(ValueError, match="The logits of 'table' on the evaluated images are not finite"):
        evaluation.evaluate(table_network(logits), labeled_batches([0, 1]))


def test_batches_without_labels_are_refused():
    batches = tf.data.Dataset.from_tensors({"image": np.zeros((2, 1), "float32")})
    with pytest.raises(ValueError, match="Evaluation needs labeled images"):
        evaluation.evaluate(table_network(np.zeros((2, 2), "float32")), batches)
