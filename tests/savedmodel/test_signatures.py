import dataclasses
import re

import pytest

from pipeline.core.errors import ModuleError
from pipeline.savedmodel.module import Module, SignatureInfo, TensorInfo
from pipeline.savedmodel.signatures import ImageSignature, choose_signature

IMAGES = TensorInfo("images", "float32", (None, 32, 32, 3))
VECTORS = TensorInfo("default", "float32", (None, 8))
DIGEST = "0" * 64


def signature(inputs=(IMAGES,), outputs=(VECTORS,)):
    return SignatureInfo({tensor.key: tensor for tensor in inputs}, {tensor.key: tensor for tensor in outputs})


def module(image_size=None, **signatures):
    return Module("m", "/m", DIGEST, "tf2", (("serve",),), signatures or {"default": signature()}, image_size)


def images(*shape, dtype="float32"):
    return TensorInfo("images", dtype, shape)


class TestChooseSignature:
    @pytest.mark.parametrize(
        ("names", "chosen"),
        [
            (["serving_default", "default", "image_feature_vector"], "image_feature_vector"),
            (["serving_default", "default"], "default"),
            (["other", "serving_default"], "serving_default"),
        ],
    )
    def test_the_first_of_the_usual_names(self, names, chosen):
        assert choose_signature(module(**{name: signature() for name in names})).signature == chosen

    def test_the_one_that_is_named(self):
        found = module(default=signature(), other=signature(outputs=[TensorInfo("x", "float32", (None, 5))]))
        assert choose_signature(found, signature="other") == ImageSignature("other", "images", "x", 32, 32, 5)

    @pytest.mark.parametrize(
        ("outputs", "wanted", "chosen"),
        [
            ([VECTORS], None, "default"),
            ([TensorInfo("x", "float32", (None, 5))], None, "x"),
            ([VECTORS, TensorInfo("x", "float32", (None, 5))], None, "default"),
            ([VECTORS, TensorInfo("x", "float32", (None, 5))], "x", "x"),
            ([TensorInfo("x", "float32", None)], None, "x"),
        ],
    )
    def test_the_output(self, outputs, wanted, chosen):
        picked = choose_signature(module(default=signature(outputs=outputs)), output_key=wanted)
        assert picked.output_key == chosen
        shape = {tensor.key: tensor.shape for tensor in outputs}[chosen]
        assert picked.dimension == (shape[-1] if shape else None)

    def test_an_input_of_another_name(self):
        tensor = TensorInfo("input_1", "float32", (None, 32, 32, 3))
        assert choose_signature(module(default=signature(inputs=[tensor]))).input_key == "input_1"

    @pytest.mark.parametrize(
        ("shape", "attached", "asked", "size"),
        [
            ((None, 32, 48, 3), None, None, (32, 48)),
            ((None, 32, 48, 3), None, (32, 48), (32, 48)),
            ((None, None, None, 3), (96, 64), None, (96, 64)),
            ((None, None, None, 3), (96, 64), (96, 64), (96, 64)),
            ((None, None, None, None), None, (96, 64), (96, 64)),
            ((None, None, 48, 3), None, (32, 48), (32, 48)),
            (None, None, (96, 64), (96, 64)),
        ],
    )
    def test_the_image_size(self, shape, attached, asked, size):
        tensor = TensorInfo("images", "float32", shape)
        picked = choose_signature(module(attached, default=signature(inputs=[tensor])), image_size=asked)
        assert (picked.height, picked.width) == size

    @pytest.mark.parametrize(
        ("tensor", "fed"),
        [
            (images(None, 32, 48, 3, dtype="uint8"), {"dtype": "uint8"}),
            (images(None, 32, 48, 3, dtype="float16"), {"dtype": "float16"}),
            (images(None, 3, 32, 48), {"layout": "NCHW"}),
            (images(None, 3, 32, 3), {"layout": "NHWC", "height": 3, "width": 32}),
            (images(8, 32, 48, 3), {"fixed_batch_size": 8}),
            (images(None, dtype="string"), {"dtype": "string", "height": 0, "width": 0}),
        ],
    )
    def test_how_the_input_is_fed(self, tensor, fed):
        found = dataclasses.replace(module(default=signature(inputs=[tensor])), decodes_images=True)
        chosen = choose_signature(found)
        plain = ImageSignature("default", "images", "default", 32, 48, 8)
        assert chosen == dataclasses.replace(plain, **fed)
        assert chosen.is_adapted == any(name in fed for name in ("dtype", "fixed_batch_size")) or "NCHW" in str(fed)

    @pytest.mark.parametrize(
        ("others", "switches"),
        [
            ([TensorInfo("training", "bool", ())], ("training",)),
            ([TensorInfo("keras_learning_phase", "bool", ())], ("keras_learning_phase",)),
            ([TensorInfo("is_training", "bool", (), b"x"), TensorInfo("scale", "float32", (), b"x")], ("is_training",)),
        ],
    )
    def test_further_inputs(self, others, switches):
        chosen = choose_signature(module(default=signature(inputs=[*others, IMAGES])))
        assert (chosen.input_key, chosen.switches) == ("images", switches)

    @pytest.mark.parametrize(
        ("shape", "pooling", "kept", "dimension"),
        [
            ((None, 1, 1, 8), None, None, 8),
            ((None, 8, 1, 1), "mean", None, 8),
            ((None, None), "flatten", None, None),
            ((None, 5, 8), "mean", "mean", 8),
            ((None, 5, 8), "cls", "cls", 8),
            ((None, 5, 8), "flatten", "flatten", 40),
            ((None, None, None, 8), "mean", "mean", 8),
            ((None, None, 7, 8), "flatten", "flatten", None),
            (None, "mean", "mean", None),
        ],
    )
    def test_the_pooling(self, shape, pooling, kept, dimension):
        found = module(default=signature(outputs=[TensorInfo("default", "float32", shape)]))
        chosen = choose_signature(found, pooling=pooling)
        assert (chosen.pooling, chosen.dimension) == (kept, dimension)

    def test_the_only_output_with_vectors_is_taken(self):
        outputs = [TensorInfo("last", "float32", (None, 5, 8)), TensorInfo("pooled", "float32", (None, 8))]
        outputs.append(TensorInfo("label", "string", (None,)))
        found = module(default=signature(outputs=outputs))
        assert choose_signature(found).output_key == "pooled"
        with pytest.raises(ModuleError, match=r"choose --output_key from: last, pooled, label$"):
            choose_signature(found, pooling="mean")

    @pytest.mark.parametrize(
        ("info", "options", "message"),
        [
            (
                module(other=signature(), more=signature()),
                {},
                "the module has none of the signatures image_feature_vector, default, serving_default; "
                "it has: other, more; name one with --signature",
            ),
            (
                module(),
                {"signature": "x"},
                "the module has no signature 'x'; it has: default; name one with --signature",
            ),
            (
                dataclasses.replace(module(), signatures={}),
                {"signature": "x"},
                "the module has no signature 'x'; it has: none; name one with --signature",
            ),
            *(
                (
                    module(default=signature(inputs=inputs)),
                    {},
                    f"signature 'default' takes no images: it takes {found}; "
                    "expected one input of float or uint8 [?,height,width,3] or [?,3,height,width], or string[?] for "
                    "encoded images; others need a default value or must be a training switch",
                )
                for inputs, found in [
                    ([], "no inputs"),
                    ([TensorInfo("text", "string", (None,))], "text: string[?]"),
                    ([images(None, 32, 32, 3, dtype="int8")], "images: int8[?,32,32,3]"),
                    ([images(None, 4, 32, 32)], "images: float32[?,4,32,32]"),
                    ([images(None, 32, 32)], "images: float32[?,32,32]"),
                    (
                        [IMAGES, TensorInfo("flip", "bool", ())],
                        "images: float32[?,32,32,3]; flip: bool[]",
                    ),
                ]
            ),
            (
                module(),
                {"output_key": "x"},
                "signature 'default' has no output 'x'; choose --output_key from: default",
            ),
            (
                module(default=signature(outputs=[TensorInfo(key, "float32", (None, 2)) for key in "ab"])),
                {},
                "signature 'default' has several outputs and none is 'default'; choose --output_key from: a, b",
            ),
            (
                module(default=signature(outputs=[TensorInfo("default", "float32", (None, 7, 7, 2))])),
                {},
                "signature 'default' gives no vectors: default: float32[?,7,7,2]; expected an output "
                "float32[?,dimension]; choose another --output_key, or say --pooling=mean, --pooling=cls or "
                "--pooling=flatten",
            ),
            (
                module(default=signature(outputs=[TensorInfo("default", "float32", (None, 7, 7, 2))])),
                {"pooling": "cls"},
                "signature 'default' gives no vectors: default: float32[?,7,7,2]; --pooling=cls expects an output "
                "float32[?,tokens,dimension]; say --pooling=mean or --pooling=flatten",
            ),
            (
                dataclasses.replace(
                    module(default=signature(inputs=[TensorInfo("examples", "string", (None,))])), decodes_images=True
                ),
                {},
                "signature 'default' takes serialized tf.train.Examples (examples: string[?]); expected images; choose "
                "another --signature, or export one that takes images",
            ),
            (
                dataclasses.replace(
                    module(default=signature(inputs=[images(None, dtype="string")])), decodes_images=True
                ),
                {"image_size": (32, 32)},
                "--image_size=32,32 has no effect: signature 'default' takes encoded images and resizes them itself; "
                "leave it out",
            ),
            (
                module(default=signature(outputs=[TensorInfo("default", "int64", (None, 2))])),
                {},
                "signature 'default' gives no vectors: default: int64[?,2]; expected an output float32[?,dimension]",
            ),
            *(
                (
                    module(default=signature(inputs=[TensorInfo("images", "float32", shape)])),
                    {},
                    "the module does not say what image size signature 'default' takes; give --image_size=H,W",
                )
                for shape in [None, (None, None, None, 3), (None, 32, None, 3)]
            ),
            *(
                (
                    module(attached, default=signature(inputs=[images(None, *shape, 3)])),
                    {"image_size": (64, 96)},
                    f"--image_size=64,96 contradicts the module, which takes {takes}; leave it out",
                )
                for attached, shape, takes in [
                    ((32, 32), (None, None), "32,32"),
                    (None, (32, 48), "32,48"),
                    (None, (32, None), "32,96"),
                    (None, (None, 48), "64,48"),
                ]
            ),
        ],
    )
    def test_refused(self, info, options, message):
        with pytest.raises(ModuleError, match=f"^{re.escape(message)}$"):
            choose_signature(info, **options)
