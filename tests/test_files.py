"""What somebody else may have put where a run or a checkpoint has a file: never waited for, never read without end."""

import hashlib
import json
import os
import resource
import shutil
import signal
import socket
import subprocess
import sys

import numpy as np
import pytest
from command_line import SMALL, assert_one_error, call, train
from forgery import edit_manifest, put_file, put_manifest

from rltrain.checkpoints import CheckpointStore, read_part, verify, write
from rltrain.errors import CheckpointError

pytest.importorskip("torch")  # the default backend, which the runs here are of

EVAL = ("eval", "run", "episodes=1")
VERIFY = ("checkpoint", "verify", "run")
RESUME = ("train", "resume=run")
AUTO = ("train", *SMALL, "trainer.timesteps=40", "run.dir=run", "resume=auto")


@pytest.fixture(autouse=True)
def impatient():
    """A read that waits for somebody fails the test instead of the suite."""
    signal.signal(signal.SIGALRM, lambda *_: pytest.fail("still waiting after a minute"))
    signal.alarm(60)
    yield
    signal.alarm(0)


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A run of 40 timesteps."""
    run = tmp_path_factory.mktemp("made") / "run"
    train("trainer.timesteps=40", f"run.dir={run}")
    return run


@pytest.fixture
def run(made, here):
    """A copy of it, which is `run` here."""
    return shutil.copytree(made, here / "run")


def put_pipe(path):
    os.mkfifo(path)


def put_socket(path):
    server = socket.socket(socket.AF_UNIX)
    server.bind(os.path.relpath(path))
    server.close()


def put_large(path):
    with open(path, "wb") as file:
        file.truncate(2**40)  # sparse: takes no space, and no memory if it isn't read


def put_link(path):
    path.symlink_to("/dev/zero")


def put_directory(path):
    path.mkdir()


@pytest.mark.parametrize("put", [put_pipe, put_socket, put_large, put_link, put_directory])
def test_what_is_no_file_is_not_read(put, run):
    in_checkpoint = ["manifest.json", "manifest.sha256", "config.yaml", "trainer.safetensors", "agents/ppo/policy.safetensors"]
    for name, commands in {
        "checkpoints/latest": (EVAL, VERIFY, RESUME),
        **{f"checkpoints/40/{name}": (EVAL, VERIFY, RESUME, AUTO) for name in in_checkpoint},
        "config.yaml": (RESUME, AUTO),  # all of them with a pipe, which would make them wait
    }.items():
        kept = (run / name).read_bytes()
        (run / name).unlink()
        put(run / name)
        for command in commands if put is put_pipe else commands[1:2]:
            result = call(*command)
            assert_one_error(result, 3, str(run / name).removeprefix(f"{run.parent}/"))
        if put is put_directory:
            (run / name).rmdir()
        else:
            (run / name).unlink()
        (run / name).write_bytes(kept)
    assert call(*VERIFY).status == 0


@pytest.mark.parametrize("put", [put_pipe, put_socket, put_link, put_directory])
def test_what_is_no_file_is_not_written_to(put, run):
    for name in (".lock", "train.log", "metrics.jsonl"):
        (run / name).unlink()
        put(run / name)
        result = call("train", "resume=run", "trainer.timesteps=60")
        kind = put.__name__.removeprefix("put_")
        assert (result.status, f"there is a {kind} in its place" in result.err.splitlines()[-1]) == (4, True), result.err
        (run / name).rmdir() if put is put_directory else (run / name).unlink()
        if name != ".lock":
            (run / name).write_text("")


def test_metrics_of_any_length_are_cut_back(run):
    """Rows are looked at one by one; what is no row, however long or deep, goes."""
    with open(run / "metrics.jsonl", "ab") as file:
        file.write(b"[" * 50_000 + b"\n" + b"\xff\n" + b'{"timestep": 50, "x": "' + b"y" * 3_000_000 + b'"}\n{"timestep": 12}')
    before = (run / "metrics.jsonl").read_text(errors="replace").splitlines()[:2]
    assert call("train", "resume=run", "trainer.timesteps=60").status == 0
    rows = (run / "metrics.jsonl").read_text().splitlines()
    assert rows[:2] == before
    assert [json.loads(row)["timestep"] for row in rows] == [20, 40, 12, 60]


PEAK = """
import resource
from rltrain import cli
for name in ("small", "large"):
    assert cli.main(["checkpoint", "verify", name]) == 0
    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024)
