"""What generators write into image files, and colour profiles: damaged within and around, fed to their readers."""

from __future__ import annotations

import gzip
import io
import json
import random
import struct
import zlib
from collections.abc import Callable
from functools import cache
from typing import Any

from PIL import Image, ImageCms

from fuzz.harness import Case, Surface
from fuzz.mutate import damaged, damaged_json
from mst_clipiqa.images.colour import conversion, profile_of
from mst_clipiqa.images.decode import open_image
from mst_clipiqa.inputs.generation import generation_of_text, read_generation
from mst_clipiqa.inputs.prompt_syntax import without_syntax

USER_COMMENT = 0x9286
LINES = (
    "a (red:1.3) ball on a table <lora:x:0.8>\nNegative prompt: blurry,\nbad\n"
    "Steps: 20, Sampler: DPM++ 2M, CFG scale: 7.5, Seed: 1234567890, Size: 512x768, Model: sd, "
    'Lora hashes: "x: 1, y: 2", Version: 1.9'
)


def node(kind: str, **inputs: Any) -> dict[str, Any]:
    return {"class_type": kind, "inputs": inputs}


COMFYUI = {
    "3": node("KSampler", seed=5, steps=20, cfg=7, sampler_name="euler", scheduler="normal", denoise=1, model=["4", 0]),
    "4": node("CheckpointLoaderSimple", ckpt_name="sd"),
    "5": node("EmptyLatentImage", width=512, height=768, batch_size=1),
    "6": node("CLIPTextEncode", text="a red ball on a table", clip=["4", 1]),
    "7": node("CLIPTextEncode", text="blurry", clip=["4", 1]),
    "8": node("VAEDecode", samples=["3", 0], vae=["4", 2]),
    "9": node("SaveImage", filename_prefix="ComfyUI", images=["8", 0]),
}
COMFYUI["3"]["inputs"] |= {"positive": ["6", 0], "negative": ["7", 0], "latent_image": ["5", 0]}
FLUX = {
    "13": node("SamplerCustomAdvanced", noise=["25", 0], guider=["22", 0], sampler=["16", 0], sigmas=["17", 0]),
    "25": node("RandomNoise", noise_seed=99),
    "22": node("BasicGuider", model=["12", 0], conditioning=["26", 0]),
    "26": node("FluxGuidance", guidance=3.5, conditioning=["6", 0]),
    "6": node("CLIPTextEncode", text=["30", 0], clip=["11", 0]),
    "30": node("PrimitiveString", value="a fox"),
    "16": node("KSamplerSelect", sampler_name="euler"),
    "17": node("BasicScheduler", scheduler="simple", steps=4, denoise=1, model=["12", 0]),
    "12": node("UNETLoader", unet_name="flux1"),
    "27": node("EmptySD3LatentImage", width=1024, height=1024),
}
FLUX["13"]["inputs"]["latent_image"] = ["27", 0]
NOVELAI = {
    **{"prompt": "a girl", "uc": "lowres", "steps": 28, "scale": 5.0, "seed": 77, "sampler": "k_euler"},
    **{"width": 832, "height": 1216},
    "v4_prompt": {"caption": {"base_caption": "a girl", "char_captions": [{"char_caption": "red hair"}]}},
}
FOOOCUS = {
    **{"prompt": "a cat", "negative_prompt": "blurry", "steps": 30, "guidance_scale": 4.0, "seed": "123"},
    **{"sampler": "dpmpp_2m_sde_gpu", "scheduler": "karras", "base_model": "juggernaut", "version": "Fooocus v2.5"},
    "resolution": "(1152, 896)",
}
INVOKEAI = {
    **{"positive_prompt": "a hat", "negative_prompt": "ugly", "seed": 1, "cfg_scale": 7.5, "steps": 30},
    **{"scheduler": "euler", "width": 512, "height": 640, "model": {"model_name": "sd15", "base_model": "sd-1"}},
}
SD_METADATA = {
    "model_weights": "sd15",
    "image": {
        **{"prompt": [{"prompt": "a hat [ugly]", "weight": 1.0}], "steps": 50, "cfg_scale": 7.5, "seed": 3},
        **{"sampler": "k_lms", "width": 512, "height": 512},
    },
}
SWARMUI = {
    "sui_image_params": {
        **{"prompt": "a boat", "negativeprompt": "", "model": "flux", "seed": 3, "steps": 4, "cfgscale": 1.0},
        **{"sampler": "euler", "width": 512, "height": 512},
    }
}


