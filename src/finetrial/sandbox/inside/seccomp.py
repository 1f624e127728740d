"""A seccomp filter (BPF): which system calls the program may make. Everything it starts inherits the filter.

Refused are: sockets, other processes (starting them, signalling them, looking into them), what Landlock does not know
(metadata of files, and before ABI 3 emptying a file that is not opened for writing), shared memory, mounts, requests and
timers that others pay for, and the calls that administer the kernel. Calls newer than this table do not exist. Threads
are allowed, and so is `socketpair` for streams, which event loops wake themselves with.
Source: Documentation/userspace-api/seccomp_filter.rst; numbers: asm/unistd_64.h and asm-generic/unistd.h of Linux.
"""

from __future__ import annotations

import ctypes
import errno
import os
import struct

from . import system

ARCHITECTURES = {"x86_64": (0, 0xC000003E), "aarch64": (1, 0xC00000B7)}  # column of the table, AUDIT_ARCH
SYSCALLS: dict[str, tuple[int | None, int | None]] = {  # name: (x86_64, aarch64)
    # network
    "socket": (41, 198), "connect": (42, 203), "bind": (49, 200), "listen": (50, 201), "accept": (43, 202),
    "accept4": (288, 242),
    # open files sent through a socketpair: those under way are nobody's, and what they hold of the disk is counted nowhere
    "sendmsg": (46, 211), "sendmmsg": (307, 269),
    # processes
    "fork": (57, None), "vfork": (58, None),
    # signals
    "tkill": (200, 130), "rt_sigqueueinfo": (129, 138), "rt_tgsigqueueinfo": (297, 240),
    "pidfd_send_signal": (424, 424), "pidfd_open": (434, 434), "pidfd_getfd": (438, 438),
    # other processes
    "ptrace": (101, 117), "process_vm_readv": (310, 270), "process_vm_writev": (311, 271),
    "process_madvise": (440, 440), "process_mrelease": (448, 448), "kcmp": (312, 272),
    "get_robust_list": (274, 100), "move_pages": (279, 239), "migrate_pages": (256, 238), "setpriority": (141, 140),
    "ioprio_set": (251, 30), "sched_setparam": (142, 118), "sched_setscheduler": (144, 119),
    "sched_setattr": (314, 274), "sched_setaffinity": (203, 122),
    # metadata of files, and truncating by name (unknown to Landlock before ABI 3)
    "chmod": (90, None), "fchmod": (91, 52), "fchmodat": (268, 53), "chown": (92, None), "fchown": (93, 55),
    "lchown": (94, None), "fchownat": (260, 54), "utime": (132, None), "utimes": (235, None),
    "futimesat": (261, None), "utimensat": (280, 88), "setxattr": (188, 5), "lsetxattr": (189, 6),
    "fsetxattr": (190, 7), "removexattr": (197, 14), "lremovexattr": (198, 15), "fremovexattr": (199, 16),
    "truncate": (76, 45), "name_to_handle_at": (303, 264), "open_by_handle_at": (304, 265),
    "inotify_init": (253, None), "inotify_init1": (294, 26), "inotify_add_watch": (254, 27),
    "fanotify_init": (300, 262), "fanotify_mark": (301, 263), "fchmodat2": (452, 452),
    # shared memory, queues, keys
    "shmget": (29, 194), "shmat": (30, 196), "shmctl": (31, 195), "msgget": (68, 186), "msgsnd": (69, 189),
    "msgrcv": (70, 188), "msgctl": (71, 187), "semget": (64, 190), "semop": (65, 193), "semtimedop": (220, 192),
    "semctl": (66, 191), "mq_open": (240, 180), "mq_unlink": (241, 181), "memfd_create": (319, 279),
    "memfd_secret": (447, 447), "add_key": (248, 217), "request_key": (249, 218), "keyctl": (250, 219),
    # mounts and namespaces
    "unshare": (272, 97), "setns": (308, 268), "mount": (165, 40), "umount2": (166, 39), "pivot_root": (155, 41),
    "chroot": (161, 51), "fsopen": (430, 430), "fsconfig": (431, 431), "fsmount": (432, 432), "fspick": (433, 433),
    "move_mount": (429, 429), "open_tree": (428, 428), "mount_setattr": (442, 442),
    "statmount": (457, 457), "listmount": (458, 458),
    # what others pay for: one number of requests (fs.aio-max-nr) for all, of timers for a user, everybody's unwritten data
    "io_setup": (206, 0), "io_destroy": (207, 1), "io_submit": (209, 2), "io_cancel": (210, 3),
    "io_getevents": (208, 4), "io_pgetevents": (333, 292), "syncfs": (306, 267),
    "timer_create": (222, 107),
    # the kernel
    "bpf": (321, 280), "perf_event_open": (298, 241), "userfaultfd": (323, 282), "io_uring_setup": (425, 425),
    "io_uring_enter": (426, 426), "io_uring_register": (427, 427), "syslog": (103, 116), "sync": (162, 81),
    "reboot": (169, 142), "kexec_load": (246, 104), "kexec_file_load": (320, 294), "init_module": (175, 105),
    "finit_module": (313, 273), "delete_module": (176, 106), "swapon": (167, 224), "swapoff": (168, 225),
    "acct": (163, 89), "quotactl": (179, 60), "quotactl_fd": (443, 443), "settimeofday": (164, 170),
    "clock_settime": (227, 112), "adjtimex": (159, 171), "clock_adjtime": (305, 266), "sethostname": (170, 161),
    "setdomainname": (171, 162), "iopl": (172, None), "ioperm": (173, None), "modify_ldt": (154, None),
    "personality": (135, 92), "vhangup": (153, 58), "uselib": (134, None), "lookup_dcookie": (212, 18),
    "nfsservctl": (180, 42),
    # refused by their arguments
    "clone": (56, 220), "clone3": (435, 435), "kill": (62, 129), "tgkill": (234, 131), "prlimit64": (302, 261),
    "socketpair": (53, 199), "fcntl": (72, 25), "ioctl": (16, 29), "prctl": (157, 167), "open": (2, None),
    "openat": (257, 56), "openat2": (437, 437), "fallocate": (285, 47),
}
DECIDED_BY_ARGUMENTS = ("clone", "kill", "tgkill", "prlimit64", "socketpair", "fcntl", "ioctl", "prctl", "open", "openat",
                        "fallocate")
