"""The train step compiled for 8 virtual CPU devices, and broken ones."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import NamedSharding, PartitionSpec

from configs import cssl, moco_v2, simclr
from ssl_jax import build, parallel
from ssl_jax.data import sources
from ssl_jax.models import chain
from ssl_jax.plan import (
    collectives,
    compile_step,
    cost_analysis,
    hlo,
    memory,
    topologies,
)
from ssl_jax.plan.program import from_json, to_json
from ssl_jax.training import step

CPU8 = topologies.parse("cpu:8")
GRID = collectives.Grid((("data", 8), ("fsdp", 1)), (0,) * 8, "memory")


def small(**changes):
    """A ResNet that compiles in seconds, on images larger than what it makes of them."""
    config = simclr.get_config("digits")
    config.update_from_flattened_dict(
        {"augment.size": 32, "model.width": 0.25, "method.hidden_dim": 32, "method.output_dim": 16}
    )
    config.update_from_flattened_dict(changes)
    return config


def program(config):
    return compile_step.program(config, CPU8, images=1297, classes=10)


@pytest.fixture(scope="module")
def good():
    return program(small())


def test_work_divides_and_nothing_is_repeated(good):
    # The loss visits a little more than half of the pairs of tiles, one device exactly half.
    assert good.flops == pytest.approx(good.even_flops, rel=0.01)
    assert good.replicated == ()
    assert good.mesh == (("data", 8), ("fsdp", 1))
    assert from_json(to_json(good)) == good


def test_memory_adds_up(good):
    state = training_state()
    size = {
        name: sum(x.size * x.dtype.itemsize for x in jax.tree.leaves(tree))
        for name, tree in vars(state).items()
    }
    found = good.memory
    assert found.parameters == size["params"]
    assert found.optimizer == size["opt_state"]
    assert found.extra == size["extra"] + size["probe"] + 4
    assert found.batch == 16 * (2 * 32 * 32 * 3 * 4 + 4 + 4)  # 16 images a device, two views
    parts = sum(getattr(found, name) for name in found._fields[:7])
    assert found.total == parts
    assert found.headroom == found.limit - found.total


def test_gradients_are_summed_and_embeddings_gathered(good):
    found = {(fact.kind, fact.bytes) for fact in good.collectives}
    assert all(fact.network == "memory" for fact in good.collectives)
    sums = sum(fact.bytes * fact.count for fact in good.collectives if fact.kind == "all-reduce")
    assert good.memory.parameters <= sums < good.memory.parameters * 1.2  # and BatchNorm's
    assert ("all-gather", 256 * 16 * 4) in found  # 256 projections of width 16


def concatenated(self, params, stats, images, *, upto=None, apart=False):
    """`Chain.__call__` with all first views before all second ones."""
    del apart
    x = jnp.concatenate([images[:, 0], images[:, 1]])
    outputs, new = {}, {}
    for name in self._upto(upto):
        module = chain._with(self._modules[name], {"bn_group": 0, "bn_views": 1})
        variables = {"params": params[name], "batch_stats": stats[name]}
        x, updated = module.apply(variables, x, True, mutable=["batch_stats"])
        outputs[name] = jnp.stack(jnp.split(x, 2), axis=1)
        new[name] = updated.get("batch_stats", {})
    return outputs, new


def test_views_that_are_concatenated_are_found_by_name(monkeypatch):
    monkeypatch.setattr(chain.Chain, "__call__", concatenated)
    found = program(small()).replicated
    assert found
    worst = found[0]
    assert worst.name.endswith("jvp()/concatenate")
    assert worst.source.startswith("test_compile_step.py:")
    assert worst.bytes >= 16 * 32 * 32 * 3 * 4  # one view of every image of a device


def everywhere(tree):
    """Whole on every device."""
    mesh = jax.sharding.get_abstract_mesh()
    if mesh.empty:  # only shapes are asked for
        return tree
    return jax.lax.with_sharding_constraint(tree, NamedSharding(mesh, PartitionSpec()))


def test_work_that_every_device_repeats_is_found_by_name(monkeypatch):
    divided = chain.Chain.__call__

    def whole(self, params, stats, images, **options):
        outputs, new = divided(self, params, stats, everywhere(images), **options)
        return everywhere(outputs), new

    monkeypatch.setattr(chain.Chain, "__call__", whole)
    found = program(small())
    assert found.flops > 7 * found.even_flops
    repeated = [one for one in found.replicated if one.flops]
    assert "conv" in repeated[0].name
    # Of a gradient the shape is the kernel's; others have the rows of both views of all images.
    assert any(one.shape.startswith("f32[256,") for one in repeated)


@pytest.mark.slow
def test_shuffled_keys_stay_divided():
    """MoCo's groups span devices here; its momentum encoder must not work on whole blocks."""
    config = moco_v2.get_config("cifar10_cpu")
    found = compile_step.program(config, CPU8, images=50_000, classes=10)
    assert config.method.shuffle_groups * config.model.bn_group // 2 > 128 // 8
    assert found.flops == pytest.approx(found.even_flops, rel=0.01)
    assert found.replicated == ()