def png(**texts: str) -> bytes:
    """Return a PNG with texts; each is compressed or not by the length of its name."""
    chunks = b""
    for name, text in texts.items():
        key = b"sd-metadata" if name == "sd_metadata" else name.encode()
        match len(name) % 3:
            case 0:
                kind, data = b"iTXt", key + b"\0\0\0\0\0" + text.encode("utf-8", "replace")
            case 1:
                kind, data = b"tEXt", key + b"\0" + text.encode("utf-8", "replace")
            case _:
                kind, data = b"zTXt", key + b"\0\0" + zlib.compress(text.encode("utf-8", "replace"))
        chunks += struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
    plain = saved(Image.new("RGB", (24, 17), (90, 40, 10)), "PNG")
    return plain[:33] + chunks + plain[33:]


def with_exif(kind: str, comment: bytes = b"", **texts: str) -> bytes:
    """Return an image with EXIF: a user comment, and fields by name."""
    exif = Image.Exif()
    for tag, name in ((0x010E, "ImageDescription"), (0x010F, "Make"), (0x0110, "Model")):
        if name in texts:
            exif[tag] = texts[name]
    if comment:
        exif.get_ifd(0x8769)[USER_COMMENT] = comment
        exif[0x0131] = "a generator"
    return saved(Image.new("RGB", (24, 17), (90, 40, 10)), kind, exif=exif)


def saved(image: Image.Image, kind: str, **options: Any) -> bytes:
    file = io.BytesIO()
    image.copy().save(file, kind, **options)  # Pillow leaves a format's settings on what it saves
    return file.getvalue()


