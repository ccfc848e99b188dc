#!/usr/bin/env python3
"""The rules of the house that a machine can check. Usage: check.py SOURCE_DIR; exits 1 and names each breach.

 - every *_test.cc and *_fuzz.cc stands in the CMakeLists.txt of its folder, and so does every other .cc;
 - no source file passes 1000 lines;
 - every class and struct declared at namespace scope in a header has a contract comment right above it.
"""
import os
import re
import sys

FOLDERS = ("common", "metaserver", "chunkserver", "client", "fuse", "tools", "tests")
SOURCES = (".h", ".cc", ".proto", ".py", ".sh")
MAX_LINES = 1000

CLASS = re.compile(r"^(?P<indent>\s*)(?:template\s*<.*>\s*)?(?P<kind>class|struct)\s+"
                   r"(?:\[\[\w+\]\]\s*|alignas\([^)]*\)\s*)*(?P<name>[A-Za-z_]\w*(?:::\w+)*)(?P<rest>[^;()]*)$")
NAMESPACE = re.compile(r"^\s*(?:inline\s+)?namespace\b(?P<name>[^{;]*)\{\s*$")


def files(root):
    for folder in FOLDERS:
        for where, folders, names in os.walk(os.path.join(root, folder)):
            folders[:] = sorted(d for d in folders if not d.startswith(".") and d != "__pycache__")
            for name in sorted(names):
                if name.endswith(SOURCES) or name == "CMakeLists.txt":
                    yield os.path.join(where, name)


def read(path):
    with open(path, encoding="utf-8", errors="replace") as f:
        return f.read()


def registered(path, root):
    """Whether a CMakeLists.txt of the file's folder, or of one above it, names the file."""
    where = os.path.dirname(path)
    while True:
        lists = os.path.join(where, "CMakeLists.txt")
        if os.path.exists(lists):
            text = re.sub(r"#.*", "", read(lists))
            wanted = os.path.relpath(path, where)
            if re.search(r"(?<![\w./-])" + re.escape(wanted) + r"(?![\w./-])", text):
                return True
            if "/" not in wanted:
                stem = os.path.splitext(wanted)[0]  # foreach(name a b c) ... ${name}.cc
                if "${" in text and re.search(r"(?<![\w./-])" + re.escape(stem) + r"(?![\w./-])", text):
                    return True
        if os.path.realpath(where) == os.path.realpath(root):
            break
        where = os.path.dirname(where)
    # A program's main file may stand in the list of another folder.
    named = "${CMAKE_SOURCE_DIR}/" + os.path.relpath(path, root)
    return any(named in re.sub(r"#.*", "", read(p)) for p in files(root) if os.path.basename(p) == "CMakeLists.txt")


def undocumented(text):
    """Line numbers and names of classes at namespace scope without a comment right above."""
    lines = text.split("\n")
    depth, namespaces, internal = 0, [], []
    for number, line in enumerate(lines):
        code = re.sub(r'"(?:\\.|[^"\\])*"', '""', line)
        code = re.sub(r"'(?:\\.|[^'\\])'", "' '", code)
        code = re.sub(r"//.*", "", code)
        at_namespace = depth == len(namespaces)
        opened = NAMESPACE.match(code)
        if opened and at_namespace:
            namespaces.append(opened.group("name").strip())
        elif at_namespace:
            found = CLASS.match(code.rstrip().rstrip("{").rstrip() if "{" in code else code)
            if "{" in code and not found:
                found = CLASS.match(code.split("{")[0])
            defines = "{" in code or (found and found.group("rest").strip().startswith(":"))
            if found and defines and not any("internal" in n or n == "" for n in namespaces):
                above = number - 1
                while above >= 0 and re.match(r"^\s*(template\b.*|requires\b.*|#if.*|#endif.*)$", lines[above]):
                    above -= 1
                explicit = "template <>" in line or (number and "template <>" in lines[number - 1])
                comment = above >= 0 and (lines[above].lstrip().startswith("//") or lines[above].rstrip().endswith("*/"))
                if not comment and not explicit and "<" not in found.group("rest").split(":")[0]:
                    yield number + 1, found.group("name")
        depth += code.count("{") - code.count("}")
        while len(namespaces) > depth:
            namespaces.pop()


def breaches(root):
    count = 0
    for path in files(root):
        count += 1
        name = os.path.relpath(path, root)
        text = read(path)
        lines = text.count("\n")
        if lines > MAX_LINES:
            yield "%s has %d lines, more than %d: split it by what its parts are for" % (name, lines, MAX_LINES)
        if path.endswith(".cc") and not registered(path, root):
            yield "%s is in no CMakeLists.txt: it is never built (a test: never run); add it to its folder's" % name
        if path.endswith(".h"):
            for line, what in undocumented(text):
                yield ("%s:%d: %s has no contract comment above it (what it is for, owner, thread, errors)"
                       % (name, line, what))
    if count == 0:
        yield "no sources under %s" % root


def main():
    if len(sys.argv) != 2:
        sys.exit("usage: check.py SOURCE_DIR")
    found = list(breaches(sys.argv[1]))
    for breach in found:
        print(breach)
    sys.exit(1 if found else 0)


if __name__ == "__main__":
    main()
