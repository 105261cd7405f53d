from __future__ import annotations

import stat
import threading

import pytest
from argon2 import PasswordHasher

from dicom_node.domain.errors import CertificateError
from dicom_node.security.passcodes import (
    FAILURES,
    WINDOW,
    Users,
    Verdict,
    hash_passcode,
    read_users,
    write_users,
)


class Seconds:
    def __init__(self) -> None:
        self.at = 0.0

    def __call__(self) -> float:
        return self.at


@pytest.fixture(scope="module")
def hashed() -> str:
    return PasswordHasher(time_cost=1, memory_cost=64, parallelism=1).hash(b"open sesame")


@pytest.fixture
def seconds() -> Seconds:
    return Seconds()


@pytest.fixture
def users(tmp_path, hashed, seconds) -> Users:
    write_users(tmp_path / "users", {"cr1": hashed, "open": "-"})
    return Users(tmp_path / "users", seconds)


def test_the_right_passcode_is_right_and_another_wrong(users):
    assert users.check("cr1", b"open sesame", "10.0.0.1") is Verdict.RIGHT
    assert users.check("cr1", b"open sesam", "10.0.0.1") is Verdict.WRONG
    assert users.check("nobody", b"open sesame", "10.0.0.1") is Verdict.WRONG


def test_a_hash_is_argon2id_at_the_cost_that_rfc_9106_recommends(tmp_path, seconds):
    made = hash_passcode(b"open sesame")
    assert made.startswith("$argon2id$v=19$m=65536,t=3,p=4$")
    write_users(tmp_path / "users", {"cr1": made})
    assert Users(tmp_path / "users", seconds).check("cr1", b"open sesame", "10.0.0.1") is Verdict.RIGHT


def test_a_name_alone_is_right_only_for_a_user_without_passcode(users):
    assert users.check("open", None, "10.0.0.1") is Verdict.RIGHT
    assert users.check("cr1", None, "10.0.0.1") is Verdict.WRONG
    assert users.check("nobody", None, "10.0.0.1") is Verdict.WRONG


def test_a_user_who_is_not_there_costs_as_much_as_one_who_is(users, monkeypatch):
    import argon2

    asked = []
    real = argon2.PasswordHasher.verify
    monkeypatch.setattr(
        argon2.PasswordHasher,
        "verify",
        lambda self, held, given: asked.append(argon2.extract_parameters(held)) or real(self, held, given),
    )
    users.check("cr1", b"wrong", "10.0.0.1")
    users.check("nobody", b"wrong", "10.0.0.2")
    assert len(asked) == 2
    assert asked[0] == asked[1]


def test_an_address_that_was_wrong_too_often_waits_and_others_do_not(users, seconds):
    for _ in range(FAILURES):
        assert users.check("cr1", None, "10.0.0.1") is Verdict.WRONG
    assert users.check("cr1", b"open sesame", "10.0.0.1") is Verdict.BUSY
    assert users.check("cr1", b"open sesame", "10.0.0.2") is Verdict.RIGHT
    seconds.at += WINDOW
    assert users.check("cr1", b"open sesame", "10.0.0.1") is Verdict.RIGHT


def test_a_flood_of_addresses_holds_a_bounded_memory(users):
    for number in range(5000):
        users.check("cr1", None, f"10.1.{number // 256}.{number % 256}")
    assert len(users._failures) <= 1024


def test_only_one_hash_is_computed_at_a_time(users, monkeypatch):
    import argon2

    running, most = [0], [0]
    lock = threading.Lock()

    def verify(_self, _held, _given):
        with lock:
            running[0] += 1
            most[0] = max(most[0], running[0])
        threading.Event().wait(0.01)
        with lock:
            running[0] -= 1
        return True

    monkeypatch.setattr(argon2.PasswordHasher, "verify", verify)
    threads = [threading.Thread(target=users.check, args=("cr1", b"x", "10.0.0.1")) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert most == [1]


def test_a_changed_file_is_used_by_the_next_check(users, tmp_path, hashed):
    write_users(tmp_path / "users", {"cr2": hashed})
    assert users.check("cr2", b"open sesame", "10.0.0.1") is Verdict.RIGHT
    assert users.check("cr1", b"open sesame", "10.0.0.1") is Verdict.WRONG


def test_users_are_written_for_their_owner_alone_and_read_back(tmp_path, hashed):
    path = tmp_path / "users"
    write_users(path, {"Dr. Müller": hashed, "open": "-"})
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert read_users(path) == {"Dr. Müller": hashed, "open": "-"}
    path.chmod(0o644)
    write_users(path, {})
    assert stat.S_IMODE(path.stat().st_mode) == 0o640
    assert [p.name for p in tmp_path.iterdir()] == ["users"]


@pytest.mark.parametrize("line", ["cr1:open sesame", "cr1", ":-", "a b c"])
def test_a_line_that_is_no_user_is_told_by_its_number_and_not_quoted(line, tmp_path):
    path = tmp_path / "users"
    path.write_text(f"# users\n{line}\n")
    with pytest.raises(CertificateError) as refused:
        read_users(path)
    assert "sesame" not in str(refused.value)
    assert "line 2" in str(refused.value) or "1 to 64 characters" in str(refused.value)


@pytest.mark.parametrize("name", ["", "a:b", "#a", " a", "a\n", "x" * 65])
def test_a_name_that_would_break_the_file_is_refused(name):
    from dicom_node.security.passcodes import check_name

    with pytest.raises(CertificateError):
        check_name(name)


@pytest.mark.parametrize("cost", ["m=1,t=3,p=4", "m=65536,t=3,p=-1", "m=65536,t=0,p=4"])
def test_a_hash_whose_cost_argon2_does_not_take_is_told_and_is_no_crash(tmp_path, seconds, cost):
    (tmp_path / "users").write_text(f"cr1:$argon2id$v=19${cost}$c29tZXNhbHRzb21l$aGFzaGhhc2hoYXNoaGFzaA\n")
    with pytest.raises(
        CertificateError, match="users: the first hash has parameters that argon2 does not take"
    ):
        Users(tmp_path / "users", seconds)
