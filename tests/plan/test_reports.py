"""Plans and sweeps as text, JSON, HTML and charts."""

import io
import json

import pytest
from PIL import Image
from programs import make_collective, make_program, make_topology

from ssl_jax.errors import OUT_OF_MEMORY, REPLICATED_WORK
from ssl_jax.parallel import sizes
from ssl_jax.plan import figures, formatting, html_report, input_throughput, roofline, sweep
from ssl_jax.plan.build_plan import write_plan
from ssl_jax.plan.program import Replicated
from ssl_jax.plan.result import Plan, verdict
from ssl_jax.plan.run_totals import run_totals
from ssl_jax.plan.text_report import format_plan


def make_plan(program=None, **fields):
    program = program or make_program()
    forecast = roofline.forecast(program)
    totals = run_totals(
        steps=31_278, images=1_281_167, batch_size=4096, step_seconds=forecast.step,
        chips=program.topology.chips, checkpoint_bytes=3e8, checkpoint_every=1250, keep=2,
    )  # fmt: skip
    throughput = input_throughput.CpuThroughput(90.0, 155.0, "generated JPEG")
    load = input_throughput.host_load(
        throughput, images_per_second=forecast.images_per_second, hosts=64, placement="device",
        chip="v5e",
    )  # fmt: skip
    checked = sizes.check(batch_size=4096, devices=program.topology.devices, hosts=64)
    plan = Plan("simclr resnet50, batch 4,096", "python -m ssl_jax.plan", forecast, totals,
                tuple(checked), "device", throughput, load, None)  # fmt: skip
    return plan._replace(**fields)


def too_large():
    """Returns a program that needs 20 GiB of 16 GiB."""
    program = make_program()
    return program._replace(memory=program.memory._replace(total=20 * 2**30))


def lines_by_name(plan):
    return {line.split("  ")[1]: line for line in format_plan(plan).splitlines() if "  " in line}


def test_a_plan_says_that_the_run_may_stop_early():
    plan = make_plan()
    assert "earlier" not in format_plan(plan)
    early = plan._replace(totals=plan.totals._replace(may_stop_early=True))
    assert "the run may stop earlier (train.stop_on)" in lines_by_name(early)["steps"]


def test_text_of_a_plan_that_fits():
    text = format_plan(make_plan())
    assert "simclr resnet50, batch 4,096 on v5e:16x16: 256 chips, 64 hosts" in text
    assert "FITS: 1.24 GiB of 16 GiB on each device, 7.8 %" in text
    lines = lines_by_name(make_plan())
    assert "29.5 ms" in lines["step"]
    assert "limited by HBM" in lines["step"]
    assert "31,278" in lines["steps"]
    assert "all-reduce  100    4 KiB" in text
    assert "all-reduce  1      107 MiB" in text
    assert "112 CPUs: enough" in lines["a host has"]
    assert "all published" in text
    assert "published training programs" in text


def test_input_of_a_modality_without_placement():
    starved = make_plan().need._replace(cpus=200.0)
    plan = make_plan(noun="recording", placement="", need=starved)
    lines = lines_by_name(plan)
    assert lines["one CPU here"].endswith("90 recordings/s (generated JPEG)")
    assert lines["CPUs needed"].endswith("  200.0")
    assert "THE INPUT WILL STARVE THE CHIPS (use fewer random changes" in lines["a host has"]
    assert "placement" not in format_plan(plan)
    assert "1,281,167 recordings" in lines["steps"]


def test_verdict_of_a_plan_that_does_not_fit():
    judgement = verdict(too_large())
    assert judgement.code == OUT_OF_MEMORY
    assert "20 GiB needed on each device of v5e:16x16, which has 16 GiB" in judgement.sentence
    assert "4 GiB" in lines_by_name(make_plan(too_large()))["missing"]


def test_plan_without_a_compiled_program_shows_no_times():
    refused = too_large()._replace(
        out_of_memory="Ran out of HBM", flops=0.0, even_flops=0.0, bytes=0.0, collectives=()
    )
    text = format_plan(make_plan(refused))
    assert "Ran out of HBM; the plan did not look for repeated work" in text
    assert "Time of a step" not in text
    assert "Time of a step" not in html_report.plan_page(make_plan(refused))


def test_verdict_names_the_largest_repeated_work():
    conv = Replicated("encoder/conv", "bf16[8192,112,112,64]", 7e12, "simclr.py:90")
    small = Replicated("head/dense", "bf16[8192,128]", 1e9)
    judgement = verdict(make_program(flops=1.26e13, replicated=(small, conv)))
    assert judgement.code == REPLICATED_WORK
    assert "12.6 TFLOP where an even share is 788 GFLOP; the largest cause" in judgement.sentence
    assert "encoder/conv bf16[8192,112,112,64] (+7 TFLOP, simclr.py:90)" in judgement.sentence


def test_verdict_names_exchanged_examples():
    moved = Replicated("step/concatenate", "u8[256,224,224,3]", 0.0, bytes=3 * 2**20)
    judgement = verdict(make_program(replicated=(moved,)))
    assert judgement.code == REPLICATED_WORK
    assert "exchange examples" in judgement.sentence
    assert "(3 MiB from others)" in judgement.sentence


