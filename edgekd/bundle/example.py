"""The bundle's ``example.py``: a dozen lines that answer the bundled samples with the runtime alone."""

from __future__ import annotations

from collections.abc import Sequence

from edgekd.artefacts import Backend
from edgekd.export._protocol import ExportOptions
from edgekd.ir.backends import BACKENDS
from edgekd.ir.encoding import Encoding
from edgekd.ir.numerics import BF16, Precision
from edgekd.tasks._protocol import PictureSpec, SoundSpec, TaskSpec
from edgekd.tasks.named_inputs import NamedInput, spans
from edgekd.tasks.tokenizing import TOKENIZER

__all__ = ["example_source"]


def example_source(
    model: str,
    backend: Backend,
    threads: int,
    options: ExportOptions,
    spec: TaskSpec,
    encoding: Encoding | None,
    precision: Precision = Precision.FLOAT32,
) -> str:
    """Python source that runs beside the model with numpy and one runtime, and prints the first sample's class.

    ``encoding`` is the input's, where the caller quantizes: preprocess stated with an integer input.
    """
    steps = "\n".join(_input_steps(options, spec, encoding))
    driven = BACKENDS[str(backend)]
    call = driven.example
    if not spec.plain:
        call = call.rpartition("\n")[0] + "\n" + driven.example_heads
    floats = "bf16" if precision.activations == BF16 else "f32"
    call = call.format(model=model, threads=threads, floats=floats, module=driven.runtime.homes[0].module)
    imports, _, use = call.partition("\n\n")
    own = ", or a picture: python example.py PICTURE (pillow)" if spec.input.picture else ""
    own = ", or a recording: python example.py SOUND.wav" if spec.input.sound else own
    own = ', or a sentence: python example.py "SENTENCE" (tokenizers)' if spec.input.text else own
    return (
        f'"""Answers the first sample that came with this model{own}. Needs numpy and the runtime, nothing else."""\n\n'
        f"{'import io' + chr(10) if spec.input.sound else ''}"
        f"{'import json' + chr(10) if own else ''}import pathlib\n{'import sys' + chr(10) if own else ''}"
        f"{'import wave' + chr(10) if spec.input.sound else ''}\n"
        "import numpy as np\n"
        f"{imports}\n\n"
        "here = pathlib.Path(__file__).resolve().parent\n"
        'samples = np.load(here / "samples.npz")\n'
        f"{steps}\n\n{use}\n\n{_shown(spec)}\n"
    )


def _shown(spec: TaskSpec) -> str:
    """Lines that print the answers."""
    if spec.plain and (spec.input.picture or spec.input.sound or spec.input.text) and spec.head.labels:
        names = 'json.loads((here / "preprocess.json").read_text())["output"]["labels"]'
        return f'print("class", {names}[int(np.argmax(answer))])'
    if spec.plain:
        return 'print("class", int(np.argmax(answer)), "label", int(samples["labels"][0]))'
    lines = []
    for head in spec.heads:
        name = head.name
        if head.kind == "classification":
            lines.append(f'print("{name}: class", int(np.argmax(answers["{name}"])))')
        elif head.kind == "multilabel":
            lines.append(f'print("{name}: labels", np.flatnonzero(answers["{name}"] > 0))')
        elif head.kind == "regression":
            lines.append(f'print("{name}: numbers", answers["{name}"])')
        elif head.kind == "segmentation":
            lines.append(
                f'print("{name}: pixels a class", np.bincount(answers["{name}"].ravel(), minlength={head.classes}))'
            )
        else:
            fields = ", ".join(f'answers["{name}.{part}"]' for part in ("boxes", "scores", "classes"))
            lines.append(f"for box, score, kind in zip({fields}):")
            lines.append("    if score > 0.3:")
            lines.append(
                f'        print("{name}: class", int(kind), "at", np.round(box, 1), "score", round(float(score), 3))'
            )
    return "\n".join(lines)


