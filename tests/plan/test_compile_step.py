"""The train step compiled for 8 virtual CPU devices, and broken steps that a plan must reject."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import NamedSharding, PartitionSpec

from configs import cssl, moco_v2, simclr
from ssl_jax import build, components, parallel
from ssl_jax.data import sources
from ssl_jax.models import chain
from ssl_jax.plan import collectives, compile_step, cost_analysis, hlo, memory, topologies
from ssl_jax.plan.program import program_from_json, program_to_json

CPU8 = topologies.parse("cpu:8")
GRID = collectives.Grid((("data", 8), ("fsdp", 1)), (0,) * 8, "memory")


def small_config(**changes):
    """Returns a ResNet that compiles in seconds; its images are larger than its outputs."""
    config = simclr.get_config("digits")
    config.update_from_flattened_dict(
        {"augment.size": 32, "model.width": 0.25, "method.hidden_dim": 32, "method.output_dim": 16}
    )
    config.update_from_flattened_dict(changes)
    return config


def compile_small(**changes):
    config = small_config(**changes)
    return compile_step.compile_program(config, CPU8, images=1297, classes=10)


@pytest.fixture(scope="module")
def good():
    return compile_small()


def test_correct_step_divides_its_work_and_repeats_nothing(good):
    # The sharded loss visits slightly more than half of the tile pairs; one device visits half.
    assert good.flops == pytest.approx(good.even_flops, rel=0.01)
    assert good.replicated == ()
    assert good.mesh == (("data", 8), ("fsdp", 1))
    assert program_from_json(program_to_json(good)) == good


def test_needparts_add_up_to_the_total(good):
    state = abstract_training_state()
    size = {
        name: sum(x.size * x.dtype.itemsize for x in jax.tree.leaves(tree))
        for name, tree in vars(state).items()
    }
    need = good.memory
    assert need.parameters == size["params"]
    assert need.optimizer == size["opt_state"]
    assert need.extra == size["extra"] + size["probe"] + 4
    # 16 images per device, each with two views, a label and an index.
    assert need.batch == 16 * (2 * 32 * 32 * 3 * 4 + 4 + 4)
    parts = sum(getattr(need, name) for name in need._fields[:7])
    assert need.total == parts
    assert need.headroom == need.limit - need.total


def test_gradients_are_summed_and_embeddings_gathered(good):
    assert all(c.network == "memory" for c in good.collectives)
    summed = sum(c.bytes * c.count for c in good.collectives if c.kind == "all-reduce")
    # Gradients, and BatchNorm's statistics.
    assert good.memory.parameters <= summed < good.memory.parameters * 1.2
    # 256 projections of width 16.
    assert ("all-gather", 256 * 16 * 4) in {(c.kind, c.bytes) for c in good.collectives}


def concatenated(self, params, stats, images, *, upto=None, apart=False, keys=None):
    """A `Chain.__call__` that concatenates all first views and all second views."""
    del apart, keys
    x = jnp.concatenate([images[:, 0], images[:, 1]])
    outputs, new = {}, {}
    for name in self._names_upto(upto):
        module = chain._with_fields(self._modules[name], {"bn_group": 0, "bn_views": 1})
        variables = {"params": params[name], "batch_stats": stats[name]}
        x, updated = module.apply(variables, x, True, mutable=["batch_stats"])
        outputs[name] = jnp.stack(jnp.split(x, 2), axis=1)
        new[name] = updated.get("batch_stats", {})
    return outputs, new


def test_concatenated_views_are_reported_by_name(monkeypatch):
    monkeypatch.setattr(chain.Chain, "__call__", concatenated)
    replicated = compile_small().replicated
    assert replicated
    worst = replicated[0]
    assert worst.name.endswith("jvp()/concatenate")
    assert worst.source.startswith("test_compile_step.py:")
    assert worst.bytes >= 16 * 32 * 32 * 3 * 4  # one view of each image of a device


def replicate(tree):
    """Constrains arrays to be whole on every device."""
    mesh = jax.sharding.get_abstract_mesh()
    if mesh.empty:  # called for shapes only
        return tree
    return jax.lax.with_sharding_constraint(tree, NamedSharding(mesh, PartitionSpec()))


def test_repeated_work_is_reported_by_name(monkeypatch):
    original = chain.Chain.__call__

    def replicated_call(self, params, stats, images, **options):
        outputs, new = original(self, params, stats, replicate(images), **options)
        return replicate(outputs), new

    monkeypatch.setattr(chain.Chain, "__call__", replicated_call)
    program = compile_small()
    assert program.flops > 7 * program.even_flops
    repeated = [work for work in program.replicated if work.flops]
    assert "conv" in repeated[0].name
    # Gradients have the kernel's shape; other results have a row per view of every image.
    assert any(work.shape.startswith("f32[256,") for work in repeated)


@pytest.mark.slow
def test_moco_shuffling_does_not_repeat_work():
    """BatchNorm groups span devices here; the momentum encoder must not encode whole groups."""
    config = moco_v2.get_config("cifar10_cpu")
    program = compile_step.compile_program(config, CPU8, images=50_000, classes=10)
    assert config.method.shuffle_groups * config.model.bn_group // 2 > 128 // 8
    assert program.flops == pytest.approx(program.even_flops, rel=0.01)
    assert program.replicated == ()


@pytest.mark.slow
def test_cssl_reports_no_replicated_work():
    config = cssl.get_config("cifar10_cpu")
    program = compile_step.compile_program(config, CPU8, images=50_000, classes=10)
    assert program.replicated == ()


@pytest.mark.slow
def test_fsdp_shards_parameters_and_gathers_them(good):
    program = compile_small(**{"parallel.fsdp": 4})
    assert program.mesh == (("data", 2), ("fsdp", 4))
    assert program.replicated == ()
    # Small parameters are not sharded.
    assert program.memory.parameters < good.memory.parameters / 2.5
    gathered = [c for c in program.collectives if (c.kind, c.axis) == ("all-gather", "fsdp")]
    # A device holds a quarter of the sharded parameters and the whole of the others.
    sharded = (good.memory.parameters - program.memory.parameters) * 4 // 3
    assert sum(c.bytes * c.count for c in gathered) == sharded


def compile_sharded(function, *shapes):
    """Returns the HLO module of a function over rows of 8 devices, and its collectives."""
    mesh = parallel.make_mesh(jax.devices())
    rows = parallel.rows(mesh)
    arguments = [jax.ShapeDtypeStruct(shape, jnp.float32, sharding=rows) for shape in shapes]
    mapped = jax.shard_map(
        function, mesh=mesh, in_specs=rows.spec, out_specs=PartitionSpec(), check_vma=False
    )
    module = hlo.Module(jax.jit(mapped).lower(*arguments).compile().as_text())
    instructions = collectives.find_collectives(module, GRID)
    return module, [instruction.collective for instruction in instructions]


def test_sum_over_devices_is_an_all_reduce_of_its_size():
    _, (collective,) = compile_sharded(lambda x: jax.lax.psum(x, parallel.ROWS), (8 * 3, 7))
    assert (collective.kind, collective.bytes, collective.count) == ("all-reduce", 3 * 7 * 4, 1)
    assert (collective.group, collective.axis) == (8, "data")


def test_collectives_in_a_scan_count_every_iteration():
    def step(x, _):
        everything = jax.lax.all_gather(x, parallel.ROWS, tiled=True)
        return jnp.tanh(x @ everything.T @ everything), None

    def loop(x):
        return jax.lax.scan(step, x, length=5)[0]

    module, (collective,) = compile_sharded(loop, (8 * 2, 3))
    assert (collective.kind, collective.bytes, collective.count) == ("all-gather", 16 * 3 * 4, 5)
    # Two products per step, [2, 3] with [3, 16] and [2, 16] with [16, 3].
    products = cost_analysis.find_products(module)
    assert cost_analysis.total_flops(products) == 5 * 2 * (2 * 2 * 3 * 16)


def test_convolution_flops_equal_xlas_count():
    def loss(x, kernel):
        y = jax.lax.conv_general_dilated(
            x, kernel, (2, 2), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC")
        )
        return (y**2).sum()

    shapes = [jax.ShapeDtypeStruct(s, jnp.float32) for s in ((4, 9, 9, 8), (3, 3, 8, 16))]
    lowered = jax.jit(jax.grad(loss, argnums=(0, 1))).lower(*shapes)
    ours = cost_analysis.total_flops(
        cost_analysis.find_products(hlo.Module(lowered.as_text("hlo", debug_info=True)))
    )
    # XLA also counts elementwise operations: at most three per output.
    assert 0 <= lowered.cost_analysis()["flops"] - ours <= 3 * 4 * 5 * 5 * 16


@pytest.mark.parametrize("placement", ["host", "device"])
def test_planned_batch_equals_the_pipelines_batch(placement):
    config = small_config(**{"augment.placement": placement, "train.batch_size": 16})
    mesh = parallel.make_mesh(jax.devices())
    source = sources.open_source("digits", data_dir="", split="train")
    batch = next(components.train_batches(config, source, start_step=0, num_steps=1))
    actual = {
        name: (x.shape, x.dtype, x.sharding) for name, x in parallel.to_global(batch, mesh).items()
    }
    planned = components.abstract_batch(config, mesh)
    assert actual == {name: (x.shape, x.dtype, x.sharding) for name, x in planned.items()}
    assert isinstance(next(iter(batch.values())), np.ndarray)


def abstract_training_state():
    mesh = parallel.make_mesh(jax.devices())
    return build.computation(small_config(), mesh, examples=1297, classes=10).abstract_state


def test_memory_need_is_read_from_an_out_of_memory_error():
    message = (
        "RESOURCE_EXHAUSTED: E1000: CompileTimeHbmOom: Ran out of memory on HBM, the total memory "
        "required for HLO temporaries (770.00G) exceeds available HBM (15.75G). HLO module: f."
    )
    state = abstract_training_state()
    needed = memory.from_error(state, {}, message, 16 * 2**30)
    assert (needed.total, needed.limit) == (770 * 2**30, 16 * 2**30)
    assert needed.headroom < 0
    assert needed.activations + sum(memory.argument_bytes(state, {}).values()) == needed.total
