"""Programs that try to do harm. Each prints ESCAPED if it could, something else or nothing if it could not.

`SETTING` (a dict) tells them where the things are that they are after: see driver.py.
"""

from __future__ import annotations

import textwrap
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, eq=False)
class Hostile:
    """`ends` are the statuses a contained program may end with. `control`: harmless enough to be run without any wall,
    where it must succeed; otherwise the check would show nothing."""

    name: str
    code: str
    language: str = "python"
    ends: tuple[str, ...] = ("passed",)
    limits: dict[str, Any] = field(default_factory=dict)
    control: bool = False

    def source(self, setting: dict[str, Any]) -> str:
        """The program, for one setting."""
        if self.language == "javascript":
            return JAVASCRIPT % {"setting": repr(setting), "body": self.code}
        return PYTHON % {"setting": repr(setting), "body": textwrap.indent(textwrap.dedent(self.code).strip(), "    ")}


PYTHON = """\
import ctypes, os, signal, socket, sys, time
SETTING = %(setting)s
libc = ctypes.CDLL(None, use_errno=True)
def call(*arguments):
    result = libc.syscall(*arguments)
    if result < 0:
        raise OSError(ctypes.get_errno(), "system call")
    return result
try:
%(body)s
except Exception as error:
    print("contained:", repr(error))
else:
    print("ESCAPED")
"""

JAVASCRIPT = """\
const SETTING = %(setting)s;
(async () => { %(body)s })().then(() => { console.log("ESCAPED"); process.exit() },
                               (error) => console.log("contained:", String(error)));
"""

NETWORK = [
    Hostile("tcp", "socket.create_connection(('127.0.0.1', SETTING['tcp']), 2).sendall(b'x')", control=True),
    Hostile("udp", "socket.socket(socket.AF_INET, socket.SOCK_DGRAM).sendto(b'x', ('127.0.0.1', SETTING['udp']))",
            control=True),
    Hostile("listen", "socket.create_server(('127.0.0.1', 0))", control=True),
    Hostile("dns", "socket.getaddrinfo('example.org', 80)"),
    Hostile("netlink", "socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 0)", control=True),
    Hostile("abstract socket", "s = socket.socket(socket.AF_UNIX)\ns.connect(SETTING['abstract'])", control=True),
    Hostile("socket in a folder", "s = socket.socket(socket.AF_UNIX)\ns.connect(SETTING['socket'])", control=True),
    Hostile("datagram pair to a name", """
        one, other = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
        one.sendto(b'x', SETTING['datagrams'])
        """, control=True),
    Hostile("open files under way", """
        import array
        one, other = socket.socketpair()
        for _ in range(16):
            kept = os.open('kept', os.O_RDWR | os.O_CREAT)
            os.remove('kept')
            one.sendmsg([b'x'], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array('i', [kept]))])
            os.close(kept)
        """, control=True),
    Hostile("io_uring", "call(425, 1, ctypes.create_string_buffer(120))"),
]

