"""Linear probes against scikit-learn's own pipeline, and the folding of the normalization into a dense layer."""

import keras
import numpy as np
import pytest
from PIL import Image
from scipy import special
from sklearn.linear_model import LogisticRegression

from mpl_tf import data, models
from mpl_tf.models import probe
from tests.support import tiny


def clusters(count=60, classes=3, width=5, seed=0):
    generator = np.random.default_rng(seed)
    labels = np.arange(count) % classes
    centers = generator.normal(0, 1.5, (classes, width))
    features = 4 * (centers[labels] + generator.normal(0, 1, (count, width)))
    return features.astype(np.float32), labels


def source(count=40):
    images, labels = tiny.examples(count)
    return data.from_arrays(images.astype(np.uint8), labels)


@pytest.mark.parametrize("classes", [2, 3])
@pytest.mark.parametrize("width", [5, 90])
def test_logits_are_those_of_a_regression_on_features_of_one_length(classes, width):
    features, labels = clusters(classes=classes, width=width)
    fitted = models.fit_probe(features, labels, classes, regularization=3.0)
    lengths = np.linalg.norm(features.astype(np.float64), axis=1, keepdims=True)
    expected = LogisticRegression(C=3.0, tol=1e-8, max_iter=5000).fit(features / lengths, labels)
    logits = fitted.logits(features).astype(np.float64)
    probabilities = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    np.testing.assert_allclose(probabilities, expected.predict_proba(features / lengths.mean()), atol=2e-3)


def test_one_scale_of_all_features_changes_nothing():
    features, labels = clusters()
    one = models.fit_probe(features, labels, 3)
    other = models.fit_probe(1000 * features, labels, 3)
    assert one.regularization == other.regularization
    np.testing.assert_allclose(one.logits(features), other.logits(1000 * features), atol=1e-2)


def test_the_choice_is_the_best_over_folds_and_about_as_confident_as_it_is_right():
    features, labels = clusters(width=30)
    noise = np.random.default_rng(1).normal(size=features.shape)
    clear, unclear = (models.fit_probe(x, labels, 3) for x in (features, noise))
    for fitted in (clear, unclear):
        assert fitted.cross_validated_nll[fitted.regularization] == min(fitted.cross_validated_nll.values())
    assert confidence(clear.logits(clusters(width=30)[0])) > 0.95
    # A regression that was fitted to noise is sure of what it has memorized.
    memorized = models.fit_probe(noise, labels, 3, regularization=100.0)
    assert confidence(memorized.logits(noise)) > 0.8
    assert confidence(unclear.logits(noise)) < 0.5
    assert unclear.cross_validated_nll[unclear.regularization] == pytest.approx(np.log(3), abs=0.1)


def confidence(logits):
    return special.softmax(logits, axis=1).max(axis=1).mean()


def test_a_class_with_one_image_leaves_nothing_to_choose_by():
    features, labels = clusters()
    keep = np.r_[np.flatnonzero(labels < 2), np.flatnonzero(labels == 2)[:1]]
    assert models.fit_probe(features[keep], labels[keep], 3).cross_validated_nll == {}


def test_a_class_without_images_is_refused():
    features, labels = clusters()
    with pytest.raises(ValueError, match="labels of the 60 examples cover 3 of 4 classes: a probe needs at"):
        models.fit_probe(features, labels, 4)


def test_the_head_that_starts_there_gives_the_probes_logits():
    network, images = tiny.network("student"), source().train
    fitted = models.start_head(network, images, np.arange(24))
    pixels = images.fetch(np.arange(40)).numpy().astype(np.float32)
    features = probe.feature_model(network)(pixels)
    np.testing.assert_allclose(network(pixels), fitted.logits(features), atol=1e-4)


def test_features_come_from_before_dropout_and_once_from_the_store(tmp_path, monkeypatch):
    network, images = models.build("convnet", 3, tiny.IMAGE_SHAPE, dropout=0.5, seed=0), source().train
    done = []
    first = models.extract_features(
        network, images, [3, 1, 7], cache_dir=tmp_path, batch_size=2, advance=done.append
    )
    pixels = images.fetch(np.array([3, 1, 7])).numpy().astype(np.float32)
    expected = keras.Model(network.input, network.get_layer("features").output)(pixels)
    np.testing.assert_allclose(first, expected, atol=1e-5)
    assert sum(done) == 3

    computed = []
    compute = probe._compute
    monkeypatch.setattr(probe, "_compute", lambda *a: computed.extend(a[2]) or compute(*a))
    again = models.extract_features(network, images, [7, 5, 3], cache_dir=tmp_path)
    assert computed == [5]
    np.testing.assert_array_equal(again[[2, 0]], first[[0, 2]])
    np.testing.assert_array_equal(
        models.extract_features(network, images, [5], cache_dir=tmp_path), again[[1]]
    )
    assert computed == [5]

    # A file of the store that was cut off is made anew, once.
    damaged = next(file for file in tmp_path.rglob("*.npz") if len(np.load(file)["index"]) == 3)
    damaged.write_bytes(damaged.read_bytes()[:300])
    computed.clear()
    with pytest.warns(UserWarning, match=rf"{damaged.name} cannot be read \(.*\): .* computed again"):
        mended = models.extract_features(network, images, [3, 1, 7], cache_dir=tmp_path)
    np.testing.assert_allclose(mended, first, atol=1e-5)
    assert computed == [1, 3, 7]
    models.extract_features(network, images, [3, 1, 7, 5], cache_dir=tmp_path)
    assert computed == [1, 3, 7]


def test_other_networks_and_other_images_have_a_store_of_their_own(tmp_path):
    networks = [models.build("convnet", 3, tiny.IMAGE_SHAPE, seed=seed) for seed in (0, 1)]
    for network in networks:
        models.extract_features(network, source(40).train, [0], cache_dir=tmp_path)
    models.extract_features(networks[0], source(39).train, [0], cache_dir=tmp_path)
    # Another head alone is no other network.
    models.extract_features(
        models.with_new_head(networks[0], 5, tiny.IMAGE_SHAPE), source(40).train, [0], cache_dir=tmp_path
    )
    assert len(list(tmp_path.iterdir())) == 3


@pytest.mark.parametrize("memory_limit", [0, 2**20])
def test_features_of_images_that_are_resized_in_another_way_are_others(tmp_path, memory_limit):
    for number, name in enumerate(("ant", "cat")):
        (tmp_path / "images" / name).mkdir(parents=True)
        pixels = np.random.default_rng(number).integers(0, 256, (8, 20, 3), np.uint8)
        Image.fromarray(pixels).save(tmp_path / "images" / name / "0.png")
    network = models.build("convnet", 2, (8, 8, 3), seed=0)
    for resize in ("crop", "stretch"):
        options = {"image_size": 8, "resize": resize, "memory_limit": memory_limit}
        images = data.from_folders(tmp_path / "images", **options).train
        stored = models.extract_features(network, images, [0, 1], cache_dir=tmp_path / "cache")
        np.testing.assert_array_equal(stored, models.extract_features(network, images, [0, 1]))


def test_features_that_are_not_finite_are_refused():
    network = models.build("convnet", 3, tiny.IMAGE_SHAPE)
    network.get_layer("norm3").set_weights(
        [np.full_like(w, np.nan) for w in network.get_layer("norm3").get_weights()]
    )
    with pytest.raises(ValueError, match="features of 'convnet' are not finite"):
        models.extract_features(network, source().train, [0, 1])