NEVER_HEARD_OF = ("clone3", "pidfd_open", "io_uring_setup", "io_uring_enter", "io_uring_register", "openat2",
                  "io_setup", "io_destroy", "io_submit", "io_cancel", "io_getevents", "io_pgetevents")  # so fall back
NEWEST = 462  # mseal, Linux 6.10. The numbers of the x32 ABI are greater, too

LOAD, EQUAL, GREATER, ANY_BIT, AND, RETURN = 0x20, 0x15, 0x25, 0x45, 0x54, 0x06
ALLOW, KILL_PROCESS, ERRNO = 0x7FFF0000, 0x80000000, 0x00050000
REFUSE = ERRNO | errno.EPERM
ABSENT = ERRNO | errno.ENOSYS
OFFSET_NUMBER, OFFSET_ARCHITECTURE, OFFSET_ARGUMENTS = 0, 4, 16  # struct seccomp_data

CLONE_THREAD = 0x10000
AF_UNIX, SOCK_STREAM, SOCKET_TYPES = 1, 1, 0xF
SIGNAL_OWNERS = (8, 10, 15)  # fcntl F_SETOWN, F_SETSIG, F_SETOWN_EX: a file that signals another process
TERMINAL_INPUT_AND_OWNERS = (0x5412, 0x5452, 0x8901, 0x8902)  # ioctl TIOCSTI, FIOASYNC, FIOSETOWN, SIOCSPGRP
ACCESS_MODE, NO_ACCESS, O_TRUNC = 0b11, 0b11, 0x200  # of the flags of open
UNSEEN_BY_LANDLOCK = (NO_ACCESS, NO_ACCESS | O_TRUNC, O_TRUNC)  # before ABI 3: opened for no writing, and emptied
KEEP_SIZE = 0b1  # of the mode of fallocate: room on the disk that neither RLIMIT_FSIZE nor the size of the file shows

