"""Memory traffic of hand-written programs, with every sum worked by hand, and of compiled ones."""

import importlib.util
import pathlib
import subprocess
import sys
import textwrap

import jax
import jax.numpy as jnp
import pytest

from ssl_jax.plan import hlo, memory_traffic, topologies
from ssl_jax.plan.compile_in_subprocess import environment

ROOT = pathlib.Path(__file__).resolve().parent.parent.parent
# f32[16,128] fills two tiles of 8 x 128: 8,192 bytes. f32[8,128] fills one.
BIG, SMALL = 8192, 4096
TILE = "{1,0:T(8,128)}"
VMEM = "{1,0:T(8,128)S(1)}"


def moved(main, *callees, fast_memory=True):
    """Returns the bytes that a program moves; `main` and the callees are computations' lines."""
    text = "HloModule jit_f, is_scheduled=true\n"
    for name, lines in (*callees, ("ENTRY", main)):
        head = "ENTRY %main" if name == "ENTRY" else f"%{name}"
        body = textwrap.indent(textwrap.dedent(lines), "  ")
        text += f"\n{head} (p: f32[]) -> f32[] {{\n{body}\n}}\n"
    for name, layout in (("@", TILE), ("!", VMEM)):  # f32[8,128]@ is in HBM, f32[8,128]! in VMEM
        text = text.replace(f"]{name}", f"]{layout}")
    return memory_traffic.total_bytes(hlo.Module(text), fast_memory=fast_memory)


@pytest.mark.parametrize(
    ("array", "padded"),
    [
        ("f32[8,128]{1,0:T(8,128)}", 8 * 128 * 4),
        ("f32[9,129]{1,0:T(8,128)}", 16 * 256 * 4),
        ("bf16[100,64]{1,0:T(8,128)(2,1)}", 104 * 128 * 2),
        # From the fastest dimension: 3 becomes 128, 7 becomes 8, 5 stays.
        ("f32[3,5,7]{0,2,1:T(8,128)S(1)}", 5 * 8 * 128 * 4),
        ("bf16[1,128]{1,0:T(1,128)(2,1)}", 2 * 128 * 2),  # the second tile pads, too
        ("pred[7]{0:T(512)(128)(4,1)}", 512),
        ("s32[]{:T(128)}", 512),
        ("f32[5,7]{1,0}", 5 * 7 * 4),
        ("u32[]{:S(2)}", 4),
    ],
)
def test_padded_bytes_of_a_layout(array, padded):
    assert hlo.parse_arrays(array)[0].padded_bytes == padded


def test_operation_reads_operands_and_writes_its_result():
    main = """\
        %x = f32[16,128]@ parameter(0)
        ROOT %y = f32[16,128]@ add(%x, %x)"""
    assert moved(main) == 3 * BIG
    padded = main.replace("16,128", "9,100")
    assert moved(padded) == 3 * BIG
    assert moved(padded, fast_memory=False) == 3 * 9 * 100 * 4


def test_arrays_in_fast_memory_are_free():
    main = """\
        %x = f32[16,128]@ parameter(0)
        %y = f32[16,128]! add(%x, %x)
        %z = f32[16,128]! multiply(%y, %y)
        %s = s32[]{:T(128)S(6)} constant(1)
        ROOT %w = f32[16,128]@ subtract(%z, %s)"""
    assert moved(main) == 2 * BIG + BIG
    # Layouts of CMEM, which only v4 has, say S(3).
    assert moved(main.replace("%y = f32[16,128]!", "%y = f32[16,128]{1,0:T(8,128)S(3)}")) == 3 * BIG
    # A GPU or CPU has no such memory; only scalars stay in registers.
    assert moved(main, fast_memory=False) == 3 * BIG + 3 * BIG + 2 * BIG


