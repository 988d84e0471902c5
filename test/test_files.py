"""Files that appear whole, together or not at all, and temporaries that nobody leaves behind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

import pytest
from xdsl.dialects.builtin import ModuleOp

from heatc import files, temporary
from heatc.api import make_context
from heatc.errors import HeatcError
from heatc.files import atomic_write, check_folder, new_file, together
from heatc.kinds import IR
from heatc.pipeline import DumpPhases, build, run_passes
from heatc.temporary import forget_swept, leftovers, scratch_folder, sweep

Monkey = pytest.MonkeyPatch

# --- One file ---------------------------------------------------------------------------------


def test_atomic_write(tmp_path: Path):
    path = tmp_path / "out"
    with atomic_write(path) as stream:
        stream.write(b"new")
        assert not path.exists()
    assert path.read_bytes() == b"new"
    with atomic_write(path, "w") as stream:
        stream.write("é\n")
    assert path.read_bytes() == "é\n".encode()
    assert os.listdir(tmp_path) == ["out"]


def test_atomic_write_keeps_the_old_file_on_failure(tmp_path: Path):
    path = tmp_path / "out"
    path.write_text("old")

    def fail() -> None:
        with atomic_write(path) as stream:
            stream.write(b"half")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fail()
    assert path.read_text() == "old"
    assert os.listdir(tmp_path) == ["out"]


def test_atomic_write_keeps_mode_and_link(tmp_path: Path):
    path, link = tmp_path / "out", tmp_path / "link"
    path.write_text("old")
    path.chmod(0o640)
    link.symlink_to(path)
    with atomic_write(link) as stream:
        stream.write(b"new")
    assert link.is_symlink()
    assert path.read_text() == "new"
    assert path.stat().st_mode & 0o777 == 0o640


def test_a_link_that_leads_to_itself_is_refused(tmp_path: Path):
    loop, second = tmp_path / "loop", tmp_path / "second"
    loop.symlink_to(second)
    second.symlink_to(loop)
    with (
        pytest.raises(HeatcError, match="a link that leads to itself"),
        atomic_write(loop) as stream,
    ):
        stream.write(b"new")
    assert loop.is_symlink()
    assert sorted(p.name for p in tmp_path.iterdir()) == ["loop", "second"]


def test_atomic_write_to_a_device():
    with atomic_write(os.devnull) as stream:
        stream.write(b"gone")
    assert not Path(os.devnull).is_file()


@pytest.mark.parametrize("name", ["missing/out", ".", "x" * 300, "file/out"])
def test_atomic_write_says_why_not(name: str, tmp_path: Path):
    (tmp_path / "file").touch()
    with pytest.raises(HeatcError, match="cannot write: ") as raised, atomic_write(tmp_path / name):
        pass
    assert raised.value.place == str(tmp_path / name)
    assert os.listdir(tmp_path) == ["file"]


def test_atomic_write_leaves_other_errors_alone(tmp_path: Path):
    """A missing input is not the output's fault."""
    with pytest.raises(FileNotFoundError), atomic_write(tmp_path / "out"):
        open(tmp_path / "input")  # noqa: SIM115


# --- A full disk ------------------------------------------------------------------------------


@pytest.fixture
def full_after(monkeypatch: Monkey) -> Any:
    """Lets so many bytes be written, and no more."""

    def limit(room: int) -> None:
        write = files._Noting.write

        def checked(self: Any, data: Any) -> int:
            nonlocal room
            room -= memoryview(data).nbytes
            if room < 0:
                error = OSError(28, "No space left on device")
                self.failure = error
                raise error
            return write(self, data)

        monkeypatch.setattr(files._Noting, "write", checked)

    return limit


def test_a_full_disk_is_a_message_about_the_file(tmp_path: Path, full_after: Any):
    path = tmp_path / "out"
    path.write_text("old")
    full_after(1000)
    with pytest.raises(HeatcError, match="no space left") as raised, atomic_write(path) as stream:
        stream.write(bytes(100_000))
    assert raised.value.place == str(path)
    assert path.read_text() == "old"
    assert os.listdir(tmp_path) == ["out"]


