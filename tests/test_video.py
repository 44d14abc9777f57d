"""Videos: which episodes, frame by frame; in evaluations and during training; without a display; and what can't be filmed."""

import itertools
import json
import os
import re
from pathlib import Path

import numpy as np
import pytest
from command_line import assert_one_error, call, rows, summary, train
from PIL import Image, ImageSequence

from rltrain import video
from rltrain.assemble import make_trainer
from rltrain.config import check, compose
from rltrain.envs.gymnasium import GymnasiumEnv

NAME = re.compile(r"(?P<env>.+)_(?P<agent>\w+)_at-(?P<timestep>\d+)_((?P<which>best|median|worst)_)?episode-(?P<episode>\d+)_"
                  r"return_(?P<value>-?\d+\.\d\d)\.(?P<form>gif|mp4)")  # fmt: skip
DRAWN = ("env=drawn_envs:Drawn", "trainer.timesteps=8", "env.num_envs=3")


def read_gif(path: Path) -> tuple[list[int], float]:
    """Return each picture's grey, and the milliseconds that the first is shown."""
    with Image.open(path) as image:
        duration = image.info["duration"]
        frames = [np.asarray(frame.convert("RGB")) for frame in ImageSequence.Iterator(image)]
    assert all(frame.shape == (40, 60, 3) and (frame == frame[0, 0]).all() for frame in frames)
    return [int(frame[0, 0, 0]) for frame in frames], duration


def greys(episode: int, length: int) -> list[int]:
    """Return the pictures of an episode of a copy of Drawn: of its start, and after every step."""
    return [8 * step + 100 * (episode % 2) for step in range(length + 1)]


def evaluation(here: Path) -> dict:
    """Return the last eval.json."""
    return json.loads(max(here.rglob("eval.json"), key=lambda path: path.stat().st_mtime_ns).read_text())


@pytest.mark.parametrize("vectorization", ["sync", pytest.param("async", marks=pytest.mark.slow)])
def test_the_best_the_median_and_the_worst_episode(vectorization, here):
    train("run.dir=run", *DRAWN, f"env.vectorization={vectorization}")
    result = call("eval", "run", "video=gif", "episodes=8")
    assert result.status == 0, result.err
    told = evaluation(here)
    returns, lengths = told["episodes"]["ppo"]["returns"], told["episodes"]["ppo"]["lengths"]
    assert len(told["videos"]["ppo"]) == len(list(Path("run/videos").iterdir())) == 3
    for entry in told["videos"]["ppo"]:
        path, episode = Path(entry["file"]), entry["episode"]
        found = NAME.fullmatch(path.name)
        assert (found["env"], found["agent"], found["timestep"], found["which"]) == (
            "drawn_envs_Drawn",
            "ppo",
            "8",
            entry["which"],
        )
        assert int(found["episode"]) == episode
        assert float(found["value"]) == entry["return"] == returns[episode] == 10 * entry["length"] == 10 * lengths[episode]
        rank = {"best": -1, "worst": 0, "median": 3}[entry["which"]]
        assert entry["return"] == sorted(returns)[rank]
        nth = episode - (0 if episode < 3 else 3 if episode < 6 else 6)  # of its copy's: 8 episodes on 3 copies are 3, 3, 2
        frames, duration = read_gif(path)
        assert (frames, duration) == (greys(nth, lengths[episode]), 50)
        assert f"{entry['which']} of ppo, return {entry['return']:.2f}: {path}" in result.out.replace("\n", "")


def test_json_lists_them_and_figures_are_those_without(here):
    train("run.dir=run", *DRAWN)
    without = json.loads(call("eval", "run", "json=true", "episodes=8").out)
    told = json.loads(call("eval", "run", "json=true", "episodes=8", "video=gif", "out=elsewhere/films").out)
    assert told.pop("videos")["ppo"][0]["file"].startswith("elsewhere/films/drawn_envs_Drawn_ppo_at-8_best_")
    assert told == without
    assert not Path("run/videos").exists() and len(list(Path("elsewhere/films").iterdir())) == 3


