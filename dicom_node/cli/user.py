"""``user``: who may associate by name (a file), and who may look at the reading worklist (the database).

A passcode comes from a prompt or standard input, never from the command line.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from dicom_node.cli.options import ConfigPath, exit_codes, read_config
from dicom_node.domain.audit import Setting
from dicom_node.domain.errors import CertificateError, ConfigError, NotFoundError
from dicom_node.domain.reading import Role

if TYPE_CHECKING:
    from dicom_node.pipeline.people import People

app = typer.Typer(
    no_args_is_help=True,
    help="People of the reading worklist (with --role), and users of [receive.identity] users_file who may associate.",
)

Name = Annotated[str, typer.Argument(help="The user's name.")]
Of = Annotated[
    Literal["web", "dicom"] | None,
    typer.Option(help="A person of the reading worklist, or a user who associates; where both have the name."),
]


@app.command()
def add(
    name: Name,
    role: Annotated[
        Role | None,
        typer.Option(help="Of a person of the reading worklist; without it, a user who associates is added."),
    ] = None,
    no_passcode: Annotated[
        bool,
        typer.Option(
            "--no-passcode",
            help="For an associating user the name alone is enough, and proves nothing; a person of the worklist "
            "then comes by a link, or is a program with a token.",
        ),
    ] = False,
    config: ConfigPath = None,
) -> None:
    """Add a user, or change role and passcode: typed twice, or the first line of standard input."""
    from dicom_node.security import passcodes

    with _administering(config, "user add", name):
        if role is not None:
            with _people(config) as people:
                new = people.put(name, role, None if no_passcode else _passcode().decode())
            typer.echo(f"{name!r} {'may look now' if new else 'changed'}, as {role.value}")
            return
        path = _users_file(config)
        users = passcodes.read_users(path) if path.exists() else {}
        known = passcodes.check_name(name) in users
        users[name] = passcodes.NO_PASSCODE if no_passcode else passcodes.hash_passcode(_passcode())
        passcodes.write_users(path, users)
        typer.echo(f"user {name!r} {'changed' if known else 'added'} in {path}")


@app.command()
def role(
    name: Name, role: Annotated[Role, typer.Argument(help="The new role.")], config: ConfigPath = None
) -> None:
    """Change the role of a person of the reading worklist, who must log in again."""
    with _administering(config, "user role", name), _people(config) as people:
        people.give_role(name, role)
        typer.echo(f"{name!r} is {role.value} now")


@app.command()
def remove(name: Name, of: Of = None, config: ConfigPath = None) -> None:
    """Remove a user. A person's sessions end at once; associations that are open go on."""
    from dicom_node.security import passcodes

    with _administering(config, "user remove", name):
        path = read_config(config).receive.identity.users_file
        users = passcodes.read_users(path) if path is not None and path.exists() else {}
        with _people(config) as people:
            looks = any(one.name == name for one in people.listed())
            if of is None and looks and name in users:
                raise ConfigError([f"--of: {name!r} may look and may associate; say web or dicom"])
            if of == "web" or (of is None and looks):
                people.remove(name)
                typer.echo(f"{name!r} may not look any more")
                return
        if path is None or name not in users:
            raise NotFoundError(f"there is no user {name!r}; see `dicom-node user list`")
        del users[name]
        passcodes.write_users(path, users)
        typer.echo(f"user {name!r} removed from {path}")


@app.command("list")
def list_(config: ConfigPath = None) -> None:
    """List people of the reading worklist, then users who may associate, without anything of their passcodes."""
    from dicom_node.security import passcodes

    with exit_codes():
        with _people(config) as people:
            for one in people.listed():
                told = "passcode" if one.passcode else "no passcode"
                typer.echo(
                    f"{one.name}\t{one.role.value}\t{told}\t{one.sessions} sessions\t{one.tokens} tokens"
                )
        path = read_config(config).receive.identity.users_file
        if path is not None and path.exists():
            for name, hashed in passcodes.read_users(path).items():
                told = "no passcode" if hashed == passcodes.NO_PASSCODE else "passcode"
                typer.echo(f"{name}\tassociates\t{told}")


@app.command()
def link(name: Name, config: ConfigPath = None) -> None:
    """Print a link that lets a person of the reading worklist in once, within 15 minutes."""
    from dicom_node import node

    with _administering(config, "user link", name):
        with _people(config) as people:
            token = people.link(name)
        typer.echo(f"{node.web_address(read_config(config))}login/link?token={token}")


@app.command()
def token(name: Name, config: ConfigPath = None) -> None:
    """Print a new token for programs that use the JSON API as this person; it is told only now."""
    with _administering(config, "user token", name), _people(config) as people:
        typer.echo(people.token(name))


@app.command()
def revoke(name: Name, config: ConfigPath = None) -> None:
    """Take back every token of a person's programs."""
    with _administering(config, "user revoke", name), _people(config) as people:
        typer.echo(f"{people.revoke(name)} tokens taken back")


@contextmanager
def _administering(config: Path | None, action: str, name: str) -> Iterator[None]:
    from dicom_node import node

    with (
        exit_codes(),
        node.administering(read_config(config), action, f"user/{name[:64]}", setting=Setting.USERS),
    ):
        yield


@contextmanager
def _people(config: Path | None) -> Iterator[People]:
    from dicom_node import node

    with node.open_node(read_config(config)) as opened:
        yield node.people(opened)


def _users_file(config: Path | None) -> Path:
    path = read_config(config).receive.identity.users_file
    if path is None:
        raise ConfigError(["receive.identity.users_file: is not set; name the file that holds the users"])
    return path


def _passcode() -> bytes:
    if sys.stdin.isatty():
        typed = str(typer.prompt("Passcode", hide_input=True, confirmation_prompt=True))
    else:
        typed = sys.stdin.readline().rstrip("\r\n")
    if not typed:
        raise CertificateError("the passcode is empty; type one, or give one line on standard input")
    return typed.encode()
