"""What a plan tells, as text, JSON and page."""

import io
import json

import pytest
from PIL import Image
from programs import collective, program, topology
from ssl_jax.plan.facts import Replicated

from ssl_jax.errors import OUT_OF_MEMORY, REPLICATED_WORK
from ssl_jax.parallel import sizes
from ssl_jax.plan import (
    build_plan,
    figures,
    formatting,
    html_report,
    input_throughput,
    result,
    roofline,
    run_totals,
    sweep,
)
from ssl_jax.plan import text as texts
from ssl_jax.plan import text_report as texts
from ssl_jax.plan.program import Replicated


def plan(made=None, **fields):
    made = made or program()
    forecast = roofline.forecast(made)
    total = run_totals.run(
        steps=31_278, images=1_281_167, batch_size=4096, step_seconds=forecast.step,
        chips=made.topology.chips, checkpoint_bytes=3e8, checkpoint_every=1250, keep=2,
    )  # fmt: skip
    speed = input_throughput.Speed(90.0, 155.0, "generated JPEG")
    need = input_throughput.need(speed, images_per_second=forecast.images_per_second, hosts=64,
                       placement="device", chip="v5e")  # fmt: skip
    checked = sizes.check(batch_size=4096, devices=made.topology.devices, hosts=64)
    known = result.Plan("simclr resnet50, batch 4,096", "python -m ssl_jax.plan", forecast, total,
                        tuple(checked), "device", speed, need, None)  # fmt: skip
    return known._replace(**fields)


def lines(made):
    return {line.split("  ")[1]: line for line in texts.text(made).splitlines() if "  " in line}


def test_what_fits_is_told_with_its_numbers():
    text = texts.text(plan())
    assert "simclr resnet50, batch 4,096 on v5e:16x16: 256 chips, 64 hosts" in text
    assert "FITS: 1.24 GiB of 16 GiB on each device, 7.8 %" in text
    found = lines(plan())
    assert "29.5 ms" in found["step"]
    assert "HBM binds" in found["step"]
    assert "31,278" in found["steps"]
    assert "all-reduce  100    4 KiB" in text
    assert "all-reduce  1      107 MiB" in text
    assert "112 CPUs: enough" in found["a host has"]
    assert "all published" in text
    assert "published training programs" in text


def test_what_does_not_fit():
    full = program(memory=program().memory._replace(total=20 * 2**30))
    found = result.verdict(full)
    assert found.code == OUT_OF_MEMORY
    assert "20 GiB needed on each device of v5e:16x16, which has 16 GiB" in found.sentence
    assert "4 GiB" in lines(plan(full))["missing"]


def test_what_the_compiler_refused_has_no_times():
    refused = program(
        memory=program().memory._replace(total=20 * 2**30), out_of_memory="Ran out of HBM",
        flops=0.0, even_flops=0.0, bytes=0.0, collectives=(),
    )  # fmt: skip
    text = texts.text(plan(refused))
    assert "Ran out of HBM; work that devices repeat was not looked for" in text
    assert "Time of a step" not in text
    assert "Time of a step" not in html_report.page(plan(refused))


def test_work_that_is_repeated_is_an_error_that_names_it():
    conv = Replicated("encoder/conv", "bf16[8192,112,112,64]", 7e12, "simclr.py:90")
    small = Replicated("head/dense", "bf16[8192,128]", 1e9)
    found = result.verdict(program(flops=1.26e13, replicated=(small, conv)))
    assert found.code == REPLICATED_WORK
    assert "12.6 TFLOP where an even split is 788 GFLOP; most by" in found.sentence
    assert "encoder/conv bf16[8192,112,112,64] (+7 TFLOP, simclr.py:90)" in found.sentence


def test_examples_that_travel_are_an_error_too():
    moved = Replicated("step/concatenate", "u8[256,224,224,3]", 0.0, bytes=3 * 2**20)
    found = result.verdict(program(replicated=(moved,)))
    assert found.code == REPLICATED_WORK
    assert "exchange examples" in found.sentence
    assert "(3 MiB from others)" in found.sentence