def test_few_episodes_have_few_videos(here):
    train("run.dir=run", *DRAWN)
    for episodes, which in ((1, {"best"}), (2, {"best", "worst"}), (3, {"best", "median", "worst"})):
        told = json.loads(call("eval", "run", "json=true", f"episodes={episodes}", "video=gif", f"out={episodes}").out)
        assert {entry["which"] for entry in told["videos"]["ppo"]} == which
        assert (
            len({entry["episode"] for entry in told["videos"]["ppo"]}) == len(which) == len(list(Path(str(episodes)).iterdir()))
        )


def test_episodes_that_are_cut(here):
    train("run.dir=run", *DRAWN)
    told = json.loads(call("eval", "run", "json=true", "episodes=9", "video=gif", "evaluation.max_episode_steps=4").out)
    for entry in told["videos"]["ppo"]:
        assert entry["length"] <= 4
        assert read_gif(Path(entry["file"]))[0] == greys(entry["episode"] % 3, entry["length"])


def test_several_agents_and_a_team(here):
    train("run.dir=two", *DRAWN, "agents=[ppo,b:a2c]", "env.num_envs=4")
    told = json.loads(call("eval", "two", "json=true", "episodes=3", "video=gif").out)
    assert set(told["videos"]) == {"ppo", "b"} and len(list(Path("two/videos").iterdir())) == 6
    for entry in (entry for own in told["videos"].values() for entry in own):
        assert read_gif(Path(entry["file"]))[0] == greys({0: 0, 1: 1, 2: 0}[entry["episode"]], entry["length"])
    call(
        "train",
        "env=pettingzoo",
        "env.id=drawn_envs:DrawnTeam",
        "agents=ippo",
        "env.num_envs=2",
        "trainer.timesteps=8",
        "run.dir=team",
    )
    told = json.loads(call("eval", "team", "json=true", "episodes=3", "video=gif", "random=false").out)
    assert len(told["videos"]["ippo"]) == 3
    for entry in told["videos"]["ippo"]:
        assert read_gif(Path(entry["file"])) == ([0, 8, 16, 24, 32], 200)


def test_each_agents_best_says_how_long_it_was_trained(here):
    train("run.dir=two", *DRAWN[:1], "trainer.timesteps=8", "agents=[ppo,b:a2c]", "env.num_envs=4", "checkpoints.interval=4")
    Path("two/checkpoints/best-ppo").write_text("4")
    Path("two/checkpoints/best-b").write_text("8")
    told = json.loads(call("eval", "two/best", "json=true", "episodes=2", "video=gif").out)
    names = {
        agent: {NAME.fullmatch(Path(entry["file"]).name)["timestep"] for entry in own} for agent, own in told["videos"].items()
    }
    assert names == {"ppo": {"4"}, "b": {"8"}}


def test_an_environment_that_never_plays_the_same_twice(here):
    train("run.dir=run", *DRAWN[1:], "env=drawn_envs:Different")
    result = call("eval", "run", "json=true", "episodes=6", "video=gif")
    assert "warning: video=gif: drawn_envs:Different doesn't play an episode twice in the same way" in result.err
    for entry in json.loads(result.out)["videos"]["ppo"]:
        frames = read_gif(Path(entry["file"]))[0]
        assert f"return_{10 * (len(frames) - 1):.2f}" in entry["file"]  # their own