def test_prefetch_counts_what_it_copies():
    """XLA charges the slice with 8,192 bytes of its operand and each end of a copy again."""
    main = """\
        %x = f32[16,128]@ parameter(0)
        %s = ((f32[16,128]@), f32[8,128]!, s32[]{:S(2)}) slice-start(%x), slice={[0:8], [0:128]}
        %c = (f32[16,128]!, f32[16,128]@, u32[]{:S(2)}) copy-start(%x)
        %t = f32[8,128]! slice-done(%s)
        %d = f32[16,128]! copy-done(%c)
        %b = f32[24,128]! custom-call(%t, %d), custom_call_target="ConcatBitcast"
        %e = (f32[24,128]@, f32[24,128]!, u32[]{:S(2)}) copy-start(%b)
        ROOT %f = f32[24,128]@ copy-done(%e)"""
    assert moved(main) == SMALL + BIG + (SMALL + BIG)
    assert moved(main, fast_memory=False) == 0
    assert (
        moved(main.replace("f32[16,128]!, f32[16", "f32[16,128]@, f32[16"))
        == 2 * (SMALL + BIG) + BIG
    )


def test_transposing_copy_exists_without_fast_memory():
    main = """\
        %x = f32[128,128]@ parameter(0)
        ROOT %y = f32[128,128]{0,1:T(8,128)S(1)} copy(%x)"""
    assert moved(main) == 128 * 128 * 4
    assert moved(main, fast_memory=False) == 2 * 128 * 128 * 4


def test_names_of_memory_are_free():
    main = """\
        %x = f32[16,128]@ parameter(0)
        %c = f32[8,128]@ constant({...})
        %a = f32[16,128]@ custom-call(), custom_call_target="AllocateBuffer"
        %b = f32[8,256]@ bitcast(%x)
        %t = (f32[16,128]@, f32[8,256]@) tuple(%a, %b)
        ROOT %g = f32[16,128]@ get-tuple-element(%t), index=0"""
    assert moved(main) == 0


def test_fusion_moves_operands_and_results_only():
    fused = """\
        %p = f32[16,128]@ parameter(0)
        %q = f32[8,128]@ parameter(1)
        %a = f32[16,128]@ multiply(%p, %p)
        %b = f32[8,128]@ tanh(%q)
        ROOT %t = (f32[16,128]@, f32[8,128]!) tuple(%a, %b)"""
    main = """\
        %x = f32[16,128]@ parameter(0)
        %y = f32[8,128]! parameter(1)
        ROOT %f = (f32[16,128]@, f32[8,128]!) fusion(%x, %y), kind=kLoop, calls=%fused"""
    assert moved(main, ("fused", fused)) == 2 * BIG
    assert moved(main, ("fused", fused), fast_memory=False) == 2 * BIG + 2 * SMALL


def test_fusion_reads_the_slices_that_it_takes():
    inner = """\
        %r = f32[800,128]@ parameter(0)
        ROOT %b = f32[16,128]@ slice(%r), slice={[0:16], [0:128]}"""
    fused = """\
        %p = f32[800,128]@ parameter(0)
        %i = s32[] parameter(1)
        %zero = s32[] constant(0)
        %v = f32[800,128]@ bitcast(%p)
        %a = f32[8,128]@ dynamic-slice(%v, %i, %zero), dynamic_slice_sizes={8,128}
        %n = f32[16,128]@ fusion(%p), kind=kLoop, calls=%inner
        ROOT %s = f32[24,128]@ concatenate(%a, %n), dimensions={0}"""
    main = """\
        %x = f32[800,128]@ parameter(0)
        %i = s32[]{:S(6)} parameter(1)
        ROOT %f = f32[24,128]@ fusion(%x, %i), kind=kLoop, calls=%fused"""
    computations = ("inner", inner), ("fused", fused)
    assert moved(main, *computations) == (SMALL + BIG) + (SMALL + BIG)
    assert moved(main.replace("f32[800,128]@", "f32[800,128]!"), *computations) == SMALL + BIG
    whole = fused.replace("bitcast(%p)", "exponential(%p)")
    assert moved(main, ("inner", inner), ("fused", whole)) == 50 * BIG + (SMALL + BIG)


