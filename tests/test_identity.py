import subprocess
import sys
from pathlib import Path

import pytest
from nacl.signing import SigningKey, VerifyKey

from swarmnode import identity
from swarmnode.errors import ConfigError

# RFC 8032, section 7.1, test 1
SEED = bytes.fromhex("9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60")
PUBLIC = bytes.fromhex("d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a")


def key_file(folder: Path, data: bytes, mode: int = 0o600) -> Path:
    path = folder / "key"
    path.write_bytes(data)
    path.chmod(mode)
    return path


def test_derives_the_public_key_of_the_rfc():
    assert identity.from_seed(SEED).public_key == PUBLIC


def test_peer_id_is_of_an_ed25519_key():
    assert identity.from_seed(SEED).peer_id.startswith("12D3KooW")


def test_refuses_a_seed_of_another_length():
    with pytest.raises(ValueError, match="32 bytes, not 31"):
        identity.from_seed(SEED[1:])


def test_seed_is_not_in_repr():
    me = identity.from_seed(SEED)
    assert repr(SEED) not in repr(me)
    assert SEED.hex() not in repr(me)
    assert "seed" not in repr(me)


def test_file_holds_libp2p_private_key(tmp_path):
    # protobuf: field 1 (type) varint 1 = Ed25519; field 2 (data) 0x40 = 64 bytes: seed, public key
    path = key_file(tmp_path, bytes.fromhex("08011240") + SEED + PUBLIC)
    assert identity.load(path) == identity.from_seed(SEED)


def test_created_key_loads_again_and_signs(tmp_path):
    made = identity.create(tmp_path / "new" / "key")
    assert identity.load(tmp_path / "new" / "key") == made
    signed = SigningKey(made.seed).sign(b"text")
    assert VerifyKey(made.public_key).verify(signed) == b"text"


def test_created_key_and_folder_are_private(tmp_path):
    path = tmp_path / "new" / "key"
    identity.create(path)
    assert path.stat().st_mode & 0o777 == 0o600
    assert path.parent.stat().st_mode & 0o777 == 0o700


def test_two_created_keys_differ(tmp_path):
    assert identity.create(tmp_path / "a") != identity.create(tmp_path / "b")


def test_never_overwrites_a_key(tmp_path):
    path = tmp_path / "key"
    made = identity.create(path)
    with pytest.raises(ConfigError, match="exists"):
        identity.create(path)
    assert identity.load(path) == made


def test_does_not_follow_a_dangling_link(tmp_path):
    target, link = tmp_path / "target", tmp_path / "link"
    link.symlink_to(target)
    with pytest.raises(ConfigError):
        identity.create(link)
    assert not target.exists()


def test_load_or_create_keeps_the_key(tmp_path):
    path = tmp_path / "key"
    assert identity.load_or_create(path) == identity.load_or_create(path)


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o660, 0o644])
def test_refuses_a_key_that_others_can_read(tmp_path, mode):
    path = key_file(tmp_path, bytes.fromhex("08011240") + SEED + PUBLIC, mode)
    with pytest.raises(ConfigError, match="chmod 600"):
        identity.load(path)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        bytes.fromhex("08011240") + SEED,  # public half missing
        bytes.fromhex("08011240") + SEED + PUBLIC + b"\0",
        bytes.fromhex("08001240") + SEED + PUBLIC,  # key type RSA
        SEED + PUBLIC + b"\0\0\0\0",
    ],
)
def test_refuses_a_malformed_key(tmp_path, data):
    with pytest.raises(ConfigError, match="not an Ed25519 key"):
        identity.load(key_file(tmp_path, data))


def test_refuses_halves_that_do_not_match(tmp_path):
    path = key_file(tmp_path, bytes.fromhex("08011240") + SEED + SEED)
    with pytest.raises(ConfigError, match="do not belong together"):
        identity.load(path)


def test_missing_key_says_how_to_make_one(tmp_path):
    with pytest.raises(ConfigError, match="swarmnode keys new"):
        identity.load(tmp_path / "absent")


def test_exported_key_can_be_imported(tmp_path):
    made = identity.create(tmp_path / "a")
    identity.export(tmp_path / "a", tmp_path / "copy")
    assert identity.import_key(tmp_path / "copy", tmp_path / "b") == made
    assert identity.load(tmp_path / "b") == made
    assert (tmp_path / "copy").stat().st_mode & 0o777 == 0o600


def test_errors_do_not_quote_the_key(tmp_path):
    path = key_file(tmp_path, SEED.hex().encode())
    with pytest.raises(ConfigError) as caught:
        identity.load(path)
    assert SEED.hex()[:8] not in str(caught.value)


def test_killed_while_writing_leaves_no_half_key(tmp_path):
    """A child that may write 0 bytes to files dies on its first write; the next start succeeds."""
    key = tmp_path / "identity.key"
    code = (
        "import resource, signal, sys; from pathlib import Path; from swarmnode import identity; "
        "signal.signal(signal.SIGXFSZ, signal.SIG_DFL); "
        "resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0)); "
        "identity.create(Path(sys.argv[1]))"
    )
    died = subprocess.run([sys.executable, "-c", code, str(key)], capture_output=True, check=False)
    assert died.returncode < 0
    assert not key.exists()
    assert identity.load_or_create(key) == identity.load(key)


@pytest.mark.parametrize("name", ["file/y", "file/x/y"])
def test_a_file_in_the_place_of_the_keys_folder_is_named(tmp_path, name):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(ConfigError, match="is not a folder") as caught:
        identity.create(tmp_path / name)
    assert str(tmp_path / name) in str(caught.value)
    assert "exists" not in str(caught.value)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file"]
