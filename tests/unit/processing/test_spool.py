"""A spooled block is there whole or not at all, and a damaged one is done again."""

import io
import os
import zipfile

import numpy as np
import pytest

from wsi_denoise.processing.spool import DAMAGE, SUFFIX, BlockProduct, Spool, folder_name
from wsi_denoise.slide.geometry import BlockIndex
from wsi_denoise.system.files import atomic_file

BLOCK = BlockIndex(3, 14)
KEY = {
    "model_sha256": "0" * 64,
    "settings": {"output.quality": 90, "compute.halo": 48},
    "numerics": "cpu-torch-fp32-w4",
    "version": "wsi-denoise 1.0",
    "region": None,
}


@pytest.fixture
def product(tissue_image) -> BlockProduct:
    tiles = {(level, row, 0): os.urandom(100 + row) for level in (0, 1) for row in range(3)}
    return BlockProduct(tiles, tissue_image[:37, :53], {"sums": np.arange(5.0), "empty": np.zeros((0, 3), np.int64)})


@pytest.fixture
def spool(tmp_path) -> Spool:
    return Spool(tmp_path / "spool" / "slide")


def test_what_was_written_comes_back(spool, product):
    size = spool.write(BLOCK, product)
    assert size == (spool.folder / f"{BLOCK}{SUFFIX}").stat().st_size
    with spool.open(BLOCK) as file:
        for place, tile in product.tiles.items():
            assert file.tile(*place) == tile
        np.testing.assert_array_equal(file.reduced(), product.reduced)
        arrays = file.arrays()
    assert set(arrays) == {"sums", "empty"}
    for name, array in product.arrays.items():
        assert arrays[name].dtype == array.dtype
        np.testing.assert_array_equal(arrays[name], array)
    assert set(spool.finished()) == {BLOCK}
    assert spool.is_sound(BLOCK)


def test_an_empty_spool_has_nothing_finished(spool):
    assert set(spool.finished()) == set()
    assert not spool.is_sound(BLOCK)
    with pytest.raises(OSError, match="No such file"), spool.open(BLOCK):
        pass
    spool.discard(BLOCK)
    spool.remove()


def test_a_tile_that_is_not_there_is_no_empty_tile(spool, product):
    spool.write(BLOCK, product)
    with spool.open(BLOCK) as file, pytest.raises(KeyError):
        file.tile(0, 99, 0)


def test_writing_leaves_the_block_and_nothing_else(spool, product):
    for _ in range(2):
        spool.write(BLOCK, product)
    assert [file.name for file in spool.folder.iterdir()] == [f"{BLOCK}{SUFFIX}"]


def test_a_write_that_fails_leaves_what_was_there(spool, product):
    spool.write(BLOCK, product)
    before = (spool.folder / f"{BLOCK}{SUFFIX}").read_bytes()

    class Refuses:
        def __bytes__(self) -> bytes:
            raise OSError(28, "No space left on device")

    broken = BlockProduct({(0, 0, 0): b"first", (0, 0, 1): Refuses()}, product.reduced, product.arrays)
    with pytest.raises((OSError, TypeError)):
        spool.write(BLOCK, broken)
    with pytest.raises((OSError, TypeError)):
        spool.write(BlockIndex(0, 0), broken)
    assert [file.name for file in spool.folder.iterdir()] == [f"{BLOCK}{SUFFIX}"]
    assert (spool.folder / f"{BLOCK}{SUFFIX}").read_bytes() == before
    assert set(spool.finished()) == {BLOCK}


def test_a_partial_file_is_no_finished_block(spool, product):
    spool.write(BLOCK, product)
    whole = (spool.folder / f"{BLOCK}{SUFFIX}").read_bytes()
    (spool.folder / ".00000-00001.123.part").write_bytes(whole)
    (spool.folder / "00000-00002.started").write_text("123")
    assert set(spool.finished()) == {BLOCK}


def test_two_that_are_at_one_block_do_not_meet(spool, product):
    """Two threads of a worker, or two containers whose processes have one number."""
    other = Spool(spool.folder)
    size = spool.write(BLOCK, product)
    whole = spool.sent(BLOCK)

    class Meanwhile:
        """Is taken for a tile, and has the other one write the block before it is written itself."""

        def items(self):
            for number, item in enumerate(product.tiles.items()):
                if number == 1:
                    other.write(BLOCK, product)
                    assert other.is_sound(BLOCK)
                yield item

    assert spool.write(BLOCK, BlockProduct(Meanwhile(), product.reduced, product.arrays)) == size
    assert spool.is_sound(BLOCK)
    assert len(spool.sent(BLOCK)) == len(whole)
    assert [file.name for file in spool.folder.iterdir()] == [f"{BLOCK}{SUFFIX}"]


def test_what_is_half_written_goes_with_the_folder(spool, product):
    spool.folder.mkdir(parents=True)
    with atomic_file(spool.folder / f"{BLOCK}{SUFFIX}") as file:
        file.write(b"half")
        (part,) = spool.folder.iterdir()
        assert part.name.startswith(".")
        assert part.name.endswith(".part")
        assert set(spool.finished()) == set()
        os.link(part, spool.folder / f"{part.stem}.left.part")  # as a writer that was killed leaves it
    spool.remove()
    assert not spool.folder.exists()


@pytest.mark.parametrize("share", [0.0, 0.01, 0.5, 0.9, 0.999])
def test_a_block_that_was_cut_off_is_removed(share, spool, product):
    other = BlockIndex(0, 0)
    spool.write(other, product)
    size = spool.write(BLOCK, product)
    file = spool.folder / f"{BLOCK}{SUFFIX}"
    os.truncate(file, int(size * share))
    assert not spool.is_sound(BLOCK)
    assert set(spool.finished()) == {other}
    assert not file.exists()
    assert spool.is_sound(other)