def test_fusion_reads_an_operand_that_another_fusion_only_renames():
    """libtpu passes the operands of a convolution through such fusions."""
    renamed = "%r = f32[16,128]@ parameter(0)\nROOT %b = f32[16,128]@ bitcast(%r)"
    fused = """\
        %p = f32[16,128]@ parameter(0)
        %f = f32[16,128]@ fusion(%p), kind=kLoop, calls=%renamed
        ROOT %y = f32[16,128]@ multiply(%f, %f)"""
    main = """\
        %x = f32[16,128]@ parameter(0)
        ROOT %f = f32[16,128]! fusion(%x), kind=kOutput, calls=%fused"""
    assert moved(main, ("renamed", renamed), ("fused", fused)) == BIG


def test_fusion_updates_its_operand_in_place():
    fused = """\
        %p = f32[800,128]@ parameter(0)
        %u = f32[8,128]@ parameter(1)
        %i = s32[] constant(0)
        %v = f32[800,128]@ bitcast(%p)
        %d = f32[800,128]@ dynamic-update-slice(%v, %u, %i, %i)
        ROOT %b = f32[800,128]@ bitcast(%d)"""
    main = """\
        %x = f32[800,128]@ parameter(0)
        %u = f32[8,128]@ parameter(1)
        ROOT %f = f32[800,128]@ fusion(%x, %u), kind=kLoop, calls=%fused"""
    assert moved(main, ("fused", fused)) == 2 * SMALL
    # An update of a new array writes all of it.
    new = fused.replace("f32[800,128]@ bitcast(%p)", "f32[800,128]@ broadcast(%i), dimensions={}")
    assert moved(main, ("fused", new)) == 50 * BIG + SMALL
    rows = """\
        %p = f32[800,128]@ parameter(0)
        %u = f32[8,128]@ parameter(1)
        %i = s32[8] constant({...})
        ROOT %d = f32[800,128]@ scatter(%p, %i, %u), to_apply=%max"""
    assert moved(main, ("fused", rows)) == SMALL + 2 * SMALL


def test_slices_and_updates_outside_fusions():
    main = """\
        %x = f32[800,128]@ parameter(0)
        %u = f32[8,128]@ parameter(1)
        %i = s32[]{:S(6)} constant(0)
        %n = s32[8]{0:T(128)} constant({...})
        %a = f32[8,128]@ dynamic-slice(%x, %i, %i), dynamic_slice_sizes={8,128}
        %g = f32[8,128]@ gather(%x, %n), slice_sizes={1,128}
        %d = f32[800,128]@ dynamic-update-slice(%x, %u, %i, %i)
        ROOT %s = f32[800,128]@ scatter(%d, %n, %u), to_apply=%max"""
    sliced, gathered, updated = 2 * SMALL, 2 * SMALL + 512, 2 * SMALL
    scattered = SMALL + 512 + 2 * SMALL
    assert moved(main) == sliced + gathered + updated + scattered


def test_loop_counts_every_iteration_and_conditional_its_largest_branch():
    body = """\
        %t = (s32[]{:T(128)}, f32[16,128]@) parameter(0)
        %i = s32[]{:S(6)} get-tuple-element(%t), index=0
        %x = f32[16,128]@ get-tuple-element(%t), index=1
        %y = f32[16,128]@ conditional(%i, %x, %x), branch_computations={%small, %large}
        ROOT %r = (s32[]{:T(128)}, f32[16,128]@) tuple(%i, %y)"""
    small = "%p = f32[16,128]@ parameter(0)\nROOT %y = f32[16,128]@ iota(), iota_dimension=0"
    large = "%p = f32[16,128]@ parameter(0)\nROOT %y = f32[16,128]@ tanh(%p)"
    stop = """\
        %t = (s32[]{:T(128)}, f32[16,128]@) parameter(0)
        %i = s32[]{:S(6)} get-tuple-element(%t), index=0
        %n = s32[]{:S(6)} constant(7)
        ROOT %c = pred[]{:S(6)} compare(%i, %n), direction=LT"""
    main = """\
        %z = s32[]{:T(128)} constant(0)
        %x = f32[16,128]@ parameter(0)
        %t = (s32[]{:T(128)}, f32[16,128]@) tuple(%z, %x)
        ROOT %w = (s32[]{:T(128)}, f32[16,128]@) while(%t), condition=%stop, body=%body"""
    computations = ("small", small), ("large", large), ("body", body), ("stop", stop)
    assert moved(main, *computations) == 7 * 2 * BIG