def test_a_full_disk_that_a_library_makes_something_else_of(tmp_path: Path, full_after: Any):
    def save(stream: IO[bytes]) -> None:
        """As torch.save does."""
        try:
            stream.write(bytes(100_000))
        except OSError:
            raise RuntimeError("unexpected pos 64 vs 0") from None

    full_after(1000)
    with pytest.raises(HeatcError, match="no space left") as raised, together() as batch:
        save((batch.open(tmp_path / "first"), batch.open(tmp_path / "second"))[1])
    assert raised.value.place == str(tmp_path / "second")
    assert not os.listdir(tmp_path)


def test_a_full_disk_leaves_whole_phases(tmp_path: Path, full_after: Any):
    module = ModuleOp([])
    folder = tmp_path / "phases"
    size = len(f"{IR.line()}{module!s}\n")
    full_after(2 * size + 1)
    with pytest.raises(HeatcError, match="no space left") as raised:
        run_passes(make_context(), module, build("cse,dce,cse"), [DumpPhases(folder)])
    assert raised.value.place == str(folder / "02-dce.mlir")
    found = {path.name: path.stat().st_size for path in folder.iterdir()}
    assert found == {"00-captured.mlir": size, "01-cse.mlir": size}


# --- Several files ----------------------------------------------------------------------------


def write_then_fail(folder: Path) -> None:
    """Two files, and an error about something else."""
    with together() as batch:
        batch.open(folder / "a").write(b"new")
        batch.open(folder / "c").write(b"new")
        raise ValueError("wrong")


def write_all(folder: Path, names: str) -> None:
    """Files whose content says that they are new."""
    with together() as batch:
        for name in names:
            batch.open(folder / name, "w").write(f"new {name}")


def test_files_appear_together(tmp_path: Path):
    with together() as batch:
        batch.open(tmp_path / "a").write(b"a")
        batch.open(tmp_path / "b", "w").write("b")
        assert not [name for name in os.listdir(tmp_path) if not name.startswith(".")]
    assert sorted(os.listdir(tmp_path)) == ["a", "b"]
    with pytest.raises(ValueError, match="wrong"):
        write_then_fail(tmp_path)
    assert (tmp_path / "a").read_bytes() == b"a"
    assert sorted(os.listdir(tmp_path)) == ["a", "b"]


@pytest.mark.parametrize("has_links", [True, False])
@pytest.mark.parametrize("failing", ["a", "b", "c"])
def test_a_move_that_fails_leaves_all_as_it_was(
    tmp_path: Path, monkeypatch: Monkey, failing: str, has_links: bool
):
    for name in "bc":
        (tmp_path / name).write_text(f"old {name}")
    replace = os.replace

    def fails(source: Path, target: Path) -> None:
        if target.name == failing and source.read_bytes().startswith(b"new"):
            raise PermissionError(1, "Operation not permitted", str(source))
        replace(source, target)

    def link(source: Path, target: Path) -> None:
        raise OSError(95, "Operation not supported")

    monkeypatch.setattr(os, "replace", fails)
    if not has_links:
        monkeypatch.setattr(os, "link", link)
    with pytest.raises(HeatcError, match="operation not permitted") as raised:
        write_all(tmp_path, "abc")
    assert raised.value.place == str(tmp_path / failing)
    found = {path.name: path.read_text() for path in tmp_path.iterdir()}
    if has_links or failing != "c":
        assert found == {"b": "old b", "c": "old c"}
    # Without links what was replaced is gone; what replaced it is whole, and stays.
    assert set(found) == {"b", "c"}


def test_a_new_file_leaves_what_is_there(tmp_path: Path):
    for content in ("first", "second"):
        with new_file(tmp_path / "x") as part:
            part.write_text(content)
    assert (tmp_path / "x").read_text() == "first"
    assert os.listdir(tmp_path) == ["x"]


def test_a_folder_is_checked_and_not_made(tmp_path: Path):
    check_folder(tmp_path / "a" / "b")
    assert not os.listdir(tmp_path)
    (tmp_path / "file").touch()
    with pytest.raises(HeatcError, match=r"cannot create: .* is a file"):
        check_folder(tmp_path / "file")
    with pytest.raises(HeatcError, match=r"cannot write: .* is a file"):
        check_folder(tmp_path / "file" / "below")


# --- What a killed process leaves -------------------------------------------------------------

