"""Records of the backends that edgekd ships: LiteRT, ONNX Runtime, OpenVINO."""

from __future__ import annotations

from edgekd.artefacts import Format
from edgekd.ir.backends import BackendSpec, Home, RuntimeSpec
from edgekd.ir.numerics import Precision
from edgekd.ir.support import COMPARED

__all__ = ["LITERT_BUILTIN", "LITERT_XNNPACK", "ONNXRUNTIME_CPU", "OPENVINO_CPU"]

_LITERT = RuntimeSpec(
    name="litert",
    homes=(
        Home(
            module="ai_edge_litert",
            distributions=("ai-edge-litert", "ai-edge-litert-nightly"),
            requirements=("ai-edge-litert",),
            imports="ai_edge_litert.interpreter",
        ),
        Home(
            module="tflite_runtime",
            distributions=("tflite-runtime", "tflite-runtime-nightly"),
            requirements=("tflite-runtime", "numpy<2"),  # built against numpy 1
            imports="tflite_runtime.interpreter",
        ),
        Home(
            module="tensorflow",
            distributions=("tensorflow", "tensorflow-cpu", "tensorflow-aarch64", "tf-nightly"),
        ),
    ),
)
_ONNXRUNTIME = RuntimeSpec(
    name="onnxruntime",
    homes=(
        Home(
            module="onnxruntime",
            distributions=(
                *("onnxruntime", "onnxruntime-gpu", "onnxruntime-qnn", "onnxruntime-openvino", "ort-nightly"),
            ),
            requirements=("onnxruntime",),
        ),
    ),
)
_OPENVINO = RuntimeSpec(
    name="openvino",
    homes=(Home(module="openvino", distributions=("openvino", "openvino-nightly"), requirements=("openvino",)),),
)

# with the very options that the agent measures with (edgekd.agent.runtimes): others may compute otherwise
_LITERT_CALL = """model.allocate_tensors()
for given, values in zip(model.get_input_details(), inputs):
    model.set_tensor(given["index"], values)
model.invoke()
answer = model.get_tensor(model.get_output_details()[0]["index"])[0]"""
_LITERT_HEADS = 'answers = {{d["name"]: model.get_tensor(d["index"])[0] for d in model.get_output_details()}}'
_LITERT_PRECISIONS = (*COMPARED, Precision.INT16X8, Precision.INT4_WEIGHTS)

LITERT_XNNPACK = BackendSpec(
    runtime=_LITERT,
    provider="xnnpack",
    formats=(Format.TFLITE,),
    precisions=_LITERT_PRECISIONS,
    delegates=True,
    example=f"""from {{module}}.interpreter import Interpreter

model = Interpreter(str(here / "{{model}}"), num_threads={{threads}})
{_LITERT_CALL}""",
    example_heads=_LITERT_HEADS,
)
LITERT_BUILTIN = BackendSpec(
    runtime=_LITERT,
    provider="builtin",
    formats=(Format.TFLITE,),
    precisions=_LITERT_PRECISIONS,
    reference=True,
    delegates=True,
    example=f"""from {{module}}.interpreter import Interpreter, OpResolverType

plain = OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES
model = Interpreter(str(here / "{{model}}"), num_threads={{threads}}, experimental_op_resolver_type=plain)
{_LITERT_CALL}""",
    example_heads=_LITERT_HEADS,
)
ONNXRUNTIME_CPU = BackendSpec(
    runtime=_ONNXRUNTIME,
    provider="cpu",
    formats=(Format.ONNX,),
    precisions=(*COMPARED, Precision.INT8_WEIGHTS, Precision.INT4_WEIGHTS),
    example="""import {module}

options = {module}.SessionOptions()
options.intra_op_num_threads = {threads}
options.inter_op_num_threads = 1
model = {module}.InferenceSession(here / "{model}", options, providers=["CPUExecutionProvider"])
given = {{given.name: values for given, values in zip(model.get_inputs(), inputs)}}
answer = model.run(None, given)[0][0]""",
    example_heads="""outputs = zip(model.get_outputs(), model.run(None, given))
answers = {{output.name: value[0] for output, value in outputs}}""",
)
OPENVINO_CPU = BackendSpec(
    runtime=_OPENVINO,
    provider="cpu",
    formats=(Format.OPENVINO, Format.ONNX, Format.TFLITE),
    precisions=(*COMPARED, Precision.BF16, Precision.INT8_WEIGHTS, Precision.INT4_WEIGHTS),
    example="""import {module}

options = {{"INFERENCE_PRECISION_HINT": "{floats}", "NUM_STREAMS": "1", "INFERENCE_NUM_THREADS": "{threads}"}}
model = {module}.Core().compile_model(here / "{model}", "CPU", options)
answer = model(inputs)[0][0]""",
    example_heads="""answers = {{}}
for output, value in model(inputs).items():
    answers |= dict.fromkeys(output.get_names(), value[0])""",
)
