#!/usr/bin/env python3
"""The same bits everywhere: builds tools/proof for other compilers, optimisation levels and architectures, runs it (foreign
architectures under qemu-user) with every instruction set, and compares the hashes of all outputs with those of this build.

usage: equal_bits.py PROOF SOURCE_DIR BUILD_DIR WHAT
  WHAT: "isas" (this build under each ROOFTREE_ISA), "aarch64", "riscv64", or a compiler and level: "clang++:-O1"
Exit code 77: a compiler or emulator that WHAT needs is not installed."""
import os
import shutil
import subprocess
import sys


def run(command, **environment):
    result = subprocess.run(command, capture_output=True, text=True, env={**os.environ, **environment}, check=False)
    return result.returncode, result.stdout, result.stderr


def main():
    proof, source, build_root, what = sys.argv[1:5]
    code, expected, errors = run([proof])
    if code != 0:
        sys.exit(f"{proof} does not hold its own contract (exit {code}):\n{expected}{errors}")

    runs = []  # name, command, environment
    if what == "isas":
        for isa in ("portable", "avx2", "avx512", "neon"):
            runs.append((isa, [proof], {"ROOFTREE_ISA": isa}))
    else:
        build = os.path.join(build_root, "proof", what.replace("+", "x").replace(":", ""))
        configure = ["cmake", "-S", source, "-B", build, "-G", "Ninja", "-DROOFTREE_PROOF_ONLY=ON", "-DROOFTREE_WERROR=ON"]
        if what in ("aarch64", "riscv64"):
            needed = [f"{what}-linux-gnu-g++", f"qemu-{what}"]
            configure += ["-DCMAKE_BUILD_TYPE=Release", f"-DCMAKE_TOOLCHAIN_FILE={source}/cmake/cross.cmake", f"-DROOFTREE_TARGET={what}"]
            emulator = [f"qemu-{what}"]
        else:
            compiler, level = what.split(":")
            needed = [compiler]
            configure += ["-DCMAKE_BUILD_TYPE=Proof", f"-DCMAKE_CXX_COMPILER={compiler}", f"-DCMAKE_CXX_FLAGS={level} -DNDEBUG",
                          f"-DROOFTREE_KERNEL_OPTIMISATION={level}"]
            emulator = []
        missing = [program for program in needed if shutil.which(program) is None]
        if missing:
            print(f"SKIPPED: {', '.join(missing)} not installed (scripts/setup test)")
            sys.exit(77)
        for command in (configure, ["cmake", "--build", build]):
            code, output, errors = run(command)
            if code != 0:
                sys.exit(f"{' '.join(command)} failed:\n{output[-8000:]}{errors[-8000:]}")
        built = emulator + [os.path.join(build, "tools", "proof", "rooftree-proof")]
        runs.append((what, built, {}))
        runs.append((what + " portable", built, {"ROOFTREE_ISA": "portable"}))

    failed = False
    for name, command, environment in runs:
        code, output, errors = run(command, **environment)
        if code == 0 and output == expected:
            print(f"{name}: {output.count(chr(10)) - 1} hashes equal")
            continue
        failed = True
        print(f"{name}: exit {code}\n{errors}")
        for a, b in zip(expected.splitlines(), output.splitlines()):
            if a != b:
                print(f"  expected {a}\n  found    {b}")
    sys.exit(1 if failed else 0)


main()
