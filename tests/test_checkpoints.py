"""Checkpoints: exact, atomic, checked to the last bit, and never executed."""

import errno
import json
import os
import random
import shutil
import signal
from pathlib import Path

import numpy as np
import pytest
from command_line import SMALL, assert_one_error, call, merged, summary, train
from forgery import edit_manifest, put_file, put_manifest

from rltrain import checkpoints, signals
from rltrain.checkpoints import CheckpointStore, decode, encode, read_manifest, read_part, tree_sha256, verify, write
from rltrain.errors import CheckpointError, NonFiniteError

pytest.importorskip("torch")  # the default backend, which the runs here are of

# -- trees ---------------------------------------------------------------------------------------------------------------

TREES = [
    None,
    {"none": None, "flag": True, "int": -3, "big": 2**80, "float": 0.1, "text": "ü\n", "empty": {}, "list": [], "tuple": ()},
    {"inf": float("inf"), "minus": -float("inf"), "tiny": 5e-324, "zero": -0.0},
    {"nested": [{"a": (1, (2.0, [None, (True,)]))}]},
    {1: "int", "1": "text", (2, "x"): "tuple", None: "none", 2.5: "float", False: "flag"},
    {"$array": "not one", "$tuple": [1], "$items": {"$scalar": 0}},
    np.arange(6, dtype=np.int64).reshape(2, 3),
    {"zero-d": np.array(3.5), "empty": np.zeros((0, 4), np.float32), "bool": np.array([True, False])},
    {str(dtype): np.arange(5).astype(dtype) for dtype in ["b", "B", "h", "H", "i", "I", "l", "L", "e", "f", "d"]},
    {"scalars": [np.float32(0.1), np.int8(-3), np.bool_(True), np.uint64(2**63)]},
    {"fortran": np.asfortranarray(np.arange(6.0).reshape(2, 3)), "strided": np.arange(10)[::3], "mirrored": np.eye(3)[:, ::-1].T},
    {"special": np.array([np.nan, np.inf, -0.0, 5e-324])},
    {"a/b": np.array(1), "a": {"b": np.array(2)}, "a/b/": np.array(3)},
    [np.array([1]), (np.array([2]), {"0": np.array([3])})],
    {3: {"x": np.array([4])}, "3": {"x": np.array([5])}},
]


def same(a, b):
    """Tell whether two trees are the same: types, dtypes, shapes, bytes, order of keys."""
    if type(a) is not type(b):
        return False
    if isinstance(a, np.ndarray | np.generic):
        return a.dtype == b.dtype and a.shape == b.shape and a.tobytes() == b.tobytes()
    if isinstance(a, dict):
        keys = zip(a, b, strict=False)
        return len(a) == len(b) and all(same(i, j) for i, j in keys) and all(same(a[key], b[key]) for key in a)
    if isinstance(a, list | tuple):
        return len(a) == len(b) and all(same(i, j) for i, j in zip(a, b, strict=True))
    return repr(a) == repr(b)


@pytest.mark.parametrize("tree", TREES)
def test_what_is_written_is_read(tree, tmp_path):
    write(tmp_path / "1", {"part": {"tree": tree}}, {}, {})
    manifest = verify(tmp_path / "1")
    assert same(read_part(tmp_path / "1", "part", manifest)["tree"], tree)


@pytest.mark.parametrize(
    "tree", [object(), {1, 2}, b"bytes", np.array([object()]), np.array(["text"]), np.str_("text"), {np.int64(3): 1}, 1j, len]
)
def test_what_can_not_be_kept_exactly_is_refused(tree, tmp_path):
    with pytest.raises(TypeError):
        write(tmp_path / "1", {"part": {"tree": tree}}, {}, {})
    assert not list(tmp_path.iterdir())


def test_encoding_copies_arrays():
    array, arrays = np.zeros(2), {}
    plain = encode({"a": array}, arrays)
    array[:] = 1
    assert decode(plain, arrays)["a"].tolist() == [0, 0]