@pytest.mark.slow
def test_what_cssl_draws_is_judged_by_rows():
    found = compile_step.program(cssl.get_config("cifar10_cpu"), CPU8, images=50_000, classes=10)
    assert found.replicated == ()


@pytest.mark.slow
def test_fsdp_divides_parameters_and_gathers_them(good):
    found = program(small(**{"parallel.fsdp": 4}))
    assert found.mesh == (("data", 2), ("fsdp", 4))
    assert found.replicated == ()
    assert found.memory.parameters < good.memory.parameters / 2.5  # small ones are not divided
    gathered = [f for f in found.collectives if (f.kind, f.axis) == ("all-gather", "fsdp")]
    # A device has a quarter of those that are divided, and the whole of the others.
    divided = (good.memory.parameters - found.memory.parameters) * 4 // 3
    assert sum(fact.bytes * fact.count for fact in gathered) == divided


def compiled(function, *shapes):
    """(its program, what it exchanges) over the rows of 8 devices."""
    mesh = parallel.make_mesh(jax.devices())
    rows = parallel.rows(mesh)
    arguments = [jax.ShapeDtypeStruct(shape, jnp.float32, sharding=rows) for shape in shapes]
    mapped = jax.shard_map(
        function, mesh=mesh, in_specs=rows.spec, out_specs=PartitionSpec(), check_vma=False
    )
    module = hlo.Module(jax.jit(mapped).lower(*arguments).compile().as_text())
    return module, [found.fact for found in collectives.exchanges(module, GRID)]


def test_a_sum_over_devices_has_its_size():
    _, (fact,) = compiled(lambda x: jax.lax.psum(x, parallel.ROWS), (8 * 3, 7))
    assert (fact.kind, fact.bytes, fact.count) == ("all-reduce", 3 * 7 * 4, 1)
    assert (fact.group, fact.axis) == (8, "data")


def test_a_gather_in_a_scan_counts_as_often_as_it_runs():
    def step(x, _):
        everything = jax.lax.all_gather(x, parallel.ROWS, tiled=True)
        return jnp.tanh(x @ everything.T @ everything), None

    module, (fact,) = compiled(lambda x: jax.lax.scan(step, x, length=5)[0], (8 * 2, 3))
    assert (fact.kind, fact.bytes, fact.count) == ("all-gather", 16 * 3 * 4, 5)
    # Two products a step, [2, 3] with [3, 16] and [2, 16] with [16, 3].
    assert cost_analysis.total(cost_analysis.products(module)) == 5 * 2 * (2 * 2 * 3 * 16)


def test_convolutions_count_as_xla_counts_them():
    def loss(x, kernel):
        y = jax.lax.conv_general_dilated(
            x, kernel, (2, 2), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC")
        )
        return (y**2).sum()

    shapes = [jax.ShapeDtypeStruct(s, jnp.float32) for s in ((4, 9, 9, 8), (3, 3, 8, 16))]
    lowered = jax.jit(jax.grad(loss, argnums=(0, 1))).lower(*shapes)
    ours = cost_analysis.total(
        cost_analysis.products(hlo.Module(lowered.as_text("hlo", debug_info=True)))
    )
    # What XLA adds is elementwise: less than two operations for each output.
    assert 0 <= lowered.cost_analysis()["flops"] - ours <= 3 * 4 * 5 * 5 * 16


@pytest.mark.parametrize("placement", ["host", "device"])
def test_the_planned_batch_is_what_the_pipeline_brings(placement):
    config = small(**{"augment.placement": placement, "train.batch_size": 16})
    mesh = parallel.make_mesh(jax.devices())
    source = sources.get("digits", data_dir="", split="train")
    batch = next(build.train_batches(config, source, start_step=0, num_steps=1))
    found = {
        name: (x.shape, x.dtype, x.sharding) for name, x in parallel.to_global(batch, mesh).items()
    }
    planned = build.abstract_batch(config, mesh)
    assert found == {name: (x.shape, x.dtype, x.sharding) for name, x in planned.items()}
    assert isinstance(next(iter(batch.values())), np.ndarray)


def training_state():
    mesh = parallel.make_mesh(jax.devices())
    training = build.training(small(), mesh, images=1297, classes=10)
    return step.abstract_state(training.init, training.method, mesh)


def test_a_refusal_for_lack_of_memory_is_read():
    message = (
        "RESOURCE_EXHAUSTED: E1000: CompileTimeHbmOom: Ran out of memory on HBM, the total memory "
        "required for HLO temporaries (770.00G) exceeds available HBM (15.75G). HLO module: f."
    )
    state = training_state()
    found = memory.refused(state, {}, message, 16 * 2**30)
    assert (found.total, found.limit) == (770 * 2**30, 16 * 2**30)
    assert found.headroom < 0
    assert found.activations + sum(memory.arguments(state, {}).values()) == found.total
