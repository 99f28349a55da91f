# What programs do with files, timed: a line for each, its name and its seconds.
import os, subprocess, sys, time

LIBRARY = os.path.dirname(os.__file__)
WORK = "/bench"


def timed(name, act):
    start = time.perf_counter()
    act()
    print(name, time.perf_counter() - start, flush=True)


def walk():
    for directory, _, files in os.walk(LIBRARY):
        for name in files:
            os.lstat(os.path.join(directory, name))


def small():
    for number in range(300):
        path = f"{WORK}/{number}"
        with open(path, "wb") as file:
            file.write(bytes(4096))
    for number in range(300):
        os.unlink(f"{WORK}/{number}")


def write():
    block = bytes(1 << 20)
    with open(f"{WORK}/large", "wb") as file:
        for _ in range(64):
            file.write(block)


def read():
    with open(f"{WORK}/large", "rb", buffering=0) as file:
        buffer = bytearray(1 << 20)
        while file.readinto(buffer):
            pass


def sync():
    with open(f"{WORK}/synced", "wb", buffering=0) as file:
        block = bytes(4096)
        for _ in range(100):
            file.write(block)
            os.fsync(file.fileno())


def start():
    subprocess.run([sys.executable, "-c", "import json, http.client, unittest, asyncio"], check=True)


os.makedirs(WORK, exist_ok=True)
for name, act in [
    ("walk-first", walk),
    ("walk-again", walk),
    ("small", small),
    ("write", write),
    ("read-first", read),
    ("read-again", read),
    ("sync", sync),
    ("start-first", start),
    ("start-again", start),
]:
    timed(name, act)
for name in "large", "synced":
    os.unlink(f"{WORK}/{name}")
os.rmdir(WORK)
