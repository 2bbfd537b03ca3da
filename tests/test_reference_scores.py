"""What BAAI/bge-m3 itself answered, as others published it: our formulas reproduce it.

Sources: `COMPUTED` FlagOpen/FlagEmbedding@7ed43d67 research/BGE_M3/README.md, the output of
`compute_score` for 2 x 2 sentences; `OTHER_WEIGHTS` the same sentences with weights 1, 0.3, 1;
`QUERY` and `DOCUMENT` allen2c/bge-m3-lite tests/fixtures/embeddings_ref.json, written by
FlagEmbedding in float32 on a CPU.
"""

import numpy as np
import pytest

from m3retriever.fusion import weighted_sum
from m3retriever.scoring import sparse_score
from m3retriever.types import ModeScores, Weights

# The parts were published in full (float16 for dense and sparse, float32 for ColBERT), so all that can
# differ is FlagEmbedding's fusing in float32 and ours in float64: a few roundings, together less than
# float32's step at 1 (1.2e-7), for sparse+dense as for all three.
FLOAT32_STEP = np.finfo(np.float32).eps

COMPUTED = {
    "dense": [0.6259765625, 0.347412109375, 0.349853515625, 0.67822265625],
    "sparse": [0.195556640625, 0.00879669189453125, 0.0, 0.1802978515625],
    "colbert": [0.7796499729156494, 0.4621465802192688, 0.4523794651031494, 0.7898575067520142],
    "sparse+dense": [0.482503205537796, 0.23454029858112335, 0.2332356721162796, 0.5122477412223816],
    "colbert+sparse+dense": [0.6013619303703308, 0.3255828022956848, 0.32089319825172424, 0.6232916116714478],
}
OTHER_WEIGHTS = {
    "dense": [0.6259765625, 0.67822265625, 0.349609375, 0.34765625],
    "sparse": [0.195556640625, 0.180419921875, 0.0, 0.0088043212890625],
    "colbert": [0.7798250317573547, 0.7899274826049805, 0.4524373412132263, 0.46213820576667786],
    "sparse+dense": [0.5266488790512085, 0.5633450746536255, 0.2689302861690521, 0.26945966482162476],
    "colbert+sparse+dense": [0.6367254853248596, 0.6618592143058777, 0.34871599078178406, 0.3532329499721527],
}
PUBLISHED = [  # the first weights sum to 1 and cannot tell a weighted mean from a weighted sum: the second can
    pytest.param((0.4, 0.2, 0.4), COMPUTED, id="weights .4 .2 .4"),
    pytest.param((1.0, 0.3, 1.0), OTHER_WEIGHTS, id="weights 1 .3 1"),
]

QUERY = {  # "What is BGE M3?"
    4865: 0.08362077921628952,
    83: 0.08146960288286209,
    335: 0.12964636087417603,
    11679: 0.25186991691589355,
    276: 0.17001725733280182,
    363: 0.2695789337158203,
    32: 0.04075505584478378,
}
DOCUMENT = {  # "BGE M3 is an embedding model supporting ...": all it shares with the query, and two more
    335: 0.1409415900707245,
    11679: 0.2586537301540375,
    276: 0.17205125093460083,
    363: 0.26893457770347595,
    83: 0.12733829021453857,
    142: 0.07353945076465607,
    55720: 0.2141493856906891,
}


def scores(published: dict) -> ModeScores:
    return ModeScores("abcd", np.array([published[mode] for mode in ("dense", "sparse", "colbert")]).T)


@pytest.mark.parametrize(("weights", "published"), PUBLISHED)
def test_weights_without_colbert_give_the_published_sparse_and_dense(weights, published):
    fused = weighted_sum(scores(published), Weights(weights[0], weights[1], 0))
    np.testing.assert_allclose(fused, published["sparse+dense"], rtol=0, atol=FLOAT32_STEP)


@pytest.mark.parametrize(("weights", "published"), PUBLISHED)
def test_all_weights_give_the_published_score_of_all_three(weights, published):
    fused = weighted_sum(scores(published), Weights(*weights))
    np.testing.assert_allclose(fused, published["colbert+sparse+dense"], rtol=0, atol=FLOAT32_STEP)


def test_the_published_lexical_weights_give_the_published_score():
    assert sparse_score(QUERY, DOCUMENT) == pytest.approx(0.19554, abs=1e-4)