Instruction = tuple[int, int, int, int]  # code, jump if true, jump if false, constant


def confine() -> None:
    """Install the filter for this process, for good. It may signal itself, and nobody else."""
    code = b"".join(struct.pack("=HBBI", *instruction) for instruction in program(os.uname().machine, os.getpid()))
    instructions = ctypes.create_string_buffer(code, len(code))
    header = ctypes.create_string_buffer(struct.pack("HxxxxxxP", len(code) // 8, ctypes.addressof(instructions)))
    filter_mode = 2
    system.prctl("no_new_privs", system.PR_SET_NO_NEW_PRIVS, 1)
    system.prctl("seccomp", system.PR_SET_SECCOMP, filter_mode, header)


def program(machine: str, pid: int) -> list[Instruction]:
    """The filter for process `pid` on `machine`. Raises OSError where no table of system calls is known."""
    if machine not in ARCHITECTURES:
        raise OSError(errno.ENOSYS, f"seccomp: no table of system calls for {machine}")
    column, architecture = ARCHITECTURES[machine]
    code: list[Instruction] = [(LOAD, 0, 0, OFFSET_ARCHITECTURE), (EQUAL, 1, 0, architecture),
                               (RETURN, 0, 0, KILL_PROCESS), (LOAD, 0, 0, OFFSET_NUMBER)]
    for name, numbers in SYSCALLS.items():
        number = numbers[column]
        if number is None:
            continue
        decision = _by_arguments(name, pid) if name in DECIDED_BY_ARGUMENTS else [
            (RETURN, 0, 0, ABSENT if name in NEVER_HEARD_OF else REFUSE)]
        code += [(EQUAL, 0, len(decision), number), *decision]
    return [*code, (GREATER, 0, 1, NEWEST), (RETURN, 0, 0, ABSENT), (RETURN, 0, 0, ALLOW)]


def _by_arguments(name: str, pid: int) -> list[Instruction]:
    if name == "clone":
        return [_load(0), (ANY_BIT, 1, 0, CLONE_THREAD), (RETURN, 0, 0, REFUSE), (RETURN, 0, 0, ALLOW)]
    if name == "socketpair":
        return [_load(0), (EQUAL, 0, 3, AF_UNIX), _load(1), (AND, 0, 0, SOCKET_TYPES), (EQUAL, 1, 0, SOCK_STREAM),
                (RETURN, 0, 0, REFUSE), (RETURN, 0, 0, ALLOW)]
    if name in ("kill", "tgkill"):
        return _only(0, (pid,))
    if name == "prlimit64":
        return _only(0, (0, pid))
    if name in ("open", "openat"):
        return _except({"open": 1, "openat": 2}[name], UNSEEN_BY_LANDLOCK, of_bits=ACCESS_MODE | O_TRUNC)
    if name == "fallocate":
        return _except(1, (KEEP_SIZE,), of_bits=KEEP_SIZE)
    refused = {"fcntl": (1, SIGNAL_OWNERS), "ioctl": (1, TERMINAL_INPUT_AND_OWNERS),
               "prctl": (0, (system.PR_SET_PDEATHSIG, system.PR_SET_DUMPABLE))}
    return _except(*refused[name])


def _load(argument: int) -> Instruction:
    """The low half of an argument (little endian): the kernel reads these arguments as 32-bit integers too."""
    return (LOAD, 0, 0, OFFSET_ARGUMENTS + 8 * argument)


def _only(argument: int, values: tuple[int, ...]) -> list[Instruction]:
    tests = [(EQUAL, len(values) - place, 0, value) for place, value in enumerate(values)]
    return [_load(argument), *tests, (RETURN, 0, 0, REFUSE), (RETURN, 0, 0, ALLOW)]


def _except(argument: int, values: tuple[int, ...], of_bits: int = 0xFFFFFFFF) -> list[Instruction]:
    tests = [(EQUAL, len(values) - place, 0, value) for place, value in enumerate(values)]
    return [_load(argument), (AND, 0, 0, of_bits), *tests, (RETURN, 0, 0, ALLOW), (RETURN, 0, 0, REFUSE)]
