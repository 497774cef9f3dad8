"""HLO parsing, FLOPs and collectives of hand-written programs."""

import textwrap

import pytest

from ssl_jax.plan import collectives, cost_analysis, hlo
from ssl_jax.plan.collectives import Grid
from ssl_jax.plan.program import Collective

LOOP = textwrap.dedent("""\
    HloModule jit_step, num_partitions=8, entry_computation_layout={(f32[8,4]{1,0})->f32[8,4]{1,0}}

    FileNames
    1 "/usr/lib/jax/pjit.py"
    2 "/home/me/ssl_jax/losses/pairs.py"

    FunctionNames
    1 "f"

    FileLocations
    1 {file_name_id=2 function_name_id=1 line=151 end_line=151 column=1 end_column=2}
    2 {file_name_id=1 function_name_id=1 line=9 end_line=9 column=1 end_column=2}

    StackFrames
    1 {file_location_id=1 parent_frame_id=1}
    2 {file_location_id=2 parent_frame_id=1}


    %sum (a: f32[], b: f32[]) -> f32[] {
      %a = f32[] parameter(0)
      %b = f32[] parameter(1)
      ROOT %add = f32[] add(%a, %b)
    }

    %fused (p: f32[8,4], q: f32[4,4]) -> f32[8,4] {
      %p = f32[8,4]{1,0:T(8,128)} parameter(0)
      %q = f32[4,4]{1,0} parameter(1)
      ROOT %dot.1 = f32[8,4]{1,0} dot(%p, %q), lhs_contracting_dims={1}, rhs_contracting_dims={0}, metadata={op_name="jit(step)/while/body/dot_general" stack_frame_id=2}
    }

    %body (t: (s32[], f32[8,4])) -> (s32[], f32[8,4]) {
      %t = (s32[]{:T(128)}, /*index=1*/f32[8,4]{1,0:T(8,128)(2,1)}) parameter(0)
      %i = s32[] get-tuple-element(%t), index=0
      %x = f32[8,4]{1,0} get-tuple-element(%t), index=1
      %w = f32[4,4]{1,0} constant({...})
      %fusion = f32[8,4]{1,0} fusion(%x, %w), kind=kOutput, calls=%fused
      %all-reduce-start.1 = (f32[8,4]{1,0}, bf16[3]{0}) all-reduce-start(%fusion, %z), replica_groups=[4,2]<=[2,4]T(1,0), to_apply=%sum, metadata={op_name="jit(step)/psum" stack_frame_id=1}
      %all-reduce-done.1 = (f32[8,4]{1,0}, bf16[3]{0}) all-reduce-done(%all-reduce-start.1)
      %y = f32[8,4]{1,0} get-tuple-element(%all-reduce-done.1), index=0
      ROOT %r = (s32[], f32[8,4]{1,0}) tuple(%i, %y)
    }

    %condition (t.1: (s32[], f32[8,4])) -> pred[] {
      %t.1 = (s32[], f32[8,4]{1,0}) parameter(0)
      %i.1 = s32[] get-tuple-element(%t.1), index=0
      %limit = s32[] constant(5)
      ROOT %less = pred[] compare(%i.1, %limit), direction=LT
    }

    ENTRY %main (arg: f32[8,4]) -> f32[8,4] {
      %arg = f32[8,4]{1,0} parameter(0)
      %zero = s32[] constant(0)
      %start = (s32[], f32[8,4]{1,0}) tuple(%zero, %arg)
      %loop = (s32[], f32[8,4]{1,0}) while(%start), condition=%condition, body=%body, metadata={op_name="jit(step)/while"}
      ROOT %out = f32[8,4]{1,0} get-tuple-element(%loop), index=1
    }
    """)  # fmt: skip # noqa: E501
GRID = Grid((("data", 4), ("fsdp", 2)), (0, 0, 0, 0, 1, 1, 1, 1), "ici")


def parse_collective(line: str, grid: Grid = GRID, partitions: int = 0) -> Collective:
    """Returns the collective of a program with this single instruction."""
    header = f"HloModule jit_f, num_partitions={partitions or grid.size}"
    text = f"{header}\n\nENTRY %main (x: f32[4]) -> f32[4] {{\n  {line}\n}}\n"
    (instruction,) = collectives.find_collectives(hlo.Module(text), grid)
    return instruction.collective


def test_loop_body_counts_every_iteration():
    module = hlo.Module(LOOP)
    (product,) = cost_analysis.find_products(module)
    # 8 x 4 sums of 4 products, five times.
    assert (product.flops, product.count) == (2 * 8 * 4 * 4, 5)
    assert product.source == "while/body/dot_general"
    assert product.shape == "f32[8,4]"
    # The line of this package, although a frame of JAX is further in.
    assert product.line == "losses/pairs.py:151"
    assert cost_analysis.total_flops([product]) == 5 * 256


def test_collective_in_a_loop():
    (instruction,) = collectives.find_collectives(hlo.Module(LOOP), GRID)
    collective = instruction.collective
    # Groups {0,4}, {1,5}, ...: half of the axis "data", across the two slices.
    assert (collective.kind, collective.bytes) == ("all-reduce", 128 + 6)
    assert (collective.count, collective.group) == (5, 2)
    assert (collective.axis, collective.network) == ("other", "dcn")
    assert collective.source == "psum"
    assert instruction.line == "losses/pairs.py:151"
    assert instruction.shapes == ("f32[8,4]", "bf16[3]")


def test_known_trip_count_overrides_the_loop_condition():
    known = 'body=%body, backend_config={"known_trip_count":{"n":"7"}}'
    (product,) = cost_analysis.find_products(hlo.Module(LOOP.replace("body=%body", known)))
    assert product.count == 7


