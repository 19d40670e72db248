"""What a server does with hostile files: refused before they are read, or their reader dies alone."""

from __future__ import annotations

import os
import struct
import subprocess
import sys
import time
import zipfile
import zlib
from pathlib import Path

import numpy as np
import pytest
import soundfile

from sap2.errors import InputError
from sap2.pipeline.segmentation import Cutting
from sap2.serve.decoding import Upload, decode_recording, read_slides
from sap2.serve.errors import ApiError
from sap2.serve.folder import PREFIX, clear_left, private_folder
from sap2.serve.kinds import find_kind
from sap2.serve.multipart import shown_name
from sap2.serve.options import Limits
from sap2.serve.workers import Workers

LIMITS = Limits(audio_seconds=10.0, pages=20, pixels=1_000_000, unpacked_bytes=1 << 20, decode_seconds=30.0)


@pytest.fixture(autouse=True)
def pillow_as_it_was(monkeypatch):
    """A worker sets the limit of its own process."""
    import PIL.Image

    monkeypatch.setattr("PIL.Image.MAX_IMAGE_PIXELS", PIL.Image.MAX_IMAGE_PIXELS)


def upload(path: Path, kind: str) -> Upload:
    return Upload(str(path), f"their {path.name}", kind)


def pdf(pages: int) -> bytes:
    """A PDF whose pages are one object, named again and again."""
    kids = b"3 0 R " * pages
    objects = [
        b"<< /Type /Catalog /Pages 2 0 R >>",
        b"<< /Type /Pages /Count %d /Kids [%s] >>" % (pages, kids),
        b"<< /Type /Page /Parent 2 0 R /MediaBox [0 0 100 100] >>",
    ]
    out, places = b"%PDF-1.4\n", []
    for number, content in enumerate(objects, 1):
        places.append(len(out))
        out += b"%d 0 obj\n%s\nendobj\n" % (number, content)
    table = b"".join(b"%010d 00000 n \n" % place for place in places)
    end = b"xref\n0 4\n0000000000 65535 f \n%strailer << /Size 4 /Root 1 0 R >>\nstartxref\n%d\n%%%%EOF" % (
        table,
        len(out),
    )
    return out + end


def png(width: int, height: int) -> bytes:
    """The head of a picture of that size; its pixels are not there."""

    def chunk(name: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))

    head = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(bytes(1000))) + chunk(b"IEND", b"")
    )


def test_a_pdf_of_100000_pages_is_refused_before_it_is_read(tmp_path, monkeypatch):
    path = tmp_path / "1.pdf"
    path.write_bytes(pdf(100_000))
    with monkeypatch.context() as patch, pytest.raises(ApiError, match="has 100000 pages; allowed: 20") as caught:
        patch.setattr("sap2.serve.decoding.read_deck", lambda path: pytest.fail("it is read"))
        read_slides(upload(path, "slides"), "en", LIMITS)
    assert caught.value.status == 413
    path.write_bytes(pdf(20))
    assert len(read_slides(upload(path, "slides"), "en", LIMITS)) == 20


def test_a_page_of_any_size_is_rendered_small(tmp_path, monkeypatch):
    """A page of five metres would be a picture of gigabytes."""
    path = tmp_path / "1.pdf"
    path.write_bytes(pdf(1).replace(b"[0 0 100 100]", b"[0 0 14400 14400]"))
    sizes = []
    monkeypatch.setattr("sap2.slides.pdf.picture_text", lambda pixels, where: sizes.append(pixels.shape) or "")
    from sap2.slides.pdf import read_pdf

    assert read_pdf(path, "always") == [""]
    assert max(sizes[0]) <= 6000


def test_a_zip_bomb_is_refused_by_what_it_says_it_holds(tmp_path):
    path = tmp_path / "1.pptx"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("ppt/slides/slide1.xml", bytes(2 << 20))
    with pytest.raises(ApiError, match=r"their 1\.pptx unpacks to 2 MiB in 1 parts; allowed: 1 MiB") as caught:
        read_slides(upload(path, "slides"), "en", LIMITS)
    assert caught.value.status == 413


def test_a_zip_bomb_that_lies_about_its_size_gives_no_more_than_it_says(tmp_path):
    path = tmp_path / "1.pptx"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("[Content_Types].xml", bytes(4 << 20))
    data = path.read_bytes().replace(struct.pack("<I", 4 << 20), struct.pack("<I", 100))
    path.write_bytes(data)
    with pytest.raises(InputError, match="not readable as PPTX"):
        read_slides(upload(path, "slides"), "en", LIMITS)


def test_a_huge_picture_is_refused_by_its_head(tmp_path):
    path = tmp_path / "1.png"
    path.write_bytes(png(2000, 2000))
    with pytest.raises(ApiError, match=r"their 1\.png has .*pixels; allowed: 1 million") as caught:
        read_slides(upload(path, "slides"), "en", LIMITS)
    assert caught.value.status == 413
    path.write_bytes(png(100_000, 100_000))
    with pytest.raises(ApiError, match="too many pixels"):
        read_slides(upload(path, "slides"), "en", LIMITS)


def test_a_picture_with_many_pages_is_refused(tmp_path):
    from PIL import Image

    path = tmp_path / "1.tif"
    Image.new("L", (20, 20)).save(path, save_all=True, append_images=[Image.new("L", (20, 20))] * 30)
    with pytest.raises(ApiError, match="31 pages; allowed: 20"):
        read_slides(upload(path, "slides"), "en", LIMITS)


