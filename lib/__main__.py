"""`python -m lib …`: the commands of `lib/cli.py`. Looks at Python's version before anything newer is read."""

import sys

if sys.version_info < (3, 11):  # noqa: UP036 - whoever starts this may have an older one
    sys.stderr.write("tlogistry: needs Python 3.11 or later, this is %d.%d\n" % sys.version_info[:2])  # noqa: UP031 - as above
    sys.exit(2)

from lib.cli import main

sys.exit(main(sys.argv[1:]))