def test_the_hash_of_a_tree():
    tree = {"a": np.arange(4, dtype=np.float32), "b": np.float32(1)}
    assert tree_sha256(tree) == tree_sha256({"b": np.float32(1), "a": np.arange(4, dtype=np.float32)})  # order of keys
    others = [
        {**tree, "a": tree["a"].astype(np.float64)},
        {**tree, "a": tree["a"].reshape(2, 2)},
        {**tree, "a": np.nextafter(tree["a"], 9, dtype=np.float32)},
        {"a": tree["a"], "c": tree["b"]},
        {"a": tree["a"]},
    ]
    assert len({tree_sha256(other) for other in [tree, *others]}) == 6


# -- what verify finds ---------------------------------------------------------------------------------------------------


@pytest.fixture
def checkpoint(trained, tmp_path):
    """A copy of a real checkpoint."""
    shutil.copytree(trained / "checkpoints/200", tmp_path / "run/checkpoints/200")
    return tmp_path / "run/checkpoints/200"


def files_of(directory: Path) -> list[Path]:
    return sorted(path for path in directory.rglob("*") if path.is_file())


def test_a_real_checkpoint_is_good(checkpoint):
    manifest = verify(checkpoint)
    assert manifest["format"] == 1
    assert manifest["timestep"] == 200
    assert manifest["env_steps"] == 800
    assert manifest["agents"] == {"ppo": "PPO"}
    assert manifest["exact_resume"] is True
    assert sorted(manifest["files"]) == [
        "agents/ppo/policy.safetensors", "agents/ppo/training.safetensors", "config.yaml", "trainer.safetensors"
    ]  # fmt: skip


