"""Settings are checked before anything is done, and are never executed."""

import pytest


@pytest.mark.parametrize(
    "key, value, message",
    [
        (
            "NAME",
            "Sari",
            "NAME='Sari' must be 1 to 40 small letters, digits and hyphens, a letter first",
        ),
        ("NAME", "a" * 41, "must be 1 to 40"),
        ("NAME", "a$(touch pwned)", "must be 1 to 40"),
        ("PROJECT", "", "PROJECT='' must be a project id"),
        ("PROJECT", "--quiet", "must be a project id"),
        ("ZONE", "us-west4", "ZONE='us-west4' must be a zone, such as us-west4-a"),
        ("ACCELERATOR", "v5e-16", "must be v5litepod-N, v6e-N, v5p-N or v4-N"),
        ("SLICES", "0", "SLICES='0' must be a number from 1"),
        ("SLICES", "two", "must be a number from 1"),
        ("CAPACITY", "cheap", "CAPACITY='cheap' must be spot, on-demand or reserved"),
        ("BUCKET", "gs://my-bucket", "a bucket's name without gs://"),
        ("CONFIG", "configs/nothing.py", "is not in"),
        ("CONFIG", "nothing:nano", "is not in"),
        ("WORKDIR", "runs/a", "WORKDIR='runs/a' must be a path from /"),
        ("WORKDIR", "/elsewhere/a", "is not under MOUNT="),
        ("RETRIES", "-1", "RETRIES='-1' must be a whole number from 0"),
        ("OVERRIDE", "--workdir=/tmp", "OVERRIDE='--workdir=/tmp' must be --config.KEY=VALUE"),
        ("ACELERATOR", "v6e-8", "ACELERATOR is unknown; known: NAME PROJECT"),
    ],
)
def test_a_setting_that_cannot_be_is_one_line_and_exit_2(cloud, key, value, message):
    cloud.settings[key] = value
    assert cloud("queued.sh", "create", "--yes", code=2) == ""
    assert message in cloud.stderr and cloud.stderr.count("\n") == 1
    assert cloud.calls() == []


@pytest.mark.parametrize("config", ["configs/grpo.py:qwen2_audio_7b,lora", "grpo:nano"])
def test_a_recipe_may_be_named_by_path_or_by_name(cloud, config):
    """Settings are refused in order: one that comes later is the one that is refused."""
    cloud.settings |= {"CONFIG": config, "RETRIES": "-1"}
    cloud("queued.sh", "create", "--yes", code=2)
    assert "RETRIES" in cloud.stderr and "CONFIG" not in cloud.stderr


def test_workdir_does_not_leave_the_bucket_by_dots(cloud):
    cloud.settings["WORKDIR"] = f"{cloud.shared}/../a"
    cloud("queued.sh", "create", code=2)
    assert "is not under MOUNT=" in cloud.stderr


def test_gke_needs_an_image_and_the_name_of_a_reservation(cloud):
    cloud.settings |= {"CAPACITY": "reserved"}
    cloud("gke.sh", "create", code=2)
    assert "RESERVATION is empty" in cloud.stderr
    cloud.settings |= {"RESERVATION": "ours", "IMAGE": ""}
    cloud("gke.sh", "create", code=2)
    assert "IMAGE='' must be where the image is kept" in cloud.stderr


@pytest.mark.parametrize(
    "words, message",
    [
        (["rent"], "rent is unknown; known: create, setup"),
        (["create", "delete"], "delete after create: one verb at a time"),
        (["create", "--now"], "--now is unknown; known: --yes"),
    ],
)
@pytest.mark.parametrize("script", ["queued.sh", "gke.sh"])
def test_usage_errors(cloud, script, words, message):
    cloud(script, *words, code=2)
    assert message in cloud.stderr


@pytest.mark.parametrize("script, program", [("queued.sh", "gcloud"), ("gke.sh", "xpk")])
def test_a_program_that_is_missing_is_named(cloud, script, program):
    fewer = cloud.folder / "fewer"
    fewer.mkdir()
    for path in cloud.programs.iterdir():
        if path.name != program:
            (fewer / path.name).symlink_to(path)
    cloud.environment["PATH"] = str(fewer)
    cloud(script, "delete")
    cloud(script, "delete", "--yes", code=2)
    assert f"{program} is not installed" in cloud.stderr


def test_a_value_is_taken_as_it_stands(cloud):
    value = """--config.data.train=/a b/it's "x" $(touch pwned) `touch pwned` ; touch pwned # é"""
    cloud.overrides = [value]
    cloud("queued.sh", "create", "--yes")
    cloud("queued.sh", "setup", "--yes")
    cloud("queued.sh", "launch", "--yes")
    cloud.until(cloud.trainings)
    assert cloud.trainings()[0]["args"][-1] == value
    assert not list(cloud.folder.rglob("pwned")) and not list(cloud.checkout.rglob("pwned"))


def test_quotes_around_a_value_and_spaces_around_a_line_are_taken_off(cloud):
    plain = cloud("queued.sh", "create")
    cloud.settings |= {"NAME": '"sari-test"  ', "ZONE": "'us-west4-a'\r"}
    assert cloud("queued.sh", "create") == plain


def test_the_example_is_valid_once_it_is_copied(cloud, checkout):
    example = (checkout / "tpu_scripts/slice.env.example").read_text()
    every = "\n".join(
        line.removeprefix("#")
        if line.startswith("#") and "=" in line and line[1].isupper()
        else line
        for line in example.splitlines()
    )
    (cloud.folder / "all.env").write_text(every)
    for script in ("queued.sh", "gke.sh"):
        cloud(script, "create", "--settings", str(cloud.folder / "all.env"))
    assert "--network=my-network" in cloud(
        "queued.sh", "create", "--settings", f"{cloud.folder}/all.env"
    )
