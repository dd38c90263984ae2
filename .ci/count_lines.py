"""Count the lines of code in skae/, without docstrings, comments and blank lines.

python .ci/count_lines.py                   prints the lines of each package and module, and their sum
python .ci/count_lines.py --at-most 5300    fails if the sum is larger
"""

import argparse
import ast
import sys
import tokenize
from collections import Counter
from pathlib import Path

PACKAGE = Path(__file__).resolve().parents[1] / "skae"
DOCUMENTED = ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef
NO_CODE = {
    tokenize.COMMENT,
    tokenize.DEDENT,
    tokenize.ENCODING,
    tokenize.ENDMARKER,
    tokenize.INDENT,
    tokenize.NEWLINE,
    tokenize.NL,
}


def docstring_starts(tree):
    """Return the line and column where each docstring begins."""
    return {
        (node.body[0].lineno, node.body[0].col_offset)
        for node in ast.walk(tree)
        if isinstance(node, DOCUMENTED) and ast.get_docstring(node, clean=False) is not None
    }


def count_lines(path):
    """Return the number of lines of a file that contain code."""
    docstrings = docstring_starts(ast.parse(path.read_bytes()))
    with open(path, "rb") as file:
        code = [token for token in tokenize.tokenize(file.readline) if token.type not in NO_CODE]
    return len(
        {line for token in code if token.start not in docstrings for line in range(token.start[0], token.end[0] + 1)}
    )


def main():
    """Print the counts, and return 1 if there are too many lines."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--at-most", type=int, metavar="N", help="fail if there are more lines than this")
    limit = parser.parse_args().at_most
    counts = Counter()
    for path in sorted(PACKAGE.rglob("*.py")):
        counts[path.relative_to(PACKAGE).parts[0]] += count_lines(path)
    for name, n_lines in sorted(counts.items()):
        print(f"{n_lines:6,} {name}")
    print(f"{counts.total():6,} in total")
    if limit is not None and counts.total() > limit:
        print(f"skae/ has {counts.total()} lines of code, but at most {limit} are allowed.", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