PROCESSES = [
    Hostile("fork bomb", """
        for _ in range(64):
            if os.fork() == 0:
                time.sleep(60)
        """),
    Hostile("subprocess", "import subprocess\nsubprocess.run(['/bin/true'])", control=True),
    Hostile("clone3", """
        arguments = (ctypes.c_uint64 * 8)(0, 0, 0, 0, signal.SIGCHLD)
        pid = call(435, ctypes.byref(arguments), ctypes.sizeof(arguments))
        if pid == 0:
            os._exit(0)
        """, control=True),
    Hostile("orphan", """
        if os.fork() == 0:
            os.setsid()
            if os.fork() == 0:
                time.sleep(60)
            os._exit(0)
        """),
    Hostile("leaves its process group", "os.setpgid(0, SETTING['victim_group'])"),
    Hostile("thread bomb", """
        import threading
        threading.stack_size(32768)
        for _ in range(20000):
            threading.Thread(target=time.sleep, args=(60,), daemon=True).start()
        """, ends=("passed", "failed", "memory", "timeout"), limits={"wall_seconds": 3.0}),
    Hostile("more threads than it may have", """
        import threading
        threading.stack_size(1 << 16)
        for _ in range(100):
            threading.Thread(target=time.sleep, args=(60,), daemon=True).start()
        time.sleep(1)
        """, ends=("passed", "failed")),
    Hostile("kills its parent", "os.kill(os.getppid() or SETTING['driver'], signal.SIGTERM)"),
    Hostile("kills the driver", "os.kill(SETTING['driver'], signal.SIGTERM)"),
    Hostile("kills a neighbour", "os.kill(SETTING['victim'], signal.SIGCONT)", control=True),
    Hostile("signals everybody", "os.kill(-1, 0)", control=True),
    Hostile("signals through a file", """
        import fcntl
        reads, writes = os.pipe()
        fcntl.fcntl(reads, fcntl.F_SETOWN, SETTING['victim'])
        """, control=True),
    Hostile("limits a neighbour", """
        import resource
        resource.prlimit(SETTING['victim'], resource.RLIMIT_CORE)
        """, control=True),
    Hostile("stops a neighbour's scheduling", "os.sched_setaffinity(SETTING['victim'], {0})", control=True),
    Hostile("ptrace", """
        ptrace_seize = 0x4206
        if libc.ptrace(ptrace_seize, SETTING['victim'], 0, 0) < 0:
            raise OSError(ctypes.get_errno(), 'ptrace')
        """, control=True),
    Hostile("reads a neighbour's memory", """
        buffer = ctypes.create_string_buffer(8)
        here = (ctypes.c_void_p * 2)(ctypes.addressof(buffer), 8)
        there = (ctypes.c_void_p * 2)(SETTING['address'], 8)
        if libc.process_vm_readv(SETTING['driver'], here, 1, there, 1, 0) < 0:
            raise OSError(ctypes.get_errno(), 'process_vm_readv')
        """, control=True),
    Hostile("reads a neighbour's environment", "open(f\"/proc/{SETTING['driver']}/environ\").read()", control=True),
    Hostile("reads its parent's memory", "open(f'/proc/{os.getppid()}/mem', 'rb')", control=True),
    Hostile("outlives its parent", "if libc.prctl(1, 0): raise PermissionError", control=True),
    Hostile("hides what it holds", "if libc.prctl(4, 0): raise PermissionError", control=True),
]

