"""Programs around the package, one a command of make: they fetch and check corpora and weights, run notebooks, answer
about a recording, search settings, verify results, build the site."""

import sys

# nbformat imports jsonschema, which builds a grammar of internationalised addresses for 1.4 s of each process; no
# schema of notebooks has one
sys.modules.setdefault("rfc3987_syntax", None)