def in_alpha(text: str, *, packed: bool = True) -> bytes:
    """Return a PNG with text in the lowest bits of its alpha channel, column by column."""
    words = gzip.compress(text.encode(), mtime=0) if packed else text.encode()
    name = b"stealth_pngcomp" if packed else b"stealth_pnginfo"
    bits = "".join(f"{byte:08b}" for byte in (*name, *struct.pack(">I", 8 * len(words)), *words))
    image = Image.new("RGBA", (max(96, -(-len(bits) // 64)), 64), (200, 30, 30, 254))
    for at, bit in enumerate(bits):
        image.putpixel(divmod(at, image.height), (200, 30, 30, 254 + int(bit)))
    return saved(image, "PNG")


def utf16(text: str, order: str = "be") -> bytes:
    return b"UNICODE\0" + text.encode(f"utf-16-{order}")


_JSON: dict[str, Callable[[str], bytes]] = {
    "prompt": lambda text: png(prompt=text, workflow="{}"),
    "parameters": lambda text: png(parameters=text),
    "Comment": lambda text: png(Description="a girl", Source="NovelAI", Comment=text),
    "invokeai_metadata": lambda text: png(invokeai_metadata=text),
    "sd_metadata": lambda text: png(sd_metadata=text),
    "UserComment": lambda text: with_exif("WEBP", utf16(text)),
    "Make": lambda text: with_exif("WEBP", Make=f"prompt:{text}"),
}


@cache
def seeds() -> dict[str, bytes]:
    """Return a file as each generator writes it."""
    return {
        "AUTOMATIC1111 in PNG": png(parameters=LINES),
        "AUTOMATIC1111 in JPEG": with_exif("JPEG", utf16(LINES)),
        "AUTOMATIC1111 in WebP": with_exif("WEBP", utf16(LINES)),
        "AUTOMATIC1111 in AVIF": with_exif("AVIF", utf16(LINES)),
        "little endian": with_exif("JPEG", utf16(LINES, "le")),
        "with a byte order mark": with_exif("JPEG", b"UNICODE\0" + LINES.encode("utf-16")),
        "ASCII": with_exif("JPEG", b"ASCII\0\0\0" + LINES.encode()),
        "no character set": with_exif("JPEG", bytes(8) + LINES.encode()),
        "a comment in GIF": saved(Image.new("P", (24, 17)), "GIF", comment=LINES.encode()),
        "a comment in JPEG": saved(Image.new("L", (24, 17)), "JPEG", comment=LINES.encode()),
        "ComfyUI": png(prompt=json.dumps(COMFYUI), workflow="{}"),
        "ComfyUI with a guider": png(prompt=json.dumps(FLUX)),
        "ComfyUI in WebP": with_exif("WEBP", Make=f"prompt:{json.dumps(COMFYUI)}", Model="workflow:{}"),
        "ComfyUI in a user comment": with_exif("JPEG", utf16(json.dumps({"prompt": COMFYUI, "workflow": {}}))),
        "NovelAI": png(Description="a girl", Software="NovelAI", Source="NovelAI V4", Comment=json.dumps(NOVELAI)),
        "NovelAI in WebP": with_exif(
            "WEBP", b"ASCII\0\0\0" + json.dumps({"Comment": json.dumps(NOVELAI), "Source": "NovelAI V4"}).encode()
        ),
        "NovelAI in the alpha channel": in_alpha(
            json.dumps({"Description": "a girl", "Source": "NovelAI V4", "Comment": json.dumps(NOVELAI)})
        ),
        "AUTOMATIC1111 in the alpha channel": in_alpha(LINES, packed=False),
        "Fooocus": png(parameters=json.dumps(FOOOCUS), fooocus_scheme="fooocus"),
        "Fooocus in JPEG": with_exif("JPEG", utf16(json.dumps(FOOOCUS))),
        "InvokeAI": png(invokeai_metadata=json.dumps(INVOKEAI)),
        "InvokeAI 2": png(sd_metadata=json.dumps(SD_METADATA)),
        "InvokeAI 1": png(Dream='"a hat [ugly]" -s 50 -S 3 -W512 -H512 -C7.5 -A k_lms'),
        "SwarmUI": png(parameters=json.dumps(SWARMUI)),
        "fields by name": png(prompt="a hen", seed="4", num_inference_steps="25", guidance_scale="7.5"),
    }


@cache
def profiles() -> tuple[bytes, ...]:
    """Return profiles of several kinds: LittleCMS's own and those that we write."""
    kinds = [ImageCms.ImageCmsProfile(ImageCms.createProfile(name)).tobytes() for name in ("sRGB", "LAB", "XYZ")]
    curves = ((0, 1.0), (0, 1.8), (3, 2.4, 1 / 1.055, 0.055 / 1.055, 1 / 12.92, 0.04045))
    points = (0.3127, 0.329, 0.68, 0.32, 0.265, 0.69, 0.15, 0.06)
    made = [profile_of(curve, points) for curve in curves]
    return tuple(kinds + [one for one in made if one is not None])


def make(dice: random.Random) -> Case:
    """Return one case: a damaged file, damaged JSON in a whole file, damaged text, or a damaged profile."""
    files = list(seeds().values())
    match dice.randrange(5):
        case 0:
            return {"file": damaged(dice.choice(files), dice, dice.choice(files))}
        case 1:
            tree = dice.choice((COMFYUI, FLUX, NOVELAI, FOOOCUS, INVOKEAI, SD_METADATA, SWARMUI))
            for _ in range(dice.choice((1, 2, 5, 20))):
                tree = damaged_json(tree, dice)
            return {"file": dice.choice(list(_JSON.values()))(json.dumps(tree))}
        case 2:
            text = damaged(LINES.encode(), dice, json.dumps(COMFYUI).encode()) * dice.choice((1, 1, 1, 30))
            return {"text": text}
        case 3:
            return {"file": _deep(dice)}
    profile, mode = damaged(dice.choice(profiles()), dice, dice.choice(profiles())), dice.choice(("RGB", "L", "CMYK"))
    return {"profile": profile, "mode": mode.encode()}


def _deep(dice: random.Random) -> bytes:
    """Return a file whose text is deep, long, or goes round in a circle."""
    many = dice.choices((10, 300, 3000, 30_000), (10, 10, 3, 0.3))[0]
    link = [str(dice.randrange(many)), 0]
    texts = (
        "[" * many,
        '{"prompt":' * many,
        json.dumps({str(i): node("X", positive=[str(i + 1), 0], steps=1) for i in range(many)}),
        json.dumps({str(i): node("X", positive=link, negative=link, images=link, seed=link) for i in range(many)}),
        f"{'a,' * many}\nSteps: 1, {'x: 1, ' * many}",
        f"{'(' * many}a:1{')' * many}",
        f"Steps: {'1' * many}, Seed: {'9' * many}, CFG scale: 1e{many}",
    )
    return dice.choice(list(_JSON.values()))(dice.choice(texts))


def feed(case: Case) -> None:
    """Read a file's generation and clean its prompt; or read a text; or convert an image by a profile."""
    if "profile" in case:
        image = Image.new(case["mode"].decode(), (5, 3), 90)
        image.info["icc_profile"] = case["profile"]
        if conversion(image)(image).mode != "RGB" or open_image(image).image.size != (5, 3):
            raise TypeError("not an image")
        return
    if "text" in case:
        found = generation_of_text(case["text"].decode("utf-8", "replace"))
    else:
        found = read_generation(case["file"])
    if found is None:
        return
    for text in (found.prompt, found.negative_prompt, found.sampler, found.model):
        if text is not None:
            without_syntax(text)[0].encode()
    for number in (found.seed, found.steps, found.cfg_scale):
        if number is not None and not abs(number) < 2**64:
            raise TypeError(f"not a number to keep: {number}")


SURFACE = Surface("metadata", make, feed)
