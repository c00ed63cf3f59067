"""`onnx_reference/numpy`: the evaluator that defines what ONNX operators compute. Slow; a reference for answers."""

from __future__ import annotations

from edgekd.artefacts import Format
from edgekd.ir.backends import BackendSpec, Home, RuntimeSpec
from edgekd.ir.numerics import Precision

REFERENCE = BackendSpec(
    runtime=RuntimeSpec(
        name="onnx_reference",
        homes=(Home(module="onnx", distributions=("onnx",), requirements=("onnx",), imports="onnx.reference"),),
        agent="edgekd_example.reference_agent",
    ),
    provider="numpy",
    formats=(Format.ONNX,),
    precisions=(Precision.FLOAT32, Precision.INT8),
    reference=True,
    example="""from onnx.reference import ReferenceEvaluator

model = ReferenceEvaluator(here / "{model}")
answer = model.run(None, dict(zip(model.input_names, inputs)))[0][0]""",
    example_heads="answers = dict(zip(model.output_names, model.run(None, dict(zip(model.input_names, inputs)))))",
)