"""


def test_verify_takes_no_memory_for_a_large_file(here):
    """256 MiB take less than 16 MiB more than nothing takes."""
    size = 2**28
    digest, zeros = hashlib.sha256(), bytes(2**20)
    for _ in range(size // len(zeros)):
        digest.update(zeros)
    for name in ("small", "large"):
        write(here / name, {}, {"timestep": 1}, {"memory": b""})
    os.truncate(here / "large/memory", size)
    edit_manifest(here / "large", lambda manifest: manifest["files"].update(memory={"size": size, "sha256": digest.hexdigest()}))
    result = subprocess.run([sys.executable, "-c", PEAK], capture_output=True, text=True, cwd=here)
    assert "268,435,456 bytes" in result.stdout, result.stderr
    before, after = (int(line) for line in result.stdout.splitlines() if line.isdigit())
    assert after - before < 16


def part(header, data=b""):
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text + data


def tensors(**entries):
    return {"__metadata__": {"tree": "null"}, **entries}


def tensor(shape, *offsets, dtype="F32"):
    return {"dtype": dtype, "shape": shape, "data_offsets": offsets}


@pytest.mark.parametrize(
    "data",
    [
        (2**60).to_bytes(8, "little") + b"{}",  # a header longer than the file
        part(tensors(a=tensor([2**50], 0, 2**52))),  # an array larger than the file
        part(tensors(a=tensor([0, 2**62], 0, 0))),
        part(tensors(a=tensor([-1], 0, 4)), bytes(4)),
        part(tensors(a=tensor([1.0], 0, 4)), bytes(4)),
        part(tensors(a=tensor([1], 0, 4), b=tensor([1], 0, 4)), bytes(4)),  # one upon the other
        part(tensors(a=tensor([1], 4, 8)), bytes(8)),  # a gap
        part(tensors(a=tensor([1], 0, 4)), bytes(8)),  # more than is listed
        part(tensors(a=tensor([1], 0, 4, dtype="O")), bytes(4)),
        part(tensors(a=tensor([1], 0, 8, dtype="C64")), bytes(8)),
        part({"__metadata__": {"tree": "[" * 100_000}}),
        part(b"[" * 100_000),
        part(b'{"__metadata__": {"tree": "1"}, "__metadata__": {"tree": "2"}}'),
        part({"__metadata__": {"tree": '{"a": 1, "a": 2}'}}),
        part({"__metadata__": {}}),
        b"",
        b"1234567",
    ],
)
def test_a_part_that_is_none(data, tmp_path):
    write(tmp_path / "1", {"a": 0}, {}, {})
    put_file(tmp_path / "1", "a.safetensors", data)
    with pytest.raises(CheckpointError, match="not a part of a checkpoint"):
        read_part(tmp_path / "1", "a", verify(tmp_path / "1"))


def test_a_part_is_what_its_hash_says_also_where_it_alone_is_read(tmp_path):
    """`besides` leaves a file to whoever reads it."""
    write(tmp_path / "1", {"a": {"x": np.arange(3)}, "b": 0}, {}, {})
    path = tmp_path / "1/a.safetensors"
    path.write_bytes(path.read_bytes()[:-1] + b"\1")
    manifest = verify(tmp_path / "1", besides={"a.safetensors"})
    with pytest.raises(CheckpointError, match="its sha256 is not the manifest's"):
        read_part(tmp_path / "1", "a", manifest)


@pytest.mark.parametrize("version", [0, -5, 1.9, "1", True, [1], 10**30])
def test_a_format_that_is_none(version, tmp_path):
    write(tmp_path / "1", {"a": 0}, {}, {})
    edit_manifest(tmp_path / "1", lambda manifest: manifest.update(format=version))
    with pytest.raises(CheckpointError, match="written by a newer rltrain" if version == 10**30 else "not a manifest of rltrain"):
        verify(tmp_path / "1")


def test_a_manifest_with_a_key_twice(tmp_path):
    write(tmp_path / "1", {"a": 0}, {}, {})
    put_manifest(tmp_path / "1", b'{"format": 1, "files": {"a": {}}, "files": {}}')
    with pytest.raises(CheckpointError, match="not a manifest of rltrain"):
        verify(tmp_path / "1")


def test_a_folder_that_is_not_listed(tmp_path):
    write(tmp_path / "1", {"a/b": 0}, {}, {})
    (tmp_path / "1/a/more").mkdir()
    with pytest.raises(CheckpointError, match="1/a/more: not listed"):
        verify(tmp_path / "1")


def test_names_that_only_look_like_numbers(tmp_path):
    (tmp_path / "²").mkdir()
    assert CheckpointStore(tmp_path).all() == []
    (tmp_path / "latest").write_text("²")
    with pytest.raises(CheckpointError, match="not the name of a checkpoint"):
        CheckpointStore(tmp_path).pointer("latest")


def laughs(first, line):
    return f"a0: {first}\n" + "".join(line(i) for i in range(1, 40))


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        (laughs("&a0 [x, x]", lambda i: f"a{i}: &a{i} [*a{i - 1}, *a{i - 1}]\n"), "more than 30,000 values"),
        (laughs("&a0 {x: 1}", lambda i: f"a{i}: &a{i} {{<<: [*a{i - 1}, *a{i - 1}]}}\n"), "more than 30,000 values"),
        (laughs("xxxx", lambda i: f"a{i}: ${{a{i - 1}}}${{a{i - 1}}}\n"), "more than 4,194,304 characters"),
        (laughs("xxxx", lambda i: f"a{i}: {{x: '${{a{i - 1}}}', y: '${{.x}}'}}\n"), "more than 4,194,304 characters"),
        (laughs("xxxx", lambda i: f"a{i}: ${{[a{i - 1}]}}${{ a{i - 1} }}\n"), "78 references, not all of the form"),
        ("a: &a [*a]", "refers to what it stands in"),
        ("a: ${b}\nb: ${a}", "refers to itself"),
        ("a: {b: '${a}'}", "refers to itself"),
        ("a: " + "{x: " * 100 + "}" * 100, "more than 64 levels deep"),
        ("a: [" + "x," * 40_000 + "]", "more than 30,000 values"),
        ("a: " + "1:" * 200_000 + "1", "a number of 400,001 characters"),
        ("a: 2001-13-45", "not YAML (month must be in 1..12)"),
        ("a: 2001-12-05", "not a configuration of rltrain"),
        ("s: 1\na: '" + "${s}" * 2_000 + "'", "2,000 references; 1,000 at most"),
        ("a: '" + "${" * 200_000 + "'", "8 at most where one isn't"),
        ("#" * 2**20, "1,048,576"),
    ],
    ids=lambda value: value[:24],
)  # fmt: skip
def test_a_saved_configuration_beyond_reason(text, sentence, run):
    put_file(run / "checkpoints/40", "config.yaml", f"{text}\n".encode())
    (run / "config.yaml").write_text(f"{text}\n")
    for command in (EVAL, RESUME):
        before = resource.getrusage(resource.RUSAGE_SELF).ru_utime
        assert_one_error(call(*command), 3, "config.yaml: ", sentence)
        assert resource.getrusage(resource.RUSAGE_SELF).ru_utime - before < 10


def test_aliases_and_references_within_reason():
    from rltrain.config import from_yaml

    cfg = from_yaml("a: &a {x: 1, y: '${b.c}'}\nb: {<<: *a, c: 5, d: '${.c}', e: ['${b.d}', '${..x}']}", "here")
    assert (cfg.a.y, cfg.b.d, cfg.b.x) == (5, 5, 1)
