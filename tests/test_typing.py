import numpy as np

import gradtx
from tests import typed_example


def test_the_typed_example_runs():
    model = typed_example.main()
    np.testing.assert_allclose([float(model.slope), float(model.offset)], [2.0, 1.0], atol=0.1)


def test_types_are_shipped():
    from importlib.resources import files

    assert (files(gradtx) / "py.typed").is_file()