def test_called_and_asynchronous_computations_count_once():
    callee = "%p = f32[16,128]@ parameter(0)\nROOT %y = f32[16,128]! tanh(%p)"
    main = """\
        %x = f32[16,128]@ parameter(0)
        %c = f32[16,128]! call(%x), to_apply=%callee
        %s = ((f32[16,128]@), f32[16,128]!, s32[]{:S(2)}) async-start(%x), calls=%callee
        ROOT %d = f32[16,128]! async-done(%s), calls=%callee"""
    assert moved(main, ("callee", callee)) == 2 * BIG


def test_collectives_read_operands_and_write_results():
    main = """\
        %x = f32[8,128]@ parameter(0)
        %v = f32[8,128]! parameter(1)
        %a = f32[8,128]@ all-reduce(%x), replica_groups={}, to_apply=%max
        %r = f32[8,128]@ all-reduce-start(%x), replica_groups={}, to_apply=%max
        %r.1 = f32[8,128]@ all-reduce-done(%r)
        %g = (f32[8,128]!, f32[16,128]@) all-gather-start(%v), replica_groups={}, dimensions={0}
        %g.1 = f32[16,128]@ all-gather-done(%g)
        %p = (f32[8,128]@, f32[8,128]!, u32[]{:S(2)}) collective-permute-start(%x), channel_id=1
        %p.1 = f32[8,128]! collective-permute-done(%p)
        %k = token[] after-all()
        %s = (f32[8,128]@, u32[]{:S(2)}, token[]) send(%x, %k), channel_id=2
        %s.1 = token[] send-done(%s)
        %q = (f32[8,128]@, u32[]{:S(2)}, token[]) recv(%k), channel_id=3
        ROOT %q.1 = (f32[8,128]@, token[]) recv-done(%q)"""
    assert moved(main) == 2 * SMALL + 2 * SMALL + BIG + SMALL + SMALL + SMALL


def test_collective_in_a_chain_of_fusions_counts_once():
    """The second fusion multiplies while the collective runs; the third ends it."""
    first = """\
        %p = f32[8,128]@ parameter(0)
        %g = f32[16,128]@ all-gather(%p), replica_groups={}, frontend_attributes={chain_id="0"}
        ROOT %c = (f32[8,128]@, f32[16,128]@, u32[]{:S(2)}) custom-call(%g), custom_call_target="AsyncCollectiveStart"
        """  # noqa: E501
    second = """\
        %p = f32[8,128]@ parameter(0)
        %q = f32[16,128]@ parameter(1)
        %w = f32[8,128]@ parameter(2)
        %m = f32[8,128]@ multiply(%w, %w)
        %g = f32[16,128]@ all-gather(%p), replica_groups={}, frontend_attributes={chain_id="0"}
        ROOT %t = (f32[8,128]@, f32[8,128]@, f32[16,128]@) tuple(%m, %p, %g)"""
    third = """\
        %p = f32[8,128]@ parameter(0)
        %q = f32[16,128]@ parameter(1)
        %g = f32[16,128]@ all-gather(%p), replica_groups={}, frontend_attributes={chain_id="0"}
        ROOT %c = f32[16,128]@ custom-call(%p, %q, %g), custom_call_target="AsyncCollectiveDone"
        """
    main = """\
        %x = f32[8,128]@ parameter(0)
        %w = f32[8,128]@ parameter(1)
        %f = (f32[8,128]@, f32[16,128]@, u32[]{:S(2)}) fusion(%x), kind=kCustom, output_to_operand_aliasing={{0}: (0, {})}, calls=%first
        %a = f32[8,128]@ get-tuple-element(%f), index=0
        %b = f32[16,128]@ get-tuple-element(%f), index=1
        %s = (f32[8,128]@, f32[8,128]@, f32[16,128]@) fusion(%a, %b, %w), kind=kOutput, output_to_operand_aliasing={{1}: (0, {}), {2}: (1, {})}, calls=%second
        %c = f32[8,128]@ get-tuple-element(%s), index=1
        %d = f32[16,128]@ get-tuple-element(%s), index=2
        ROOT %t = f32[16,128]@ fusion(%c, %d), kind=kCustom, output_to_operand_aliasing={{}: (1, {})}, calls=%third
        """  # noqa: E501
    computations = ("first", first), ("second", second), ("third", third)
    assert moved(main, *computations) == (SMALL + BIG) + 2 * SMALL