USE = [
    Hostile("10 GB", "x = bytearray(10 << 30)\nos._exit(0 if x[-1] else 1)"),
    Hostile("10 GB, bit by bit", "try:\n    x = []\n    while True:\n        x.append(bytearray(1 << 24))\n"
            "except ZeroDivisionError:\n    pass\nexcept MemoryError:\n    x.clear()\n    sys.stdout.flush()\n"
            "    sys.stderr.write('MemoryError\\n')\n    os._exit(1)", ends=("memory",)),
    Hostile("10 GB, shared", "import mmap\nm = mmap.mmap(-1, 10 << 30)"),
    Hostile("memory file", "fd = os.memfd_create('x')\nfor _ in range(64):\n    os.write(fd, bytes(1 << 20))"),
    Hostile("shared memory of System V", 
            "call({'x86_64': 29, 'aarch64': 194}[os.uname().machine], 0, 1 << 20, 0o1600)"),
    Hostile("zip bomb", """
        import gzip
        bomb = gzip.compress(bytes(1 << 24)) * 640
        gzip.decompress(bomb)
        """, ends=("passed", "memory", "timeout"), limits={"cpu_seconds": 1}),
    Hostile("deep recursion", """
        sys.setrecursionlimit(10 ** 9)
        deep = []
        for _ in range(2 * 10 ** 5):
            deep = [deep]
        repr(deep)
        """, ends=("failed", "memory")),
    Hostile("endless recursion", """
        sys.setrecursionlimit(10 ** 9)
        def deeper():
            return 1 + deeper()
        deeper()
        """, ends=("passed", "failed", "memory", "timeout"), limits={"memory_bytes": 128 << 20, "cpu_seconds": 1}),
    Hostile("endless loop", "while True: pass", ends=("timeout",), limits={"cpu_seconds": 1}),
    Hostile("sleeps past the wall time", "time.sleep(60)", ends=("timeout",), limits={"wall_seconds": 0.4}),
    Hostile("ignores signals", """
        for number in set(signal.Signals) - {signal.SIGKILL, signal.SIGSTOP}:
            signal.signal(number, signal.SIG_IGN)
        while True:
            pass
        """, ends=("timeout",), limits={"cpu_seconds": 1}),
    Hostile("stops itself", "os.kill(os.getpid(), signal.SIGSTOP)", ends=("timeout",), limits={"wall_seconds": 0.4}),
    Hostile("raises its limits", """
        import resource
        resource.setrlimit(resource.RLIMIT_CPU, (600, 600))
        """),
    Hostile("1 GB file", "with open('x', 'wb') as f:\n    for _ in range(1024):\n        f.write(bytes(1 << 20))",
            ends=("passed", "files")),
    Hostile("1 GB in files", """
        for number in range(128):
            with open(str(number), 'wb') as f:
                f.write(bytes(8 << 20))
            time.sleep(0.005)
        """, ends=("passed", "files")),
    Hostile("1 GB below a long path", """
        for _ in range(18):
            os.mkdir('d' * 250)
            os.chdir('d' * 250)
        for number in range(128):
            with open(str(number), 'wb') as f:
                f.write(bytes(8 << 20))
            time.sleep(0.005)
        """, ends=("passed", "files")),
    Hostile("1 GB in files without a name", """
        libc.mmap.restype = ctypes.c_void_p
        for number in range(128):
            with open('x', 'w+b') as f:
                os.remove('x')
                f.write(bytes(8 << 20))
                f.flush()
                libc.mmap(None, ctypes.c_size_t(4096), 1, 1, f.fileno(), ctypes.c_long(0))
            time.sleep(0.005)
        """, ends=("passed", "files")),
    Hostile("room on the disk that no size shows", """
        with open('x', 'wb') as f:
            keep_size = 1
            if libc.fallocate(f.fileno(), keep_size, ctypes.c_long(0), ctypes.c_long(1 << 20)):
                raise OSError(ctypes.get_errno(), 'fallocate')
        """, control=True),
    Hostile("asynchronous input and output", """
        call({'x86_64': 206, 'aarch64': 0}[os.uname().machine], 1, ctypes.byref(ctypes.c_ulong(0)))
        """, control=True),
    Hostile("writes everybody's data", "if libc.syncfs(os.open('.', os.O_RDONLY)): raise PermissionError"),
    Hostile("floods stdout", "while True: os.write(1, bytes(1 << 16))", ends=("output",)),
    Hostile("floods stderr", "while True: os.write(2, bytes(1 << 16))", ends=("output",)),
    Hostile("closes its streams and sleeps", "os.close(1)\nos.close(2)\ntime.sleep(60)", ends=("timeout",),
            limits={"wall_seconds": 0.4}),
]

FILES = [
    Hostile("reads home", "open(SETTING['secret']).read()", control=True),
    Hostile("lists home", "os.listdir(SETTING['home'])", control=True),
    Hostile("reads /etc/passwd", "open('/etc/passwd').read()", control=True),
    Hostile("lists the root's parts", "[os.listdir(path) for path in ('/etc', '/tmp', '/home')]", control=True),
    Hostile("environment", "if 'hunter2' not in str(os.environ): raise KeyError"),
    Hostile("inherited descriptors", """
        for fd in range(3, 256):
            try:
                if b'hunter2' in os.pread(fd, 100, 0):
                    break
            except OSError:
                continue
        else:
            raise FileNotFoundError
        """),
    Hostile("overwrites", "open(SETTING['secret'], 'a').write('x')", control=True),
    Hostile("truncates", "os.truncate(SETTING['secret'], 0)", control=True),
    Hostile("opens to truncate", "os.open(SETTING['secret'], os.O_RDONLY | os.O_TRUNC)", control=True),
    Hostile("opens to truncate, 2", "os.open(SETTING['secret'], 3 | os.O_TRUNC)", control=True),
    Hostile("opens to truncate, 3", """
        import struct
        call(437, -100, os.fsencode(SETTING['secret']), struct.pack('QQQ', 3 | os.O_TRUNC, 0, 0), 24)
        """),
    Hostile("changes the mode", "os.chmod(SETTING['secret'], 0o777)", control=True),
    Hostile("changes the mode, 2", "call(452, -100, os.fsencode(SETTING['secret']), 0o777, 0)"),
    Hostile("changes the times", "os.utime(SETTING['secret'], (0, 0))", control=True),
    Hostile("hard link out", "os.link(SETTING['secret'], 'mine')\nopen('mine').read()", control=True),
    Hostile("symbolic link out", "os.symlink(SETTING['secret'], 'mine')\nopen('mine').read()", control=True),
    Hostile("renames", "os.rename(SETTING['secret'], SETTING['secret'] + '2')", control=True),
    Hostile("removes", "os.remove(SETTING['secret'])", control=True),
    Hostile("climbs out", "open('../' * 20 + SETTING['secret'].lstrip('/')).read()", control=True),
    Hostile("writes to /tmp", "open(SETTING['litter'], 'w').write('x')", control=True),
    Hostile("writes to its program", "open(__file__, 'a').write('x')", control=True),
    Hostile("writes beside its folder", "open('../x', 'w').write('x')"),
    Hostile("writes the interpreter", "open(os.__file__, 'r+')"),
    Hostile("sends to a device", "os.mknod('disk', 0o60600, os.makedev(254, 0))\nopen('disk', 'rb')"),
    Hostile("mounts", "if libc.mount(b'none', os.fsencode(os.getcwd()), b'tmpfs', 0, None): raise PermissionError"),
    Hostile("new user namespace", "if libc.unshare(0x10000000): raise PermissionError", control=True),
    Hostile("changes the root", "os.chroot('/')"),
    Hostile("takes the user's timers", "if libc.timer_create(1, None, ctypes.byref(ctypes.c_void_p())): raise BlockingIOError",
            control=True),
    Hostile("hard to remove", """
        for _ in range(1500):
            os.mkdir('d' * 200)
            os.chdir('d' * 200)
        os.mkdir('closed', 0)
        raise NotImplementedError
        """, ends=("passed", "files")),
]