def test_hosts_that_cannot_feed_are_told():
    starved = plan()
    starved = starved._replace(need=starved.need._replace(cpus=300.0))
    assert "STARVE" in lines(starved)["a host has"]


def test_json_has_every_collective_with_its_seconds(tmp_path):
    build_plan.write(plan(), tmp_path)
    content = json.loads((tmp_path / "plan.json").read_text())
    assert content["exit_code"] == 0
    assert content["forecast"]["step"] == pytest.approx(29.5e-3, rel=0.01)
    gradient = content["forecast"]["collectives"][1]
    assert gradient["source"] == "gradient"
    assert gradient["seconds"] == pytest.approx(1.27e-3, rel=0.01)
    assert content["totals"]["chip_hours"] == pytest.approx(31_278 * 29.5e-3 * 256 / 3600, rel=0.01)


def test_the_page_is_whole_and_its_text_is_escaped(tmp_path):
    odd = program(collectives=(collective(source="<script>"),), compiled_for="<b>")
    content = html_report.page(plan(odd))
    assert "<script>" not in content
    assert "&lt;script&gt;" in content
    assert content.count("data:image/png;base64,") == 3
    for outside in ("http://", "https://", 'src="/'):
        assert outside not in content


def test_pictures_show_more_than_one_colour():
    made = roofline.forecast(program(on=topology(slices=2), collectives=(collective(group=512),)))
    points = [("v5e:16x16", 1.0, 256.0, True), ("v4:4x4x4", 2.0, 300.0, False)]
    for picture in (figures.memory(program().memory), figures.step(made),
                    figures.collectives(made), figures.scatter(points, "chip-hours")):  # fmt: skip
        image = Image.open(io.BytesIO(picture))
        assert image.width == 1650
        assert len(image.convert("RGB").getcolors(2**20)) > 50


def point(name="v5e:16x16", made=None, **fields):
    made = plan() if made is None else made
    return sweep.Point(name, 4096, 0, 1, made, "")._replace(**fields)


def test_the_cheapest_that_fits_wins():
    full = plan(program(memory=program().memory._replace(total=20 * 2**30)))
    cheap = plan(totals=plan().totals._replace(chip_hours=10.0))
    dear = plan(totals=plan().totals._replace(chip_hours=30.0))
    free = full._replace(totals=full.totals._replace(chip_hours=1.0))
    none = point("v6e:2x4", reason="does not divide")._replace(plan=None)
    found = [point("v4:4x4x4", dear), point("v5e:16x16", cheap), point("v5e:2x2", free), none]
    assert sweep.sentence(found, {}).startswith("Cheapest that fits: v5e:16x16, batch 4,096: 10")
    prices = {"v5e": 4.0, "v4": 1.0, "v6e": 1.0}
    assert "v4:4x4x4" in sweep.sentence(found, prices)
    assert "cost 30.00" in sweep.sentence(found, prices)
    table = [line.split()[0] for line in sweep.lines(found, {}).splitlines()[:5]]
    assert table == ["topology", "v5e:16x16", "v4:4x4x4", "v5e:2x2", "v6e:2x4"]
    assert "does not fit" in sweep.lines(found, {})
    assert "does not divide" in sweep.page(found, prices, "simclr", "python")
    assert sweep.sentence(found[2:], {}) == "Nothing fits."


@pytest.mark.parametrize(
    ("told", "expected"),
    [
        (formatting.size(5.3 * 2**30), "5.3 GiB"),
        (formatting.size(999), "999 B"),
        (formatting.seconds(0.0123), "12.3 ms"),
        (formatting.seconds(3.1e-4), "310 µs"),
        (formatting.duration(3900), "1 h 05 min"),
        (formatting.duration(7 * 86400 + 3 * 3600), "7 d 03 h"),
        (formatting.percent(0.41), "41 %"),
        (formatting.percent(0.0065), "0.65 %"),
        (formatting.operations(7.88e11), "788 GFLOP"),
    ],
)
def test_units(told, expected):
    assert told == expected