@pytest.mark.parametrize(
    ("groups", "group", "axis", "network"),
    [
        ("{{0,1},{2,3},{4,5},{6,7}}", 2, "fsdp", "ici"),
        ("{{0,2,4,6},{1,3,5,7}}", 4, "data", "ici+dcn"),
        ("{}", 8, "data,fsdp", "ici+dcn"),
        ("[4,2]<=[8]", 2, "fsdp", "ici"),
        ("[2,4]<=[4,2]T(1,0)", 4, "data", "ici+dcn"),
        ("[1,8]<=[8]", 8, "data,fsdp", "ici+dcn"),
        ("mesh['a'=4,'b'=2] {'b'}", 2, "fsdp", "ici"),
        ("mesh['a'=4,'b'=2] {'a'}", 4, "data", "ici+dcn"),
        ("mesh['a'=8] {'a'}", 8, "data,fsdp", "ici+dcn"),
        ("mesh['a'=8] {'a':(2)2}", 2, "other", "ici"),
        ("mesh['a'=8] {'a':(1)2}", 2, "other", "dcn"),
        ("mesh['a'=2,'b'=4], device_ids=([8]) {'a'}", 2, "other", "dcn"),
        ("mesh['a'=4,'b'=2], device_ids=([2,4]T(1,0)) {'a'}", 4, "other", "ici"),
    ],
)
def test_device_groups_in_every_notation(groups, group, axis, network):
    collective = parse_collective(
        f"%g = f32[16]{{0}} all-gather(%x), replica_groups={groups}, dimensions={{0}}"
    )
    assert (collective.group, collective.axis, collective.network) == (group, axis, network)
    assert (collective.kind, collective.bytes) == ("all-gather", 64)


def test_start_instructions_count_results_and_not_operands():
    gather = "%s = (f32[2]{0}, bf16[3]{0}, f32[16]{0}, bf16[24]{0}) all-gather-start(%x, %y)"
    assert parse_collective(gather + ", replica_groups={}, dimensions={0}").bytes == 64 + 48
    permute = "%p = (f32[4]{0}, f32[4]{0}, u32[]{:S(2)}, u32[]{:S(2)}) collective-permute-start(%x)"
    ring = ", source_target_pairs={" + ",".join(f"{{{i},{(i + 1) % 8}}}" for i in range(8)) + "}"
    collective = parse_collective(permute + ring)
    assert (collective.kind, collective.bytes) == ("collective-permute", 16)
    assert (collective.group, collective.axis) == (8, "data,fsdp")


def test_parts_of_one_all_gather_count_once():
    """libtpu splits an all-gather into parts, each of which repeats the whole instruction."""
    part = textwrap.dedent("""\
        %part.{n} (p: f32[2]) -> f32[16] {{
          %p.{n} = f32[2]{{0}} parameter(0)
          %all-gather.{n} = f32[16]{{0}} all-gather(%p.{n}), channel_id=1, replica_groups={{{{0,1,2,3,4,5,6,7}}}}, dimensions={{0}}, frontend_attributes={{chain_id="0"}}
          ROOT %call.{n} = (f32[2], f32[16]) custom-call(%all-gather.{n}), custom_call_target="{target}"
        }}

        """)  # fmt: skip # noqa: E501
    entry = "ENTRY %main (x: f32[2]) -> f32[16] {\n  %x = f32[2]{0} parameter(0)\n"
    for n in range(3):
        entry += f"  %f.{n} = (f32[2], f32[16]) fusion(%x), kind=kCustom, calls=%part.{n}\n"
    text = "HloModule jit_f, num_partitions=8\n\n" + part.format(n=0, target="AsyncCollectiveStart")
    text += part.format(n=1, target="Other") + part.format(n=2, target="AsyncCollectiveDone")
    (instruction,) = collectives.find_collectives(hlo.Module(text + entry + "}\n"), GRID)
    assert (instruction.collective.bytes, instruction.collective.count) == (64, 1)


def test_convolution_flops_exclude_padding():
    """Worked by hand: an axis of 4 with 3 taps and padding 1 meets 10 elements, not 12."""
    line = "%y = f32[2,4,4,5]{3,2,1,0} convolution(%x, %k), window={size=3x3 pad=1_1x1_1}"
    start = "%x = f32[2,4,4,3]{3,2,1,0} parameter(0)\n  %k = f32[3,3,3,5]{3,2,1,0} parameter(1)\n  "
    text = f"HloModule jit_f\n\nENTRY %main (x: f32[4]) -> f32[4] {{\n  {start}{line}"
    (product,) = cost_analysis.find_products(hlo.Module(text + ", dim_labels=b01f_01io->b01f\n}\n"))
    assert product.flops == 2 * 2 * 3 * 5 * 10 * 10


def test_program_for_several_slices():
    """libtpu compiles for the devices of one slice; hosts exchange between slices."""
    inside = "%g = f32[8]{0} all-gather(%x), replica_groups={{0,2},{1,3}}, dimensions={0}"
    collective = parse_collective(inside, partitions=4)
    # A slice is a mesh of 2 x 2.
    assert (collective.group, collective.axis, collective.network) == (2, "data", "ici")
    transfer = (
        "%r = (f32[1,2,128]{2,1,0:T(2,128)}, u32[], token[]) recv(%a), channel_id=2, "
        'is_host_transfer=true, frontend_attributes={_xla_megascale_target="{1,2}x{0:3}",'
        '_xla_megascale_transfer_type="ALL_REDUCE"}'
    )
    collective = parse_collective(transfer, partitions=4)
    assert (collective.kind, collective.bytes, collective.group) == ("all-reduce", 1024, 2)
    assert (collective.axis, collective.network) == ("data", "dcn")
