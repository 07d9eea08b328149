"""Programs around the package: they run notebooks, verify results, build the site."""

import sys

# nbformat imports jsonschema, which builds a grammar of internationalised addresses for 1.4 s of each process; no
# schema of notebooks has one
sys.modules.setdefault("rfc3987_syntax", None)