def test_cpu_program_without_loops_equals_xlas_count():
    def function(x, y):
        return jnp.tanh(x @ y) + x[:, :16]

    shapes = [jax.ShapeDtypeStruct(shape, jnp.float32) for shape in ((64, 32), (32, 16))]
    compiled = jax.jit(function).lower(*shapes).compile()
    ours = memory_traffic.total_bytes(hlo.Module(compiled.as_text()), fast_memory=False)
    assert ours == compiled.cost_analysis()["bytes accessed"]


TPU_PROGRAMS = """
import jax, jax.numpy as jnp
from jax.experimental import topologies
from ssl_jax.plan import hlo, memory_traffic
device = topologies.get_topology_desc(platform="tpu", topology_name="v5e:2x2").devices[0]

def moved(function, *shapes, dtype=jnp.float32, donate=()):
    place = jax.sharding.SingleDeviceSharding(device)
    arguments = [jax.ShapeDtypeStruct(shape, dtype, sharding=place) for shape in shapes]
    compiled = jax.jit(function, donate_argnums=donate).lower(*arguments).compile()
    ours = memory_traffic.total_bytes(hlo.Module(compiled.as_text()), fast_memory=True)
    return ours, compiled.cost_analysis()["bytes accessed"]

def layers(x, w):
    return jax.lax.scan(lambda x, w: (jnp.tanh(x @ w), None), x, w)[0]

def update(x, u):
    return jax.lax.dynamic_update_slice(x, u, (3, 0))

print(*moved(lambda x, y: x + y, (4096, 4096), (4096, 4096)))
print(*moved(lambda x, y: x @ y, (4096, 1000), (1000, 2048), dtype=jnp.bfloat16))
print(*moved(layers, (1024, 1024), (7, 1024, 1024)))
print(*moved(update, (65536, 1024), (16, 1024), donate=(0,)))
"""


@pytest.mark.slow
@pytest.mark.skipif(not importlib.util.find_spec("libtpu"), reason="pip install libtpu")
def test_programs_compiled_for_a_tpu():
    result = subprocess.run(
        [sys.executable, "-c", TPU_PROGRAMS],
        cwd=ROOT,
        env=environment(topologies.parse("v5e:2x2")),
        capture_output=True,
        text=True,
    )
    assert not result.returncode, result.stderr
    lines = [line.split() for line in result.stdout.splitlines()]
    (added, xla_added), (product, _), (scanned, xla_scanned), (updated, _) = (
        (int(ours), float(xlas)) for ours, xlas in lines
    )
    assert added == xla_added == 3 * 4096 * 4096 * 4
    # libtpu stores the transpose of the first matrix: 1000 rows fill whole tiles, without padding.
    assert product == 2 * (1000 * 4096 + 1000 * 2048 + 4096 * 2048)
    # All layers fit in fast memory: x and the weights are read once, and the result is written.
    assert scanned == pytest.approx(4 * 1024 * 1024 * (1 + 7 + 1), rel=1e-3)
    assert xla_scanned > 1.5 * scanned
    # Only the 16 rows move, although the array has 65,536.
    assert updated == pytest.approx(2 * 16 * 1024 * 4, rel=0.05)
