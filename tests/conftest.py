import gc
import os
import re

# Where each core has a process of pytest-xdist, more threads would only wait for one another. Before TensorFlow is.
if "PYTEST_XDIST_WORKER" in os.environ:
    os.environ.setdefault("TF_NUM_INTRAOP_THREADS", "1")

# XLA translates and fuses a step as always; only its machine code is made by the simplest of its generators, without
# LLVM's optimizations, which is most of what compiling such a step costs. `make test-slow` compiles as users do.
os.environ.setdefault(
    "XLA_FLAGS",
    "--xla_backend_optimization_level=0 --xla_cpu_parallel_codegen_split_count=1 --xla_cpu_use_fusion_emitters=false",
)

import pytest

# Sets what recipes set before TensorFlow is imported: whether it computes with oneDNN.
import recipes  # noqa: F401

# Nothing that is imported and collected is garbage. pytest_collection_finish ends this.
gc.disable()

# What takes longest begins first, so that both cores end together.
LONGEST = (
    "conformance/test_replicas.py",
    "distribute/",
    "recipes/test_recipes.py",
    "training/test_killed.py",
    "test_notebook.py",
    "conformance/",
    "training/",
    "recipes/",
    "report/",
    "export/",
    "methods/",
)
# Its cases share nothing but the fixture of their case.
DIVIDED = "conformance/test_methods.py"


# Whose graphs TensorFlow rewrites for speed, which takes time. `make test-slow` rewrites everywhere.
REWRITTEN = ("conformance/", "data/", "methods/")


@pytest.fixture(autouse=True, scope="module")
def rewritten_graphs(request):
    if os.environ.get("TEST_GRAPHS") != "rewritten":
        from tests.support import graphs

        graphs.set_rewriting(any(f"/{part}" in str(request.path) for part in REWRITTEN))


@pytest.fixture(autouse=True)
def seeded():
    from tests.support import seeds

    seeds.set_random_seed(0)


@pytest.fixture
def warned(recwarn):
    """What the test has been warned of, but not the files left open that the garbage collector finds meanwhile."""
    return lambda: [
        str(warning.message) for warning in recwarn if not issubclass(warning.category, ResourceWarning)
    ]


@pytest.fixture
def batch():
    """One batch of tensors: 4 labeled and 6 unlabeled images of 4×4×1 in 3 classes."""
    from tests.support import tiny

    return tiny.tensors(tiny.batch())


def pytest_collection_modifyitems(items):
    def rank(item):
        matching = [place for place, part in enumerate(LONGEST) if f"/{part}" in f"/{item.nodeid}"]
        return matching[0] if matching else len(LONGEST)

    items.sort(key=rank)


def pytest_collection_finish():
    """The garbage collector does not look at a million objects of imported modules again and again."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(100_000, 50, 100)
    gc.enable()


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config, log):
    """A file goes to one process, in the order of collection, and so does each case of the divided one."""
    from xdist.scheduler import LoadScopeScheduling

    class LongestFirst(LoadScopeScheduling):
        def _split_scope(self, nodeid):
            path, _, name = nodeid.partition("::")
            case = re.search(r"\[(.*)\]$", name)
            return f"{path}[{case[1]}]" if path.endswith(DIVIDED) and case else path

    config.option.loadscopereorder = False
    return LongestFirst(config, log)
