"""The filter, instruction by instruction, for both architectures: what the kernel would decide."""

from __future__ import annotations

import errno

import pytest

from finetrial.sandbox.inside import seccomp

PID = 4711
ALLOWED = "allowed"


def decision(machine: str, name_or_number: str | int, *arguments: int, architecture: int | None = None) -> str | int:
    """Run the filter as the kernel does: 'allowed', 'killed' or an error number."""
    column, own = seccomp.ARCHITECTURES[machine]
    number = name_or_number if isinstance(name_or_number, int) else seccomp.SYSCALLS[name_or_number][column]
    assert number is not None
    arguments += (0,) * (6 - len(arguments))
    data = {seccomp.OFFSET_NUMBER: number, seccomp.OFFSET_ARCHITECTURE: own if architecture is None else architecture}
    data |= {seccomp.OFFSET_ARGUMENTS + 8 * place: value & 0xFFFFFFFF for place, value in enumerate(arguments)}
    code, place, accumulator = seccomp.program(machine, PID), 0, 0
    while True:
        operation, if_true, if_false, constant = code[place]
        place += 1
        if operation == seccomp.LOAD:
            accumulator = data[constant]
        elif operation == seccomp.AND:
            accumulator &= constant
        elif operation == seccomp.RETURN:
            return {seccomp.ALLOW: ALLOWED, seccomp.KILL_PROCESS: "killed"}.get(constant, constant & 0xFFFF)
        else:
            holds = {seccomp.EQUAL: accumulator == constant, seccomp.GREATER: accumulator > constant,
                     seccomp.ANY_BIT: bool(accumulator & constant)}[operation]
            place += if_true if holds else if_false


@pytest.fixture(params=sorted(seccomp.ARCHITECTURES))
def machine(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def test_every_listed_call_is_refused(machine: str) -> None:
    column, _ = seccomp.ARCHITECTURES[machine]
    for name, numbers in seccomp.SYSCALLS.items():
        if name not in seccomp.DECIDED_BY_ARGUMENTS and numbers[column] is not None:
            expected = errno.ENOSYS if name in seccomp.NEVER_HEARD_OF else errno.EPERM
            assert decision(machine, name) == expected, name


def test_asynchronous_input_and_output_is_refused_by_its_numbers() -> None:
    """io_setup, io_destroy, io_submit, io_cancel, io_getevents, io_pgetevents: 0 is a number too."""
    assert {decision("x86_64", number) for number in (206, 207, 208, 209, 210, 333)} == {errno.ENOSYS}
    assert {decision("aarch64", number) for number in (0, 1, 2, 3, 4, 292)} == {errno.ENOSYS}


def test_numbers_are_listed_once(machine: str) -> None:
    column, _ = seccomp.ARCHITECTURES[machine]
    numbers = [pair[column] for pair in seccomp.SYSCALLS.values() if pair[column] is not None]
    assert len(set(numbers)) == len(numbers)


@pytest.mark.parametrize(("call", "arguments", "expected"), [
    ("clone", (0x3D0F00,), ALLOWED),  # what pthread_create passes
    ("clone", (17,), errno.EPERM),  # fork
    ("clone", (0x4111,), errno.EPERM),  # vfork and posix_spawn
    ("kill", (PID, 9), ALLOWED), ("kill", (1, 9), errno.EPERM), ("kill", (-1, 9), errno.EPERM),
    ("kill", (0, 9), errno.EPERM), ("tgkill", (PID, 1, 6), ALLOWED), ("tgkill", (1, 1, 6), errno.EPERM),
    ("prlimit64", (0, 7), ALLOWED), ("prlimit64", (PID, 7), ALLOWED), ("prlimit64", (1, 7), errno.EPERM),
    ("socketpair", (1, 0x80801), ALLOWED),  # AF_UNIX, SOCK_STREAM with both flags
    ("socketpair", (1, 2), errno.EPERM), ("socketpair", (2, 1), errno.EPERM), ("socketpair", (1, 5), errno.EPERM),
    ("fcntl", (3, 2), ALLOWED), ("fcntl", (3, 8), errno.EPERM), ("fcntl", (3, 15), errno.EPERM),
    ("ioctl", (0, 0x5401), ALLOWED), ("ioctl", (0, 0x5412), errno.EPERM), ("ioctl", (0, 0x8902), errno.EPERM),
    ("prctl", (15,), ALLOWED), ("prctl", (1,), errno.EPERM), ("prctl", (4,), errno.EPERM),
    ("fallocate", (3, 0, 0, 9), ALLOWED),  # posix_fallocate
    ("fallocate", (3, 1, 0, 9), errno.EPERM), ("fallocate", (3, 3, 0, 9), errno.EPERM),
    ("io_setup", (1,), errno.ENOSYS), ("io_pgetevents", (), errno.ENOSYS), ("syncfs", (3,), errno.EPERM),
    ("openat", (-100, 0, 0x80000), ALLOWED),  # O_RDONLY | O_CLOEXEC
    ("openat", (-100, 0, 0x80241, 0o666), ALLOWED),  # O_WRONLY | O_CREAT | O_TRUNC: Landlock asks for the right to write
    ("openat", (-100, 0, 0x242), ALLOWED), ("openat", (-100, 0, 0x200), errno.EPERM),
    ("openat", (-100, 0, 3), errno.EPERM), ("openat", (-100, 0, 0x80203), errno.EPERM),
])
def test_decided_by_arguments(machine: str, call: str, arguments: tuple[int, ...], expected: str | int) -> None:
    assert decision(machine, call, *arguments) == expected


@pytest.mark.parametrize(("flags", "expected"), [(0, ALLOWED), (0x241, ALLOWED), (0x200, errno.EPERM), (0x203, errno.EPERM)])
def test_open_of_x86_64(flags: int, expected: str | int) -> None:
    assert decision("x86_64", "open", 0, flags) == expected


def test_other_numbers(machine: str) -> None:
    read = {"x86_64": 0, "aarch64": 63}[machine]
    assert decision(machine, read) == ALLOWED
    assert decision(machine, seccomp.NEWEST) == ALLOWED
    assert decision(machine, seccomp.NEWEST + 1) == errno.ENOSYS
    assert decision(machine, 0x40000000 + 41) == errno.ENOSYS  # socket of the x32 ABI
    assert decision(machine, read, architecture=0x40000003) == "killed"  # 32-bit x86


def test_a_machine_without_table() -> None:
    with pytest.raises(OSError, match="no table of system calls for riscv64"):
        seccomp.program("riscv64", PID)