@pytest.mark.parametrize("suffix", ["wav", "mp3"])
def test_a_recording_that_is_too_long_is_refused(tmp_path, suffix):
    path = tmp_path / f"1.{suffix}"
    noise = np.random.default_rng(0).normal(0, 0.1, 16_000 * 12).astype(np.float32)
    soundfile.write(path, noise, 16_000, format=suffix.upper())
    with pytest.raises(ApiError, match=r"their 1\.\w+ is too long; allowed: 0.166667 minutes") as caught:
        decode_recording(upload(path, "audio"), 16_000, Cutting(5.0), "energy", LIMITS)
    assert caught.value.status == 413


@pytest.fixture(scope="module")
def workers(tmp_path_factory):
    made = Workers(1, tmp_path_factory.mktemp("work"), Limits(decode_seconds=20.0, worker_bytes=4 << 30))
    yield made
    made.close()


def test_a_worker_that_dies_takes_only_its_file_along(workers):
    with pytest.raises(ApiError, match="its reader failed") as caught:
        workers.submit(os._exit, 11).result(60)
    assert caught.value.status == 400
    assert workers.submit(len, "abc").result(60) == 3


def test_a_worker_has_limits_of_memory_and_size(workers, tmp_path):
    with pytest.raises(ApiError, match="more memory than allowed") as caught:
        workers.submit(bytes, 5 << 30).result(60)
    assert caught.value.status == 413
    assert workers.submit(os.getenv, "TMPDIR").result(60) == str(workers._folder)


def test_errors_of_a_worker_come_as_they_are(workers, tmp_path):
    path = tmp_path / "1.wav"
    path.write_bytes(b"RIFF....WAVEgarbage")
    with pytest.raises(InputError, match=r"audio their 1\.wav cannot be read"):
        workers.submit(decode_recording, upload(path, "audio"), 16_000, Cutting(5.0), "energy", LIMITS).result(60)


def test_a_worker_that_takes_too_long_is_ended(tmp_path):
    workers = Workers(1, tmp_path, Limits(decode_seconds=0.5))
    try:
        with pytest.raises(ApiError, match=r"longer than 0\.5 s") as caught:
            workers.submit(time.sleep, 60).result(60)
    finally:
        workers.close()
    assert caught.value.status == 413


def test_a_worker_whose_caller_has_left_is_ended_where_it_takes_long(tmp_path, monkeypatch):
    monkeypatch.setattr("sap2.serve.workers._WORTH_ENDING", 0.0)
    workers = Workers(1, tmp_path, Limits(decode_seconds=100.0))
    first = workers.submit(os.getpid).result(60)
    left = workers.submit(time.sleep, 90.0)
    while not left.running():
        time.sleep(0.01)
    waiting = workers.submit(os.getpid)
    assert not left.cancel() and not waiting.done()
    assert waiting.result(60) != first  # long before 90 s
    with pytest.raises(ApiError, match="the caller has gone"):
        left.result(0)
    workers.close()


def test_the_private_folder_is_cleared_also_after_a_crash(tmp_path):
    with private_folder(tmp_path) as first:
        (first / "upload").write_text("x")
        assert first.stat().st_mode & 0o077 == 0
        assert clear_left(tmp_path) == [] and first.exists()  # it is held
    assert not list(tmp_path.iterdir())
    code = (
        "import os, sys; from sap2.serve.folder import private_folder\n"
        "with private_folder(sys.argv[1]) as folder: (folder / 'upload').write_text('x'); os._exit(9)"
    )
    assert subprocess.run([sys.executable, "-c", code, tmp_path]).returncode == 9
    (tmp_path / f"{PREFIX}link").symlink_to("/etc")
    assert len([path for path in tmp_path.iterdir() if not path.is_symlink()]) == 1
    with private_folder(tmp_path) as folder:
        assert [path for path in tmp_path.iterdir() if not path.is_symlink()] == [folder]
    assert Path("/etc").is_dir()


@pytest.mark.parametrize(
    ("head", "kind"),
    [
        (b"RIFF\x00\x00\x00\x00WAVEfmt ", ("audio", "wav")),
        (b"RIFF\x00\x00\x00\x00WEBPVP8 ", ("slides", "webp")),
        (b"\x00\x00\x00\x18ftypM4A ", ("audio", "mp4")),
        (b"\x00\x00\x00\x18ftypheic", ("slides", "heic")),
        (b"\xff\xfb\x90\x00", ("audio", "mp3")),
        (b"\xff\xf1\x50\x80", ("audio", "aac")),
        (b"ID3\x04", ("audio", "mp3")),
        (b"\xff\xd8\xff\xe0", ("slides", "jpg")),
        (b"junk\n%PDF-1.7", ("slides", "pdf")),
        (b"PK\x03\x04", ("slides", "pptx")),
        ("Emily Wożniak".encode(), ("text", "txt")),
        (("ż" * 10).encode()[:-1], ("text", "txt")),
        (b"#EXTM3U\nhttp://127.0.0.1/", ("text", "txt")),
        (b"ffconcat version 1.0", ("text", "txt")),
        (b"\x7fELF\x02\x01\x01\x00", None),
        (b"MZ\x90\x00", None),
    ],
)
def test_kinds(head, kind):
    assert find_kind(head) == kind


def test_names_are_shown_without_paths_and_controls():
    assert shown_name("../../etc/passwd") == "passwd"
    assert shown_name("C:\\talks\\a.wav") == "a.wav"
    assert shown_name("\x1b[31mred\r\n.wav") == "[31mred.wav"
    assert shown_name("") == shown_name("a/") == "file" and len(shown_name("x" * 999)) == 80