_HOLDS = """
import sys, time
from pathlib import Path
from heatc.files import atomic_write
from heatc.temporary import scratch_folder
with atomic_write(Path(sys.argv[1]) / "out") as stream, scratch_folder() as folder:
    (folder / "content").write_text("x")
    stream.write(bytes(100_000))
    print("ready", flush=True)
    time.sleep(60)
"""


@contextmanager
def holding(folder: Path) -> Generator[subprocess.Popen[str]]:
    """A process that is writing a file in a folder, and has a scratch folder there."""
    process = subprocess.Popen(
        [sys.executable, "-c", _HOLDS, str(folder)],
        stdout=subprocess.PIPE,
        env={**os.environ, "TMPDIR": str(folder)},
        text=True,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    try:
        yield process
    finally:
        process.kill()
        process.wait()
        process.stdout.close()


def test_what_a_killed_process_left_is_swept_by_the_next_run(tmp_path: Path):
    with holding(tmp_path) as process:
        assert len(os.listdir(tmp_path)) == 2
        assert not leftovers(tmp_path)
        process.send_signal(signal.SIGKILL)
        process.wait()
    assert len(leftovers(tmp_path.parent)) == 2
    forget_swept()
    with atomic_write(tmp_path / "out") as stream:
        stream.write(b"new")
    assert os.listdir(tmp_path) == ["out"]


def test_what_a_process_holds_is_left_alone(tmp_path: Path):
    with holding(tmp_path):
        before = sorted(os.listdir(tmp_path))
        forget_swept()
        sweep(tmp_path)
        with atomic_write(tmp_path / "other") as stream:
            sweep(tmp_path)
            stream.write(b"new")
        assert sorted(os.listdir(tmp_path)) == sorted([*before, "other"])


def test_what_is_of_elsewhere_is_left_alone(tmp_path: Path):
    names = [
        ".heatc-00000000-11111111-7-0.tmp",  # another host
        ".heatc-7-0.tmp",  # no name of a temporary
        f".heatc-{temporary._host()}-{temporary._boot()}-7-0.tmp.py",
    ]
    for name in names:
        (tmp_path / name).touch()
    own = [  # an earlier boot of this host, another container on it
        f".heatc-{temporary._host()}-11111111-7-0.tmp",
        f".heatc-00000000-{temporary._boot()}-7-0.tmp",
    ]
    for name in own:
        (tmp_path / name).touch()
    assert [path.name for path in leftovers(tmp_path)] == sorted(own)
    forget_swept()
    sweep(tmp_path)
    assert sorted(os.listdir(tmp_path)) == sorted(names)


def test_a_swept_temporary_is_made_again(tmp_path: Path, monkeypatch: Monkey):
    """A sweeper may take the lock of a file between its making and its maker's own lock."""
    lock, seen = temporary._lock, []

    def late(descriptor: int, flags: int = 0) -> bool:
        if not seen:
            seen.extend(path.unlink() for path in tmp_path.iterdir())
        return lock(descriptor, flags)

    monkeypatch.setattr(temporary, "_lock", late)
    with atomic_write(tmp_path / "out") as stream:
        stream.write(b"new")
    assert seen
    assert (tmp_path / "out").read_bytes() == b"new"


def test_a_file_system_without_locks(tmp_path: Path, monkeypatch: Monkey):
    monkeypatch.setattr(temporary, "_lock", lambda *_: False)
    with atomic_write(tmp_path / "out") as stream:
        stream.write(b"new")
    (tmp_path / f".heatc-{temporary._host()}-{temporary._boot()}-7-0.tmp").touch()
    assert not leftovers(tmp_path)


def test_a_scratch_folder_is_gone(tmp_path: Path, monkeypatch: Monkey):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    with scratch_folder() as folder:
        (folder / "x").write_text("x")
        assert folder.parent == tmp_path
    assert not os.listdir(tmp_path)


def test_sweeping_a_full_folder_is_quick(tmp_path: Path):
    for number in range(2000):
        (tmp_path / f"{number}").touch()
    forget_swept()
    start = time.perf_counter()
    for _ in range(100):
        with atomic_write(tmp_path / "out") as stream:
            stream.write(b"x")
    assert time.perf_counter() - start < 5