def test_200_bit_flips_are_found(checkpoint):
    generator = random.Random(0)
    files = files_of(checkpoint)
    found = 0
    for trial in range(200):
        path = files[trial % len(files)]  # small files as often as large ones
        data = bytearray(path.read_bytes())
        bit = generator.randrange(8 * len(data))
        data[bit // 8] ^= 1 << bit % 8
        good = path.read_bytes()
        path.write_bytes(data)
        try:
            verify(checkpoint)
        except CheckpointError:
            found += 1
        path.write_bytes(good)
    verify(checkpoint)
    assert found == 200


@pytest.mark.parametrize("length", [0, 1, 0.5, -1])
def test_a_truncated_file_is_found(length, checkpoint):
    for path in files_of(checkpoint):
        data = path.read_bytes()
        path.write_bytes(data[: int(len(data) * length) if isinstance(length, float) else length])
        with pytest.raises(CheckpointError):
            verify(checkpoint)
        path.write_bytes(data)
    verify(checkpoint)


def test_a_missing_file_is_found(checkpoint):
    for path in files_of(checkpoint):
        data = path.read_bytes()
        path.unlink()
        with pytest.raises(CheckpointError, match="missing"):
            verify(checkpoint)
        path.write_bytes(data)


def damage_extra(checkpoint):
    (checkpoint / "agents/more.safetensors").write_bytes(b"")


def damage_link(checkpoint):
    (checkpoint / "trainer.safetensors").rename(checkpoint.parent / "elsewhere")
    (checkpoint / "trainer.safetensors").symlink_to(checkpoint.parent / "elsewhere")


def damage_linked_folder(checkpoint):
    (checkpoint / "agents").rename(checkpoint.parent / "elsewhere")
    (checkpoint / "agents").symlink_to(checkpoint.parent / "elsewhere")


def damage_extra_link(checkpoint):
    (checkpoint / "more").symlink_to("/nowhere")


def damage_pipe(checkpoint):
    os.mkfifo(checkpoint / "more")


def damage_directory_for_file(checkpoint):
    (checkpoint / "trainer.safetensors").unlink()
    (checkpoint / "trainer.safetensors").mkdir()


def damage_hash(text):
    def damage(checkpoint):
        path = checkpoint / "manifest.sha256"
        path.write_text(text(path.read_text()))

    return damage


def damage_manifest(**values):
    return lambda checkpoint: edit_manifest(checkpoint, lambda manifest: manifest.update(values))


def damage_listing(name, entry):
    return lambda checkpoint: edit_manifest(checkpoint, lambda manifest: manifest["files"].update({name: entry}))


ENTRY = {"size": 1, "sha256": "0" * 64}


@pytest.mark.parametrize(
    ("damage", "sentence"),
    [
        (damage_extra, "not listed in manifest.json"),
        (damage_link, "missing"),
        (damage_linked_folder, "not listed"),
        (damage_extra_link, "not listed"),
        (damage_pipe, "not listed"),
        (damage_directory_for_file, "missing"),
        (damage_hash(str.upper), "does not match manifest.sha256"),
        (damage_hash(lambda text: text + "\n"), "does not match manifest.sha256"),
        (damage_hash(lambda text: text[:-1]), "does not match manifest.sha256"),
        (damage_hash(lambda text: "0" * 64), "does not match manifest.sha256"),
        (damage_manifest(format=2), "format 2 was written by a newer rltrain; this one reads up to 1; upgrade"),
        (damage_manifest(format="new"), "not a manifest of rltrain"),
        (damage_manifest(format=None), "not a manifest of rltrain"),
        (damage_manifest(files=[]), "not a manifest of rltrain"),
        (damage_manifest(files=None), "not a manifest of rltrain"),
        (damage_manifest(agents=["ppo"]), "not a manifest of rltrain"),
        (damage_listing("../escape", ENTRY), "lists '../escape', which leaves the checkpoint's directory"),
        (damage_listing("/etc/hostname", ENTRY), "leaves the checkpoint's directory"),
        (damage_listing("agents/../../x", ENTRY), "leaves the checkpoint's directory"),
        (damage_listing("..\\escape", ENTRY), "leaves the checkpoint's directory"),
        (damage_listing("", ENTRY), "leaves the checkpoint's directory"),
        (damage_listing("nul\0l", ENTRY), "missing"),
        (damage_listing("trainer.safetensors", "text"), "has no size and sha256"),
        (damage_listing("trainer.safetensors", {"size": "1", "sha256": ""}), "has no size and sha256"),
        (damage_listing("trainer.safetensors", {"size": 2**62, "sha256": "0" * 64}), "the manifest says 4611686018427387904"),
        (lambda checkpoint: put_manifest(checkpoint, b"not json"), "not a manifest of rltrain"),
        (lambda checkpoint: put_manifest(checkpoint, [1, 2]), "not a manifest of rltrain"),
        (lambda checkpoint: put_manifest(checkpoint, b"[" * 100_000), "not a manifest of rltrain"),
        (lambda checkpoint: put_manifest(checkpoint, b"\xff\xfe"), "not a manifest of rltrain"),
    ],
)
def test_verify_says_what_is_wrong(damage, sentence, checkpoint):
    damage(checkpoint)
    with pytest.raises(CheckpointError) as caught:
        verify(checkpoint)
    assert sentence in str(caught.value)
    for command in (["checkpoint", "verify", str(checkpoint)], ["eval", str(checkpoint), "episodes=1"]):
        assert_one_error(call(*command), 3, sentence)


def test_a_huge_manifest_is_not_read(checkpoint):
    with open(checkpoint / "manifest.json", "r+b") as file:
        file.truncate(2**40)  # sparse: takes no space, and no memory if it isn't read
    with pytest.raises(CheckpointError, match="too large to be a manifest"):
        read_manifest(checkpoint)


def test_sizes_are_checked_before_anything_is_read(checkpoint):
    with open(checkpoint / "trainer.safetensors", "r+b") as file:
        file.truncate(2**40)
    with pytest.raises(CheckpointError, match="truncated or changed"):
        verify(checkpoint)


def forge(name: str, data: bytes):
    return lambda checkpoint: put_file(checkpoint, name, data)


def forge_foreign(checkpoint):
    from safetensors.numpy import save

    put_file(checkpoint, "agents/ppo/policy.safetensors", save({"weight": np.zeros(3)}))


def forge_reference(checkpoint):
    from safetensors.numpy import save

    tree = {"parameters": {"$array": "nothing"}}
    put_file(checkpoint, "agents/ppo/policy.safetensors", save({}, metadata={"tree": json.dumps(tree)}))


def forge_pickle(checkpoint):
    import pickle

    class Bomb:
        def __reduce__(self):
            return os.system, ("touch exploded",)

    put_file(checkpoint, "agents/ppo/policy.safetensors", pickle.dumps(Bomb()))


@pytest.mark.parametrize(
    ("damage", "sentence"),
    [
        (forge_foreign, "policy.safetensors: not a part of a checkpoint"),
        (forge_reference, "policy.safetensors: not a part of a checkpoint"),
        (forge_pickle, "policy.safetensors: not a part of a checkpoint"),
        (forge("agents/ppo/policy.safetensors", b""), "not a part of a checkpoint"),
        (forge("agents/ppo/policy.safetensors", b"\xff" * 100), "not a part of a checkpoint"),
        (damage_manifest(agents={"ppo": "SAC"}), "agent 'ppo' was trained by SAC, not by PPO"),
        (damage_manifest(agents={"sac": "SAC"}), "has no agent 'ppo'; it has sac"),
        (forge("config.yaml", b"\x00\x01"), "config.yaml: not "),
        (forge("config.yaml", b"[1, 2]"), "config.yaml: not a configuration of rltrain"),
        (forge("config.yaml", b"a: [1"), "config.yaml: not YAML"),
        (forge("config.yaml", b"!!python/object/apply:os.system ['touch exploded']"), "config.yaml: not YAML"),
    ],
)
def test_foreign_contents_say_which_they_are(damage, sentence, checkpoint, here):
    damage(checkpoint)
    assert_one_error(call("eval", str(checkpoint), "episodes=1"), 3, sentence)
    assert not (here / "exploded").exists()


def test_another_architecture_says_so(trained, here):
    shutil.copytree(trained, "run")
    for sizes in ("[16]", "[8,8]", "[]", "[1]"):
        result = call("train", *SMALL, f"agents.ppo.network.policy_sizes={sizes}", "init_from=run", "run.dir=new")
        assert_one_error(result, 3, "agents.ppo: written by another architecture")
    assert_one_error(call("eval", "run", "env=Acrobot-v1", "episodes=1"), 3, "written by another architecture")
    assert not (here / "new").exists()


def test_a_network_of_one_unit_does_not_pass_for_a_larger_one(here):
    """Broadcasting would fit (1, 4) weights into (8, 4)."""
    train("agents.ppo.network.policy_sizes=[1]", "trainer.timesteps=4", "run.dir=run")
    assert_one_error(call("train", *SMALL, "init_from=run"), 3, "agents.ppo: written by another architecture")


# -- writing -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "value", [np.array([1.0, np.nan]), np.float32(np.inf), float("nan"), [1.0, float("inf")], (np.array(-np.inf),)]
)
def test_a_policy_that_is_not_finite_is_never_written(value, tmp_path):
    store = CheckpointStore(tmp_path)
    store.save(1, {"agents/a/policy": {"w": np.zeros(2)}}, {}, {})
    with pytest.raises(NonFiniteError, match=r"agents/a/policy/w.*: not finite"):
        store.save(1, {"agents/a/policy": {"w": value}}, {}, {})
    with pytest.raises(NonFiniteError):
        store.save(2, {"agents/a/policy": {"w": value}}, {}, {})
    assert sorted(path.name for path in tmp_path.iterdir()) == ["1", "latest"]
    assert read_part(tmp_path / "1", "agents/a/policy", verify(tmp_path / "1"))["w"].tolist() == [0, 0]