def _input_steps(options: ExportOptions, spec: TaskSpec, encoding: Encoding | None) -> list[str]:
    """Lines that turn one raw sample (1, C, H, W) or (1, C, T) into the model's inputs, as in preprocess.json."""
    lines = ['batch = samples["inputs"][:1]']
    if spec.input.picture is not None:
        lines.extend(_picture_steps(spec.input.picture))
    if spec.input.sound is not None:
        lines.extend(_sound_steps(spec.input.sound))
    if spec.input.text is not None:
        lines += ["if len(sys.argv) > 1:", "    from tokenizers import Tokenizer", ""]
        lines.append(f'    tokenizer = Tokenizer.from_file(str(here / "{TOKENIZER}"))')
        lines.append("    batch = np.int32([tokenizer.encode(sys.argv[1]).ids])")
    if isinstance(options.batch, int) and options.batch > 1:
        lines.append(f"batch = np.repeat(batch, {options.batch}, axis=0)  # the model takes no fewer at once")
    if spec.input.named:
        return [*lines, *_unpacking_steps(spec.input.named)]
    if spec.input.text is not None:
        return [*lines, "inputs = [batch]"]
    if options.preprocess == "stated":
        ones = ", 1" * (len(spec.input.shape) - 1)
        mean, std = (f"np.float32({list(values)}).reshape(-1{ones})" for values in (spec.input.mean, spec.input.std))
        lines.append(f"batch = (batch - {mean}) / {std}")
        if options.input != "float32" and encoding is not None:
            shift = 128 if options.input == "uint8" else 0  # encodings are for signed storage
            lines.append(f"batch = np.rint(batch / np.float32({encoding.scale[0]})) + {encoding.zero_point[0] + shift}")
            lines.append(f"batch = np.clip(batch, {shift - 128}, {shift + 127})")
    elif options.input == "int8":
        lines.append("batch = batch.astype(np.int16) - 128")
    if options.preprocess == "stated" or options.input != spec.input.raw_dtype:
        lines.append(f"batch = batch.astype(np.{options.input})")
    if options.layout == "nhwc":
        order = ", ".join(map(str, options.order(spec.input)))
        lines.append(f"batch = np.ascontiguousarray(batch.transpose({order}))")
    return [*lines, "inputs = [batch]"]


def _unpacking_steps(named: Sequence[NamedInput]) -> list[str]:
    """Lines that cut packed samples into the model's inputs."""
    lines = ["inputs = ["]
    for one, start, end in spans(named):
        shape = ", ".join(map(str, one.shape))
        values = f"np.ascontiguousarray(batch[:, {start}:{end}], np.{one.dtype})"
        lines.append(f"    {values}.reshape(-1, {shape}),  # {one.name}")
    return [*lines, "]"]


def _sound_steps(sound: SoundSpec) -> list[str]:
    """Lines that read a WAV file instead, where one is named."""
    lines = [
        "content = pathlib.Path(sys.argv[1]).read_bytes()",
        'at = content.find(b"fmt ", 12) + 8',
        'if content[at : at + 2] == b"\\xfe\\xff":  # the format of its values is told further on',
        "    content = content[:at] + content[at + 24 : at + 26] + content[at + 2 :]",
        "with wave.open(io.BytesIO(content)) as file:",
        "    rate, channels, width = file.getframerate(), file.getnchannels(), file.getsampwidth()",
        "    frames = np.frombuffer(file.readframes(file.getnframes()), np.uint8).reshape(-1, channels, width)",
        f"if rate != {sound.rate}:",
        f'    sys.exit(f"the recording has {{rate}} samples a second, and the model takes {sound.rate}")',
        "integers = np.zeros((*frames.shape[:2], 4), np.uint8)",
        "integers[..., 4 - width:] = frames - 128 if width == 1 else frames  # of 8 bits they are unsigned",
        'sound = np.float32(integers.view("<i4")[..., 0].T / 2**31)',
    ]
    if sound.channels == 1:
        lines.append("sound = sound.mean(0, keepdims=True)")
    else:
        lines.append(f"if channels != {sound.channels}:")
        lines.append(f'    sys.exit(f"the recording has {{channels}} channels, and the model takes {sound.channels}")')
    lines.append(f"over = sound.shape[1] - {sound.samples}  # its middle, or zeros on both sides")
    lines.append(f"sound = sound[:, over // 2 : over // 2 + {sound.samples}] if over > 0 else sound")
    lines.append(f"before = ({sound.samples} - sound.shape[1]) // 2")
    lines.append(f"batch = np.pad(sound, ((0, 0), (before, {sound.samples} - sound.shape[1] - before)))[None]")
    return ["if len(sys.argv) > 1:", *(f"    {line}" for line in lines)]


def _picture_steps(picture: PictureSpec) -> list[str]:
    """Lines that read a picture file instead, where one is named."""
    size, bilinear = (picture.size[1], picture.size[0]), f"Image.Resampling.{picture.resampling.upper()}"
    lines = ["from PIL import Image, ImageOps", "", "picture = Image.open(sys.argv[1])"]
    if picture.orientation == "exif":
        lines.append("picture = ImageOps.exif_transpose(picture)")
    lines.append('if picture.mode.startswith("I"):  # of 16 bits the upper 8')
    lines.append("    picture = Image.fromarray((np.asarray(picture) >> 8).astype(np.uint8))")
    lines.append(f'picture = picture.convert("{picture.mode}")')
    if picture.fit == "crop":
        lines.append(f"picture = ImageOps.fit(picture, {size}, {bilinear})")
    else:
        lines.append(f"picture = picture.resize({size}, {bilinear})")
    lines.append("batch = np.atleast_3d(np.asarray(picture)).transpose(2, 0, 1)[None]")
    return ["if len(sys.argv) > 1:", *(f"    {line}" if line else "" for line in lines)]
