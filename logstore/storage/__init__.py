"""One partition's log on disk."""

import logstore.records  # noqa: F401  (hands the codecs to the native layer)
