"""Record batches as Python holds them: codecs, numpy columns, Arrow streams."""
