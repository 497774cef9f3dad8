"""Contract of every method, tested on the shrunk `:cifar10_cpu` variant of each config.

Tests run in float64, where rounding cannot hide a real difference: few rows share statistics here,
and float32 would leave three digits after normalisation.
"""

import importlib
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny

from ssl_jax import components, methods, parallel, testing
from ssl_jax.plan import cost_analysis
from ssl_jax.plan.hlo import Module

ROOT = pathlib.Path(__file__).resolve().parents[2]
CONFIGS = sorted(path.stem for path in (ROOT / "configs").glob("*.py") if path.stem != "common")
# Variants with another computation than cifar10_cpu.
OTHERS = [
    "simclr:cifar10_cpu_adversarial",
    "denoising:cifar10_cpu_conv",
    "denoising:cifar10_cpu_dense",
    "clip:cifar10_captions_siglip",
    "word2vec:cbow",
    "word2vec:skipgram_hs",
    "word2vec:cbow_hs",
]
# Smallest variants that are not called cifar10_cpu.
SMALL = {"clip": "cifar10_captions", "cpc_audio": "spoken_digit", "word2vec": "bbc"}
WORDS, PASSAGE = 40, 20  # of the text that methods of words train on
LARGEST = 2 * testing.BATCH  # largest width or length
# Smaller limits of single fields: a chunk has 2 groups, and deep networks compile slowly.
LIMITS = {
    **{"shuffle_groups": 2, "directions": 2, "context_depth": 1, "contexts": 2},
    **{"embed_dim": 16, "text_width": 16, "text_depth": 1},
}
# Values of single fields. SGD at 0.1 diverges on a loss of many nats.
OTHER = {"sigma": 1.0, "max_terms": 4.0, "shared_negatives": 8, "normalize_tiles": False}
MICRO = testing.DEVICES * testing.CHUNK
# Largest work of all devices together, relative to one device with the whole batch. A step that
# every device repeats has up to 8. Micro-batches encode each example once more without gradient, up
# to 1.5. Losses of pairs also compute the gradient of keys that are constant, up to 1.46.
MOST_WORK = 1.6


@pytest.fixture(scope="module", autouse=True)
def float64():
    with jax.enable_x64(True):
        yield


def load(name):
    """Returns the config of "NAME", or of "NAME:VARIANT"."""
    module, _, variant = name.partition(":")
    return importlib.import_module(f"configs.{module}").get_config(
        variant or SMALL.get(module, "cifar10_cpu")
    )


def shrunk(seen, size):
    """Shrinks views to `size` pixels a side, local crops to 4, and sound to 64 samples."""
    if len(seen["views"].shape) == 2:
        count, dtype = seen["views"].shape[0], seen["views"].dtype
        return seen | {"views": jax.ShapeDtypeStruct((count, 64), dtype)}
    local = seen["local_views"].shape[0] if "local_views" in seen else 0
    others = {name: one for name, one in seen.items() if "views" not in name}
    return tiny.seen(seen["views"].shape[0], size, local=local, local_size=4) | others


def text():
    """Returns passages of random words with ends of different places, and the words' counts."""
    rng = np.random.Generator(np.random.PCG64(0))
    shape = (testing.BATCH, PASSAGE)
    tokens = np.minimum(rng.geometric(0.08, shape) - 1, WORDS - 1).astype(np.int32)
    tokens[np.arange(PASSAGE) >= rng.integers(0, PASSAGE + 1, (testing.BATCH, 1))] = -1
    examples = {"tokens": tokens, "window": rng.integers(1, 4, shape).astype(np.int32)}
    words = jax.ShapeDtypeStruct((PASSAGE,), jnp.int32)
    counts = np.maximum(np.bincount(tokens[tokens >= 0], minlength=WORDS), 1)
    facts = {"words": np.arange(WORDS).astype(str), "counts": counts}
    arrays, symbols = dict.fromkeys(examples, words), {"window": 4}
    return {"arrays": arrays, "symbols": symbols, "examples": examples, "facts": facts}


def make(name):
    """Returns the config's method with every width and length limited to LARGEST."""
    config = load(name)
    fields = config.method.to_dict()
    method = methods.get(fields.pop("name"))
    if "teacher" in fields:
        fields["teacher"] = tiny.teacher(fields["teacher"])
    if fields.get("features_from") == "":
        fields["features_from"] = None  # as `components.make_method`
    small = {n: min(v, LIMITS.get(n, LARGEST)) if type(v) is int else v for n, v in fields.items()}
    small |= {n: v for n, v in OTHER.items() if n in small}
    # A grid of tiles needs larger views.
    size = 3 * (small["tile_size"] + small["jitter"]) if "tile_size" in small else 8
    example, encoder = components.make_input(config), tiny.encoder(config.model, jnp.float64)
    if config.data.source == "text":
        return testing.Trial(method, encoder, hyperparameters=small, **text())
    arrays = shrunk(example.seen, size)
    return testing.Trial(method, encoder, arrays, small, example.symbols)


@pytest.fixture(scope="module", autouse=True)
def shard_parameters_of_any_size():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("ssl_jax.parallel.mesh.MIN_FSDP_ELEMENTS", 1)
        yield


@pytest.fixture(scope="module", params=[*CONFIGS, *OTHERS])
def case(request):
    return make(request.param)


def test_every_method_has_a_config():
    assert {load(name).method.name for name in CONFIGS} == set(methods.names())


@pytest.mark.parametrize(
    "check",
    [
        testing.check_micro_batches,
        testing.check_labels,
        testing.check_training,
        testing.check_features,
    ],
)
def test_method_keeps_the_contract(case, check):
    check(case)


def test_resuming_reproduces_the_same_bits(case):
    resumed = case.train(testing.STEPS - 1, state=case.first[0])
    for x, y in zip(jax.tree.leaves(case.whole), jax.tree.leaves(resumed), strict=True):
        np.testing.assert_array_equal(x, y)


def work(case, devices, microbatch=0):
    """FLOPs of matrix products and convolutions on all devices, if each works like the first."""
    text = case.program(devices, microbatch)[2].as_text()
    return devices * cost_analysis.total_flops(cost_analysis.find_products(Module(text)))


@pytest.mark.parametrize("microbatch", [MICRO, pytest.param(0, marks=pytest.mark.slow)])
def test_devices_divide_the_work(case, microbatch):
    assert 0 < work(case, 8, microbatch) <= MOST_WORK * work(case, 1)


@pytest.mark.parametrize("microbatch", [MICRO, 0])
def test_a_step_that_devices_repeat_is_noticed(microbatch):
    case = make("barlow_twins")
    encode = case.method.encode

    def whole(tree):
        mesh = jax.sharding.get_abstract_mesh()
        if mesh.empty:  # only shapes are computed
            return tree
        return jax.lax.with_sharding_constraint(tree, parallel.replicated(mesh))

    def repeated(params, extra, batch, key):
        return whole(encode(params, extra, whole(batch), key))

    case.method = case.method._replace(encode=repeated)
    assert work(case, 8, microbatch) > MOST_WORK * work(case, 1)


def test_encoder_module_computes_the_features(case):
    state, images = case.whole[0], case.images
    params, stats = case.method.modules(state.params, state.extra)
    variables = {"params": params["encoder"], "batch_stats": stats.get("encoder", {})}
    features = jnp.asarray(case.encoder.apply(variables, images, False), jnp.float32)
    np.testing.assert_array_equal(features, case.method.features(state.params, state.extra, images))


def test_unknown_method_lists_all_methods():
    with pytest.raises(ValueError, match="simclr"):
        methods.get("simcrl")