def test_a_file_of_another_kind_is_removed(spool, product):
    spool.write(BLOCK, product)
    for name, content in (("00000-00000", b"text"), ("00000-00001", b""), ("nonsense", b"PK")):
        (spool.folder / f"{name}{SUFFIX}").write_bytes(content)
    assert set(spool.finished()) == {BLOCK}
    assert [file.name for file in spool.folder.iterdir()] == [f"{BLOCK}{SUFFIX}"]


def damage(spool: Spool, member: str) -> None:
    """Flip a bit in the middle of a member; the archive's table stays whole."""
    file = spool.folder / f"{BLOCK}{SUFFIX}"
    content = bytearray(file.read_bytes())
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        info = archive.getinfo(member)
    start = info.header_offset + 30 + len(info.filename)
    content[start + info.file_size // 2] ^= 1
    file.write_bytes(content)


@pytest.mark.parametrize("member", ["0/1/0", "1/2/0", "reduced", "evidence.npz"])
def test_a_flipped_bit_is_never_read_as_content(member, spool, product):
    spool.write(BLOCK, product)
    assert spool.is_sound(BLOCK)
    damage(spool, member)
    assert not spool.is_sound(BLOCK)
    with pytest.raises(zipfile.BadZipFile, match=member):
        read_all(spool, product)
    assert set(spool.finished()) == set()


def read_all(spool: Spool, product: BlockProduct) -> list[bytes]:
    """Read what assembling, evidence and verification read."""
    with spool.open(BLOCK) as file:
        tiles = [file.tile(*place) for place in product.tiles]
        return [*tiles, file.reduced().tobytes(), *(array.tobytes() for array in file.arrays().values())]


def directory_of(content: bytes) -> range:
    """Return the offsets of the ZIP directory and its end record; members are before it."""
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        return range(archive.start_dir, len(content))


@pytest.mark.parametrize("change", [lambda byte: byte ^ 1, lambda byte: byte ^ 0x80, lambda _: 0xFF, lambda _: 8])
def test_every_damage_of_the_zip_directory_is_found_before_assembling(change, spool):
    # Encrypted, of a later version, compressed, elsewhere, of another size: each raises something else when it is read.
    product = BlockProduct({(0, 0, 0): b"tile", (1, 0, 0): b"another"}, np.ones((4, 4, 3), np.uint8), {"a": np.ones(1)})
    spool.write(BLOCK, product)
    file = spool.folder / f"{BLOCK}{SUFFIX}"
    content = file.read_bytes()
    intact = read_all(spool, product)
    raised = set()
    for at in directory_of(content):
        damaged = bytearray(content)
        damaged[at] = change(content[at])
        file.write_bytes(damaged)
        try:
            found = read_all(spool, product)
        except DAMAGE as error:
            raised.add(type(error))
            assert set(spool.finished()) == set(), f"byte {at}"
            assert not file.exists()
        else:
            assert found == intact, f"byte {at}"
    assert zipfile.BadZipFile in raised
    assert raised & {RuntimeError, NotImplementedError, KeyError}


def test_checking_a_large_spool_can_be_interrupted(spool, product):
    for column in range(50):
        spool.write(BlockIndex(0, column), product)
    checking = spool.finished()
    assert next(checking).column < 50
    checking.close()
    assert len(list(spool.folder.iterdir())) == 50


@pytest.mark.parametrize("missing", ["reduced", "evidence.npz"])
def test_a_block_without_a_member_is_not_finished(missing, spool, product):
    spool.write(BLOCK, product)
    file = spool.folder / f"{BLOCK}{SUFFIX}"
    with zipfile.ZipFile(file) as archive:
        members = {name: archive.read(name) for name in archive.namelist() if name != missing}
    with zipfile.ZipFile(file, "w") as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    assert not spool.is_sound(BLOCK)
    assert set(spool.finished()) == set()


def test_nothing_is_unpickled(spool, product):
    spool.write(BLOCK, BlockProduct(product.tiles, product.reduced, {"object": np.array([{}], object)}))
    with spool.open(BLOCK) as file, pytest.raises(ValueError, match="allow_pickle"):
        file.arrays()


def test_discarding_and_removing(spool, product):
    spool.write(BLOCK, product)
    spool.write(BlockIndex(0, 0), product)
    spool.discard(BLOCK)
    assert set(spool.finished()) == {BlockIndex(0, 0)}
    spool.remove()
    assert not spool.folder.exists()
    assert set(spool.finished()) == set()


def test_the_same_work_has_the_same_folder():
    assert folder_name("f" * 64, KEY) == folder_name("f" * 64, dict(reversed(KEY.items())))


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("model_sha256", "1" * 64),
        ("settings", {"output.quality": 91, "compute.halo": 48}),
        ("settings", {"output.quality": 90, "compute.halo": 64}),
        ("numerics", "cpu-torch-bf16-w4"),
        ("numerics", "cpu-openvino-fp32-w4"),
        ("version", "wsi-denoise 1.1"),
        ("region", [0, 0, 96, 96]),
    ],
)
def test_whatever_changes_a_pixel_changes_the_folder(name, value):
    assert folder_name("f" * 64, {**KEY, name: value}) != folder_name("f" * 64, KEY)


def test_other_content_has_another_folder():
    assert folder_name("e" * 64, KEY) != folder_name("f" * 64, KEY)
    assert len(folder_name("f" * 64, KEY)) < 64