def failing(function, after, number=errno.ENOSPC):
    """Return `function`, which raises from call `after` on."""
    calls = [0]

    def call(*args, **kwargs):
        calls[0] += 1
        if calls[0] > after:
            raise OSError(number, os.strerror(number))
        return function(*args, **kwargs)

    return call


@pytest.mark.parametrize("name", ["fsync", "rename", "replace"])
@pytest.mark.parametrize("after", range(9))
def test_a_failed_save_leaves_the_previous_one_and_no_rubbish(name, after, tmp_path, monkeypatch):
    """Whichever call fails: the old checkpoint verifies, `latest` names one that does, no temporary stays."""
    store, parts = CheckpointStore(tmp_path), {"a": {"x": np.zeros(2)}, "b": {"x": np.ones(3)}}
    store.save(1, parts, {}, {"config.yaml": b"a: 1\n"})
    failed = False
    with monkeypatch.context() as patch:
        patch.setattr(os, name, failing(getattr(os, name), after))
        try:
            store.save(2, parts, {}, {"config.yaml": b"a: 1\n"})
        except OSError:
            failed = True
    calls = {"fsync": 3 + 2 + 2 + 1, "rename": 1, "replace": 1}  # files, manifest and hash, folder and its parent, `latest`
    assert failed == (after < calls[name])
    verify(tmp_path / "1")
    verify(store.pointer("latest"))
    assert not [path.name for path in tmp_path.iterdir() if path.name.startswith(".")]