@pytest.mark.parametrize(("env", "why"), [
    pytest.param("Blank", "its render() returns nothing, not a picture: an array (H, W, 3) of uint8", marks=pytest.mark.slow),
    pytest.param("Growing", "its pictures change in size, from (40, 60, 3) to (41, 60, 3)", marks=pytest.mark.slow),
    ("Raising", "render at step 2: RuntimeError: no more paint"),
    ("Refusing", "env.id=drawn_envs:Refusing can't be drawn as pictures (render_mode=rgb_array)"),
])  # fmt: skip
def test_what_cannot_be_drawn_is_said_and_the_evaluation_goes_on(env, why, here):
    result = train(
        "run.dir=run",
        *DRAWN[1:],
        f"env=drawn_envs:{env}",
        "evaluation.interval=4",
        "evaluation.episodes=3",
        "evaluation.video=gif",
    )
    assert result.err.count("warning: evaluation.video=gif: no videos are written: ") == 1 and why in result.err.replace(
        "\n", " "
    )
    assert summary(Path("run"))["agents"]["ppo"]["best"]["score"] > 0
    without = json.loads(call("eval", "run", "json=true", "episodes=6").out)
    result = call("eval", "run", "json=true", "episodes=6", "video=gif")
    assert (result.status, json.loads(result.out)) == (0, without)
    lines = [line for line in result.err.splitlines() if line.startswith("warning: ")]
    assert len(lines) == 1 and lines[0].startswith("warning: video=gif: no videos are written: ") and why in lines[0]
    assert not Path("run/videos").exists() or not list(Path("run/videos").iterdir())


def test_without_render_nobody_tries(here):
    train("run.dir=run", *DRAWN[1:], "env=sample_envs:Constant")
    result = call("eval", "run", "video=gif", "episodes=3")
    assert "can't be drawn as pictures" in result.err and "render_modes" not in result.err and result.status == 0


def test_options_that_do_not_go_together(here, monkeypatch):
    train("run.dir=run", *DRAWN)
    assert_one_error(call("eval", "run", "video=avi"), 2, "video=avi: unknown; options: false, gif, mp4, true")
    assert_one_error(
        call("eval", "run", "video=true", "render=human"), 2, "video=true: render=human shows the episodes in a window"
    )
    assert_one_error(call("eval", "run", "out=x"), 2, "out=x: says where videos go; add video=true")
    assert_one_error(
        call("train", "evaluation.video=gif"), 2, "evaluation.video=gif: there are no evaluations; set evaluation.interval"
    )
    Path("file").touch()
    assert_one_error(call("eval", "run", "video=gif", "out=file"), 4, "out=file: ", "out=DIR puts the videos elsewhere")
    monkeypatch.setattr(video, "find_spec", lambda package: None)
    for arguments in (("eval", "run", "video=true"), ("eval", "run", "video=gif")):
        assert_one_error(call(*arguments), 2, "is not installed; pip install", "[video]")
    wrong = ("train", "evaluation.interval=4", "evaluation.video=true", "run.dir=new")
    assert_one_error(call(*wrong), 2, "evaluation.video=mp4: its package imageio_ffmpeg is not installed; ")
    assert not Path("new").exists() and not Path("run/videos").exists()


# -- during training -------------------------------------------------------------------------------------------------------