def test_text_warns_of_hosts_that_cannot_feed_their_chips():
    plan = make_plan()
    plan = plan._replace(need=plan.need._replace(cpus=300.0))
    assert "STARVE" in lines_by_name(plan)["a host has"]


def test_json_has_every_collective_with_its_seconds(tmp_path):
    write_plan(make_plan(), tmp_path)
    content = json.loads((tmp_path / "plan.json").read_text())
    assert content["exit_code"] == 0
    assert content["forecast"]["step"] == pytest.approx(29.5e-3, rel=0.01)
    gradient = content["forecast"]["collectives"][1]
    assert gradient["source"] == "gradient"
    assert gradient["seconds"] == pytest.approx(1.27e-3, rel=0.01)
    assert content["totals"]["chip_hours"] == pytest.approx(31_278 * 29.5e-3 * 256 / 3600, rel=0.01)


def test_page_is_self_contained_and_escapes_text():
    collective = make_collective(source="<script>")
    program = make_program(collectives=(collective,), compiled_for="<b>")
    content = html_report.plan_page(make_plan(program))
    assert "<script>" not in content
    assert "&lt;script&gt;" in content
    assert content.count("data:image/png;base64,") == 3
    for outside in ("http://", "https://", 'src="/'):
        assert outside not in content


def test_charts_are_not_blank():
    collective = make_collective(group=512)
    program = make_program(make_topology(slices=2), collectives=(collective,))
    forecast = roofline.forecast(program)
    points = [("v5e:16x16", 1.0, 256.0, True), ("v4:4x4x4", 2.0, 300.0, False)]
    charts = [figures.memory_bar(make_program().memory), figures.step_bars(forecast),
              figures.collective_bars(forecast),
              figures.cost_scatter(points, "chip-hours")]  # fmt: skip
    for chart in charts:
        image = Image.open(io.BytesIO(chart))
        assert image.width == 1650
        assert len(image.convert("RGB").getcolors(2**20)) > 50


def test_memory_bar_of_a_small_step_is_visible():
    """Parameters and activations fill two thirds of the axis, although a device has 16 GiB."""
    memory = make_program().memory
    tiny = memory._replace(
        **dict.fromkeys(figures.COLOURS, 0) | {"parameters": 2**14, "activations": 2**15},
        total=3 * 2**14,
    )
    image = Image.open(io.BytesIO(figures.memory_bar(tiny))).convert("RGB")
    middle = [image.getpixel((x, image.height // 2)) for x in range(image.width)]
    axis = 0.96 * image.width
    for name, share in (("parameters", 2 / 9), ("activations", 4 / 9)):
        colour = tuple(bytes.fromhex(figures.COLOURS[name][1:]))
        assert middle.count(colour) / axis == pytest.approx(share, abs=0.01)


def make_point(name, plan, reason=""):
    return sweep.Point(name, 4096, 0, 1, plan, reason)


def with_chip_hours(plan, chip_hours):
    return plan._replace(totals=plan.totals._replace(chip_hours=chip_hours))


def test_sweep_recommends_the_cheapest_that_fits():
    points = [
        make_point("v4:4x4x4", with_chip_hours(make_plan(), 30.0)),
        make_point("v5e:16x16", with_chip_hours(make_plan(), 10.0)),
        make_point("v5e:2x2", with_chip_hours(make_plan(too_large()), 1.0)),
        make_point("v6e:2x4", None, "does not divide"),
    ]
    sentence = sweep.cheapest_sentence(points, {})
    assert sentence.startswith("Cheapest that fits: v5e:16x16, batch 4,096: 10")
    prices = {"v5e": 4.0, "v4": 1.0, "v6e": 1.0}
    assert "v4:4x4x4" in sweep.cheapest_sentence(points, prices)
    assert "cost 30.00" in sweep.cheapest_sentence(points, prices)
    text = sweep.format_sweep(points, {})
    first_column = [line.split()[0] for line in text.splitlines()[:5]]
    assert first_column == ["topology", "v5e:16x16", "v4:4x4x4", "v5e:2x2", "v6e:2x4"]
    assert "does not fit" in text
    assert "does not divide" in sweep.sweep_page(points, prices, "simclr", "python")
    assert sweep.cheapest_sentence(points[2:], {}) == "Nothing fits."


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (formatting.size(5.3 * 2**30), "5.3 GiB"),
        (formatting.size(999), "999 B"),
        (formatting.seconds(0.0123), "12.3 ms"),
        (formatting.seconds(3.1e-4), "310 µs"),
        (formatting.duration(3900), "1 h 05 min"),
        (formatting.duration(7 * 86400 + 3 * 3600), "7 d 03 h"),
        (formatting.percent(0.41), "41 %"),
        (formatting.percent(0.0065), "0.65 %"),
        (formatting.flops(7.88e11), "788 GFLOP"),
    ],
)
def test_numbers_are_formatted_with_units(text, expected):
    assert text == expected