def test_replacing_a_checkpoint_that_fails_keeps_the_old_one(tmp_path, monkeypatch):
    """The same timestep again; the second rename fails: the old one is put back."""
    store = CheckpointStore(tmp_path)
    store.save(1, {"a": {"x": np.zeros(2)}}, {}, {})
    for after in (0, 1):
        with monkeypatch.context() as patch:
            patch.setattr(os, "rename", failing(os.rename, after))
            with pytest.raises(OSError, match="No space"):
                store.save(1, {"a": {"x": np.ones(2)}}, {}, {})
        store.clear_temporaries()
        assert read_part(tmp_path / "1", "a", verify(tmp_path / "1"))["x"].tolist() == [0, 0]


def test_a_disk_that_fills_up_while_training(here, monkeypatch):
    """One warning, training goes on, the previous checkpoint stays; the last save works again: exit 0."""
    real = checkpoints._write_pieces

    def full(path, data):
        if ".tmp-2" in str(path) or ".tmp-3" in str(path):  # those of timesteps 20 and 30
            raise OSError(errno.ENOSPC, "No space left on device")
        return real(path, data)

    monkeypatch.setattr(checkpoints, "_write_pieces", full)
    result = train("trainer.timesteps=40", "checkpoints.interval=10", "run.dir=run")
    assert result.text.count("the disk is full") == 1
    warning = "warning: timestep 20: checkpoint: the disk is full; the previous checkpoint is intact, training goes on"
    assert warning in result.text
    store = CheckpointStore(here / "run/checkpoints")
    assert [path.name for path in store.all()] == ["40", "10"]
    assert verify(store.pointer("latest"))["timestep"] == 40


def test_a_disk_that_stays_full_exits_4(here, monkeypatch):
    real = checkpoints._write_pieces

    def full(path, data):
        if ".tmp-10-" not in str(path):
            raise OSError(errno.ENOSPC, "No space left on device")
        return real(path, data)

    monkeypatch.setattr(checkpoints, "_write_pieces", full)
    result = train("trainer.timesteps=40", "checkpoints.interval=10", "run.dir=run", status=4)
    assert "error: run.dir=run: the final checkpoint can't be written: the disk is full" in result.err
    assert "Traceback" not in result.err
    store = CheckpointStore(here / "run/checkpoints")
    assert verify(store.pointer("latest"))["timestep"] == 10
    assert [path.name for path in sorted(store.directory.iterdir())] == ["10", "latest"]
    assert summary(here / "run")["exit_reason"].startswith("failed: StorageError")


def test_a_real_limit_of_the_kernel(here, zygote):
    """Files of more than 16 KiB can't be written: a policy of 64 x 64 is one, ten rows of metrics are not."""
    limit = "import resource; resource.setrlimit(resource.RLIMIT_FSIZE, (16384, 16384))"
    larger = ("agents.ppo.network.policy_sizes=[64,64]", "tracking.interval=50")
    overrides = merged(SMALL, (*larger, "trainer.timesteps=500", "checkpoints.interval=100", "run.dir=run"))
    result = zygote.run("train", *overrides, before=limit)
    assert result.status == 4, result.err
    assert result.err.count("warning: ") == 1
    assert "error: run.dir=run: the final checkpoint can't be written: File too large" in result.err
    assert not list((here / "run/checkpoints").glob("*"))
    assert len((here / "run/metrics.jsonl").read_text().splitlines()) == 10


@pytest.mark.parametrize("directory", ["/sys/rltrain", "/dev/null/rltrain"])
def test_a_directory_that_can_not_be_made_exits_4(directory, here):
    """Not even root makes one there."""
    assert_one_error(call("train", *SMALL, "trainer.timesteps=8", f"run.dir={directory}/run"), 4, f"run.dir={directory}/run: ")


# -- the checkpoints of a run ------------------------------------------------------------------------------------------------


def save(store, *timesteps):
    for timestep in timesteps:
        store.save(timestep, {"a": {"x": np.array(timestep)}}, {"timestep": timestep}, {})


def names(store):
    return [int(path.name) for path in store.all()]