NODE = [
    Hostile("javascript: tcp", "await new Promise((yes, no) => require('net').connect(SETTING.tcp, '127.0.0.1', yes)"
            ".on('error', no))", "javascript", control=True),
    Hostile("javascript: udp", "await new Promise((yes, no) => { const s = require('dgram').createSocket('udp4');"
            "s.on('error', no); s.send('x', SETTING.udp, '127.0.0.1', (e) => { s.close(); e ? no(e) : yes() }) })",
            "javascript", control=True),
    Hostile("javascript: fetch", "await fetch(`http://127.0.0.1:${SETTING.tcp}/`)", "javascript", ("passed", "failed")),
    Hostile("javascript: reads home", "require('fs').readFileSync(SETTING.secret)", "javascript", control=True),
    Hostile("javascript: writes to /tmp", "require('fs').writeFileSync(SETTING.litter, 'x')", "javascript",
            control=True),
    Hostile("javascript: environment", "if (!JSON.stringify(process.env).includes('hunter2')) throw 'clean'",
            "javascript"),
    Hostile("javascript: child process", "require('child_process').execFileSync('/bin/true')", "javascript",
            control=True),
    Hostile("javascript: kills a neighbour", "process.kill(SETTING.victim, 'SIGCONT')", "javascript", control=True),
    Hostile("javascript: endless loop", "for (;;);", "javascript", ("timeout",), {"cpu_seconds": 1}),
    Hostile("javascript: waits past the wall time", "await new Promise((yes) => setTimeout(yes, 60000))", "javascript",
            ("timeout",), {"wall_seconds": 0.6}),
    Hostile("javascript: 10 GB", "const a = []; for (;;) a.push(new Array(100000).fill(1.5))", "javascript",
            ("memory",), {"memory_bytes": 128 << 20}),
    Hostile("javascript: 10 GB of buffers", "const a = []; for (;;) a.push(Buffer.alloc(1 << 24, 1))", "javascript",
            ("passed", "memory", "failed")),
    Hostile("javascript: floods stdout", "for (;;) require('fs').writeSync(1, 'x'.repeat(65536))", "javascript",
            ("output",)),
    Hostile("javascript: worker bomb", """
        const { Worker } = require('worker_threads'); const all = [];
        for (let i = 0; i < 500; i++) all.push(new Worker('setTimeout(() => 0, 60000)', { eval: true }));
        await Promise.all(all.map((w) => new Promise((yes, no) => w.on('online', yes).on('error', no))))
        """, "javascript", ("passed", "failed", "memory", "timeout"), {"cpu_seconds": 2}),
]

ALL = [*NETWORK, *PROCESSES, *USE, *FILES, *NODE]