def test_training_films_an_episode_of_each_evaluation_and_is_not_changed(here):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    how = (*DRAWN, "trainer.timesteps=70", "env.num_envs=4", "evaluation.interval=35", "evaluation.episodes=5",
           "tracking.tensorboard=true")  # fmt: skip
    train("run.dir=without", *how)
    result = train("run.dir=filmed", *how, "evaluation.video=gif")
    assert "warning: evaluation" not in result.err
    assert rows(Path("without")) == rows(Path("filmed"))
    sha = [summary(Path(name))["agents"]["ppo"]["parameters_sha256"] for name in ("without", "filmed")]
    assert sha[0] == sha[1]
    files = sorted(path.name for path in Path("filmed/videos").iterdir())
    found = [NAME.fullmatch(name) for name in files]
    assert [(name["timestep"], name["episode"], name["which"]) for name in found] == [("35", "0", None), ("70", "0", None)]
    for name, one in zip(files, found, strict=True):
        assert read_gif(Path("filmed/videos", name))[0] == greys(0, int(float(one["value"])) // 10)
    events = EventAccumulator("filmed", size_guidance={"images": 0})
    events.Reload()
    shown = events.Images("evaluation/episode")
    assert [(image.step, image.width, image.height) for image in shown] == [(140, 60, 40), (280, 60, 40)]
    assert shown[0].encoded_image_string == Path("filmed/videos", files[0]).read_bytes()
    assert not Path("without/videos").exists()


def test_several_agents_film_one_each_also_in_parallel(here):
    how = [*DRAWN[:2], "agents=[ppo,b:ppo]", "env.num_envs=4", "evaluation.interval=8", "evaluation.episodes=2", "seed=1"]
    train("run.dir=run", *how, "evaluation.video=gif")
    names = [NAME.fullmatch(path.name) for path in Path("run/videos").iterdir()]
    assert sorted(name["agent"] for name in names) == ["b", "ppo"]
    for setting, placement in (("false", "partitioned"), ("gif", "shared")):
        trainer = make_trainer(check(compose([*how, "trainer=parallel", f"evaluation.video={setting}"])))
        assert trainer.placement == placement
        trainer.close()


# -- files and displays ----------------------------------------------------------------------------------------------------


def write(path: Path, fps: float, frames: list[np.ndarray], **how: int) -> None:
    made = video.Video(path.with_name(f".{path.name}"), fps, **how)
    for frame in frames:
        made.add(frame)
    made.close(path)


def test_a_gif_keeps_time_and_its_end_and_is_bounded(here):
    flat = [np.full((40, 60, 3), i % 250, np.uint8) for i in range(3001)]
    for fps, count, length, every in ((50, 101, 101, 2), (30, 10, 10, 2), (10, 10, 10, 1), (50, 3001, 3001, 4)):
        write(here / "a.gif", fps, flat[:count], length=length)
        frames, duration = read_gif(here / "a.gif")
        whole = [i % 250 for i in range(0, count, every)]
        assert frames[: len(whole)] == whole and len(frames) <= video.GIF_FRAMES + 1
        assert frames[-1] == (count - 1) % 250 and abs(duration - 1000 * every / fps) <= 10
    write(here / "large.gif", 10, [np.full((400, 640, 3), i, np.uint8) for i in range(2)])
    with Image.open(here / "large.gif") as image:
        assert image.size == (320, 200)
    assert sorted(path.name for path in here.iterdir()) == ["a.gif", "large.gif"]


def test_frames_per_second():
    assert [video.frames_per_second(told) for told in (50, 12.5, None, 0, -1, float("nan"), "60", 1e9)] == [50, 12.5, *[30] * 6]


def test_pictures_of_other_forms(here):
    grey, alpha = np.full((4, 6), 7, np.uint8), np.full((4, 6, 4), 7, np.uint8)
    assert video.as_frame(grey).shape == video.as_frame(alpha).shape == (4, 6, 3)
    for wrong in (
        None,
        np.zeros((4, 6, 3)),
        np.zeros((4, 6, 2), np.uint8),
        [np.zeros((4, 6, 3), np.uint8)] * 2,
        "text",
        np.zeros((0, 6, 3), np.uint8),
    ):
        with pytest.raises(video.VideoError, match="not a picture"):
            video.as_frame(wrong)


def test_mp4_has_every_frame(here):
    iio = pytest.importorskip("imageio.v3")
    pytest.importorskip("imageio_ffmpeg")
    train("run.dir=run", *DRAWN)
    told = json.loads(call("eval", "run", "json=true", "episodes=6", "video=true").out)
    for entry in told["videos"]["ppo"]:
        frames = iio.imread(entry["file"])
        assert frames.shape == (entry["length"] + 1, 40, 60, 3) and iio.immeta(entry["file"])["fps"] == 20
        np.testing.assert_allclose(frames.mean(axis=(1, 2, 3)), greys(entry["episode"] % 2, entry["length"]), atol=3)
    for size in ((41, 61), (5, 7)):  # odd, tiny
        write(here / "a.mp4", 29.97, [np.full((*size, 3), 50 * i, np.uint8) for i in range(5)])
        assert len(iio.imread(here / "a.mp4")) == 5
    assert not [path for path in here.iterdir() if path.name.startswith(".")]


def test_an_ffmpeg_that_fails_is_said(here, monkeypatch):
    ffmpeg = pytest.importorskip("imageio_ffmpeg")
    monkeypatch.setattr(ffmpeg, "get_ffmpeg_exe", lambda: "/bin/false")
    made = video.Video(here / "x.mp4", 20)
    with pytest.raises(video.VideoError, match="ffmpeg can't write it"):
        for _ in range(100):
            made.add(np.zeros((400, 600, 3), np.uint8))
    made.discard()


def test_simulators_draw_into_memory(monkeypatch):
    for name in ("SDL_VIDEODRIVER", "MUJOCO_GL"):
        monkeypatch.delenv(name, raising=False)
    tried: list[str] = []
    monkeypatch.setattr(video.sys, "platform", "linux")
    monkeypatch.setattr(video.ctypes.util, "find_library", lambda name: name)
    monkeypatch.setattr(video, "_draws", lambda name: tried.append(name) or name == "osmesa")
    with video.without_display(mujoco=False) as why:
        assert (os.environ["SDL_VIDEODRIVER"], os.environ["MUJOCO_GL"], why, tried) == ("dummy", "egl", "", [])
    with video.without_display(mujoco=True) as why:
        assert (os.environ["MUJOCO_GL"], why, tried) == ("osmesa", "", ["egl", "osmesa"])
    assert not {"SDL_VIDEODRIVER", "MUJOCO_GL"} & set(os.environ)
    monkeypatch.setattr(video, "_draws", lambda name: False)
    with video.without_display(mujoco=True) as why:
        assert why.startswith("MuJoCo can't draw without a display here, neither by EGL nor by OSMesa; apt install libegl1")
    monkeypatch.setenv("MUJOCO_GL", "glfw")  # somebody's own choice
    with video.without_display(mujoco=True) as why:
        assert (os.environ["MUJOCO_GL"], why) == ("glfw", "")


def test_what_a_copy_draws():
    env = GymnasiumEnv({"id": "CartPole-v1", "num_envs": 2}, seed=1, render_mode="rgb_array")
    try:
        env.reset()
        first, second = env.draw(0), env.draw(1)
        assert first.shape == (400, 600, 3) and (first != second).any() and env.render_fps == 50
    finally:
        env.close()


SIMULATORS = {
    "cartpole": ("env=CartPole-v1",), "pendulum": ("env=Pendulum-v1",), "lander": ("env=LunarLander-v3",),
    "cheetah": ("env=HalfCheetah-v5",), "native": ("env=CartPole-v1", "env.vectorization=native"),
    "spread": ("env=pettingzoo", "env.id=mpe/simple_spread_v3", "agents=ippo"), "pong": ("env=ALE/Pong-v5", "env.num_envs=2"),
}  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("name", SIMULATORS)
def test_simulators_move(name, here, monkeypatch):
    for variable in ("DISPLAY", "WAYLAND_DISPLAY", "SDL_VIDEODRIVER", "MUJOCO_GL"):
        monkeypatch.delenv(variable, raising=False)
    call("train", *SIMULATORS[name], "trainer.timesteps=20", "seed=1", "run.dir=run")
    result = call("eval", "run", "json=true", "episodes=4", "video=gif", "evaluation.max_episode_steps=60", "random=false")
    told = json.loads(result.out)
    own = next(iter(told["videos"].values()))
    assert len(own) == 3, result.err
    for entry in own:
        with Image.open(entry["file"]) as image:
            frames = [np.asarray(frame.convert("RGB"), float) for frame in ImageSequence.Iterator(image)]
        assert len(frames) >= min(20, entry["length"] // 2) and max(frame.std() for frame in frames) > 5
        assert np.mean([np.abs(a - b).max() > 20 for a, b in itertools.pairwise(frames)]) > 0.5