def test_pruning_keeps_the_newest_and_best(tmp_path):
    store = CheckpointStore(tmp_path, keep=2)
    save(store, 10)
    store.mark_best(10)
    save(store, 20, 30, 40)
    assert names(store) == [40, 30, 10]
    store.mark_best(40)
    assert names(store) == [40, 30]
    assert (tmp_path / "latest").read_text() == "40"
    assert (tmp_path / "best").read_text() == "40"


def test_pruning_keeps_latest_behind_newer_ones_that_are_corrupt(tmp_path):
    """A run that goes on from 10 because 20 and 30 are corrupt: what it saves next is older by name, and the only good one."""
    store = CheckpointStore(tmp_path, keep=1)
    for timestep in (20, 30):
        (tmp_path / str(timestep)).mkdir()
    save(store, 15)
    assert 15 in names(store)
    assert store.pointer("latest").name == "15"
    path, skipped = store.newest_good()
    assert path.name == "15"
    assert [line.split(":")[0] for line in skipped] == [str(tmp_path / "30")]


@pytest.mark.parametrize("text", ["", "abc", "../../etc", "10\n20", "-1", "1.5"])
def test_a_pointer_that_holds_rubbish(text, tmp_path):
    store = CheckpointStore(tmp_path)
    (tmp_path / "latest").write_text(text)
    with pytest.raises(CheckpointError, match="not the name of a checkpoint"):
        store.pointer("latest")


def test_a_pointer_that_is_not_text(tmp_path):
    (tmp_path / "best").write_bytes(b"\xff\xfe\x00")
    store = CheckpointStore(tmp_path, keep=1)
    with pytest.raises(CheckpointError, match="not the name of a checkpoint"):
        store.pointer("best")
    save(store, 1, 2)  # a broken `best` doesn't end a run
    assert names(store)[0] == 2


def test_what_a_killed_process_left_is_cleared(tmp_path):
    store = CheckpointStore(tmp_path)
    save(store, 10, 20)
    (tmp_path / ".tmp-30-123").mkdir()
    (tmp_path / ".tmp-30-123/half").write_text("x")
    os.rename(tmp_path / "20", tmp_path / ".old-20-123")  # killed between the two renames of a replacement
    assert names(store) == [10]
    store.clear_temporaries()
    assert names(store) == [20, 10]
    assert verify(store.pointer("latest"))["timestep"] == 20
    assert not [path for path in tmp_path.iterdir() if path.name.startswith(".")]


def test_checkpoints_of_a_run(trained):
    store = CheckpointStore(trained / "checkpoints")
    assert store.pointer("latest").name == "200"
    assert store.pointer("best").name == str(summary(trained)["agents"]["ppo"]["best"]["timestep"])
    assert {100, 200} & set(names(store))
    for path in store.all():
        verify(path)


def test_the_hash_in_the_summary_is_the_checkpoints(trained):
    path = trained / "checkpoints/200"
    policy = read_part(path, "agents/ppo/policy", verify(path))
    assert tree_sha256(policy) == summary(trained)["agents"]["ppo"]["parameters_sha256"]
    training = read_part(path, "agents/ppo/training", verify(path))
    assert not any("optimizer" in key for key in policy)
    assert training["algorithm"]["optimizers"]


def test_a_second_interrupt_while_saving_leaves_no_rubbish(here, monkeypatch):
    """KeyboardInterrupt in the middle of a save: the temporary is removed, the previous checkpoint is intact."""
    real, count = checkpoints._write_pieces, [0]

    def interrupted(path, data):
        written = real(path, data)
        if ".tmp-20-" in str(path):
            for _ in range(2):
                os.kill(os.getpid(), signal.SIGINT)
        return written

    monkeypatch.setattr(checkpoints, "_write_pieces", interrupted)
    monkeypatch.setattr(signals, "ONE", 0.0)  # two that come at once are two presses here
    result = call("train", *SMALL, "trainer.timesteps=40", "checkpoints.interval=10", "run.dir=run")
    assert (result.status, count) == (130, [0])
    store = CheckpointStore(here / "run/checkpoints")
    assert verify(store.pointer("latest"))["timestep"] == 10
    assert sorted(path.name for path in store.directory.iterdir()) == ["10", "latest"]
